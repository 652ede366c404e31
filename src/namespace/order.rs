//! One transaction's changes of names, carried out in an order in which each step is legal: a name
//! is freed before another file takes it, a directory exists before its children, is empty before
//! it goes, and is never moved below itself. Names that swap are exchanged.

use std::collections::{HashMap, VecDeque};

use super::{Link, Namespace};
use crate::name::GuestPath;
use crate::units::InodeNo;

/// What must happen to names, in any order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// A name appears: the file's first, or a further one.
    Add {
        /// The file.
        ino: InodeNo,
        /// Its new name.
        to: Link,
    },
    /// A name goes: the file's last (`delete`) or one of several.
    Remove {
        /// The file.
        ino: InodeNo,
        /// Its old name.
        from: Link,
        /// No name will remain: it can wait until the end.
        last: bool,
    },
    /// A name changes.
    Move {
        /// The file.
        ino: InodeNo,
        /// Its old name.
        from: Link,
        /// Its new name.
        to: Link,
    },
}

/// A step that was carried out, with the paths at that moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What was done.
    pub what: What,
    /// The file.
    pub ino: InodeNo,
    /// The name's path: the new one, or the one that went.
    pub path: GuestPath,
    /// The directory of that name.
    pub dir: InodeNo,
}

/// Kinds of steps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// First name.
    Create,
    /// Further name.
    Link,
    /// One of several names went.
    Unlink,
    /// The last name went.
    Delete,
    /// The name changed.
    Rename {
        /// Old path.
        from: GuestPath,
        /// Directory of the old name.
        from_dir: InodeNo,
        /// The file that had the new name took the old one.
        exchange: bool,
    },
}

/// Why an operation has to wait.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Blocker {
    /// The name is taken.
    Name(Link),
    /// The directory is not there yet.
    Attach(InodeNo),
    /// The directory is not empty yet.
    Empty(InodeNo),
    /// The target lies below what is moved.
    Below,
}

/// The changes that remain to be carried out.
pub struct Plan {
    ops: Vec<Option<Op>>,
    removes_at: HashMap<Link, usize>,
    removes_in: HashMap<InodeNo, Vec<usize>>,
    moves_from: HashMap<Link, usize>,
    waiting: HashMap<Blocker, Vec<usize>>,
}

impl Plan {
    /// Plan `ops`; where their order is free, they are carried out as given.
    pub fn new(ops: Vec<Op>) -> Self {
        let mut plan = Self {
            ops: Vec::new(),
            removes_at: HashMap::new(),
            removes_in: HashMap::new(),
            moves_from: HashMap::new(),
            waiting: HashMap::new(),
        };
        for (id, op) in ops.into_iter().enumerate() {
            match &op {
                Op::Remove { from, .. } => {
                    plan.removes_at.insert(from.clone(), id);
                    plan.removes_in.entry(from.dir).or_default().push(id);
                }
                Op::Move { from, .. } => {
                    plan.moves_from.insert(from.clone(), id);
                }
                Op::Add { .. } => {}
            }
            plan.ops.push(Some(op));
        }
        plan
    }

    /// Carry out all that adds or moves names, those removals that free a name for it, and those
    /// that leave a file other names.
    pub fn run_first(&mut self, names: &mut Namespace, done: &mut dyn FnMut(Step)) {
        let first = |op: &Option<Op>| matches!(op, Some(op) if !matches!(op, Op::Remove { last: true, .. }));
        let queue = self.ids(first);
        self.run(queue, names, done);
        while let Some((id, other)) = self.find_exchange(names) {
            self.exchange(id, other, names, done);
            let queue = self.ids(first);
            self.waiting.clear();
            self.run(queue, names, done);
        }
        self.waiting.clear();
    }

    /// Carry out the other removals. Returns what could not be done at all: such changes contradict
    /// the tree, or the rest of them has not reached the disk yet.
    pub fn run_last(mut self, names: &mut Namespace, done: &mut dyn FnMut(Step)) -> Vec<Op> {
        let queue = self.ids(Option::is_some);
        self.run(queue, names, done);
        self.ops.into_iter().flatten().collect()
    }

    fn ids(&self, wanted: impl Fn(&Option<Op>) -> bool) -> VecDeque<usize> {
        self.ops.iter().enumerate().filter(|(_, op)| wanted(op)).map(|(id, _)| id).collect()
    }

    fn run(&mut self, mut queue: VecDeque<usize>, names: &mut Namespace, done: &mut dyn FnMut(Step)) {
        while let Some(id) = queue.pop_front() {
            let Some(op) = self.ops.get(id).and_then(Option::as_ref) else { continue };
            match blocker(op, names) {
                None => {
                    if let Some(op) = self.ops.get_mut(id).and_then(Option::take) {
                        self.carry_out(op, names, done, &mut queue);
                    }
                }
                Some(b) => {
                    let helpers = self.helpers(&b);
                    let waiting = self.waiting.entry(b).or_default();
                    if !waiting.contains(&id) {
                        waiting.push(id);
                    }
                    helpers.into_iter().rev().for_each(|h| queue.push_front(h));
                }
            }
        }
    }

