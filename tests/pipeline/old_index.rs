//! An index as the C program wrote it: 32-bit sectors, keys that repeat, any binary subtype, no
//! extra fields. Made by hand, byte by byte, from the document shapes; nothing of the library is used.

pub struct Doc(Vec<u8>);

impl Doc {
    pub fn new(kind: &str) -> Self {
        Self(Vec::new()).text("type", kind)
    }

    fn put(mut self, kind: u8, key: &str, value: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend_from_slice(key.as_bytes());
        self.0.push(0);
        self.0.extend_from_slice(value);
        self
    }

    pub fn text(self, key: &str, value: &str) -> Self {
        let length = i32::try_from(value.len() + 1).unwrap().to_le_bytes();
        self.put(2, key, &[&length[..], value.as_bytes(), &[0]].concat())
    }

    pub fn int(self, key: &str, value: i32) -> Self {
        self.put(0x10, key, &value.to_le_bytes())
    }

    pub fn wide(self, key: &str, value: i64) -> Self {
        self.put(0x12, key, &value.to_le_bytes())
    }

    pub fn truth(self, key: &str, value: bool) -> Self {
        self.put(8, key, &[value.into()])
    }

    pub fn binary(self, key: &str, subtype: u8, value: &[u8]) -> Self {
        let length = i32::try_from(value.len()).unwrap().to_le_bytes();
        self.put(5, key, &[&length[..], &[subtype], value].concat())
    }

    pub fn array(self, key: &str, elements: Doc) -> Self {
        let bytes = elements.finish();
        self.put(4, key, &bytes)
    }

    pub fn empty() -> Self {
        Self(Vec::new())
    }

    pub fn finish(self) -> Vec<u8> {
        let length = i32::try_from(self.0.len() + 5).unwrap().to_le_bytes();
        [&length[..], &self.0, &[0]].concat()
    }
}

fn file(path: &str, inode: i32, is_dir: bool, size: i64) -> Doc {
    let mode = if is_dir { 0o40755 } else { 0o100_644 };
    Doc::new("file")
        .wide("inode_sector", 2048 + 140)
        .wide("inode_offset", i64::from(inode - 1) * 128 % 1024)
        .int("inode_num", inode)
        .text("path", path)
        .truth("is_dir", is_dir)
        .wide("size", size)
        .wide("mode", mode)
        .wide("link_count", 1)
        .wide("uid", 0)
        .wide("gid", 0)
        .wide("atime", 1_380_000_000)
        .wide("mtime", 1_380_000_000)
        .wide("ctime", 1_380_000_000)
}

fn entry(inode: u64, name: &str) -> Vec<u8> {
    [&inode.to_le_bytes()[..], name.as_bytes()].concat()
}

/// A disk with an MBR, one ext4 at sector 2048, and four names.
pub fn bytes() -> Vec<u8> {
    let dir = file("/", 2, true, 1024)
        .array("sectors", Doc::empty().int("0", 2048 + 500))
        .array("extents", Doc::empty())
        // One directory block: all its names have the same key. Subtype 2 has a second length in it
        // if it is used by the book; here it is not.
        .array(
            "files",
            Doc::empty()
                .binary("2548", 2, &entry(2, "."))
                .binary("2548", 0, &entry(2, ".."))
                .binary("2548", 0x80, &entry(11, "lost+found"))
                .binary("2548", 5, &entry(12, "log")),
        );
    let log = file("/log", 12, false, 3000)
        .array("sectors", Doc::empty().int("0", 3000).int("1", 3002).int("0", -2))
        .array("extents", Doc::empty().int("0", 4000));
    let link = file("/link", 13, false, 3)
        .text("link_name", "log")
        .array("sectors", Doc::empty())
        .array("extents", Doc::empty());
    let docs = [
        Doc::new("mbr").truth("gpt", false).int("sector", 0),
        Doc::new("partition")
            .int("pte_num", 1)
            .int("partition_type", 0x83)
            .int("first_sector_lba", 2048)
            .int("final_sector_lba", 18432),
        Doc::new("fs")
            .int("pte_num", 1)
            .text("fs", "ext4")
            .text("mount_point", "/")
            .int("num_block_groups", 1)
            .int("num_files", 13)
            .wide("superblock_sector", 2048)
            .wide("superblock_offset", 1024)
            .wide("block_size", 1024)
            .wide("blocks_per_group", 8192)
            .wide("inodes_per_group", 2048)
            .wide("inode_size", 128),
        Doc::new("bgd")
            .int("sector", 2052)
            .int("offset", 0)
            .wide("block_bitmap_sector_start", 2048 + 100)
            .wide("inode_bitmap_sector_start", 2048 + 120)
            .wide("inode_table_sector_start", 2048 + 140),
        dir,
        file("/lost+found", 11, true, 12288)
            .array("sectors", Doc::empty())
            .array("extents", Doc::empty())
            .array("files", Doc::empty()),
        log,
        link,
        Doc::new("metadata_filter").binary("bitarray", 0, &[0xFF; 288]),
    ];
    docs.into_iter().flat_map(Doc::finish).collect()
}
