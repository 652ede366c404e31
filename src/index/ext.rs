//! The documents of an ext2, ext3 or ext4 file system.
//!
//! Fields of a `file` document, in this order:
//! - `inode_sector`, `inode_offset` (i64): start of the inode's block on the disk, and bytes from there;
//!   `inode_num` (i32); `path` (string; exact bytes in `path_bytes` if they are not UTF-8); `is_dir`
//! - `size`, `mode` (with the file type), `link_count`, `uid`, `gid`, `atime`, `mtime`, `ctime`
//!   (seconds): i64; `times_ns`: binary, the same three and the time of creation (or the smallest
//!   number) as i64 little-endian nanoseconds; `generation`
//! - `link_name` of a symbolic link (`link_name_bytes`)
//! - `sectors`: array, key = block within the file, value = first sector of that block; empty
//!   when a file has more than [`MAX_SECTORS`] blocks. Then, and when some of them were never written,
//!   `runs`: binary, for each contiguous piece four u64 little-endian: byte offset in the file, on the
//!   disk, length, 1 if it reads as zeros
//! - `extents`: array, key = value = first sector of a block that holds the file's block map
//! - `files` of a directory: array, key = first sector of the directory block, value = inode as
//!   u64 little-endian and the name's bytes, also `.` and `..`
//! - `error`: what could not be read
//!
//! Names come directory by directory, in the order in which they lie there.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;

use super::doc::Doc;
use super::fields::{Number, attributes, text};
use super::filter::Filter;
use super::inodes::Inodes;
use super::{Counts, SECTOR};
use crate::error::{Error, Result};
use crate::ext4::Ext4;
use crate::ext4::blocks::Blocks;
use crate::ext4::inode::Inode;
use crate::ext4::map::{Mapping, Run};
use crate::ext4::{dir, fs};
use crate::name::lossy;
use crate::open::Area;
use crate::tree::{Attr, Kind};
use crate::units::{BlockNo, InodeNo};

/// The superblock lies 1024 bytes behind the volume's start.
const SUPERBLOCK_OFFSET: u64 = 1024;
/// Blocks of one file that are listed one by one, for old readers.
const MAX_SECTORS: u64 = 1 << 16;
/// Directories below one another that are walked at most.
const MAX_DEPTH: u32 = 4096;
/// Bytes of a directory that are read at once.
const DIR_READ: u64 = 256 << 10;

/// Write the documents of `area`, whose files are `fs`. Paths start with `prefix`.
pub fn write(
    fs: &Arc<Ext4>,
    area: &Area,
    pte: u32,
    prefix: &[u8],
    filter: &mut Filter,
    out: &mut impl Write,
    counts: &mut Counts,
) -> io::Result<()> {
    counts.file_systems += 1;
    let mut crawl = Crawl {
        fs: fs.clone(),
        offset: area.offset,
        filter,
        counts,
        doc: Doc::new(""),
        inodes: Inodes::default(),
        seen: HashSet::new(),
        todo: Vec::new(),
        names: Names::default(),
        buf: Vec::new(),
        key: Number::default(),
    };
    crawl.fs_doc(area, pte, prefix).write(out)?;
    crawl.group_docs(out)?;
    crawl.all_files(prefix, out)
}

/// A directory that is to be walked.
struct Todo {
    path: Vec<u8>,
    ino: InodeNo,
    depth: u32,
}

/// The names found in one directory, in one piece of memory.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    /// End of the name in `bytes`, and inode.
    entries: Vec<(usize, u32)>,
}

impl Names {
    fn push(&mut self, e: &dir::Entry<'_>) {
        if !e.is_dot() {
            self.bytes.extend_from_slice(e.name);
            self.entries.push((self.bytes.len(), e.ino));
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], InodeNo)> {
        let mut start = 0;
        self.entries.iter().map(move |(end, ino)| {
            let name = self.bytes.get(start..*end).unwrap_or_default();
            start = *end;
            (name, InodeNo(u64::from(*ino)))
        })
    }
}