    /// Removals that would lift a blocker and have not been asked for it before.
    fn helpers(&self, b: &Blocker) -> Vec<usize> {
        if self.waiting.contains_key(b) {
            return Vec::new();
        }
        match b {
            Blocker::Name(link) => self.removes_at.get(link).copied().into_iter().collect(),
            Blocker::Empty(dir) => self.removes_in.get(dir).cloned().unwrap_or_default(),
            Blocker::Attach(_) | Blocker::Below => Vec::new(),
        }
    }

    fn carry_out(&mut self, op: Op, names: &mut Namespace, done: &mut dyn FnMut(Step), queue: &mut VecDeque<usize>) {
        match op {
            Op::Add { ino, to } => {
                let what = if names.names(ino).is_empty() { What::Create } else { What::Link };
                names.insert(to.clone(), ino);
                done(Step { what, ino, path: path(names, &to), dir: to.dir });
                self.wake(&Blocker::Attach(ino), queue);
            }
            Op::Remove { ino, from, .. } => {
                let gone = path(names, &from);
                names.remove(&from);
                let what = if names.names(ino).is_empty() { What::Delete } else { What::Unlink };
                done(Step { what, ino, path: gone, dir: from.dir });
                self.vacated(&from, names, queue);
            }
            Op::Move { ino, from, to } => {
                let old = path(names, &from);
                names.remove(&from);
                names.insert(to.clone(), ino);
                let what = What::Rename { from: old, from_dir: from.dir, exchange: false };
                done(Step { what, ino, path: path(names, &to), dir: to.dir });
                self.vacated(&from, names, queue);
                self.wake(&Blocker::Attach(ino), queue);
                self.wake(&Blocker::Below, queue);
            }
        }
    }

    fn vacated(&mut self, from: &Link, names: &Namespace, queue: &mut VecDeque<usize>) {
        if names.is_empty(from.dir) {
            self.wake(&Blocker::Empty(from.dir), queue);
        }
        self.wake(&Blocker::Name(from.clone()), queue);
    }

    fn wake(&mut self, b: &Blocker, queue: &mut VecDeque<usize>) {
        for id in self.waiting.remove(b).unwrap_or_default().into_iter().rev() {
            queue.push_front(id);
        }
    }

    /// A move that waits for a name whose owner waits to move as well.
    fn find_exchange(&self, names: &Namespace) -> Option<(usize, usize)> {
        self.ops.iter().enumerate().find_map(|(id, op)| {
            let Some(Op::Move { ino, from, to }) = op else { return None };
            let other = *self.moves_from.get(to)?;
            let Some(Some(Op::Move { ino: second, .. })) = self.ops.get(other) else { return None };
            let legal = other != id && !names.is_within(to.dir, *ino) && !names.is_within(from.dir, *second);
            (legal && names.is_attached(to.dir)).then_some((id, other))
        })
    }

    fn exchange(&mut self, id: usize, other: usize, names: &mut Namespace, done: &mut dyn FnMut(Step)) {
        let Some(Op::Move { ino, from, to }) = self.ops.get_mut(id).and_then(Option::take) else { return };
        let Some(Some(Op::Move { ino: second, from: second_from, to: second_to })) = self.ops.get_mut(other) else {
            return;
        };
        let old = path(names, &from);
        names.remove(&from);
        names.remove(&to);
        names.insert(to.clone(), ino);
        names.insert(from.clone(), *second);
        self.moves_from.remove(&to);
        if *second_to == from {
            if let Some(op) = self.ops.get_mut(other) {
                *op = None;
            }
        } else {
            *second_from = from.clone();
            self.moves_from.insert(from.clone(), other);
        }
        let what = What::Rename { from: old, from_dir: from.dir, exchange: true };
        done(Step { what, ino, path: path(names, &to), dir: to.dir });
    }
}

fn blocker(op: &Op, names: &Namespace) -> Option<Blocker> {
    let target = |to: &Link| {
        if !names.is_attached(to.dir) {
            return Some(Blocker::Attach(to.dir));
        }
        names.lookup(to.dir, &to.name).map(|_| Blocker::Name(to.clone()))
    };
    match op {
        Op::Add { to, .. } => target(to),
        Op::Move { ino, to, .. } => target(to).or_else(|| names.is_within(to.dir, *ino).then_some(Blocker::Below)),
        Op::Remove { ino, .. } => {
            let last = names.names(*ino).len() <= 1;
            (last && !names.is_empty(*ino)).then_some(Blocker::Empty(*ino))
        }
    }
}

