//! What the store is asked for, what it is told with that, and what follows from
//! its answer. It does not know who needs the permits.

use std::time::{Duration, Instant};

use super::{Held, Ledger, Over, Refusal};
use crate::store::{Lease, Leased};

/// Permits asked for at least far from the limit, as a part of it, so that slow
/// callers need no trip each.
const FAR_PART: u64 = 1000;

/// And not more than so many.
const FAR_FLOOR: u64 = 16;

/// A lease takes at most this part of the limit, whatever the pace.
const MOST_PART: u64 = 10;

/// A refusal is taken for granted at most so long: others may give permits back.
const REFUSED: Duration = Duration::from_millis(500);

/// Amounts whose refusal is remembered.
const REFUSALS: usize = 4;

/// How long the store is left alone after it did not answer.
const DOWN: Duration = Duration::from_millis(250);

/// Permits that wait to be given back are told of so soon.
const SOON: Duration = Duration::from_millis(50);

/// What is asked of the store.
#[derive(Debug)]
pub(in crate::tenant::rate) struct Ask {
    pub(in crate::tenant::rate) lease: Lease,
    at: Instant,
    gone: Option<Instant>,
}

impl Ledger {
    /// What to ask the store for, where at least so many are missing; `None` where
    /// it is being asked.
    pub(in crate::tenant::rate) fn ask(
        &mut self,
        least: u64,
        replicas: u64,
        now: Instant,
    ) -> Option<Ask> {
        if self.asking || self.down_until.is_some_and(|until| now < until) {
            return None;
        }
        let floor = match self.is_far() {
            true => (self.limit / FAR_PART).min(FAR_FLOOR),
            false => 0,
        };
        let want = self.pace.target(now).max(floor);
        let want = want.min(self.limit / MOST_PART).max(self.waiting);
        let lease = Lease {
            want: want.max(least),
            least,
            share: replicas.clamp(1, 16),
            ..Lease::default()
        };
        Some(self.send(lease, now))
    }

    /// What there is to tell the store although nobody needs permits.
    pub(in crate::tenant::rate) fn tell(&mut self, now: Instant) -> Option<Ask> {
        self.retire(now);
        self.over.retain(|over| now < over.gone);
        let down = self.down_until.is_some_and(|until| now < until);
        let told = self.forced > 0 || self.over.iter().any(|over| over.settle.unused > 0);
        (told && !down && !self.asking).then(|| self.send(Lease::default(), now))
    }

    /// When to look again for what there may be to tell; `None` where there is
    /// nothing, and then nobody looks any more.
    pub(in crate::tenant::rate) fn look_again(&mut self, now: Instant) -> Option<Instant> {
        let unused = self.over.iter().any(|over| over.settle.unused > 0);
        let last = self.held.iter().map(|held| held.until).max();
        let at = if self.forced > 0 || unused {
            Some(now + SOON)
        } else {
            last.map(|last| last.max(now) + Duration::from_millis(1))
        };
        self.kept = at.is_some();
        at
    }

    fn send(&mut self, lease: Lease, now: Instant) -> Ask {
        self.asking = true;
        // What others can use comes first.
        let next = self.over.iter().position(|over| over.settle.unused > 0);
        let over = match next {
            Some(at) => self.over.remove(at),
            None => self.over.pop_front(),
        };
        // What was let through while the store was down may be long ago.
        let forced = self.forced.min(self.recent.sum(now));
        self.forced = 0;
        Ask {
            gone: over.as_ref().map(|over| over.gone),
            lease: Lease {
                limit: self.limit,
                span_ms: self.span_ms,
                hold_ms: self.hold_ms(),
                share: lease.share.max(1),
                forced,
                settle: over.map(|over| over.settle),
                ..lease
            },
            at: now,
        }
    }

    /// Notes what the store answered.
    pub(in crate::tenant::rate) fn heard(&mut self, ask: &Ask, leased: Leased, now: Instant) {
        self.down_until = None;
        let lease = &ask.lease;
        if lease.span_ms != self.span_ms {
            return;
        }
        self.counted = Some(leased.counted);
        let held = Held {
            until: ask.at + Duration::from_millis(lease.hold_ms),
            until_ms: leased.until_ms,
            granted: leased.granted,
            left: leased.granted,
        };
        if lease.limit != self.limit {
            if held.granted > 0 {
                self.end(&held, now);
            }
        } else if held.granted > 0 {
            self.refusals.clear();
            self.held.push_back(held);
        } else if lease.want > 0 {
            let wait = leased
                .retry_after_ms
                .map(|ms| Duration::from_millis(ms.max(1)));
            if self.refusals.len() >= REFUSALS {
                self.refusals.clear();
            }
            self.refusals.push(Refusal {
                amount: lease.least,
                retry: wait.map(|wait| now + wait),
                stands: now + wait.unwrap_or(REFUSED).min(REFUSED),
            });
        }
    }

    /// Notes that the store did not answer; `sent` says whether it may have heard.
    pub(in crate::tenant::rate) fn failed(&mut self, ask: &Ask, sent: bool, now: Instant) {
        self.down_until = Some(now + DOWN);
        if !sent {
            self.forced = self.forced.saturating_add(ask.lease.forced);
            if let (Some(settle), Some(gone)) = (ask.lease.settle, ask.gone)
                && ask.lease.span_ms == self.span_ms
            {
                self.over.push_front(Over { gone, settle });
            }
        }
    }

    /// Notes that nobody asks the store any more.
    pub(in crate::tenant::rate) fn asked(&mut self) {
        self.asking = false;
    }
}
