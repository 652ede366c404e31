//! From an image to what lies on it and to the files inside.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::ext4::Ext4;
use crate::guest::{Guest, Mounted};
use crate::image::{Disk, RawImage, ReadAt, Slice};
use crate::ntfs::Ntfs;
use crate::partition::{self, Partition, Table};
use crate::probe::{self, Found};
use crate::tree::Tree;

/// The smallest image that can hold anything.
const SMALLEST: u64 = 512;

/// Why an image cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum NoImage {
    /// The host refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A directory, a pipe, …: the word for it.
    #[error("{0}, not a disk image")]
    Kind(&'static str),
    /// No bytes.
    #[error("the image is empty")]
    Empty,
    /// Less than a sector.
    #[error("the image has only {0} bytes")]
    Tiny(u64),
}

/// Open the raw image or block device at `path` for reading.
pub fn image(path: &Path) -> Result<Disk, NoImage> {
    // Asked before opening: to open a FIFO would wait for its writer.
    if let Some(kind) = not_a_disk(fs::metadata(path)?.file_type()) {
        return Err(NoImage::Kind(kind));
    }
    let image = RawImage::open(path)?;
    match image.size() {
        0 => Err(NoImage::Empty),
        size if size < SMALLEST => Err(NoImage::Tiny(size)),
        _ => Ok(Arc::new(image)),
    }
}

fn not_a_disk(t: FileType) -> Option<&'static str> {
    match () {
        () if t.is_file() || t.is_block_device() => None,
        () if t.is_dir() => Some("a directory"),
        () if t.is_fifo() => Some("a named pipe"),
        () if t.is_socket() => Some("a socket"),
        () => Some("a character device"),
    }
}

/// How a file system stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Readable, nothing to replay.
    Clean,
    /// Readable; a mount would replay the journal first.
    DirtyJournal,
    /// Not readable, and why.
    Unsupported(String),
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clean => f.write_str("clean"),
            Self::DirtyJournal => f.write_str("dirty journal"),
            Self::Unsupported(why) => write!(f, "unsupported: {why}"),
        }
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A file system that can be read.
#[derive(Clone)]
pub enum Files {
    /// ext2, ext3 or ext4.
    Ext4(Arc<Ext4>),
    /// NTFS.
    Ntfs(Arc<Ntfs>),
}

impl Files {
    /// Its files.
    pub fn tree(&self) -> Arc<dyn Tree> {
        match self {
            Self::Ext4(fs) => fs.clone(),
            Self::Ntfs(fs) => fs.clone(),
        }
    }

    fn journal_dirty(&self) -> bool {
        match self {
            Self::Ext4(fs) => fs.journal_dirty(),
            Self::Ntfs(fs) => fs.journal_dirty(),
        }
    }

    /// Its label, where it takes more than a look at its first sectors.
    fn label(&self) -> Option<String> {
        match self {
            Self::Ext4(_) => None,
            Self::Ntfs(fs) => fs.about().label,
        }
    }

    /// Bytes that it needs.
    fn bytes(&self) -> u64 {
        match self {
            Self::Ext4(fs) => {
                let sb = &fs.geometry().sb;
                sb.blocks.saturating_mul(sb.block_size.into())
            }
            Self::Ntfs(fs) => fs.volume().geometry().bytes(),
        }
    }
}

/// A partition, or a whole disk without a table, and what was found there.
#[derive(Clone, Serialize)]
pub struct Area {
    /// `p1` … by partition number, or `disk`.
    pub name: Arc<str>,
    /// First byte on the disk.
    pub offset: u64,
    /// Length in bytes, by the table.
    pub length: u64,
    /// File system, if recognised.
    pub fs: Option<&'static str>,
    /// Its label.
    pub label: Option<String>,
    /// Its UUID or serial number.
    pub uuid: Option<String>,
    /// Whether its files can be read.
    pub state: State,
    /// Its files, if they can.
    #[serde(skip)]
    pub files: Option<Files>,
}

/// What lies on a disk.
pub struct Survey {
    /// The table.
    pub table: Table,
    /// One for each partition in the order of their numbers, or one for the whole disk.
    pub areas: Vec<Area>,
}

