//! What a tenant's cache did, by namespace: counted in memory, flushed with the
//! meters, and read back as the sum over all replicas. It does not know what is
//! billed.
//!
//! A call adds to the stripe of its thread in its namespace's place, without a
//! lock. A replica keeps the [`MAX_NAMESPACES`] of a tenant that it meets first
//! apart; all others are counted together, under [`OTHER`].

mod counting;
mod histogram;
mod query;
pub(super) mod sheet;

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use self::histogram::Histogram;
use super::meter::{self, place};
pub use histogram::Latencies;
pub use query::{CacheStats, FleetStats};

/// Namespaces of a tenant that a replica counts apart.
pub const MAX_NAMESPACES: usize = 32;

/// The name of all namespaces beyond those; no namespace is called so.
pub const OTHER: &str = "(other)";

/// Stands for all namespaces where what was done cannot be told apart.
pub const EVERY: &str = "";

/// Places of the table, so many that half stay free.
const SLOTS: usize = 2 * MAX_NAMESPACES;

/// What a call did: read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It read entries.
    Read,
    /// It set or removed entries, or gave them another time to live.
    Write,
}

/// What a call did to the entries of a namespace, or many calls to those of a
/// tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Keys read and found.
    pub hits: u64,
    /// Those of the hits that a replica's memory answered.
    pub near_hits: u64,
    /// Keys read and not found.
    pub misses: u64,
    /// Entries set.
    pub sets: u64,
    /// Entries deleted.
    pub deletes: u64,
    /// Entries that were there and were invalidated.
    pub invalidated: u64,
    /// Bytes of the values that were set.
    pub value_bytes: u64,
    /// Bytes that these values took in the store.
    pub packed_bytes: u64,
    /// Bytes that the entries set counted, keys and headers included.
    pub charged_bytes: u64,
}

impl Deeds {
    const COUNTERS: usize = 9;

    fn amounts(&self) -> [u64; Self::COUNTERS] {
        [
            self.hits,
            self.near_hits,
            self.misses,
            self.sets,
            self.deletes,
            self.invalidated,
            self.value_bytes,
            self.packed_bytes,
            self.charged_bytes,
        ]
    }

    /// One that has these in the order of [`Deeds::amounts`].
    fn of(amounts: [u64; Self::COUNTERS]) -> Self {
        let [
            hits,
            near_hits,
            misses,
            sets,
            deletes,
            invalidated,
            value_bytes,
            packed_bytes,
            charged_bytes,
        ] = amounts;
        Self {
            hits,
            near_hits,
            misses,
            sets,
            deletes,
            invalidated,
            value_bytes,
            packed_bytes,
            charged_bytes,
        }
    }
}

impl std::ops::AddAssign for Deeds {
    fn add_assign(&mut self, other: Self) {
        let mut sums = self.amounts();
        for (sum, amount) in sums.iter_mut().zip(other.amounts()) {
            *sum = sum.saturating_add(amount);
        }
        *self = Self::of(sums);
    }
}

/// What the calls of one tenant did at one replica since the last flush.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// Made at the first call: few tenants of all call.
    table: OnceLock<Box<[OnceLock<Namespace>; SLOTS]>>,
    other: OnceLock<Namespace>,
    /// How many namespaces have a place; held by whoever gives one.
    placed: Mutex<usize>,
}

/// What calls did in one namespace.
#[derive(Debug)]
struct Namespace {
    name: Box<str>,
    /// One for the threads that share it, made when one of them counts.
    stripes: Box<[OnceLock<Box<Stripe>>]>,
}

/// What reads count shares a line of a cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe {
    counters: [AtomicU64; Deeds::COUNTERS],
    latencies: [Histogram; 2],
}

/// What was taken of a namespace.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) deeds: Deeds,
    /// Of reads, and of writes.
    pub(super) latencies: [Latencies; 2],
}

impl Taken {
    fn is_empty(&self) -> bool {
        self.deeds == Deeds::default() && self.latencies.iter().all(|taken| taken.calls() == 0)
    }
}

impl Stats {
    /// Counts what a call did in a namespace, and how long it took where that is
    /// to be told.
    pub(super) fn count(&self, namespace: &str, deeds: &Deeds, took: Option<(Way, Duration)>) {
        let Some(stripe) = self.namespace(namespace).stripe() else {
            return;
        };
        for (counter, amount) in stripe.counters.iter().zip(deeds.amounts()) {
            if amount > 0 {
                counter.fetch_add(amount, Ordering::SeqCst);
            }
        }
        if let Some((way, took)) = took {
            let [reads, writes] = &stripe.latencies;
            match way {
                Way::Read => reads.add(took),
                Way::Write => writes.add(took),
            }
        }
    }

    /// Takes what was counted since the last time, by namespace.
    pub(super) fn take(&self, mut into: impl FnMut(&str, Taken)) {
        let placed = self.table.get().into_iter().flat_map(|table| table.iter());
        let placed = placed.chain([&self.other]).filter_map(OnceLock::get);
        for namespace in placed {
            let taken = namespace.take();
            if !taken.is_empty() {
                into(&namespace.name, taken);
            }
        }
    }

    /// The place of a namespace; given at its first call, while there are some.
    fn namespace(&self, name: &str) -> &Namespace {
        let table = self
            .table
            .get_or_init(|| Box::new([const { OnceLock::new() }; SLOTS]));
        match Self::find(table, name) {
            Ok(found) => found,
            Err(_) => self.place(table, name),
        }
    }

