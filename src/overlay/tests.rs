use std::sync::Arc;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Put(u64, u64, u64),
    Zero(u64, u64),
}

const SIZE: usize = 512;

fn index(at: u64) -> usize {
    usize::try_from(at).unwrap()
}

fn op() -> impl Strategy<Value = Op> {
    let range = (0..SIZE as u64, 0..64_u64);
    prop_oneof![
        3 => (range.clone(), 0..900_u64).prop_map(|((at, len), pos)| Op::Put(at, len, pos)),
        1 => range.prop_map(|(at, len)| Op::Zero(at, len)),
    ]
}

fn store() -> (File, Vec<u8>) {
    let file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..1024_u32).map(|i| u8::try_from(i * 7 % 251 + 1).unwrap()).collect();
    file.write_all_at(&bytes, 0).unwrap();
    (file, bytes)
}

proptest! {
    /// The overlay reads like a disk to which the same bytes were written.
    #[test]
    fn it_reads_like_a_written_disk(ops in prop::collection::vec(op(), 0..60), reads in prop::collection::vec((0..SIZE, 0..SIZE), 8)) {
        let mut model = vec![0xAA_u8; SIZE];
        let (file, bytes) = store();
        let overlay = Overlay::new(Arc::new(model.clone()), file);
        for op in ops {
            match op {
                Op::Put(at, len, pos) => {
                    let end = (at + len).min(SIZE as u64);
                    overlay.put(at..end, pos);
                    let (a, b, p) = (index(at), index(end), index(pos));
                    model[a..b].copy_from_slice(&bytes[p..p + b - a]);
                }
                Op::Zero(at, len) => {
                    let end = (at + len).min(SIZE as u64);
                    overlay.zero(at..end);
                    model[index(at)..index(end)].fill(0);
                }
            }
        }
        for (from, to) in reads {
            let (from, to) = (from.min(to), from.max(to));
            let mut got = vec![0; to - from];
            overlay.read_at(from as u64, &mut got).unwrap();
            prop_assert_eq!(&got, &model[from..to]);
        }
    }
}

#[test]
fn what_follows_on_in_the_store_is_one_range() {
    let (file, _) = store();
    let overlay = Overlay::new(Arc::new(vec![0; SIZE]), file);
    overlay.put(0..16, 100);
    overlay.put(16..32, 116);
    assert_eq!(overlay.ranges(), 1);
    overlay.put(32..48, 100);
    overlay.zero(48..50);
    overlay.zero(50..60);
    assert_eq!(overlay.ranges(), 3);
}

#[test]
fn past_the_end_is_an_error() {
    let (file, _) = store();
    let overlay = Overlay::new(Arc::new(vec![0; SIZE]), file);
    assert!(overlay.read_at(SIZE as u64 - 1, &mut [0; 2]).is_err());
    assert!(overlay.read_at(u64::MAX, &mut [0; 2]).is_err());
}
