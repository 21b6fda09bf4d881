//! Which tenants call most at this replica, and what their calls come to: each of those by
//! its name, and all others together. It does not know who is told.
//!
//! Figures come where usage leaves memory to be flushed, once a second, and not on the path
//! of calls. All of them only grow. A tenant's begin at nothing when it comes to be told by
//! its name; what it did before stays with the others, and so does what it does after it
//! has ceased to be. How much is remembered does not grow with the number of tenants.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Counts, stats::Deeds};
use crate::config::METRICS;

/// How those are called together that are not told by their names. A tenant of this name
/// is among them.
pub const OTHER: &str = "other";

/// Tenants whose calls are compared with those of others. There may be twice as many for a
/// while, so that looking for the least of them is seldom needed.
const COMPARED: usize = 4096;

/// What is left of a tenant's weight after each ranking.
const KEEP: f64 = 0.95;

/// Below this weight, a tenant is as one that never called.
const LEAST: f64 = 0.5;

/// How much more than another a tenant must call to take its place: who calls as often as
/// others does not come and go.
const LEAD: f64 = 1.25;

/// What calls of a tenant came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Operations, as they are billed.
    pub operations: u64,
    /// Calls by the tenant's keys that were answered by an error.
    pub errors: u64,
    /// Calls that passed a quota or a rate.
    pub throttled: u64,
    /// Keys read and found.
    pub hits: u64,
    /// Keys read and not found.
    pub misses: u64,
    /// Bytes of keys and values that callers sent.
    pub received_bytes: u64,
    /// Bytes of keys and values that callers were sent.
    pub sent_bytes: u64,
}

impl Sums {
    fn of(counts: &Counts) -> Self {
        Self {
            operations: counts.operations.saturating_add(counts.writes),
            errors: 0,
            throttled: counts.throttled,
            hits: counts.hits,
            misses: counts.misses,
            received_bytes: counts.bytes_in.saturating_add(counts.written),
            sent_bytes: counts.bytes_out,
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, amount) in [
            (&mut self.operations, other.operations),
            (&mut self.errors, other.errors),
            (&mut self.throttled, other.throttled),
            (&mut self.hits, other.hits),
            (&mut self.misses, other.misses),
            (&mut self.received_bytes, other.received_bytes),
            (&mut self.sent_bytes, other.sent_bytes),
        ] {
            *sum = sum.saturating_add(amount);
        }
    }

    fn weight(&self) -> f64 {
        let calls = self.operations.saturating_add(self.throttled);
        calls.saturating_add(self.errors) as f64
    }
}

/// What the calls of all tenants come to.
#[derive(Debug, Default)]
pub struct Traffic {
    ranks: Mutex<Ranks>,
    /// What was done to caches.
    deeds: Mutex<Deeds>,
    /// Limits passed, by [`metrics`]: calls refused for it, and calls that were warned.
    passed: [[AtomicU64; METRICS.len() + 1]; 2],
}

#[derive(Debug)]
struct Ranks {
    /// How many are told by their names.
    most: usize,
    told: HashMap<Arc<str>, Sums>,
    others: Sums,
    /// How much each has called of late.
    weights: HashMap<Arc<str>, f64>,
}

impl Default for Ranks {
    fn default() -> Self {
        Self {
            most: 20,
            told: HashMap::new(),
            others: Sums::default(),
            weights: HashMap::new(),
        }
    }
}

/// What is told of tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Those told by their names, in the order of these.
    pub tenants: Vec<(Arc<str>, Sums)>,
    /// All others together.
    pub others: Sums,
}

impl Traffic {
    /// Tells so many tenants by their names from now on; none, where that is 0.
    pub fn tell(&self, most: usize) {
        let mut ranks = lock(&self.ranks);
        ranks.most = most;
        ranks.shrink();
    }

    /// Whether tenants are told by their names.
    pub fn tells(&self) -> bool {
        lock(&self.ranks).most > 0
    }

    /// Adds what calls of a tenant came to; `None` for one whose name is not known.
    pub(super) fn count(&self, tenant: Option<&Arc<str>>, counts: &Counts) {
        if *counts != Counts::default() {
            lock(&self.ranks).add(tenant, &Sums::of(counts));
        }
    }

    /// Adds calls by a tenant's keys that failed; `None` where it is not known whose.
    pub fn failed(&self, tenant_id: Option<&str>, errors: u64) {
        let sums = Sums {
            errors,
            ..Sums::default()
        };
        lock(&self.ranks).add(tenant_id.map(Arc::from).as_ref(), &sums);
    }

    /// Adds what was done to caches.
    pub(super) fn did(&self, deeds: Deeds) {
        *lock(&self.deeds) += deeds;
    }

