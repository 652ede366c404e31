//! The exported disks as `fuser` wants to be told of them: a thin adapter around [`Served`].

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use nix::libc;

use super::Served;

/// The most bytes in one request. No kernel sends more without being told to by its administrator.
const MAX_REQUEST: u32 = 1 << 20;
/// Requests of asynchronous I/O that may be under way at once.
const MAX_BACKGROUND: u16 = 256;
/// How long the kernel may keep names and attributes, of which only times ever change.
const TTL: Duration = Duration::from_secs(1);
const BLOCK_SIZE: u32 = 4096;
const MAX_NAME: u32 = 255;
/// The directory; the files follow it.
const ROOT: u64 = 1;

/// The adapter.
pub(super) struct Adapter(pub Arc<[Served]>);

impl Adapter {
    fn disk(&self, ino: INodeNo) -> Result<&Served, Errno> {
        let index = ino.0.checked_sub(ROOT + 1).and_then(|i| usize::try_from(i).ok());
        index.and_then(|i| self.0.get(i)).ok_or(Errno::EISDIR)
    }

    fn numbered(&self) -> impl Iterator<Item = (INodeNo, &Served)> {
        (ROOT + 1..).map(INodeNo).zip(self.0.iter())
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        self.disk(ino).map_or_else(|_| root_attr(), |disk| disk_attr(ino, disk))
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ASYNC_READ | InitFlags::FUSE_ASYNC_DIO | InitFlags::FUSE_PARALLEL_DIROPS;
        // What an old kernel lacks, or a smaller size, only costs speed. Never asked for: the
        // writeback cache, which would keep the guest's writes from us.
        let _ = config.add_capabilities(wanted & config.capabilities());
        let _ = config.set_max_write(MAX_REQUEST);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.numbered().find(|(_, disk)| disk.name() == name) {
            Some((ino, disk)) => reply.entry(&TTL, &disk_attr(ino, disk), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let Ok(disk) = self.disk(ino) else { return reply.error(Errno::EPERM) };
        // A disk neither grows nor shrinks; "truncating" it to its own size changes nothing.
        if size.is_some_and(|s| s != disk.size()) {
            return reply.error(Errno::EPERM);
        }
        {
            let mut access = disk.access();
            access.mode = mode.and_then(|m| u16::try_from(m & 0o777).ok()).unwrap_or(access.mode);
            access.uid = uid.unwrap_or(access.uid);
            access.gid = gid.unwrap_or(access.gid);
        }
        reply.attr(&TTL, &disk_attr(ino, disk));
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let Ok(disk) = self.disk(ino) else { return reply.error(Errno::EISDIR) };
        disk.opened();
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES | FopenFlags::FOPEN_NOFLUSH;
        reply.opened(FileHandle(0), flags);
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Ok(disk) = self.disk(ino) {
            disk.closed();
        }
        reply.ok();
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk(ino).and_then(|d| d.read(offset, size).map_err(errno)) {
            Ok(bytes) => reply.data(&bytes),
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // O_SYNC contains O_DSYNC.
        let durable = flags.0 & libc::O_DSYNC != 0;
        match self.disk(ino).and_then(|d| d.write(offset, data, durable).map_err(errno)) {
            // The kernel sends at most MAX_REQUEST bytes.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        // Of close(2): no promise that anything is durable.
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        done(self.disk(ino).and_then(|d| d.flush().map_err(errno)), reply);
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        done(self.disk(ino).and_then(|d| d.allocate(offset, length, mode).map_err(errno)), reply);
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        match self.disk(ino).and_then(|d| d.seek(offset, whence).map_err(errno)) {
            Ok(at) => reply.offset(at),
            Err(e) => reply.error(e),
        }
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let dots = [".", ".."].map(|name| (INodeNo(ROOT), FileType::Directory, OsStr::new(name)));
        let files = self.numbered().map(|(ino, disk)| (ino, FileType::RegularFile, disk.name()));
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (ino, kind, name)) in (1u64..).zip(dots.into_iter().chain(files)).skip(skip) {
            if reply.add(ino, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let blocks = self.0.iter().map(|d| d.size() / u64::from(BLOCK_SIZE)).sum();
        let files = self.0.len() as u64;
        reply.statfs(blocks, 0, 0, files, 0, BLOCK_SIZE, MAX_NAME, BLOCK_SIZE);
    }

    // What a directory of disks does not do. Without these, `fuser` logs each try as a defect.

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EPERM);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rename(&self, _: &Request, _: INodeNo, _: &OsStr, _: INodeNo, _: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

fn disk_attr(ino: INodeNo, disk: &Served) -> FileAttr {
    let (access, changed) = (*disk.access(), disk.changed());
    FileAttr {
        ino,
        size: disk.size(),
        blocks: disk.sectors(),
        atime: changed,
        mtime: changed,
        ctime: changed,
        crtime: changed,
        kind: FileType::RegularFile,
        perm: access.mode,
        nlink: 1,
        uid: access.uid,
        gid: access.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

fn root_attr() -> FileAttr {
    let never = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ROOT),
        size: 0,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        kind: FileType::Directory,
        perm: 0o555,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

fn errno(e: nix::errno::Errno) -> Errno {
    io::Error::from(e).into()
}

fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}
