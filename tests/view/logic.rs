//! Without FUSE: what the kernel would be answered, and what it would be told to forget.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gammaray::event::Body;
use gammaray::name::GuestPath;
use gammaray::sink::Sink;
use gammaray::tree::Kind;
use gammaray::units::InodeNo;
use gammaray::view::{Cache, Files, Line, Name, Node, SETTLING, Sized, TOP, ViewSink, invalidate};
use nix::errno::Errno;

use super::mem_tree::MemTree;
use super::{event, guest, volume, wrote};

fn one() -> (Arc<MemTree>, Files) {
    let tree = Arc::new(MemTree::new(2));
    tree.add(2, "etc", 12, Kind::Dir);
    tree.add_file(12, "passwd", 13, "root:x:0:0\n");
    tree.add_file(2, b"\xff\xfe", 14, "");
    let files = Files::new(guest(&[("disk", &tree)]));
    (tree, files)
}

fn names(files: &Files, dir: Node) -> Vec<String> {
    let handle = files.open_dir(dir).unwrap();
    let listing = files.listing(dir, handle, 0).unwrap();
    files.close_dir(handle);
    listing.from(2).map(|(_, l)| String::from_utf8_lossy(&l.name).into_owned()).collect()
}

#[test]
fn a_lone_volume_is_the_top_and_keeps_its_numbers() {
    let (_tree, files) = one();
    assert_eq!(files.attr(TOP).unwrap().ino, InodeNo(2));
    let etc = files.lookup(TOP, b"etc").unwrap();
    assert_eq!((etc.node, etc.attr.ino, etc.generation, etc.cache), (Node(12), InodeNo(12), 7012, true));
    let passwd = files.lookup(etc.node, b"passwd").unwrap();
    assert_eq!(files.read(passwd.node, 5, 3).unwrap(), b"x:0");
    assert_eq!(files.read(passwd.node, 9, 4096).unwrap(), b"0\n");
    assert_eq!(files.read(passwd.node, u64::MAX, 4096).unwrap(), b"");
    assert_eq!(files.lookup(TOP, b"\xff\xfe").unwrap().node, Node(14));
    assert_eq!(names(&files, etc.node), ["passwd"]);
}

#[test]
fn the_first_ntfs_records_do_not_collide_with_the_numbers_that_fuse_reserves() {
    let tree = Arc::new(MemTree::new(5));
    tree.add(5, "$MFT", 0, Kind::File);
    tree.add(5, "$MFTMirr", 1, Kind::File);
    let files = Files::new(guest(&[("p1", &tree)]));
    for (name, ino) in [("$MFT", 0), ("$MFTMirr", 1)] {
        let found = files.lookup(TOP, name.as_bytes()).unwrap();
        assert!(found.node.0 > 1);
        assert_eq!(files.attr(found.node).unwrap().ino, InodeNo(ino));
    }
}

#[test]
fn several_volumes_are_folders_with_numbers_of_their_own() {
    let [a, b] = [2, 5].map(|root| Arc::new(MemTree::new(root)));
    a.add_file(2, "x", 20, "a");
    b.add_file(5, "x", 20, "b");
    let files = Files::new(guest(&[("p1", &a), ("p2", &b)]));
    assert_eq!(names(&files, TOP), ["p1", "p2"]);
    assert_eq!(files.lookup(TOP, b"p3").unwrap_err(), Errno::ENOENT);
    let xs = [b"p1", b"p2"].map(|p| files.lookup(files.lookup(TOP, p).unwrap().node, b"x").unwrap());
    assert_ne!(xs[0].node, xs[1].node);
    assert_eq!(xs.each_ref().map(|x| x.attr.ino), [InodeNo(20); 2]);
    assert_eq!(xs.each_ref().map(|x| files.read(x.node, 0, 9).unwrap()), [b"a", b"b"]);
    assert_eq!(files.attr(TOP).unwrap().nlink, 4);
    assert_eq!(files.stat_fs(TOP).unwrap().blocks, 4000, "8000 of 1 KiB, twice, in 4 KiB");
    assert_eq!(files.stat_fs(xs[0].node).unwrap().blocks, 8000);
}

