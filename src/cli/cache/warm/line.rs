//! A line of what is to be warm: JSON that names an entry or a key to pull. It
//! does not know what the other lines say.

use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Map, Value};

use crate::{
    config,
    proto::v1::{Limits, SetEntry},
};

/// What a line may be, for those whose line is something else.
pub(super) const ALLOWED: &str = "{\"key\": \"...\", \"value\": \"...\"} or {\"pull\": \"...\"}";

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    /// To store an entry.
    Entry(SetEntry),
    /// To pull an entry near.
    Pull(String),
}

/// What the server takes.
#[derive(Clone, Debug)]
pub(super) struct Allowed {
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
    pub(super) batch_items: usize,
    pub(super) message_bytes: usize,
    pub(super) tags: usize,
    pub(super) tag_bytes: usize,
    pub(super) max_ttl: Duration,
}

impl Allowed {
    pub(super) fn of(limits: &Limits) -> Self {
        // What a server does not limit it will refuse by itself.
        let size = |limit: i64| match usize::try_from(limit) {
            Ok(limit) if limit > 0 => limit,
            _ => usize::MAX,
        };
        let max_ttl = limits.max_ttl.and_then(|ttl| Duration::try_from(ttl).ok());
        Self {
            key_bytes: size(limits.key_bytes),
            value_bytes: size(limits.value_bytes),
            batch_items: size(limits.batch_items),
            message_bytes: size(limits.message_bytes),
            tags: size(limits.tags),
            tag_bytes: size(limits.tag_bytes),
            max_ttl: max_ttl.unwrap_or(Duration::MAX),
        }
    }

    /// The longest line that can be in order: JSON may write each byte of a value
    /// in six.
    pub(super) fn line_bytes(&self) -> usize {
        self.message_bytes.saturating_mul(6)
    }
}

/// What a line asks for; `None` for a blank one.
///
/// # Errors
/// All that is wrong with it, and what is allowed.
pub(super) fn read(line: &[u8], allowed: &Allowed) -> Result<Option<Item>, Vec<String>> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let fields = match serde_json::from_slice(line) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(vec![format!("not a JSON object; allowed is {ALLOWED}")]),
        Err(error) => {
            // The line within the line is always the first.
            let error = error.to_string().replace(" at line 1 column ", " at byte ");
            return Err(vec![format!("not JSON: {error}; allowed is {ALLOWED}")]);
        }
    };
    let mut line = Fields {
        fields,
        allowed,
        problems: Vec::new(),
    };
    let item = if line.fields.contains_key("pull") {
        line.pull()
    } else {
        line.entry()
    };
    line.rest(&item);
    if line.problems.is_empty() {
        Ok(Some(item))
    } else {
        Err(line.problems)
    }
}

struct Fields<'a> {
    fields: Map<String, Value>,
    allowed: &'a Allowed,
    problems: Vec<String>,
}

