//! What a replica remembers of a tenant's space, so that a read or a write of an
//! entry is one call: the view, and each flushed namespace's floor. It does not
//! know when a snapshot has passed; the store says so.

use std::{collections::BTreeMap, sync::Arc};

use quick_cache::{Weighter, sync};
use serde::{Deserialize, Serialize};

use super::Cache;
use crate::{
    codec::Head,
    error::{Error, Result},
    store::{Incarnation, Key, Read, Record, Space, Table, View},
    tenant::Tenancy,
};

/// The most bytes, roughly, that all snapshots may take.
const MAX_BYTES: u64 = 64 << 20;
/// About what a snapshot takes, and what each floor in it.
const SNAPSHOT_BYTES: u64 = 128;
const FLOOR_BYTES: u64 = 96;

/// How often a call is repeated because the space moved on under it. Somebody
/// else's flush succeeds each time, so as many must come within one call.
pub(super) const ATTEMPTS: usize = 20;

/// The version of each flushed namespace up to which its entries are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Floors {
    /// By namespace.
    #[serde(default)]
    pub(super) floors: BTreeMap<Box<str>, u64>,
}

impl Floors {
    /// The control record that keeps them.
    pub(super) fn key() -> Key {
        Key::new(Table::Control, &b"floors"[..])
    }

    pub(super) fn decode(record: Option<&Record>) -> Result<Self> {
        let Some(record) = record else {
            return Ok(Self::default());
        };
        serde_json::from_slice(&record.value)
            .map_err(|error| Error::Internal(format!("the control record floors: {error}")))
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::Internal(error.to_string()))
    }
}

/// A tenant's space at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The view.
    pub(super) view: View,
    /// The floors of the namespaces.
    pub(super) floors: Arc<Floors>,
}

impl Snapshot {
    /// The version up to which entries of the namespace are gone; 0 where it was
    /// not flushed.
    pub(super) fn floor(&self, namespace: &str) -> u64 {
        if self.floors.floors.is_empty() {
            return 0;
        }
        self.floors.floors.get(namespace).copied().unwrap_or(0)
    }
}

/// The snapshots of all tenants that were called of late. One for all cores.
pub struct Snapshots(sync::Cache<Incarnation, Arc<Snapshot>, Weight>);

impl Default for Snapshots {
    fn default() -> Self {
        let items = usize::try_from(MAX_BYTES / SNAPSHOT_BYTES).unwrap_or(usize::MAX);
        Self(sync::Cache::with_weighter(items, MAX_BYTES, Weight))
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Incarnation, Arc<Snapshot>> for Weight {
    fn weight(&self, _: &Incarnation, snapshot: &Arc<Snapshot>) -> u64 {
        SNAPSHOT_BYTES + FLOOR_BYTES * snapshot.floors.floors.len() as u64
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
        match self.snapshots.0.get(&tenancy.incarnation) {
            Some(snapshot) => Ok(snapshot),
            None => self.reload(tenancy).await,
        }
    }

    /// A snapshot of now. A space that was written before and is as new now has
    /// lost its records; whether the tenant itself was lost with them, the
    /// registry tells, so that no write brings back what is gone.
    pub(super) async fn reload(&self, tenancy: &Tenancy) -> Result<Arc<Snapshot>> {
        let (view, _, floors) = self.floors(&tenancy.space).await?;
        let before = self.snapshots.0.get(&tenancy.incarnation);
        if view.epoch == 0 && before.is_some_and(|before| before.view.epoch > 0) {
            tracing::warn!(
                tenant_id = &*tenancy.tenant_id,
                "the tenant's records are gone"
            );
            tenancy.confirm(&self.store).await?;
        }
        Ok(self.keep(tenancy, view, Arc::new(floors)))
    }

    /// The floors of a space, the version of their record (`None` where there
    /// is none), and the view at that moment.
    pub(super) async fn floors(&self, space: &Space) -> Result<(View, Option<u64>, Floors)> {
        let Read { view, records } = self.store.read(space, 0, &[Floors::key()]).await?;
        let record = records.into_iter().next().flatten();
        let floors = Floors::decode(record.as_ref())?;
        Ok((view, record.map(|record| record.version), floors))
    }

    /// Remembers what was just learnt.
    pub(super) fn keep(&self, tenancy: &Tenancy, view: View, floors: Arc<Floors>) -> Arc<Snapshot> {
        let snapshot = Arc::new(Snapshot { view, floors });
        self.snapshots
            .0
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
