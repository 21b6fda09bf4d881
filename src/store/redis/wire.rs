//! The layouts that Rust and the scripts share: a record's head, a batch, and the
//! scripts' answers; state.rs, tally.rs and lease.rs have those of their own. All integers are big endian, as
//! `struct` writes them in Lua. It does not know how they travel.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::store::{
    Action, Applied, Batch, Check, Commit, Expiry, HEAD_BYTES, MAX_EXPIRE_MS, Metric, Mode,
    Outcome, Record, Refusal, Result, Step, Table, View, Write,
};

use super::{
    fault,
    state::{STATE_BYTES, State},
};

/// The format of heads; a change of layout takes the next number.
const FORMAT: u8 = 1;
/// The largest number of seven bytes: no limit.
const UNLIMITED: u64 = (1 << 56) - 1;
/// Beyond this Lua's numbers are no longer exact.
const EXACT: u64 = 1 << 53;

/// What stands before a record's value: format (1 byte), version (7), when it
/// ends (6, 0 for never), the end of its bucket (6, 0 for none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: u64,
    pub(super) expire_ms: u64,
    pub(super) bucket_end_ms: u64,
}

impl Head {
    /// Reads the head of a stored record.
    pub(super) fn read(stored: &[u8]) -> Result<Self> {
        let Some((mut head, _)) = stored.split_at_checked(HEAD_BYTES as usize) else {
            return Err(fault::corrupt("a record is shorter than its head"));
        };
        match head.get_u8() {
            FORMAT => Ok(Self {
                version: head.get_uint(7),
                expire_ms: head.get_uint(6),
                bucket_end_ms: head.get_uint(6),
            }),
            format => Err(fault::corrupt(format!(
                "a record has the unknown format {format}"
            ))),
        }
    }

    /// Whether the record is there at this time.
    pub(super) fn alive(&self, now_ms: u64) -> bool {
        self.expire_ms == 0 || self.expire_ms > now_ms
    }
}

/// A record from what is stored; `None` if its time is over.
pub(super) fn record(stored: &Bytes, now_ms: u64) -> Result<Option<Record>> {
    let head = Head::read(stored)?;
    Ok(head.alive(now_ms).then(|| Record {
        version: head.version,
        expire_ms: nonzero(head.expire_ms),
        value: stored.slice(HEAD_BYTES as usize..),
    }))
}

fn nonzero(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

/// How a batch is applied, as the script knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Whole,
    Each,
    /// Nothing is written but what is due to be uncounted; a space that was
    /// never written stays so.
    Reap,
}

impl Way {
    pub(super) fn of(mode: Mode) -> Self {
        match mode {
            Mode::Whole => Self::Whole,
            Mode::Each => Self::Each,
        }
    }
}

/// What a batch relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// Nothing.
    Any,
    /// That the space is as the writer saw it.
    View(View),
    /// The same, or that only its epoch has moved on.
    Since(View),
    /// That entries live in this generation, which the keys name.
    Generation(u64),
}

impl Basis {
    /// The generation that entries are written in.
    pub(super) fn generation(self) -> u64 {
        match self {
            Self::Any => 0,
            Self::View(view) | Self::Since(view) => view.generation,
            Self::Generation(generation) => generation,
        }
    }
}

