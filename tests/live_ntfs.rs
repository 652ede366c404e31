//! The main property on NTFS: whatever ntfs-3g does to a file system on our disk, at any point of
//! rest the inferred tree is what ntfs-3g finds, and the events replayed over the first tree lead
//! to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod support;

use support::live::{Setup, run};

/// One test a line: name, seed, options of mkntfs, mount options.
macro_rules! live {
    ($($name:ident $seed:literal $mkfs:literal $mount:literal;)+) => {
        $(
            #[test]
            fn $name() {
                need!(root, fuse, loop, "mkntfs", "ntfs-3g");
                run(&Setup { seed: $seed, mkfs: $mkfs, mount: $mount });
            }
        )+

        const SETUPS: &[(&str, &str)] = &[$(($mkfs, $mount)),+];
    };
}

live! {
    seed_1_4k 1 "ntfs -c 4096" "relatime";
    seed_2_512 2 "ntfs -c 512" "noatime";
    seed_3_1k 3 "ntfs -c 1024" "noatime";
    seed_4_64k 4 "ntfs -c 65536" "relatime";
    seed_5_compressed 5 "ntfs -c 4096 -C" "noatime,compression";
}

/// Hours of it, if asked for.
#[test]
fn many_more_seeds() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    if std::env::var_os("GAMMARAY_LONG").is_none() {
        return;
    }
    for seed in 100..150 {
        let (mkfs, mount) = SETUPS[seed as usize % SETUPS.len()];
        eprintln!("seed {seed}: {mkfs}, mounted {mount}");
        run(&Setup { seed, mkfs, mount });
    }
}
