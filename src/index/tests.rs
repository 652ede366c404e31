use std::process::Command;
use std::sync::Arc;

use bson::RawDocument;

use super::*;
use crate::image::RawImage;
use crate::open;

fn shell(script: &str, dir: &Path) {
    let out = Command::new("sh").args(["-e", "-c", script]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn documents(bytes: &[u8]) -> Vec<bson::Document> {
    let mut rest = bytes;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let len = usize::try_from(i32::from_le_bytes(rest[..4].try_into().unwrap())).unwrap();
        let raw = RawDocument::from_bytes(&rest[..len]).unwrap();
        assert_eq!(raw.iter().next().unwrap().unwrap().0.as_str(), "type");
        all.push(raw.try_into().unwrap());
        rest = &rest[len..];
    }
    all
}

fn at_path<'a>(docs: &'a [bson::Document], path: &str) -> &'a bson::Document {
    docs.iter().find(|d| d.get_str("path").is_ok_and(|p| p == path)).unwrap()
}

#[test]
fn the_documents_have_the_old_shapes() {
    let dir = tempfile::tempdir().unwrap();
    shell(
        "mkdir -p tree/sub; head -c 10000 /dev/zero | tr '\\0' x > tree/sub/file; ln -s sub/file tree/link
         mke2fs -q -t ext4 -L home -d tree fs.raw 8M
         truncate -s 12M disk.raw; echo 'start=2048,size=16384,type=83' | sfdisk -q disk.raw
         dd if=fs.raw of=disk.raw bs=1M seek=1 conv=notrunc status=none",
        dir.path(),
    );
    let disk: Disk = Arc::new(RawImage::open(&dir.path().join("disk.raw")).unwrap());
    let index = dir.path().join("disk.bson");
    let counts =
        write(&disk, &open::survey(&disk).unwrap(), &Extra { sequence: 7, ..Extra::default() }, &index).unwrap();
    assert_eq!((counts.file_systems, counts.files, counts.errors), (1, 5, 0));
    let docs = documents(&std::fs::read(&index).unwrap());
    let kinds: Vec<_> = docs.iter().map(|d| d.get_str("type").unwrap()).collect();
    assert_eq!(kinds, ["mbr", "partition", "fs", "bgd", "file", "file", "file", "file", "file", "metadata_filter"]);
    assert!(!docs[0].get_bool("gpt").unwrap());
    assert_eq!(docs[0].get_i64("sequence").unwrap(), 7);
    assert_eq!(docs[1].get_i32("partition_type").unwrap(), 0x83);
    assert_eq!(
        (docs[1].get_i32("first_sector_lba").unwrap(), docs[1].get_i32("final_sector_lba").unwrap()),
        (2048, 18432)
    );
    assert_eq!((docs[2].get_str("fs").unwrap(), docs[2].get_i64("superblock_sector").unwrap()), ("ext4", 2048));
    assert_eq!((docs[2].get_i64("block_size").unwrap(), docs[2].get_i64("superblock_offset").unwrap()), (1024, 1024));
    assert_eq!(docs[3].get_i32("sector").unwrap(), 2048 + 4);
    let file = at_path(&docs, "/sub/file");
    assert_eq!((file.get_i64("size").unwrap(), file.get_i64("mode").unwrap() & 0o17_0000), (10000, 0o10_0000));
    assert!(!file.get_bool("is_dir").unwrap());
    let sectors = file.get_array("sectors").unwrap();
    assert_eq!(sectors.len(), 10);
    let first = sectors[0].as_i32().unwrap();
    let mut at = [0; 1024];
    disk.read_at(u64::try_from(first).unwrap() * 512, &mut at).unwrap();
    assert_eq!(at, [b'x'; 1024]);
    let link = at_path(&docs, "/link");
    assert_eq!(link.get_str("link_name").unwrap(), "sub/file");
    let sub = at_path(&docs, "/sub");
    let names = sub.get_array("files").unwrap().iter().map(|b| match b {
        bson::Bson::Binary(b) => String::from_utf8_lossy(&b.bytes[8..]).into_owned(),
        other => panic!("{other:?}"),
    });
    assert_eq!(names.collect::<Vec<_>>(), [".", "..", "file"]);
    let bits = docs[9].get_binary_generic("bitarray").unwrap();
    assert_eq!(bits.len(), (12 << 20) / 4096 / 8);
    assert_eq!(bits[0] & 1, 1);
}

#[test]
fn a_failed_index_leaves_the_old_one_and_no_litter() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Disk = Arc::new(vec![0_u8; 1 << 20]);
    let survey = open::survey(&disk).unwrap();
    std::fs::create_dir(dir.path().join("index")).unwrap();
    assert!(write(&disk, &survey, &Extra::default(), &dir.path().join("index")).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(write(&disk, &survey, &Extra::default(), &dir.path().join("none/index")).is_err());
}
