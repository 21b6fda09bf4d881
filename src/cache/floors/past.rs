//! Floors beneath which nothing is left, so that they hide no entry any more. They
//! are remembered for as long as a lease can be held that is older: it would else
//! hold again, although its entry was invalidated since. It does not know of leases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FLOOR_BYTES, MAX_FLOORS, MAX_TEXT_BYTES, Marks};
use crate::cache::LEASE_MS;

/// How long an era takes floors, and how long it is remembered after that.
const ERA_MS: u64 = *LEASE_MS.end();

/// The eras that are remembered, at most three; the last one takes what is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past(Vec<Era>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Era {
    since_ms: u64,
    /// One that stands for all of them, where they would be too many.
    all: u64,
    namespaces: BTreeMap<Box<str>, Marks>,
}

impl Past {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Remembers floors that are dropped at this time, and forgets what is over.
    pub(super) fn remember(&mut self, dropped: BTreeMap<Box<str>, Marks>, now_ms: u64) {
        self.0.retain(|era| now_ms < era.since_ms + 2 * ERA_MS);
        if dropped.is_empty() {
            return;
        }
        let taking = self.0.last().map(|era| era.since_ms + ERA_MS);
        if taking.is_none_or(|until| until <= now_ms) {
            self.0.push(Era {
                since_ms: now_ms,
                ..Era::default()
            });
        }
        let Some(era) = self.0.last_mut() else {
            return;
        };
        for (namespace, marks) in dropped {
            era.namespaces.entry(namespace).or_default().join(marks);
        }
        era.bound();
    }

    /// Makes ready what was read.
    pub(super) fn measure(&mut self) {
        let eras = self.0.iter_mut();
        eras.flat_map(|era| era.namespaces.values_mut())
            .for_each(Marks::measure);
    }

    /// The version up to which they hid an entry of this key and these tags.
    pub(super) fn above(&self, namespace: &str, key: &[u8], tags: &[impl AsRef<str>]) -> u64 {
        let above = |era: &Era| {
            let marks = era.namespaces.get(namespace);
            let above = marks.map_or(0, |marks| marks.above(key).max(marks.tags_above(tags)));
            above.max(era.all)
        };
        self.0.iter().map(above).max().unwrap_or(0)
    }

    /// Bytes they take in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|era| era.size().1).sum()
    }
}

impl Era {
    /// How many floors it has, and about the bytes that they take.
    fn size(&self) -> (usize, usize) {
        let (mut floors, mut bytes) = (0, 0);
        for (namespace, marks) in &self.namespaces {
            let texts = marks.prefixes.keys().chain(marks.tags.keys());
            let texts = texts.chain([namespace]);
            for text in texts {
                floors += 1;
                bytes += FLOOR_BYTES + text.len();
            }
        }
        (floors, bytes)
    }

    /// Keeps it as small as what hides entries. Beyond that more leases end than
    /// would have to, and nothing else does.
    fn bound(&mut self) {
        let (floors, bytes) = self.size();
        if floors > MAX_FLOORS || bytes > MAX_TEXT_BYTES {
            let all = self.namespaces.values_mut().flat_map(Marks::floors_mut);
            self.all = all.map(|floor| *floor).fold(self.all, u64::max);
            self.namespaces.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::NO_TAGS, *};

    fn dropped(namespace: &str, prefix: &str, version: u64) -> BTreeMap<Box<str>, Marks> {
        let mut marks = Marks::default();
        marks.prefixes.insert(prefix.into(), version);
        marks.tags.insert("t".into(), version);
        marks.measure();
        [(namespace.into(), marks)].into()
    }

    #[test]
    fn dropped_floors_are_remembered_for_as_long_as_a_lease_is_held() {
        let mut past = Past::default();
        past.remember(dropped("a", "p", 5), 1_000);
        past.remember(dropped("a", "q", 9), 60_999);
        assert_eq!(past.0.len(), 1);
        past.remember(dropped("b", "p", 7), 61_000);
        assert_eq!(past.0.len(), 2);
        for (namespace, key, tags, above) in [
            ("a", "px", &[][..], 5),
            ("a", "q", &[], 9),
            ("a", "r", &[], 0),
            ("a", "r", &["s", "t"], 9),
            ("b", "p", &[], 7),
            ("c", "p", &["t"], 0),
        ] {
            let found = past.above(namespace, key.as_bytes(), tags);
            assert_eq!(found, above, "{namespace} {key} {tags:?}");
        }
        past.remember(BTreeMap::new(), 120_999);
        assert_eq!(past.above("a", b"q", NO_TAGS), 9, "dropped 60 s ago");
        past.remember(BTreeMap::new(), 121_000);
        assert_eq!(past.above("a", b"q", NO_TAGS), 0);
        assert_eq!(past.above("b", b"p", NO_TAGS), 7);
        past.remember(BTreeMap::new(), 181_000);
        assert!(past.is_empty());
    }

    #[test]
    fn very_many_are_remembered_as_one() {
        let mut past = Past::default();
        for version in 1..=MAX_FLOORS as u64 {
            past.remember(dropped("a", &format!("p{version}"), version), 1);
        }
        let above = |past: &Past, key: &[u8]| past.above("other", key, NO_TAGS);
        assert_eq!(past.0.len(), 1);
        assert!(above(&past, b"k") > 0, "more than may be, with the tag");
        assert!(past.bytes() <= MAX_TEXT_BYTES);
    }
}
