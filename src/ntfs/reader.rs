//! A volume at rest as a [`Tree`]. Names come from the indexes of the directories, as a mount would
//! show them; the system's own files are not listed but can be named.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::file::FileName;
use super::index;
use super::names::is_sane;
use super::node::{Node, record_of, split_stream};
use super::record::{FileRef, Value, kind};
use super::security::{self, Secure};
use super::volume::{Volume, fixed};
use super::{data, describe, logfile, node};
use crate::error::{Error, Result};
use crate::image::Disk;
use crate::tree::{Attr, DirEntry, Kind, StatFs, Stream, Tree, Xattr};
use crate::units::InodeNo;

/// A readable NTFS volume.
pub struct Ntfs {
    volume: Volume,
    secure: OnceLock<Secure>,
    /// The file that was looked at last: all questions about one file come in a row.
    last: Mutex<Option<Arc<Node>>>,
}

/// What $Volume says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// Label.
    pub label: Option<String>,
    /// Version of NTFS.
    pub version: (u8, u8),
    /// Marked to be checked.
    pub dirty: bool,
}

impl Ntfs {
    /// Open the volume that starts at byte 0 of `disk`.
    pub fn open(disk: Disk) -> Result<Self> {
        let volume = Volume::open(disk)?;
        // Without its root it is no file system.
        let root = Node::load(&volume, fixed::ROOT)?;
        root.filter(|r| r.kind == Kind::Dir)
            .ok_or_else(|| Error::corrupt("root directory", fixed::ROOT, "a directory", "none"))?;
        Ok(Self { volume, secure: OnceLock::new(), last: Mutex::default() })
    }

    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The volume alone.
    pub fn into_volume(self) -> Volume {
        self.volume
    }

    /// What $Volume says.
    pub fn about(&self) -> About {
        about(&self.volume)
    }

    /// Whether a mount by Windows would replay the log first.
    pub fn journal_dirty(&self) -> bool {
        matches!(logfile::state(&self.volume), Ok(logfile::State::Dirty))
    }

    /// The file in a record.
    pub fn node(&self, ino: InodeNo) -> Result<Arc<Node>> {
        let (record, _) = record_of(ino);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = last.as_ref().filter(|n| n.file.id.record() == record) {
            return Ok(node.clone());
        }
        let node = Arc::new(Node::load(&self.volume, record)?.ok_or(Error::NotFound)?);
        *last = Some(node.clone());
        Ok(node)
    }

    fn secure(&self) -> &Secure {
        self.secure.get_or_init(|| {
            Secure::load(&self.volume).unwrap_or_else(|e| {
                tracing::warn!("$Secure: {e}");
                Secure::default()
            })
        })
    }

    /// All names of a directory, also the system's.
    fn entries(&self, dir: InodeNo) -> Result<Vec<(FileRef, FileName)>> {
        let node = self.node(dir)?;
        if node.kind != Kind::Dir || record_of(dir).1 {
            return Err(Error::NotADirectory);
        }
        let (names, whole) = index::names(&self.volume, &node.file)?;
        if let Err(e) = whole {
            tracing::warn!("directory in record {dir}: {e}");
        }
        Ok(names.into_iter().filter(|(_, n)| !n.is_dos && is_sane(&n.name)).collect())
    }
}

/// What $Volume says.
pub fn about(volume: &Volume) -> About {
    let Ok(Some(file)) = volume.file(fixed::VOLUME) else { return About::default() };
    let label = file.resident(kind::VOLUME_NAME).map(|b| String::from_utf16_lossy(&super::record::utf16(b)));
    // `struct VOLUME_INFO`: eight reserved bytes, major and minor version, flags (1: dirty).
    let info = file.resident(kind::VOLUME_INFORMATION).unwrap_or_default();
    let byte = |at: usize| info.get(at).copied().unwrap_or(0);
    About { label: label.filter(|l| !l.is_empty()), version: (byte(8), byte(9)), dirty: byte(10) & 1 != 0 }
}

/// Count the bits that are 0 among the first `count` of a bitmap.
fn zeros(volume: &Volume, value: &Value, count: u64) -> Result<u64> {
    let (mut free, mut at, bytes) = (0, 0, count.div_ceil(8));
    let mut buf = vec![0; data::to_usize(bytes.clamp(1, 1 << 20))];
    while at < bytes {
        let part = buf.get_mut(..data::to_usize(bytes - at).min(1 << 20)).unwrap_or_default();
        let n = data::read(volume, value, at, part)?;
        if n == 0 {
            break;
        }
        free += part.iter().take(n).map(|b| u64::from(b.count_zeros())).sum::<u64>();
        at += n as u64;
    }
    Ok(free.min(count))
}

