//! The store's clock as this process knows it: Redis TIME as an offset from a
//! monotonic clock. It does not know who asks Redis, or when.

use std::{
    sync::Mutex,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::moment;

/// Samples that the best one is taken from.
const SAMPLES: usize = 8;

/// The store's clock.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    /// Microseconds from `start` on the monotonic clock to 1970 on the store's.
    offset_us: AtomicI64,
    samples: Mutex<Vec<Sample>>,
}

/// An offset that is certain to half its round trip.
#[derive(Clone, Copy, Debug)]
struct Sample {
    offset_us: i64,
    error_us: i64,
}

impl Clock {
    /// Begins with the machine's clock.
    pub(super) fn new() -> Self {
        let machine = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            start: Instant::now(),
            offset_us: AtomicI64::new(micros(machine)),
            samples: Mutex::new(Vec::with_capacity(SAMPLES)),
        }
    }

    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        let now = moment::now().saturating_duration_since(self.start);
        let now_us = micros(now) + self.offset_us.load(Ordering::Relaxed);
        u64::try_from(now_us / 1000).unwrap_or_default()
    }

    /// Takes what the store's clock said between two moments. Of the last samples
    /// the one with the shortest round trip counts, unless the newest proves that
    /// the store's clock was set.
    pub(super) fn sample(&self, asked: Instant, answered: Instant, store_us: i64) {
        let asked_us = micros(asked.saturating_duration_since(self.start));
        let error_us = micros(answered.saturating_duration_since(asked)) / 2 + 1;
        let new = Sample {
            offset_us: store_us - asked_us - error_us,
            error_us,
        };
        let Ok(mut samples) = self.samples.lock() else {
            return;
        };
        samples.retain(|old| (old.offset_us - new.offset_us).abs() <= old.error_us + new.error_us);
        if samples.len() == SAMPLES {
            samples.remove(0);
        }
        samples.push(new);
        if let Some(best) = samples.iter().min_by_key(|sample| sample.error_us) {
            self.offset_us.store(best.offset_us, Ordering::Relaxed);
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_round_trip_counts_until_the_clock_is_set() {
        let clock = Clock::new();
        let at = |ms| clock.start + Duration::from_millis(ms);
        let offset_ms = || clock.offset_us.load(Ordering::Relaxed).div_euclid(1000);
        clock.sample(at(0), at(2), 1_000_001_000);
        assert_eq!(offset_ms(), 1_000_000 - 1);
        // A slow answer that agrees is no better.
        clock.sample(at(10), at(110), 1_000_040_000);
        assert_eq!(offset_ms(), 1_000_000 - 1);
        // The store's clock was set back by an hour.
        clock.sample(at(200), at(210), 1_000_205_000 - 3_600_000_000);
        assert_eq!(offset_ms(), 1_000_000 - 3_600_000 - 1);
    }
}
