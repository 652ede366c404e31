//! What each type of event does to the tree, and when it may not.

use base64::Engine as _;
use serde_json::Value;

use super::Model;
use super::nodes::{Id, Node};
use crate::support::content::Content;
use crate::support::record::{Record, hex_map, pair, raw_bytes, signed, text, unsigned};
use crate::support::text::show;

type Step = Result<(), String>;

impl Model {
    pub(super) fn create(&mut self, event: &Value) -> Step {
        let path = path_of(event)?;
        let record = created(event)?;
        let content = (record.kind == "file").then(|| Content::zeros(record.size.unwrap_or(0)));
        let id = self.nodes.add(Node { record, content, volume: text(event, "volume")?, ..Node::default() });
        self.nodes.put_name(&path, id).inspect_err(|_| self.nodes.remove(id))
    }

    pub(super) fn link(&mut self, event: &Value) -> Step {
        let ino = unsigned(event, "inode")?.ok_or("no inode")?;
        let id = self
            .nodes
            .by_ino(ino, text(event, "volume")?.as_deref())
            .ok_or_else(|| format!("no file with inode {ino}"))?;
        if self.nodes.get(id).is_dir() {
            return Err("a directory has one name".into());
        }
        self.nodes.put_name(&path_of(event)?, id)
    }

    pub(super) fn unlink(&mut self, event: &Value) -> Step {
        let id = self.target(event)?;
        if self.nodes.get(id).names < 2 {
            return Err("unlink of the only name; that is a delete".into());
        }
        self.nodes.take_name(&path_of(event)?).map(drop)
    }

    pub(super) fn delete(&mut self, event: &Value) -> Step {
        let id = self.target(event)?;
        let node = self.nodes.get(id);
        if node.names > 1 {
            return Err(format!("delete of one of {} names; that is an unlink", node.names));
        }
        if !node.children.is_empty() {
            return Err(format!("the directory still has {} names", node.children.len()));
        }
        self.nodes.take_name(&path_of(event)?)?;
        self.nodes.remove(id);
        Ok(())
    }

    pub(super) fn rename(&mut self, event: &Value) -> Step {
        let (from, to) = (raw_bytes(event, "from")?.ok_or("no from")?, path_of(event)?);
        if below(&to, &from) {
            return Err("moved onto or below itself".into());
        }
        let exchange = event.get("exchange").is_some();
        if exchange {
            return self.exchange(event, &from, &to);
        }
        let id = self.nodes.find(&from).ok_or_else(|| format!("no {}", show(&from)))?;
        self.check_identity(event, id)?;
        self.nodes.take_name(&from)?;
        self.nodes.put_name(&to, id)
    }

    /// `path` is where the event's file ends up: it was at `from` before.
    fn exchange(&mut self, event: &Value, from: &[u8], to: &[u8]) -> Step {
        if event.get("exchange") != Some(&Value::Bool(true)) || below(from, to) {
            return Err("no exchange of two separate names".into());
        }
        let a = self.nodes.find(from).ok_or_else(|| format!("no {}", show(from)))?;
        self.check_identity(event, a)?;
        let b = self.nodes.take_name(to)?;
        self.nodes.take_name(from)?;
        self.nodes.put_name(to, a)?;
        self.nodes.put_name(from, b)
    }

    pub(super) fn write(&mut self, event: &Value) -> Step {
        let id = self.target(event)?;
        let offset = unsigned(event, "offset")?.ok_or("no offset")?;
        let length = unsigned(event, "length")?.filter(|n| *n > 0).ok_or("no length")?;
        let end = offset.checked_add(length).ok_or("past the end of numbers")?;
        let data = text(event, "data")?.map(|d| unbase64(&d)).transpose()?;
        let zero = event.get("zero") == Some(&Value::Bool(true));
        let node = self.nodes.get_mut(id);
        if node.record.kind != "file" {
            return Err(format!("write to a {}", node.record.kind));
        }
        let size = node.record.size.unwrap_or(0);
        node.size_before_writes.get_or_insert(size);
        node.record.size = Some(size.max(end));
        node.record.sha256 = None;
        match (&mut node.content, data) {
            (_, Some(d)) if d.len() as u64 != length => return Err(format!("{} bytes of data", d.len())),
            (Some(content), Some(d)) => content.write(offset, &d),
            (Some(content), None) if zero => content.zero(offset, length),
            // Bytes that nobody told make the whole file unknown.
            _ => node.content = None,
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, event: &Value) -> Step {
        let id = self.target(event)?;
        let old = unsigned(event, "old")?.ok_or("no old")?;
        let new = unsigned(event, "new")?.ok_or("no new")?;
        let node = self.nodes.get_mut(id);
        let size = node.record.size;
        // Writes of the same transaction stand before it: `old` may or may not count them.
        if size != Some(old) && node.size_before_writes != Some(old) {
            return Err(format!("old size is {size:?}"));
        }
        if size == Some(new) || node.record.kind != "file" {
            return Err("changes nothing, or no file".into());
        }
        node.size_before_writes = None;
        node.record.size = Some(new);
        node.record.sha256 = None;
        match &mut node.content {
            Some(content) => content.truncate(new),
            None if new == 0 => node.content = Some(Content::default()),
            None => {}
        }
        Ok(())
    }

    /// The file at the event's path; it must be the one that the event says it is.
    pub(super) fn target(&self, event: &Value) -> Result<Id, String> {
        let path = path_of(event)?;
        let id = self.nodes.find(&path).ok_or_else(|| format!("no {}", show(&path)))?;
        self.check_identity(event, id)?;
        Ok(id)
    }

    fn check_identity(&self, event: &Value, id: Id) -> Step {
        let record = &self.nodes.get(id).record;
        let ino = unsigned(event, "inode")?.ok_or("no inode")?;
        if record.ino.is_some_and(|known| known != ino) {
            return Err(format!("inode {ino}, but the path's is {:?}", record.ino));
        }
        match text(event, "kind")? {
            Some(kind) if kind != record.kind => Err(format!("kind {kind}, but the path's is {}", record.kind)),
            _ => Ok(()),
        }
    }
}

pub(super) fn path_of(event: &Value) -> Result<Vec<u8>, String> {
    let path = raw_bytes(event, "path")?.ok_or("no path")?;
    let odd = path.first() != Some(&b'/') || path.windows(2).any(|w| w == b"//") || path.contains(&0);
    if odd { Err("an odd path".into()) } else { Ok(path) }
}

/// Whether `path` is `dir` or lies below it.
fn below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

pub(super) fn unbase64(data: &str) -> Result<Vec<u8>, String> {
    base64::engine::general_purpose::STANDARD.decode(data).map_err(|e| e.to_string())
}

fn created(event: &Value) -> Result<Record, String> {
    Ok(Record {
        kind: text(event, "kind")?.ok_or("no kind")?,
        size: Some(unsigned(event, "size")?.ok_or("no size")?),
        ino: Some(unsigned(event, "inode")?.ok_or("no inode")?),
        nlink: unsigned(event, "nlink")?,
        mode: unsigned(event, "mode")?,
        uid: unsigned(event, "uid")?,
        gid: unsigned(event, "gid")?,
        mtime: signed(event, "mtime")?,
        atime: signed(event, "atime")?,
        ctime: signed(event, "ctime")?,
        crtime: signed(event, "crtime")?,
        target: raw_bytes(event, "target")?,
        rdev: pair(event, "rdev")?,
        xattrs: Some(hex_map(event, "xattrs")?.unwrap_or_default()),
        streams: Some(Default::default()),
        reparse_tag: None,
        sha256: None,
        error: None,
    })
}
