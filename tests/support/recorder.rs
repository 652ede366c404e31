//! A disk that remembers in which order it was written: a FUSE file over an image. So a native
//! kernel's write stream can be had without the program under test.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use rustix::fs::{FallocateFlags, fallocate};

/// What happened to the disk.
#[derive(Clone, Debug)]
pub enum Access {
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    Flush,
    /// The range reads as zeros from now on.
    Discard {
        offset: u64,
        length: u64,
    },
}

impl Access {
    /// Do it to an image.
    pub fn apply(&self, image: &File) {
        match self {
            Self::Write { offset, data } => image.write_all_at(data, *offset).unwrap(),
            Self::Flush => {}
            Self::Discard { offset, length } => {
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(image, punch, *offset, *length).unwrap();
            }
        }
    }
}

type Log = Arc<Mutex<Vec<Access>>>;

/// The disk, until it is finished or dropped.
pub struct Recorder {
    /// Where the disk is.
    pub disk: PathBuf,
    log: Log,
    session: BackgroundSession,
}

impl Recorder {
    /// Serve `image` in the folder `dir`.
    pub fn start(image: &Path, dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let file = File::options().read(true).write(true).open(image).unwrap();
        let size = file.metadata().unwrap().len();
        let log = Log::default();
        let disk = Disk { file, size, log: log.clone() };
        let session = fuser::spawn_mount(disk, dir, &Config::default()).unwrap();
        Self { disk: dir.join("disk"), log, session }
    }

    /// Stop, and hand out what was recorded.
    pub fn finish(self) -> Vec<Access> {
        self.session.umount_and_join().unwrap();
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

struct Disk {
    file: File,
    size: u64,
    log: Log,
}

const FOREVER: Duration = Duration::from_secs(3600);
const DISK: INodeNo = INodeNo(2);

impl Disk {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_disk = ino == DISK;
        FileAttr {
            ino,
            size: if is_disk { self.size } else { 0 },
            blocks: if is_disk { self.size / 512 } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_disk { FileType::RegularFile } else { FileType::Directory },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// Do it and write it down before anything else may happen to the disk.
    fn perform(&self, access: Access) {
        let mut log = self.log.lock().unwrap();
        access.apply(&self.file);
        log.push(access);
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "disk" {
            reply.entry(&FOREVER, &self.attr(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buf = vec![0; (self.size.saturating_sub(offset)).min(size.into()) as usize];
        self.file.read_exact_at(&mut buf, offset).unwrap();
        reply.data(&buf);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.perform(Access::Write { offset, data: data.to_vec() });
        reply.written(data.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.perform(Access::Flush);
        reply.ok();
    }

    /// Loop devices discard and write zeros by punching holes or zeroing ranges.
    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, length: u64, _: i32, reply: ReplyEmpty) {
        self.perform(Access::Discard { offset, length });
        reply.ok();
    }
}
