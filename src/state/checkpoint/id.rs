//! The ids of checkpoints, and the names of their objects: whatever comes in is
//! parsed before it becomes a path. It does not know where the objects lie.

use std::fmt;

use crate::{random::BASE32, store::Incarnation};

/// The id of a checkpoint: when it was begun, in UTC, and 40 random bits, such as
/// `20261125t213059-4b0c9dqv`. Ids sort as their times do.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckpointId(Box<str>);

/// What an id looks like, for people.
pub const PATTERN: &str = "^[0-9]{8}t[0-9]{6}-[0-9a-v]{8}$";

impl CheckpointId {
    /// Characters of an id.
    pub const CHARS: usize = 24;

    /// A new id of this moment, in milliseconds since 1970.
    pub fn new(at_ms: u64) -> Self {
        let at = i64::try_from(at_ms).ok();
        let at = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let time = at.unwrap_or_default().strftime("%Y%m%dt%H%M%S");
        let drawn = BASE32.encode(&crate::random::bytes::<5>());
        Self(format!("{time}-{drawn}").into())
    }

    /// Reads an id.
    ///
    /// # Errors
    /// [`NotAnId`] for whatever [`CheckpointId::new`] cannot have made.
    pub fn parse(text: &str) -> Result<Self, NotAnId> {
        let fits = |(at, c): (usize, u8)| match at {
            8 => c == b't',
            15 => c == b'-',
            0..15 => c.is_ascii_digit(),
            _ => matches!(c, b'0'..=b'9' | b'a'..=b'v'),
        };
        let is_id = text.len() == Self::CHARS && text.bytes().enumerate().all(fits);
        if is_id {
            Ok(Self(text.into()))
        } else {
            Err(NotAnId)
        }
    }

    /// When it was begun, to the second, in milliseconds since 1970; `None` for a time
    /// that no calendar has.
    pub fn begun_ms(&self) -> Option<u64> {
        let (time, _) = self.0.split_once('-')?;
        let at = jiff::civil::DateTime::strptime("%Y%m%dt%H%M%S", time).ok()?;
        let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        u64::try_from(at.timestamp().as_millisecond()).ok()
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no id of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a checkpoint, which looks like 20261125t213059-4b0c9dqv")]
pub struct NotAnId;

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose something in a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// Of the whole store.
    Store,
    /// Of this life of a tenant.
    Tenant(Incarnation),
}

impl Owner {
    /// Bytes that say who it is; all zero for the store, which no tenant's are: they
    /// are drawn at random, and that draw is not looked for.
    pub fn as_bytes(&self) -> [u8; 10] {
        match self {
            Self::Store => [0; 10],
            Self::Tenant(incarnation) => *incarnation.as_bytes(),
        }
    }

    pub(super) fn of_bytes(bytes: [u8; 10]) -> Option<Self> {
        if bytes == [0; 10] {
            return Some(Self::Store);
        }
        Incarnation::parse(&BASE32.encode(&bytes)).map(Self::Tenant)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("store"),
            Self::Tenant(incarnation) => incarnation.fmt(f),
        }
    }
}

/// An object of a checkpoint; its text is the object's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// `manifest.json`: what makes it a checkpoint. Written last.
    Manifest,
    /// `index`: what it holds of each tenant, and where.
    Index,
    /// `chunk-000000` and so on: the records.
    Chunk(u32),
    /// `key-store`, `key-<incarnation>`: what opens an owner's records.
    Key(Owner),
}

impl Part {
    /// Reads a name; `None` for one that no part has.
    pub fn parse(name: &str) -> Option<Self> {
        let part = match name {
            "manifest.json" => Self::Manifest,
            "index" => Self::Index,
            "key-store" => Self::Key(Owner::Store),
            _ => match name.split_once('-')? {
                ("chunk", number) => Self::Chunk(number.parse().ok()?),
                ("key", incarnation) => Self::Key(Owner::Tenant(Incarnation::parse(incarnation)?)),
                _ => return None,
            },
        };
        // One name a part, so that nothing can be said in two ways.
        (part.to_string() == name).then_some(part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => f.write_str("manifest.json"),
            Self::Index => f.write_str("index"),
            Self::Chunk(number) => write!(f, "chunk-{number:06}"),
            Self::Key(owner) => write!(f, "key-{owner}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_tell_their_time_and_sort_by_it() {
        let id = CheckpointId::new(1_795_642_259_123);
        assert!(id.as_str().starts_with("20261125t213059-"), "{id}");
        assert_eq!(CheckpointId::parse(id.as_str()).unwrap(), id);
        assert!(id < CheckpointId::new(1_795_642_260_000));
        assert_eq!(id.begun_ms(), Some(1_795_642_259_000));
        let never = CheckpointId::parse("20269999t999999-00000000").unwrap();
        assert_eq!(never.begun_ms(), None);
        assert_ne!(id, CheckpointId::new(1_795_642_259_123));
    }

    #[test]
    fn nothing_else_is_an_id() {
        for text in [
            "",
            "../x",
            "../../20261125t213059-4b0c9dqv",
            "20261125t213059-4b0c9dq/",
            "20261125t213059-4b0c9dq.",
            "20261125t213059-4b0c9dqw",
            "20261125T213059-4b0c9dqv",
            "20261125t213059-4b0c9dqv ",
            "20261125t213059_4b0c9dqv",
            "2026112\u{661}t213059-4b0c9dv",
            "20261125t213059-4b0c9d\0v",
            "%2e%2e%2f1t213059-4b0c9d",
        ] {
            assert_eq!(CheckpointId::parse(text), Err(NotAnId), "{text:?}");
        }
    }

    #[test]
    fn each_part_has_one_name() {
        let life = Owner::Tenant(Incarnation::parse("0123456789abcdef").unwrap());
        for (part, name) in [
            (Part::Manifest, "manifest.json"),
            (Part::Index, "index"),
            (Part::Chunk(0), "chunk-000000"),
            (Part::Chunk(12_345_678), "chunk-12345678"),
            (Part::Key(Owner::Store), "key-store"),
            (Part::Key(life), "key-0123456789abcdef"),
        ] {
            assert_eq!(part.to_string(), name);
            assert_eq!(Part::parse(name), Some(part));
        }
        for name in [
            "chunk-1",
            "chunk-0000001",
            "chunk-+00001",
            "chunk-",
            "key-",
            "key-0123456789abcdeF",
            "key-../x",
            "manifest.json.1",
            ".probe-1",
        ] {
            assert_eq!(Part::parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_for_an_id_is_a_plain_name(text in ".{0,40}") {
            if let Ok(id) = CheckpointId::parse(&text) {
                prop_assert!(id.as_str().bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-'));
            }
        }
    }
}
