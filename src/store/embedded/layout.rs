//! How records lie in the file: the tables, the keys, the head of a
//! value. It does not know when or why anything is written.

use redb::TableDefinition;

use super::super::{Key, Space, Table};

/// The format this code reads and writes. Another one is refused at open.
pub(super) const FORMAT: u64 = 1;

/// Bytes to bytes; every key here sorts as its bytes do.
pub(super) type Bytewise<V> = TableDefinition<'static, &'static [u8], V>;

/// `space | suffix` -> head and value.
pub(super) const RECORDS: Bytewise<&'static [u8]> = TableDefinition::new("records");
/// `space` -> [`State`](super::state::State).
pub(super) const SPACES: Bytewise<&'static [u8]> = TableDefinition::new("spaces");
/// `space | generation | end` -> records and bytes counted until then.
pub(super) const BUCKETS: Bytewise<(u64, u64)> = TableDefinition::new("buckets");
/// `space | end | suffix`: what to delete when its time is over.
pub(super) const EXPIRIES: Bytewise<()> = TableDefinition::new("expiries");
/// `space | unit | place` -> the opening at this place of the unit's ring.
pub(super) const OPENINGS: Bytewise<&'static [u8]> = TableDefinition::new("openings");
/// Facts of the file, by name.
pub(super) const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");

/// The format of the file.
pub(super) const META_FORMAT: &str = "format";
/// How often the file was opened.
pub(super) const META_RUN: &str = "run";
/// The number of the last commit.
pub(super) const META_COMMIT: &str = "commit";
/// The last time seen.
pub(super) const META_CLOCK: &str = "clock_ms";

/// The beginning of all keys of a space. Its length comes first, so that no
/// name is the beginning of another.
pub(super) fn prefix(space: &Space) -> Vec<u8> {
    let name = space.name().as_bytes();
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    key.extend_from_slice(name);
    key
}

/// A table's mark as a byte.
pub(super) fn mark(table: Table) -> u8 {
    table.mark().bytes().next().unwrap_or_default()
}

/// The rest of a record's key in its space.
pub(super) fn suffix(key: &Key, generation: u64) -> Vec<u8> {
    let mut suffix = beginning(key.table, generation);
    suffix.extend_from_slice(&key.path);
    suffix
}

/// What all suffixes of a table begin with.
pub(super) fn beginning(table: Table, generation: u64) -> Vec<u8> {
    let mut beginning = Vec::with_capacity(64);
    beginning.push(mark(table));
    if table.generational() {
        beginning.extend_from_slice(&generation.to_be_bytes());
    }
    beginning
}

/// Reads a suffix: the table, the generation where it has one, the path.
pub(super) fn parse(suffix: &[u8]) -> Option<(Table, Option<u64>, &[u8])> {
    let (first, rest) = suffix.split_first()?;
    let table = Table::ALL
        .into_iter()
        .find(|table| mark(*table) == *first)?;
    if table.generational() {
        let (generation, path) = rest.split_first_chunk()?;
        Some((table, Some(u64::from_be_bytes(*generation)), path))
    } else {
        Some((table, None, rest))
    }
}

/// What is kept beside the records of tables, among them: it ends, and goes with
/// its space, as they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A row of counters, by name.
    Row,
    /// The number of the last tally of a source, by source.
    Stamp,
    /// What a tally told of, by name.
    Once,
    /// A window that permits are leased from, by name.
    Window,
}

impl Kind {
    /// The mark in keys: a capital, which no table has. Never changes.
    const fn mark(self) -> u8 {
        match self {
            Self::Row => b'R',
            Self::Stamp => b'S',
            Self::Once => b'O',
            Self::Window => b'W',
        }
    }

    /// The rest of the key in its space.
    pub(super) fn suffix(self, name: &[u8]) -> Vec<u8> {
        join(&[self.mark()], name)
    }

    /// Whether a suffix is of any kind, and of no table.
    pub(super) fn owns(suffix: &[u8]) -> bool {
        let kinds = [Self::Row, Self::Stamp, Self::Once, Self::Window];
        suffix
            .first()
            .is_some_and(|first| kinds.iter().any(|kind| kind.mark() == *first))
    }
}

