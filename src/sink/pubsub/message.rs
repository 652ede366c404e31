//! From events to the messages of 2013.
//!
//! | event | channel | document |
//! | --- | --- | --- |
//! | create, link | the directory's | `mutation` with `create`: the name |
//! | delete, unlink | the directory's | `mutation` with `delete`: the name |
//! | rename | the old directory's | `mutation` with `rename`: the old name, `to`: the new one |
//! | write | the file's | `data` with `start`, `end`, `write` |
//! | truncate, metadata, attributes of what is created | the file's | `metadata` with `field`, `old`, `new` |
//! | asides without a path | the VM's, with an empty path | `metadata` |
//!
//! All have `type` and `transaction`. Where the new directory is another one, `to` is the new path
//! (it starts with `/`), and the new directory's channel hears of it too, with `rename` the old path
//! and `to` the new name: either joins to the channel's path. Times are whole seconds, as they were. `gap` and `volume` are
//! types that did not exist; old readers skip what they do not know.

use bson::raw::CString;
use bson::spec::BinarySubtype;
use bson::{RawBinaryRef, RawBsonRef, RawDocumentBuf};

use crate::event::{Body, Created, Event, Value};
use crate::name::GuestPath;
use crate::tree::Kind;
use crate::units::Timestamp;

/// One message.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// Name of the channel: bytes, as paths are.
    pub channel: Vec<u8>,
    /// BSON.
    pub document: Vec<u8>,
}

/// Makes messages.
#[derive(Clone, Debug)]
pub struct Messages {
    /// `HOST:VM:`
    prefix: Vec<u8>,
}

/// A field of `metadata`: its name and its value before and after.
type Change = (&'static str, Old, Old);

/// A value of `metadata`.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Old {
    /// i64
    Wide(u64),
    /// i32
    Narrow(u64),
    Bool(bool),
}

impl Messages {
    /// The messages of `vm` on `host`.
    pub fn new(host: &str, vm: &str) -> Self {
        Self { prefix: format!("{host}:{vm}:").into_bytes() }
    }

    fn channel(&self, path: &[u8]) -> Vec<u8> {
        [&self.prefix, path].concat()
    }

    /// What `event` is told with.
    pub fn of(&self, event: &Event) -> Vec<Message> {
        let none = GuestPath(Vec::new());
        let path = event.path.as_ref().unwrap_or(&none);
        let mut all = Vec::new();
        match &event.body {
            Body::Create(c) => {
                all.push(self.mutation(event, path, "create", None));
                all.extend(created(c, event.kind).into_iter().map(|m| self.metadata(event, path, m)));
            }
            Body::Link => all.push(self.mutation(event, path, "create", None)),
            Body::Delete | Body::Unlink => all.push(self.mutation(event, path, "delete", None)),
            Body::Rename { from, .. } => self.rename(event, from, path, &mut all),
            Body::Write { offset, length, zero, data } => {
                let end = offset.saturating_add(*length);
                all.push(self.data(event, path, (*offset, end), data.as_deref().unwrap_or_default(), *zero));
            }
            Body::Truncate { old, new } => {
                all.push(self.metadata(event, path, ("file.size", Old::Wide(*old), Old::Wide(*new))));
            }
            Body::Metadata { field, old, new } => {
                let change = known_field(field, event.kind, old.as_ref(), new.as_ref());
                all.extend(change.map(|m| self.metadata(event, path, m)));
            }
            Body::Aside { field, old, new } => {
                let narrow = field.starts_with("superblock.num_");
                let value = |v: u64| if narrow { Old::Narrow(v) } else { Old::Wide(v) };
                all.push(self.metadata(event, path, (field, value(*old), value(*new))));
            }
            Body::Gap { reason, .. } => all.push(self.said(event, "gap", "reason", reason)),
            Body::Missed { reason, .. } => all.push(self.said(event, "gap", "reason", reason)),
            Body::Volume { what, .. } => all.push(self.said(event, "volume", "what", what)),
        }
        all
    }

    /// Word of `events` events that were dropped.
    pub fn gap(&self, events: u64) -> Message {
        let mut doc = Doc::of("gap", 0);
        doc.text("reason", b"events were dropped on the way");
        doc.wide("events", events);
        self.message(b"", doc)
    }

    fn message(&self, path: &[u8], doc: Doc) -> Message {
        Message { channel: self.channel(path), document: doc.0.into_bytes() }
    }

    fn mutation(&self, event: &Event, path: &GuestPath, what: &'static str, to: Option<&[u8]>) -> Message {
        let (dir, name) = split(&path.0);
        self.mutation_in(event, dir, what, name, to)
    }

    fn mutation_in(&self, event: &Event, dir: &[u8], what: &'static str, name: &[u8], to: Option<&[u8]>) -> Message {
        let mut doc = Doc::of("mutation", event.write);
        doc.text(what, name);
        if let Some(to) = to {
            doc.text("to", to);
        }
        self.message(dir, doc)
    }

    fn rename(&self, event: &Event, from: &GuestPath, path: &GuestPath, all: &mut Vec<Message>) {
        let ((old_dir, old_name), (new_dir, new_name)) = (split(&from.0), split(&path.0));
        if old_dir == new_dir {
            all.push(self.mutation_in(event, old_dir, "rename", old_name, Some(new_name)));
        } else {
            all.push(self.mutation_in(event, old_dir, "rename", old_name, Some(&path.0)));
            all.push(self.mutation_in(event, new_dir, "rename", &from.0, Some(new_name)));
        }
    }

