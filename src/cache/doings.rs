//! What calls did to caches that no account tells of: counted by each core for itself, of
//! all tenants together. It does not know who asks.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// What belongs together: one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Writes beside those that an account tells of.
    Writes,
    /// Calls that invalidated, by what they named.
    Invalidations,
    /// Calls that would refill an entry, by what they were told.
    Leases,
    /// What a warming stored or pulled.
    Warmed,
}

macro_rules! doings {
    ($($doing:ident: $group:ident $name:literal)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Doing {
            $($doing,)*
        }

        /// The group and the name in it of each, in order.
        const NAMES: &[(Group, &str)] = &[$((Group::$group, $name)),*];
    };
}

doings! {
    Touched: Writes "touch"
    KeysInvalidated: Invalidations "keys"
    PrefixInvalidated: Invalidations "prefix"
    TagsInvalidated: Invalidations "tags"
    NamespaceInvalidated: Invalidations "namespace"
    TenantInvalidated: Invalidations "tenant"
    LeaseUnneeded: Leases "hit"
    LeaseGranted: Leases "granted"
    LeaseWithStale: Leases "stale"
    LeaseAwaited: Leases "wait"
    Stored: Warmed "stored"
    Pulled: Warmed "pulled"
    NotKept: Warmed "not_kept"
    Missing: Warmed "missing"
    Failed: Warmed "failed"
}

/// What one core did.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Doings([AtomicU64; NAMES.len()]);

impl Doings {
    /// Counts one.
    pub(super) fn count(&self, doing: Doing) {
        if let Some(counter) = self.0.get(doing as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What all cores did.
#[derive(Debug, Default)]
pub(super) struct AllDoings(Mutex<Vec<Arc<Doings>>>);

impl AllDoings {
    /// A place for one more core to count in.
    pub(super) fn place(&self) -> Arc<Doings> {
        let place = Arc::<Doings>::default();
        self.all().push(place.clone());
        place
    }

    /// What was done so far, by group and name.
    pub(super) fn sums(&self) -> Vec<(Group, &'static str, u64)> {
        let all = self.all();
        let sum = |at: usize| {
            let counters = all.iter().filter_map(|doings| doings.0.get(at));
            counters
                .map(|counter| counter.load(Ordering::Relaxed))
                .sum()
        };
        let names = NAMES.iter().enumerate();
        names
            .map(|(at, &(group, name))| (group, name, sum(at)))
            .collect()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Doings>>> {
        // A list is whole whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_summed_by_what_they_did() {
        let all = AllDoings::default();
        let (one, other) = (all.place(), all.place());
        one.count(Doing::Failed);
        other.count(Doing::Failed);
        other.count(Doing::TenantInvalidated);
        let mut done = all.sums();
        done.retain(|(_, _, count)| *count > 0);
        let expected = [
            (Group::Invalidations, "tenant", 1),
            (Group::Warmed, "failed", 2),
        ];
        assert_eq!(done, expected);
    }
}
