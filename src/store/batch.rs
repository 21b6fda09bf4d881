//! What a commit is asked to do, and what became of it. It does not know how a
//! backend does it.

use bytes::Bytes;

use super::{Key, Metered, Meters, Record, Usage, View};

/// Writes that belong together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The view the writer relied on; refused as [`Refusal::Stale`] where the
    /// space has moved on. Needed where entries are written. `None` takes the
    /// space as it is.
    pub view: Option<View>,
    /// Whether a later epoch of the view's generation and era will do, for writes that
    /// do not rely on what snapshots hold. An earlier one never does: it is another
    /// space.
    pub later: bool,
    /// Whether the writes stand and fall together.
    pub mode: Mode,
    /// The writes, in order; at most [`MAX_WRITES`]. In [`Mode::Whole`] their keys must differ.
    pub writes: Vec<Write>,
    /// Limits on the space's usage, decided before anything grows beyond them.
    pub limits: Limits,
    /// A step of the space itself, taken with the writes.
    pub step: Option<Step>,
    /// What the space's meters grow by, if the batch is applied.
    pub metered: Metered,
    /// What is appended to the space's log in the same step, if the batch changes
    /// anything: a record, or the space by a step. At most [`MAX_NOTE_BYTES`].
    pub note: Option<Bytes>,
}

/// Writes of a batch: a commit is not to hold up others for long.
pub const MAX_WRITES: usize = 4096;

/// Bytes of a note.
pub const MAX_NOTE_BYTES: usize = 4096;

impl Batch {
    /// A batch of these writes, all or nothing, whatever the view.
    pub fn of(writes: impl IntoIterator<Item = Write>) -> Self {
        Self {
            writes: writes.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Whether it changed anything, where this came of it.
    pub(super) fn changed(&self, applied: &Applied) -> bool {
        let wrote = |(write, outcome): (&Write, &Outcome)| match (&write.action, outcome) {
            (Action::Put { .. }, Outcome::Done { .. }) => true,
            (Action::Touch(_) | Action::Delete, Outcome::Done { existed, .. }) => *existed,
            (_, Outcome::Shown(shown)) => shown.is_some(),
            _ => false,
        };
        self.step.is_some() || self.writes.iter().zip(&applied.outcomes).any(wrote)
    }
}

/// Whether the writes of a batch stand and fall together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All are applied, or the first that is refused refuses the batch.
    #[default]
    Whole,
    /// Each is decided on its own, in order, and sees those before it.
    Each,
}

/// One write of a batch.
#[derive(Clone, Debug)]
pub struct Write {
    /// What is written.
    pub key: Key,
    /// What must hold of the record before.
    pub check: Check,
    /// What happens to it.
    pub action: Action,
    /// A record whose version is at most this is hidden from the write: its check,
    /// its touch and its outcome take it as absent. A put still replaces it and a
    /// delete still removes it, uncounted as ever. 0 hides nothing.
    pub floor: u64,
}

impl Write {
    /// Puts a record that never expires, whatever was there.
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self::new(
            key,
            Check::Any,
            Action::Put {
                value: value.into(),
                expiry: Expiry::Never,
            },
        )
    }

    /// Removes a record, if it is there.
    pub fn delete(key: Key) -> Self {
        Self::new(key, Check::Any, Action::Delete)
    }

    /// Only checks.
    pub fn check(key: Key, check: Check) -> Self {
        Self::new(key, check, Action::Nothing)
    }

    /// A write that hides nothing.
    pub fn new(key: Key, check: Check, action: Action) -> Self {
        Self {
            key,
            check,
            action,
            floor: 0,
        }
    }

    /// The same write under a condition.
    #[must_use]
    pub fn when(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    /// The same write with the records up to this version hidden from it.
    #[must_use]
    pub fn above(mut self, floor: u64) -> Self {
        self.floor = floor;
        self
    }

    /// The same put with an expiry.
    #[must_use]
    pub fn expiring(mut self, after: Expiry) -> Self {
        if let Action::Put { expiry, .. } = &mut self.action {
            *expiry = after;
        }
        self
    }
}

/// What must hold of a record before it is written. A record whose time is over
/// is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// Nothing.
    #[default]
    Any,
    /// It is absent.
    Absent,
    /// It is there.
    Present,
    /// It is there, at this version.
    Version(u64),
}

/// What happens to a record.
#[derive(Clone, Debug)]
pub enum Action {
    /// It is put, with a new version.
    Put {
        /// Its bytes.
        value: Bytes,
        /// When it ends.
        expiry: Expiry,
    },
    /// It gets a new expiry and keeps its version; nothing happens where it is
    /// absent.
    Touch(Expiry),
    /// It is removed.
    Delete,
    /// It gets the expiry that its own value asks for, which begins with a
    /// [`Renewal`], and keeps its version and value; it is shown as it is then.
    /// Nothing happens where it is absent, or has come to [`Renewal::until_ms`].
    /// In [`Mode::Whole`] only.
    Renew,
    /// It is removed, and shown as it was. In [`Mode::Whole`] only.
    Take,
    /// Nothing; the check alone counts.
    Nothing,
}

/// When a record ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    #[default]
    Never,
    /// So many milliseconds after the commit, by the store's clock. At least 1.
    AfterMs(u64),
    /// Likewise, but the store keeps the record beyond its end, and counts it, for
    /// [`Store::read_lingering`](super::Store::read_lingering). For all else it is
    /// absent from its end.
    Lingering {
        /// When it ends, as [`Expiry::AfterMs`].
        after_ms: u64,
        /// For how many milliseconds more it is kept.
        linger_ms: u64,
    },
}