/// The script's first argument. `changes` is the place of the stream among the
/// keys, `log` that of the log, 0 for none. What the log gets stands at the end.
pub(super) fn batch(
    batch: &Batch,
    basis: Basis,
    way: Way,
    (changes, log): (usize, usize),
    note: &[u8],
) -> Bytes {
    let mut out = BytesMut::with_capacity(BATCH_BYTES + note.len());
    out.put_u8(match way {
        Way::Whole => 0,
        Way::Each => 1,
        Way::Reap => 2,
    });
    let (kind, epoch) = match basis {
        Basis::Any => (0, 0),
        Basis::View(view) => (1, view.epoch),
        Basis::Generation(_) => (2, 0),
        Basis::Since(view) => (3, view.epoch),
    };
    out.put_u8(kind);
    out.put_uint(epoch, 6);
    out.put_uint(basis.generation(), 6);
    for limit in [batch.limits.entries, batch.limits.bytes] {
        out.put_uint(limit.unwrap_or(UNLIMITED).min(UNLIMITED), 7);
    }
    out.put_u8(match batch.step {
        None => 0,
        Some(Step::Epoch) => 1,
        Some(Step::Generation) => 2,
        Some(Step::Remove) => 3,
        Some(Step::Era) => 4,
        Some(Step::Fence) => 5,
        // It goes by a script of its own.
        Some(Step::Inherit(_)) => 0,
    });
    out.put_uint(changes as u64, 2);
    out.put_uint(batch.metered.operations.min((1 << 48) - 1), 6);
    out.put_u64(batch.metered.bytes);
    out.put_uint(log as u64, 2);
    out.put_slice(note);
    out.freeze()
}

/// Bytes of [`batch`] before the note; commit.lua knows it, too.
const BATCH_BYTES: usize = 31 + 6 + 8 + 2;

/// The script's argument that describes a write; its value is the next one. What
/// every write needs comes first, in bytes that are cheap to read.
/// `index` is the place of the index among the keys, 0 for none; that of a passing
/// table has the ends behind it.
pub(super) fn write(out: &mut BytesMut, write: &Write, index: usize, announced: bool) {
    let Write {
        key,
        check,
        action,
        floor,
    } = write;
    let (action, expiry) = match action {
        Action::Nothing => (0, Expiry::Never),
        Action::Put { expiry, .. } => (1, *expiry),
        Action::Touch(expiry) => (2, *expiry),
        Action::Delete => (3, Expiry::Never),
        Action::Renew => (4, Expiry::Never),
        Action::Take => (5, Expiry::Never),
    };
    let (check, version) = match *check {
        Check::Any => (0, 0),
        Check::Absent => (1, 0),
        Check::Present => (2, 0),
        Check::Version(version) => (3, version),
    };
    let (ttl_ms, linger_ms) = expiry.spans_ms().map_or((0, 0), |(after_ms, linger_ms)| {
        (
            after_ms.clamp(1, MAX_EXPIRE_MS),
            linger_ms.min(MAX_EXPIRE_MS),
        )
    });
    out.put_u8(action);
    out.put_u8(check);
    out.put_u8(key.table.metered().into());
    out.put_u8(u8::from(*floor > 0) + 2 * u8::from(linger_ms > 0));
    out.put_u8(if announced { mark(key.table) } else { 0 });
    let passing = u64::from(index > 0 && key.table.passing());
    out.put_uint((passing << 15) | index as u64, 2);
    out.put_uint(ttl_ms, 6);
    out.put_uint(key.path.len() as u64, 4);
    out.put_uint(version.min(EXACT), 7);
    out.put_uint((*floor).min(EXACT), 7);
    out.put_uint(linger_ms, 6);
}

/// Bytes that [`write`] puts.
pub(super) const WRITE_BYTES: usize = 37;

/// A table's mark as one byte.
fn mark(table: Table) -> u8 {
    table.mark().as_bytes().first().copied().unwrap_or_default()
}

/// The table and path that a change names.
pub(super) fn change(field: &Bytes) -> Option<(Table, Bytes)> {
    let found = *field.first()?;
    let table = Table::ALL.into_iter().find(|&table| mark(table) == found)?;
    Some((table, field.slice(1..)))
}

/// What commit.lua answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Commit(Commit),
    /// Nothing was decided: more buckets are due, and usage may turn out lower.
    Again,
}

