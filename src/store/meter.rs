//! What is counted beside the records: the meters that a space's commits move,
//! rows of counters, and windows that permits are leased from. It knows no
//! metric by name, and no price.

use bytes::Bytes;

use super::{Cursor, Key, Space};

/// What a commit adds to the meters of its space, if it is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// Operations.
    pub operations: u64,
    /// Bytes that were carried.
    pub bytes: u64,
}

/// The meters of a space as of one moment. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The moment, by the store's clock.
    pub at_ms: u64,
    /// The integral of the space's metered bytes over time, in bytes times
    /// milliseconds. A record counts from the commit that wrote it until the one
    /// that removed it or the end of its bucket, whichever came first, to the
    /// millisecond, whenever that is found out.
    pub byte_ms: u128,
    /// Operations that commits metered.
    pub operations: u64,
    /// Bytes that commits metered.
    pub bytes: u64,
}

impl Reading {
    /// The reading at a later moment, where `held_bytes` were held since.
    #[must_use]
    pub fn advanced(self, held_bytes: u64, at_ms: u64) -> Self {
        let elapsed = at_ms.saturating_sub(self.at_ms);
        Self {
            at_ms: self.at_ms.max(at_ms),
            byte_ms: self.byte_ms + u128::from(held_bytes) * u128::from(elapsed),
            ..self
        }
    }
}

/// The units of time that readings are kept at the borders of. All begin at
/// 1970-01-01T00:00Z, as UTC's minutes, hours and days do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// A minute; kept for 2 days.
    Minute,
    /// An hour; kept for 60 days.
    Hour,
    /// A day; kept for 2 years.
    Day,
}

impl Unit {
    /// All units.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its length.
    pub const fn ms(self) -> u64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// How many of them are kept: openings lie in a ring of so many places.
    pub const fn kept(self) -> u64 {
        match self {
            Self::Minute => 2 * 24 * 60,
            Self::Hour => 60 * 24,
            Self::Day => 2 * 366,
        }
    }

    /// When the one that this moment lies in began.
    pub const fn start_ms(self, at_ms: u64) -> u64 {
        at_ms - at_ms % self.ms()
    }
}

/// How the meters stood when something first moved them in a unit of time: the
/// reading of the move before, and what was held from then until this one. A unit
/// in which nothing moved has none, so idle spaces cost nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// When the unit began.
    pub start_ms: u64,
    /// The meters after the last move before the unit.
    pub before: Reading,
    /// Bytes held from `before.at_ms` until the first move in the unit.
    pub held_bytes: u64,
}

/// The meters of a space, now and at the borders of one [`Unit`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meters {
    /// The meters after the last move: a commit, or a bucket's end.
    pub last: Reading,
    /// Bytes held since then.
    pub held_bytes: u64,
    /// The moment this is as of, by the store's clock; no earlier than the last move.
    pub now_ms: u64,
    /// Openings, by `start_ms`, oldest first.
    pub openings: Vec<Opening>,
}

impl Meters {
    /// The meters now.
    pub fn now(&self) -> Reading {
        self.last.advanced(self.held_bytes, self.now_ms)
    }

    /// The meters as they stood at a border of the unit, or stand now where that
    /// is earlier. Exact as far back as openings are kept; all 0 before the
    /// space's first commit.
    pub fn at(&self, border_ms: u64) -> Reading {
        let after = self
            .openings
            .partition_point(|opening| opening.start_ms < border_ms);
        match self.openings.get(after) {
            // Nothing moved from `before` until a unit that began no earlier than this.
            Some(opening) => opening.before.advanced(opening.held_bytes, border_ms),
            None => self
                .last
                .advanced(self.held_bytes, border_ms.min(self.now_ms)),
        }
    }
}

/// The largest figure a counter can show.
pub const MAX_COUNT: u64 = 1_000_000_000_000_000_000;

