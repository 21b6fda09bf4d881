//! What is kept of a space: its view, what it counts, its meters. It does not
//! know when any of it changes.

use super::{
    super::{Reading, Table, Usage, View},
    layout::{decode, encode},
};

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
    /// Metered records whose time was over.
    pub(super) expired: u64,
    /// Its meters after the last move; at 0 where nothing ever moved them.
    pub(super) reading: Reading,
    /// Since when it takes no more writes; 0 while it does.
    pub(super) fenced_ms: u64,
}

/// Words of states that knew no meters, or not what expired.
const FORMER_WORDS: [usize; 2] = [11, 16];
/// Words of a state, but for that of a space that is fenced: a release that knows no
/// fence must not write there.
const WORDS: usize = 17;
const FENCED_WORDS: usize = WORDS + 1;

impl State {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (high, low) = halves(self.reading.byte_ms);
        let mut encoded: Vec<u8> = encode::<WORDS, { WORDS * 8 }>([
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
            self.reading.at_ms,
            high,
            low,
            self.reading.operations,
            self.reading.bytes,
            self.expired,
        ])
        .into();
        if self.fenced_ms > 0 {
            encoded.extend_from_slice(&self.fenced_ms.to_le_bytes());
        }
        encoded
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (bytes, fenced_ms) = match bytes.split_last_chunk() {
            Some((rest, fenced)) if bytes.len() == FENCED_WORDS * 8 => {
                (rest, u64::from_le_bytes(*fenced))
            }
            _ => (bytes, 0),
        };
        let mut whole = [0; WORDS * 8];
        if FORMER_WORDS.contains(&(bytes.len() / 8)) && bytes.len().is_multiple_of(8) {
            whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
        } else {
            whole = bytes.try_into().ok()?;
        }
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
            at_ms,
            high,
            low,
            operations,
            carried,
            expired,
        ] = decode(&whole)?;
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
            fenced_ms,
            expired,
            reading: Reading {
                at_ms,
                byte_ms: whole_of(high, low),
                operations,
                bytes: carried,
            },
        })
    }

    pub(super) fn view(&self) -> View {
        View {
            epoch: self.epoch,
            generation: self.generation,
        }
    }

    /// The view that readers are shown.
    pub(super) fn seen(&self) -> View {
        if self.gone_ms > 0 {
            View::GONE
        } else {
            self.view()
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            entries: self.entries,
            bytes: self.bytes,
            orphaned_bytes: self.orphaned,
            expired: self.expired,
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

/// The high and the low half.
pub(super) fn halves(number: u128) -> (u64, u64) {
    let high = u64::try_from(number >> 64).unwrap_or(u64::MAX);
    let low = u64::try_from(number & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    (high, low)
}

/// What [`halves`] took apart.
pub(super) fn whole_of(high: u64, low: u64) -> u128 {
    (u128::from(high) << 64) | u128::from(low)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_as_it_was_written() {
        let state = State {
            epoch: 1,
            gone_ms: 11,
            bytes: 5,
            expired: 15,
            reading: Reading {
                at_ms: 12,
                byte_ms: u128::MAX - 7,
                operations: 13,
                bytes: 14,
            },
            ..State::default()
        };
        assert_eq!(State::decode(&state.encode()), Some(state));
        assert_eq!(State::decode(b"short"), None);
        let fenced = State {
            fenced_ms: 16,
            ..state
        };
        assert_eq!(State::decode(&fenced.encode()), Some(fenced));
        let metered = State {
            expired: 0,
            ..state
        };
        assert_eq!(State::decode(&state.encode()[..128]), Some(metered));
        let unmetered = State {
            reading: Reading::default(),
            ..metered
        };
        assert_eq!(State::decode(&state.encode()[..88]), Some(unmetered));
        let mut longer = fenced.encode();
        longer.extend([0; 16]);
        for bytes in [87, 96, 120, 135, 152] {
            assert_eq!(State::decode(&longer[..bytes]), None, "{bytes}");
        }
    }
}
