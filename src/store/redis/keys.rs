//! The names of things in Redis. All names of a space share one hash tag, and
//! so one slot; what a user typed comes last and can change neither. It does not
//! know what is stored under them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::store::{Key, Space, Table};

/// What every name of a space begins with, up to the colon after the tag.
fn prefix(out: &mut BytesMut, space: &Space) {
    out.reserve(64);
    out.put_slice(b"v1:{");
    out.put_slice(space.name().as_bytes());
    out.put_slice(b"}:");
}

fn named(space: &Space, name: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    prefix(&mut out, space);
    out.put_slice(name);
    out.freeze()
}

/// The space's counters and view.
pub(super) fn state(space: &Space) -> Bytes {
    named(space, b"s")
}

/// The ends of its expiry buckets (ZSET).
pub(super) fn bucket_ends(space: &Space) -> Bytes {
    named(space, b"b")
}

/// What each bucket counts (HASH).
pub(super) fn bucket_sums(space: &Space) -> Bytes {
    named(space, b"h")
}

/// The openings of units of time, in pages (HASH).
pub(super) fn openings(space: &Space) -> Bytes {
    named(space, b"o")
}

/// The log of notes (STREAM).
pub(super) fn log(space: &Space) -> Bytes {
    named(space, b"n")
}

/// The list of what is kept for a pin; keep.lua makes these names, too.
pub(super) fn kept(space: &Space, pin: &[u8]) -> Bytes {
    marked(space, b"y:", pin)
}

/// A record that is kept for a pin, by its place in the list.
pub(super) fn kept_record(list: &[u8], place: u64) -> Bytes {
    [list, format!(":{place}").as_bytes()].concat().into()
}

/// The former head of a record of this name in its space.
pub(super) fn kept_head(list: &[u8], name: &[u8]) -> Bytes {
    [list, b":t:", name].concat().into()
}

/// How many keys come before all others.
pub(super) const COUNTERS: usize = 4;

/// What commit.lua and reclaim.lua take before all other keys.
pub(super) fn counters(space: &Space) -> Vec<Bytes> {
    vec![
        state(space),
        bucket_ends(space),
        bucket_sums(space),
        openings(space),
    ]
}

/// A row of counters (HASH).
pub(super) fn row(space: &Space, name: &[u8]) -> Bytes {
    marked(space, b"w:", name)
}

/// The number of the last tally of a source.
pub(super) fn stamp(space: &Space, source: &[u8]) -> Bytes {
    marked(space, b"q:", source)
}

/// That a tally of this name was added.
pub(super) fn once(space: &Space, name: &[u8]) -> Bytes {
    marked(space, b"e:", name)
}

/// What matches the names of tallies that begin so, in any space; it may match others.
pub(super) fn remembered(prefix: &[u8]) -> Bytes {
    [b"v1:{*}:e:", &pattern(prefix)[..]].concat().into()
}

/// The slots of a window (HASH).
pub(super) fn window(space: &Space, name: &[u8]) -> Bytes {
    marked(space, b"v:", name)
}

fn marked(space: &Space, mark: &[u8], name: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(space.name().len() + name.len() + 16);
    prefix(&mut out, space);
    out.put_slice(mark);
    out.put_slice(name);
    out.freeze()
}

/// The paths of an ordered table (ZSET).
pub(super) fn index(space: &Space, table: Table) -> Bytes {
    named(space, format!("i:{}", table.mark()).as_bytes())
}

/// When the records of a passing table leave, by path (ZSET).
pub(super) fn index_ends(space: &Space, table: Table) -> Bytes {
    named(space, format!("x:{}", table.mark()).as_bytes())
}

/// The stream of announced commits.
pub(super) fn changes() -> Bytes {
    named(&Space::registry(), b"changes")
}

/// What a tracked connection changes to prove that changes are told; the tag
/// decides its slot.
pub(super) fn canary(tag: &str) -> Bytes {
    Bytes::from(format!("v1:canary:{{{tag}}}"))
}

/// The random name of the store as it is now; another one means other contents.
pub(super) fn identity() -> Bytes {
    named(&Space::registry(), b"id")
}

/// What the records of a table begin with; the path follows.
pub(super) fn records(space: &Space, table: Table, generation: u64) -> Bytes {
    let mut out = BytesMut::new();
    table_prefix(&mut out, space, table, generation);
    out.freeze()
}

fn table_prefix(out: &mut BytesMut, space: &Space, table: Table, generation: u64) {
    prefix(out, space);
    out.put_slice(table.mark().as_bytes());
    out.put_u8(b':');
    if table.generational() {
        out.put_slice(generation.to_string().as_bytes());
        out.put_u8(b':');
    }
}

