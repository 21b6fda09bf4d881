//! How often each method of the port was called, what came of it and how long it took. It
//! does not know who called.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::histogram::{Histogram, Taken};

/// What can come of a call.
const OUTCOMES: [&str; 14] = [
    "ok",
    "applied",
    "refused",
    "added",
    "duplicate",
    "barred",
    "pinned",
    "unavailable",
    "outcome_unknown",
    "full",
    "unusable",
    "corrupt",
    "misuse",
    "abandoned",
];

/// What is counted of one method.
#[derive(Debug, Default)]
pub(super) struct Method {
    begun: AtomicU64,
    ended: [AtomicU64; OUTCOMES.len()],
    took: Histogram,
}

impl Method {
    /// A call begins.
    pub(super) fn begin(&self) -> Begun<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Begun {
            method: self,
            began: Instant::now(),
            ended: false,
        }
    }

    /// One ended so, after so long.
    fn end(&self, outcome: &str, took: Duration) {
        let at = OUTCOMES.iter().position(|known| *known == outcome);
        debug_assert!(at.is_some(), "{outcome} is no outcome");
        if let Some(ended) = at.and_then(|at| self.ended.get(at)) {
            ended.fetch_add(1, Ordering::Relaxed);
        }
        self.took.add(took);
    }

    fn ended(&self) -> Ended {
        let outcomes = OUTCOMES.iter().zip(&self.ended);
        let outcomes = outcomes.map(|(name, count)| (*name, count.load(Ordering::Relaxed)));
        Ended {
            outcomes: outcomes.filter(|(_, count)| *count > 0).collect(),
            took: self.took.taken(),
        }
    }
}

/// A call that began. Where it is let go before it ends, its caller has given it up.
#[derive(Debug)]
pub(super) struct Begun<'a> {
    method: &'a Method,
    began: Instant,
    ended: bool,
}

impl Begun<'_> {
    /// It ended so; how long it took.
    pub(super) fn end(mut self, outcome: &str) -> Duration {
        self.ended = true;
        let took = self.began.elapsed();
        self.method.end(outcome, took);
        took
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.method.end("abandoned", self.began.elapsed());
        }
    }
}

/// The calls of one method that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How many, by what came of them; none is 0.
    pub outcomes: Vec<(&'static str, u64)>,
    /// How long they took.
    pub took: Taken,
}

macro_rules! counted {
    ($($method:ident)*) => {
        /// How often a store was called, by method. Grows only.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub(super) $method: Method,)*
        }

        impl Counters {
            /// The counts now.
            pub fn calls(&self) -> Calls {
                Calls {
                    $($method: self.$method.begun.load(Ordering::Relaxed),)*
                }
            }

            /// The calls of each method that ended so far, by its name.
            pub fn ended(&self) -> Vec<(&'static str, Ended)> {
                vec![$((stringify!($method), self.$method.ended()),)*]
            }
        }

        /// Calls of each method of the port, as counted at one time.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub struct Calls {
            $(pub $method: u64,)*
        }

        impl Calls {
            /// What came on top of an earlier count.
            #[must_use]
            pub fn since(self, earlier: Self) -> Self {
                Self {
                    $($method: self.$method.saturating_sub(earlier.$method),)*
                }
            }
        }
    };
}

counted!(
    read commit list usage meters tally rows recall lease audit reclaim pin pinned unpin changes
    notes ping close
);
