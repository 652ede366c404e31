//! Events and messages as lines: JSON, or text for people. What a guest chose reaches a terminal
//! escaped, in either form.

use bson::{Bson, Document};
use serde_json::{Value, json};

use crate::name::{base64, escape, hex, one_line};

/// How lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As it was sent.
    Json,
    /// The same, for a terminal.
    SafeJson,
    /// For people.
    Pretty,
}

/// The exact bytes of a path in an event.
pub fn path_of(event: &Value, key: &str) -> Option<Vec<u8>> {
    let exact = event.get(format!("{key}_hex")).and_then(Value::as_str).and_then(unhex);
    exact.or_else(|| Some(event.get(key)?.as_str()?.as_bytes().to_vec()))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pair = |p: &[u8]| match p {
        [a, b] => Some(digit(*a)? << 4 | digit(*b)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// A line for an event of a stream.
pub fn event(form: Form, text: &[u8], event: &Value) -> String {
    match form {
        Form::Json => String::from_utf8_lossy(text).into_owned(),
        Form::SafeJson => safe(&String::from_utf8_lossy(text)),
        Form::Pretty => pretty(event),
    }
}

/// JSON in which what could deceive a terminal is `\u…`: in JSON such characters can only stand in
/// strings.
fn safe(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if one_line(c.encode_utf8(&mut [0; 4])).chars().count() == 1 {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

fn pretty(e: &Value) -> String {
    let text = |key: &str| one_line(e.get(key).and_then(Value::as_str).unwrap_or(""));
    let time = text("time");
    let shown = |key: &str| path_of(e, key).map(|p| escape(&p)).unwrap_or_default();
    let kind = text("type");
    let detail = match kind.as_str() {
        "rename" if e.get("exchange").is_some() => format!("<-> {}", shown("from")),
        "rename" => format!("from {}", shown("from")),
        "create" => format!("{}, mode {:o}, {} bytes", text("kind"), number(e, "mode"), number(e, "size")),
        "write" => format!("{} bytes at {}", number(e, "length"), number(e, "offset")),
        "truncate" => format!("{} -> {} bytes", number(e, "old"), number(e, "new")),
        "metadata" => format!("{} {} -> {}", text("field"), value(e, "old"), value(e, "new")),
        "volume" => format!("{} {}", text("volume"), text("what")),
        "gap" => text("reason"),
        _ => String::new(),
    };
    let time = time.get(..23).unwrap_or(&time).replace('T', " ");
    format!("{time} {} {kind:<8} {}  {detail}", text("vm"), shown("path")).trim_end().to_owned()
}

fn number(e: &Value, key: &str) -> u64 {
    e.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn value(e: &Value, key: &str) -> String {
    match e.get(key) {
        None | Some(Value::Null) => "none".into(),
        Some(v) if e.get("field").and_then(Value::as_str) == Some("mode") => format!("{:o}", v.as_u64().unwrap_or(0)),
        Some(Value::String(s)) => one_line(s),
        Some(v) => v.to_string(),
    }
}

/// A line for a message of 2013.
pub fn message(form: Form, channel: &[u8], document: &[u8]) -> Option<String> {
    let document = Document::from_reader(document).ok()?;
    if form == Form::Pretty {
        let fields: Vec<_> = document.iter().map(|(k, v)| format!("{}={}", one_line(k), brief(v))).collect();
        return Some(format!("{}  {}", escape(channel), fields.join(" ")));
    }
    let mut all = serde_json::Map::new();
    all.insert("channel".into(), String::from_utf8_lossy(channel).into());
    if std::str::from_utf8(channel).is_err() {
        all.insert("channel_hex".into(), hex(channel).into());
    }
    all.extend(document.iter().map(|(k, v)| (k.clone(), json_of(v))));
    let text = Value::Object(all).to_string();
    Some(if form == Form::SafeJson { safe(&text) } else { text })
}

fn json_of(v: &Bson) -> Value {
    match v {
        Bson::String(s) => json!(s),
        Bson::Int32(n) => json!(n),
        Bson::Int64(n) => json!(n),
        Bson::Boolean(b) => json!(b),
        Bson::Binary(b) => json!(base64(&b.bytes)),
        other => json!(other.to_string()),
    }
}

fn brief(v: &Bson) -> String {
    match v {
        Bson::String(s) => escape(s.as_bytes()),
        Bson::Binary(b) => format!("{} bytes", b.bytes.len()),
        other => one_line(&json_of(other).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_deceives_a_terminal() {
        let odd = "a\u{202e}b\u{1b}[2J";
        let e = json!({"seq": 1, "time": "2026-11-23T03:23:32.140135575Z", "vm": odd, "type": "rename", "path": odd, "from": odd});
        let text = e.to_string();
        for form in [Form::SafeJson, Form::Pretty] {
            let line = event(form, text.as_bytes(), &e);
            assert_eq!(line, one_line(&line), "{form:?}");
        }
        let read: Value = serde_json::from_str(&event(Form::SafeJson, text.as_bytes(), &e)).unwrap();
        assert_eq!(read, e);
    }

    #[test]
    fn messages_are_lines() {
        let d = bson::doc! { "type": "data", "start": 5i64, "write": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1, 2] } };
        let mut bytes = Vec::new();
        d.to_writer(&mut bytes).unwrap();
        let line = |form| message(form, b"h:v:/a\n", &bytes).unwrap();
        assert_eq!(line(Form::Pretty), r"h:v:/a\n  type=data start=5 write=2 bytes");
        assert_eq!(line(Form::Json), r#"{"channel":"h:v:/a\n","start":5,"type":"data","write":"AQI="}"#);
        assert_eq!(message(Form::Json, b"x", b"junk"), None);
    }
}
