//! What this replica itself let through lately, by its own clock: the base of a
//! limit that must hold without the store. It does not know of other replicas.

use std::time::{Duration, Instant};

/// A span is looked at in so many slots.
const SLOTS: u64 = 60;

/// Slots kept: those of a span, and the one that is under way.
const KEPT: usize = 61;

/// Amounts by slot of time.
#[derive(Debug)]
pub(super) struct Recent {
    began: Instant,
    slot: Duration,
    /// The number of the latest slot; slot n lies at n modulo [`KEPT`].
    latest: u64,
    amounts: [u64; KEPT],
    sum: u64,
}

impl Recent {
    /// Nothing yet, of a span so long.
    pub(super) fn new(span_ms: u64, now: Instant) -> Self {
        Self {
            began: now,
            slot: Duration::from_millis((span_ms / SLOTS).max(1)),
            latest: 0,
            amounts: [0; KEPT],
            sum: 0,
        }
    }

    /// Adds what is let through now.
    pub(super) fn add(&mut self, amount: u64, now: Instant) {
        self.advance(now);
        if let Some(slot) = self.amounts.get_mut(place(self.latest)) {
            *slot = slot.saturating_add(amount);
            self.sum = self.sum.saturating_add(amount);
        }
    }

    /// What was let through in the span before now, and up to a slot before that.
    pub(super) fn sum(&mut self, now: Instant) -> u64 {
        self.advance(now);
        self.sum
    }

    /// How long until so much is left of what counts now.
    pub(super) fn wait(&mut self, left: u64, now: Instant) -> Duration {
        self.advance(now);
        let mut counts = self.sum;
        let oldest = self.latest.saturating_sub(SLOTS);
        for number in oldest..=self.latest {
            if counts <= left {
                break;
            }
            counts = counts.saturating_sub(self.amounts.get(place(number)).copied().unwrap_or(0));
            if counts <= left {
                let gone = self.slot.saturating_mul(narrow(number + SLOTS + 1));
                return (self.began + gone).saturating_duration_since(now);
            }
        }
        Duration::ZERO
    }

    /// Drops the slots that have left the span.
    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began).as_micros();
        let number = elapsed / self.slot.as_micros().max(1);
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        if number <= self.latest {
            return;
        }
        if number - self.latest >= KEPT as u64 {
            self.amounts = [0; KEPT];
            self.sum = 0;
        } else {
            for gone in self.latest + 1..=number {
                if let Some(slot) = self.amounts.get_mut(place(gone)) {
                    self.sum = self.sum.saturating_sub(*slot);
                    *slot = 0;
                }
            }
        }
        self.latest = number;
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number % KEPT as u64).unwrap_or(0)
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_let_through_counts_for_a_span_and_is_then_forgotten() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut recent = Recent::new(60_000, began);
        recent.add(3, at(0));
        recent.add(4, at(30_500));
        for (ms, sum) in [
            (30_500, 7),
            (60_999, 7),
            (61_000, 4),
            (90_500, 4),
            (91_000, 0),
        ] {
            assert_eq!(recent.sum(at(ms)), sum, "{ms}");
        }
        recent.add(5, at(1_000_000));
        assert_eq!(recent.sum(at(1_000_001)), 5);
    }

    #[test]
    fn the_wait_is_exact() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        for (first, second, left) in [(3, 4, 6), (3, 4, 4), (3, 4, 3), (3, 4, 0), (0, 9, 8)] {
            let mut recent = Recent::new(60_000, began);
            recent.add(first, at(100));
            recent.add(second, at(30_500));
            let wait = recent.wait(left, at(40_000));
            let until = at(40_000) + wait;
            assert!(recent.sum(until - Duration::from_millis(1)) > left);
            assert!(recent.sum(until) <= left, "{first} {second} {left}");
        }
        let mut recent = Recent::new(60_000, began);
        assert_eq!(recent.wait(0, at(5)), Duration::ZERO);
    }
}
