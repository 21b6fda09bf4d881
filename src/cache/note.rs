//! What a commit tells whoever watches the tenant: which entries are not what they
//! were. It does not know who watches.
//!
//! A note is stored for an hour at most: its format (1), its kind, the namespace and
//! what is meant in it, each behind its length. What a reader does not know may be
//! any change.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::store::{Action, MAX_NOTE_BYTES, Table, Write};

const FORMAT: u8 = 1;

/// Kinds of notes. Never change.
const BEGUN: u8 = 1;
const STANDS: u8 = 2;
const ENDED: u8 = 3;
const KEYS: u8 = 4;
const PREFIX: u8 = 5;
const TAGS: u8 = 6;
const NAMESPACE: u8 = 7;
const TENANT: u8 = 8;

/// Entries that are not what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// All of the tenant; or what happened is not known.
    Tenant,
    /// All of a namespace.
    Namespace(String),
    /// Those of a namespace whose keys begin so.
    Prefix(String, String),
    /// Those of a namespace that have any of these tags.
    Tags(String, Vec<String>),
    /// These of a namespace.
    Keys(String, Vec<String>),
}

/// A note in a tenant's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// From here on every change is noted; whether there were any before is not known.
    Begun,
    /// Changes are still noted.
    Stands,
    /// Changes are not noted any more.
    Ended,
    /// A change.
    Changed(Change),
}

impl Note {
    pub(super) fn encode(&self) -> Bytes {
        match self {
            Self::Begun => encode(BEGUN, "", []),
            Self::Stands => encode(STANDS, "", []),
            Self::Ended => encode(ENDED, "", []),
            Self::Changed(Change::Tenant) => tenant(),
            Self::Changed(Change::Namespace(of)) => namespace(of),
            Self::Changed(Change::Prefix(of, begin)) => prefix(of, begin),
            Self::Changed(Change::Tags(of, names)) => tags(of, names),
            Self::Changed(Change::Keys(of, keys)) => {
                encode(KEYS, of, keys.iter().map(String::as_bytes))
            }
        }
    }

    pub(super) fn decode(mut note: &[u8]) -> Self {
        parse(&mut note).unwrap_or(Self::Changed(Change::Tenant))
    }
}

/// That entries changed which these writes are on; nothing where they write none.
pub(super) fn entries(namespace: &str, writes: &[Write]) -> Option<Bytes> {
    let written = |write: &&Write| {
        write.key.table == Table::Entry && !matches!(write.action, Action::Nothing)
    };
    // The path of an entry is its namespace, a colon and its key.
    let key = |write: &'_ Write| {
        write
            .key
            .path
            .slice((namespace.len() + 1).min(write.key.path.len())..)
    };
    let keys: Vec<Bytes> = writes.iter().filter(written).map(key).collect();
    (!keys.is_empty()).then(|| encode(KEYS, namespace, keys.iter().map(|key| &key[..])))
}

/// That entries are gone whose keys begin so.
pub(super) fn prefix(of: &str, prefix: &str) -> Bytes {
    encode(PREFIX, of, [prefix.as_bytes()])
}

/// That entries are gone that have any of these tags.
pub(super) fn tags(of: &str, tags: &[String]) -> Bytes {
    encode(TAGS, of, tags.iter().map(String::as_bytes))
}

/// That all of a namespace is gone.
pub(super) fn namespace(of: &str) -> Bytes {
    encode(NAMESPACE, of, [])
}

/// That all of the tenant is gone.
pub(super) fn tenant() -> Bytes {
    encode(TENANT, "", [])
}

/// A note; where it would be too long, one of the whole namespace.
fn encode<'a>(kind: u8, of: &str, items: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut note = BytesMut::with_capacity(64);
    note.put_u8(FORMAT);
    note.put_u8(kind);
    put(&mut note, of.as_bytes());
    for item in items {
        if note.len() + 2 + item.len() > MAX_NOTE_BYTES {
            return namespace(of);
        }
        put(&mut note, item);
    }
    note.freeze()
}