impl Expiry {
    /// In how many milliseconds the record ends, and for how many more it is kept;
    /// `None` means never.
    pub(super) const fn spans_ms(self) -> Option<(u64, u64)> {
        match self {
            Self::Never => None,
            Self::AfterMs(after_ms) => Some((after_ms, 0)),
            Self::Lingering {
                after_ms,
                linger_ms,
            } => Some((after_ms, linger_ms)),
        }
    }
}

/// What a record's value begins with that [`Action::Renew`] puts off the end of, so
/// that whoever renews it need not have read it. No other action looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// For how many milliseconds it is renewed.
    pub idle_ms: u64,
    /// Until when at most, by the store's clock.
    pub until_ms: u64,
}

impl Renewal {
    /// Bytes of it.
    pub const BYTES: usize = 12;

    /// The beginning of a value: 6 bytes each, big endian.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (place, span_ms) in bytes.chunks_exact_mut(6).zip([self.idle_ms, self.until_ms]) {
            let [_, _, rest @ ..] = span_ms.min((1 << 48) - 1).to_be_bytes();
            place.copy_from_slice(&rest);
        }
        bytes
    }

    /// Reads it; `None` where a value is too short.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8]| {
            let shift = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
            bytes.iter().fold(0, shift)
        };
        let (idle, until) = value.get(..Self::BYTES)?.split_at_checked(6)?;
        Some(Self {
            idle_ms: number(idle),
            until_ms: number(until),
        })
    }

    /// In how many milliseconds a record ends that is renewed now; `None` where its
    /// time is over.
    pub fn after_ms(self, now_ms: u64) -> Option<u64> {
        let left_ms = self.until_ms.saturating_sub(now_ms);
        Some(self.idle_ms.min(left_ms)).filter(|after_ms| *after_ms > 0)
    }
}

/// Limits on what a space counts after the commit. A commit that does not grow
/// a figure is never refused for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// At most so many metered records.
    pub entries: Option<u64>,
    /// At most so many bytes of them. Bytes of flushed generations that still
    /// await reclaim may add half as much again.
    pub bytes: Option<u64>,
}

/// A step of the space itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Snapshots must be taken anew: epoch + 1.
    Epoch,
    /// The same for all who hold one, also for writes that would take a later epoch:
    /// the first epoch of the next era.
    Era,
    /// Every entry disappears: generation + 1, epoch + 1; what was counted is
    /// orphaned until [`Reclaim::Orphans`](super::Reclaim::Orphans) has been through.
    Generation,
    /// The space is gone, and stays gone: every later commit is refused with
    /// [`Refusal::Gone`] for at least an hour, every read finds nothing. Its
    /// records are left to [`Reclaim::Orphans`](super::Reclaim::Orphans).
    Remove,
    /// The space takes no more writes, for good: every later commit is refused with
    /// [`Refusal::Fenced`], but [`Step::Remove`]. Reads go on as before.
    Fence,
    /// The space goes on from where another ended. In a batch that writes nothing.
    Inherit(Box<Inheritance>),
}

/// What a space takes over from another, which must not be written any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inheritance {
    /// Versions given from now on are above this one. Below 2^53.
    pub version: u64,
    /// The other's meters as they stood at [`Meters::now_ms`], and how they got
    /// there; the space's own are forgotten. Nothing counts as held from then until
    /// this commit, and what the space itself holds from this commit on. `None` leaves
    /// the space its own.
    pub meters: Option<Heritage>,
}

/// The meters of a space, by all units; see [`Inheritance::meters`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heritage {
    /// With openings of minutes.
    pub minutes: Meters,
    /// With openings of hours.
    pub hours: Meters,
    /// With openings of days; what they all tell beside their openings is taken from
    /// these.
    pub days: Meters,
    /// As [`Usage::expired`].
    pub expired: u64,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It was applied (in [`Mode::Each`]: as far as its outcomes say).
    Applied(Applied),
    /// Nothing was written.
    Refused(Refusal),
}

/// An applied batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The view after it.
    pub view: View,
    /// One for each write, in order.
    pub outcomes: Vec<Outcome>,
    /// What the space counts after it; with [`Step::Generation`] and
    /// [`Step::Remove`], what it counted before it.
    pub usage: Usage,
}

/// What became of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done {
        /// Whether there was a record before.
        existed: bool,
        /// The record's version now; for one that is absent now, 0.
        version: u64,
        /// When the record ends now.
        expire_ms: Option<u64>,
    },
    /// The record that [`Action::Renew`] or [`Action::Take`] shows; `None` where there
    /// was none.
    Shown(Option<Record>),
    /// It was refused, in [`Mode::Each`].
    Refused(Refusal),
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A check did not hold.
    Conflict {
        /// The write, by its place in the batch.
        write: usize,
        /// The version of the record that was found; `None` where it is absent.
        found: Option<u64>,
    },
    /// A limit would be passed.
    Exceeded {
        /// Which.
        metric: Metric,
        /// The limit.
        limit: u64,
        /// What is counted already.
        used: u64,
    },
    /// The view the writer relied on has passed; this is the present one.
    Stale(View),
    /// The space was removed.
    Gone,
    /// The space takes no more writes.
    Fenced,
}

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Records.
    Entries,
    /// Bytes.
    Bytes,
    /// Bytes, with those of flushed generations that await reclaim: time helps.
    Flushed,
}