    /// What was done to caches so far.
    pub fn deeds(&self) -> Deeds {
        *lock(&self.deeds)
    }

    /// Counts that a limit was passed, and whether the call was refused for that or warned.
    pub(super) fn passed(&self, metric: &str, refused: bool) {
        let at = METRICS.iter().position(|known| *known == metric);
        let counters = self.passed.get(usize::from(!refused));
        if let Some(counter) = counters.and_then(|all| all.get(at.unwrap_or(METRICS.len()))) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often each limit was passed, by its name, the platform's own together as
    /// `custom`: calls refused for it, and calls that were warned.
    pub fn limits(&self) -> impl Iterator<Item = (&'static str, [u64; 2])> {
        let names = METRICS.iter().copied().chain(["custom"]);
        names.enumerate().map(|(at, name)| {
            let counts = self.passed.each_ref().map(|counters| {
                let counter = counters.get(at);
                counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
            });
            (name, counts)
        })
    }

    /// Lets those be told by their names that call most now, and what is past count less.
    /// To be called every few seconds.
    pub fn rank(&self) {
        lock(&self.ranks).rank();
    }

    /// What is told of tenants now.
    pub fn told(&self) -> Told {
        let ranks = lock(&self.ranks);
        let mut tenants: Vec<_> = ranks
            .told
            .iter()
            .map(|(name, sums)| (name.clone(), *sums))
            .collect();
        tenants.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Told {
            tenants,
            others: ranks.others,
        }
    }
}

impl Ranks {
    fn add(&mut self, tenant: Option<&Arc<str>>, sums: &Sums) {
        let Some(tenant) = tenant.filter(|name| ***name != *OTHER && self.most > 0) else {
            return self.others.add(sums);
        };
        match self.weights.get_mut(tenant) {
            Some(weight) => *weight += sums.weight(),
            None => drop(self.weights.insert(tenant.clone(), sums.weight())),
        }
        if let Some(told) = self.told.get_mut(tenant) {
            told.add(sums);
        } else if self.told.len() < self.most {
            self.told.insert(tenant.clone(), *sums);
        } else {
            self.others.add(sums);
        }
        if self.weights.len() >= 2 * COMPARED {
            self.forget();
        }
    }

    /// Keeps the weights of those who call most, and of those who are told.
    fn forget(&mut self) {
        let mut weights: Vec<f64> = self.weights.values().copied().collect();
        let at = weights.len().saturating_sub(COMPARED);
        let (_, least, _) = weights.select_nth_unstable_by(at, f64::total_cmp);
        let (least, mut room) = (*least, COMPARED);
        self.weights.retain(|name, weight| {
            let stays = *weight > least || (*weight == least && room > 0);
            room = room.saturating_sub(usize::from(stays));
            stays || self.told.contains_key(name)
        });
    }

    fn rank(&mut self) {
        for weight in self.weights.values_mut() {
            *weight *= KEEP;
        }
        let told = &self.told;
        self.weights
            .retain(|name, weight| *weight >= LEAST || told.contains_key(name));
        let weight = |name: &Arc<str>| self.weights.get(name).copied().unwrap_or_default();
        let mut inside: Vec<_> = told
            .keys()
            .map(|name| (weight(name), name.clone()))
            .collect();
        inside.sort_unstable_by(|(one, _), (other, _)| one.total_cmp(other));
        let mut outside: Vec<_> = self
            .weights
            .iter()
            .filter(|(name, _)| !told.contains_key(*name))
            .map(|(name, weight)| (*weight, name.clone()))
            .collect();
        let most = self.most.min(outside.len());
        if let Some(last) = most.checked_sub(1) {
            outside.select_nth_unstable_by(last, |(one, _), (other, _)| other.total_cmp(one));
            outside.truncate(most);
            outside.sort_unstable_by(|(one, _), (other, _)| other.total_cmp(one));
        } else {
            outside.clear();
        }
        for ((strong, enters), (weak, leaves)) in outside.into_iter().zip(inside) {
            if strong <= weak * LEAD {
                break;
            }
            self.told.remove(&leaves);
            self.told.insert(enters, Sums::default());
        }
    }

