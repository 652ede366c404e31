//! The journal's format (Linux `include/linux/jbd2.h`): big-endian, blocks numbered within the journal.

use std::sync::Arc;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::checksum::crc32c;
use crate::error::{Error, Result};
use crate::units::{BlockNo, Timestamp};

const MAGIC: u32 = 0xC03B_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPER_V1: u32 = 3;
const SUPER_V2: u32 = 4;
const REVOKE: u32 = 5;

const FEATURE_REVOKE: u32 = 0x1;
const FEATURE_64BIT: u32 = 0x2;
const FEATURE_ASYNC_COMMIT: u32 = 0x4;
const FEATURE_CSUM_V2: u32 = 0x8;
const FEATURE_CSUM_V3: u32 = 0x10;
const FEATURE_FAST_COMMIT: u32 = 0x20;
const KNOWN: u32 =
    FEATURE_REVOKE | FEATURE_64BIT | FEATURE_ASYNC_COMMIT | FEATURE_CSUM_V2 | FEATURE_CSUM_V3 | FEATURE_FAST_COMMIT;

const TAG_ESCAPED: u32 = 0x1;
const TAG_SAME_UUID: u32 = 0x2;
const TAG_LAST: u32 = 0x8;

/// `JBD2_DEFAULT_FAST_COMMIT_BLOCKS`
const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;

/// `struct journal_superblock_s`, as far as it is read here.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawSuper {
    h_magic: U32,
    h_blocktype: U32,
    h_sequence: U32,
    s_blocksize: U32,
    s_maxlen: U32,
    s_first: U32,
    s_sequence: U32,
    s_start: U32,
    s_errno: U32,
    s_feature_compat: U32,
    s_feature_incompat: U32,
    s_feature_ro_compat: U32,
    s_uuid: [u8; 16],
    s_nr_users: U32,
    s_dynsuper: U32,
    s_max_transaction: U32,
    s_max_trans_data: U32,
    s_checksum_type: [u8; 4],
    s_num_fc_blks: U32,
}

/// `struct commit_header`, its checksum and time.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawCommit {
    header: [U32; 3],
    h_chksum_type: u8,
    h_chksum_size: u8,
    h_padding: [u8; 2],
    h_chksum: [U32; 8],
    h_commit_sec: U64,
    h_commit_nsec: U32,
}

/// A checked journal superblock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Super {
    /// First block of the log.
    pub first: u32,
    /// Block behind the log's last one (before the fast-commit area).
    pub end: u32,
    /// Id of the first transaction to look for.
    pub sequence: u32,
    /// Block at which it starts; 0 if the journal is clean.
    pub start: u32,
    incompat: u32,
    seed: u32,
}

impl Super {
    /// Parse journal block 0, which lies at volume byte `at`; `blocks` is the length of its file.
    pub fn parse(bytes: &[u8], at: u64, blocks: u64) -> Result<Self> {
        let (raw, _) = RawSuper::read_from_prefix(bytes)
            .map_err(|_| Error::corrupt("journal superblock", at, "88 bytes", bytes.len()))?;
        let kind = raw.h_blocktype.get();
        if raw.h_magic.get() != MAGIC || !matches!(kind, SUPER_V1 | SUPER_V2) {
            let found = format!("{:#x}, type {kind}", raw.h_magic.get());
            return Err(Error::corrupt("journal superblock", at, "magic 0xc03b3998, type 3 or 4", found));
        }
        if raw.s_blocksize.get() as usize != bytes.len() {
            return Err(Error::corrupt("journal block size", at, bytes.len(), raw.s_blocksize));
        }
        let incompat = if kind == SUPER_V2 { raw.s_feature_incompat.get() } else { 0 };
        if incompat & !KNOWN != 0 {
            return Err(Error::Unsupported { what: format!("journal feature bits {:#x}", incompat & !KNOWN), at });
        }
        let fast = match raw.s_num_fc_blks.get() {
            _ if incompat & FEATURE_FAST_COMMIT == 0 => 0,
            0 => DEFAULT_FAST_COMMIT_BLOCKS,
            n => n,
        };
        let end = raw.s_maxlen.get().saturating_sub(fast);
        let (first, start) = (raw.s_first.get(), raw.s_start.get());
        if u64::from(raw.s_maxlen.get()) > blocks || first == 0 || first >= end || start >= end {
            let found = format!("{first}..{end} from {start}");
            return Err(Error::corrupt("journal extent", at, format!("within 1..{blocks}"), found));
        }
        Ok(Self { first, end, sequence: raw.s_sequence.get(), start, incompat, seed: crc32c(!0, &raw.s_uuid) })
    }

