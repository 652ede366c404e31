//! The disk as the inferencer knows it, which need not have the image: what was written since the
//! crawl, over what the crawl kept, over the image if that is at hand.
//!
//! The image of a running guest is always ahead of the queue. What is read of it is what a program
//! would find there now; what inference compares comes from the layers above.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::image::{Disk, ReadAt};
use crate::index::snapshot::Snapshot;
use crate::overlay::Overlay;

/// The layers. Written bytes are kept in a nameless sparse file, each at its place on the disk: it
/// never grows beyond the disk's size.
pub struct KnownDisk {
    size: u64,
    store: File,
    image: Option<Disk>,
    layers: RwLock<Overlay>,
}

/// What lies under the written bytes.
struct Base {
    size: u64,
    snapshot: Option<Snapshot>,
    image: Option<Disk>,
}

impl KnownDisk {
    /// A disk of `size` bytes.
    ///
    /// # Errors
    /// There is no room for temporary files.
    pub fn new(size: u64, snapshot: Option<Snapshot>, image: Option<Disk>) -> io::Result<Self> {
        let store = tempfile::tempfile()?;
        let base = Arc::new(Base { size, snapshot, image: image.clone() });
        let layers = RwLock::new(Overlay::new(base, store.try_clone()?));
        Ok(Self { size, store, image, layers })
    }

    /// `data` was written at disk byte `at`, all of which lies on the disk.
    ///
    /// # Errors
    /// There is no room for temporary files.
    pub fn put(&self, at: u64, data: &[u8]) -> io::Result<()> {
        self.store.write_all_at(data, at)?;
        self.layers.read().unwrap_or_else(PoisonError::into_inner).put(at..at.saturating_add(data.len() as u64), at);
        Ok(())
    }

    /// Forget all but the image: what was written is not known any more. `false`: there is no image.
    ///
    /// # Errors
    /// The temporary file cannot be emptied.
    pub fn only_image(&self) -> io::Result<bool> {
        let Some(image) = &self.image else { return Ok(false) };
        let base = Arc::new(Base { size: self.size, snapshot: None, image: Some(image.clone()) });
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        self.store.set_len(0)?;
        *layers = Overlay::new(base, self.store.try_clone()?);
        Ok(true)
    }
}

impl ReadAt for KnownDisk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner).read_at(offset, buf)
    }

    fn size(&self) -> u64 {
        self.size
    }
}

impl Base {
    fn below(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.image {
            Some(image) => image.read_at(at, buf),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the index does not hold these bytes, and the image is not at hand",
            )),
        }
    }
}

impl ReadAt for Base {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end =
            offset.checked_add(buf.len() as u64).filter(|e| *e <= self.size).ok_or(io::ErrorKind::UnexpectedEof)?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let kept = self.snapshot.as_ref().and_then(|s| Some((s, s.next(at)?))).filter(|(_, r)| r.start < end);
            let until = match &kept {
                Some((_, range)) if range.start <= at => range.end.min(end),
                Some((_, range)) => range.start,
                None => end,
            };
            let len = usize::try_from(until - at).map_err(io::Error::other)?;
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            match kept {
                Some((snapshot, range)) if range.start <= at => snapshot.read(at, now)?,
                _ => self.below(at, now)?,
            }
            (at, rest) = (until, later);
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::snapshot::pack;
    use crate::ranges::RangeSet;

    fn disk(image: bool) -> KnownDisk {
        let old: Disk = Arc::new(vec![1_u8; 10_000]);
        let mut keep = RangeSet::default();
        keep.insert(1000..2000);
        keep.insert(3000..4000);
        let snapshot = Snapshot::new(pack(&old, &keep).unwrap()).unwrap();
        let image: Option<Disk> = image.then(|| Arc::new(vec![9_u8; 10_000]) as Disk);
        KnownDisk::new(10_000, Some(snapshot), image).unwrap()
    }

    #[test]
    fn the_newest_layer_that_knows_a_byte_gives_it() {
        let d = disk(true);
        d.put(1536, &[5; 512]).unwrap();
        let mut buf = vec![0; 10_000];
        d.read_at(0, &mut buf).unwrap();
        let expected = |i| match i {
            1536..2048 => 5,
            1000..2000 | 3000..4000 => 1,
            _ => 9,
        };
        assert!((0..10_000).all(|i| buf[i] == expected(i)));
        assert!(d.read_at(9_999, &mut [0; 2]).is_err());
        assert!(d.only_image().unwrap());
        d.read_at(0, &mut buf).unwrap();
        assert!(buf.iter().all(|b| *b == 9));
        d.put(512, &[6; 512]).unwrap();
        d.read_at(512, &mut buf[..1024]).unwrap();
        assert_eq!((buf[0], buf[512]), (6, 9));
    }

    #[test]
    fn without_an_image_what_is_not_known_is_an_error() {
        let d = disk(false);
        d.put(2000, &[5; 1000]).unwrap();
        let mut buf = vec![0; 3000];
        d.read_at(1000, &mut buf).unwrap();
        assert!(d.read_at(999, &mut buf).is_err() && d.read_at(4000, &mut [0]).is_err());
        assert!(!d.only_image().unwrap());
    }
}
