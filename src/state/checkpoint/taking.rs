//! Taking a checkpoint: tenant by tenant, each as it was at one moment, while calls go
//! on. It does not know whose turn it is, nor who asked.
//!
//! Tenants are taken in groups: their spaces are pinned, and one walk reads them all.
//! Where a point in time is lost - too much has changed meanwhile, the store was
//! restarted - the tenant is taken anew; one that cannot be is told of, and is not in
//! the checkpoint. A tenant that is purged while the checkpoint is taken is not in it
//! either: its key is gone before the manifest is written.
//!
//! Last comes one walk over the events of all of them that were counted already: those
//! that are in the rows that were taken, and no others (see `tenant::event::counted`).

mod events;
mod group;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    Cause, CheckpointId, ChunkKey, Component, Counts, Held, Kind, Manifest, Missed, Owner, Part,
    Record, component, manifest,
    packing::{Packer, Parcel},
    vault::Vault,
};
use crate::{
    config::Setting,
    error::Result,
    store::{Cursor, Query, Space, Table},
    tenant::record,
};

/// Tenants that are taken together: as many as one walk can be about.
const GROUP: usize = crate::store::MAX_PINS;

/// Records that are no block yet may be so many bytes, over all tenants read together.
const LOOSE_BYTES: usize = 32 << 20;

/// Tenants listed at a time.
const LISTED: usize = 1000;

/// What a checkpoint is asked to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The tenants; empty means all.
    pub tenant_ids: Vec<String>,
    /// What it holds.
    pub components: BTreeSet<Component>,
    /// What its maker wrote.
    pub description: String,
    /// Why it is taken.
    pub cause: Cause,
}

/// How far a checkpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: &'static str,
    /// Tenants done.
    pub tenants_done: u64,
    /// Tenants in all.
    pub tenants: u64,
    /// Records done.
    pub records_done: u64,
    /// Their bytes.
    pub bytes_done: u64,
}

/// A checkpoint that is being taken.
pub(super) struct Taking<'a> {
    vault: &'a Vault,
    id: &'a CheckpointId,
    wanted: &'a Wanted,
    create_ms: u64,
    progress: &'a watch::Sender<Progress>,
    packer: Packer,
    taken: Vec<Taken>,
    missed: Vec<Missed>,
    keys_bytes: u64,
    /// Events that were packed.
    events: u64,
}

/// A tenant that was taken.
struct Taken {
    parcel: Parcel,
    /// Events until then are in its rows; `None` where no rows were taken.
    events_before_ms: Option<u64>,
}

impl<'a> Taking<'a> {
    pub(super) fn new(
        vault: &'a Vault,
        id: &'a CheckpointId,
        wanted: &'a Wanted,
        create_ms: u64,
        progress: &'a watch::Sender<Progress>,
    ) -> Self {
        Self {
            vault,
            id,
            wanted,
            create_ms,
            progress,
            packer: Packer::new(vault.objects.clone(), id.clone()),
            taken: Vec::new(),
            missed: Vec::new(),
            keys_bytes: 0,
            events: 0,
        }
    }

