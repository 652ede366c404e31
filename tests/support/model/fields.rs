//! `metadata` events: one field of one file, from an old value to a new one.

use serde_json::Value;

use super::Model;
use super::nodes::Node;
use crate::support::record::text;
use crate::support::text::unhex;

impl Model {
    pub(super) fn metadata(&mut self, event: &Value) -> Result<(), String> {
        let id = self.target(event)?;
        let field = text(event, "field")?.ok_or("no field")?;
        let value = |key: &str| event.get(key).cloned().ok_or(format!("no {key}"));
        let (old, new) = (value("old")?, value("new")?);
        if old == new {
            return Err("old and new are the same".into());
        }
        let node = self.nodes.get_mut(id);
        node.size_before_writes = None;
        change(node, &field, &old, new)
    }
}

fn change(node: &mut Node, field: &str, old: &Value, new: Value) -> Result<(), String> {
    let record = &mut node.record;
    match field {
        "mode" => number(&mut record.mode, old, &new, Value::as_u64),
        "uid" => number(&mut record.uid, old, &new, Value::as_u64),
        "gid" => number(&mut record.gid, old, &new, Value::as_u64),
        "nlink" => number(&mut record.nlink, old, &new, Value::as_u64),
        "mtime" => number(&mut record.mtime, old, &new, Value::as_i64),
        "atime" => number(&mut record.atime, old, &new, Value::as_i64),
        "ctime" => number(&mut record.ctime, old, &new, Value::as_i64),
        "crtime" => number(&mut record.crtime, old, &new, Value::as_i64),
        "size" if record.kind == "dir" => number(&mut record.size, old, &new, Value::as_u64),
        "size" => Err("a file's size changes by write and truncate".into()),
        other => match other.strip_prefix("xattr:") {
            Some(name) => xattr(node, name, old, &new),
            None => remember(node, other, old, new),
        },
    }
}

fn number<T: Copy + PartialEq + std::fmt::Debug>(
    slot: &mut Option<T>,
    old: &Value,
    new: &Value,
    get: impl Fn(&Value) -> Option<T>,
) -> Result<(), String> {
    if slot.is_some() && *slot != get(old) {
        return Err(format!("old value is {slot:?}"));
    }
    *slot = Some(get(new).ok_or("new value of a wrong type")?);
    Ok(())
}

fn xattr(node: &mut Node, name: &str, old: &Value, new: &Value) -> Result<(), String> {
    let map = node.record.xattrs.get_or_insert_default();
    let known = map.get(name).map_or(Value::Null, |v| Value::from(v.as_str()));
    if known != *old {
        return Err(format!("old value is {known}"));
    }
    match new {
        Value::Null => map.remove(name),
        Value::String(hex) => {
            unhex(hex)?;
            map.insert(name.into(), hex.clone())
        }
        _ => return Err("new value of a wrong type".into()),
    };
    Ok(())
}

/// Of fields that no listing has, at least the chain of old and new must hold.
fn remember(node: &mut Node, field: &str, old: &Value, new: Value) -> Result<(), String> {
    match node.others.insert(field.into(), new) {
        Some(known) if known != *old => Err(format!("old value is {known}")),
        _ => Ok(()),
    }
}
