#![allow(clippy::cast_possible_truncation)]

use super::*;
use std::io::Write;

fn image(mode: OpenMode, bytes: &[u8]) -> (tempfile::TempPath, Backing) {
    let mut f = tempfile::NamedTempFile::new().unwrap();
    f.write_all(bytes).unwrap();
    let path = f.into_temp_path();
    let b = Backing::open(&path, mode).unwrap();
    (path, b)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn any_alignment_reads_and_writes_what_a_plain_file_would() {
    for mode in [OpenMode::Direct, OpenMode::Buffered] {
        let mut model = pattern(3 << 20);
        let (path, b) = image(mode, &model);
        let cases = [(0, 512), (4096, 8192), (1, 1), (511, 2), (512, 700_001), (262_143, 3), (3 << 20, 0)];
        for (i, (off, len)) in cases.into_iter().enumerate() {
            let data = vec![i as u8 + 100; len + 1];
            // From the second byte on, so that the memory is unaligned too.
            b.write_at(off as u64, &data[1..], i % 2 == 1).unwrap();
            model[off..off + len].copy_from_slice(&data[1..]);
            let mut back = vec![0; len + 7];
            let from = off.saturating_sub(3).min(model.len() - back.len());
            b.read_at(from as u64, &mut back).unwrap();
            assert_eq!(back, model[from..from + back.len()], "{mode:?} {off}+{len}");
        }
        b.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), model);
    }
}

#[test]
fn parts_of_one_block_written_at_once_do_not_lose_each_other() {
    let (_path, b) = image(OpenMode::Direct, &[0; 4096]);
    std::thread::scope(|s| {
        for t in 0..4u8 {
            let b = &b;
            s.spawn(move || {
                for _ in 0..4 {
                    for i in 0..128u64 {
                        b.write_at(u64::from(t) * 128 + i, &[t + 1], false).unwrap();
                    }
                }
            });
        }
    });
    let mut back = [0; 512];
    b.read_at(0, &mut back).unwrap();
    assert!((0..512).all(|i| back[i] == (i / 128) as u8 + 1));
}

#[test]
fn nothing_happens_past_the_end() {
    let (path, b) = image(OpenMode::Direct, &[1; 4096]);
    let mut buf = [0; 512];
    assert_eq!(b.read_at(4096 - 511, &mut buf).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(b.read_at(u64::MAX, &mut buf).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let enospc = Some(nix::libc::ENOSPC);
    assert_eq!(b.write_at(4096, &buf, false).unwrap_err().raw_os_error(), enospc);
    assert_eq!(b.write_at(u64::MAX - 5, &buf, true).unwrap_err().raw_os_error(), enospc);
    assert_eq!(b.discard(4096, 512).unwrap_err().raw_os_error(), enospc);
    assert_eq!(b.write_zeroes(u64::MAX, 2, true, false).unwrap_err().raw_os_error(), enospc);
    assert_eq!(std::fs::read(path).unwrap(), [1; 4096]);
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeros() {
    let model = pattern(1 << 20);
    for mode in [OpenMode::Direct, OpenMode::Buffered] {
        let (_path, b) = image(mode, &model);
        let told = b.discard(512, 8192).unwrap();
        b.write_zeroes(65_536, 4096, true, false).unwrap();
        b.write_zeroes(131_072, 513, false, true).unwrap();
        b.write_real_zeros(262_000, 300_000).unwrap();
        let mut back = vec![0; 1 << 20];
        b.read_at(0, &mut back).unwrap();
        let mut want = model.clone();
        for (at, len) in [(65_536, 4096), (131_072, 513), (262_000, 300_000)] {
            want[at..at + len].fill(0);
        }
        if told == Discarded::Zeros {
            want[512..512 + 8192].fill(0);
        }
        assert!(back == want, "{mode:?}");
    }
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let (path, first) = image(OpenMode::Direct, &[0; 4096]);
    let refused = Backing::open(&path, OpenMode::Buffered).unwrap_err();
    assert!(matches!(&refused, OpenError::Busy { by, .. } if by.contains("another gammaray")), "{refused}");
    drop(first);
    Backing::open(&path, OpenMode::Direct).unwrap();
}

#[test]
fn an_image_that_a_qemu_writes_is_refused() {
    use nix::fcntl::{FcntlArg, fcntl};
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    // What a QEMU that writes holds: byte 100 + BLK_PERM_WRITE, shared.
    let held = super::lock::byte_lock(nix::libc::F_RDLCK, 101);
    fcntl(file.as_file(), FcntlArg::F_OFD_SETLK(&held)).unwrap();
    let refused = Backing::open(file.path(), OpenMode::Buffered).unwrap_err();
    assert!(matches!(&refused, OpenError::Busy { by, .. } if by.contains("QEMU")), "{refused}");
}

#[test]
fn what_is_no_disk_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let open = |p: &Path| Backing::open(p, OpenMode::Direct).unwrap_err();
    assert!(matches!(open(dir.path()), OpenError::WrongKind(_)));
    assert!(matches!(open(Path::new("/dev/null")), OpenError::WrongKind(_)));
    assert!(matches!(open(&dir.path().join("none")), OpenError::NotFound(_)));
    for size in [0, 511] {
        let path = dir.path().join("small");
        std::fs::write(&path, vec![0; size]).unwrap();
        assert!(matches!(open(&path), OpenError::TooSmall { size: s, .. } if s == size as u64));
    }
}

#[test]
fn an_odd_size_is_served_to_its_last_byte() {
    let (_path, b) = image(OpenMode::Direct, &pattern(1000));
    assert!(!b.is_direct());
    b.write_at(999, &[9], false).unwrap();
    let mut last = [0];
    b.read_at(999, &mut last).unwrap();
    assert_eq!((last, b.size()), ([9], 1000));
}
