//! How records lie in the file: the tables, the keys, the head of a value, the
//! state of a space. It does not know when or why anything is written.

use redb::TableDefinition;

use super::super::{Key, Space, Table, Usage, View};

/// The format this code reads and writes. Another one is refused at open.
pub(super) const FORMAT: u64 = 1;

/// Bytes to bytes; every key here sorts as its bytes do.
pub(super) type Bytewise<V> = TableDefinition<'static, &'static [u8], V>;

/// `space | suffix` -> head and value.
pub(super) const RECORDS: Bytewise<&'static [u8]> = TableDefinition::new("records");
/// `space` -> [`State`].
pub(super) const SPACES: Bytewise<&'static [u8]> = TableDefinition::new("spaces");
/// `space | generation | end` -> records and bytes counted until then.
pub(super) const BUCKETS: Bytewise<(u64, u64)> = TableDefinition::new("buckets");
/// `space | end | suffix`: what to delete when its time is over.
pub(super) const EXPIRIES: Bytewise<()> = TableDefinition::new("expiries");
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

    /// When it ends, as the port says it.
    pub(super) fn expires(self) -> Option<u64> {
        (self.expire_ms > 0).then_some(self.expire_ms)
    }
}

/// How long a removed space is remembered; the port asks for an hour.
const REMEMBERED_MS: u64 = 2 * 3_600_000;

/// What is kept of a space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Moves when snapshots must be taken anew; 0 where the space was never written.
    pub(super) epoch: u64,
    /// The generation that entries live in.
    pub(super) generation: u64,
    /// The last version given.
    pub(super) sequence: u64,
    /// The run of the store that gave it. After a crash, versions of commits
    /// that were lost must not be given again, so a new run leaves a gap.
    pub(super) run: u64,
    /// Metered records.
    pub(super) entries: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Bytes of generations past.
    pub(super) orphaned: u64,
    /// Records whose bucket ended by then are counted no more.
    pub(super) watermark: u64,
    /// The watermark when the last generation ended.
    pub(super) orphans_watermark: u64,
    /// No bucket ends before; 0 where there is none.
    pub(super) due: u64,
    /// When the space was removed; 0 while it is there.
    pub(super) gone_ms: u64,
}

impl State {
    pub(super) fn encode(&self) -> [u8; 88] {
        encode([
            self.epoch,
            self.generation,
            self.sequence,
            self.run,
            self.entries,
            self.bytes,
            self.orphaned,
            self.watermark,
            self.orphans_watermark,
            self.due,
            self.gone_ms,
        ])
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [
            epoch,
            generation,
            sequence,
            run,
            entries,
            counted,
            orphaned,
            watermark,
            orphans_watermark,
            due,
            gone_ms,
        ] = decode(bytes)?;
        Some(Self {
            epoch,
            generation,
            sequence,
            run,
            entries,
            bytes: counted,
            orphaned,
            watermark,
            orphans_watermark,
            due,
            gone_ms,
        })
    }

    pub(super) fn view(&self) -> View {
        View {
            epoch: self.epoch,
            generation: self.generation,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            entries: self.entries,
            bytes: self.bytes,
            orphaned_bytes: self.orphaned,
            exact: true,
        }
    }

    /// Whether a record of this table that ends then is counted now.
    pub(super) fn counts(&self, table: Table, end_ms: u64) -> bool {
        table.metered() && (end_ms == 0 || end_ms > self.watermark)
    }

    /// Whether records of this suffix belong to a past life of the space.
    pub(super) fn past(&self, generation: Option<u64>) -> bool {
        self.gone_ms > 0 || generation.is_some_and(|generation| generation != self.generation)
    }

    /// Whether the space was removed so long ago that nobody asks for it.
    pub(super) fn forgettable(&self, now_ms: u64) -> bool {
        self.gone_ms > 0 && now_ms > self.gone_ms.saturating_add(REMEMBERED_MS)
    }

    /// Remembers that a bucket ends then.
    pub(super) fn falls_due(&mut self, end_ms: u64) {
        if end_ms > 0 && (self.due == 0 || end_ms < self.due) {
            self.due = end_ms;
        }
    }
}

fn encode<const FIELDS: usize, const BYTES: usize>(fields: [u64; FIELDS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    bytes
}

fn decode<const FIELDS: usize>(bytes: &[u8]) -> Option<[u64; FIELDS]> {
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
    fn a_head_and_a_state_read_as_they_were_written() {
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

        let state = State {
            epoch: 1,
            gone_ms: 11,
            bytes: 5,
            ..State::default()
        };
        assert_eq!(State::decode(&state.encode()), Some(state));
        assert_eq!(State::decode(b"short"), None);
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
