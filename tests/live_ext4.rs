//! The main property: whatever a real kernel does to a file system on our disk, at any point of
//! rest the inferred tree is the kernel's, and the events replayed over the first tree lead to it.
//!
//! `GAMMARAY_LONG=1` runs many more seeds; `GAMMARAY_OPERATIONS` and `GAMMARAY_ROUNDS` shorten a
//! run to search for the first operation that fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod support;

use support::live::{Setup, run};

/// One test a line: name, seed, `mke2fs -t`, mount options.
macro_rules! live {
    ($($name:ident $seed:literal $mkfs:literal $mount:literal;)+) => {
        $(
            #[test]
            fn $name() {
                need!(root, fuse, loop);
                run(&Setup { seed: $seed, mkfs: $mkfs, mount: $mount });
            }
        )+

        const SETUPS: &[(&str, &str)] = &[$(($mkfs, $mount)),+];
    };
}

live! {
    seed_1_ext4_4k 1 "ext4 -b 4096" "relatime";
    seed_2_ext4_2k 2 "ext4 -b 2048" "noatime";
    seed_3_ext4_1k 3 "ext4 -b 1024" "relatime";
    seed_4_ext4_4k_no_journal 4 "ext4 -b 4096 -O ^has_journal" "relatime";
    seed_5_ext4_2k_no_journal 5 "ext4 -b 2048 -O ^has_journal" "noatime";
    seed_6_ext4_1k_no_journal 6 "ext4 -b 1024 -O ^has_journal" "relatime";
    seed_7_ext3_4k 7 "ext3 -b 4096" "relatime";
    seed_8_ext3_1k 8 "ext3 -b 1024" "commit=1";
    seed_9_ext2_1k 9 "ext2 -b 1024" "relatime";
    seed_10_ext2_4k 10 "ext2 -b 4096" "noatime";
    seed_11_ext4_orphan_file 11 "ext4 -b 4096 -O orphan_file,metadata_csum_seed" "commit=1";
    seed_12_ext4_1k_small_inodes 12 "ext4 -b 1024 -I 128 -O ^64bit" "discard";
    seed_13_ext4_data_in_the_journal 13 "ext4 -b 4096" "data=journal";
    seed_14_ext4_unordered 14 "ext4 -b 1024 -O ^metadata_csum" "data=writeback,nodelalloc";
}

/// Hours of it, if asked for.
#[test]
fn many_more_seeds() {
    need!(root, fuse, loop);
    if std::env::var_os("GAMMARAY_LONG").is_none() {
        return;
    }
    for seed in 100..200 {
        let (mkfs, mount) = SETUPS[seed as usize % SETUPS.len()];
        eprintln!("seed {seed}: {mkfs}, mounted {mount}");
        run(&Setup { seed, mkfs, mount });
    }
}
