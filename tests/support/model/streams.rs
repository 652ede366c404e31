//! Events about named streams: small files that belong to a file.

use serde_json::Value;

use super::Model;
use super::apply::{path_of, unbase64};
use crate::support::content::Content;
use crate::support::record::{Stream, text, unsigned};
use crate::support::text::show;

/// A stream; content that nobody told is unknown.
#[derive(Clone, Default)]
pub struct StreamNode {
    pub size: u64,
    pub content: Option<Content>,
}

impl StreamNode {
    pub fn record(&self) -> Stream {
        Stream { size: self.size, sha256: self.content.as_ref().map(Content::sha256) }
    }
}

impl Model {
    /// An event whose path is that of a file, a colon, and the name of its stream.
    pub(super) fn stream(&mut self, event: &Value, name: &str) -> Result<(), String> {
        let path = path_of(event)?;
        let suffix = [b":", name.as_bytes()].concat();
        let file = path.strip_suffix(&suffix[..]).ok_or("the path does not end in the stream's name")?;
        let file = if file.is_empty() { b"/" } else { file };
        let id = self.nodes.find(file).ok_or_else(|| format!("no {}", show(file)))?;
        let streams = &mut self.nodes.get_mut(id).streams;
        let number = |key: &str| unsigned(event, key)?.ok_or(format!("no {key}"));
        match text(event, "type")?.as_deref() {
            Some("create") => {
                let size = number("size")?;
                let new = StreamNode { size, content: Some(Content::zeros(size)) };
                streams.insert(name.into(), new).map_or(Ok(()), |_| Err("the stream exists already".into()))
            }
            Some("delete") => streams.remove(name).map(drop).ok_or_else(|| "no such stream".into()),
            Some("write") => {
                let s = streams.get_mut(name).ok_or("no such stream")?;
                let (offset, length) = (number("offset")?, number("length")?);
                let data = text(event, "data")?.map(|d| unbase64(&d)).transpose()?;
                s.size = s.size.max(offset + length);
                let zero = event.get("zero") == Some(&Value::Bool(true));
                match (&mut s.content, data) {
                    (Some(c), Some(d)) if d.len() as u64 == length => c.write(offset, &d),
                    (Some(c), None) if zero => c.zero(offset, length),
                    _ => s.content = None,
                }
                Ok(())
            }
            Some("truncate") => {
                let s = streams.get_mut(name).ok_or("no such stream")?;
                s.size = number("new")?;
                if let Some(c) = &mut s.content {
                    c.truncate(s.size);
                }
                Ok(())
            }
            other => Err(format!("{other:?} of a stream")),
        }
    }
}
