//! Points in time of spaces: what a space held at one moment, to be read while
//! writes go on. It does not know how a backend keeps what has changed since.

use super::{Cursor, Key, Record, Space, Usage, View};

/// Pins that one walk may be about, at most.
pub const MAX_PINS: usize = 256;

/// Bytes of values on a page of [`Store::pinned`](super::Store::pinned), about: a page
/// ends with the value that reaches them.
pub const PINNED_PAGE_BYTES: usize = 4 << 20;

/// Milliseconds that a pin may be kept for without a read.
pub(super) const KEPT_MS: std::ops::RangeInclusive<u64> = 100..=600_000;

/// How long a point in time is kept, and at what cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// For how many milliseconds it is kept without a read; 100 to 600,000. It may be
    /// kept for a quarter longer.
    pub for_ms: u64,
    /// At most so many bytes of records that have changed since, each counted as
    /// [`charge`](super::charge) and what it takes to find it. One more ends the pin,
    /// and never the commit that changes it. A backend that keeps no copies does not
    /// count them.
    pub copies_bytes: u64,
}

impl Default for Keep {
    /// A minute, and 256 MiB.
    fn default() -> Self {
        Self {
            for_ms: 60_000,
            copies_bytes: 256 << 20,
        }
    }
}

/// A point in time of a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The space.
    pub space: Space,
    /// Its view at that moment.
    pub view: View,
    /// What it counted then.
    pub usage: Usage,
    /// The last version that had been given; 0 where none had.
    pub version: u64,
    /// The moment, by the store's clock.
    pub at_ms: u64,
    /// How long it is kept.
    pub(super) keep: Keep,
    /// Tells it from other pins of the space.
    pub(super) id: [u8; 8],
}

/// What [`Store::pin`](super::Store::pin) came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// The space is pinned.
    Pinned(Pin),
    /// It is pinned already, and that pin is kept until then, or longer where it is
    /// read.
    Taken {
        /// By the store's clock.
        until_ms: u64,
    },
    /// The space was removed.
    Gone,
}

/// A page of what was pinned.
#[derive(Clone, Debug)]
pub struct PinnedPage {
    /// The records. Fewer than asked for, even none, does not mean the end.
    pub items: Vec<PinnedRecord>,
    /// The pins that were lost, by their places in the call, in order: all that the
    /// walk has found so until now.
    pub lost: Vec<usize>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// A record as it was when its space was pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedRecord {
    /// Whose it is: the place of the pin in the call.
    pub pin: usize,
    /// Its key.
    pub key: Key,
    /// The record, with its whole value.
    pub record: Record,
    /// Until when a metered record counts, and lingers: the end of its bucket. `None`
    /// where it never ends, or is not metered.
    pub counts_until_ms: Option<u64>,
}
