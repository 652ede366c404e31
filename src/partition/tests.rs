use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

/// The bytes of a disk of `size` bytes that `sfdisk` has partitioned by `script`.
fn sfdisk(size: u64, script: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    let mut cmd = Command::new("sfdisk");
    cmd.args(["-q", "--no-reread", "--no-tell-kernel"]).arg(file.path());
    let mut child = cmd.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
    std::fs::read(file.path()).unwrap()
}

fn divide_by_8(field: &mut [u8]) {
    let value = u64::from_le_bytes(std::array::from_fn(|i| field.get(i).copied().unwrap_or(0)));
    let len = field.len();
    field.copy_from_slice(&(value / 8).to_le_bytes()[..len]);
}

/// The same partitions, counted by sectors of 4096 bytes.
fn mbr_by_4096(mut disk: Vec<u8>, records: &[usize]) -> Vec<u8> {
    for record in records {
        for field in (0..4).flat_map(|slot| [8, 12].map(|f| record + 446 + slot * 16 + f)) {
            divide_by_8(&mut disk[field..field + 4]);
        }
    }
    disk
}

/// The same partitions, counted by sectors of 4096 bytes.
fn gpt_by_4096(disk: &[u8]) -> Vec<u8> {
    let (sector, last) = (4096, disk.len() / 4096 - 1);
    let crc = |bytes: &[u8]| crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes).to_le_bytes();
    let mut out = vec![0; disk.len()];
    out[..512].copy_from_slice(&disk[..512]);
    divide_by_8(&mut out[446 + 12..446 + 16]);
    let mut array = disk[1024..1024 + 16384].to_vec();
    for entry in array.chunks_mut(128) {
        divide_by_8(&mut entry[32..40]);
        let past = u64::from_le_bytes(entry[40..48].try_into().unwrap()) + 1;
        entry[40..48].copy_from_slice(&(past / 8).saturating_sub(1).to_le_bytes());
    }
    for (at, other, array_at) in [(1, last, 2), (last, 1, last - 4)] {
        let mut header = disk[512..604].to_vec();
        for (field, lba) in [(24, at), (32, other), (40, 6), (48, last - 5), (72, array_at)] {
            header[field..field + 8].copy_from_slice(&(lba as u64).to_le_bytes());
        }
        header[88..92].copy_from_slice(&crc(&array));
        header[16..20].fill(0);
        let sum = crc(&header);
        header[16..20].copy_from_slice(&sum);
        out[at * sector..at * sector + 92].copy_from_slice(&header);
        out[array_at * sector..array_at * sector + array.len()].copy_from_slice(&array);
    }
    out
}

fn layout(disk: &Vec<u8>) -> Vec<(u32, u64, u64)> {
    read(disk).unwrap().partitions.iter().map(|p| (p.number, p.offset, p.length)).collect()
}

const LOGICAL: &str =
    "label: dos\n1: size=1MiB\n2: start=8192,type=5\n5: size=1MiB\n6: size=2MiB,type=82\n7: size=1MiB\n";

#[test]
fn mbr_with_primary_and_logical_partitions() {
    let disk = sfdisk(16 * MIB, LOGICAL);
    let table = read(&disk).unwrap();
    assert_eq!((table.scheme, table.sector_size), (Scheme::Mbr, 512));
    assert!(table.problems.is_empty());
    let expected = [(1, MIB, MIB), (5, 5 * MIB, MIB), (6, 7 * MIB, 2 * MIB), (7, 10 * MIB, MIB)];
    assert_eq!(layout(&disk), expected);
    assert_eq!(table.partitions[2].kind, PartitionType::Mbr(0x82));
}

#[test]
fn mbr_counted_by_4096() {
    let script = "label: dos\n1: size=1MiB\n2: type=5\n5: size=1MiB\n6: size=1MiB\n";
    let disk = mbr_by_4096(sfdisk(16 * MIB, script), &[0, 2 << 20, 4 << 20]);
    let table = read(&disk).unwrap();
    assert_eq!((table.scheme, table.sector_size), (Scheme::Mbr, 4096));
    assert_eq!(layout(&disk)[0], (1, MIB, MIB));
    assert_eq!(layout(&disk).len(), 3);
}

#[test]
fn a_chain_of_extended_records_that_loops_ends() {
    let mut disk = sfdisk(16 * MIB, LOGICAL);
    // The second record (at the first's link) points back to the first.
    let link = |at: usize| at + 446 + 16 + 8;
    let first = 8192 * 512;
    let second = first + 512 * u32::from_le_bytes(disk[link(first)..][..4].try_into().unwrap()) as usize;
    disk[link(second)..][..4].fill(0);
    let table = read(&disk).unwrap();
    assert_eq!(table.partitions.len(), 3);
    assert!(table.problems[0].to_string().contains("loop"), "{:?}", table.problems);
}

#[test]
fn a_chain_that_breaks_keeps_what_came_before() {
    let mut disk = sfdisk(16 * MIB, LOGICAL);
    disk[8192 * 512 + 510] = 0;
    let table = read(&disk).unwrap();
    assert_eq!((table.partitions.len(), table.problems.len()), (1, 1));
}

const GPT: &str = "label: gpt\nsize=1MiB,name=a\nsize=2MiB,type=U\n";

fn gpt(sector: u64) -> Vec<u8> {
    let disk = sfdisk(16 * MIB, GPT);
    if sector == 4096 { gpt_by_4096(&disk) } else { disk }
}

