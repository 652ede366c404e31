//! The documents of an ext2, ext3 or ext4 file system.
//!
//! Fields of a `file` document, in this order:
//! - `inode_sector`, `inode_offset` (i64): start of the inode's block on the disk, and bytes from there;
//!   `inode_num` (i32); `path` (string; exact bytes in `path_bytes` if they are not UTF-8); `is_dir`
//! - `size`, `mode` (with the file type), `link_count`, `uid`, `gid`, `atime`, `mtime`, `ctime`
//!   (seconds): i64; nanoseconds of the three times: `atime_nsec`, `mtime_nsec`, `ctime_nsec` (i32);
//!   `crtime`, `crtime_nsec` where there is one; `generation` (i64)
//! - `link_name` of a symbolic link (`link_name_bytes`)
//! - `sectors`: array, key = block within the file, value = first sector of that block; left out
//!   when a file has more than [`MAX_SECTORS`] blocks. `runs`: array of binaries, each five u64
//!   little-endian: byte offset in the file, on the disk, length, 1 if it reads as zeros, 0
//! - `extents`: array, key = value = first sector of a block that holds the file's block map
//! - `files` of a directory: array, key = first sector of the directory block, value = inode as
//!   u64 little-endian and the name's bytes, also `.` and `..`
//! - `error`: what could not be read

use std::io::{self, Write};
use std::sync::Arc;

use super::doc::Doc;
use super::filter::Filter;
use super::{Counts, SECTOR};
use crate::error::Result;
use crate::ext4::Ext4;
use crate::ext4::blocks::Blocks;
use crate::ext4::dir;
use crate::ext4::inode::Inode;
use crate::ext4::map::{Mapping, Run};
use crate::listing::{self, Depth, Record};
use crate::lookup::Place;
use crate::name::{GuestPath, lossy};
use crate::open::Area;
use crate::tree::{Attr, Kind, Tree};
use crate::units::{BlockNo, InodeNo};

/// The superblock lies 1024 bytes behind the volume's start.
const SUPERBLOCK_OFFSET: u64 = 1024;
/// Blocks of one file that are listed one by one, for old readers.
const MAX_SECTORS: u64 = 1 << 16;

/// Write the documents of `area`, if its files can be read. Paths start with `prefix`.
pub fn write(
    area: &Area,
    pte: u32,
    prefix: &[u8],
    filter: &mut Filter,
    out: &mut impl Write,
    counts: &mut Counts,
) -> io::Result<()> {
    let Some(fs) = &area.files else { return Ok(()) };
    counts.file_systems += 1;
    let mut crawl = Crawl { fs: fs.clone(), offset: area.offset, filter };
    crawl.fs_doc(area, pte, prefix).write(out)?;
    crawl.group_docs(out)?;
    let root = Place::File { tree: fs.clone(), ino: fs.root() };
    listing::walk(&root, GuestPath(prefix.to_vec()), Depth::default(), |record| {
        counts.files += 1;
        let (doc, error) = crawl.file_doc(record);
        counts.errors += u64::from(error);
        doc.write(out)
    })
}

struct Crawl<'a> {
    fs: Arc<Ext4>,
    /// Where the volume starts on the disk, in bytes.
    offset: u64,
    filter: &'a mut Filter,
}