    /// Writes all but the manifest, whose bytes are told.
    pub(super) async fn run(mut self) -> Result<Bytes> {
        let mut store = self.store_itself().await?;
        let ids = self.tenant_ids().await?;
        self.progress.send_modify(|progress| {
            progress.phase = "reading";
            progress.tenants = ids.len() as u64;
        });
        for ids in ids.chunks(GROUP) {
            self.group(ids).await?;
        }
        self.events().await?;
        self.packer.finish(&mut store).await?;
        self.progress
            .send_modify(|progress| progress.phase = "writing");
        let chunks = self.packer.end().await?;
        let (objects, id) = (&self.vault.objects, self.id);

        // Whoever was purged meanwhile may have had its key removed, or not yet.
        let taken = self.taken.into_iter();
        let taken: Vec<Held> = taken.map(|taken| taken.parcel.held).collect();
        let lives = taken.iter().filter_map(|held| match held.owner {
            Owner::Store => None,
            Owner::Tenant(life) => Some((held.tenant_id.as_str(), life)),
        });
        let alive = self.vault.tenants.alive(lives).await?;
        let mut index = Vec::with_capacity(taken.len());
        for held in taken {
            if matches!(held.owner, Owner::Tenant(life) if alive.contains(&life)) {
                index.push(held);
                continue;
            }
            objects.remove(id, Part::Key(held.owner)).await?;
            self.missed.push(Missed {
                tenant_id: held.tenant_id,
                why: "it was purged while the checkpoint was taken".into(),
            });
        }
        index.sort_by(|a, b| a.tenant_id.cmp(&b.tenant_id));
        let (index_bytes, index_digest) = manifest::encode_index(&index)?;
        objects.put(id, Part::Index, index_bytes).await?;

        let mut counts = Counts::new();
        component::merge(&mut counts, &store.held.counts);
        for held in &index {
            component::merge(&mut counts, &held.counts);
        }
        let manifest = Manifest {
            format: match self.events {
                0 => manifest::WITHOUT_EVENTS,
                _ => manifest::FORMAT,
            },
            checkpoint_id: id.to_string(),
            cause: self.wanted.cause,
            create_ms: self.create_ms,
            end_ms: self.vault.store.now_ms(),
            description: self.wanted.description.clone(),
            tenant_ids: self.wanted.tenant_ids.clone(),
            components: self.wanted.components.clone(),
            counts,
            tenants: index.len() as u64,
            missed: self.missed,
            store: store.held,
            index: index_digest,
            chunks,
            keys_bytes: self.keys_bytes,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        manifest.encode(&store.key)
    }

    /// Begins with what belongs to no tenant: the secret that API keys are compared by,
    /// and the settings.
    async fn store_itself(&mut self) -> Result<Parcel> {
        let mut parcel = self.parcel("", Owner::Store).await?;
        if self.wanted.components.contains(&Component::Tenants)
            && let Some((key, found)) = self.vault.tenants.stored_secret().await?
        {
            let record = stored(key, found);
            self.packer
                .add(&mut parcel, Component::Tenants, &record)
                .await?;
        }
        if self.wanted.components.contains(&Component::Config) {
            let in_force = self.vault.configuration.in_force();
            for setting in &in_force.loaded.settings {
                let record = shown(setting)?;
                self.packer
                    .add(&mut parcel, Component::Config, &record)
                    .await?;
            }
        }
        Ok(parcel)
    }

    /// Draws the key of an owner, and puts it where the checkpoint's keys are: before
    /// anything that it seals.
    async fn parcel(&mut self, tenant_id: &str, owner: Owner) -> Result<Parcel> {
        let key = ChunkKey::draw();
        let bytes = key.encode(self.vault.tenants.masters(), self.id, owner)?;
        self.keys_bytes += bytes.len() as u64;
        let objects = &self.vault.objects;
        objects.put(self.id, Part::Key(owner), bytes).await?;
        let now_ms = self.vault.store.now_ms();
        Ok(Parcel::new(tenant_id, owner, key, now_ms))
    }

    /// The tenants to be taken, by id.
    async fn tenant_ids(&self) -> Result<Vec<String>> {
        let mut ids: Vec<String> = self.wanted.tenant_ids.clone();
        if ids.is_empty() {
            let mut query = Query {
                table: Table::Tenant,
                generation: 0,
                prefix: Bytes::new(),
                after: None,
                limit: LISTED,
                value_bytes: 0,
            };
            loop {
                let page = self
                    .vault
                    .store
                    .list(&Space::registry(), query.clone())
                    .await?;
                let listed = page.items.iter();
                ids.extend(listed.filter_map(|item| String::from_utf8(item.path.to_vec()).ok()));
                match page.next {
                    Some(Cursor(next)) => query.after = Some(Cursor(next)),
                    None => break,
                }
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// A record of the store as it is.
pub(super) fn stored(key: crate::store::Key, found: crate::store::Record) -> Record {
    Record {
        kind: Kind::Table(key.table),
        path: key.path,
        version: found.version,
        expire_ms: found.expire_ms,
        value: found.value,
    }
}

/// A setting as it is shown: secrets are redacted.
fn shown(setting: &Setting) -> Result<Record> {
    let source = setting.source.to_string();
    let value: BTreeMap<&str, &str> =
        BTreeMap::from([("value", setting.value.as_str()), ("source", &source)]);
    Ok(Record {
        kind: Kind::Setting,
        path: setting.path.clone().into(),
        version: 0,
        expire_ms: None,
        value: record::encode(&value)?,
    })
}