fn put(note: &mut BytesMut, item: &[u8]) {
    note.put_u16(u16::try_from(item.len()).unwrap_or(u16::MAX));
    note.put_slice(item);
}

fn parse(note: &mut &[u8]) -> Option<Note> {
    let (format, kind) = (note.try_get_u8().ok()?, note.try_get_u8().ok()?);
    if format != FORMAT {
        return None;
    }
    let of = take(note)?;
    let mut items = Vec::new();
    while !note.is_empty() {
        items.push(take(note)?);
    }
    Some(match kind {
        BEGUN => Note::Begun,
        STANDS => Note::Stands,
        ENDED => Note::Ended,
        KEYS => Note::Changed(Change::Keys(of, items)),
        PREFIX => Note::Changed(Change::Prefix(of, items.into_iter().next()?)),
        TAGS => Note::Changed(Change::Tags(of, items)),
        NAMESPACE => Note::Changed(Change::Namespace(of)),
        _ => return None,
    })
}

fn take(note: &mut &[u8]) -> Option<String> {
    let length = usize::from(note.try_get_u16().ok()?);
    let (item, rest) = note.split_at_checked(length)?;
    *note = rest;
    String::from_utf8(item.to_vec()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{Check, Key};

    fn texts(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn a_note_comes_back_as_it_was() {
        for note in [
            Note::Begun,
            Note::Stands,
            Note::Ended,
            Note::Changed(Change::Tenant),
            Note::Changed(Change::Namespace("n".into())),
            Note::Changed(Change::Prefix("n".into(), "p:\u{e4}".into())),
            Note::Changed(Change::Tags("n".into(), texts(&["a", "b"]))),
            Note::Changed(Change::Keys("n".into(), texts(&["", "k", "a:b"]))),
        ] {
            assert_eq!(Note::decode(&note.encode()), note);
        }
    }

    #[test]
    fn writes_of_entries_name_their_keys() {
        let entry = |key: &str| Key::entry("n", key);
        let writes = [
            Write::put(entry("a:b"), "v"),
            Write::check(entry("looked at"), Check::Any),
            Write::delete(entry("c")),
            Write::put(Key::new(Table::Control, "other"), "v"),
        ];
        let note = entries("n", &writes).unwrap();
        let keys = Change::Keys("n".into(), texts(&["a:b", "c"]));
        assert_eq!(Note::decode(&note), Note::Changed(keys));
        assert_eq!(entries("n", &writes[1..2]), None);
    }

    #[test]
    fn what_would_be_too_long_means_the_namespace() {
        let key = |number: usize| Write::delete(Key::entry("n", &format!("{number:0100}")));
        let fits: Vec<Write> = (0..40).map(key).collect();
        let note = entries("n", &fits).unwrap();
        assert!(note.len() <= MAX_NOTE_BYTES);
        assert!(matches!(
            Note::decode(&note),
            Note::Changed(Change::Keys(..))
        ));
        let too_many: Vec<Write> = (0..41).map(key).collect();
        let note = entries("n", &too_many).unwrap();
        let whole = Note::Changed(Change::Namespace("n".into()));
        assert_eq!(Note::decode(&note), whole);
        // A key alone always fits.
        let long = [Write::delete(Key::entry(
            &"n".repeat(64),
            &"k".repeat(1024),
        ))];
        let note = Note::decode(&entries(&"n".repeat(64), &long).unwrap());
        assert!(matches!(note, Note::Changed(Change::Keys(..))));
    }

    #[test]
    fn what_is_not_known_may_be_any_change() {
        let known = Note::Changed(Change::Keys("n".into(), texts(&["k"]))).encode();
        let mut newer = known.to_vec();
        newer[0] = 2;
        let mut other = known.to_vec();
        other[1] = 99;
        for note in [&b""[..], b"\x01", &newer, &other, &known[..known.len() - 1]] {
            assert_eq!(
                Note::decode(note),
                Note::Changed(Change::Tenant),
                "{note:?}"
            );
        }
    }
}
