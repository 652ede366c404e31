//! The documents of an NTFS volume: those of ext (see `ext.rs`), with these differences.
//!
//! - `fs`: `superblock_*` is the boot sector, `block_size` the cluster's, `inode_size` a record's;
//!   no groups
//! - `file`: `inode_*` is the MFT record; `sectors` and `runs` are those of the unnamed stream and
//!   leave out what is sparse, `runs` is always there; `extents`: sectors of extension records;
//!   `files` of a directory: all under the sector of its record; `streams`: array, key = name,
//!   value = size; `reparse_tag`
//! - `mode` has the file's type only; `generation` is the sequence number

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;

use super::doc::Doc;
use super::fields::{Number, attributes, text};
use super::filter::Filter;
use super::{Counts, SECTOR};
use crate::error::{Error, Result};
use crate::name::lossy;
use crate::ntfs::Ntfs;
use crate::ntfs::node::Node;
use crate::ntfs::record::kind;
use crate::open::Area;
use crate::tree::{Kind, Tree};
use crate::units::InodeNo;

/// Clusters of one file that are listed one by one.
const MAX_SECTORS: u64 = 1 << 16;
/// Directories below one another that are walked at most.
const MAX_DEPTH: u32 = 4096;

/// Write the documents of `area`, whose files are `fs`. Paths start with `prefix`.
pub fn write(
    fs: &Arc<Ntfs>,
    area: &Area,
    pte: u32,
    prefix: &[u8],
    filter: &mut Filter,
    out: &mut impl Write,
    counts: &mut Counts,
) -> io::Result<()> {
    counts.file_systems += 1;
    let mut crawl = Crawl { fs, offset: area.offset, filter, counts, key: Number::default(), seen: HashSet::new() };
    crawl.fs_doc(area, pte, prefix).write(out)?;
    crawl.all_files(prefix, out)
}

struct Todo {
    path: Vec<u8>,
    ino: InodeNo,
    depth: u32,
}

struct Crawl<'a> {
    fs: &'a Arc<Ntfs>,
    /// Where the volume starts on the disk, in bytes.
    offset: u64,
    filter: &'a mut Filter,
    counts: &'a mut Counts,
    key: Number,
    seen: HashSet<InodeNo>,
}

