use super::super::recording_tests::{SIZE, content, pieces, replay};
use super::*;

const FUA: u64 = 2;

fn log(sector: u32, entries: &[(u64, u64, u64, &[u8])]) -> Vec<u8> {
    let size = sector as usize;
    let padded = |mut v: Vec<u8>| {
        v.resize(v.len().next_multiple_of(size), 0);
        v
    };
    let words = |w: &[u64]| w.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    let mut out = padded(words(&[MAGIC, 1, entries.len() as u64, u64::from(sector)]));
    for (at, count, flags, data) in entries {
        out.extend(padded(words(&[*at, *count, *flags, 0])));
        out.extend(padded(data.to_vec()));
    }
    out
}

fn run(bytes: &[u8]) -> (Vec<Write>, Option<StreamError>) {
    let mut writes = Vec::new();
    let all = match LogWrites::new(replay(bytes, false, None).0) {
        Ok(all) => all,
        Err(e) => return (writes, Some(e)),
    };
    for w in all {
        match w {
            Ok(w) => writes.push(w),
            Err(e) => return (writes, Some(e)),
        }
    }
    (writes, None)
}

#[test]
fn writes_flushes_and_discards_in_order() {
    for sector in [512, 4096] {
        let block = vec![5; sector as usize];
        let size = u64::from(sector);
        let bytes = log(
            sector,
            &[(3, 1, FUA, &block), (0, 0, FLUSH, &[]), (7, 1, FLUSH, &block), (3, 1, DISCARD, &[]), (0, 0, MARK, &[])],
        );
        for pipe in [false, true] {
            let (replay, disk) = replay(&bytes, pipe, Some(0..SIZE));
            let writes: Vec<_> = LogWrites::new(replay).unwrap().map(Result::unwrap).collect();
            let kinds: Vec<_> = writes.iter().map(|w| (w.epoch, std::mem::discriminant(&w.op))).collect();
            let data = std::mem::discriminant(&WriteOp::Data { offset: 0, len: 0, pieces: vec![] });
            let flush = std::mem::discriminant(&WriteOp::Flush);
            let discard = std::mem::discriminant(&WriteOp::Discard(0..0));
            assert_eq!(kinds, [(0, data), (1, flush), (2, flush), (2, data), (2, discard)]);
            assert_eq!(pieces(&writes[3]), [(7 * size, block.clone())]);
            let content = content(&disk);
            assert!(content[3 * sector as usize..7 * sector as usize].iter().all(|b| *b == 0));
            assert_eq!(content[7 * sector as usize..8 * sector as usize], block);
        }
    }
}

#[test]
fn bad_logs_are_told_with_their_place() {
    assert!(matches!(run(b"").1, Some(StreamError::Implausible { at: 0, .. })));
    assert!(matches!(run(&[0; 4096]).1, Some(StreamError::Implausible { at: 0, .. })));
    assert!(matches!(run(&log(1000, &[])).1, Some(StreamError::Implausible { at: 0, .. })));
    let past = log(512, &[(0, 1, 0, &[1; 512]), (SIZE / 512, 1, 0, &[1; 512])]);
    let (writes, end) = run(&past);
    assert_eq!(writes.len(), 1);
    assert!(matches!(end, Some(StreamError::PastEnd { at: 1536, .. })), "{end:?}");
    assert!(matches!(run(&log(512, &[(u64::MAX, 1, 0, &[])])).1, Some(StreamError::PastEnd { at: 512, .. })));
    assert!(matches!(run(&log(512, &[(0, 1, 0x80, &[])])).1, Some(StreamError::Implausible { at: 512, .. })));
    let whole = log(512, &[(0, 2, 0, &[1; 1024])]);
    for (len, missing, length) in [(600, 424, 512), (1024, 1024, 1536), (2047, 1, 1536)] {
        let end = run(&whole[..len]).1;
        assert!(
            matches!(end, Some(StreamError::Cut { at: 512, missing: m, length: l }) if (m, l) == (missing, length)),
            "{len} {end:?}"
        );
    }
}

#[test]
fn what_lies_behind_the_last_entry_is_not_read() {
    let mut bytes = log(512, &[(0, 1, 0, &[1; 512])]);
    bytes.extend([0xFF; 700]);
    let (writes, end) = run(&bytes);
    assert!(end.is_none() && writes.len() == 1);
}

proptest::proptest! {
    #[test]
    fn any_entries_end_in_an_error_or_the_end(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..4096)) {
        let mut log = log(512, &[(0, 0, 0, &[])]);
        log[16..24].fill(0xFF);
        log.truncate(512);
        log.extend(bytes);
        run(&log);
    }
}