/// A record.
pub(super) fn record(space: &Space, generation: u64, key: &Key) -> Bytes {
    let mut out = BytesMut::with_capacity(space.name().len() + key.path.len() + 32);
    table_prefix(&mut out, space, key.table, generation);
    out.put_slice(&key.path);
    out.freeze()
}

/// The path of a record that begins with `prefix` (see [`records`]).
pub(super) fn path(name: &Bytes, prefix: &[u8]) -> Option<Bytes> {
    name.starts_with(prefix)
        .then(|| name.slice(prefix.len()..))
        .filter(|path| !path.is_empty())
}

/// What a name in a space is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// An entry of a generation.
    Entry { generation: u64, path_bytes: usize },
    /// A record of another table.
    Record { table: Table, path_bytes: usize },
    /// The space's counters and view.
    State,
    /// Anything else: indexes, buckets, rows, stamps, windows.
    Other,
}

/// Reads a name of the space; `None` where it is of another one.
pub(super) fn read(space: &Space, name: &[u8]) -> Option<Name> {
    let (found, rest) = split(name)?;
    (found == space.name()).then(|| what(rest)).flatten()
}

/// Reads the name of a record of any space: its space, generation (0 where its
/// table has none), table and path; `None` where it names no record.
pub(super) fn told(name: &[u8]) -> Option<(&str, u64, Table, &[u8])> {
    let (space, rest) = split(name)?;
    let (generation, table, path_bytes) = match what(rest)? {
        Name::Entry {
            generation,
            path_bytes,
        } => (Some(generation), Table::Entry, path_bytes),
        Name::Record { table, path_bytes } => (None, table, path_bytes),
        Name::State | Name::Other => return None,
    };
    let path = rest.get(rest.len().checked_sub(path_bytes)?..)?;
    if generation.is_none() && table.generational() {
        let (generation, path) = generational(path)?;
        return Some((space, generation, table, path));
    }
    Some((space, generation.unwrap_or_default(), table, path))
}

/// The space of a name, and what follows the colon after it.
fn split(name: &[u8]) -> Option<(&str, &[u8])> {
    let rest = name.strip_prefix(b"v1:{")?;
    let (space, rest) = rest.split_at_checked(rest.iter().position(|&byte| byte == b'}')?)?;
    Some((std::str::from_utf8(space).ok()?, rest.strip_prefix(b"}:")?))
}

fn what(rest: &[u8]) -> Option<Name> {
    if rest == b"s" {
        return Some(Name::State);
    }
    for table in Table::ALL {
        let Some(path) = rest
            .strip_prefix(table.mark().as_bytes())
            .and_then(|rest| rest.strip_prefix(b":"))
        else {
            continue;
        };
        if table != Table::Entry {
            return Some(Name::Record {
                table,
                path_bytes: path.len(),
            });
        }
        let (generation, path) = generational(path)?;
        return Some(Name::Entry {
            generation,
            path_bytes: path.len(),
        });
    }
    Some(Name::Other)
}

/// The generation of a record that lives in one, and its path.
fn generational(rest: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, path) = rest.split_at_checked(rest.iter().position(|&byte| byte == b':')?)?;
    let generation = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((generation, path.get(1..)?))
}

/// A pattern for SCAN that matches names with this beginning, whatever it holds.
pub(super) fn pattern(beginning: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(beginning.len() + 8);
    for &byte in beginning {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-') {
            out.put_u8(b'\\');
        }
        out.put_u8(byte);
    }
    out.put_u8(b'*');
    out.freeze()
}

/// What every name of the space begins with.
pub(super) fn all(space: &Space) -> Bytes {
    named(space, b"")
}

