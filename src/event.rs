//! File-level events: the only thing that sinks know. The JSON form is documented in the README
//! and is part of the interface.

use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::name::GuestPath;
use crate::tree::{Attr, Kind, Stream};
use crate::units::{InodeNo, Timestamp};

/// How an event came to be known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From a committed journal transaction.
    Journal,
    /// From writes to the file system's home places.
    Direct,
    /// From re-reading blocks after the engine fell behind or a state was unclear.
    Resync,
    /// From comparing with the last index after the daemon was away.
    Catchup,
}

/// One event. `seq` and `vm` are stamped by the engine.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// 1, 2, … per VM, without holes.
    pub seq: u64,
    /// The journal's commit time, else when the write completed.
    pub time: Timestamp,
    /// Name of the VM.
    pub vm: Arc<str>,
    /// Name of the volume (`p1` …, `disk`).
    pub volume: Option<Arc<str>>,
    /// Path in the guest, after the event (for those that remove a name: before).
    pub path: Option<GuestPath>,
    /// The file.
    pub inode: Option<InodeNo>,
    /// Its kind.
    pub kind: Option<Kind>,
    /// Journal transaction id.
    pub txn: Option<u64>,
    /// How it came to be known.
    pub origin: Origin,
    /// What happened.
    pub body: Body,
    /// The named stream of the file that the event is about; the path ends in `:` and its name.
    pub stream: Option<Stream>,
    /// Directory that holds the name, for whoever caches directories. Not part of the JSON.
    pub parent: Option<InodeNo>,
    /// Number of the write that caused it, counted from 1 on; stamped by the engine. Not part of
    /// the JSON.
    pub write: u64,
}

impl Event {
    /// An event about nothing in particular yet; `seq` and `vm` are the engine's to fill in.
    pub fn new(time: Timestamp, origin: Origin, body: Body) -> Self {
        Self {
            seq: 0,
            time,
            vm: "".into(),
            volume: None,
            path: None,
            inode: None,
            kind: None,
            txn: None,
            origin,
            body,
            stream: None,
            parent: None,
            write: 0,
        }
    }
}

/// What happened, by type.
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// A file appeared.
    Create(Created),
    /// A further name of a file appeared.
    Link,
    /// One of several names went.
    Unlink,
    /// A name changed, directory or not.
    Rename {
        /// The old path.
        from: GuestPath,
        /// Directory of the old name. Not part of the JSON.
        from_parent: InodeNo,
        /// The two names swapped their files.
        exchange: bool,
    },
    /// The last name went.
    Delete,
    /// Bytes of a file changed.
    Write {
        /// Byte offset in the file.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// The range was turned into zeros without being written (a hole was punched).
        zero: bool,
        /// The bytes as they stood on disk when the event was made, if asked for.
        data: Option<Vec<u8>>,
    },
    /// The size changed other than by the writes of the same transaction.
    Truncate {
        /// Size before.
        old: u64,
        /// Size after.
        new: u64,
    },
    /// An attribute changed.
    Metadata {
        /// mode uid gid mtime atime ctime nlink flags size (directories) xattr:NAME …
        field: String,
        /// Value before; absent if there was none.
        old: Option<Value>,
        /// Value after; absent if there is none.
        new: Option<Value>,
    },
    /// Something happened to a whole file system.
    Volume {
        /// appeared, mounted, unmounted, resized, reformatted, went
        what: &'static str,
        /// File system (`ext4` …), if known.
        fs: Option<&'static str>,
    },
    /// Intermediate states were merged or are unknown.
    Gap {
        /// Why.
        reason: String,
        /// How many bytes of the disk are concerned.
        bytes: u64,
    },
    /// A sink could not take events and had to drop them: a `gap` too. Its `seq` is that of the
    /// last of them.
    Missed {
        /// Why.
        reason: String,
        /// How many events are missing, up to and including `seq`.
        events: u64,
    },
    /// A field of a structure on disk changed that is no event of its own (the file system's
    /// geometry) or follows from others (the size of a file that was written to). It uses up no
    /// `seq` and goes only to sinks that ask for it ([`crate::sink::Sink::aside`]).
    Aside {
        /// Name of the field, as the messages of 2013 call it.
        field: &'static str,
        /// Value before.
        old: u64,
        /// Value after.
        new: u64,
    },
}

/// The state of a file that appeared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Created {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Size in bytes at the end of the transaction.
    pub size: u64,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation.
    pub crtime: Option<Timestamp>,
    /// Device number.
    pub rdev: Option<(u32, u32)>,
    /// Target of a symlink.
    pub target: Option<Vec<u8>>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Created {
    /// As `stat` shows it; target and attributes come apart from that.
    pub fn of(a: &Attr) -> Self {
        Self {
            mode: a.mode,
            size: a.size,
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            mtime: a.mtime,
            atime: a.atime,
            ctime: a.ctime,
            crtime: a.crtime,
            rdev: a.rdev,
            target: None,
            xattrs: Vec::new(),
        }
    }
}

/// A value of a metadata field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A number.
    Int(u64),
    /// A time, in nanoseconds since the epoch.
    Time(Timestamp),
    /// Bytes, as hex.
    Bytes(Vec<u8>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(v) => s.serialize_u64(*v),
            Self::Time(t) => t.serialize(s),
            Self::Bytes(b) => s.serialize_str(&crate::name::hex(b)),
        }
    }
}

