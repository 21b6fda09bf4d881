//! How long things took, in buckets that never change: a few additions a thing, without
//! a lock or memory. It does not know what took so long, nor who reads it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Bounds of all buckets but the last, which has none; in microseconds.
const BOUNDS_US: [u64; 17] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// How many buckets there are.
pub const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Counts by how long things took.
#[derive(Debug)]
pub struct Histogram {
    /// How many times the bounds its own are.
    scale: u32,
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    /// One for things from 50 microseconds to 10 seconds.
    fn default() -> Self {
        Self::scaled(1)
    }
}

impl Histogram {
    /// One for things that take so many times as long.
    pub fn scaled(scale: u32) -> Self {
        Self {
            scale,
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_ns: AtomicU64::new(0),
        }
    }

    /// Counts one more.
    pub fn add(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // A bucket holds what is not above its bound.
        let us = ns.div_ceil(1_000 * u64::from(self.scale));
        let at = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn taken(&self) -> Taken {
        let mut buckets = [0; BUCKETS];
        for (to, from) in buckets.iter_mut().zip(&self.buckets) {
            *to = from.load(Ordering::Relaxed);
        }
        Taken {
            scale: self.scale,
            buckets,
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
        }
    }
}

/// What a [`Histogram`] had counted at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    scale: u32,
    buckets: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for Taken {
    fn default() -> Self {
        Histogram::default().taken()
    }
}

impl Taken {
    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What they took together, in seconds.
    pub fn seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Each bucket's bound in seconds, infinite for the last, and how many are in it.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_US.into_iter();
        let bounds = bounds.map(|bound| bound as f64 * f64::from(self.scale) / 1e6);
        bounds
            .chain([f64::INFINITY])
            .zip(self.buckets.iter().copied())
    }

    /// Adds what another of the same bounds counted.
    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum = sum.saturating_add(*count);
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// What came on top of an earlier count.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut rest = self.clone();
        for (count, earlier) in rest.buckets.iter_mut().zip(&earlier.buckets) {
            *count = count.saturating_sub(*earlier);
        }
        rest.sum_ns = rest.sum_ns.saturating_sub(earlier.sum_ns);
        rest
    }

    /// In how many seconds this part of them was done, `0.99` being 99 of 100: somewhere
    /// in its bucket, as if they were spread evenly there. `None` where there are none.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let wanted = part * self.count() as f64;
        let (mut below, mut from) = (0.0, 0.0);
        for (bound, count) in self.buckets().filter(|(bound, _)| bound.is_finite()) {
            let count = count as f64;
            if count > 0.0 && below + count >= wanted {
                return Some(from + (bound - from) * ((wanted - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            from = bound;
        }
        (self.count() > 0).then_some(from)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_not_above_its_bound() {
        for (scale, ns, bound) in [
            (1, 0, 50e-6),
            (1, 50_000, 50e-6),
            (1, 50_001, 100e-6),
            (1, 1_000_000, 1e-3),
            (1, 10_000_000_000, 10.0),
            (1, 10_000_000_001, f64::INFINITY),
            (1, u64::MAX, f64::INFINITY),
            (1_000, 50_000_000, 50e-3),
            (1_000, 3_600_000_000_000, 5_000.0),
        ] {
            let histogram = Histogram::scaled(scale);
            histogram.add(Duration::from_nanos(ns));
            let taken = histogram.taken();
            let found = taken.buckets().find(|(_, count)| *count > 0).unwrap();
            assert_eq!(found, (bound, 1), "{ns} ns at {scale}");
            assert_eq!(taken.count(), 1);
        }
    }

    #[test]
    fn a_quantile_lies_in_its_bucket_and_what_came_since_is_told_apart() {
        let histogram = Histogram::default();
        assert_eq!(histogram.taken().quantile(0.5), None);
        for _ in 0..90 {
            histogram.add(Duration::from_micros(150));
        }
        let before = histogram.taken();
        for _ in 0..10 {
            histogram.add(Duration::from_millis(15));
        }
        let taken = histogram.taken();
        let (median, tail) = (taken.quantile(0.5).unwrap(), taken.quantile(0.99).unwrap());
        assert!((100e-6..200e-6).contains(&median), "{median}");
        assert!((10e-3..20e-3).contains(&tail), "{tail}");
        let since = taken.since(&before);
        assert_eq!(since.count(), 10);
        assert!((since.seconds() - 0.15).abs() < 1e-9);
        let mut both = before.clone();
        both.merge(&since);
        assert_eq!(both, taken);
    }
}
