//! A file system in memory, to stand for a guest's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use gammaray::error::{Error, Result};
use gammaray::tree::{Attr, DirEntry, Kind, StatFs, Tree, Xattr};
use gammaray::units::{InodeNo, Timestamp};

pub struct File {
    pub attr: Attr,
    pub data: Vec<u8>,
    pub entries: Vec<DirEntry>,
    pub xattrs: Vec<Xattr>,
    pub broken: bool,
}

pub struct MemTree {
    files: Mutex<BTreeMap<u64, File>>,
    root: u64,
    pub dirs_read: AtomicUsize,
}

pub const TIME: Timestamp = Timestamp { secs: 1_700_000_000, nanos: 123_456_789 };

fn file(ino: u64, kind: Kind) -> File {
    let attr = Attr {
        ino: InodeNo(ino),
        kind,
        size: 0,
        sectors: 0,
        nlink: 1,
        mode: Some(if kind == Kind::Dir { 0o755 } else { 0o640 }),
        uid: Some(10),
        gid: Some(20),
        mtime: TIME,
        atime: Timestamp { secs: -5, nanos: 250_000_000 },
        ctime: TIME,
        crtime: None,
        rdev: None,
        generation: ino + 7000,
        flags: 0,
    };
    File { attr, data: Vec::new(), entries: Vec::new(), xattrs: Vec::new(), broken: false }
}

impl MemTree {
    /// With a root directory of that number.
    pub fn new(root: u64) -> Self {
        let files = BTreeMap::from([(root, file(root, Kind::Dir))]);
        Self { files: Mutex::new(files), root, dirs_read: AtomicUsize::new(0) }
    }

    /// Add a file.
    pub fn add(&self, dir: u64, name: impl AsRef<[u8]>, ino: u64, kind: Kind) {
        self.files().insert(ino, file(ino, kind));
        self.link(dir, name, ino);
    }

    pub fn add_file(&self, dir: u64, name: impl AsRef<[u8]>, ino: u64, data: impl AsRef<[u8]>) {
        self.add(dir, name, ino, Kind::File);
        self.write(ino, 0, data.as_ref());
    }

    pub fn link(&self, dir: u64, name: impl AsRef<[u8]>, ino: u64) {
        let kind = Some(self.files()[&ino].attr.kind);
        self.change(dir, |d| d.entries.push(DirEntry { ino: InodeNo(ino), name: name.as_ref().into(), kind }));
    }

    pub fn unlink(&self, dir: u64, name: impl AsRef<[u8]>) {
        self.change(dir, |d| d.entries.retain(|e| e.name != name.as_ref()));
    }

    pub fn write(&self, ino: u64, offset: usize, data: &[u8]) {
        self.change(ino, |f| {
            f.data.resize(f.data.len().max(offset + data.len()), 0);
            f.data[offset..offset + data.len()].copy_from_slice(data);
            f.attr.size = f.data.len() as u64;
        });
    }

    pub fn change(&self, ino: u64, f: impl FnOnce(&mut File)) {
        f(self.files().get_mut(&ino).unwrap());
    }

    pub fn remove(&self, ino: u64) {
        self.files().remove(&ino);
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<u64, File>> {
        self.files.lock().unwrap()
    }

    fn get<T>(&self, ino: InodeNo, f: impl FnOnce(&File) -> Result<T>) -> Result<T> {
        let files = self.files();
        let file = files.get(&ino.0).ok_or(Error::NotFound)?;
        if file.broken {
            return Err(Error::corrupt("inode", ino.0, "an inode", "noise"));
        }
        f(file)
    }
}

impl Tree for MemTree {
    fn root(&self) -> InodeNo {
        InodeNo(self.root)
    }

    fn attr(&self, ino: InodeNo) -> Result<Attr> {
        self.get(ino, |f| Ok(f.attr.clone()))
    }

    fn read_dir(&self, dir: InodeNo) -> Result<Vec<DirEntry>> {
        self.dirs_read.fetch_add(1, Ordering::Relaxed);
        self.get(dir, |f| if f.attr.kind == Kind::Dir { Ok(f.entries.clone()) } else { Err(Error::NotADirectory) })
    }

    fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Option<InodeNo>> {
        self.get(dir, |f| Ok(f.entries.iter().find(|e| e.name == name).map(|e| e.ino)))
    }

    fn read(&self, ino: InodeNo, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.get(ino, |f| {
            let rest = f.data.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let n = rest.len().min(buf.len());
            buf[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        })
    }

    fn read_link(&self, ino: InodeNo) -> Result<Vec<u8>> {
        self.get(ino, |f| if f.attr.kind == Kind::Symlink { Ok(f.data.clone()) } else { Err(Error::NotASymlink) })
    }

    fn xattrs(&self, ino: InodeNo) -> Result<Vec<Xattr>> {
        self.get(ino, |f| {
            if f.attr.kind == Kind::Sock {
                return Err(Error::Unsupported { what: "xattrs of sockets".into(), at: 0 });
            }
            Ok(f.xattrs.clone())
        })
    }

    fn stat_fs(&self) -> Result<StatFs> {
        Ok(StatFs { block_size: 1024, blocks: 8000, free_blocks: 4000, inodes: 100, free_inodes: 40 })
    }
}
