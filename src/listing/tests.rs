use std::sync::Arc;

use super::*;
use crate::fake::{Fake, Node};
use crate::guest::{Guest, Mounted};

fn list(guest: &Guest, depth: Depth) -> Vec<Record> {
    let mut all = Vec::new();
    walk(&lookup::root(guest), GuestPath(b"/".to_vec()), depth, |r| {
        all.push(r.clone());
        Ok(())
    })
    .unwrap();
    all
}

fn guest(tree: Fake) -> Guest {
    Guest::new(vec![Mounted { name: "disk".into(), tree: Arc::new(tree) }])
}

fn paths(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| r.path.lossy().into_owned()).collect()
}

#[test]
fn the_order_is_that_of_whole_paths() {
    let g = guest(Fake::new([
        (2, Node::Dir(vec![(b"a", 3), (b"a0", 9), (b"a-b", 4), (b"a!", 5), (b"b", 9)])),
        (3, Node::Dir(vec![(b"z", 9), (b"b", 9)])),
        (4, Node::Dir(vec![(b"c", 9)])),
        (5, Node::Dir(vec![])),
        (9, Node::File(b"")),
    ]));
    let got = paths(&list(&g, ALL));
    assert_eq!(got, ["/", "/a", "/a!", "/a-b", "/a-b/c", "/a/b", "/a/z", "/a0", "/b"]);
    let mut sorted = got.clone();
    sorted.sort();
    assert_eq!(got, sorted);
}

#[test]
fn directories_that_contain_themselves_end() {
    let g = guest(Fake::new([(2, Node::Dir(vec![(b"d", 3)])), (3, Node::Dir(vec![(b"again", 3), (b"up", 2)]))]));
    let records = list(&g, ALL);
    assert_eq!(paths(&records), ["/", "/d", "/d/again", "/d/up"]);
    assert!(records[2].error.is_some() && records[3].error.is_some() && records[1].error.is_none());
}

#[test]
fn what_cannot_be_read_is_told_and_the_walk_goes_on() {
    let g = guest(Fake::new([
        (2, Node::Dir(vec![(b"broken", 3), (b"gone", 99), (b"ok", 4)])),
        (3, Node::Broken),
        (4, Node::File(b"abc")),
    ]));
    let records = list(&g, Depth { hash: true, ..ALL });
    let errors: Vec<_> = records.iter().map(|r| r.error.is_some()).collect();
    assert_eq!(errors, [false, true, true, false]);
    assert_eq!(records[1].attr.as_ref().unwrap().size, 10);
    let json = serde_json::to_value(&records[3]).unwrap();
    assert_eq!(json["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(json["mtime"], 1_000_000_005);
}

#[test]
fn names_that_are_not_utf8_keep_their_bytes() {
    let g = guest(Fake::new([(2, Node::Dir(vec![(b"\xff", 3)])), (3, Node::Link(b"\xfe"))]));
    let json = serde_json::to_value(&list(&g, ALL)[1]).unwrap();
    assert_eq!((json["path"].as_str(), json["path_hex"].as_str()), (Some("/\u{fffd}"), Some("2fff")));
    assert_eq!((json["target"].as_str(), json["target_hex"].as_str()), (Some("\u{fffd}"), Some("fe")));
}

#[test]
fn several_volumes_are_listed_below_a_folder() {
    let tree = || Arc::new(Fake::new([(2, Node::Dir(vec![(b"d", 3)])), (3, Node::Dir(vec![]))]));
    let volumes = ["p1", "p10", "p2"].map(|n| Mounted { name: n.into(), tree: tree() });
    let records = list(&Guest::new(volumes.to_vec()), ALL);
    assert_eq!(paths(&records), ["/", "/p1", "/p1/d", "/p10", "/p10/d", "/p2", "/p2/d"]);
    assert!(records.iter().all(|r| r.error.is_none()));
    assert_eq!(serde_json::to_string(&records[0]).unwrap(), r#"{"path":"/","type":"dir"}"#);
}
