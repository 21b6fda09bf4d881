//! How long calls took, counted in buckets. It does not know which calls.
//!
//! A bucket is an eighth of an octave wide, 9.1 %, from 1.024 us to 68.7 s; what
//! is shorter or longer counts in the first or the last. Histograms of cores,
//! replicas and hours are merged by adding, and a quantile is told as the upper
//! bound of its bucket: never below the true one, and at most 9.1 % above it.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Buckets of an octave, which lie together in one line of a cache.
const OCTAVE: usize = 8;

/// The first octave begins at 2^10 ns.
const FIRST: u32 = 10;

/// The last one ends at 2^36 ns.
const LAST: u32 = 36;

/// All buckets: the first is for what is shorter than all octaves.
pub(super) const BUCKETS: usize = 1 + (LAST - FIRST) as usize * OCTAVE;

/// 2^(31 + n/8) for n from 1 to 7: where the buckets of an octave begin, in
/// numbers whose first bit is the 32nd.
const BORDERS: [u32; OCTAVE - 1] = [
    2_341_847_524,
    2_553_802_834,
    2_784_941_738,
    3_037_000_500,
    3_311_872_529,
    3_611_622_603,
    3_938_502_376,
];

/// The bucket that a call of this length belongs to.
pub(super) fn bucket(took: Duration) -> usize {
    let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    if ns < 1 << FIRST {
        return 0;
    }
    let octave = ns.ilog2();
    if octave >= LAST {
        return BUCKETS - 1;
    }
    let scaled = if octave > 31 {
        ns >> (octave - 31)
    } else {
        ns << (31 - octave)
    };
    let passed = BORDERS
        .iter()
        .filter(|border| scaled >= u64::from(**border));
    1 + (octave - FIRST) as usize * OCTAVE + passed.count()
}

/// What all calls of a bucket are shorter than; of the last, what it begins
/// before.
fn upper(bucket: usize) -> Duration {
    let eighths = u32::try_from(bucket).unwrap_or(u32::MAX);
    let exponent = f64::from(FIRST) + f64::from(eighths) / OCTAVE as f64;
    Duration::from_nanos(exponent.exp2().round() as u64)
}

/// A histogram that threads add to. Takes memory by the octave, as it is met.
#[derive(Debug)]
pub(super) struct Histogram([OnceLock<Box<Octave>>; BUCKETS.div_ceil(OCTAVE)]);

type Octave = [AtomicU64; OCTAVE];

impl Default for Histogram {
    fn default() -> Self {
        Self([const { OnceLock::new() }; _])
    }
}

impl Histogram {
    pub(super) fn add(&self, took: Duration) {
        let bucket = bucket(took);
        let octave = self
            .0
            .get(bucket / OCTAVE)
            .map(|octave| octave.get_or_init(Box::default));
        if let Some(count) = octave.and_then(|octave| octave.get(bucket % OCTAVE)) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Moves what was counted into `sum`.
    pub(super) fn take(&self, sum: &mut Latencies) {
        for (place, octave) in self.0.iter().enumerate() {
            let counts = octave.get().into_iter().flat_map(|octave| octave.iter());
            for (rest, count) in counts.enumerate() {
                if count.load(Ordering::SeqCst) > 0 {
                    sum.add(place * OCTAVE + rest, count.swap(0, Ordering::SeqCst));
                }
            }
        }
    }
}

/// How many calls took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// Adds to a bucket; one that there is not is passed over.
    pub(super) fn add(&mut self, bucket: usize, calls: u64) {
        if bucket >= BUCKETS || calls == 0 {
            return;
        }
        if self.0.is_empty() {
            self.0 = vec![0; BUCKETS];
        }
        if let Some(count) = self.0.get_mut(bucket) {
            *count = count.saturating_add(calls);
        }
    }

    /// Adds those of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, calls) in other.counts() {
            self.add(bucket, calls);
        }
    }

    /// The buckets that calls belong to, and how many each.
    pub(super) fn counts(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.0.iter().copied().enumerate();
        counts.filter(|(_, calls)| *calls > 0)
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.0.iter().copied().fold(0, u64::saturating_add)
    }

    /// What this part of the calls, in thousandths, kept below: at most 9.1 %
    /// above the true figure within the buckets' range. `None` without calls.
    pub fn below(&self, thousandths: u64) -> Option<Duration> {
        let calls = u128::from(self.calls());
        let rank = (calls * u128::from(thousandths)).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, calls) in self.counts() {
            seen += u128::from(calls);
            if seen >= rank {
                return Some(upper(bucket));
            }
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(lengths: &[u64]) -> Latencies {
        let (histogram, mut sum) = (Histogram::default(), Latencies::default());
        for ns in lengths {
            histogram.add(Duration::from_nanos(*ns));
        }
        histogram.take(&mut sum);
        sum
    }

    /// How far a border may be from where it should be: they have 32 bits.
    fn rounding(border: Duration) -> Duration {
        Duration::from_nanos(1) + border / (1 << 31)
    }

    #[test]
    fn buckets_adjoin_and_are_an_eighth_of_an_octave_wide() {
        assert_eq!((bucket(Duration::ZERO), BUCKETS), (0, 209));
        for at in 1..BUCKETS {
            let begin = upper(at - 1) + rounding(upper(at - 1));
            let end = upper(at) - rounding(upper(at));
            assert_eq!((bucket(begin), bucket(end)), (at, at), "{begin:?} {end:?}");
            let wide = upper(at).as_secs_f64() / upper(at - 1).as_secs_f64();
            assert!((1.0895..1.0916).contains(&wide), "{at} is {wide} wide");
        }
        for ns in [1_u64 << 36, u64::MAX] {
            assert_eq!(bucket(Duration::from_nanos(ns)), BUCKETS - 1);
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert!(upper(BUCKETS - 1) > Duration::from_secs(60));
    }

    #[test]
    fn without_calls_there_is_no_quantile() {
        assert_eq!(Latencies::default().below(500), None);
        let mut one = Latencies::default();
        one.add(BUCKETS, 7);
        assert_eq!((one.calls(), one.below(990)), (0, None));
    }

    proptest! {
        /// Whichever replica and hour counted which call, the quantiles of the sum
        /// are those of all calls.
        #[test]
        fn merged_quantiles_keep_their_bound(
            parts in prop::collection::vec(
                prop::collection::vec(1_024_u64..60_000_000_000, 0..200), 1..6),
            thousandths in 1_u64..=1000,
        ) {
            let mut merged = Latencies::default();
            for part in &parts {
                merged.merge(&histogram(part));
            }
            let mut all: Vec<u64> = parts.concat();
            all.sort_unstable();
            prop_assert_eq!(&merged, &histogram(&all));
            prop_assert_eq!(merged.calls(), all.len() as u64);
            if !all.is_empty() {
                let rank = (all.len() as u64 * thousandths).div_ceil(1000).max(1);
                let exact = all[usize::try_from(rank).unwrap() - 1];
                let told = u64::try_from(merged.below(thousandths).unwrap().as_nanos()).unwrap();
                let rounding = 1 + (exact >> 31);
                prop_assert!(told + rounding >= exact, "{} below {}", told, exact);
                prop_assert!(told as f64 <= exact as f64 * 1.0916, "{} above {}", told, exact);
            }
        }
    }
}