#[test]
fn a_guest_without_volumes_is_an_empty_folder() {
    let files = Files::new(guest(&[]));
    assert_eq!(names(&files, TOP), [""; 0]);
    assert_eq!(files.lookup(TOP, b"x").unwrap_err(), Errno::ENOENT);
}

#[test]
fn errors_tell_the_guests_fault_from_the_callers() {
    let (tree, files) = one();
    tree.add(2, "sock", 15, Kind::Sock);
    tree.add(2, "bad", 16, Kind::File);
    tree.change(16, |f| f.broken = true);
    assert_eq!(files.lookup(TOP, b"nothing").unwrap_err(), Errno::ENOENT);
    assert_eq!(files.lookup(TOP, b"bad").unwrap_err(), Errno::EIO);
    assert_eq!(files.xattr_names(Node(15), 0).unwrap_err(), Errno::EOPNOTSUPP);
    assert_eq!(files.open(Node(12)).unwrap_err(), Errno::EISDIR);
    assert_eq!(files.open_dir(Node(13)).unwrap_err(), Errno::ENOTDIR);
    assert_eq!(files.read_link(Node(13)).unwrap_err(), Errno::EINVAL);
    assert_eq!(files.attr(Node(99)).unwrap_err(), Errno::ESTALE);
    assert_eq!(files.attr(Node(7 << 48 | 13)).unwrap_err(), Errno::ESTALE, "no such volume");
}

#[test]
fn xattrs_are_sized_and_then_read() {
    let (tree, files) = one();
    let xattrs = [("security.selinux", "label"), ("trusted.x", ""), ("user.a", "value")];
    tree.change(13, |f| f.xattrs = xattrs.map(|(n, v)| (n.into(), v.into())).to_vec());
    let list = b"security.selinux\0trusted.x\0user.a\0";
    let n = list.len() as u32;
    assert_eq!(files.xattr_names(Node(13), 0), Ok(Sized::Length(n)));
    assert_eq!(files.xattr_names(Node(13), n - 1), Err(Errno::ERANGE));
    assert_eq!(files.xattr_names(Node(13), n), Ok(Sized::Bytes(list.to_vec())));
    assert_eq!(files.xattr(Node(13), b"user.a", 0), Ok(Sized::Length(5)));
    assert_eq!(files.xattr(Node(13), b"user.a", 4), Err(Errno::ERANGE));
    assert_eq!(files.xattr(Node(13), b"user.a", 4096), Ok(Sized::Bytes(b"value".to_vec())));
    assert_eq!(files.xattr(Node(13), b"trusted.x", 4096), Ok(Sized::Bytes(Vec::new())));
    assert_eq!(files.xattr(Node(13), b"user.b", 0), Err(Errno::ENODATA));
}

#[test]
fn a_listing_is_a_snapshot_until_it_is_rewound() {
    let (tree, files) = one();
    let handle = files.open_dir(Node(12)).unwrap();
    let count = |offset| files.listing(Node(12), handle, offset).unwrap().from(offset).count();
    tree.add(12, "later", 30, Kind::File);
    assert_eq!(count(0), 3, "as it was when it was opened");
    assert_eq!(count(2), 1);
    assert_eq!(count(0), 4, "rewound");
    assert_eq!(tree.dirs_read.load(Ordering::Relaxed), 2);
    files.close_dir(handle);
    assert_eq!(files.listing(Node(12), handle, 0).unwrap_err(), Errno::EBADF);
}

#[test]
fn names_that_would_spoil_the_whole_listing_are_left_out() {
    let (tree, files) = one();
    for bad in [&b"a/b"[..], b"", b".", b"..", b"nul\0", &[b'x'; 1025]] {
        tree.link(12, bad, 13);
    }
    assert_eq!(names(&files, Node(12)), ["passwd"]);
}

#[test]
fn a_file_that_cannot_be_read_is_listed_but_not_cached() {
    let (tree, files) = one();
    tree.change(13, |f| f.broken = true);
    let line = Line { name: b"passwd".to_vec(), ino: InodeNo(13), kind: Some(Kind::File), volume: None };
    let found = files.describe(Node(12), &line);
    assert_eq!((found.node, found.attr.kind, found.cache), (Node(13), Kind::File, false));
    assert!(files.known().contains(Node(13)), "the kernel will say that it forgot it");
    files.untell(&line, &found);
    assert!(!files.known().contains(Node(13)));
}

