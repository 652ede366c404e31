//! The view's files as `fuser` wants to be told of them: a thin adapter around [`Files`].

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, PollEvents, PollFlags, PollNotifier, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyXattr, Request,
};

use super::files::{Answer, Files, Found, Sized};
use super::invalidate::Cache;
use super::node::Node;
use crate::tree::{Attr, Kind};
use crate::units::Timestamp;

/// How long the kernel may keep what it is told. Events invalidate it much earlier; this only bounds
/// the harm of one that never came.
const TTL: Duration = Duration::from_secs(60);
/// What `statfs` and `stat` call a good size for reading.
const BLOCK_SIZE: u32 = 4096;
/// The longest name, in bytes, of the file systems that we show.
const MAX_NAME: u32 = 255;

/// The adapter.
pub(super) struct Adapter(pub Arc<Files>);

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_ASYNC_READ | InitFlags::FUSE_PARALLEL_DIROPS | InitFlags::FUSE_AUTO_INVAL_DATA;
        // Whoever lists files mostly asks for their attributes next, and one by one that is slow.
        // But `fuser` numbers the entries of a readdirplus by their nodes, so `ls -i` would be wrong
        // where these are not the guest's numbers.
        if self.0.layout().slots().len() <= 1 {
            wanted |= InitFlags::FUSE_DO_READDIRPLUS;
        }
        // A capability that an old kernel lacks only costs speed.
        let _ = config.add_capabilities(wanted & config.capabilities());
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.0.lookup(Node(parent.0), name.as_bytes()) {
            Ok(found) => {
                let name_ttl = if found.cache { TTL } else { Duration::ZERO };
                let attr = file_attr(&found.attr, found.node.0);
                reply.entry_with_ttls(&attr_ttl(&found), &name_ttl, &attr, Generation(found.generation));
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.0.forget(Node(ino.0), nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.attr(Node(ino.0)) {
            Ok(attr) => reply.attr(&TTL, &file_attr(&attr, attr.ino.0)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        data(self.0.read_link(Node(ino.0)), reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.0.open(Node(ino.0)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_NOFLUSH),
            Err(e) => reply.error(errno(e)),
        }
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
        data(self.0.read(Node(ino.0), offset, size), reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.0.open_dir(Node(ino.0)) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let node = Node(ino.0);
        let listing = match self.0.listing(node, fh.0, offset) {
            Ok(listing) => listing,
            Err(e) => return reply.error(errno(e)),
        };
        for (next, line) in listing.from(offset) {
            let kind = file_type(line.kind.unwrap_or_else(|| self.0.kind(node, line)));
            if reply.add(INodeNo(line.ino.0), next, kind, OsStr::from_bytes(&line.name)) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let node = Node(ino.0);
        let listing = match self.0.listing(node, fh.0, offset) {
            Ok(listing) => listing,
            Err(e) => return reply.error(errno(e)),
        };
        for (next, line) in listing.from(offset) {
            let found = self.0.describe(node, line);
            let ttl = attr_ttl(&found);
            let (attr, generation) = (file_attr(&found.attr, found.node.0), Generation(found.generation));
            if reply.add(attr.ino, next, OsStr::from_bytes(&line.name), &ttl, &attr, generation) {
                // It did not fit, so the kernel is not told of it.
                self.0.untell(line, &found);
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.0.close_dir(fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.0.stat_fs(Node(ino.0)) {
            Ok(s) => {
                let (free, size) = (s.free_blocks, s.block_size);
                reply.statfs(s.blocks, free, free, s.inodes, s.free_inodes, size, MAX_NAME, size);
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr(self.0.xattr(Node(ino.0), name.as_bytes(), size), reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        xattr(self.0.xattr_names(Node(ino.0), size), reply);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    // What the kernel does by itself when we do not. Without these, `fuser` logs each try.

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
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
}

impl Cache for Notifier {
    fn inode(&self, node: Node, offset: i64, length: i64) -> io::Result<()> {
        self.inval_inode(INodeNo(node.0), offset, length)
    }

    fn name(&self, parent: Node, name: &[u8]) -> io::Result<()> {
        self.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name))
    }

    fn deleted(&self, parent: Node, name: &[u8], child: Node) -> io::Result<()> {
        self.delete(INodeNo(parent.0), INodeNo(child.0), OsStr::from_bytes(name))
    }
}

/// `fuser` takes the node for the inode number in a first answer. Where they differ, the kernel must
/// ask again for the attributes before it shows them.
fn attr_ttl(found: &Found) -> Duration {
    if found.cache && found.node.0 == found.attr.ino.0 { TTL } else { Duration::ZERO }
}

fn file_attr(attr: &Attr, number: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        // The kernel takes a size it can't count for an error.
        size: attr.size.min(i64::MAX.unsigned_abs()),
        blocks: attr.sectors,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.crtime.unwrap_or(attr.ctime)),
        kind: file_type(attr.kind),
        perm: attr.mode.unwrap_or(if attr.kind == Kind::Dir { 0o755 } else { 0o644 }) & 0o7777,
        nlink: attr.nlink,
        uid: attr.uid.unwrap_or(0),
        gid: attr.gid.unwrap_or(0),
        rdev: attr.rdev.map_or(0, device_number),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// As the kernel packs it: minor's low byte, 12 bits of major, the rest of minor.
fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File | Kind::Reparse => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Sock => FileType::Socket,
        Kind::Chr => FileType::CharDevice,
        Kind::Blk => FileType::BlockDevice,
    }
}

fn system_time(t: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(t.secs.unsigned_abs());
    let second = if t.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|s| s.checked_add(Duration::from_nanos(t.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

fn errno(e: nix::errno::Errno) -> Errno {
    io::Error::from(e).into()
}

fn data(answer: Answer<Vec<u8>>, reply: ReplyData) {
    match answer {
        Ok(bytes) => reply.data(&bytes),
        Err(e) => reply.error(errno(e)),
    }
}

fn xattr(answer: Answer<Sized>, reply: ReplyXattr) {
    match answer {
        Ok(Sized::Length(n)) => reply.size(n),
        Ok(Sized::Bytes(bytes)) => reply.data(&bytes),
        Err(e) => reply.error(errno(e)),
    }
}