    fn has_checksums(&self) -> bool {
        self.incompat & (FEATURE_CSUM_V2 | FEATURE_CSUM_V3) != 0
    }

    /// The block behind `block` in the ring.
    pub fn next(&self, block: u32) -> u32 {
        if block.saturating_add(1) >= self.end { self.first } else { block.saturating_add(1) }
    }

    fn tag_bytes(&self) -> usize {
        if self.incompat & FEATURE_CSUM_V3 != 0 {
            return 16;
        }
        let csum = if self.incompat & FEATURE_CSUM_V2 != 0 { 2 } else { 0 };
        let high = if self.incompat & FEATURE_64BIT != 0 { 4 } else { 0 };
        8 + csum + high
    }
}

/// What a journal block says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// Tags of the blocks that follow, of this transaction.
    Descriptor(u32),
    /// The end of this transaction.
    Commit(u32),
    /// Blocks that earlier transactions may no longer restore.
    Revoke(u32),
}

impl Header {
    /// The header of a journal block; `None` for a copy of a home block (those are escaped).
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let [m, t, s, ..] = bytes.as_chunks::<4>().0 else { return None };
        let seq = u32::from_be_bytes(*s);
        match (u32::from_be_bytes(*m), u32::from_be_bytes(*t)) {
            (MAGIC, DESCRIPTOR) => Some(Self::Descriptor(seq)),
            (MAGIC, COMMIT) => Some(Self::Commit(seq)),
            (MAGIC, REVOKE) => Some(Self::Revoke(seq)),
            _ => None,
        }
    }

    /// Its transaction.
    pub fn tid(self) -> u32 {
        match self {
            Self::Descriptor(t) | Self::Commit(t) | Self::Revoke(t) => t,
        }
    }
}

/// Put the magic back into a copy whose tag said that it was taken out.
pub fn unescape(copy: &mut [u8]) {
    if let Some(head) = copy.first_chunk_mut::<4>() {
        *head = MAGIC.to_be_bytes();
    }
}

/// A block of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Logged {
    /// Where it belongs.
    pub home: BlockNo,
    /// Journal block of the copy.
    pub copy: u32,
    /// The copy's first four bytes must be restored.
    pub escaped: bool,
}

/// A complete transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Its id.
    pub tid: u32,
    /// When it was committed, by the guest's clock.
    pub time: Timestamp,
    /// In the order of the log; a block may occur twice, the later one counts.
    pub blocks: Vec<Logged>,
    /// Blocks whose earlier copies are void.
    pub revoked: Vec<BlockNo>,
    /// Journal block behind its commit block.
    pub next: u32,
}