#[test]
fn a_reused_number_is_another_file() {
    let (tree, files) = one();
    let old = files.lookup(Node(12), b"passwd").unwrap();
    tree.add_file(12, "new", 13, "other");
    tree.change(13, |f| f.attr.generation = 1);
    assert_eq!(files.attr(old.node).unwrap_err(), Errno::ESTALE);
    assert_eq!(files.read(old.node, 0, 10).unwrap_err(), Errno::ESTALE);
    let new = files.lookup(Node(12), b"new").unwrap();
    assert_ne!(new.generation, old.generation);
    assert_eq!(files.read(new.node, 0, 10).unwrap(), b"other");
}

#[test]
fn a_reformatted_volume_has_none_of_the_old_files() {
    let tree = Arc::new(MemTree::new(2));
    tree.add_file(2, "x", 20, "old");
    let guest = guest(&[("p1", &tree)]);
    let files = Files::new(guest.clone());
    let old = files.lookup(TOP, b"x").unwrap();
    let new = Arc::new(MemTree::new(2));
    new.add_file(2, "x", 20, "new");
    guest.set(vec![volume("p1", &new)]);
    assert_eq!(files.attr(old.node).unwrap_err(), Errno::ESTALE);
    let found = files.lookup(TOP, b"x").unwrap();
    assert_ne!(found.generation, old.generation);
    assert_eq!(files.read(found.node, 0, 9).unwrap(), b"new");
    // The same volume beside another one keeps its numbers, below its folder.
    guest.set(vec![volume("p1", &new), volume("p2", &tree)]);
    assert_eq!(files.read(found.node, 0, 9).unwrap(), b"new");
    assert_eq!(names(&files, TOP), ["p1", "p2"]);
}

/// A kernel that only notes what it is told.
struct Notes(Mutex<Sender<String>>);

