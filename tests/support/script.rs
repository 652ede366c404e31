//! A guest that follows a script, and the events of each of its steps as short lines of text.

use std::path::Path;

use serde_json::Value;

use super::daemon::Attach;
use super::disk::{Loop, Mount, make};
use super::events::Events;
use super::record::{raw_bytes, text};
use super::text::show;

/// A guest with a small file system on a served disk. The fields in the order of dropping.
pub struct Script {
    mount: Mount,
    _device: Loop,
    _attach: Attach,
    events: Events,
}

impl Script {
    /// `commit=300`, since a step should be one transaction even on a busy machine.
    pub fn start(scratch: &Path, mkfs: &str, options: &str) -> Self {
        // The modes that the script's events name are made under this mask.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let image = scratch.join("disk.raw");
        make(&image, 64 << 20, mkfs);
        let attach = Attach::start(&image, scratch, false, &[]);
        let device = Loop::attach(&attach.disk);
        let mount = Mount::new(&device.device, &scratch.join("guest"), options);
        mount.sync();
        let mut events = Events::new(&attach.events);
        let first = events.settled("").unwrap();
        let odd: Vec<String> = lines(&first).into_iter().filter(|l| !l.starts_with("volume")).collect();
        assert!(odd.is_empty(), "mounting makes events: {odd:?}");
        Self { mount, _device: device, _attach: attach, events }
    }

    /// Do something and sync; the events that come of it.
    pub fn step(&mut self, act: impl FnOnce(&Path)) -> Vec<String> {
        act(&self.mount.dir);
        self.mount.sync();
        let raw = self.events.settled("\"seq\"").unwrap_or_default();
        lines(&raw)
    }

    /// Exactly these events come, in this order.
    pub fn expect(&mut self, what: &str, act: impl FnOnce(&Path), expected: &[&str]) {
        let found = self.step(act);
        assert!(found == expected, "{what}: expected\n  {}\nfound\n  {}", expected.join("\n  "), found.join("\n  "));
    }

    /// Of the events that come, those that change names are these; in any order if without a journal.
    pub fn expect_names(&mut self, what: &str, act: impl FnOnce(&Path), expected: &[&str]) {
        let names = ["create ", "link ", "unlink ", "rename ", "exchange ", "delete "];
        let mut found = self.step(act);
        found.retain(|line| names.iter().any(|n| line.starts_with(n)));
        assert!(found == expected, "{what}: expected\n  {}\nfound\n  {}", expected.join("\n  "), found.join("\n  "));
    }

    /// Unmount, and the events that come of it.
    pub fn unmount(mut self) -> Vec<String> {
        self.mount.unmount();
        lines(&self.events.settled("\"seq\"").unwrap_or_default())
    }
}

/// Events as text: times and inode numbers are left out, the rest is there.
pub fn lines(events: &str) -> Vec<String> {
    events.lines().map(|line| line_of(&serde_json::from_str(line).unwrap())).collect()
}

fn line_of(e: &Value) -> String {
    let kind = text(e, "type").unwrap().unwrap_or_default();
    let path = path(e, "path");
    match kind.as_str() {
        "create" => create(e, &path),
        "rename" if e.get("exchange").is_some() => {
            let from = self::path(e, "from");
            format!("exchange {} <-> {}", from.clone().min(path.clone()), from.max(path))
        }
        "rename" => format!("rename {} -> {path}", self::path(e, "from")),
        "write" => {
            let zero = if e.get("zero").is_some() { " zero" } else { "" };
            format!("write {path} {}+{}{zero}", e["offset"], e["length"])
        }
        "truncate" => format!("truncate {path} {}->{}", e["old"], e["new"]),
        "metadata" => metadata(e, &path),
        "volume" => format!("volume {}", e["what"].as_str().unwrap_or("?")),
        "gap" => format!("gap {}", e["reason"]),
        other => format!("{other} {path}"),
    }
}

fn path(e: &Value, key: &str) -> String {
    raw_bytes(e, key).unwrap().map(|p| show(&p)).unwrap_or_default()
}

fn create(e: &Value, path: &str) -> String {
    let mode = e["mode"].as_u64().unwrap_or(0);
    let mut line = format!("create {path} {} mode={mode:o} size={}", e["kind"].as_str().unwrap_or("?"), e["size"]);
    if let Some(target) = e.get("target") {
        line += &format!(" -> {}", target.as_str().unwrap_or("?"));
    }
    if let Some(rdev) = e.get("rdev") {
        line += &format!(" rdev={}:{}", rdev[0], rdev[1]);
    }
    line
}

fn metadata(e: &Value, path: &str) -> String {
    let field = e["field"].as_str().unwrap_or("?");
    let value = |key: &str| match (&e[key], field) {
        (Value::Null, _) => "none".to_owned(),
        (Value::String(s), _) => s.clone(),
        (v, "mode") => format!("{:o}", v.as_u64().unwrap_or(0)),
        (v, _) => v.to_string(),
    };
    match field {
        "mtime" | "atime" | "ctime" | "flags" => format!("metadata {path} {field}"),
        _ => format!("metadata {path} {field} {}->{}", value("old"), value("new")),
    }
}
