//! What state.lua keeps of a space: its view, counters and meters, and the openings
//! of units of time. It does not know what moves them.

use bytes::{Buf, BufMut, BytesMut};

use super::fault;
use crate::store::{Opening, Reading, Result, Usage, View};

/// The format of states, and of those before it: without what expired, and
/// without meters.
const FORMAT: u8 = 3;
/// The same of a space that is fenced: a release that knows no fence must not write.
const FENCED_FORMAT: u8 = 4;
/// The same while the space is pinned: what is known of the pin follows, and a release
/// that knows no pin must not write.
const PINNED_FORMAT: u8 = 5;
const METERED_FORMAT: u8 = 2;
const FORMER_FORMAT: u8 = 1;
const FORMER_BYTES: usize = 2 + 6 + 6 + 7 + 7 + 6 + 7 + 6 + 6;
const METERED_BYTES: usize = FORMER_BYTES + 6 + 6 + 6 + 7 + 8;
/// Bytes of a state, without what follows where it is pinned.
pub(super) const STATE_BYTES: usize = METERED_BYTES + 6;

/// A space's view and counters; one that was never written has none but zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) removed: bool,
    pub(super) view: View,
    /// The last version given.
    pub(super) version: u64,
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) orphaned: u64,
    /// Buckets that end here or before are no longer counted.
    pub(super) watermark_ms: u64,
    /// The end of the first bucket; 0 where there is none.
    pub(super) due_ms: u64,
    /// The meters after their last move; all 0 before the first.
    pub(super) last: Reading,
    /// Metered records whose time was over.
    pub(super) expired: u64,
}

impl State {
    /// Reads a stored state; nothing or an empty text is a space without one.
    pub(super) fn read(stored: Option<&[u8]>) -> Result<Self> {
        let Some(mut stored) = stored.filter(|stored| !stored.is_empty()) else {
            return Ok(Self::default());
        };
        let (metered, expiring) = match (stored.get_u8(), stored.len() + 1) {
            (PINNED_FORMAT | FENCED_FORMAT | FORMAT, STATE_BYTES..) => (true, true),
            (METERED_FORMAT, METERED_BYTES..) => (true, false),
            (FORMER_FORMAT, FORMER_BYTES..) => (false, false),
            _ => return Err(fault::corrupt("the state of a space is unreadable")),
        };
        let removed = stored.get_u8() == 1;
        let view = View {
            epoch: stored.get_uint(6),
            generation: stored.get_uint(6),
        };
        let version = stored.get_uint(7);
        let bytes = stored.get_uint(7);
        let entries = stored.get_uint(6);
        let orphaned = stored.get_uint(7);
        let watermark_ms = stored.get_uint(6);
        let due_ms = stored.get_uint(6);
        let last = if metered {
            reading(&mut stored)
        } else {
            Reading::default()
        };
        let expired = if expiring { stored.get_uint(6) } else { 0 };
        Ok(Self {
            removed,
            view,
            version,
            bytes,
            entries,
            orphaned,
            watermark_ms,
            due_ms,
            last,
            expired,
        })
    }

    /// The view that readers are shown.
    pub(super) fn seen(&self) -> View {
        if self.removed { View::GONE } else { self.view }
    }

    /// Bytes held since the meters' last move.
    pub(super) fn held_bytes(&self) -> u64 {
        // A state of the former format has no meters yet, whatever it holds.
        if self.last.at_ms > 0 { self.bytes } else { 0 }
    }

    pub(super) fn usage(&self, exact: bool) -> Usage {
        Usage {
            entries: self.entries,
            bytes: self.bytes,
            orphaned_bytes: self.orphaned,
            expired: self.expired,
            exact,
        }
    }
}

/// A reading: its moment, the integral in wholes of 2^48 and the rest, operations,
/// bytes carried.
fn reading(stored: &mut &[u8]) -> Reading {
    Reading {
        at_ms: stored.get_uint(6),
        byte_ms: u128::from(stored.get_uint(6)) << 48 | u128::from(stored.get_uint(6)),
        operations: stored.get_uint(7),
        bytes: stored.get_u64(),
    }
}

/// The start of the unit, the reading before it, and what was held from then on.
const OPENING_BYTES: usize = 6 + 6 + 6 + 6 + 7 + 8 + 7;