/// An applied reap: the state after it, and whether more is due.
pub(super) fn reaped(answer: &[u8]) -> Result<(State, bool)> {
    match answer.split_first() {
        Some((tag @ (b'K' | b'k'), state)) => Ok((State::read(Some(state))?, *tag == b'k')),
        Some((b'G', _)) => Ok((
            State {
                removed: true,
                ..State::default()
            },
            false,
        )),
        Some((b'M', _)) => Ok((State::default(), true)),
        _ => Err(unreadable()),
    }
}

fn unreadable() -> crate::store::Error {
    fault::corrupt("the commit script's answer is unreadable")
}

/// Reads what commit.lua answered to a batch.
pub(super) fn answer(mut answer: &[u8], batch: &Batch, exact: bool) -> Result<Answer> {
    if answer.is_empty() {
        return Err(unreadable());
    }
    let tag = answer.get_u8();
    let need = match tag {
        b'K' => {
            let before = if matches!(batch.step, Some(Step::Generation | Step::Remove)) {
                20
            } else {
                0
            };
            STATE_BYTES + before + OUTCOME_BYTES * batch.writes.len()
        }
        b'C' => 11,
        b'E' | b'B' | b'F' => 7,
        b'S' => 12,
        _ => 0,
    };
    if answer.len() < need {
        return Err(unreadable());
    }
    Ok(Answer::Commit(match tag {
        b'K' => {
            let state = State::read(answer.get(..STATE_BYTES))?;
            answer.advance(STATE_BYTES);
            let mut usage = state.usage(exact);
            if matches!(batch.step, Some(Step::Generation | Step::Remove)) {
                usage.entries = answer.get_uint(6);
                usage.bytes = answer.get_uint(7);
                usage.orphaned_bytes = answer.get_uint(7);
            }
            // The values of records that are shown stand behind the outcomes, in order.
            let mut values = answer.split_off(OUTCOME_BYTES * batch.writes.len()..);
            let values = values.as_mut().ok_or_else(unreadable)?;
            let outcomes = (0..batch.writes.len())
                .map(|write| outcome(&mut answer, values, batch, write))
                .collect::<Result<_>>()?;
            Commit::Applied(Applied {
                view: state.view,
                outcomes,
                usage,
            })
        }
        b'C' => {
            let write = answer.get_u32() as usize;
            Commit::Refused(Refusal::Conflict {
                write,
                found: nonzero(answer.get_uint(7)),
            })
        }
        b'E' | b'B' | b'F' => Commit::Refused(exceeded(tag, answer.get_uint(7), batch)),
        b'S' => Commit::Refused(Refusal::Stale(View {
            epoch: answer.get_uint(6),
            generation: answer.get_uint(6),
        })),
        b'G' => Commit::Refused(Refusal::Gone),
        b'W' => Commit::Refused(Refusal::Fenced),
        b'M' => return Ok(Answer::Again),
        _ => return Err(unreadable()),
    }))
}

/// Kind (done, conflict, exceeded, shown), a byte of it, version, when it ends.
const OUTCOME_BYTES: usize = 1 + 1 + 7 + 6;

fn outcome(answer: &mut &[u8], values: &mut &[u8], batch: &Batch, write: usize) -> Result<Outcome> {
    let (kind, detail) = (answer.get_u8(), answer.get_u8());
    let (number, expire_ms) = (answer.get_uint(7), answer.get_uint(6));
    Ok(match kind {
        0 => Outcome::Done {
            existed: detail == 1,
            version: number,
            expire_ms: nonzero(expire_ms),
        },
        1 => Outcome::Refused(Refusal::Conflict {
            write,
            found: nonzero(number),
        }),
        3 if detail == 0 => Outcome::Shown(None),
        3 => Outcome::Shown(Some(Record {
            version: number,
            expire_ms: nonzero(expire_ms),
            value: shown(values).ok_or_else(unreadable)?,
        })),
        _ => Outcome::Refused(exceeded(detail, number, batch)),
    })
}

/// The next value that is shown: its length, and it.
fn shown(values: &mut &[u8]) -> Option<Bytes> {
    let bytes = values.split_off(..4)?.get_u32();
    let value = values.split_off(..bytes as usize)?;
    Some(Bytes::copy_from_slice(value))
}

