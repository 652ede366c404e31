use std::fs::File;
use std::process::Command;

use super::*;
use crate::image::RawImage;

/// An image of `size` bytes on which `tool args… IMAGE` was run, or `None` (said aloud) without the tool.
fn made(size: u64, tool: &str, args: &[&str]) -> Option<(tempfile::NamedTempFile, RawImage)> {
    let file = tempfile::NamedTempFile::new().unwrap();
    File::options().write(true).open(file.path()).unwrap().set_len(size).unwrap();
    let Ok(out) = Command::new(tool).args(args).arg(file.path()).output() else {
        eprintln!("SKIPPED: {tool} is not installed");
        return None;
    };
    assert!(out.status.success(), "{tool}: {}", String::from_utf8_lossy(&out.stderr));
    let image = RawImage::open(file.path()).unwrap();
    Some((file, image))
}

fn check(size: u64, tool: &str, args: &[&str], fs: &str, label: Option<&str>, uuid: Option<&str>) {
    let Some((_file, image)) = made(size, tool, args) else { return };
    let got = probe(&image).unwrap().unwrap_or_else(|| panic!("{tool} {args:?}: not recognised"));
    assert_eq!((got.fs, got.label.as_deref(), got.uuid.as_deref()), (fs, label, uuid), "{tool} {args:?}");
}

const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

#[test]
fn what_mkfs_makes_is_named() {
    for kind in ["ext2", "ext3", "ext4"] {
        check(16 << 20, "mke2fs", &["-q", "-t", kind, "-L", "home", "-U", UUID], kind, Some("home"), Some(UUID));
    }
    let fat = |bits: &str, size| {
        let args = ["-F", bits, "-n", "STICK", "-i", "1234abcd"];
        check(size, "mkfs.vfat", &args, &format!("fat{bits}"), Some("STICK"), Some("1234-ABCD"));
    };
    fat("12", 2 << 20);
    fat("16", 32 << 20);
    fat("32", 64 << 20);
    check(1 << 20, "mkswap", &["-q", "-L", "sw", "-U", UUID], "swap", Some("sw"), Some(UUID));
}

#[test]
fn others_are_named_by_their_magic() {
    let with = |at: usize, magic: &[u8]| {
        let mut v = vec![0_u8; 128 << 10];
        v[at..at + magic.len()].copy_from_slice(magic);
        probe(&v).unwrap().map(|f| f.fs)
    };
    assert_eq!(with(3, b"NTFS    "), Some("ntfs"));
    assert_eq!(with(3, b"EXFAT   "), Some("exfat"));
    assert_eq!(with(0, b"XFSB"), Some("xfs"));
    assert_eq!(with(0, b"LUKS\xBA\xBE\0\x02"), Some("luks"));
    assert_eq!(with(0x1_0040, b"_BHRfS_M"), Some("btrfs"));
    assert_eq!(with(512, b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001"), Some("lvm2"));
    assert_eq!(with(100, b"x"), None);
}

#[test]
fn short_disks_are_nothing() {
    for len in [0, 1, 511, 512, 1080, 1082, 2047] {
        assert_eq!(probe(&vec![0xFF; len]).unwrap(), None);
    }
    assert_eq!(probe_at(&vec![0; 512], u64::MAX).unwrap(), None);
}

proptest::proptest! {
    #[test]
    fn any_boot_sector_is_read_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 512..1200)) {
        let mut bytes = bytes;
        bytes[0] = 0xE9;
        bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        probe(&bytes).unwrap();
    }
}