/// Amounts to be added to rows of counters, all in one step or none, and once.
///
/// What was added before is a duplicate, whatever bars it now; what is barred is so,
/// whatever limit it would pass. Neither these nor a refusal use up a stamp or a
/// name. The adds are taken in order, and each sees those before it. A space that
/// was removed takes none.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Whose tally it is, where one that is sent again must add nothing.
    pub stamp: Option<Stamp>,
    /// What it tells of, where a second tally of the same must add nothing.
    pub once: Option<Once>,
    /// Records of the space that must be absent; at most 256.
    pub absent: Vec<Key>,
    /// The amounts. At most 256 rows, and 256 counts in all.
    pub adds: Vec<Add>,
}

/// Numbers the tallies of one source. One that is not above the last that was
/// added is a duplicate; the last is remembered for 2 days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The source, 1 to 1024 bytes: unique among all that ever write to the store.
    pub source: Bytes,
    /// Its number, from 1.
    pub sequence: u64,
}

/// Names what a tally tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The name: 1 to 1024 bytes.
    pub name: Bytes,
    /// How long it is remembered.
    pub keep_ms: u64,
}

/// Asks which names are remembered ([`Once`]) in spaces that nobody removed.
///
/// A name that is remembered throughout a walk comes at least once; one that began or
/// ended meanwhile may come. There is no order, and a name may come twice. One walk over
/// several spaces costs little more than one over the space that shares its server with
/// the most.
#[derive(Clone, Debug, Default)]
pub struct Recall {
    /// The spaces, each once, at most [`METER_SPACES`](super::METER_SPACES). All calls
    /// of a walk are given the same.
    pub spaces: Vec<Space>,
    /// Only names that begin so; likewise.
    pub prefix: Bytes,
    /// Where the page before ended; `None` begins.
    pub after: Option<Cursor>,
    /// About so many names; 1 to 1000.
    pub limit: usize,
}

/// A page of names that are remembered.
#[derive(Clone, Debug, Default)]
pub struct Recalled {
    /// The names. None does not mean the end.
    pub names: Vec<Remembered>,
    /// The spaces whose walk cannot be whole, because their server was replaced or gave
    /// them away, by their places in the call, in order: all that the walk has found so
    /// until now.
    pub lost: Vec<usize>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// A name that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// In which space: its place in the call.
    pub space: usize,
    /// The name.
    pub name: Bytes,
    /// Until when, by the store's clock: [`Once::keep_ms`] after its tally.
    pub until_ms: u64,
}

/// Amounts for the counters of one row.
#[derive(Clone, Debug)]
pub struct Add {
    /// The row's name: 1 to 1024 bytes.
    pub row: Bytes,
    /// How long the row is kept after this, whatever was said before; `None` means
    /// for ever.
    pub keep_ms: Option<u64>,
    /// The amounts, at most 64, of counters that differ. A counter is there from its
    /// first amount on, even at 0; without any, the row is left as it is.
    pub counts: Vec<Count>,
}

/// An amount for one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The counter's name in its row: 1 to 1024 bytes.
    pub name: Bytes,
    /// What is added. A negative amount takes away, down to 0 and no further.
    pub amount: i64,
    /// What the counter may show after it, at most; not looked at where the amount
    /// is not positive.
    pub limit: Option<u64>,
}

/// What came of a tally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tallied {
    /// All was added: what the counters show now, for each [`Add`] in order.
    Added(Vec<Vec<u64>>),
    /// It had been added before; nothing was.
    Duplicate,
    /// A record of [`Tally::absent`] is there; nothing was added.
    Barred {
        /// Its place among them.
        key: usize,
    },
    /// A counter would pass its limit, or [`MAX_COUNT`]; nothing was added.
    Exceeded {
        /// The place of the [`Add`].
        add: usize,
        /// The place of the [`Count`] in it.
        count: usize,
        /// The limit.
        limit: u64,
        /// What the counter shows.
        used: u64,
    },
}

/// The counters of a row, by name; a row that is absent has none.
pub type Row = Vec<(Bytes, u64)>;

