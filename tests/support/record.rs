//! The canonical listing as typed records, and a parser of its JSON form.

use std::collections::BTreeMap;

use serde_json::Value;

use super::text::unhex;

/// One line of a listing. `None`: not known, not compared.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    pub kind: String,
    pub size: Option<u64>,
    pub ino: Option<u64>,
    pub nlink: Option<u64>,
    pub mode: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<i64>,
    pub atime: Option<i64>,
    pub ctime: Option<i64>,
    pub crtime: Option<i64>,
    pub target: Option<Vec<u8>>,
    pub rdev: Option<(u64, u64)>,
    /// Value in hex by name.
    pub xattrs: Option<BTreeMap<String, String>>,
    /// Named streams.
    pub streams: Option<BTreeMap<String, Stream>>,
    pub reparse_tag: Option<u64>,
    pub sha256: Option<String>,
    pub error: Option<String>,
}

/// A named stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stream {
    pub size: u64,
    pub sha256: Option<String>,
}

/// All files by their path, in the order of the raw bytes.
pub type Listing = BTreeMap<Vec<u8>, Record>;

/// Parse JSON Lines; strict about the order, the fields and their types.
pub fn parse_listing(text: &str) -> Result<Listing, String> {
    let mut out = Listing::new();
    for (no, line) in text.lines().enumerate() {
        let (path, record) = parse_line(line).map_err(|e| format!("line {}: {e}: {line:.300}", no + 1))?;
        if out.last_key_value().is_some_and(|(last, _)| *last >= path) {
            return Err(format!("line {}: not sorted by the raw bytes of the path: {line:.300}", no + 1));
        }
        out.insert(path, record);
    }
    Ok(out)
}

fn parse_line(line: &str) -> Result<(Vec<u8>, Record), String> {
    const KNOWN: [&str; 21] = [
        "streams",
        "reparse_tag",
        "path",
        "path_hex",
        "type",
        "size",
        "ino",
        "nlink",
        "mode",
        "uid",
        "gid",
        "mtime",
        "atime",
        "ctime",
        "crtime",
        "target",
        "target_hex",
        "rdev",
        "xattrs",
        "sha256",
        "error",
    ];
    let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let object = value.as_object().ok_or("not an object")?;
    if let Some(odd) = object.keys().find(|k| !KNOWN.contains(&k.as_str())) {
        return Err(format!("unknown field {odd}"));
    }
    let path = raw_bytes(&value, "path")?.ok_or("no path")?;
    let record = Record {
        kind: text(&value, "type")?.ok_or("no type")?,
        size: unsigned(&value, "size")?,
        ino: unsigned(&value, "ino")?,
        nlink: unsigned(&value, "nlink")?,
        mode: unsigned(&value, "mode")?,
        uid: unsigned(&value, "uid")?,
        gid: unsigned(&value, "gid")?,
        mtime: signed(&value, "mtime")?,
        atime: signed(&value, "atime")?,
        ctime: signed(&value, "ctime")?,
        crtime: signed(&value, "crtime")?,
        target: raw_bytes(&value, "target")?,
        rdev: pair(&value, "rdev")?,
        // A listing leaves out an empty map.
        xattrs: Some(hex_map(&value, "xattrs")?.unwrap_or_default()),
        streams: Some(streams(&value)?),
        reparse_tag: unsigned(&value, "reparse_tag")?,
        sha256: text(&value, "sha256")?,
        error: text(&value, "error")?,
    };
    Ok((path, record))
}

/// A listing leaves out an empty map.
fn streams(value: &Value) -> Result<BTreeMap<String, Stream>, String> {
    let Some(all) = value.get("streams") else { return Ok(BTreeMap::new()) };
    let all = all.as_object().filter(|o| !o.is_empty()).ok_or("streams of a wrong type")?;
    let one = |(name, s): (&String, &Value)| {
        let size = unsigned(s, "size")?.ok_or("a stream without size")?;
        Ok((name.clone(), Stream { size, sha256: text(s, "sha256")? }))
    };
    all.iter().map(one).collect()
}

/// A text field, or the exact bytes in its `_hex` companion, which must agree with it.
pub fn raw_bytes(value: &Value, key: &str) -> Result<Option<Vec<u8>>, String> {
    let Some(lossy) = text(value, key)? else { return Ok(None) };
    let Some(hex) = text(value, &format!("{key}_hex"))? else { return Ok(Some(lossy.into_bytes())) };
    let bytes = unhex(&hex)?;
    if std::str::from_utf8(&bytes).is_ok() || String::from_utf8_lossy(&bytes) != lossy {
        return Err(format!("{key} and {key}_hex do not belong together"));
    }
    Ok(Some(bytes))
}

pub fn text(value: &Value, key: &str) -> Result<Option<String>, String> {
    typed(value, key, |v| v.as_str().map(str::to_owned))
}

pub fn unsigned(value: &Value, key: &str) -> Result<Option<u64>, String> {
    typed(value, key, Value::as_u64)
}

pub fn signed(value: &Value, key: &str) -> Result<Option<i64>, String> {
    typed(value, key, Value::as_i64)
}

pub fn pair(value: &Value, key: &str) -> Result<Option<(u64, u64)>, String> {
    typed(value, key, |v| match v.as_array()?.as_slice() {
        [a, b] => Some((a.as_u64()?, b.as_u64()?)),
        _ => None,
    })
}

pub fn hex_map(value: &Value, key: &str) -> Result<Option<BTreeMap<String, String>>, String> {
    typed(value, key, |v| {
        let entry = |(k, v): (&String, &Value)| Some((k.clone(), v.as_str().filter(|h| unhex(h).is_ok())?.to_owned()));
        v.as_object()?.iter().map(entry).collect()
    })
}

fn typed<T>(value: &Value, key: &str, get: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, String> {
    match value.get(key) {
        None => Ok(None),
        Some(v) => get(v).map(Some).ok_or_else(|| format!("field {key} has the wrong type: {v}")),
    }
}