impl Crawl<'_> {
    fn block_size(&self) -> u64 {
        self.fs.geometry().sb.block_size.into()
    }

    /// Byte on the disk of a block.
    fn at(&self, block: u64) -> u64 {
        self.offset.saturating_add(block.saturating_mul(self.block_size()))
    }

    fn sector(&self, block: u64) -> u64 {
        self.at(block) / SECTOR
    }

    fn is_metadata(&mut self, block: u64, count: u64) {
        self.filter.set(self.at(block)..self.at(block.saturating_add(count)));
    }

    fn fs_doc(&mut self, area: &Area, pte: u32, prefix: &[u8]) -> Doc {
        let sb = self.fs.geometry().sb.clone();
        let files = u64::from(sb.inodes.saturating_sub(sb.free_inodes).saturating_sub(sb.first_inode)) + 2;
        let mut doc = Doc::new("fs");
        doc.int("pte_num", pte.into()).str("fs", self.fs.kind()).str("mount_point", &lossy(prefix));
        doc.int("num_block_groups", sb.groups()).int("num_files", files);
        doc.u64("superblock_sector", self.offset / SECTOR).u64("superblock_offset", SUPERBLOCK_OFFSET);
        doc.u64("block_size", sb.block_size.into()).u64("blocks_per_group", sb.blocks_per_group.into());
        doc.u64("inodes_per_group", sb.inodes_per_group.into()).u64("inode_size", sb.inode_size.into());
        doc.str("uuid", area.uuid.as_deref().unwrap_or_default())
            .str("label", area.label.as_deref().unwrap_or_default());
        doc.u64("offset", self.offset).u64("length", area.length).u64("mkfs_time", sb.mkfs_time.into());
        self.filter.set(self.offset + SUPERBLOCK_OFFSET..self.offset + 2 * SUPERBLOCK_OFFSET);
        doc
    }

    fn group_docs(&mut self, out: &mut impl Write) -> io::Result<()> {
        let groups = self.fs.geometry().groups.clone();
        let table = self.fs.geometry().table_blocks();
        for g in groups.iter() {
            let at = self.offset.saturating_add(g.at);
            let mut doc = Doc::new("bgd");
            doc.int("sector", at / SECTOR).int("offset", at % SECTOR);
            doc.u64("block_bitmap_sector_start", self.sector(g.block_bitmap.0));
            doc.u64("inode_bitmap_sector_start", self.sector(g.inode_bitmap.0));
            doc.u64("inode_table_sector_start", self.sector(g.inode_table.0));
            doc.write(out)?;
            self.filter.set(at..at + 1);
            self.is_metadata(g.block_bitmap.0, 1);
            self.is_metadata(g.inode_bitmap.0, 1);
            self.is_metadata(g.inode_table.0, table);
        }
        Ok(())
    }

    /// The document of a name, and whether something of its file could not be read.
    fn file_doc(&mut self, r: &Record) -> (Doc, bool) {
        let mut doc = Doc::new("file");
        let mut error = r.error.clone();
        match &r.attr {
            Some(attr) => {
                self.inode(&mut doc, attr.ino);
                path(&mut doc, "path", "path_bytes", &r.path.0);
                attributes(&mut doc, attr);
                if let Some(target) = &r.target {
                    path(&mut doc, "link_name", "link_name_bytes", target);
                }
                let mapped = self.content(&mut doc, attr);
                error = error.or(mapped.err().map(|e| e.to_string()));
            }
            None => path(&mut doc, "path", "path_bytes", &r.path.0),
        }
        if let Some(error) = &error {
            doc.str("error", error);
        }
        (doc, error.is_some())
    }

    fn inode(&self, doc: &mut Doc, ino: InodeNo) {
        let at = self.offset.saturating_add(self.fs.geometry().inode_at(ino));
        let within = at % self.block_size();
        doc.u64("inode_sector", (at - within) / SECTOR).u64("inode_offset", within).int("inode_num", ino.0);
    }

    /// Where the file's bytes lie.
    fn content(&mut self, doc: &mut Doc, attr: &Attr) -> Result<()> {
        let fs = self.fs.clone();
        let (geometry, blocks) = (fs.geometry(), fs.blocks());
        let Some(inode) = geometry.inode(blocks, attr.ino)? else { return Ok(()) };
        let map = geometry.mapping(blocks, attr.ino, &inode);
        let empty = Mapping::default();
        let known = map.as_ref().unwrap_or(&empty);
        self.sectors(doc, known);
        for node in &known.nodes {
            self.is_metadata(node.0, 1);
        }
        doc.array("extents", |a| {
            let mut key = Number::default();
            for node in &known.nodes {
                let sector = self.sector(node.0);
                a.u64(key.text(sector), sector);
            }
        });
        if attr.kind == Kind::Dir {
            self.entries(doc, known, &inode);
        }
        map.map(drop)
    }

    fn sectors(&self, doc: &mut Doc, map: &Mapping) {
        let total = map.runs.iter().fold(0_u64, |n, r| n.saturating_add(r.len));
        let mut key = Number::default();
        doc.array("sectors", |a| {
            for r in map.runs.iter().filter(|_| total <= MAX_SECTORS) {
                for n in 0..r.len {
                    a.int(key.text(r.logical + n), self.sector(r.physical + n));
                }
            }
        });
        doc.array("runs", |a| {
            for (n, r) in (0..).zip(&map.runs) {
                a.binary(key.text(n), &self.run(r));
            }
        });
    }

    fn run(&self, r: &Run) -> [u8; 40] {
        let size = self.block_size();
        let fields =
            [r.logical.saturating_mul(size), self.at(r.physical), r.len.saturating_mul(size), r.unwritten.into(), 0];
        let mut bytes = [0; 40];
        for (to, field) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *to = field.to_le_bytes();
        }
        bytes
    }

    fn entries(&mut self, doc: &mut Doc, map: &Mapping, inode: &Inode) {
        let fs = self.fs.clone();
        let (blocks, has_kinds) = (fs.blocks(), fs.geometry().has_kinds());
        let size = self.block_size();
        let end = inode.size.div_ceil(size);
        let mut value = Vec::new();
        let mut key = Number::default();
        doc.array("files", |a| {
            for run in map.runs.iter().filter_map(|r| r.cut(0, end)).filter(|r| !r.unwritten) {
                self.is_metadata(run.physical, run.len);
                for block in run.physical..run.physical + run.len {
                    let sector = self.sector(block);
                    let Ok(bytes) = blocks.read(BlockNo(block)) else { continue };
                    // The listing has told of damage in this directory.
                    let _ = dir::parse(&bytes, 0, has_kinds, |e| {
                        value.clear();
                        value.extend_from_slice(&u64::from(e.ino).to_le_bytes());
                        value.extend_from_slice(e.name);
                        a.binary(key.text(sector), &value);
                    });
                }
            }
        });
    }
}

