//! A file and what it is: that may take a look at its content.

use super::data::{self, to_usize};
use super::file::{File, Standard};
use super::index;
use super::names::wtf8;
use super::record::{Attribute, kind};
use super::reparse::{self, Reparse, interix};
use super::volume::Volume;
use super::wof::{self, Algorithm};
use crate::error::{Error, Result};
use crate::tree::{Attr, Kind};
use crate::units::InodeNo;

/// Bits of the file attributes (\[MS-FSCC\] 2.6).
const HIDDEN: u32 = 0x2;
const SYSTEM: u32 = 0x4;

/// A reparse point has at most 16 KiB.
const MAX_REPARSE: u64 = 64 << 10;

/// A file and what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its attributes.
    pub file: File,
    /// Its kind.
    pub kind: Kind,
    /// Target of a link.
    pub target: Option<Vec<u8>>,
    /// Device number.
    pub rdev: Option<(u32, u32)>,
    /// Tag of its reparse point.
    pub tag: Option<u32>,
    /// How it is compressed, if by WOF.
    pub wof: Option<Algorithm>,
    /// $STANDARD_INFORMATION.
    pub standard: Standard,
}

impl Node {
    /// The file in record `n`; `None` if there is none.
    pub fn load(volume: &Volume, n: u64) -> Result<Option<Self>> {
        volume.file(n)?.map(|file| Self::new(volume, file)).transpose()
    }

    fn new(volume: &Volume, file: File) -> Result<Self> {
        let kind = if file.header.is_dir { Kind::Dir } else { Kind::File };
        let standard = file.standard();
        let mut node = Self { file, kind, target: None, rdev: None, tag: None, wof: None, standard };
        if let Some(a) = node.file.attribute(kind::REPARSE_POINT) {
            let bytes = volume.value(a, MAX_REPARSE)?;
            node.reparse(&bytes);
        } else if standard.attributes & SYSTEM != 0 && kind == Kind::File {
            node.interix(volume)?;
        }
        Ok(node)
    }

    fn reparse(&mut self, bytes: &[u8]) {
        self.tag = reparse::tag(bytes);
        match reparse::parse(bytes) {
            Reparse::Link(target) => (self.kind, self.target) = (Kind::Symlink, Some(target)),
            Reparse::Special(kind) => self.kind = kind,
            Reparse::Wof(algorithm) if self.kind == Kind::File => self.wof = Some(algorithm),
            // A directory with an unknown tag still has its names.
            _ if self.kind == Kind::Dir => {}
            _ => self.kind = Kind::Reparse,
        }
    }

    fn interix(&mut self, volume: &Volume) -> Result<()> {
        let content = self.file.attribute(kind::DATA).filter(|a| a.size() <= interix::LONGEST && !a.encrypted);
        let Some(content) = content else { return Ok(()) };
        let small = content.size() < 2;
        if small && self.standard.attributes & HIDDEN != 0 || self.file.id.record() < super::volume::fixed::FIRST_SHOWN
        {
            return Ok(());
        }
        let bytes = volume.value(content, interix::LONGEST)?;
        if let Some((kind, target, rdev)) = interix::parse(&bytes) {
            (self.kind, self.rdev) = (kind, rdev);
            self.target = (kind == Kind::Symlink).then_some(target);
        }
        Ok(())
    }

    /// Length of the content: of a directory, of its index.
    pub fn size(&self) -> u64 {
        let content = match self.kind {
            Kind::Dir => self.file.named(kind::INDEX_ALLOCATION, &index::NAMES),
            Kind::Symlink => return self.target.as_ref().map_or(0, |t| t.len() as u64),
            _ => self.file.attribute(kind::DATA),
        };
        content.map_or(0, Attribute::size)
    }

    /// Number of names that are shown; the root, which has none, has one.
    pub fn nlink(&self) -> u32 {
        u32::try_from(self.file.links().len()).unwrap_or(u32::MAX).max(1)
    }

