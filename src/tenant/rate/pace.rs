//! How fast permits are drawn, and how many are worth asking for at once. It does
//! not know how many there are.

use std::time::{Duration, Instant};

/// A lease is to last so long at the pace of its draws.
const WORTH: Duration = Duration::from_millis(75);

/// A pace is measured over at least so long.
const MEASURED: Duration = Duration::from_millis(50);

/// From so many permits in [`WORTH`] on, more are asked for before the last are
/// drawn; slower callers wait for a trip now and then.
const BRISK: u64 = 4;

/// The pace of draws.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    drawn: u64,
    target: u64,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            drawn: 0,
            target: 0,
        }
    }

    /// Notes a draw.
    pub(super) fn draw(&mut self, amount: u64) {
        self.drawn = self.drawn.saturating_add(amount);
    }

    /// Whether draws come so fast that more permits should be at hand in time.
    pub(super) fn is_brisk(&self) -> bool {
        self.target >= BRISK
    }

    /// How many permits the next lease should hold.
    pub(super) fn target(&mut self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since);
        let worth = u128::from(self.drawn) * WORTH.as_micros() / elapsed.as_micros().max(1);
        let worth = u64::try_from(worth).unwrap_or(u64::MAX);
        if elapsed >= MEASURED {
            *self = Self {
                since: now,
                drawn: 0,
                target: worth,
            };
        } else {
            // A few draws in a moment are no pace yet, so it is doubled at most.
            let doubled = self.target.max(1).saturating_mul(2);
            self.target = worth.min(doubled).max(self.target);
        }
        self.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_grows_to_what_is_drawn_in_75_ms_and_shrinks_again() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut pace = Pace::new(began);
        // 10 a millisecond.
        let mut targets = Vec::new();
        for ms in 1..=100 {
            pace.draw(10);
            targets.push(pace.target(at(ms)));
        }
        assert_eq!(targets.first(), Some(&2));
        assert_eq!(targets.get(1), Some(&4));
        assert_eq!(targets.last(), Some(&750));
        assert!(pace.is_brisk());
        pace.draw(1);
        assert_eq!(pace.target(at(10_000)), 0);
        assert!(!pace.is_brisk());
    }
}