fn path(doc: &mut Doc, key: &str, exact: &str, bytes: &[u8]) {
    doc.str(key, &lossy(bytes));
    if std::str::from_utf8(bytes).is_err() {
        doc.binary(exact, bytes);
    }
}

fn attributes(doc: &mut Doc, a: &Attr) {
    doc.bool("is_dir", a.kind == Kind::Dir).u64("size", a.size).u64("mode", mode(a)).u64("link_count", a.nlink.into());
    doc.u64("uid", a.uid.unwrap_or(0).into()).u64("gid", a.gid.unwrap_or(0).into());
    doc.i64("atime", a.atime.secs).i64("mtime", a.mtime.secs).i64("ctime", a.ctime.secs);
    doc.int("atime_nsec", a.atime.nanos.into()).int("mtime_nsec", a.mtime.nanos.into());
    doc.int("ctime_nsec", a.ctime.nanos.into());
    if let Some(t) = a.crtime {
        doc.i64("crtime", t.secs).int("crtime_nsec", t.nanos.into());
    }
    doc.u64("generation", a.generation);
}

/// Permission bits and the file type, as in `st_mode`.
fn mode(a: &Attr) -> u64 {
    let kind = match a.kind {
        Kind::Fifo => 0o01_0000,
        Kind::Chr => 0o02_0000,
        Kind::Dir => 0o04_0000,
        Kind::Blk => 0o06_0000,
        Kind::File | Kind::Reparse => 0o10_0000,
        Kind::Symlink => 0o12_0000,
        Kind::Sock => 0o14_0000,
    };
    kind | u64::from(a.mode.unwrap_or(0))
}

/// Numbers as keys, without a new string for each.
#[derive(Default)]
struct Number(String);

impl Number {
    fn text(&mut self, n: u64) -> &str {
        use std::fmt::Write as _;
        self.0.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{n}");
        &self.0
    }
}
