//! What the kernel says is in a mounted file system: the canonical listing by lstat, statx,
//! readlink, listxattr and read.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, SeekFrom, StatxFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::content::hash_zeros;
use super::record::{Listing, Record};
use super::text::{hex, join, under};

/// List all that lies below `root`, which should be mounted `ro,noatime`: reading must not change it.
pub fn walk(root: &Path) -> Listing {
    let mut out = Listing::new();
    let mut pending = vec![b"/".to_vec()];
    while let Some(path) = pending.pop() {
        let at = under(root, &path);
        let mut record = examine(&at).unwrap_or_else(|e| failed(&e));
        if record.kind == "dir" {
            match names(&at) {
                Ok(found) => pending.extend(found.iter().map(|n| join(&path, n))),
                Err(e) => record.error = Some(e.to_string()),
            }
        }
        out.insert(path, record);
    }
    out
}

fn failed(e: &io::Error) -> Record {
    Record { error: Some(e.to_string()), ..Record::default() }
}

fn names(dir: &Path) -> io::Result<Vec<Vec<u8>>> {
    std::fs::read_dir(dir)?.map(|e| Ok(e?.file_name().into_vec())).collect()
}

fn examine(at: &Path) -> io::Result<Record> {
    let meta = std::fs::symlink_metadata(at)?;
    let kind = kind(meta.file_type());
    let ns = |s: i64, n: i64| s.checked_mul(1_000_000_000).and_then(|s| s.checked_add(n));
    Ok(Record {
        kind: kind.into(),
        size: Some(meta.size()),
        ino: Some(meta.ino()),
        nlink: Some(meta.nlink()),
        mode: Some(u64::from(meta.mode() & 0o7777)),
        uid: Some(meta.uid().into()),
        gid: Some(meta.gid().into()),
        mtime: ns(meta.mtime(), meta.mtime_nsec()),
        atime: ns(meta.atime(), meta.atime_nsec()),
        ctime: ns(meta.ctime(), meta.ctime_nsec()),
        crtime: birth(at),
        target: (kind == "symlink").then(|| std::fs::read_link(at)).transpose()?.map(|t| t.into_os_string().into_vec()),
        rdev: matches!(kind, "chr" | "blk").then(|| device(meta.rdev())),
        xattrs: Some(xattrs(at)?),
        sha256: (kind == "file").then(|| hash(at)).transpose()?,
        streams: None,
        reparse_tag: None,
        error: None,
    })
}

fn kind(t: std::fs::FileType) -> &'static str {
    match t {
        t if t.is_file() => "file",
        t if t.is_dir() => "dir",
        t if t.is_symlink() => "symlink",
        t if t.is_fifo() => "fifo",
        t if t.is_socket() => "sock",
        t if t.is_char_device() => "chr",
        t if t.is_block_device() => "blk",
        _ => "unknown",
    }
}

fn device(rdev: u64) -> (u64, u64) {
    (rustix::fs::major(rdev).into(), rustix::fs::minor(rdev).into())
}

/// The time of creation, where the file system tells it (ext with 128-byte inodes and FUSE do not).
fn birth(at: &Path) -> Option<i64> {
    let x = rustix::fs::statx(CWD, at, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
    let known = x.stx_mask & StatxFlags::BTIME.bits() != 0;
    known.then(|| x.stx_btime.tv_sec.checked_mul(1_000_000_000)?.checked_add(x.stx_btime.tv_nsec.into())).flatten()
}

fn xattrs(at: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut names = vec![0u8; 64 << 10];
    let len = match rustix::fs::llistxattr(at, &mut names) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
        other => other?,
    };
    let mut value = vec![0u8; 64 << 10];
    let mut out = BTreeMap::new();
    for name in names[..len].split_inclusive(|b| *b == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let len = rustix::fs::lgetxattr(at, name, &mut value)?;
        out.insert(OsStr::from_bytes(name.to_bytes()).to_string_lossy().into_owned(), hex(&value[..len]));
    }
    Ok(out)
}

/// The hash of a file's content. Holes are hashed as zeros without being read: otherwise the
/// kernel would fill its cache with gigabytes of them.
fn hash(at: &Path) -> io::Result<String> {
    let file = File::open(at)?;
    let size = file.metadata()?.len();
    let mut hash = Sha256::new();
    let mut buf = vec![0u8; 1 << 20];
    let mut at = 0;
    while at < size {
        let data = next(&file, SeekFrom::Data(at), size)?;
        hash_zeros(&mut hash, data - at);
        at = next(&file, SeekFrom::Hole(data), size)?;
        let mut rest = (&file).take(at - data);
        rustix::fs::seek(&file, SeekFrom::Start(data))?;
        loop {
            match rest.read(&mut buf)? {
                0 => break,
                n => hash.update(&buf[..n]),
            }
        }
        if rest.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Where the next data or hole begins; the end of the file if there is none.
fn next(file: &File, what: SeekFrom, size: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, what) {
        Err(Errno::NXIO) => Ok(size),
        other => Ok(other?.min(size)),
    }
}
