use bson::{Bson, Document, doc};

use super::*;
use crate::event::Origin;
use crate::units::InodeNo;

fn event(path: &str, kind: Kind, body: Body) -> Event {
    let blank = Event::new(Timestamp::default(), Origin::Journal, body);
    Event { seq: 3, write: 77, path: Some(GuestPath(path.into())), kind: Some(kind), ..blank }
}

/// Channel and document of each message; the documents are read as a consumer reads them.
fn told(e: &Event) -> Vec<(String, Document)> {
    let all = Messages::new("host", "vm").of(e);
    let read = |m: &Message| Document::from_reader(&*m.document).unwrap();
    all.iter().map(|m| (String::from_utf8_lossy(&m.channel).into_owned(), read(m))).collect()
}

fn rename(from: &str, to: &str) -> Event {
    let from = GuestPath(from.into());
    event(to, Kind::File, Body::Rename { from, from_parent: InodeNo(2), exchange: false })
}

#[test]
fn names_change_on_the_channel_of_their_directory() {
    let t = |what: &str, name: &str| doc! { "type": "mutation", "transaction": 77i64, what: name };
    assert_eq!(told(&event("/a/b", Kind::File, Body::Delete)), [("host:vm:/a".into(), t("delete", "b"))]);
    assert_eq!(told(&event("/b", Kind::File, Body::Link)), [("host:vm:/".into(), t("create", "b"))]);
    let mut d = t("rename", "x");
    d.insert("to", "y");
    assert_eq!(told(&rename("/a/x", "/a/y")), [("host:vm:/a".into(), d)]);
    let (mut d, mut e) = (t("rename", "x"), t("rename", "/a/x"));
    d.insert("to", "/c/y");
    e.insert("to", "y");
    assert_eq!(told(&rename("/a/x", "/c/y")), [("host:vm:/a".into(), d), ("host:vm:/c".into(), e)]);
}

#[test]
fn a_new_file_has_its_fields_told() {
    let at = Timestamp { secs: 5, nanos: 1 };
    let c =
        Created { mode: Some(0o644), size: 9, nlink: 1, uid: Some(7), gid: Some(0), mtime: at, ..Created::default() };
    let all = told(&event("/f", Kind::File, Body::Create(c)));
    assert_eq!(all[0], ("host:vm:/".into(), doc! { "type": "mutation", "transaction": 77i64, "create": "f" }));
    let m = |field: &str, new: i64| {
        let d = doc! { "type": "metadata", "transaction": 77i64, "field": field, "old": 0i64, "new": new };
        ("host:vm:/f".to_owned(), d)
    };
    let rest =
        [m("file.size", 9), m("file.mode", 0o100_644), m("file.link_count", 1), m("file.uid", 7), m("file.mtime", 5)];
    assert_eq!(all[1..], rest);
    let dir = told(&event("/d", Kind::Dir, Body::Create(Created::default())));
    assert_eq!((&dir[1].1["field"], &dir[1].1["new"]), (&Bson::from("file.is_dir"), &Bson::Boolean(true)));
}

#[test]
fn data_has_its_bytes_and_its_place() {
    let body = Body::Write { offset: 4096, length: 3, zero: false, data: Some(vec![1, 0, 255]) };
    let bytes = bson::Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 0, 255] };
    let d = doc! { "type": "data", "transaction": 77i64, "start": 4096i64, "end": 4099i64, "write": bytes };
    assert_eq!(told(&event("/f", Kind::File, body)), [("host:vm:/f".into(), d)]);
}

#[test]
fn only_what_2013_knew_is_a_field() {
    let change = |field: &str, old, new| {
        let body = Body::Metadata { field: field.into(), old: Some(old), new: Some(new) };
        told(&event("/f", Kind::File, body))
    };
    let d = doc! { "type": "metadata", "transaction": 77i64, "field": "file.mode", "old": 0o100_600i64, "new": 0o100_644i64 };
    assert_eq!(change("mode", Value::Int(0o600), Value::Int(0o644)), [("host:vm:/f".into(), d)]);
    let time = |secs, nanos| Value::Time(Timestamp { secs, nanos });
    assert_eq!(change("atime", time(-3, 0), time(-2, 5))[0].1["new"], Bson::Int64(-2));
    assert_eq!(change("atime", time(3, 0), time(3, 5)), []);
    assert_eq!(change("flags", Value::Int(0), Value::Int(1)), []);
}

#[test]
fn the_geometry_is_told_on_the_empty_path() {
    let aside = |field| {
        let e = Event { path: None, ..event("", Kind::File, Body::Aside { field, old: 1, new: 2 }) };
        told(&e).remove(0)
    };
    let d = |field: &str, old: Bson, new: Bson| doc! { "type": "metadata", "transaction": 77i64, "field": field, "old": old, "new": new };
    let narrow = d("superblock.num_files", Bson::Int32(1), Bson::Int32(2));
    assert_eq!(aside("superblock.num_files"), ("host:vm:".into(), narrow));
    assert_eq!(aside("superblock.block_size").1, d("superblock.block_size", Bson::Int64(1), Bson::Int64(2)));
    assert_eq!(aside("bgd.inode_table_sector_start").1["old"], Bson::Int64(1));
}

#[test]
fn names_are_bytes() {
    let path = Some(GuestPath(b"/d\xff/n\xfe".to_vec()));
    let e = Event { path, ..event("", Kind::File, Body::Delete) };
    let all = Messages::new("host", "vm").of(&e);
    assert_eq!(all[0].channel, b"host:vm:/d\xff");
    let d = Document::from_reader(&*all[0].document).unwrap();
    assert_eq!(d.get_str("delete").unwrap(), "n\u{fffd}");
    assert_eq!(d.get_binary_generic("delete_bytes").unwrap(), b"n\xfe");
}
