//! A replayer of events. It starts from a first listing, takes JSON Lines events one by one, fails
//! at the first step that no file system could take, and says what tree they lead to.

mod apply;
mod fields;
mod nodes;
mod streams;

use serde_json::Value;

use super::record::{Listing, text, unsigned};
use nodes::Nodes;

/// The tree so far.
pub struct Model {
    nodes: Nodes,
    last_seq: u64,
    /// How many `gap` events came: intermediate states that gammaray says it missed.
    pub gaps: u64,
    /// What the `volume` events said.
    pub volumes: Vec<String>,
}

impl Model {
    /// Start from a listing. Contents are unknown (only their hashes are), but for empty files.
    pub fn new(first: &Listing) -> Result<Self, String> {
        Ok(Self { nodes: Nodes::from_listing(first)?, last_seq: 0, gaps: 0, volumes: Vec::new() })
    }

    /// Apply events, one a line. An incomplete last line is an error.
    pub fn apply_all(&mut self, lines: &str) -> Result<(), String> {
        lines.lines().try_for_each(|line| self.apply(line))
    }

    /// Apply one event.
    pub fn apply(&mut self, line: &str) -> Result<(), String> {
        self.step(line).map_err(|e| format!("illegal step: {e}\n  event: {line:.600}"))
    }

    fn step(&mut self, line: &str) -> Result<(), String> {
        let event: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        self.check_envelope(&event)?;
        if let Some(stream) = text(&event, "stream")? {
            return self.stream(&event, &stream);
        }
        match text(&event, "type")?.ok_or("no type")?.as_str() {
            "create" => self.create(&event),
            "link" => self.link(&event),
            "unlink" => self.unlink(&event),
            "rename" => self.rename(&event),
            "delete" => self.delete(&event),
            "write" => self.write(&event),
            "truncate" => self.truncate(&event),
            "metadata" => self.metadata(&event),
            "volume" => {
                self.volumes.push(text(&event, "what")?.ok_or("a volume event without `what`")?);
                Ok(())
            }
            "gap" => {
                self.gaps += 1;
                Ok(())
            }
            other => Err(format!("unknown type {other}")),
        }
    }

    fn check_envelope(&mut self, event: &Value) -> Result<(), String> {
        let seq = unsigned(event, "seq")?.ok_or("no seq")?;
        if seq != self.last_seq + 1 {
            return Err(format!("seq {seq} after {}", self.last_seq));
        }
        self.last_seq = seq;
        let time = text(event, "time")?.ok_or("no time")?;
        if time.len() < 30 || !time.ends_with('Z') || time.as_bytes().get(19) != Some(&b'.') {
            return Err(format!("time is not RFC 3339 with nanoseconds: {time}"));
        }
        text(event, "vm")?.ok_or("no vm")?;
        match text(event, "origin")?.as_deref() {
            Some("journal" | "direct" | "resync" | "catchup") => Ok(()),
            other => Err(format!("origin {other:?}")),
        }
    }

    /// The tree as a listing, with `sha256` where the bytes are known.
    pub fn listing(&self) -> Listing {
        self.nodes.listing()
    }
}
