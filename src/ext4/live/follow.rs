//! Follows the journal as the guest writes it: which transactions are complete.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ext4::blocks::Volume;
use crate::ext4::jbd2::{self, Header, Missing, Super, Transaction};
use crate::ext4::recover::Journal;

/// A journal that is being written.
#[derive(Debug)]
pub struct Follower {
    /// Where the journal lies, and its superblock.
    pub journal: Journal,
    /// Blocks written since the last commit, by journal block.
    fresh: HashMap<u32, Arc<[u8]>>,
    next_tid: u32,
    next_block: u32,
    /// A commit block whose transaction is not complete.
    awaited: Option<(u32, u32)>,
}

/// What a write to the journal meant.
#[derive(Debug)]
pub enum Followed {
    /// Nothing yet.
    Nothing,
    /// A transaction is complete; with the bytes of its blocks in the order of the log.
    Committed(Transaction, Vec<Arc<[u8]>>),
    /// Everything before this transaction has reached its home.
    Checkpointed(u32),
    /// The journal was emptied: everything has reached its home.
    Emptied,
    /// A transaction was lost; what and why.
    Lost(String),
}

impl Follower {
    /// Follow from `next`: the id of the next transaction and the journal block where it starts.
    pub fn new(journal: Journal, next: (u32, u32)) -> Self {
        Self { journal, fresh: HashMap::new(), next_tid: next.0, next_block: next.1, awaited: None }
    }

    /// Whether the file system is in use: transactions may be in the journal only.
    pub fn is_live(&self) -> bool {
        self.journal.superblock.start != 0
    }

    /// Journal block `n` now holds `bytes`.
    pub fn written(&mut self, volume: &Volume, n: u32, bytes: Arc<[u8]>) -> Followed {
        if n == 0 {
            return self.superblock(volume, &bytes);
        }
        let header = Header::of(&bytes);
        self.fresh.insert(n, bytes);
        match header {
            Some(Header::Commit(tid)) => self.commit(volume, tid, n),
            _ => match self.awaited {
                Some((tid, at)) => self.commit(volume, tid, at),
                None => Followed::Nothing,
            },
        }
    }

    fn superblock(&mut self, volume: &Volume, bytes: &[u8]) -> Followed {
        let len = self.journal.runs().last().map_or(0, |r| r.end());
        let at = self.journal.block(0).map_or(0, |b| crate::ext4::blocks::Blocks::at(volume, b));
        let new = match Super::parse(bytes, at, len) {
            Ok(s) => s,
            Err(e) => return Followed::Lost(format!("journal superblock: {e}")),
        };
        let done = new.sequence;
        let clean = new.start == 0;
        // While the guest runs, the tail moves through what is known. A tail at or behind the next
        // transaction says that the journal was emptied (mounted anew, recovered, flushed).
        if clean || done.wrapping_sub(self.next_tid).cast_signed() >= 0 {
            (self.next_tid, self.next_block) = (done, if clean { new.first } else { new.start });
            if clean {
                self.fresh.clear();
            }
            self.journal.superblock = new;
            return Followed::Emptied;
        }
        self.journal.superblock = new;
        Followed::Checkpointed(done)
    }

    /// A commit block of `tid` stands at `at`. With asynchronous commits it may precede the rest:
    /// it is tried again with each block that comes.
    fn commit(&mut self, volume: &Volume, tid: u32, at: u32) -> Followed {
        let end = self.journal.superblock.next(at);
        let expected = self.read(volume, self.next_tid, self.next_block);
        let result = match expected {
            Ok(t) if t.next == end => Ok(t),
            other => self.find_start(volume, tid, at).ok_or(other.err().unwrap_or(Missing::Incomplete)),
        };
        self.awaited = None;
        match result {
            Ok(t) => self.complete(volume, t),
            Err(Missing::Incomplete) => {
                self.awaited = Some((tid, at));
                Followed::Nothing
            }
            Err(Missing::Damaged(what, n)) => {
                self.fresh.clear();
                Followed::Lost(format!("transaction {tid}, journal block {n}: wrong {what}"))
            }
            Err(Missing::Unreadable(e)) => Followed::Lost(format!("transaction {tid}: {e}")),
        }
    }

    fn complete(&mut self, volume: &Volume, t: Transaction) -> Followed {
        let bytes: Vec<_> = t.blocks.iter().filter_map(|l| self.bytes(volume, l.copy, l.escaped)).collect();
        (self.next_tid, self.next_block) = (t.tid.wrapping_add(1), t.next);
        self.fresh.clear();
        if bytes.len() != t.blocks.len() {
            return Followed::Lost(format!("transaction {}: journal blocks cannot be read", t.tid));
        }
        Followed::Committed(t, bytes)
    }

    fn read(&self, volume: &Volume, tid: u32, start: u32) -> Result<Transaction, Missing> {
        jbd2::read_transaction(&self.journal.superblock, tid, start, &mut |n| match self.fresh.get(&n) {
            Some(b) => Ok(b.clone()),
            None => self.journal.read(volume, n),
        })
    }

    fn find_start(&self, volume: &Volume, tid: u32, commit: u32) -> Option<Transaction> {
        let mut starts: Vec<u32> = self
            .fresh
            .iter()
            .filter(|(_, b)| matches!(Header::of(b), Some(h) if h.tid() == tid))
            .map(|(n, _)| *n)
            .collect();
        starts.sort_unstable();
        let end = self.journal.superblock.next(commit);
        let found = starts.into_iter().filter_map(|s| self.read(volume, tid, s).ok().filter(|t| t.next == end));
        found.max_by_key(|t| t.blocks.len())
    }

    fn bytes(&self, volume: &Volume, copy: u32, escaped: bool) -> Option<Arc<[u8]>> {
        let raw = match self.fresh.get(&copy) {
            Some(b) => b.clone(),
            None => self.journal.read(volume, copy).ok()?,
        };
        if !escaped {
            return Some(raw);
        }
        let mut bytes = raw.to_vec();
        jbd2::unescape(&mut bytes);
        Some(bytes.into())
    }
}
