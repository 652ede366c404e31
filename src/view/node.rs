//! The numbers by which the kernel knows the view's files, and the volumes behind them.
//!
//! A node number is `slot << 48 | inode`: the slot stands for a volume's name, and the volume that
//! the view saw first has slot 0, so that its numbers *are* the guest's. Two numbers are taken:
//! 0 (none) and 1 (the top). NTFS uses both as record numbers; slot 0 shows those as slot 0xFFFF.

use std::sync::{Arc, Weak};

use crate::guest::Mounted;
use crate::tree::Tree;
use crate::units::InodeNo;

/// The kernel's number of a file in the view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Node(pub u64);

/// The top of the view: the root of the only volume, or a folder of all of them.
pub const TOP: Node = Node(1);

const INODE_BITS: u32 = 48;
/// Stands for slot 0 where an inode number of it is less than 2.
const LOW_NUMBERS: u16 = 0xFFFF;

/// A volume as the view knows it.
#[derive(Clone)]
pub struct Slot {
    number: u16,
    /// Its name: `p1` …, `disk`.
    pub name: Arc<str>,
    /// Its files.
    pub tree: Arc<dyn Tree>,
    /// How many other trees had this slot before: sets apart the files of a reformatted volume.
    epoch: u32,
}

impl Slot {
    /// The generation of a file with generation `of_guest`, different in each epoch.
    pub fn generation(&self, of_guest: u64) -> u64 {
        of_guest ^ (u64::from(self.epoch) << 32)
    }

    fn node(&self, ino: InodeNo) -> Option<Node> {
        let slot = if self.number == 0 && ino.0 <= TOP.0 { LOW_NUMBERS } else { self.number };
        (ino.0 >> INODE_BITS == 0).then(|| Node(u64::from(slot) << INODE_BITS | ino.0))
    }
}

/// What a node stands for.
pub enum Place<'a> {
    /// The folder of all volumes.
    Volumes,
    /// A file of a volume.
    File(&'a Slot, InodeNo),
}

/// The volumes at one time. Replaced as a whole when the guest's volumes change.
pub struct Layout {
    seen: Arc<[Mounted]>,
    shown: Vec<Slot>,
    /// Every name there ever was; the index is the slot's number.
    names: Vec<Used>,
}

/// Who has a slot.
#[derive(Clone)]
struct Used {
    name: Arc<str>,
    epoch: u32,
    tree: Weak<dyn Tree>,
}

impl Layout {
    /// The first one.
    pub fn new(volumes: Arc<[Mounted]>) -> Self {
        Self { seen: Arc::new([]), shown: Vec::new(), names: Vec::new() }.next(volumes)
    }

    /// Whether it shows exactly these.
    pub fn is_of(&self, volumes: &Arc<[Mounted]>) -> bool {
        Arc::ptr_eq(&self.seen, volumes)
    }

    /// The one that follows when the guest has these volumes.
    pub fn next(&self, volumes: Arc<[Mounted]>) -> Self {
        let mut names = self.names.clone();
        let shown = volumes.iter().filter_map(|v| slot_for(&mut names, v)).collect();
        Self { seen: volumes, shown, names }
    }

    /// The volumes to show, in order.
    pub fn slots(&self) -> &[Slot] {
        &self.shown
    }

    /// The volume at the top, if it is the only one.
    pub fn sole(&self) -> Option<&Slot> {
        match self.shown.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The volume of that name, or the only one if no name is given.
    pub fn slot(&self, name: Option<&str>) -> Option<&Slot> {
        match name {
            Some(name) => self.shown.iter().find(|s| &*s.name == name),
            None => self.sole(),
        }
    }

    /// What `node` stands for; `None` if its volume has gone.
    pub fn place(&self, node: Node) -> Option<Place<'_>> {
        if node == TOP {
            return Some(self.sole().map_or(Place::Volumes, |s| Place::File(s, s.tree.root())));
        }
        // 16 bits are left after the shift.
        let number = u16::try_from(node.0 >> INODE_BITS).ok()?;
        let number = if number == LOW_NUMBERS { 0 } else { number };
        let slot = self.shown.iter().find(|s| s.number == number)?;
        Some(Place::File(slot, InodeNo(node.0 & ((1 << INODE_BITS) - 1))))
    }

    /// The node of a file; `None` if no file system of ours could have such a number.
    pub fn node(&self, slot: &Slot, ino: InodeNo) -> Option<Node> {
        if ino == slot.tree.root() && self.sole().is_some_and(|s| s.number == slot.number) {
            return Some(TOP);
        }
        slot.node(ino)
    }
}

fn slot_for(names: &mut Vec<Used>, volume: &Mounted) -> Option<Slot> {
    let at = names.iter().position(|u| u.name == volume.name).unwrap_or(names.len());
    let number = u16::try_from(at).ok().filter(|n| *n != LOW_NUMBERS)?;
    let tree = Arc::downgrade(&volume.tree);
    if at == names.len() {
        names.push(Used { name: Arc::clone(&volume.name), epoch: 0, tree: tree.clone() });
    }
    let used = names.get_mut(at)?;
    // A Weak keeps its address from being used again.
    if !std::ptr::addr_eq(used.tree.as_ptr(), tree.as_ptr()) {
        used.epoch = used.epoch.wrapping_add(1);
        used.tree = tree;
    }
    Some(Slot { number, name: Arc::clone(&used.name), tree: Arc::clone(&volume.tree), epoch: used.epoch })
}