/// Look at the table and at the start of every partition.
///
/// Errors: the disk cannot be read, or promises a GPT of which no copy is whole.
pub fn survey(disk: &Disk) -> Result<Survey> {
    let table = partition::read(&**disk)?;
    let areas = match table.scheme {
        partition::Scheme::Whole => vec![area(disk, "disk".into(), 0, disk.size())?],
        _ => table.partitions.iter().map(|p| partition_area(disk, p)).collect::<Result<_>>()?,
    };
    Ok(Survey { table, areas })
}

/// The file system that starts at byte `offset`, whatever a table says.
pub fn at(disk: &Disk, offset: u64) -> Result<Area> {
    area(disk, "disk".into(), offset, disk.size().saturating_sub(offset))
}

fn partition_area(disk: &Disk, p: &Partition) -> Result<Area> {
    area(disk, format!("p{}", p.number).into(), p.offset, p.length)
}

fn area(disk: &Disk, name: Arc<str>, offset: u64, length: u64) -> Result<Area> {
    let found = probe::probe_at(&**disk, offset)?.or_else(|| ntfs_by_its_backup(disk, offset, length));
    let missing = offset.saturating_add(length).saturating_sub(disk.size());
    let opened = open(disk, offset, length, found.as_ref());
    let (state, files) = match opened {
        Ok(_) if missing >= length => (State::Unsupported("it lies past the end of the image".into()), None),
        Ok(_) if missing > 0 => (State::Unsupported(format!("the image ends {missing} bytes too early")), None),
        Ok(fs) if fs.journal_dirty() => (State::DirtyJournal, Some(fs)),
        Ok(fs) => (State::Clean, Some(fs)),
        Err(why) => (State::Unsupported(why), None),
    };
    let Found { fs, label, uuid } = found.unwrap_or_default();
    let fs = (!fs.is_empty()).then_some(fs);
    let label = label.or_else(|| files.as_ref().and_then(Files::label));
    Ok(Area { name, offset, length, fs, label, uuid, state, files })
}

/// Where nothing is recognised, NTFS keeps a copy of its boot sector in the last sector.
fn ntfs_by_its_backup(disk: &Disk, offset: u64, length: u64) -> Option<Found> {
    let slice = Slice::new(disk.clone(), offset, length);
    let geometry = crate::ntfs::boot::Geometry::read(&slice).ok().filter(|_| length > 0)?;
    let uuid = Some(format!("{:016X}", geometry.serial));
    Some(Found { fs: "ntfs", label: None, uuid })
}

/// Open what `found` names; the error says why it cannot be read.
fn open(disk: &Disk, offset: u64, length: u64, found: Option<&Found>) -> Result<Files, String> {
    let Some(found) = found else { return Err("no file system recognised".into()) };
    let slice = Slice::new(disk.clone(), offset, length);
    let size = slice.size();
    let slice: Disk = Arc::new(slice);
    let files = match found.fs {
        "ext2" | "ext3" | "ext4" => Ext4::open(slice).map(|fs| Files::Ext4(Arc::new(fs))),
        "ntfs" => Ntfs::open(slice).map(|fs| Files::Ntfs(Arc::new(fs))),
        other => return Err(format!("gammaray does not read {other}")),
    };
    let files = files.map_err(|e| e.to_string())?;
    match files.bytes().checked_sub(size) {
        Some(missing @ 1..) => {
            Err(format!("it ends {missing} bytes before the file system does: the image is cut short"))
        }
        _ => Ok(files),
    }
}

impl Survey {
    /// The readable file systems, as a guest.
    pub fn guest(&self) -> Guest {
        Guest::new(self.areas.iter().filter_map(Area::mounted).collect())
    }
}

impl Area {
    /// This area's files under its name, if they can be read.
    pub fn mounted(&self) -> Option<Mounted> {
        Some(Mounted { name: self.name.clone(), tree: self.files.as_ref()?.tree() })
    }
}

/// The guest with the one file system that starts at byte `offset`.
///
/// Errors: nothing readable starts there.
pub fn guest_at(disk: &Disk, offset: u64) -> Result<Guest> {
    let area = at(disk, offset)?;
    let mounted = area.mounted().ok_or(Error::Unsupported { what: unreadable(&area), at: offset })?;
    Ok(Guest::new(vec![mounted]))
}

fn unreadable(area: &Area) -> String {
    match &area.state {
        State::Unsupported(why) => why.clone(),
        state => state.to_string(),
    }
}