impl Crawl<'_> {
    fn fs_doc(&mut self, area: &Area, pte: u32, prefix: &[u8]) -> Doc {
        let volume = self.fs.volume();
        let geometry = volume.geometry();
        let totals = self.fs.stat_fs().unwrap_or_default();
        let mut doc = Doc::new("fs");
        doc.int("pte_num", pte.into()).str("fs", "ntfs").str("mount_point", &lossy(prefix));
        doc.int("num_block_groups", 0).int("num_files", totals.inodes.saturating_sub(totals.free_inodes));
        doc.u64("superblock_sector", self.offset / SECTOR).u64("superblock_offset", 0);
        doc.u64("block_size", geometry.cluster_size.into()).u64("blocks_per_group", 0);
        doc.u64("inodes_per_group", 0).u64("inode_size", geometry.record_size.into());
        doc.str("uuid", area.uuid.as_deref().unwrap_or_default())
            .str("label", area.label.as_deref().unwrap_or_default());
        doc.u64("offset", self.offset).u64("length", area.length);
        self.filter.set(self.offset..self.offset + SECTOR);
        let cluster = volume.cluster_size();
        for (lcn, len) in volume.mft().data.runs.iter().filter_map(|r| Some((r.lcn?, r.len))) {
            let start = self.offset.saturating_add(lcn * cluster);
            self.filter.set(start..start.saturating_add(len.saturating_mul(cluster)));
        }
        doc
    }

    fn all_files(&mut self, prefix: &[u8], out: &mut impl Write) -> io::Result<()> {
        let root = self.fs.root();
        let mut todo = vec![Todo { path: prefix.to_vec(), ino: root, depth: 0 }];
        while let Some(at) = todo.pop() {
            let mut doc = Doc::new("file");
            text(&mut doc, "path", "path_bytes", &at.path);
            let problem = self.file(&at, &mut doc, &mut todo).err();
            self.counts.files += 1;
            if let Some(problem) = problem {
                self.counts.errors += 1;
                doc.str("error", &problem.to_string());
            }
            doc.write(out)?;
        }
        Ok(())
    }

    fn file(&mut self, at: &Todo, doc: &mut Doc, todo: &mut Vec<Todo>) -> Result<()> {
        let node = self.fs.node(at.ino)?;
        let sector = self.record_sector(at.ino.0);
        doc.u64("inode_sector", sector.0).u64("inode_offset", sector.1).int("inode_num", at.ino.0);
        attributes(doc, &node.attr(self.fs.volume().cluster_size()));
        if let Some(target) = &node.target {
            text(doc, "link_name", "link_name_bytes", target);
        }
        self.content(&node, doc);
        if let Some(tag) = node.tag {
            doc.u64("reparse_tag", tag.into());
        }
        if node.kind != Kind::Dir {
            return Ok(());
        }
        if at.depth > MAX_DEPTH || !self.seen.insert(at.ino) {
            return Err(Error::corrupt("directory", at.ino.0, "one place in the tree", "another or too deep a one"));
        }
        let entries = self.fs.read_dir(at.ino)?;
        doc.array("files", |a| {
            let key = self.key.text(sector.0);
            for e in &entries {
                a.binary(key, &[&e.ino.0.to_le_bytes()[..], &e.name].concat());
            }
        });
        let stem = if at.path.last() == Some(&b'/') { at.path.clone() } else { [&at.path[..], b"/"].concat() };
        let below = entries.into_iter().map(|e| (e.ino, [&stem[..], &e.name].concat()));
        todo.extend(below.map(|(ino, path)| Todo { path, ino, depth: at.depth + 1 }));
        Ok(())
    }

    /// Sector of a record on the disk, and bytes from there.
    fn record_sector(&self, n: u64) -> (u64, u64) {
        let volume = self.fs.volume();
        let offset = n.saturating_mul(volume.geometry().record_size.into());
        let at = volume.place(&volume.mft().data, offset).map_or(0, |at| at.saturating_add(self.offset));
        (at / SECTOR, at % SECTOR)
    }

    fn content(&mut self, node: &Node, doc: &mut Doc) {
        let cluster = self.fs.volume().cluster_size();
        let data = node.file.attribute(kind::DATA).and_then(|a| a.non_resident());
        let at = |lcn: u64| self.offset.saturating_add(lcn.saturating_mul(cluster));
        let stored = || data.iter().flat_map(|n| &n.runs).filter_map(|r| Some((r.vcn, r.lcn?, r.len)));
        let total = stored().fold(0_u64, |n, (_, _, len)| n.saturating_add(len));
        doc.array("sectors", |a| {
            for (vcn, lcn, len) in stored().filter(|_| total <= MAX_SECTORS) {
                for n in 0..len {
                    a.int(self.key.text(vcn + n), at(lcn + n) / SECTOR);
                }
            }
        });
        let run = |(vcn, lcn, len): (u64, u64, u64)| {
            [vcn.saturating_mul(cluster), at(lcn), len.saturating_mul(cluster), 0].map(u64::to_le_bytes)
        };
        doc.binary("runs", stored().flat_map(run).collect::<Vec<_>>().as_flattened());
        doc.array("extents", |a| {
            for n in &node.file.extensions {
                let sector = self.record_sector(*n).0;
                a.u64(self.key.text(sector), sector);
            }
        });
        let streams = node.streams();
        if !streams.is_empty() {
            doc.array("streams", |a| {
                for (name, ino) in &streams {
                    a.u64(&lossy(name), node.stream(*ino).map_or(0, |s| s.size()));
                }
            });
        }
    }
}
