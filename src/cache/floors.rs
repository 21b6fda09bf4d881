//! The versions up to which entries of a tenant are gone: of a namespace, of keys
//! that begin alike, of a tag. They lie in one control record, so that however many
//! entries disappear, one small write makes them. It does not know which entries
//! there are.
//!
//! # Bounds
//!
//! Every snapshot holds all floors, so there are at most [`MAX_FLOORS`] of each kind,
//! and [`MAX_TEXT_BYTES`] of prefixes and as many of tags. Where that would be
//! passed, those of the namespace that has most become one that hides more: its tags
//! that of everything tagged, its prefixes that of the namespace.

mod marks;
mod past;
mod record;

use std::collections::BTreeMap;

use bytes::Bytes;

use self::{marks::Marks, past::Past};
use super::note;
use crate::{
    codec::frame,
    error::Result,
    store::{Check, Key, Record, Table},
};

/// Floors of each kind that a tenant may have.
pub(super) const MAX_FLOORS: usize = 1000;

/// Bytes of the prefixes, and of the tags, that a tenant may have floors of.
const MAX_TEXT_BYTES: usize = 128 << 10;

/// How long a record trusts that the job it was written with is still there. It is,
/// unless the store lost it: the job lies in another space than the record.
const TRUST_MS: u64 = 600_000;

/// About what a floor takes in memory beside its text.
const FLOOR_BYTES: usize = 96;

/// The version that the record is about to get: above all that is written.
const NEXT: u64 = u64::MAX;

pub(super) const NO_TAGS: &[&str] = &[];

/// What is to disappear from a namespace.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// Everything.
    All,
    /// Keys that begin so.
    Prefix(&'a str),
    /// Entries that have any of these tags.
    Tags(&'a [String]),
}

/// The floors of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Floors {
    /// The version of the record that holds them; `None` where there is none.
    version: Option<u64>,
    /// When a job was last left that removes what they hide; 0 where none was.
    job_ms: u64,
    /// Until when every change is noted, because somebody watches the tenant; `None`
    /// where nobody does. It stands here since every writer must know of it.
    pub(super) watched_until_ms: Option<u64>,
    namespaces: BTreeMap<Box<str>, Marks>,
    /// Those that were dropped of late.
    past: Past,
}

impl Target<'_> {
    /// What is told to whoever watches.
    pub(super) fn note(&self, namespace: &str) -> Bytes {
        match self {
            Self::All => note::namespace(namespace),
            Self::Prefix(prefix) => note::prefix(namespace, prefix),
            Self::Tags(tags) => note::tags(namespace, tags),
        }
    }
}

impl Floors {
    /// The name of the control record that keeps them. Whatever hides entries, or
    /// brings a new generation, writes it in the same commit, so that whoever watches
    /// it learns of that.
    pub(super) const NAME: &'static [u8] = b"floors";

    /// The control record that keeps them.
    pub(super) fn key() -> Key {
        Key::new(Table::Control, Self::NAME)
    }

    /// Notes the version that their record has got.
    pub(super) fn settle(&mut self, version: u64) {
        self.version = Some(version);
        for marks in self.namespaces.values_mut() {
            for floor in marks.floors_mut().filter(|floor| **floor == NEXT) {
                *floor = version;
            }
            marks.measure();
        }
    }

    /// What is left of them when all entries are gone.
    pub(super) fn emptied(&self) -> Self {
        Self {
            watched_until_ms: self.watched_until_ms,
            ..Self::default()
        }
    }

    /// What a commit that relies on them tells whoever watches; nothing where nobody
    /// does.
    pub(super) fn note<T>(&self, note: impl FnOnce() -> T) -> Option<T> {
        self.watched_until_ms.map(|_| note())
    }

    /// What must hold of their record where these are written over it.
    pub(super) fn unchanged(&self) -> Check {
        self.version.map_or(Check::Absent, Check::Version)
    }

