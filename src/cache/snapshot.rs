//! What a replica remembers of a tenant's space, so that a read or a write of an
//! entry is one call: the view, and the floors below which entries are gone. It does
//! not know when a snapshot has passed; the store says so.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use quick_cache::{Weighter, sync};
use tokio::sync::{Mutex, MutexGuard};

use super::{Cache, floors::Floors};
use crate::{
    codec::Head,
    error::{Error, Result},
    store::{Handle, Incarnation, Key, Read, Record, Space, View},
    tenant::Tenancy,
};

/// The most bytes, roughly, that all snapshots may take.
const MAX_BYTES: u64 = 64 << 20;
/// About what a snapshot takes without floors.
const SNAPSHOT_BYTES: u64 = 128;

/// How many tenants' floors this replica can raise at once.
const TURNS: usize = 64;

/// How often a call is repeated because the space moved on under it. Somebody
/// else's flush succeeds each time, so as many must come within one call.
pub(super) const ATTEMPTS: usize = 20;

/// A tenant's space at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The view.
    pub(super) view: View,
    /// What is gone.
    pub(super) floors: Arc<Floors>,
}

impl Snapshot {
    /// Whether a stored entry is gone: whoever shows one asks first. See
    /// [`Floors::hide_record`], and [`Floors::hide`] for one whose tags are known.
    pub(super) fn hides_record(
        &self,
        namespace: &str,
        key: impl AsRef<[u8]>,
        record: &Record,
    ) -> Result<Option<bool>> {
        self.floors.hide_record(namespace, key.as_ref(), record)
    }
}

/// The snapshots of all tenants that were called of late. One for all cores.
pub struct Snapshots {
    held: sync::Cache<Incarnation, Arc<Snapshot>, Weight>,
    turns: [Mutex<()>; TURNS],
}

impl Default for Snapshots {
    fn default() -> Self {
        let items = usize::try_from(MAX_BYTES / SNAPSHOT_BYTES).unwrap_or(usize::MAX);
        Self {
            held: sync::Cache::with_weighter(items, MAX_BYTES, Weight),
            turns: std::array::from_fn(|_| Mutex::new(())),
        }
    }
}

impl Snapshots {
    /// Waits until no other call of this replica raises floors of the tenant. They
    /// lie in one record, and calls that raced for it would wear each other out.
    pub(super) async fn turn(&self, incarnation: Incarnation) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        incarnation.hash(&mut hasher);
        let turn = self.turns.get(hasher.finish() as usize % TURNS)?;
        Some(turn.lock().await)
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Incarnation, Arc<Snapshot>> for Weight {
    fn weight(&self, _: &Incarnation, snapshot: &Arc<Snapshot>) -> u64 {
        SNAPSHOT_BYTES + snapshot.floors.bytes() as u64
    }
}

/// What a read saw, and under which snapshot it is to be understood.
pub(super) struct Seen {
    pub(super) records: Vec<Option<Record>>,
    pub(super) snapshot: Arc<Snapshot>,
}

impl Cache {
    /// The snapshot at hand; taken anew where there is none.
    pub(super) async fn snapshot(&self, tenancy: &Tenancy) -> Result<Arc<Snapshot>> {
        match self.snapshots.held.get(&tenancy.incarnation) {
            Some(snapshot) => Ok(snapshot),
            None => self.reload(tenancy).await,
        }
    }

    /// A snapshot of now. A space that was written before and is as new now has
    /// lost its records; whether the tenant itself was lost with them, the
    /// registry tells, so that no write brings back what is gone.
    pub(super) async fn reload(&self, tenancy: &Tenancy) -> Result<Arc<Snapshot>> {
        let (view, floors) = floors(&self.store, &tenancy.space).await?;
        let before = self.snapshots.held.get(&tenancy.incarnation);
        if view.epoch == 0 && before.is_some_and(|before| before.view.epoch > 0) {
            tracing::warn!(
                tenant_id = &*tenancy.tenant_id,
                "the tenant's records are gone"
            );
            tenancy.confirm(&self.store).await?;
        }
        Ok(self.keep(tenancy, view, Arc::new(floors)))
    }

    /// Remembers what was just learnt.
    pub(super) fn keep(&self, tenancy: &Tenancy, view: View, floors: Arc<Floors>) -> Arc<Snapshot> {
        let snapshot = Arc::new(Snapshot { view, floors });
        self.snapshots
            .held
            .insert(tenancy.incarnation, snapshot.clone());
        snapshot
    }

    /// Reads entries as of one moment, with the snapshot of that same moment.
    pub(super) async fn see(&self, tenancy: &Tenancy, keys: &[Key]) -> Result<Seen> {
        let mut snapshot = self.snapshot(tenancy).await?;
        for _ in 0..ATTEMPTS {
            let asked = snapshot.view.generation;
            let Read { view, records } = self.store.read(&tenancy.space, asked, keys).await?;
            if view != snapshot.view {
                snapshot = self.reload(tenancy).await?;
            }
            if view == snapshot.view && view.generation == asked {
                self.learn_data_keys(tenancy, &records).await?;
                return Ok(Seen { records, snapshot });
            }
        }
        Err(Error::RequestInProgress)
    }

    /// Makes sure that the data keys that sealed these are known: one may have been
    /// made through another replica since the call was admitted.
    pub(super) async fn learn_data_keys(
        &self,
        tenancy: &Tenancy,
        records: &[Option<Record>],
    ) -> Result<()> {
        if tenancy.keyring.is_none() {
            return Ok(());
        }
        let data_key = |record: &Record| Head::decode(&record.value).ok()??.data_key;
        let newest = records.iter().flatten().filter_map(data_key).max();
        match newest {
            Some(newest) => tenancy.learn_data_key(&self.store, newest).await,
            None => Ok(()),
        }
    }
}

/// The floors of a space, and the view at that moment.
pub(super) async fn floors(store: &Handle, space: &Space) -> Result<(View, Floors)> {
    let Read { view, records } = store.read(space, 0, &[Floors::key()]).await?;
    let record = records.into_iter().next().flatten();
    Ok((view, Floors::decode(record.as_ref())?))
}
