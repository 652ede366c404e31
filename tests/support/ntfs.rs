//! NTFS for tests: ntfs-3g makes it, writes it and says what is in it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::lgetxattr;
use sha2::{Digest, Sha256};

use super::disk::{Loop, Mount, run};
use super::oracle;
use super::record::{Listing, Record, Stream};
use super::text::{hex, under};

/// Whether an image starts with NTFS' boot sector.
pub fn is_ntfs(image: &Path, offset: u64) -> bool {
    use std::os::unix::fs::FileExt;
    let mut magic = [0; 8];
    File::open(image).and_then(|f| f.read_exact_at(&mut magic, offset + 3)).is_ok() && magic == *b"NTFS    "
}

/// Make a file system; `words` are options of mkntfs.
pub fn format(device: &Path, words: &str) {
    let args = ["-Q", "-F", "-q"].into_iter().chain(words.split_whitespace());
    run("mkntfs", args.map(OsStr::new).chain([device.as_os_str()]));
}

/// What ntfs-3g finds in an image, which is not changed. What POSIX asks for and NTFS does not
/// keep is left out.
pub fn listing(image: &Path, scratch: &Path, loop_options: &[&str]) -> Listing {
    let options = [loop_options, &["--read-only"]].concat();
    // Two mounts of one device would share their options.
    let (plain, with_streams) = (Loop::attach_with(image, &options), Loop::attach_with(image, &options));
    let mount = |device: &Loop, dir: &str, interface: &str| {
        let options = format!("ro,norecover,noatime,streams_interface={interface}");
        Mount::new(&device.device, &scratch.join(dir), &options)
    };
    let files = mount(&plain, "oracle", "xattr");
    let streams = mount(&with_streams, "oracle-streams", "windows");
    let mut all = oracle::walk(&files.dir);
    for (path, record) in &mut all {
        complete(record, &under(&files.dir, path), &under(&streams.dir, path), path == b"/");
    }
    files.unmount();
    streams.unmount();
    all
}

fn complete(record: &mut Record, at: &Path, with_streams: &Path, is_root: bool) {
    (record.mode, record.uid, record.gid, record.xattrs) = (None, None, None, None);
    // Its `stat` is wrong about fractions of seconds before 1970.
    let mut times = [0; 32];
    if lgetxattr(at, "system.ntfs_times_be", &mut times) == Ok(32) {
        let time = |n: usize| {
            let tick = u64::from_be_bytes(times[n * 8..n * 8 + 8].try_into().unwrap());
            i64::try_from((i128::from(tick) - 116_444_736_000_000_000) * 100).ok()
        };
        (record.crtime, record.mtime, record.atime, record.ctime) = (time(0), time(1), time(2), time(3));
    }
    // It counts the short form of a name as a further one.
    if lgetxattr(at, "system.ntfs_dos_name", &mut [0; 64]).is_ok() {
        record.nlink = None;
    }
    let mut reparse = vec![0; 64 << 10];
    if let Ok(len @ 8..) = lgetxattr(at, "system.ntfs_reparse_data", &mut reparse) {
        complete_reparse(record, &reparse[..len]);
    }
    // Nothing is named `/:stream` there.
    record.streams = if is_root { None } else { Some(streams(with_streams)) };
}

/// ntfs-3g translates targets to paths of the host; here they stay as they are.
fn complete_reparse(record: &mut Record, bytes: &[u8]) {
    let tag = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    record.reparse_tag = Some(tag.into());
    (record.size, record.sha256) = (None, None);
    let header = match tag {
        0xA000_000C => 20,
        0xA000_0003 => 16,
        _ => {
            record.kind = "reparse".into();
            record.target = None;
            return;
        }
    };
    let field = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let name = &bytes[header + field(8)..header + field(8) + field(10)];
    let units: Vec<u16> = name.chunks(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    record.kind = "symlink".into();
    record.target = Some(String::from_utf16(&units).unwrap().into_bytes());
}

fn streams(at: &Path) -> BTreeMap<String, Stream> {
    let mut list = vec![0; 64 << 10];
    let len = lgetxattr(at, "ntfs.streams.list", &mut list).unwrap_or(0);
    let names = list[..len].split(|b| *b == 0).filter(|n| !n.is_empty());
    names.map(|name| (String::from_utf8_lossy(name).into_owned(), stream(at, name))).collect()
}

fn stream(at: &Path, name: &[u8]) -> Stream {
    let path = [at.as_os_str().as_bytes(), b":", name].concat();
    let mut bytes = Vec::new();
    File::open(OsStr::from_bytes(&path)).and_then(|mut f| f.read_to_end(&mut bytes)).unwrap();
    Stream { size: bytes.len() as u64, sha256: Some(hex(&Sha256::digest(&bytes))) }
}
