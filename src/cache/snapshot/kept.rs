//! The snapshots at hand. It does not know how one is taken, nor what it is for.

use std::{
    fmt,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quick_cache::{Weighter, sync};

use super::Snapshot;
use crate::store::Incarnation;

/// The most bytes, roughly, that all snapshots may take.
const MAX_BYTES: u64 = 64 << 20;
/// About what a snapshot takes without floors.
const SNAPSHOT_BYTES: u64 = 128;

/// Stripes of [`Snapshots::told`], and how many tenants' floors this replica can
/// raise at once.
const STRIPES: usize = 64;

/// The snapshots of all tenants that were called of late. One for all cores.
pub(in crate::cache) struct Snapshots {
    /// By the homes of their caches.
    kept: sync::Cache<Incarnation, Arc<Snapshot>, Weight>,
    /// How often floors were told to have changed, by a hash of the tenant. Held by
    /// whoever changes what is kept, so that no promise outlives what it is on.
    told: [Mutex<u64>; STRIPES],
    turns: [tokio::sync::Mutex<()>; STRIPES],
    hasher: std::hash::RandomState,
}

/// What was told of a tenant's floors before they were read.
#[derive(Clone, Copy)]
pub(super) struct Token(u64);

impl Default for Snapshots {
    fn default() -> Self {
        let items = usize::try_from(MAX_BYTES / SNAPSHOT_BYTES).unwrap_or(usize::MAX);
        Self {
            kept: sync::Cache::with_weighter(items, MAX_BYTES, Weight),
            told: [const { Mutex::new(0) }; STRIPES],
            turns: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            hasher: std::hash::RandomState::default(),
        }
    }
}

impl Snapshots {
    pub(in crate::cache) fn get(&self, home: Incarnation) -> Option<Arc<Snapshot>> {
        self.kept.get(&home)
    }

    /// Waits until no other call of this replica raises floors of the tenant. They
    /// lie in one record, and calls that raced for it would wear each other out.
    pub(in crate::cache) async fn turn(
        &self,
        home: Incarnation,
    ) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let turn = self.turns.get(self.stripe(home))?;
        Some(turn.lock().await)
    }

    fn stripe(&self, home: Incarnation) -> usize {
        let stripe = self.hasher.hash_one(home) % STRIPES as u64;
        usize::try_from(stripe).unwrap_or_default()
    }

    fn told(&self, home: Incarnation) -> Option<MutexGuard<'_, u64>> {
        let stripe = self.told.get(self.stripe(home))?;
        // A count is whole whoever panicked while holding it.
        Some(stripe.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// To be taken before floors are read that are to be kept with a promise.
    pub(super) fn token(&self, home: Incarnation) -> Token {
        Token(self.told(home).map_or(0, |told| *told))
    }

    /// Keeps a snapshot; without its promise, where the floors may have changed
    /// since this token was taken.
    pub(super) fn keep(
        &self,
        home: Incarnation,
        mut snapshot: Snapshot,
        token: Token,
    ) -> Arc<Snapshot> {
        let told = self.told(home);
        if told.as_ref().is_none_or(|told| **told != token.0) {
            snapshot.vouch = None;
        }
        let now = snapshot.since;
        match self.kept.get(&home) {
            Some(last) if snapshot.floors.cover(&last.floors) => {
                (snapshot.since, snapshot.before) = (last.since, last.before.clone());
            }
            Some(last) if last.settled(now) => snapshot.before = Some(last.floors.clone()),
            _ => {}
        }
        let snapshot = Arc::new(snapshot);
        self.kept.insert(home, snapshot.clone());
        snapshot
    }

    /// The floors of a space have changed, or may have.
    pub(in crate::cache) fn changed(&self, space: &str) {
        if let Some(home) = Incarnation::parse(space) {
            self.pass(home);
        }
    }

    /// To be held by whoever changes floors, until it is answered or given up.
    pub(in crate::cache) fn passing(&self, home: Incarnation) -> Passing<'_> {
        Passing(self, home)
    }

    /// Takes the promise back. The snapshot stays: that the space was written
    /// before is worth knowing.
    fn pass(&self, home: Incarnation) {
        let Some(mut told) = self.told(home) else {
            return;
        };
        *told += 1;
        if let Some(snapshot) = self.kept.get(&home) {
            let passed = Snapshot {
                view: snapshot.view,
                floors: snapshot.floors.clone(),
                vouch: None,
                since: snapshot.since,
                before: snapshot.before.clone(),
            };
            self.kept.insert(home, Arc::new(passed));
        }
    }
}

/// A change of a tenant's floors by this replica. When it ends, however it does,
/// nothing relies on what they were before.
pub(in crate::cache) struct Passing<'a>(&'a Snapshots, Incarnation);

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.0.pass(self.1);
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("kept", &self.kept.len())
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Incarnation, Arc<Snapshot>> for Weight {
    fn weight(&self, _: &Incarnation, snapshot: &Arc<Snapshot>) -> u64 {
        SNAPSHOT_BYTES + snapshot.floors.bytes() as u64
    }
}