#[test]
fn gpt_with_both_sector_sizes() {
    for sector in [512, 4096] {
        let table = read(&gpt(sector)).unwrap();
        assert_eq!((table.scheme, u64::from(table.sector_size)), (Scheme::Gpt, sector));
        assert!(table.problems.is_empty());
        assert_eq!(layout(&gpt(sector)), [(1, MIB, MIB), (2, 2 * MIB, 2 * MIB)]);
    }
}

#[test]
fn sgdisk_numbers_are_slots() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(16 * MIB).unwrap();
    let out = Command::new("sgdisk").args(["-n", "3:4096:+1M", "-n", "7:0:0"]).arg(file.path()).output().unwrap();
    assert!(out.status.success());
    let numbers: Vec<_> = layout(&std::fs::read(file.path()).unwrap()).iter().map(|p| p.0).collect();
    assert_eq!(numbers, [3, 7]);
}

#[test]
fn the_backup_gpt_is_read_when_the_first_is_damaged() {
    for sector in [512, 4096] {
        let whole = layout(&gpt(sector));
        let at = usize::try_from(sector).unwrap();
        // Signature, checksummed header field, and entry array of the first copy; then all of it with the MBR.
        for damage in [at..at + 8, at + 40..at + 41, 2 * at..2 * at + 1, 0..34 * 512] {
            let mut disk = gpt(sector);
            disk[damage.clone()].iter_mut().for_each(|b| *b ^= 0x5A);
            assert_eq!(layout(&disk), whole, "{sector} {damage:?}");
            assert!(!read(&disk).unwrap().problems.is_empty(), "{sector} {damage:?}");
        }
    }
}

#[test]
fn the_backup_gpt_is_found_in_an_image_that_has_grown() {
    let mut disk = gpt(512);
    disk.resize(20 << 20, 0);
    disk[512..1024].fill(0);
    assert_eq!(layout(&disk).len(), 2);
}

#[test]
fn without_a_whole_copy_a_protective_mbr_is_an_error() {
    let mut disk = gpt(512);
    disk[512 + 20] ^= 1;
    let end = disk.len();
    disk[end - 512 + 20] ^= 1;
    assert!(matches!(read(&disk), Err(Error::Corrupt { what: "checksum of the GPT header", at: 512, .. })));
}

#[test]
fn a_file_system_at_byte_0_has_no_table() {
    for (tool, args) in [("mkfs.vfat", &[][..]), ("mkfs.vfat", &["-F", "32"]), ("mke2fs", &["-q"])] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 * MIB).unwrap();
        let out = Command::new(tool).args(args).arg(file.path()).output().unwrap();
        assert!(out.status.success());
        let mut disk = std::fs::read(file.path()).unwrap();
        disk[510..512].copy_from_slice(&[0x55, 0xAA]);
        let table = read(&disk).unwrap();
        assert_eq!((table.scheme, table.partitions.len()), (Scheme::Whole, 0), "{tool} {args:?}");
    }
}

#[test]
fn an_ntfs_boot_sector_is_not_a_table() {
    let mut disk = vec![0_u8; 1 << 20];
    disk[3..11].copy_from_slice(b"NTFS    ");
    disk[446..510].copy_from_slice(b"BOOTMGR is compressed\r\nPress Ctrl+Alt+Del to restart\r\n..........");
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    assert_eq!(read(&disk).unwrap().scheme, Scheme::Whole);
}

#[test]
fn nothing_at_all_is_one_piece() {
    for len in [0, 1, 511, 512, 4096, 1 << 20] {
        assert_eq!(read(&vec![0; len]).unwrap().scheme, Scheme::Whole);
    }
}

#[test]
fn huge_gpt_arrays_are_refused() {
    let mut disk = gpt(512);
    for header in [512, disk.len() - 512] {
        disk[header + 80..header + 84].fill(0xFF);
        disk[header + 16..header + 20].fill(0);
        let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&disk[header..header + 92]);
        disk[header + 16..header + 20].copy_from_slice(&crc.to_le_bytes());
    }
    assert!(matches!(read(&disk), Err(Error::Corrupt { what: "size of the GPT entry array", .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any damage gives a table or an error, never a panic, an empty range or one past 2^64.
    #[test]
    fn damaged_tables_are_read_without_a_panic(
        kind in 0..3_usize, hits in prop::collection::vec((0..40_usize * 512, any::<u8>()), 1..20)
    ) {
        static DISKS: std::sync::LazyLock<[Vec<u8>; 3]> =
            std::sync::LazyLock::new(|| [sfdisk(16 * MIB, LOGICAL), gpt(512), gpt(4096)]);
        let mut disk = DISKS[kind].clone();
        for (at, value) in hits {
            // Half of the hits go to the tables themselves.
            let at = if value % 2 == 0 { at } else { 440 + at % 200 };
            disk[at] = value;
            if value % 3 == 0 {
                disk[8192 * 512 + at % 512] = value;
            }
        }
        if let Ok(table) = read(&disk) {
            for p in table.partitions {
                prop_assert!(p.length > 0 && p.offset.checked_add(p.length).is_some());
            }
        }
    }

    /// Tables of random entries: numbers are unique and in order.
    #[test]
    fn random_boot_records_are_read(entries in prop::array::uniform32(any::<u8>()), more in prop::array::uniform32(any::<u8>())) {
        let mut disk = vec![0_u8; 64 << 10];
        disk[446..478].copy_from_slice(&entries);
        disk[478..510].copy_from_slice(&more);
        disk[510..512].copy_from_slice(&[0x55, 0xAA]);
        if let Ok(table) = read(&disk) {
            prop_assert!(table.partitions.windows(2).all(|w| w[0].number < w[1].number));
        }
    }
}