impl Fields<'_> {
    fn pull(&mut self) -> Item {
        Item::Pull(self.key("pull"))
    }

    fn entry(&mut self) -> Item {
        Item::Entry(SetEntry {
            key: self.key("key"),
            value: self.value().into(),
            ttl: self.ttl(),
            content_type: self.text("content_type").unwrap_or_default(),
            tags: self.tags(),
            ..SetEntry::default()
        })
    }

    fn problem(&mut self, field: &str, what: impl AsRef<str>) {
        self.problems.push(format!("{field}: {}", what.as_ref()));
    }

    /// A text that is there.
    fn text(&mut self, field: &str) -> Option<String> {
        match self.fields.remove(field)? {
            Value::String(text) => Some(text),
            other => {
                self.problem(field, format!("{}, a text is allowed", kind(&other)));
                None
            }
        }
    }

    fn key(&mut self, field: &str) -> String {
        let limit = self.allowed.key_bytes;
        let there = self.fields.contains_key(field);
        let key = self.text(field);
        match &key {
            Some(key) if key.is_empty() || key.len() > limit => {
                let what = format!("{} bytes, 1 to {limit} are allowed", key.len());
                self.problem(field, what);
            }
            None if !there => self.problem(field, format!("missing; allowed is {ALLOWED}")),
            _ => {}
        }
        key.unwrap_or_default()
    }

    fn value(&mut self) -> Vec<u8> {
        let one = "one of value (a text) and value_base64 is allowed";
        let named = ["value", "value_base64"].map(|field| self.fields.contains_key(field));
        let value = match named {
            [true, false] => self.text("value").map(String::into_bytes),
            [false, true] => self.text("value_base64").and_then(|text| {
                let value = BASE64.decode(text.as_bytes());
                if let Err(error) = &value {
                    self.problem("value_base64", format!("{error}; base64 is allowed"));
                }
                value.ok()
            }),
            [true, true] => {
                self.fields.remove("value");
                self.fields.remove("value_base64");
                self.problem("value", format!("given twice, {one}"));
                None
            }
            [false, false] => {
                self.problem("value", format!("missing, {one}"));
                None
            }
        };
        let value = value.unwrap_or_default();
        let limit = self.allowed.value_bytes;
        if value.len() > limit {
            let what = format!("{} bytes, at most {limit} are allowed", value.len());
            self.problem("value", what);
        }
        value
    }

    fn ttl(&mut self) -> Option<prost_types::Duration> {
        let text = self.text("ttl")?;
        let most = self.allowed.max_ttl;
        let ttl = config::read_duration(&text)
            .filter(|ttl| (Duration::from_millis(1)..=most).contains(ttl));
        let ttl = ttl.and_then(|ttl| ttl.try_into().ok());
        if ttl.is_none() {
            let what = format!(
                "{text:?}; a time with its unit from 1ms to {}s is allowed, such as 500ms, 30s, 12h, 7d",
                most.as_secs()
            );
            self.problem("ttl", what);
        }
        ttl
    }

    fn tags(&mut self) -> Vec<String> {
        let Some(tags) = self.fields.remove("tags") else {
            return Vec::new();
        };
        let (most, bytes) = (self.allowed.tags, self.allowed.tag_bytes);
        let tag = |tag: &Value| {
            let tag = tag.as_str()?;
            (1..=bytes).contains(&tag.len()).then(|| tag.to_owned())
        };
        let found: Option<Vec<_>> = tags
            .as_array()
            .filter(|tags| tags.len() <= most)
            .and_then(|tags| tags.iter().map(tag).collect());
        if found.is_none() {
            let what = format!("a list of up to {most} texts of 1 to {bytes} bytes is allowed");
            self.problem("tags", what);
        }
        found.unwrap_or_default()
    }

    /// What is left is no field of such a line.
    fn rest(&mut self, item: &Item) {
        let allowed = match item {
            Item::Entry(_) => "key, value, value_base64, ttl, content_type and tags",
            Item::Pull(_) => "pull, alone,",
        };
        for field in std::mem::take(&mut self.fields).keys() {
            self.problem(field, format!("not a field of such a line; {allowed} are"));
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn allowed() -> Allowed {
        Allowed::of(&Limits {
            key_bytes: 8,
            value_bytes: 10,
            batch_items: 1000,
            message_bytes: 100,
            tags: 2,
            tag_bytes: 4,
            max_ttl: Some(prost_types::Duration {
                seconds: 3600,
                nanos: 0,
            }),
            ..Limits::default()
        })
    }

    fn line(text: &str) -> Result<Option<Item>, Vec<String>> {
        read(text.as_bytes(), &allowed())
    }

    #[test]
    fn a_line_is_an_entry_a_key_or_nothing() {
        let entry = SetEntry {
            key: "k".into(),
            value: "v\n".into(),
            ttl: Some(prost_types::Duration {
                seconds: 600,
                nanos: 0,
            }),
            content_type: "t/x".into(),
            tags: vec!["a".into(), "b".into()],
            ..SetEntry::default()
        };
        let text = r#"{"key":"k","value":"v\n","ttl":"10m","content_type":"t/x","tags":["a","b"]}"#;
        assert_eq!(line(text), Ok(Some(Item::Entry(entry))));
        let bytes = SetEntry {
            key: "k".into(),
            value: vec![0, 255].into(),
            ..SetEntry::default()
        };
        let text = r#" { "value_base64": "AP8=", "key": "k" } "#;
        assert_eq!(line(text), Ok(Some(Item::Entry(bytes))));
        assert_eq!(line(r#"{"pull":"p"}"#), Ok(Some(Item::Pull("p".into()))));
        assert_eq!(line(" \r"), Ok(None));
    }

    #[test]
    fn all_that_is_wrong_is_told_with_what_is_allowed() {
        for (text, problems) in [
            ("nonsense", &["not JSON: "][..]),
            ("{\"key\": \"k\"", &["not JSON: "]),
            ("[1]", &["not a JSON object; allowed is {"]),
            (
                "{}",
                &["key: missing; allowed is {", "value: missing, one of"],
            ),
            (
                r#"{"key":"123456789","value":"12345678901"}"#,
                &["key: 9 bytes, 1 to 8", "value: 11 bytes, at most 10"],
            ),
            (
                r#"{"key":7,"value":null,"content_type":[],"tags":"t","ttl":5}"#,
                &[
                    "key: a number, a text is",
                    "value: null, a text is",
                    "ttl: a number, a text is",
                    "content_type: a list, a text is",
                    "tags: a list of up to 2 texts of 1 to 4 bytes is",
                ],
            ),
            (
                r#"{"key":"k","value":"v","value_base64":"AA==","keys":1}"#,
                &["value: given twice, one of", "keys: not a field of such"],
            ),
            (r#"{"key":"k","value_base64":"AA="}"#, &["value_base64: "]),
            (
                r#"{"key":"k","value":"v","ttl":"10"}"#,
                &["ttl: \"10\"; a time with its unit from 1ms to 3600s is"],
            ),
            (r#"{"key":"k","value":"v","ttl":"2h"}"#, &["ttl: \"2h\"; "]),
            (r#"{"key":"k","value":"v","ttl":"0s"}"#, &["ttl: \"0s\"; "]),
            (
                r#"{"key":"k","value":"v","tags":["a","b","c"]}"#,
                &["tags: "],
            ),
            (r#"{"key":"k","value":"v","tags":["abcde"]}"#, &["tags: "]),
            (r#"{"pull":""}"#, &["pull: 0 bytes, 1 to 8"]),
            (
                r#"{"pull":"k","key":"k"}"#,
                &["key: not a field of such a line; pull, alone,"],
            ),
        ] {
            let found = line(text).unwrap_err();
            assert_eq!(found.len(), problems.len(), "{text}: {found:?}");
            for (found, begins) in found.iter().zip(problems) {
                assert!(found.starts_with(begins), "{text}: {found}");
            }
        }
        assert!(read(b"{\"key\":\"\xff\",\"value\":\"\"}", &allowed()).is_err());
    }
}
