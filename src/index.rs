//! The index of a disk: concatenated BSON documents, `type` first, of the shapes that the C
//! gammaray of 2013 wrote, so that its readers understand them. What is new stands in extra
//! fields: 64-bit sectors, identity, version, sequence, nanoseconds, exact bytes of odd names.
//!
//! | type | when | fields |
//! | --- | --- | --- |
//! | `mbr` | first, always | gpt, sector; version, sequence, disk_size, image |
//! | `gpt` | on GPT disks | |
//! | `partition` | each | pte_num, partition_type or partition_type_guid, first_sector_lba, final_sector_lba |
//! | `fs` | each readable | pte_num, fs, mount_point, num_block_groups, num_files, superblock_sector, superblock_offset, block_size, blocks_per_group, inodes_per_group, inode_size; uuid, label, sector64 |
//! | `bgd` | each group | sector, offset, block_bitmap_sector_start, inode_bitmap_sector_start, inode_table_sector_start |
//! | `file` | each name | inode_sector, inode_offset, inode_num, path, is_dir, size, mode, link_count, uid, gid, atime, mtime, ctime, link_name, sectors, extents, files; see `index/ext.rs` |
//! | `metadata_filter` | last | bitarray: one bit per 4 KiB of the disk; blocks: see `index/snapshot.rs` |
//!
//! Sectors are of 512 bytes and count from the disk's start, whatever the table counts by, but for
//! `*_sector_lba`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::engine::{Engine, EngineOptions, Payload};
use crate::event::Event;
use crate::image::Disk;
use crate::open::{Area, Files, Survey};
use crate::partition::{Partition, PartitionType, Scheme};
use crate::ranges::RangeSet;

mod behind;
mod doc;
mod elements;
mod ext;
mod fields;
mod filter;
mod inodes;
mod ntfs;
pub mod read;
pub mod snapshot;

use doc::Doc;
use filter::Filter;

/// Version of our extra fields.
const VERSION: i32 = 2;
const SECTOR: u64 = 512;

/// What was indexed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// File systems.
    pub file_systems: u64,
    /// Names.
    pub files: u64,
    /// Names whose file could not be read whole.
    pub errors: u64,
}

/// What an index holds besides the files.
#[derive(Clone, Default, Debug)]
pub struct Extra {
    /// The last event that the index includes.
    pub sequence: u64,
    /// The image, for those who have the index only.
    pub image: Option<PathBuf>,
    /// Places of the disk whose bytes are kept: see [`snapshot`].
    pub keep: RangeSet,
}

/// The places of `disk` that inference reads when it starts.
///
/// # Errors
/// The disk cannot be read.
pub fn needed(disk: &Disk) -> crate::error::Result<RangeSet> {
    let watched = snapshot::Watched::new(disk.clone());
    let options = EngineOptions { vm: String::new(), payload: Payload::None };
    Engine::new(watched.clone(), options, Box::new(Vec::<Event>::new()))?;
    Ok(watched.seen())
}

/// Write the index of `disk` to `path`: all of it or nothing.
///
/// Errors: those of writing. What cannot be read of the disk is told in the documents.
pub fn write(disk: &Disk, survey: &Survey, extra: &Extra, path: &Path) -> io::Result<Counts> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Into::into);
    let file = tempfile::Builder::new().prefix(".gammaray-index-").tempfile_in(&folder)?;
    let counts = behind::write(file.as_file(), |out| write_documents(disk, survey, extra, out))?;
    share(file.as_file())?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(&folder)?.sync_all()?;
    Ok(counts)
}

/// Temporary files are private; an index is for everyone whom the umask lets.
fn share(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::sys::stat::umask(umask);
    file.set_permissions(std::fs::Permissions::from_mode(0o666 & !umask.bits()))
}

/// Write all documents to `out`.
fn write_documents(disk: &Disk, survey: &Survey, extra: &Extra, out: &mut impl Write) -> io::Result<Counts> {
    let mut filter = Filter::new(disk.size());
    let mut doc = Doc::new("mbr");
    doc.bool("gpt", survey.table.scheme == Scheme::Gpt).i32("sector", 0);
    doc.i32("version", VERSION).u64("sequence", extra.sequence).u64("disk_size", disk.size());
    if let Some(image) = &extra.image {
        fields::text(&mut doc, "image", "image_bytes", image.as_os_str().as_encoded_bytes());
    }
    doc.write(out)?;
    filter.set(0..u64::from(survey.table.sector_size));
    if survey.table.scheme == Scheme::Gpt {
        Doc::new("gpt").write(out)?;
        filter.set(0..34 * u64::from(survey.table.sector_size));
    }
    let mut counts = Counts::default();
    let shown: Vec<&Area> = survey.areas.iter().filter(|a| a.files.is_some()).collect();
    if survey.table.scheme == Scheme::Whole {
        for area in shown {
            file_system(area, 0, b"/", &mut filter, out, &mut counts)?;
        }
    } else {
        for (p, area) in survey.table.partitions.iter().zip(&survey.areas) {
            partition(p, survey.table.sector_size).write(out)?;
            let prefix = if shown.len() == 1 { "/".to_owned() } else { format!("/{}", area.name) };
            file_system(area, p.number, prefix.as_bytes(), &mut filter, out, &mut counts)?;
        }
    }
    let mut last = filter.into_doc();
    if !extra.keep.is_empty() {
        last.binary("blocks", &snapshot::pack(disk, &extra.keep)?);
    }
    last.write(out)?;
    Ok(counts)
}

fn file_system(
    area: &Area,
    pte: u32,
    prefix: &[u8],
    filter: &mut Filter,
    out: &mut impl Write,
    counts: &mut Counts,
) -> io::Result<()> {
    match &area.files {
        None => Ok(()),
        Some(Files::Ext4(fs)) => ext::write(fs, area, pte, prefix, filter, out, counts),
        Some(Files::Ntfs(fs)) => ntfs::write(fs, area, pte, prefix, filter, out, counts),
    }
}

fn partition(p: &Partition, sector_size: u32) -> Doc {
    let size = u64::from(sector_size.max(1));
    let mut doc = Doc::new("partition");
    doc.int("pte_num", p.number.into());
    // The C program gave the sector behind an MBR partition, and the last one of a GPT partition.
    let past = (p.offset + p.length) / size;
    let last = match p.kind {
        PartitionType::Mbr(kind) => {
            doc.int("partition_type", kind.into());
            past
        }
        PartitionType::Gpt(guid) => {
            doc.binary("partition_type_guid", &guid);
            past.saturating_sub(1)
        }
    };
    doc.int("first_sector_lba", p.offset / size).int("final_sector_lba", last);
    doc
}

#[cfg(test)]
mod tests;