/// The path of a name whose directory was found to be attached.
fn path(names: &Namespace, link: &Link) -> GuestPath {
    names.path(link).unwrap_or_else(|| GuestPath(link.name.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: InodeNo = InodeNo(2);

    fn link(dir: u64, name: &str) -> Link {
        Link { dir: InodeNo(dir), name: name.as_bytes().into() }
    }

    fn tree(links: &[(u64, u64, &str)]) -> Namespace {
        let mut n = Namespace::new(ROOT);
        for (ino, dir, name) in links {
            assert!(n.insert(link(*dir, name), InodeNo(*ino)));
        }
        n
    }

    fn mv(ino: u64, from: (u64, &str), to: (u64, &str)) -> Op {
        Op::Move { ino: InodeNo(ino), from: link(from.0, from.1), to: link(to.0, to.1) }
    }

    fn run(names: &mut Namespace, ops: Vec<Op>) -> (Vec<String>, usize) {
        let mut said = Vec::new();
        let mut say = |s: Step| {
            let p = s.path.lossy().into_owned();
            said.push(match s.what {
                What::Create => format!("create {p}"),
                What::Link => format!("link {p}"),
                What::Unlink => format!("unlink {p}"),
                What::Delete => format!("delete {p}"),
                What::Rename { from, exchange: true, .. } => format!("swap {} {p}", from.lossy()),
                What::Rename { from, .. } => format!("rename {} {p}", from.lossy()),
            });
        };
        let mut plan = Plan::new(ops);
        plan.run_first(names, &mut say);
        let left = plan.run_last(names, &mut say).len();
        (said, left)
    }

    #[test]
    fn children_wait_for_their_directory() {
        let add = |ino, dir, name| Op::Add { ino: InodeNo(ino), to: link(dir, name) };
        let (said, left) = run(&mut tree(&[]), vec![add(11, 13, "x"), add(12, 2, "y"), add(13, 2, "d")]);
        assert_eq!(said, ["create /y", "create /d", "create /d/x"]);
        assert_eq!(left, 0);
    }

    #[test]
    fn a_victim_goes_right_before_its_name_is_taken_and_others_go_last() {
        let mut t = tree(&[(11, 2, "a"), (12, 2, "b"), (13, 2, "c")]);
        let rm = |ino, name| Op::Remove { ino: InodeNo(ino), from: link(2, name), last: true };
        let (said, _) = run(&mut t, vec![rm(13, "c"), rm(12, "b"), mv(11, (2, "a"), (2, "b"))]);
        assert_eq!(said, ["delete /b", "rename /a /b", "delete /c"]);
    }

    #[test]
    fn a_directory_is_emptied_before_it_is_replaced() {
        let mut t = tree(&[(11, 2, "d"), (12, 11, "x"), (13, 11, "sub"), (14, 13, "y"), (15, 2, "f")]);
        let rm = |ino, dir, name| Op::Remove { ino: InodeNo(ino), from: link(dir, name), last: true };
        let ops = vec![
            rm(11, 2, "d"),
            rm(13, 11, "sub"),
            rm(14, 13, "y"),
            mv(12, (11, "x"), (2, "x")),
            mv(15, (2, "f"), (2, "d")),
        ];
        let (said, left) = run(&mut t, ops);
        assert_eq!(said, ["rename /d/x /x", "delete /d/sub/y", "delete /d/sub", "delete /d", "rename /f /d"]);
        assert_eq!(left, 0);
    }

    #[test]
    fn swaps_and_cycles_become_exchanges() {
        let mut t = tree(&[(11, 2, "a"), (12, 2, "b"), (13, 2, "c")]);
        let (said, left) = run(&mut t, vec![mv(11, (2, "a"), (2, "b")), mv(12, (2, "b"), (2, "a"))]);
        assert_eq!((said, left), (vec!["swap /a /b".to_owned()], 0));
        assert_eq!(t.lookup(ROOT, b"a"), Some(InodeNo(12)));
        let ops = vec![mv(12, (2, "a"), (2, "b")), mv(11, (2, "b"), (2, "c")), mv(13, (2, "c"), (2, "a"))];
        let (said, left) = run(&mut t, ops);
        assert_eq!((said.len(), left), (2, 0));
        let now = |n: &[u8]| t.lookup(ROOT, n).unwrap().0;
        assert_eq!((now(b"a"), now(b"b"), now(b"c")), (13, 12, 11));
    }

    #[test]
    fn a_directory_is_not_moved_below_itself() {
        // /a/b becomes /b, and /a becomes /b/a.
        let mut t = tree(&[(11, 2, "a"), (12, 11, "b")]);
        let (said, left) = run(&mut t, vec![mv(11, (2, "a"), (12, "a")), mv(12, (11, "b"), (2, "b"))]);
        assert_eq!(said, ["rename /a/b /b", "rename /a /b/a"]);
        assert_eq!(left, 0);
    }

    #[test]
    fn what_contradicts_the_tree_is_left_over() {
        let mut t = tree(&[(11, 2, "a")]);
        let ops = vec![Op::Add { ino: InodeNo(12), to: link(2, "a") }];
        let (said, left) = run(&mut t, ops);
        assert_eq!((said.len(), left), (0, 1));
    }
}