/// `a | b`.
pub(super) fn join(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(a.len() + b.len());
    key.extend_from_slice(a);
    key.extend_from_slice(b);
    key
}

/// A bucket's key.
pub(super) fn bucket(prefix: &[u8], generation: u64, end: u64) -> Vec<u8> {
    let mut key = join(prefix, &generation.to_be_bytes());
    key.extend_from_slice(&end.to_be_bytes());
    key
}

/// When the bucket of this key ends.
pub(super) fn bucket_end(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |end| u64::from_be_bytes(*end))
}

/// An expiry's key.
pub(super) fn expiry(prefix: &[u8], end: u64, suffix: &[u8]) -> Vec<u8> {
    let mut key = join(prefix, &end.to_be_bytes());
    key.extend_from_slice(suffix);
    key
}

/// The first key that no longer begins with `prefix`; empty where there is none.
pub(super) fn beyond(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last + 1);
            break;
        }
    }
    key
}

/// What stands before each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The record's version.
    pub(super) version: u64,
    /// When it ends; 0 is never.
    pub(super) expire_ms: u64,
    /// The end of the bucket it counts in; 0 is never.
    pub(super) end_ms: u64,
}

impl Head {
    /// Bytes of a head.
    pub(super) const BYTES: usize = 24;

    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        encode([self.version, self.expire_ms, self.end_ms])
    }

    /// The head and the value of what is stored.
    pub(super) fn split(stored: &[u8]) -> Option<(Self, &[u8])> {
        let (head, value) = stored.split_at_checked(Self::BYTES)?;
        let [version, expire_ms, end_ms] = decode(head)?;
        (version > 0).then_some((
            Self {
                version,
                expire_ms,
                end_ms,
            },
            value,
        ))
    }

    /// Whether the record is there at this time.
    pub(super) fn alive(self, now_ms: u64) -> bool {
        self.expire_ms == 0 || now_ms < self.expire_ms
    }

    /// Whether it is there, or still lingers.
    pub(super) fn lingers(self, now_ms: u64) -> bool {
        self.end_ms == 0 || now_ms <= self.end_ms
    }

    /// When it ends, as the port says it.
    pub(super) fn expires(self) -> Option<u64> {
        (self.expire_ms > 0).then_some(self.expire_ms)
    }
}

pub(super) fn encode<const FIELDS: usize, const BYTES: usize>(
    fields: [u64; FIELDS],
) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    bytes
}

pub(super) fn decode<const FIELDS: usize>(bytes: &[u8]) -> Option<[u64; FIELDS]> {
    let (words, rest) = bytes.as_chunks::<8>();
    if words.len() != FIELDS || !rest.is_empty() {
        return None;
    }
    let mut fields = [0; FIELDS];
    for (field, word) in fields.iter_mut().zip(words) {
        *field = u64::from_le_bytes(*word);
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_as_it_was_written() {
        let head = Head {
            version: 7,
            expire_ms: 8,
            end_ms: 9,
        };
        let mut stored = head.encode().to_vec();
        stored.extend_from_slice(b"value");
        assert_eq!(Head::split(&stored), Some((head, &b"value"[..])));
        assert_eq!(Head::split(b"short"), None);
        assert_eq!(Head::split(&[0; 30]), None, "version 0 is never given");
    }

    #[test]
    fn suffixes_tell_table_generation_and_path() {
        let entry = Key::new(Table::Entry, &b"a:\0\xff"[..]);
        assert_eq!(
            parse(&suffix(&entry, 3)),
            Some((Table::Entry, Some(3), &b"a:\0\xff"[..]))
        );
        let tenant = Key::new(Table::Tenant, &b"t"[..]);
        assert_eq!(
            parse(&suffix(&tenant, 3)),
            Some((Table::Tenant, None, &b"t"[..]))
        );
        assert_eq!(parse(b"?x"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn beyond_a_prefix_is_the_next_key_without_it() {
        assert_eq!(beyond(b"ab"), b"ac");
        assert_eq!(beyond(b"a\xff"), b"b");
        assert_eq!(beyond(b"\xff"), b"");
    }
}