/// Asks for permits of a window: at most `limit` of them may be used in any
/// `span_ms` by the store's clock.
///
/// Permits that were leased count from now until `span_ms` after the lease ends,
/// rounded up to a slot ([`slot_ms`]), so that the limit holds whenever in the
/// lease each is used. One that was used sooner, or not at all, is told of with
/// [`Settle`]. What was settled is taken first, then what is forced, then what can
/// be given.
///
/// Leases are durable within a second: a crash of the store may forget those of
/// its last second.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// The window's name: 1 to 1024 bytes.
    pub window: Bytes,
    /// Permits in any span.
    pub limit: u64,
    /// The span: 1 s to 31 days.
    pub span_ms: u64,
    /// Permits wanted; 0 only asks.
    pub want: u64,
    /// Fewer than so many are of no use. Not more than `want`.
    pub least: u64,
    /// This part of the free permits is given beyond `least`, as far as they are
    /// free and wanted: 1 gives all, 4 a quarter, rounded down.
    pub share: u64,
    /// How long they may be used. Not more than a tenth of the span.
    pub hold_ms: u64,
    /// Permits counted as used now whatever the limit, beside those leased.
    pub forced: u64,
    /// What became of an earlier lease. Must be told once only: whoever cannot
    /// know whether it arrived keeps silent, and the permits count to their end.
    pub settle: Option<Settle>,
}

/// What became of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settle {
    /// [`Leased::until_ms`] of it.
    pub until_ms: u64,
    /// Permits used; they count from now on as used now, if that is sooner.
    pub used: u64,
    /// Permits that never will be; they are free again.
    pub unused: u64,
}

/// What came of a [`Lease`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leased {
    /// Permits given: none, or `least` to `want`.
    pub granted: u64,
    /// Until when they may be used, by the store's clock: the end of a slot, no
    /// sooner than `hold_ms` away. Told as well where none were given.
    pub until_ms: u64,
    /// Permits that count now, those given included.
    pub counted: u64,
    /// Where none were given: the wait until `least` are free if nobody takes any,
    /// to the slot's end. `None` where more than the limit were asked for.
    pub retry_after_ms: Option<u64>,
}

/// The width of a window's slots: a 600th of the span, and at least 1 ms.
pub const fn slot_ms(span_ms: u64) -> u64 {
    if span_ms < 1200 { 1 } else { span_ms / 600 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_border_is_read_off_the_next_opening_or_off_the_last_move() {
        let reading = |at_ms, byte_ms, operations| Reading {
            at_ms,
            byte_ms,
            operations,
            bytes: 0,
        };
        // 10 bytes from 1 s on, 30 bytes from 200 s on, and nothing since.
        let meters = Meters {
            last: reading(200_000, 1_990_000, 2),
            held_bytes: 30,
            now_ms: 400_000,
            openings: vec![
                Opening {
                    start_ms: 0,
                    before: Reading::default(),
                    held_bytes: 0,
                },
                Opening {
                    start_ms: 180_000,
                    before: reading(1_000, 0, 1),
                    held_bytes: 10,
                },
            ],
        };
        for (border_ms, byte_ms, operations) in [
            (0, 0, 0),
            (60_000, 590_000, 1),
            (180_000, 1_790_000, 1),
            (240_000, 3_190_000, 2),
            (360_000, 6_790_000, 2),
            (420_000, 7_990_000, 2),
        ] {
            let at = meters.at(border_ms);
            assert_eq!(
                (at.byte_ms, at.operations),
                (byte_ms, operations),
                "{border_ms}"
            );
        }
        assert_eq!(meters.now().byte_ms, 7_990_000);
        assert_eq!(Meters::default().at(0), Reading::default());
    }

    #[test]
    fn units_begin_where_utc_has_them() {
        let noon = 1_795_521_600_123;
        for unit in Unit::ALL {
            assert_eq!(unit.start_ms(noon) % unit.ms(), 0);
            assert!(noon - unit.start_ms(noon) < unit.ms());
        }
    }
}