fn exceeded(tag: u8, used: u64, batch: &Batch) -> Refusal {
    let (metric, limit) = match tag {
        b'E' => (Metric::Entries, batch.limits.entries),
        b'F' => (Metric::Flushed, batch.limits.bytes),
        _ => (Metric::Bytes, batch.limits.bytes),
    };
    Refusal::Exceeded {
        metric,
        limit: limit.unwrap_or(u64::MAX),
        used,
    }
}

/// The first argument of reclaim.lua: orphans of generations below this one
/// (`last` ends the walk), or else entries of this generation up to a version.
pub(super) fn reclaim(orphans: bool, last: bool, generation: u64, version: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(15);
    out.put_u8(orphans.into());
    out.put_u8(last.into());
    out.put_uint(generation.min((1 << 48) - 1), 6);
    out.put_uint(version.min(EXACT), 7);
    out.freeze()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::store::{Error, Key};

    fn stored(format: u8, version: u64, expire_ms: u64, value: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(format);
        out.put_uint(version, 7);
        out.put_uint(expire_ms, 6);
        out.put_uint(expire_ms, 6);
        out.put_slice(value);
        out.freeze()
    }

    #[test]
    fn a_record_is_absent_from_the_millisecond_it_ends() {
        let bytes = stored(1, (1 << 53) - 1, 1000, b"value");
        let found = record(&bytes, 999).unwrap().unwrap();
        assert_eq!(
            (found.version, found.expire_ms, &found.value[..]),
            ((1 << 53) - 1, Some(1000), &b"value"[..])
        );
        assert_eq!(record(&bytes, 1000).unwrap(), None);
        assert_eq!(
            record(&stored(1, 1, 0, b""), u64::MAX)
                .unwrap()
                .unwrap()
                .expire_ms,
            None
        );
    }

    #[test]
    fn an_unreadable_record_is_damaged() {
        for bad in [
            Bytes::new(),
            Bytes::from_static(b"short"),
            stored(2, 1, 0, b"newer"),
        ] {
            assert!(matches!(record(&bad, 0), Err(Error::Corrupt(_))));
        }
    }

    #[test]
    fn arguments_have_the_length_the_script_reads() {
        assert_eq!(
            batch(&Batch::default(), Basis::Any, Way::Whole, (0, 0), b"").len(),
            BATCH_BYTES
        );
        let script = include_str!("commit.lua");
        assert!(script.contains(&format!("string.sub(ARGV[1], {})", BATCH_BYTES + 1)));
        let mut out = BytesMut::new();
        write(
            &mut out,
            &Write::put(Key::entry("a", "b"), "c").when(Check::Version(u64::MAX)),
            4,
            true,
        );
        assert_eq!(out.len(), WRITE_BYTES);
        assert_eq!(reclaim(true, true, u64::MAX, u64::MAX).len(), 15);
    }

    #[test]
    fn answers_cut_short_are_errors() {
        let batch = Batch::of([Write::delete(Key::entry("a", "b"))]);
        for bad in [&b""[..], b"K", b"C123", b"E1", b"S1", b"?"] {
            assert!(
                matches!(answer(bad, &batch, true), Err(Error::Corrupt(_))),
                "{bad:?}"
            );
        }
        assert_eq!(
            answer(b"G", &batch, true).unwrap(),
            Answer::Commit(Commit::Refused(Refusal::Gone))
        );
        assert_eq!(answer(b"M", &batch, true).unwrap(), Answer::Again);
    }

    #[test]
    fn changes_name_their_table() {
        let field = Bytes::from_static(b"tacme");
        assert_eq!(
            change(&field),
            Some((Table::Tenant, Bytes::from_static(b"acme")))
        );
        assert_eq!(change(&Bytes::from_static(b"?x")), None);
    }
}