struct Crawl<'a> {
    fs: Arc<Ext4>,
    /// Where the volume starts on the disk, in bytes.
    offset: u64,
    filter: &'a mut Filter,
    counts: &'a mut Counts,
    // Memory that is used again for every file.
    doc: Doc,
    inodes: Inodes,
    seen: HashSet<InodeNo>,
    todo: Vec<Todo>,
    names: Names,
    buf: Vec<u8>,
    key: Number,
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

    fn all_files(&mut self, prefix: &[u8], out: &mut impl Write) -> io::Result<()> {
        self.todo.push(Todo { path: prefix.to_vec(), ino: fs::ROOT, depth: 0 });
        while let Some(dir) = self.todo.pop() {
            self.directory(&dir, out)?;
            let names = std::mem::take(&mut self.names);
            let mut path = dir.path;
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            let stem = path.len();
            for (name, ino) in names.iter() {
                path.truncate(stem);
                path.extend_from_slice(name);
                self.name(&path, ino, dir.depth, out)?;
            }
            self.names = names;
        }
        Ok(())
    }

    /// Write the document of a directory and gather its names.
    fn directory(&mut self, dir: &Todo, out: &mut impl Write) -> io::Result<()> {
        self.names.bytes.clear();
        self.names.entries.clear();
        let problem = match self.inode(dir.ino) {
            Ok(inode) => {
                self.start(&dir.path, &inode.attr(dir.ino));
                self.content(dir.ino, &inode).and_then(|map| self.entries(dir, &map, &inode)).err()
            }
            Err(e) => {
                self.start_unread(&dir.path);
                Some(e)
            }
        };
        self.end(problem.map(|e| e.to_string()), out)
    }

    /// Write the document of a name that is no directory to be walked; note one that is.
    fn name(&mut self, path: &[u8], ino: InodeNo, depth: u32, out: &mut impl Write) -> io::Result<()> {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(e) => {
                self.start_unread(path);
                return self.end(Some(e.to_string()), out);
            }
        };
        let mut problem = None;
        if inode.kind == Kind::Dir {
            if depth >= MAX_DEPTH {
                problem = Some(format!("more than {MAX_DEPTH} directories below one another"));
            } else if ino == fs::ROOT || !self.seen.insert(ino) {
                problem = Some(format!("directory inode {ino} has another name and was listed there"));
            } else {
                self.todo.push(Todo { path: path.to_vec(), ino, depth: depth + 1 });
                return Ok(());
            }
        }
        self.start(path, &inode.attr(ino));
        if inode.kind == Kind::Symlink {
            match self.fs.geometry().link_target(self.fs.blocks(), ino, &inode) {
                Ok(target) => text(&mut self.doc, "link_name", "link_name_bytes", &target),
                Err(e) => problem = Some(e.to_string()),
            }
        }
        let content = self.content(ino, &inode);
        self.end(problem.or(content.err().map(|e| e.to_string())), out)
    }

    fn inode(&mut self, ino: InodeNo) -> Result<Inode> {
        self.inodes.read(&self.fs, ino)?.ok_or(Error::NotFound)
    }

    fn start_unread(&mut self, path: &[u8]) {
        self.doc.start("file");
        text(&mut self.doc, "path", "path_bytes", path);
    }

    fn start(&mut self, path: &[u8], attr: &Attr) {
        self.doc.start("file");
        let at = self.offset.saturating_add(self.fs.geometry().inode_at(attr.ino));
        let within = at % self.block_size();
        self.doc.u64("inode_sector", (at - within) / SECTOR).u64("inode_offset", within).int("inode_num", attr.ino.0);
        text(&mut self.doc, "path", "path_bytes", path);
        attributes(&mut self.doc, attr);
    }

    fn end(&mut self, problem: Option<String>, out: &mut impl Write) -> io::Result<()> {
        self.counts.files += 1;
        if let Some(problem) = problem {
            self.counts.errors += 1;
            self.doc.str("error", &problem);
        }
        self.doc.write(out)
    }

    /// Say where the file's bytes lie.
    fn content(&mut self, ino: InodeNo, inode: &Inode) -> Result<Mapping> {
        let map = self.fs.geometry().mapping(self.fs.blocks(), ino, inode);
        let empty = Mapping::default();
        let known = map.as_ref().unwrap_or(&empty);
        for node in &known.nodes {
            self.is_metadata(node.0, 1);
        }
        let (mut doc, mut key) = (std::mem::take(&mut self.doc), std::mem::take(&mut self.key));
        let total = known.runs.iter().fold(0_u64, |n, r| n.saturating_add(r.len));
        doc.array("sectors", |a| {
            for r in known.runs.iter().filter(|_| total <= MAX_SECTORS) {
                for n in 0..r.len {
                    a.int(key.text(r.logical + n), self.sector(r.physical + n));
                }
            }
        });
        if total > MAX_SECTORS || known.runs.iter().any(|r| r.unwritten) {
            self.buf.clear();
            for r in &known.runs {
                let run = self.run(r);
                self.buf.extend_from_slice(run.as_flattened());
            }
            doc.binary("runs", &self.buf);
        }
        doc.array("extents", |a| {
            for node in &known.nodes {
                let sector = self.sector(node.0);
                a.u64(key.text(sector), sector);
            }
        });
        (self.doc, self.key) = (doc, key);
        map
    }

    fn run(&self, r: &Run) -> [[u8; 8]; 4] {
        let size = self.block_size();
        [r.logical.saturating_mul(size), self.at(r.physical), r.len.saturating_mul(size), r.unwritten.into()]
            .map(u64::to_le_bytes)
    }

    /// Read a directory: its names into `names`, its blocks into the document.
    fn entries(&mut self, dir: &Todo, map: &Mapping, inode: &Inode) -> Result<()> {
        let fs = self.fs.clone();
        if inode.is_inline() {
            return fs.geometry().each_entry(fs.blocks(), dir.ino, inode, |e| self.names.push(&e));
        }
        let end = inode.size.div_ceil(self.block_size());
        let mut first_error = None;
        let (mut doc, mut buf) = (std::mem::take(&mut self.doc), std::mem::take(&mut self.buf));
        doc.array("files", |a| {
            for run in map.runs.iter().filter_map(|r| r.cut(0, end)).filter(|r| !r.unwritten) {
                self.is_metadata(run.physical, run.len);
                let read = self.entries_of_run(&run, &mut buf, a);
                first_error = first_error.take().or(read.err());
            }
        });
        (self.doc, self.buf) = (doc, buf);
        first_error.map_or(Ok(()), Err)
    }

    /// Damage in one block hides the rest of that block only; the first such error comes back.
    fn entries_of_run(&mut self, run: &Run, buf: &mut Vec<u8>, files: &mut Doc) -> Result<()> {
        let fs = self.fs.clone();
        let has_kinds = fs.geometry().has_kinds();
        let size = self.block_size();
        let step = (DIR_READ / size).max(1);
        let mut first_error = None;
        let mut value = Vec::new();
        for start in (run.physical..run.physical + run.len).step_by(usize::try_from(step).unwrap_or(1)) {
            let count = step.min(run.physical + run.len - start);
            buf.resize(usize::try_from(count * size).unwrap_or(0), 0);
            fs.blocks().read_bytes(BlockNo(start), 0, buf)?;
            let blocks = buf.chunks_exact(usize::try_from(size).unwrap_or(usize::MAX));
            for (block, bytes) in (start..).zip(blocks) {
                let sector = self.sector(block);
                let key = self.key.text(sector);
                let parsed = dir::parse(bytes, block.saturating_mul(size), has_kinds, |e| {
                    value.clear();
                    value.extend_from_slice(&u64::from(e.ino).to_le_bytes());
                    value.extend_from_slice(e.name);
                    files.binary(key, &value);
                    self.names.push(&e);
                });
                first_error = first_error.or(parsed.err());
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}
