use super::super::record::pack;
use super::*;

fn record(run: u64, seq: u64) -> Record {
    Record { run, seq, bytes: pack([&[7; 1000][..]]) }
}

fn options(dir: &tempfile::TempDir, limit: u64) -> SpoolOptions {
    SpoolOptions { dir: dir.path().join("spool"), limit }
}

/// Read to the end, as the worker does.
fn drain(spool: &mut Spool) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    loop {
        let some = spool.read(10_000, 7).0;
        if some.is_empty() {
            return all;
        }
        all.extend(some.iter().map(|r| (r.run, r.seq)));
        spool.delivered();
    }
}

#[test]
fn another_run_goes_on_where_one_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&options(&dir, 1 << 30), "a b").unwrap();
    (1..=200).for_each(|n| assert_eq!(spool.push(&record(5, n)).unwrap(), []));
    assert_eq!(spool.read(1 << 20, 20).0.len(), 20);
    spool.delivered();
    assert_eq!(spool.read(1 << 20, 30).0.len(), 30);
    spool.sync().unwrap();
    assert!(Spool::open(&options(&dir, 1 << 30), "a b").is_err(), "it is in use");
    drop(spool);
    let mut spool = Spool::open(&options(&dir, 1 << 30), "a b").unwrap();
    assert_eq!(spool.last_run(), Some(5));
    spool.push(&record(6, 1)).unwrap();
    spool.put_first(&[record(4, 8), record(4, 9), record(5, 20)]).unwrap();
    let expected: Vec<_> =
        [(4, 8), (4, 9), (5, 20)].into_iter().chain((21..=200).map(|n| (5, n))).chain([(6, 1)]).collect();
    assert_eq!(drain(&mut spool), expected);
    assert!(spool.is_empty());
    spool.push(&record(6, 2)).unwrap();
    assert_eq!(drain(&mut spool), [(6, 2)]);
}

#[test]
fn when_it_is_full_the_oldest_go_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&options(&dir, 1 << 20), "vm").unwrap();
    let lost: Vec<_> = (1..=3000).flat_map(|n| spool.push(&record(1, n)).unwrap()).collect();
    let last = lost.last().unwrap().last;
    assert!(lost.windows(2).all(|w| w[1].first == w[0].last + 1) && lost[0].first == 1);
    assert!((1800..2400).contains(&last), "{last}");
    assert_eq!(drain(&mut spool), (last + 1..=3000).map(|n| (1, n)).collect::<Vec<_>>());
    let left: u64 =
        std::fs::read_dir(dir.path().join("spool")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(left < 128 << 10, "{left} bytes are left on disk");
}

#[test]
fn a_cut_or_damaged_file_gives_what_stands_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(&options(&dir, 1 << 30), "vm").unwrap();
    (1..=10).for_each(|n| drop(spool.push(&record(1, n)).unwrap()));
    spool.sync().unwrap();
    drop(spool);
    let path = numbered(&dir.path().join("spool"), "vm").unwrap().remove(0).1;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 10);
    bytes[24 + 3 * 1020 + 500] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut spool = Spool::open(&options(&dir, 1 << 30), "vm").unwrap();
    assert_eq!(drain(&mut spool), [(1, 1), (1, 2), (1, 3)]);
}