    /// The last version that any of them hides, and that of their record.
    pub(super) fn version(&self) -> u64 {
        self.version.unwrap_or(0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// Whether a job is there, by all that is known, that removes what they hide.
    pub(super) fn have_job(&self, now_ms: u64) -> bool {
        !self.is_empty() && now_ms < self.job_ms.saturating_add(TRUST_MS)
    }

    /// Notes that such a job was left.
    pub(super) fn left_job(&mut self, now_ms: u64) {
        self.job_ms = now_ms;
    }

    /// Bytes they take in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let text = |text: &str| FLOOR_BYTES + text.len();
        let held = self.namespaces.iter().map(|(namespace, marks)| {
            let texts = marks.prefixes.keys().chain(marks.tags.keys());
            2 * text(namespace) + texts.map(|t| text(t)).sum::<usize>()
        });
        held.sum::<usize>() + self.past.bytes()
    }

    /// Whether an entry is gone. Costs nothing where nothing was invalidated.
    pub(super) fn hide(
        &self,
        namespace: &str,
        key: &[u8],
        tags: &[impl AsRef<str>],
        version: u64,
    ) -> bool {
        self.of(namespace)
            .is_some_and(|marks| version <= marks.above(key) || version <= marks.tags_above(tags))
    }

    /// Whether whatever the others hide is hidden by these, too; false where that
    /// cannot be told floor by floor.
    pub(super) fn cover(&self, others: &Self) -> bool {
        let none = Marks::default();
        let mut others = others.namespaces.iter();
        others.all(|(namespace, marks)| self.of(namespace).unwrap_or(&none).cover(marks))
    }

    /// Whether a stored entry is gone; its tags are only looked at where that
    /// matters, and the beginning of its frame will do. `None` where they cannot be
    /// told: the frame is cut off before, or of a later format.
    ///
    /// # Errors
    /// [`EntryCorrupt`](crate::error::Error::EntryCorrupt) where they cannot be read.
    pub(super) fn hide_record(
        &self,
        namespace: &str,
        key: &[u8],
        record: &Record,
    ) -> Result<Option<bool>> {
        if self.hide(namespace, key, NO_TAGS, record.version) {
            return Ok(Some(true));
        }
        if record.version > self.above_tagged(namespace) {
            return Ok(Some(false));
        }
        let tags = frame::tags(&record.value)?;
        Ok(tags.map(|tags| self.hide(namespace, key, &tags, record.version)))
    }

    /// The version up to which an entry of this key is gone, whatever its tags.
    pub(super) fn above(&self, namespace: &str, key: &[u8]) -> u64 {
        self.of(namespace).map_or(0, |marks| marks.above(key))
    }

    /// The version up to which an entry of the namespace may be gone for a tag.
    pub(super) fn above_tagged(&self, namespace: &str) -> u64 {
        self.of(namespace).map_or(0, |marks| marks.highest_tag)
    }

    /// The version up to which a lease is void of the refill of an entry that is to
    /// be set with these tags.
    pub(super) fn void(&self, namespace: &str, key: &[u8], tags: &[impl AsRef<str>]) -> u64 {
        let marks = self.of(namespace);
        let above = marks.map_or(0, |marks| marks.above(key).max(marks.tags_above(tags)));
        above.max(self.past.above(namespace, key, tags))
    }

    /// The beginning that all paths have that they hide something of.
    pub(super) fn beginning(&self) -> String {
        let mut all = self.namespaces.iter();
        let (Some((namespace, marks)), None) = (all.next(), all.next()) else {
            return String::new();
        };
        let mut prefixes = marks.prefixes.keys();
        match (prefixes.next(), prefixes.next()) {
            (Some(prefix), None) if marks.all == 0 && marks.highest_tag == 0 => {
                format!("{namespace}:{prefix}")
            }
            _ => format!("{namespace}:"),
        }
    }

    fn of(&self, namespace: &str) -> Option<&Marks> {
        if self.namespaces.is_empty() {
            return None;
        }
        self.namespaces.get(namespace)
    }

    /// Raises a floor to the version that the record is about to get. False where
    /// that would be more floors of namespaces than there may be.
    pub(super) fn raise(&mut self, namespace: &str, target: Target<'_>) -> bool {
        let marks = self.namespaces.entry(namespace.into()).or_default();
        match target {
            Target::All => marks.raise_all(),
            Target::Prefix(prefix) => {
                // Older ones of longer prefixes hide nothing that it does not.
                marks.prefixes.retain(|held, _| !held.starts_with(prefix));
                marks.prefixes.insert(prefix.into(), NEXT);
            }
            Target::Tags(tags) => {
                let tags = tags.iter().map(|tag| (tag.as_str().into(), NEXT));
                marks.tags.extend(tags);
            }
        }
        marks.measure();
        self.bound();
        self.whole_namespaces() <= MAX_FLOORS
    }

    /// How many namespaces have a floor of their own.
    pub(super) fn whole_namespaces(&self) -> usize {
        self.namespaces.values().filter(|m| m.all > 0).count()
    }

    /// Drops all that hide nothing above this version, at this time.
    pub(super) fn drop_through(&mut self, version: u64, now_ms: u64) {
        let mut dropped = BTreeMap::new();
        self.namespaces.retain(|namespace, marks| {
            dropped.insert(namespace.clone(), marks.split_off(version));
            *marks != Marks::default()
        });
        dropped.retain(|_, marks| *marks != Marks::default());
        self.past.remember(dropped, now_ms);
    }

    /// Keeps the bounds. What takes the place of others hides up to the version that
    /// is about to be, so that a floor of a lower version is as it was raised.
    fn bound(&mut self) {
        while self.exceed(|marks| &marks.tags, |marks| usize::from(marks.tagged > 0)) {
            let tags = |marks: &Marks| marks.tags.len() + usize::from(marks.tagged > 0);
            let Some(most) = self.namespaces.values_mut().max_by_key(|m| tags(m)) else {
                return;
            };
            if tags(most) > 1 {
                most.tags.clear();
                most.tagged = NEXT;
            } else {
                most.raise_all();
            }
        }
        while self.exceed(|marks| &marks.prefixes, |_| 0) {
            let prefixes = |marks: &&mut Marks| (marks.prefixes.len(), marks.all > 0);
            match self.namespaces.values_mut().max_by_key(prefixes) {
                Some(most) => most.raise_all(),
                None => return,
            }
        }
    }

    fn exceed(
        &self,
        texts: impl Fn(&Marks) -> &BTreeMap<Box<str>, u64>,
        others: impl Fn(&Marks) -> usize,
    ) -> bool {
        let (mut floors, mut bytes) = (0, 0);
        for marks in self.namespaces.values() {
            floors += texts(marks).len() + others(marks);
            bytes += texts(marks).keys().map(|text| text.len()).sum::<usize>();
        }
        floors > MAX_FLOORS || bytes > MAX_TEXT_BYTES
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use bytes::Bytes;
    use serde::Deserialize;

    use super::*;
    use crate::error::Error;

    /// As a commit at this version leaves them.
    fn raised(floors: &Floors, version: u64, namespace: &str, target: Target<'_>) -> Floors {
        let mut floors = floors.clone();
        assert!(floors.raise(namespace, target));
        let value = floors.encode().unwrap();
        floors.settle(version);
        if value.len() > 1000 {
            return floors;
        }
        let read = Floors::decode(Some(&record(version, value))).unwrap();
        assert_eq!(read, floors, "read as it was written");
        floors
    }

    fn record(version: u64, value: impl Into<Bytes>) -> Record {
        Record {
            version,
            expire_ms: None,
            value: value.into(),
        }
    }

    fn tags(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|&tag| tag.to_owned()).collect()
    }

    #[test]
    fn each_floor_hides_what_is_meant_and_no_more() {
        let floors = Floors::default();
        assert!(!floors.hide("a", b"k", NO_TAGS, 1));
        let floors = raised(&floors, 10, "a", Target::Prefix("user:\u{e9}"));
        let floors = raised(&floors, 20, "a", Target::Tags(&tags(&["x", "y"])));
        let floors = raised(&floors, 30, "b", Target::All);
        let key = "user:\u{e9}1".as_bytes();
        // namespace, key, tags, version -> gone
        for (namespace, key, tags, version, gone) in [
            ("a", key, &[][..], 9, true),
            ("a", key, &[], 10, true),
            ("a", key, &[], 11, false),
            ("a", "user:\u{e9}".as_bytes(), &[], 10, true),
            ("a", b"user:", &[], 10, false),
            ("a", b"user:\xc3", &[], 10, false),
            ("b", key, &[], 30, true),
            ("b", key, &[], 31, false),
            ("c", key, &["x"], 1, false),
            ("a", b"k", &["z", "y"], 20, true),
            ("a", b"k", &["z", "y"], 21, false),
            ("a", b"k", &["z"], 1, false),
            ("a", b"k", &[], 1, false),
        ] {
            let hidden = floors.hide(namespace, key, tags, version);
            assert_eq!(hidden, gone, "{namespace} {key:?} {tags:?} {version}");
        }
        assert_eq!(floors.above("a", key), 10);
        assert_eq!(
            (floors.above_tagged("a"), floors.above_tagged("b")),
            (20, 0)
        );
        assert_eq!(floors.beginning(), "");
    }

    #[test]
    fn floors_cover_those_that_hide_no_more() {
        let none = Floors::default();
        let all = raised(&none, 10, "a", Target::All);
        let prefix = raised(&none, 10, "a", Target::Prefix("user:"));
        let tag = raised(&none, 10, "a", Target::Tags(&tags(&["x"])));
        for (case, floors, others, cover) in [
            ("nothing", &none, &none, true),
            ("what is new", &all, &none, true),
            ("what is dropped", &none, &all, false),
            ("prefixes within all", &all, &prefix, true),
            ("tags within all", &all, &tag, true),
            ("all by prefixes", &prefix, &all, false),
            ("prefixes by tags", &tag, &prefix, false),
            ("tags by prefixes", &prefix, &tag, false),
            (
                "of another namespace",
                &raised(&none, 10, "b", Target::All),
                &all,
                false,
            ),
            (
                "an older one",
                &all,
                &raised(&none, 11, "a", Target::Prefix("u")),
                false,
            ),
            (
                "a longer prefix",
                &prefix,
                &raised(&none, 9, "a", Target::Prefix("user:1")),
                true,
            ),
            (
                "a shorter prefix",
                &prefix,
                &raised(&none, 9, "a", Target::Prefix("user")),
                false,
            ),
            (
                "more tags",
                &raised(&tag, 12, "a", Target::Tags(&tags(&["y"]))),
                &tag,
                true,
            ),
            (
                "another tag",
                &raised(&none, 12, "a", Target::Tags(&tags(&["y"]))),
                &tag,
                false,
            ),
        ] {
            assert_eq!(floors.cover(others), cover, "{case}");
        }
    }

    #[test]
    fn a_wider_floor_takes_the_place_of_narrower_ones() {
        let floors = raised(&Floors::default(), 1, "a", Target::Prefix("user:1"));
        assert_eq!(floors.beginning(), "a:user:1");
        let floors = raised(&floors, 2, "a", Target::Prefix("user:2"));
        let floors = raised(&floors, 3, "a", Target::Prefix("user:"));
        assert_eq!(floors.beginning(), "a:user:");
        let floors = raised(&floors, 4, "a", Target::Tags(&tags(&["x"])));
        assert_eq!(floors.beginning(), "a:");
        let one = raised(&floors, 5, "a", Target::All);
        assert_eq!(
            one,
            raised(&Floors::default(), 5, "a", Target::All).at(one.job_ms)
        );
    }

    impl Floors {
        fn at(mut self, job_ms: u64) -> Self {
            self.job_ms = job_ms;
            self
        }

        fn count(&self) -> (usize, usize, usize) {
            let (mut all, mut prefixes, mut tags) = (0, 0, 0);
            for marks in self.namespaces.values() {
                all += usize::from(marks.all > 0);
                prefixes += marks.prefixes.len();
                tags += marks.tags.len() + usize::from(marks.tagged > 0);
            }
            (all, prefixes, tags)
        }
    }

    #[test]
    fn floors_of_tags_are_bounded_by_one_for_all_that_is_tagged() {
        let mut floors = raised(&Floors::default(), 1, "b", Target::Tags(&tags(&["only"])));
        for version in 2..=MAX_FLOORS as u64 {
            floors = raised(
                &floors,
                version,
                "a",
                Target::Tags(&[format!("t{version}")]),
            );
        }
        assert_eq!(floors.count(), (0, 0, 1000));
        let version = 2000;
        let floors = raised(&floors, version, "b", Target::Tags(&tags(&["more"])));
        assert_eq!(floors.count(), (0, 0, 3));
        // What was raised is hidden as ever; of "a", whatever has any tag.
        assert!(floors.hide("a", b"k", &["t7"], 7) && floors.hide("a", b"k", &["other"], 2000));
        assert!(!floors.hide("a", b"k", NO_TAGS, 1) && !floors.hide("b", b"k", &["only"], 2));
        assert!(!floors.hide("a", b"k", &["t7"], 2001));
    }

    #[test]
    fn tags_of_many_namespaces_become_floors_of_namespaces() {
        let mut floors = Floors::default();
        for n in 0..=MAX_FLOORS {
            floors = raised(
                &floors,
                n as u64 + 1,
                &format!("n{n}"),
                Target::Tags(&tags(&["t"])),
            );
        }
        assert_eq!(floors.count(), (1, 0, 1000));
        for n in 0..=MAX_FLOORS {
            assert!(
                floors.hide(&format!("n{n}"), b"k", &["t"], n as u64 + 1),
                "{n}"
            );
        }
    }

    #[test]
    fn floors_of_prefixes_are_bounded_by_that_of_their_namespace() {
        let long = "x".repeat(1000);
        // Bounded by their number, and by their bytes.
        for (text, least) in [("", MAX_FLOORS), (&long[..], 120)] {
            let mut floors = raised(&Floors::default(), 1, "b", Target::Prefix("only"));
            let mut version = 1;
            while floors.count().0 == 0 {
                version += 1;
                let prefix = format!("{version}:{text}");
                floors = raised(&floors, version, "a", Target::Prefix(&prefix));
            }
            assert!(version as usize > least && version as usize <= MAX_FLOORS + 1);
            assert_eq!(floors.count(), (1, 1, 0));
            assert!(
                floors.hide("a", b"2:", NO_TAGS, 2) && floors.hide("a", b"k", NO_TAGS, version)
            );
            assert!(!floors.hide("a", b"k", NO_TAGS, version + 1));
            assert!(!floors.hide("b", b"k", NO_TAGS, 1));
        }
    }

    #[test]
    fn what_is_dropped_hides_no_more_and_what_came_since_does() {
        let floors = raised(&Floors::default(), 5, "a", Target::Prefix("p"));
        let floors = raised(&floors, 6, "b", Target::All);
        let floors = raised(&floors, 7, "a", Target::Tags(&tags(&["x"])));
        let mut floors = raised(&floors, 8, "c", Target::Tags(&tags(&["x"])));
        floors.drop_through(7, 0);
        assert_eq!(floors.count(), (0, 0, 1));
        assert!(!floors.hide("a", b"p", &["x"], 1) && !floors.hide("b", b"k", NO_TAGS, 1));
        assert!(floors.hide("c", b"k", &["x"], 8));
        floors.drop_through(8, 0);
        assert!(floors.is_empty());
        // Leases that are as old stay void for as long as one can be held.
        let read = Floors::decode(Some(&record(9, floors.encode().unwrap()))).unwrap();
        for floors in [&floors, &read] {
            assert_eq!(floors.void("a", b"p", NO_TAGS), 5);
            assert_eq!(floors.void("a", b"k", &["x"]), 7);
            assert_eq!(floors.void("b", b"k", NO_TAGS), 6);
            assert_eq!(floors.void("d", b"k", &["x"]), 0);
        }
        floors.drop_through(9, 1 << 40);
        assert_eq!(floors.encode().unwrap(), b"{}");
    }

    #[test]
    fn older_records_are_read_and_later_ones_refused() {
        let read = |value: &'static str| Floors::decode(Some(&record(9, value)));
        for (value, gone, kept) in [
            (r#"{}"#, 0, 1),
            (r#"{"floors":{}}"#, 0, 1),
            (r#"{"floors":{"a":4}}"#, 4, 5),
        ] {
            let floors = read(value).unwrap();
            assert!(
                gone == 0 || floors.hide("a", b"k", NO_TAGS, gone),
                "{value}"
            );
            assert!(!floors.hide("a", b"k", NO_TAGS, kept), "{value}");
            assert!(!floors.have_job(TRUST_MS), "theirs is another");
            assert_eq!(floors.unchanged(), Check::Version(9));
        }
        for value in [r#"{"format":3,"floors":[]}"#, r#"{"floors":7}"#, "", "["] {
            assert!(matches!(read(value), Err(Error::Internal(_))), "{value}");
        }
        assert_eq!(Floors::decode(None).unwrap().unchanged(), Check::Absent);

        // What a release finds that knows floors of namespaces alone.
        #[derive(Debug, Deserialize)]
        struct First {
            #[serde(default)]
            floors: BTreeMap<Box<str>, u64>,
        }
        let first = |floors: &Floors| serde_json::from_slice::<First>(&floors.encode().unwrap());
        assert!(first(&Floors::default()).unwrap().floors.is_empty());
        let floors = raised(&Floors::default(), 1, "a", Target::All);
        assert!(first(&floors).is_err());
    }

    #[test]
    fn a_job_is_trusted_for_a_while() {
        let mut floors = raised(&Floors::default(), 1, "a", Target::All);
        assert!(!floors.have_job(TRUST_MS));
        floors.left_job(1000);
        assert!(floors.have_job(1000 + TRUST_MS - 1) && !floors.have_job(1000 + TRUST_MS));
        floors.drop_through(1, 0);
        assert!(!floors.have_job(1000), "it is done");
    }
}
