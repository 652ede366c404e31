//! Random access to the bytes of a disk image.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A disk, or a part of one, that can be read at any byte offset.
pub trait ReadAt: Send + Sync {
    /// Fill `buf` from byte `offset` on. Reading past [`ReadAt::size`] is `UnexpectedEof`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Length in bytes.
    fn size(&self) -> u64;
}

/// A shared disk.
pub type Disk = Arc<dyn ReadAt>;

/// A raw image file or block device, opened for reading.
#[derive(Debug)]
pub struct RawImage {
    file: File,
    size: u64,
}

impl RawImage {
    /// Open `path` for reading.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).open(path)?;
        Self::from_file(file)
    }

    /// Use an open file. Its size is asked once, by seeking: that works for block devices too.
    pub fn from_file(file: File) -> io::Result<Self> {
        use std::io::Seek;
        let size = (&file).seek(io::SeekFrom::End(0))?;
        Ok(Self { file, size })
    }
}

impl ReadAt for RawImage {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn size(&self) -> u64 {
        self.size
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let part = from.and_then(|f| self.get(f..f.checked_add(buf.len())?));
        buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

/// A window of a disk, such as a partition.
#[derive(Clone)]
pub struct Slice {
    disk: Disk,
    offset: u64,
    size: u64,
}

impl Slice {
    /// `size` bytes of `disk` from `offset` on, cut off at the disk's end.
    pub fn new(disk: Disk, offset: u64, size: u64) -> Self {
        let size = size.min(disk.size().saturating_sub(offset));
        Self { disk, offset, size }
    }
}

impl ReadAt for Slice {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= self.size => self.disk.read_at(self.offset + offset, buf),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn size(&self) -> u64 {
        self.size
    }
}