/// The range of paths that begin with `prefix` and follow `after`, as
/// ZRANGEBYLEX reads it.
pub(super) fn lex_range(prefix: &[u8], after: Option<&[u8]>) -> (Bytes, Bytes) {
    let mut from = BytesMut::new();
    match after {
        Some(after) if after >= prefix => {
            from.put_u8(b'(');
            from.put_slice(after);
        }
        _ if prefix.is_empty() => from.put_u8(b'-'),
        _ => {
            from.put_u8(b'[');
            from.put_slice(prefix);
        }
    }
    // The first path after all that begin so: the prefix with its last byte that
    // can grow grown, and nothing behind it.
    let mut to = BytesMut::new();
    match prefix
        .iter()
        .rposition(|&byte| byte != u8::MAX)
        .and_then(|at| prefix.get(..=at))
    {
        Some([rest @ .., last]) => {
            to.put_u8(b'(');
            to.put_slice(rest);
            to.put_u8(last + 1);
        }
        _ => to.put_u8(b'+'),
    }
    (from.freeze(), to.freeze())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::store::Incarnation;

    #[test]
    fn names_are_of_one_slot_and_read_back() {
        let space = Space::tenant(Incarnation::random());
        let key = Key::entry("default", "a}{b:c\0*");
        let name = record(&space, 12, &key);
        let tag = format!("v1:{{{}}}:", space.name());
        for name in [
            &name,
            &state(&space),
            &bucket_ends(&space),
            &bucket_sums(&space),
            &index(&space, Table::Job),
            &index_ends(&space, Table::Session),
            &openings(&space),
            &log(&space),
            &row(&space, b"r"),
            &stamp(&space, b"s"),
            &once(&space, b"o"),
            &window(&space, b"w"),
            &kept(&space, b"p"),
            &kept_record(&kept(&space, b"p"), 7),
            &kept_head(&kept(&space, b"p"), b"k:1:x"),
        ] {
            assert!(name.starts_with(tag.as_bytes()));
        }
        assert_eq!(
            read(&space, &name),
            Some(Name::Entry {
                generation: 12,
                path_bytes: key.path.len()
            })
        );
        assert_eq!(
            path(&name, &records(&space, Table::Entry, 12)),
            Some(key.path)
        );
        let job = record(&space, 12, &Key::new(Table::Job, "x:y"));
        assert_eq!(
            read(&space, &job),
            Some(Name::Record {
                table: Table::Job,
                path_bytes: 3
            })
        );
        let lease = record(&space, 12, &Key::refill("n", "k"));
        assert!(matches!(
            read(&space, &lease),
            Some(Name::Record {
                table: Table::Refill,
                ..
            })
        ));
        assert_eq!(read(&space, &state(&space)), Some(Name::State));
        for other in [
            index(&space, Table::Tenant),
            index_ends(&space, Table::Session),
            log(&space),
            row(&space, b"k:1:x"),
            stamp(&space, b"k:1:x"),
            once(&space, b"k:1:x"),
            window(&space, b"k:1:x"),
            kept(&space, b"k:1:x"),
            kept_record(&kept(&space, b"p"), 7),
            kept_head(&kept(&space, b"p"), b"k:1:x"),
        ] {
            assert_eq!(read(&space, &other), Some(Name::Other));
        }
        assert_eq!(read(&Space::registry(), &name), None);
    }

    #[test]
    fn a_name_tells_its_record() {
        let space = Space::tenant(Incarnation::random());
        let key = Key::entry("default", "a}{b:c\0*");
        assert_eq!(
            told(&record(&space, 12, &key)),
            Some((space.name(), 12, Table::Entry, &key.path[..]))
        );
        let job = record(&space, 12, &Key::new(Table::Job, "x}:y"));
        assert_eq!(
            told(&job),
            Some((space.name(), 0, Table::Job, &b"x}:y"[..]))
        );
        let refill = Key::refill("n", "k");
        assert_eq!(
            told(&record(&space, 3, &refill)),
            Some((space.name(), 3, Table::Refill, &refill.path[..]))
        );
        for other in [
            state(&space),
            bucket_ends(&space),
            index(&space, Table::Tenant),
            row(&space, b"k:1:x"),
            canary("k:1:x"),
            Bytes::from_static(b"v1:{a}:k:1"),
            Bytes::from_static(b"v1:{a}:k:one:x"),
            Bytes::from_static(b"v1:{\xff}:t:x"),
            Bytes::from_static(b"v1:{a"),
            Bytes::from_static(b"another's"),
        ] {
            assert_eq!(told(&other), None, "{other:?}");
        }
    }

    #[test]
    fn patterns_take_what_was_typed_as_it_is() {
        assert_eq!(&pattern(b"a*b?[c]\\^-")[..], b"a\\*b\\?\\[c\\]\\\\\\^\\-*");
    }

    #[test]
    fn ranges_end_where_the_prefix_ends() {
        let range = |prefix: &[u8], after: Option<&[u8]>| {
            let (from, to) = lex_range(prefix, after);
            (from.to_vec(), to.to_vec())
        };
        assert_eq!(range(b"", None), (b"-".to_vec(), b"+".to_vec()));
        assert_eq!(range(b"", Some(b"x")), (b"(x".to_vec(), b"+".to_vec()));
        assert_eq!(range(b"ab", None), (b"[ab".to_vec(), b"(ac".to_vec()));
        assert_eq!(
            range(b"ab", Some(b"abc")),
            (b"(abc".to_vec(), b"(ac".to_vec())
        );
        assert_eq!(
            range(b"ab", Some(b"aa")),
            (b"[ab".to_vec(), b"(ac".to_vec())
        );
        assert_eq!(range(b"a\xff", None), (b"[a\xff".to_vec(), b"(b".to_vec()));
        assert_eq!(
            range(b"\xff\xff", None),
            (b"[\xff\xff".to_vec(), b"+".to_vec())
        );
    }
}
