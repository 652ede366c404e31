//! What NTFS alone knows of a file, in words for `stat`.

use super::names::wtf8;
use super::node::Node;
use super::record::{Value, kind};
use crate::name::{hex, lossy};

/// File attributes (\[MS-FSCC\] 2.6).
const ATTRIBUTES: [(u32, &str); 16] = [
    (0x1, "readonly"),
    (0x2, "hidden"),
    (0x4, "system"),
    (0x20, "archive"),
    (0x40, "device"),
    (0x100, "temporary"),
    (0x200, "sparse"),
    (0x400, "reparse"),
    (0x800, "compressed"),
    (0x1000, "offline"),
    (0x2000, "unindexed"),
    (0x4000, "encrypted"),
    (0x8000, "integrity"),
    (0x4_0000, "recall-on-open"),
    (0x40_0000, "recall-on-access"),
    (0x1000_0000, "directory"),
];

/// Facts and their names.
pub fn facts(node: &Node) -> Vec<(&'static str, String)> {
    let mut facts = vec![("sequence", node.file.id.sequence().to_string())];
    let bits = node.standard.attributes;
    let words: Vec<&str> = ATTRIBUTES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, w)| *w).collect();
    if !words.is_empty() {
        facts.push(("attributes", words.join(" ")));
    }
    facts.extend(node.file.names().filter(|n| n.is_dos).map(|n| ("dos name", lossy(&n.name).into_owned())));
    facts.extend(node.tag.map(|t| ("reparse tag", format!("{t:#010x}"))));
    facts.extend(node.wof.map(|w| ("compressed with", format!("WOF {w:?}"))));
    let encrypted = node.file.streams().filter(|a| a.encrypted);
    facts.extend(encrypted.map(|a| ("encrypted stream", format!("\"{}\"", lossy(&wtf8(&a.name))))));
    if let Some(Value::Resident(id)) = node.file.attribute(kind::OBJECT_ID).map(|a| &a.value) {
        facts.push(("object id", hex(id.get(..16).unwrap_or_default())));
    }
    if !node.file.extensions.is_empty() {
        let all: Vec<String> = node.file.extensions.iter().take(16).map(u64::to_string).collect();
        facts.push(("further records", all.join(" ")));
    }
    if node.standard.security_id != 0 {
        facts.push(("security id", node.standard.security_id.to_string()));
    }
    facts
}
