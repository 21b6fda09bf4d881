//! How the meters of a space move, and how their openings lie in the file. It
//! does not know what moves them.

use super::{
    super::{Opening, Reading, Unit},
    layout::{self, decode, encode},
    state::{State, halves, whole_of},
};

impl State {
    /// Moves the meters on to a moment before which so many bytes were held. What
    /// this is the first move of, it opens.
    pub(super) fn advance(
        &mut self,
        held_bytes: u64,
        at_ms: u64,
    ) -> impl Iterator<Item = (Unit, Opening)> {
        let before = self.reading;
        let first = before.at_ms == 0;
        // Nothing is known of what was held before the first move.
        let held_bytes = if first { 0 } else { held_bytes };
        self.reading = before.advanced(held_bytes, at_ms);
        Unit::ALL.into_iter().filter_map(move |unit| {
            let start_ms = unit.start_ms(at_ms);
            (first || start_ms > unit.start_ms(before.at_ms)).then_some((
                unit,
                Opening {
                    start_ms,
                    before,
                    held_bytes,
                },
            ))
        })
    }
}

/// What the keys of a unit's openings begin with.
pub(super) fn ring(prefix: &[u8], unit: Unit) -> Vec<u8> {
    let mark = match unit {
        Unit::Minute => b'm',
        Unit::Hour => b'h',
        Unit::Day => b'd',
    };
    layout::join(prefix, &[mark])
}

/// An opening's key: its place in the ring.
pub(super) fn place(prefix: &[u8], unit: Unit, start_ms: u64) -> Vec<u8> {
    let place = (start_ms / unit.ms()) % unit.kept();
    let mut key = ring(prefix, unit);
    key.extend_from_slice(&place.to_be_bytes());
    key
}

/// Whether an opening of then may still be relied on: no later one can have taken
/// the place of any that began after it.
pub(super) fn kept(unit: Unit, start_ms: u64, now_ms: u64) -> bool {
    start_ms.saturating_add(unit.kept() * unit.ms()) > unit.start_ms(now_ms)
}

pub(super) fn encode_opening(opening: &Opening) -> [u8; 56] {
    let Opening {
        start_ms,
        before,
        held_bytes,
    } = opening;
    let (high, low) = halves(before.byte_ms);
    encode([
        *start_ms,
        *held_bytes,
        before.at_ms,
        high,
        low,
        before.operations,
        before.bytes,
    ])
}

pub(super) fn decode_opening(bytes: &[u8]) -> Option<Opening> {
    let [start_ms, held_bytes, at_ms, high, low, operations, carried] = decode(bytes)?;
    Some(Opening {
        start_ms,
        before: Reading {
            at_ms,
            byte_ms: whole_of(high, low),
            operations,
            bytes: carried,
        },
        held_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_reads_as_it_was_written() {
        let opening = Opening {
            start_ms: 1,
            before: Reading {
                at_ms: 2,
                byte_ms: u128::MAX - 3,
                operations: 4,
                bytes: 5,
            },
            held_bytes: 6,
        };
        assert_eq!(decode_opening(&encode_opening(&opening)), Some(opening));
        assert_eq!(decode_opening(b"short"), None);
    }

    #[test]
    fn the_first_move_in_a_unit_opens_it() {
        let mut state = State::default();
        let mut moved = |held_bytes, at_ms| -> Vec<(Unit, u64, u64)> {
            state
                .advance(held_bytes, at_ms)
                .map(|(unit, opening)| (unit, opening.start_ms, opening.held_bytes))
                .collect()
        };
        let day = Unit::Day.ms();
        let all = [
            (Unit::Minute, day, 0),
            (Unit::Hour, day, 0),
            (Unit::Day, day, 0),
        ];
        assert_eq!(moved(9, day + 5), all, "whatever is held before the first");
        assert_eq!(moved(10, day + 59_999), []);
        assert_eq!(moved(20, day + 60_000), [(Unit::Minute, day + 60_000, 20)]);
        let hour = day + Unit::Hour.ms();
        let later = [(Unit::Minute, hour + 120_000, 30), (Unit::Hour, hour, 30)];
        assert_eq!(moved(30, hour + 125_000), later);
        let sum = 10 * 59_994 + 20 + 30 * (Unit::Hour.ms() + 65_000);
        assert_eq!(state.reading.byte_ms, u128::from(sum));
    }

    #[test]
    fn an_opening_is_kept_until_its_place_is_taken() {
        for unit in Unit::ALL {
            let start_ms = unit.start_ms(1_795_521_600_123);
            let turn_ms = unit.kept() * unit.ms();
            assert!(kept(unit, start_ms, start_ms + turn_ms - 1));
            assert!(!kept(unit, start_ms, start_ms + turn_ms));
            let key = |start_ms| place(b"p", unit, start_ms);
            assert_eq!(key(start_ms), key(start_ms + turn_ms));
            assert_ne!(key(start_ms), key(start_ms + unit.ms()));
        }
    }
}