/// Why there is no transaction at a place.
#[derive(Debug)]
pub enum Missing {
    /// The log ends here, or blocks have not been written yet.
    Incomplete,
    /// A checksum or structure is wrong at this journal block.
    Damaged(&'static str, u32),
    /// The journal could not be read.
    Unreadable(Error),
}

/// Reads journal blocks by number.
pub type ReadJournal<'a> = &'a mut dyn FnMut(u32) -> Result<Arc<[u8]>>;

/// Read transaction `tid` that starts at journal block `start`. Bounded by the journal's length.
pub fn read_transaction(js: &Super, tid: u32, start: u32, read: ReadJournal<'_>) -> Result<Transaction, Missing> {
    let mut t = Transaction { tid, time: Timestamp::default(), blocks: Vec::new(), revoked: Vec::new(), next: start };
    let mut left = js.end - js.first;
    loop {
        let here = t.next;
        let bytes = read(here).map_err(Missing::Unreadable)?;
        let header = Header::of(&bytes).filter(|h| h.tid() == tid).ok_or(Missing::Incomplete)?;
        left = left.checked_sub(1).ok_or(Missing::Damaged("transaction without end", here))?;
        t.next = js.next(here);
        match header {
            Header::Descriptor(_) => {
                check_tail(js, &bytes, here)?;
                let used = descriptor(js, &bytes, &mut t, read)?;
                left = left.checked_sub(used).ok_or(Missing::Damaged("transaction without end", here))?;
            }
            Header::Revoke(_) => {
                check_tail(js, &bytes, here)?;
                revoke(js, &bytes, &mut t, here)?;
            }
            Header::Commit(_) => {
                t.time = commit(js, &bytes, here)?;
                return Ok(t);
            }
        }
    }
}

/// Checksum in the last 4 bytes of descriptor and revoke blocks (`struct jbd2_journal_block_tail`).
fn check_tail(js: &Super, bytes: &[u8], here: u32) -> Result<(), Missing> {
    if !js.has_checksums() {
        return Ok(());
    }
    let damaged = Missing::Damaged("block checksum", here);
    let Some((body, tail)) = bytes.split_last_chunk::<4>() else { return Err(damaged) };
    let sum = crc32c(crc32c(js.seed, body), &[0; 4]);
    if sum == u32::from_be_bytes(*tail) { Ok(()) } else { Err(damaged) }
}

/// Read a descriptor's tags; each stands for one following block. Returns how many there were.
fn descriptor(js: &Super, bytes: &[u8], t: &mut Transaction, read: ReadJournal<'_>) -> Result<u32, Missing> {
    let tail = if js.has_checksums() { 4 } else { 0 };
    let size = js.tag_bytes();
    let mut list = bytes.get(12..bytes.len().saturating_sub(tail)).unwrap_or_default();
    let mut used = 0u32;
    while let Some((tag, rest)) = list.split_at_checked(size) {
        let tag = parse_tag(js, tag);
        list = if tag.flags & TAG_SAME_UUID != 0 { rest } else { rest.get(16..).unwrap_or_default() };
        check_copy(js, &tag, t, read)?;
        t.blocks.push(Logged { home: tag.home, copy: t.next, escaped: tag.flags & TAG_ESCAPED != 0 });
        t.next = js.next(t.next);
        used = used.saturating_add(1);
        if tag.flags & TAG_LAST != 0 || used > js.end {
            break;
        }
    }
    Ok(used)
}

struct Tag {
    home: BlockNo,
    flags: u32,
    checksum: u32,
}

/// `journal_block_tag_t`, `journal_block_tag3_t`
fn parse_tag(js: &Super, tag: &[u8]) -> Tag {
    let word = |n: usize| tag.as_chunks::<4>().0.get(n).map_or(0, |w| u32::from_be_bytes(*w));
    let high = |n| if js.incompat & FEATURE_64BIT != 0 { u64::from(word(n)) << 32 } else { 0 };
    let lo = u64::from(word(0));
    if js.incompat & FEATURE_CSUM_V3 != 0 {
        Tag { home: BlockNo(high(2) | lo), flags: word(1), checksum: word(3) }
    } else {
        Tag { home: BlockNo(high(2) | lo), flags: word(1) & 0xffff, checksum: word(1) >> 16 }
    }
}

/// A tag's checksum covers the transaction id and the copy as it stands in the journal.
fn check_copy(js: &Super, tag: &Tag, t: &Transaction, read: ReadJournal<'_>) -> Result<(), Missing> {
    if !js.has_checksums() {
        return Ok(());
    }
    let copy = read(t.next).map_err(Missing::Unreadable)?;
    let sum = crc32c(crc32c(js.seed, &t.tid.to_be_bytes()), &copy);
    let good = if js.incompat & FEATURE_CSUM_V3 != 0 { sum == tag.checksum } else { sum & 0xffff == tag.checksum };
    if good { Ok(()) } else { Err(Missing::Damaged("copy checksum", t.next)) }
}

/// A count of bytes, header included, and block numbers (`jbd2_journal_revoke_header_t`).
fn revoke(js: &Super, bytes: &[u8], t: &mut Transaction, here: u32) -> Result<(), Missing> {
    let count = bytes.get(12..).and_then(|b| b.first_chunk::<4>()).map_or(0, |c| u32::from_be_bytes(*c));
    let list = bytes.get(16..count as usize).ok_or(Missing::Damaged("revoke count", here))?;
    if js.incompat & FEATURE_64BIT != 0 {
        t.revoked.extend(list.as_chunks::<8>().0.iter().map(|b| BlockNo(u64::from_be_bytes(*b))));
    } else {
        t.revoked.extend(list.as_chunks::<4>().0.iter().map(|b| BlockNo(u32::from_be_bytes(*b).into())));
    }
    Ok(())
}

fn commit(js: &Super, bytes: &[u8], here: u32) -> Result<Timestamp, Missing> {
    let (raw, _) = RawCommit::read_from_prefix(bytes).map_err(|_| Missing::Damaged("commit block", here))?;
    if js.has_checksums() {
        let mut plain = bytes.to_vec();
        if let Some(sum) = plain.get_mut(0x10..0x14) {
            sum.fill(0);
        }
        if crc32c(js.seed, &plain) != raw.h_chksum[0].get() {
            return Err(Missing::Damaged("commit checksum", here));
        }
    }
    let secs = i64::try_from(raw.h_commit_sec.get()).unwrap_or_default();
    Ok(Timestamp { secs, nanos: raw.h_commit_nsec.get().min(999_999_999) })
}
