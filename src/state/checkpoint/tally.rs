//! How checkpoints and restores ended at this replica, for whoever asks. It does not
//! know how they are done.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Cause, Checkpoint};
use crate::histogram::{Histogram, Taken};

/// Bounds of the histogram of checkpoints, as multiples of those of calls.
const SCALE: u32 = 1000;

/// The kinds of checkpoints, as they are named in the contract.
const KINDS: [(Cause, &str); 4] = [
    (Cause::Manual, "MANUAL"),
    (Cause::Scheduled, "SCHEDULED"),
    (Cause::Shutdown, "SHUTDOWN"),
    (Cause::Safety, "SAFETY"),
];

/// How many ended well, and how many did not.
#[derive(Debug, Default)]
struct Ends {
    good: AtomicU64,
    failed: AtomicU64,
}

impl Ends {
    fn count(&self, good: bool) {
        let counter = if good { &self.good } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    fn now(&self) -> [u64; 2] {
        [self.good.load(Relaxed), self.failed.load(Relaxed)]
    }
}

/// What is counted of checkpoints and restores since the process began.
#[derive(Debug)]
pub struct Tally {
    checkpoints: [Ends; KINDS.len()],
    restores: Ends,
    took: Histogram,
    /// In seconds since 1970, by this machine's clock; 0 before the first.
    last_s: AtomicU64,
    last_bytes: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            checkpoints: Default::default(),
            restores: Ends::default(),
            took: Histogram::scaled(SCALE),
            last_s: AtomicU64::new(0),
            last_bytes: AtomicU64::new(0),
        }
    }
}

impl Tally {
    /// A checkpoint ended: it is there, or it is not.
    pub(super) fn checkpoint(&self, cause: Cause, took: Duration, taken: Option<&Checkpoint>) {
        let ends = KINDS.iter().zip(&self.checkpoints);
        if let Some((_, ends)) = ends.into_iter().find(|((kind, _), _)| *kind == cause) {
            ends.count(taken.is_some());
        }
        if let Some(taken) = taken {
            self.took.add(took);
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            self.last_s
                .store(now.unwrap_or_default().as_secs(), Relaxed);
            self.last_bytes.store(taken.size_bytes, Relaxed);
        }
    }

    /// A restore ended: all of it is done, or not.
    pub(in crate::state) fn restore(&self, done: bool) {
        self.restores.count(done);
    }

    /// How many checkpoints of each kind were taken, and failed.
    pub fn checkpoints(&self) -> impl Iterator<Item = (&'static str, [u64; 2])> {
        let ends = KINDS.iter().zip(&self.checkpoints);
        ends.map(|((_, name), ends)| (*name, ends.now()))
    }

    /// How many restores were done, and failed.
    pub fn restores(&self) -> [u64; 2] {
        self.restores.now()
    }

    /// How long those took that were taken.
    pub fn took(&self) -> Taken {
        self.took.taken()
    }

    /// When the last one was taken, in seconds since 1970, and its bytes; `None` before
    /// the first.
    pub fn last(&self) -> Option<(u64, u64)> {
        match self.last_s.load(Relaxed) {
            0 => None,
            at => Some((at, self.last_bytes.load(Relaxed))),
        }
    }
}