    fn data(&self, event: &Event, path: &GuestPath, (start, end): (u64, u64), bytes: &[u8], zero: bool) -> Message {
        let mut doc = Doc::of("data", event.write);
        doc.wide("start", start);
        doc.wide("end", end);
        doc.bytes("write", bytes);
        if zero {
            doc.put("zero", RawBsonRef::Boolean(true));
        }
        self.message(&path.0, doc)
    }

    fn metadata(&self, event: &Event, path: &GuestPath, (field, old, new): Change) -> Message {
        let mut doc = Doc::of("metadata", event.write);
        doc.text("field", field.as_bytes());
        doc.value("old", old);
        doc.value("new", new);
        self.message(&path.0, doc)
    }

    fn said(&self, event: &Event, kind: &str, key: &str, value: &str) -> Message {
        let mut doc = Doc::of(kind, event.write);
        doc.text(key, value.as_bytes());
        self.message(b"", doc)
    }
}

/// Directory and name; the root's entries lie in `/`.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    let (dir, name) = path.split_at(at);
    (if dir.is_empty() { b"/" } else { dir }, name.strip_prefix(b"/").unwrap_or(name))
}

/// What a reader learns of a new file: its fields, as if they had been 0.
fn created(c: &Created, kind: Option<Kind>) -> Vec<Change> {
    let wide = |field, v: Option<u64>| v.filter(|v| *v != 0).map(|v| (field, Old::Wide(0), Old::Wide(v)));
    let mode = c.mode.map(|m| mode(m.into(), kind));
    let is_dir = (kind == Some(Kind::Dir)).then_some(("file.is_dir", Old::Bool(false), Old::Bool(true)));
    [
        is_dir,
        wide("file.size", Some(c.size)),
        wide("file.mode", mode),
        wide("file.link_count", Some(c.nlink.into())),
        wide("file.uid", c.uid.map(u64::from)),
        wide("file.gid", c.gid.map(u64::from)),
        wide("file.atime", Some(seconds(c.atime))),
        wide("file.mtime", Some(seconds(c.mtime))),
        wide("file.ctime", Some(seconds(c.ctime))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A changed attribute, if 2013 knew it. Times that differ only within a second are no change.
fn known_field(field: &str, kind: Option<Kind>, old: Option<&Value>, new: Option<&Value>) -> Option<Change> {
    let field = match field {
        "size" => "file.size",
        "mode" => "file.mode",
        "nlink" => "file.link_count",
        "uid" => "file.uid",
        "gid" => "file.gid",
        "atime" => "file.atime",
        "mtime" => "file.mtime",
        "ctime" => "file.ctime",
        _ => return None,
    };
    let value = |v: Option<&Value>| match v {
        Some(Value::Int(v)) if field == "file.mode" => mode(*v, kind),
        Some(Value::Int(v)) => *v,
        Some(Value::Time(t)) => seconds(*t),
        Some(Value::Bytes(_)) | None => 0,
    };
    let (old, new) = (Old::Wide(value(old)), Old::Wide(value(new)));
    (old != new).then_some((field, old, new))
}

/// Whole seconds, as the bits of an i64.
fn seconds(t: Timestamp) -> u64 {
    t.secs.cast_unsigned()
}

/// `i_mode`: permissions and the type's bits (Linux `include/uapi/linux/stat.h`).
fn mode(permissions: u64, kind: Option<Kind>) -> u64 {
    let bits = match kind {
        Some(Kind::File) => 0o100_000,
        Some(Kind::Dir) => 0o040_000,
        Some(Kind::Symlink) => 0o120_000,
        Some(Kind::Fifo) => 0o010_000,
        Some(Kind::Sock) => 0o140_000,
        Some(Kind::Chr) => 0o020_000,
        Some(Kind::Blk) => 0o060_000,
        _ => 0,
    };
    permissions | bits
}

/// A document under construction.
struct Doc(RawDocumentBuf);

impl Doc {
    fn of(kind: &str, transaction: u64) -> Self {
        let mut this = Self(RawDocumentBuf::new());
        this.text("type", kind.as_bytes());
        this.wide("transaction", transaction);
        this
    }

    fn put(&mut self, key: &str, value: RawBsonRef<'_>) {
        // Keys are ours and hold no NUL.
        if let Ok(key) = CString::try_from(key) {
            self.0.append(&key, value);
        }
    }

    /// A string; what is not UTF-8 has U+FFFD in it, and its exact bytes in `…_bytes`.
    fn text(&mut self, key: &str, value: &[u8]) {
        self.put(key, RawBsonRef::String(&crate::name::lossy(value)));
        if std::str::from_utf8(value).is_err() {
            self.bytes(&format!("{key}_bytes"), value);
        }
    }

    fn bytes(&mut self, key: &str, bytes: &[u8]) {
        self.put(key, RawBsonRef::Binary(RawBinaryRef { subtype: BinarySubtype::Generic, bytes }));
    }

    /// As i64: what does not fit has the same bits.
    fn wide(&mut self, key: &str, value: u64) {
        self.put(key, RawBsonRef::Int64(value.cast_signed()));
    }

    fn value(&mut self, key: &str, value: Old) {
        match value {
            Old::Wide(v) => self.wide(key, v),
            Old::Narrow(v) => self.put(key, RawBsonRef::Int32(i32::try_from(v).unwrap_or(i32::MAX))),
            Old::Bool(v) => self.put(key, RawBsonRef::Boolean(v)),
        }
    }
}

#[cfg(test)]
mod tests;