    /// Lets those go that are too many now, the least first.
    fn shrink(&mut self) {
        let surplus = self.told.len().saturating_sub(self.most);
        let weight = |name: &Arc<str>| self.weights.get(name).copied().unwrap_or_default();
        let mut told: Vec<_> = self
            .told
            .keys()
            .map(|name| (weight(name), name.clone()))
            .collect();
        told.sort_unstable_by(|(one, _), (other, _)| one.total_cmp(other));
        for (_, leaves) in told.into_iter().take(surplus) {
            self.told.remove(&leaves);
        }
        if self.most == 0 {
            self.weights.clear();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Sums are whole whoever panicked while holding them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(traffic: &Traffic, tenant: &str, operations: u64) {
        let counts = Counts {
            operations,
            ..Counts::default()
        };
        traffic.count(Some(&tenant.into()), &counts);
    }

    fn told(traffic: &Traffic) -> (Vec<(String, u64)>, u64) {
        let told = traffic.told();
        let tenants = told.tenants.iter();
        let tenants = tenants.map(|(name, sums)| (name.to_string(), sums.operations));
        (tenants.collect(), told.others.operations)
    }

    fn names(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, sum)| ((*name).to_owned(), *sum))
            .collect()
    }

    #[test]
    fn every_figure_is_summed_as_itself() {
        let traffic = Traffic::default();
        let counts = Counts {
            operations: 1,
            hits: 2,
            near_hits: 1,
            misses: 3,
            throttled: 4,
            bytes_in: 5,
            bytes_out: 6,
            written: 7,
            writes: 8,
        };
        traffic.count(Some(&"acme".into()), &counts);
        traffic.count(None, &counts);
        traffic.failed(Some("acme"), 9);
        let others = Sums {
            operations: 9,
            errors: 0,
            throttled: 4,
            hits: 2,
            misses: 3,
            received_bytes: 12,
            sent_bytes: 6,
        };
        let acme = Sums {
            errors: 9,
            ..others
        };
        let expected = Told {
            tenants: vec![("acme".into(), acme)],
            others,
        };
        assert_eq!(traffic.told(), expected);
    }

    #[test]
    fn who_comes_in_begins_at_nothing_and_who_goes_is_among_the_others() {
        let traffic = Traffic::default();
        traffic.tell(2);
        calls(&traffic, "a", 100);
        calls(&traffic, "b", 10);
        calls(&traffic, "c", 11);
        assert_eq!(told(&traffic), (names(&[("a", 100), ("b", 10)]), 11));
        traffic.rank();
        assert_eq!(told(&traffic).0, names(&[("a", 100), ("b", 10)]), "no lead");
        calls(&traffic, "c", 20);
        traffic.rank();
        assert_eq!(told(&traffic), (names(&[("a", 100), ("c", 0)]), 31));
        calls(&traffic, "b", 5);
        calls(&traffic, "c", 7);
        assert_eq!(told(&traffic), (names(&[("a", 100), ("c", 7)]), 36));
    }

    #[test]
    fn who_does_not_call_any_more_makes_room() {
        let traffic = Traffic::default();
        traffic.tell(1);
        calls(&traffic, "a", 1_000_000);
        for _ in 0..1000 {
            calls(&traffic, "b", 3);
            traffic.rank();
        }
        assert_eq!(told(&traffic).0.first().map(|(name, _)| &**name), Some("b"));
    }

    #[test]
    fn nobody_is_told_by_name_where_that_is_switched_off() {
        let traffic = Traffic::default();
        calls(&traffic, "a", 1);
        calls(&traffic, OTHER, 2);
        assert_eq!(told(&traffic), (names(&[("a", 1)]), 2), "no tenant is it");
        traffic.tell(0);
        calls(&traffic, "a", 4);
        traffic.rank();
        assert_eq!(told(&traffic), (Vec::new(), 6));
        traffic.tell(1);
        calls(&traffic, "b", 8);
        assert_eq!(told(&traffic), (names(&[("b", 8)]), 6));
    }

    #[test]
    fn what_is_remembered_does_not_grow_with_the_tenants() {
        let traffic = Traffic::default();
        calls(&traffic, "busy", 1000);
        for tenant in 0..10 * COMPARED {
            calls(&traffic, &format!("tenant-{tenant}"), 1);
        }
        let ranks = lock(&traffic.ranks);
        assert!(ranks.weights.len() <= 2 * COMPARED);
        assert_eq!(ranks.told.len(), 20);
        assert!(ranks.weights.contains_key("busy"));
        drop(ranks);
        // One that comes late and calls much is told all the same.
        calls(&traffic, "late", 1000);
        traffic.rank();
        assert!(told(&traffic).0.iter().any(|(name, _)| name == "late"));
    }

    #[test]
    fn limits_are_counted_by_metric_and_by_what_came_of_it() {
        let traffic = Traffic::default();
        traffic.passed("cache_entries", true);
        traffic.passed("pages", true);
        traffic.passed("letters", false);
        let limits: HashMap<_, _> = traffic.limits().collect();
        assert_eq!(limits.len(), METRICS.len() + 1);
        assert_eq!(limits.get("cache_entries"), Some(&[1, 0]));
        assert_eq!(limits.get("custom"), Some(&[1, 1]));
    }
}