    /// What `stat` tells. `cluster` is bytes per cluster.
    pub fn attr(&self, cluster: u64) -> Attr {
        let s = &self.standard;
        let space: u64 = match self.kind {
            Kind::Dir => self.file.named(kind::INDEX_ALLOCATION, &index::NAMES).map_or(0, |a| a.space(cluster)),
            _ => self.file.streams().map(|a| a.space(cluster)).fold(0, u64::saturating_add),
        };
        Attr {
            ino: InodeNo(self.file.id.record()),
            kind: self.kind,
            size: self.size(),
            sectors: space / 512,
            nlink: if self.kind == Kind::Dir { 1 } else { self.nlink() },
            mode: None,
            uid: None,
            gid: None,
            mtime: s.mtime,
            atime: s.atime,
            ctime: s.ctime,
            crtime: Some(s.crtime),
            rdev: self.rdev,
            generation: self.file.id.sequence().into(),
            flags: s.attributes.into(),
        }
    }

    /// The streams but the unnamed one, with the numbers under which a tree shows them. The stream
    /// that packs the content is none of the guest's making.
    pub fn streams(&self) -> Vec<(Vec<u8>, InodeNo)> {
        let packed = |name: &[u8]| self.wof.is_some() && name == wof::STREAM.as_bytes();
        let named = self.file.streams().filter(|a| !a.name.is_empty());
        let all = named.map(|a| (wtf8(&a.name), stream_number(self.file.id.record(), &a.name)));
        all.filter(|(name, _)| !packed(name)).collect()
    }

    /// The stream that is shown as `number`.
    pub fn stream(&self, number: InodeNo) -> Option<&Attribute> {
        self.file.streams().find(|a| !a.name.is_empty() && stream_number(self.file.id.record(), &a.name) == number)
    }

    /// Read the content.
    pub fn read(&self, volume: &Volume, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if self.kind == Kind::Dir {
            return Err(Error::IsADirectory);
        }
        let Some(content) = self.file.attribute(kind::DATA) else { return Ok(0) };
        match self.wof {
            None => read(volume, content, offset, buf),
            Some(algorithm) => {
                let name: Vec<u16> = wof::STREAM.encode_utf16().collect();
                let packed = self.file.named(kind::DATA, &name);
                let record = self.file.id.record();
                let packed = packed.ok_or_else(|| Error::corrupt("compressed file", record, wof::STREAM, "none"))?;
                wof::read(volume, packed, algorithm, content.size(), offset, buf)
            }
        }
    }
}

/// Read a stream that the guest has not encrypted.
pub fn read(volume: &Volume, stream: &Attribute, offset: u64, buf: &mut [u8]) -> Result<usize> {
    if stream.encrypted {
        let at = stream.non_resident().and_then(|n| volume.place(n, 0)).unwrap_or_default();
        return Err(Error::Unsupported { what: "the content of a file that the guest encrypted (EFS)".into(), at });
    }
    data::read(volume, &stream.value, offset, buf)
}

/// Streams have numbers of their own, so that they can be looked at like files: the record's, and
/// in the upper 16 bits, which no record needs, a hash of the name (two names with one hash: the
/// first is shown).
fn stream_number(record: u64, name: &[u16]) -> InodeNo {
    let hash = name.iter().fold(0x811C_9DC5_u32, |h, c| (h ^ u32::from(*c)).wrapping_mul(0x0100_0193));
    let folded = u64::from((hash >> 16 ^ hash) & 0xFFFF).max(1);
    InodeNo(record | folded << 48)
}

/// The record of a file or stream, and whether it is a stream.
pub fn record_of(ino: InodeNo) -> (u64, bool) {
    (ino.0 & ((1 << 48) - 1), ino.0 >> 48 != 0)
}

/// Split a name of the form `file:stream` or `file:stream:$DATA`.
pub fn split_stream(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let name = name.strip_suffix(b":$DATA").unwrap_or(name);
    let colon = to_usize(name.iter().position(|b| *b == b':')? as u64);
    Some((name.get(..colon)?, name.get(colon + 1..).filter(|s| !s.is_empty())?))
}
