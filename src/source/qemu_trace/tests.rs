use proptest::prelude::*;

use super::super::recording_tests::{SIZE, content, pieces, replay};
use super::*;
use crate::write::WriteOp;

fn record(sector: i64, data: &[u8]) -> Vec<u8> {
    let mut r = sector.to_le_bytes().to_vec();
    r.extend(i32::try_from(data.len() / 512).unwrap().to_le_bytes());
    r.extend(data);
    r
}

fn run(bytes: &[u8], pipe: bool) -> (Vec<Write>, Option<StreamError>) {
    let mut writes = Vec::new();
    for w in QemuTrace::new(replay(bytes, pipe, None).0) {
        match w {
            Ok(w) => writes.push(w),
            Err(e) => return (writes, Some(e)),
        }
    }
    (writes, None)
}

#[test]
fn wanted_bytes_are_handed_on_and_the_rest_is_on_the_disk() {
    let data: Vec<u8> = (0..16384_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let trace = [record(8, &data), record(0, &data[..512])].concat();
    for pipe in [false, true] {
        let (replay, disk) = replay(&trace, pipe, Some(8192..8193));
        let writes: Vec<_> = QemuTrace::new(replay).map(Result::unwrap).collect();
        assert_eq!(writes.iter().map(|w| (w.seq, w.epoch)).collect::<Vec<_>>(), [(1, 0), (2, 0)]);
        assert!(matches!(writes[0].op, WriteOp::Data { offset: 4096, len: 16384, .. }));
        assert_eq!(pieces(&writes[0]), [(8192, data[4096..8192].to_vec())]);
        assert!(pieces(&writes[1]).is_empty());
        let content = content(&disk);
        assert_eq!(content[..512], data[..512]);
        assert_eq!(content[4096..4096 + 16384], data);
    }
}

#[test]
fn long_records_come_in_parts() {
    let data = vec![7; 3 << 20];
    let (writes, end) = run(&record(1, &data), true);
    assert!(end.is_none());
    let lens: Vec<_> = writes.iter().map(|w| if let WriteOp::Data { len, .. } = w.op { len } else { 0 }).collect();
    assert_eq!(lens, [(1 << 20) - 512, 1 << 20, 1 << 20, 512]);
}

#[test]
fn a_cut_trace_says_where_and_delivers_what_came_before() {
    let trace = [record(0, &[1; 1024]), record(2, &[2; 1024])].concat();
    for pipe in [false, true] {
        for (len, at, missing, length) in
            [(1036 + 5, 1036, 7, 12), (1036 + 12, 1036, 1024, 1036), (2000, 1036, 72, 1036)]
        {
            let (writes, end) = run(&trace[..len], pipe);
            assert_eq!(writes.len(), 1, "{len}");
            match end {
                Some(StreamError::Cut { at: a, missing: m, length: l }) => {
                    assert_eq!((a, m, l), (at, missing, length), "{len} {pipe}")
                }
                other => panic!("{len}: {other:?}"),
            }
        }
    }
}

#[test]
fn whole_lines_of_text_between_records_are_skipped() {
    let line = b"qemu-system-x86_64: warning: host doesn't\n".to_vec();
    for pipe in [false, true] {
        let trace = [record(0, &[1; 512]), line.clone(), line.clone(), record(1, &[2; 512])].concat();
        let (writes, end) = run(&trace, pipe);
        assert!(end.is_none(), "{end:?}");
        assert_eq!(writes.len(), 2);
    }
}

#[test]
fn text_that_hides_the_next_record_is_told_with_its_place() {
    let text = b"qemu-system-x86_64: warning: no end of line".to_vec();
    for rest in [record(1, &[2; 512]), Vec::new()] {
        let (writes, end) = run(&[record(0, &[1; 512]), text.clone(), rest].concat(), true);
        assert_eq!(writes.len(), 1);
        let end = end.unwrap().to_string();
        assert!(end.contains("byte 524") && end.contains("qemu-system-x86_64: warning"), "{end}");
    }
}

#[test]
fn a_recorded_loss_stops_the_reader() {
    let lost = [(-3_i64).to_le_bytes().to_vec(), vec![0; 4]].concat();
    let (writes, end) = run(&[record(0, &[1; 512]), lost, record(1, &[2; 512])].concat(), false);
    assert_eq!(writes.len(), 1);
    assert!(matches!(end, Some(StreamError::Lost { at: 524, writes: 3 })), "{end:?}");
}

#[test]
fn headers_that_make_no_sense_stop_the_reader() {
    let header =
        |sector: i64, n: i32| [sector.to_le_bytes().to_vec(), n.to_le_bytes().to_vec(), vec![0; 4096]].concat();
    let last = i64::try_from(SIZE / 512 - 1).unwrap();
    assert!(matches!(run(&header(-1, 1), false).1, Some(StreamError::Implausible { at: 0, .. })));
    assert!(matches!(run(&header(0, -1), false).1, Some(StreamError::Implausible { .. })));
    assert!(matches!(run(&header(i64::MAX, i32::MAX), false).1, Some(StreamError::Implausible { .. })));
    assert!(matches!(run(&header(last, 2), false).1, Some(StreamError::PastEnd { .. })));
    assert!(matches!(run(&vec![0; 1 << 16], false).1, Some(StreamError::Implausible { .. })));
    assert!(run(&record(last, &[1; 512]), false).1.is_none());
    assert!(run(&[], true).1.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_bytes_end_in_an_error_or_the_end(bytes in prop::collection::vec(any::<u8>(), 0..4096), pipe: bool) {
        run(&bytes, pipe);
    }

    /// File and pipe, with any interest, give the same disk, and pieces that are the disk's bytes.
    #[test]
    fn file_and_pipe_agree(
        writes in prop::collection::vec((0..16_000_i64, 1..40_usize, any::<u8>()), 1..20),
        wanted in prop::collection::vec((0..SIZE, 1..100_000_u64), 0..5)
    ) {
        let writes: Vec<_> = writes.iter().map(|(s, n, b)| (*s, n.min(&usize::try_from(16_384 - s).unwrap()) * 512, *b)).collect();
        let trace: Vec<u8> = writes.iter().flat_map(|(s, n, b)| record(*s, &vec![*b; *n])).collect();
        let wanted: Vec<_> = wanted.iter().map(|(at, len)| *at..(at + len).min(SIZE)).collect();
        let mut model = vec![0_u8; usize::try_from(SIZE).unwrap()];
        for (sector, len, byte) in &writes {
            let at = usize::try_from(*sector).unwrap() * 512;
            model[at..at + len].fill(*byte);
        }
        let mut seen = Vec::new();
        for pipe in [false, true] {
            let (replay, disk) = replay(&trace, pipe, wanted.clone());
            seen.push(QemuTrace::new(replay).map(|w| pieces(&w.unwrap())).collect::<Vec<_>>());
            prop_assert!(content(&disk) == model);
        }
        prop_assert_eq!(&seen[0], &seen[1]);
    }
}