/// Totals of a volume.
pub fn stat_fs(volume: &Volume) -> Result<StatFs> {
    let geometry = volume.geometry();
    let blocks = geometry.clusters;
    let free = |n: u64, kind, count| -> Result<u64> {
        let file = volume.file(n)?;
        let bitmap = file.as_ref().and_then(|f| f.attribute(kind));
        bitmap.map_or(Ok(0), |a| zeros(volume, &a.value, count))
    };
    let inodes = volume.records();
    Ok(StatFs {
        block_size: geometry.cluster_size,
        blocks,
        free_blocks: free(fixed::BITMAP, kind::DATA, blocks)?,
        inodes,
        free_inodes: free(fixed::MFT, kind::BITMAP, inodes)?,
    })
}

/// A stream's attributes: those of its file but for its size.
pub fn stream_attr(node: &Node, ino: InodeNo, cluster: u64) -> Result<Attr> {
    let stream = node.stream(ino).ok_or(Error::NotFound)?;
    let sectors = stream.space(cluster) / 512;
    Ok(Attr { ino, kind: Kind::File, size: stream.size(), sectors, nlink: 1, rdev: None, ..node.attr(cluster) })
}

/// The named streams of a file.
pub fn streams(node: &Node) -> Vec<Stream> {
    let mut all: Vec<Stream> = node.streams().into_iter().map(|(name, ino)| Stream { name, ino }).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

impl Tree for Ntfs {
    fn root(&self) -> InodeNo {
        InodeNo(fixed::ROOT)
    }

    fn attr(&self, ino: InodeNo) -> Result<Attr> {
        let node = self.node(ino)?;
        let cluster = self.volume.cluster_size();
        if record_of(ino).1 { stream_attr(&node, ino, cluster) } else { Ok(node.attr(cluster)) }
    }

    fn read_dir(&self, dir: InodeNo) -> Result<Vec<DirEntry>> {
        let shown = self.entries(dir)?.into_iter().filter(|(id, _)| id.record() >= fixed::FIRST_SHOWN);
        Ok(shown.map(|(id, n)| DirEntry { ino: InodeNo(id.record()), name: n.name, kind: None }).collect())
    }

    fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Option<InodeNo>> {
        let entries = self.entries(dir)?;
        let find = |name: &[u8]| entries.iter().find(|(_, n)| n.name == name).map(|(id, _)| InodeNo(id.record()));
        if let Some(found) = find(name) {
            return Ok(Some(found));
        }
        let Some((file, stream)) = split_stream(name) else { return Ok(None) };
        let Some(ino) = (if file.is_empty() { Some(dir) } else { find(file) }) else { return Ok(None) };
        Ok(self.node(ino)?.streams().into_iter().find(|(n, _)| n == stream).map(|(_, i)| i))
    }

    fn read(&self, ino: InodeNo, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let node = self.node(ino)?;
        if record_of(ino).1 {
            return node::read(&self.volume, node.stream(ino).ok_or(Error::NotFound)?, offset, buf);
        }
        node.read(&self.volume, offset, buf)
    }

    fn read_link(&self, ino: InodeNo) -> Result<Vec<u8>> {
        self.node(ino)?.target.clone().ok_or(Error::NotASymlink)
    }

    fn xattrs(&self, _: InodeNo) -> Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn streams(&self, ino: InodeNo) -> Result<Vec<Stream>> {
        Ok(if record_of(ino).1 { Vec::new() } else { streams(&*self.node(ino)?) })
    }

    fn reparse_tag(&self, ino: InodeNo) -> Result<Option<u32>> {
        Ok(self.node(ino)?.tag)
    }

    fn facts(&self, ino: InodeNo) -> Result<Vec<(&'static str, String)>> {
        let node = self.node(ino)?;
        let descriptor = match node.file.resident(kind::SECURITY_DESCRIPTOR) {
            Some(own) => Some(own.to_vec()),
            None => self.secure().descriptor(&self.volume, node.standard.security_id)?,
        };
        let mut facts = describe::facts(&node);
        if let Some(d) = descriptor {
            facts.extend(security::owner(&d).map(|o| ("owner", o)));
            facts.push(("sddl", security::sddl(&d)));
        }
        Ok(facts)
    }

    fn stat_fs(&self) -> Result<StatFs> {
        stat_fs(&self.volume)
    }
}
