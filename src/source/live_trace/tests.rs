use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::thread;

use proptest::prelude::*;

use super::*;

const LONG: Duration = Duration::from_secs(20);
const SIZE: u64 = 8 << 20;

fn record(sector: i64, data: &[u8]) -> Vec<u8> {
    let sectors = i32::try_from(data.len() / 512).unwrap();
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), data].concat()
}

/// A trace of these bytes, which come in bites of up to `bite`.
fn trace(bytes: &[u8], bite: usize, again: bool) -> LiveTrace {
    let (reader, mut writer) = io::pipe().unwrap();
    let bytes = bytes.to_vec();
    thread::spawn(move || {
        for part in bytes.chunks(bite) {
            // The reader may have stopped at nonsense.
            if writer.write_all(part).is_err() {
                return;
            }
            if bite < 1000 {
                thread::sleep(Duration::from_micros(50));
            }
        }
    });
    LiveTrace::new(Uring::start(File::from(OwnedFd::from(reader)), again).unwrap(), Some(SIZE))
}

fn all(mut trace: LiveTrace) -> (Vec<Found>, Option<StreamError>) {
    let mut found = Vec::new();
    loop {
        match trace.next_within(LONG) {
            Ok(Found::End) => return (found, None),
            Ok(f) => found.push(f),
            Err(e) => return (found, Some(e)),
        }
    }
}

fn write(sector: u64, data: Vec<u8>) -> Found {
    Found::Write { offset: sector * 512, data }
}

#[test]
fn records_text_and_losses_come_in_order_whatever_the_bites() {
    let lost = [&(-9_i64).to_le_bytes()[..], &[0; 4]].concat();
    let text = b"qemu-system-x86_64: warning: x\n".to_vec();
    let bytes = [record(3, &[1; 1024]), text, record(0, &[2; 512]), record(7, &[]), lost, record(9, &[3; 512])];
    let bytes = bytes.concat();
    for bite in [1, 7, 500, 1 << 20] {
        let (found, end) = all(trace(&bytes, bite, false));
        assert!(end.is_none(), "{end:?}");
        let text = Found::Text { at: 1036, text: "qemu-system-x86_64: warning: x".into() };
        assert_eq!(
            found,
            [write(3, vec![1; 1024]), text, write(0, vec![2; 512]), Found::Lost(9), write(9, vec![3; 512])]
        );
    }
}

#[test]
fn long_writes_come_in_parts() {
    let (found, _) = all(trace(&record(1, &vec![7; 3 << 20]), 1 << 16, false));
    let lens = found.iter().map(|f| if let Found::Write { data, .. } = f { data.len() } else { 0 });
    assert_eq!(lens.collect::<Vec<_>>(), [(1 << 20) - 512, 1 << 20, 1 << 20, 512]);
}

#[test]
fn a_cut_end_and_nonsense_are_told_with_their_place() {
    let two = [record(0, &[1; 512]), record(1, &[1; 512])].concat();
    let (found, end) = all(trace(&two[..1000], 1 << 20, false));
    assert_eq!(found.len(), 1);
    assert!(matches!(end, Some(StreamError::Cut { at: 524, missing: 48, length: 524 })), "{end:?}");
    let (_, end) = all(trace(&two[..530], 1 << 20, false));
    assert!(matches!(end, Some(StreamError::Cut { at: 524, missing: 6, .. })), "{end:?}");
    let (_, end) = all(trace(&[&two[..524], b"no end of line", &two].concat(), 1 << 20, false));
    assert!(matches!(&end, Some(StreamError::Text { at: 524, text }) if text == "no end of line"), "{end:?}");
    let (_, end) = all(trace(&record(i64::try_from(SIZE / 512).unwrap(), &[1; 512]), 1 << 20, false));
    assert!(matches!(end, Some(StreamError::Implausible { at: 0, .. })), "{end:?}");
    let (_, end) = all(trace(&[0; 4096], 1 << 20, false));
    assert!(matches!(end, Some(StreamError::Implausible { .. })), "{end:?}");
}

#[test]
fn a_writer_that_died_within_a_record_is_followed_by_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let open = || std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let (sent, to) = (record(1, &[1; 512]), path.clone());
    let first = thread::spawn(move || File::options().write(true).open(to).unwrap().write_all(&sent[..300]).unwrap());
    let mut trace = LiveTrace::open(&path, Some(SIZE)).unwrap();
    first.join().unwrap();
    assert_eq!(trace.next_within(LONG).unwrap(), Found::Torn { at: 0, missing: 224 });
    assert_eq!(trace.next_within(Duration::from_millis(30)).unwrap(), Found::Nothing);
    open().write_all(&record(2, &[2; 512])).unwrap();
    assert_eq!(trace.next_within(LONG).unwrap(), write(2, vec![2; 512]));
    assert_eq!(trace.next_within(LONG).unwrap(), Found::Closed);
    // QEMU's last words.
    open().write_all(b"terminating on signal 15\n").unwrap();
    assert_eq!(trace.next_within(LONG).unwrap(), Found::Text { at: 824, text: "terminating on signal 15".into() });
    open().write_all(&record(3, &[3; 512])).unwrap();
    assert_eq!(trace.next_within(LONG).unwrap(), write(3, vec![3; 512]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_bytes_end_in_an_error_or_the_end(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        all(trace(&bytes, 1 << 20, false));
    }
}