/// The wholes of 2^48 of an integral, and the rest.
pub(super) fn halves(byte_ms: u128) -> (u64, u64) {
    let rest = byte_ms & ((1 << 48) - 1);
    // Both have 48 bits: no space holds so much for so long that they would not do.
    (
        u64::try_from(byte_ms >> 48).unwrap_or(u64::MAX),
        u64::try_from(rest).unwrap_or_default(),
    )
}

/// Writes an opening as [`openings`] reads it.
pub(super) fn put_opening(out: &mut BytesMut, opening: &Opening) {
    let Opening {
        start_ms,
        before,
        held_bytes,
    } = opening;
    let (high, low) = halves(before.byte_ms);
    out.put_uint(*start_ms, 6);
    out.put_uint(before.at_ms, 6);
    out.put_uint(high, 6);
    out.put_uint(low, 6);
    out.put_uint(before.operations, 7);
    out.put_u64(before.bytes);
    out.put_uint(*held_bytes, 7);
}

/// Openings as they lie in their pages, one behind the other.
pub(super) fn openings(pages: &[u8]) -> Result<Vec<Opening>> {
    let (openings, rest) = pages.as_chunks::<OPENING_BYTES>();
    if !rest.is_empty() {
        return Err(fault::corrupt("the openings of a space are unreadable"));
    }
    Ok(openings
        .iter()
        .map(|opening| {
            let mut opening = &opening[..];
            Opening {
                start_ms: opening.get_uint(6),
                before: reading(&mut opening),
                held_bytes: opening.get_uint(7),
            }
        })
        .collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::store::Error;

    #[test]
    fn a_space_without_a_state_is_new() {
        assert_eq!(State::read(None).unwrap(), State::default());
        assert_eq!(State::read(Some(b"")).unwrap(), State::default());
        assert!(matches!(State::read(Some(b"\x02")), Err(Error::Corrupt(_))));
    }

    /// Bytes, watermark and the first bucket's end are 1000, 2000 and 3000.
    fn stored(format: u8, meters: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_slice(&[format, 0]);
        for (number, bytes) in [
            (7, 6),
            (1, 6),
            (9, 7),
            (1000, 7),
            (2, 6),
            (0, 7),
            (2000, 6),
            (3000, 6),
        ] {
            out.put_uint(number, bytes);
        }
        out.put_slice(meters);
        out
    }

    #[test]
    fn a_state_of_the_former_format_has_no_meters_yet() {
        let state = State::read(Some(&stored(1, &[]))).unwrap();
        assert_eq!(
            (state.view.epoch, state.bytes, state.due_ms),
            (7, 1000, 3000)
        );
        assert_eq!((state.last, state.held_bytes()), (Reading::default(), 0));
        for bad in [
            stored(1, &[])[..52].to_vec(),
            stored(2, &[0; 32]).to_vec(),
            stored(3, &[0; 38]).to_vec(),
            stored(6, &[0; 38]).to_vec(),
        ] {
            assert!(matches!(State::read(Some(&bad)), Err(Error::Corrupt(_))));
        }
    }

    #[test]
    fn meters_beyond_what_lua_can_hold_are_read_whole() {
        let mut meters = BytesMut::new();
        for (number, bytes) in [(5000, 6), (3, 6), (4, 6), (6, 7)] {
            meters.put_uint(number, bytes);
        }
        meters.put_u64(u64::MAX);
        let state = State::read(Some(&stored(2, &meters))).unwrap();
        let last = Reading {
            at_ms: 5000,
            byte_ms: (3 << 48) + 4,
            operations: 6,
            bytes: u64::MAX,
        };
        assert_eq!((state.last, state.held_bytes()), (last, 1000));
        assert_eq!(state.expired, 0, "of a format that does not count them");
        let mut expiring = meters.clone();
        expiring.put_uint(8, 6);
        let state = State::read(Some(&stored(3, &expiring))).unwrap();
        assert_eq!((state.last, state.expired), (last, 8));
        let mut page = BytesMut::new();
        page.put_uint(60_000, 6);
        page.put_slice(&meters);
        page.put_uint(10, 7);
        let opening = Opening {
            start_ms: 60_000,
            before: last,
            held_bytes: 10,
        };
        let twice = [&page[..], &page[..]].concat();
        assert_eq!(openings(&twice).unwrap(), [opening, opening]);
        let mut again = BytesMut::new();
        put_opening(&mut again, &opening);
        assert_eq!(again, page);
        assert!(matches!(openings(&twice[1..]), Err(Error::Corrupt(_))));
    }
}