impl Notes {
    fn note(&self, s: String) -> io::Result<()> {
        self.0.lock().unwrap().send(s).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Cache for Notes {
    fn inode(&self, node: Node, offset: i64, length: i64) -> io::Result<()> {
        self.note(format!("inode {} {offset} {length}", node.0))
    }

    fn name(&self, parent: Node, name: &[u8]) -> io::Result<()> {
        self.note(format!("name {} {}", parent.0, String::from_utf8_lossy(name)))
    }

    fn deleted(&self, parent: Node, name: &[u8], child: Node) -> io::Result<()> {
        self.note(format!("deleted {} {} {}", parent.0, String::from_utf8_lossy(name), child.0))
    }
}

/// Wait until nothing is on its way to the kernel any more.
fn settle() {
    std::thread::sleep(SETTLING);
}

fn watched(files: Files) -> (Arc<Files>, ViewSink, Receiver<String>) {
    let files = Arc::new(files);
    let (send, notes) = channel();
    let cache = Notes(Mutex::new(send));
    let theirs = files.clone();
    std::thread::spawn(move || invalidate(&theirs, theirs.queue(), &cache));
    (files.clone(), ViewSink::new(files), notes)
}

fn expect(notes: &Receiver<String>, want: &[&str]) {
    for w in want {
        assert_eq!(notes.recv_timeout(Duration::from_secs(5)).unwrap(), *w);
    }
    assert!(notes.try_recv().is_err());
}

#[test]
fn events_tell_the_kernel_exactly_what_to_forget() {
    let (_tree, files) = one();
    let etc = files.lookup(TOP, b"etc").unwrap().node;
    files.lookup(etc, b"passwd").unwrap();
    settle();
    let (files, mut sink, notes) = watched(files);
    let mut emit = |e: gammaray::event::Event, want: &[&str]| {
        sink.emit(&e).unwrap();
        expect(&notes, want);
    };
    emit(wrote("/etc/passwd", 13, 4096, 10), &["inode 13 4096 10"]);
    emit(wrote("/etc/passwd", 13, 7, u64::MAX), &["inode 13 7 0"]);
    emit(event("/etc/passwd", 13, 12, Body::Truncate { old: 100, new: 40 }), &["inode 13 40 0"]);
    let metadata = Body::Metadata { field: "mode".into(), old: None, new: None };
    emit(event("/etc/passwd", 13, 12, metadata), &["inode 13 -1 0"]);
    emit(event("/etc/new", 50, 12, Body::Create(Default::default())), &["name 12 new", "inode 12 -1 0"]);
    emit(event("/link", 13, 2, Body::Link), &["name 1 link", "inode 1 -1 0", "inode 13 -1 0"]);
    let rename = Body::Rename { from: GuestPath(b"/etc/passwd".to_vec()), from_parent: InodeNo(12), exchange: false };
    emit(
        event("/pw", 13, 2, rename),
        &["name 12 passwd", "name 1 pw", "inode 12 -1 0", "inode 1 -1 0", "inode 13 -1 0"],
    );
    emit(event("/etc", 12, 2, Body::Delete), &["deleted 1 etc 12", "inode 1 -1 0", "inode 12 -1 0"]);
    // Of what the kernel does not know it is told nothing.
    files.forget(Node(13), 1);
    emit(wrote("/etc/passwd", 13, 0, 10), &[]);
    emit(wrote("/etc/unknown", 60, 0, 10), &[]);
    files.queue().close();
}

#[test]
fn what_is_uncertain_makes_the_kernel_forget_everything() {
    let (_tree, files) = one();
    let etc = files.lookup(TOP, b"etc").unwrap().node;
    files.lookup(etc, b"passwd").unwrap();
    files.lookup(TOP, b"etc").unwrap();
    settle();
    let (files, mut sink, notes) = watched(files);
    let all = || {
        let mut got: Vec<_> = (0..5).map(|_| notes.recv_timeout(Duration::from_secs(5)).unwrap()).collect();
        got.sort();
        assert_eq!(got, ["inode 1 0 0", "inode 12 0 0", "inode 13 0 0", "name 1 etc", "name 12 passwd"]);
    };
    sink.emit(&event("/", 2, 2, Body::Gap { reason: "overrun".into(), bytes: 1 })).unwrap();
    all();
    let mut vague = event("/etc/x", 13, 12, Body::Unlink);
    vague.parent = None;
    sink.emit(&vague).unwrap();
    all();
    files.queue().close();
}

#[test]
fn replaced_volumes_are_noticed_without_an_event() {
    let tree = Arc::new(MemTree::new(2));
    let guest = guest(&[("disk", &tree)]);
    let (files, _sink, notes) = watched(Files::new(guest.clone()));
    guest.set(vec![volume("disk", &Arc::new(MemTree::new(2)))]);
    expect(&notes, &["inode 1 0 0"]);
    files.queue().close();
}

#[test]
fn an_answer_is_not_cached_if_something_changed_while_it_was_made() {
    let (_tree, files) = one();
    let name = || Name { parent: TOP, name: b"etc"[..].into() };
    let told = |change: &dyn Fn()| {
        let sweeps = files.known().sweeps();
        let ticket = files.known().expect(Node(12), sweeps);
        change();
        files.known().told(ticket, 0, name())
    };
    assert!(told(&|| ()));
    assert!(!told(&|| assert!(files.known().touch(Node(12)).is_some())));
    assert!(!told(&|| drop(files.known().sweep())));
    assert!(told(&|| assert!(files.known().touch(Node(13)).is_none())));
}

#[test]
fn a_file_that_was_told_just_now_is_invalidated_again_when_the_kernel_must_have_it() {
    let (_tree, files) = one();
    let (files, mut sink, notes) = watched(files);
    let etc = files.lookup(TOP, b"etc").unwrap().node;
    files.lookup(etc, b"passwd").unwrap();
    sink.emit(&wrote("/etc/passwd", 13, 5, 1)).unwrap();
    let next = || notes.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!((next().as_str(), next().as_str()), ("inode 13 5 1", "inode 13 -1 0"));
    files.queue().close();
}