    /// The namespace, or the free slot where it would be.
    fn find<'a>(
        table: &'a [OnceLock<Namespace>; SLOTS],
        name: &str,
    ) -> Result<&'a Namespace, Option<&'a OnceLock<Namespace>>> {
        let first = hash(name) % SLOTS;
        let (before, from) = table.split_at(first);
        for slot in from.iter().chain(before) {
            match slot.get() {
                Some(namespace) if *namespace.name == *name => return Ok(namespace),
                Some(_) => {}
                None => return Err(Some(slot)),
            }
        }
        Err(None)
    }

    #[cold]
    fn place<'a>(&'a self, table: &'a [OnceLock<Namespace>; SLOTS], name: &str) -> &'a Namespace {
        // A number is whole whoever panicked while holding it.
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have been faster.
        match Self::find(table, name) {
            Ok(found) => found,
            Err(Some(slot)) if *placed < MAX_NAMESPACES => {
                *placed += 1;
                slot.get_or_init(|| Namespace::new(name))
            }
            Err(_) => self.other.get_or_init(|| Namespace::new(OTHER)),
        }
    }
}

impl Namespace {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            stripes: (0..meter::stripes()).map(|_| OnceLock::new()).collect(),
        }
    }

    fn stripe(&self) -> Option<&Stripe> {
        let stripe = self.stripes.get(place() & (self.stripes.len() - 1))?;
        Some(stripe.get_or_init(Box::default))
    }

    fn take(&self) -> Taken {
        let mut sums = [0_u64; Deeds::COUNTERS];
        let mut latencies = <[Latencies; 2]>::default();
        for stripe in self.stripes.iter().filter_map(OnceLock::get) {
            for (sum, counter) in sums.iter_mut().zip(&stripe.counters) {
                if counter.load(Ordering::SeqCst) > 0 {
                    *sum = sum.saturating_add(counter.swap(0, Ordering::SeqCst));
                }
            }
            for (sum, histogram) in latencies.iter_mut().zip(&stripe.latencies) {
                histogram.take(sum);
            }
        }
        Taken {
            deeds: Deeds::of(sums),
            latencies,
        }
    }
}

/// Spreads names over the table. Nothing depends on it but the place.
fn hash(name: &str) -> usize {
    let mut hash = name.len() as u64;
    for chunk in name.as_bytes().chunks(8) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    (hash >> 32) as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::BTreeMap, sync::atomic::AtomicBool};

    use super::*;

    fn hit() -> Deeds {
        Deeds {
            hits: 1,
            ..Deeds::default()
        }
    }

    fn taken(stats: &Stats) -> BTreeMap<String, Taken> {
        let mut all = BTreeMap::new();
        stats.take(|name, taken| {
            assert!(all.insert(name.to_owned(), taken).is_none());
        });
        all
    }

    #[test]
    fn each_counter_is_taken_as_itself_and_once() {
        let stats = Stats::default();
        let deeds = Deeds::of([1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let took = Duration::from_millis(3);
        stats.count("a", &deeds, Some((Way::Write, took)));
        stats.count("b", &Deeds::default(), Some((Way::Read, took)));
        stats.count("c", &Deeds::default(), None);
        let all = taken(&stats);
        assert_eq!(all.len(), 2);
        let [reads, writes] = &all["a"].latencies;
        assert_eq!(
            (all["a"].deeds, reads.calls(), writes.calls()),
            (deeds, 0, 1)
        );
        let [reads, writes] = &all["b"].latencies;
        assert_eq!((reads.calls(), writes.calls()), (1, 0));
        assert!(reads.below(500).unwrap() >= took);
        assert!(taken(&stats).is_empty());
    }

    #[test]
    fn namespaces_beyond_the_most_are_counted_together() {
        let stats = Stats::default();
        let names: Vec<_> = (0..100).map(|n| format!("namespace-{n}")).collect();
        for _ in 0..2 {
            for name in &names {
                stats.count(name, &hit(), None);
            }
            let all = taken(&stats);
            assert_eq!(all.len(), MAX_NAMESPACES + 1);
            for name in &names[..MAX_NAMESPACES] {
                assert_eq!(all[name].deeds.hits, 1);
            }
            let others = (names.len() - MAX_NAMESPACES) as u64;
            assert_eq!(all[OTHER].deeds.hits, others);
        }
    }

    #[test]
    fn what_many_threads_count_is_taken_once() {
        const THREADS: u64 = 8;
        const EACH: u64 = 5_000;
        let stats = Stats::default();
        let over = AtomicBool::new(false);
        let (hits, calls) = std::thread::scope(|scope| {
            let counting: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let stats = &stats;
                    scope.spawn(move || {
                        for n in 0..EACH {
                            let took = Duration::from_nanos(1 << (n % 30));
                            let namespace = format!("namespace-{}", (thread + n) % 40);
                            stats.count(&namespace, &hit(), Some((Way::Read, took)));
                        }
                    })
                })
                .collect();
            let taking = scope.spawn(|| {
                let mut sums = (0, 0);
                loop {
                    let last = over.load(Ordering::SeqCst);
                    stats.take(|_, taken| {
                        sums.0 += taken.deeds.hits;
                        sums.1 += taken.latencies.iter().map(Latencies::calls).sum::<u64>();
                    });
                    if last {
                        return sums;
                    }
                }
            });
            counting
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
            over.store(true, Ordering::SeqCst);
            taking.join().unwrap()
        });
        assert_eq!((hits, calls), (THREADS * EACH, THREADS * EACH));
    }
}