impl Body {
    /// The event's `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Link => "link",
            Self::Unlink => "unlink",
            Self::Rename { .. } => "rename",
            Self::Delete => "delete",
            Self::Write { .. } => "write",
            Self::Truncate { .. } => "truncate",
            Self::Metadata { .. } => "metadata",
            Self::Volume { .. } => "volume",
            Self::Gap { .. } | Self::Missed { .. } => "gap",
            Self::Aside { .. } => "aside",
        }
    }
}

impl Event {
    /// The same for serialisation without the bytes of a `write`.
    pub fn without_data(&self) -> WithoutData<'_> {
        WithoutData(self)
    }
}

/// An event whose `write` has no `data`.
pub struct WithoutData<'a>(&'a Event);

impl Serialize for WithoutData<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_with(s, Data::None)
    }
}

/// In text the bytes of a `write` are base64, in binary forms (BSON) they are bytes.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let data = if s.is_human_readable() { Data::Base64 } else { Data::Bytes };
        self.serialize_with(s, data)
    }
}

/// The form of the bytes of a `write`.
#[derive(Clone, Copy)]
enum Data {
    None,
    Base64,
    Bytes,
}

/// Bytes that are bytes.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(self.0)
    }
}

impl Event {
    fn serialize_with<S: Serializer>(&self, s: S, data: Data) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        m.serialize_entry("seq", &self.seq)?;
        m.serialize_entry("time", &format_args!("{}", self.time))?;
        m.serialize_entry("vm", &*self.vm)?;
        m.serialize_entry("type", self.body.name())?;
        opt(&mut m, "volume", self.volume.as_deref())?;
        path(&mut m, "path", "path_hex", self.path.as_ref())?;
        if let Body::Rename { from, exchange, .. } = &self.body {
            path(&mut m, "from", "from_hex", Some(from))?;
            if *exchange {
                m.serialize_entry("exchange", &true)?;
            }
        }
        opt(&mut m, "stream", self.stream.as_ref().map(|s| crate::name::lossy(&s.name)))?;
        opt(&mut m, "inode", self.inode)?;
        opt(&mut m, "kind", self.kind)?;
        self.body.serialize_fields(&mut m, data)?;
        opt(&mut m, "txn", self.txn)?;
        m.serialize_entry("origin", &self.origin)?;
        m.end()
    }
}

impl Body {
    fn serialize_fields<M: SerializeMap>(&self, m: &mut M, form: Data) -> Result<(), M::Error> {
        match self {
            Self::Create(c) => c.serialize_fields(m),
            Self::Write { offset, length, zero, data } => {
                m.serialize_entry("offset", offset)?;
                m.serialize_entry("length", length)?;
                if *zero {
                    m.serialize_entry("zero", &true)?;
                }
                match form {
                    Data::None => Ok(()),
                    Data::Base64 => opt(m, "data", data.as_deref().map(crate::name::base64)),
                    Data::Bytes => opt(m, "data", data.as_deref().map(Raw)),
                }
            }
            Self::Truncate { old, new } => {
                m.serialize_entry("old", old)?;
                m.serialize_entry("new", new)
            }
            Self::Metadata { field, old, new } => {
                m.serialize_entry("field", field)?;
                m.serialize_entry("old", old)?;
                m.serialize_entry("new", new)
            }
            Self::Volume { what, fs } => {
                m.serialize_entry("what", what)?;
                opt(m, "fs", *fs)
            }
            Self::Gap { reason, bytes } => {
                m.serialize_entry("reason", reason)?;
                m.serialize_entry("bytes", bytes)
            }
            Self::Missed { reason, events } => {
                m.serialize_entry("reason", reason)?;
                m.serialize_entry("bytes", &0)?;
                m.serialize_entry("events", events)
            }
            Self::Aside { field, old, new } => {
                m.serialize_entry("field", field)?;
                m.serialize_entry("old", old)?;
                m.serialize_entry("new", new)
            }
            Self::Link | Self::Unlink | Self::Rename { .. } | Self::Delete => Ok(()),
        }
    }
}

impl Created {
    fn serialize_fields<M: SerializeMap>(&self, m: &mut M) -> Result<(), M::Error> {
        opt(m, "mode", self.mode)?;
        m.serialize_entry("size", &self.size)?;
        m.serialize_entry("nlink", &self.nlink)?;
        opt(m, "uid", self.uid)?;
        opt(m, "gid", self.gid)?;
        m.serialize_entry("mtime", &self.mtime)?;
        m.serialize_entry("atime", &self.atime)?;
        m.serialize_entry("ctime", &self.ctime)?;
        opt(m, "crtime", self.crtime)?;
        opt(m, "rdev", self.rdev)?;
        if let Some(t) = &self.target {
            m.serialize_entry("target", &crate::name::lossy(t))?;
            if std::str::from_utf8(t).is_err() {
                m.serialize_entry("target_hex", &crate::name::hex(t))?;
            }
        }
        if !self.xattrs.is_empty() {
            m.serialize_entry("xattrs", &crate::name::XattrMap(&self.xattrs))?;
        }
        Ok(())
    }
}

fn opt<M: SerializeMap, T: Serialize>(m: &mut M, key: &str, value: Option<T>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |v| m.serialize_entry(key, &v))
}

fn path<M: SerializeMap>(m: &mut M, key: &str, hex_key: &str, p: Option<&GuestPath>) -> Result<(), M::Error> {
    let Some(p) = p else { return Ok(()) };
    m.serialize_entry(key, &p.lossy())?;
    opt(m, hex_key, p.hex_if_not_utf8())
}
