//! What a checkpoint holds of an owner, opened record by record. It does not know what
//! is done with the records.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde::Deserialize;

use crate::{
    error::{Error, Result},
    state::checkpoint::{Block, ChunkKey, Component, Held, Kind, Part, Reader, Record, Trouble},
    store::{Key, Table},
    tenant::{Tenant, record},
};

/// Chunks that are kept, as small tenants share them.
const KEPT: usize = 4;

/// A setting as a checkpoint holds it.
#[derive(Deserialize)]
struct Setting {
    value: String,
}

/// A checkpoint being read.
pub(in crate::state) struct Contents<'a> {
    pub(super) reader: &'a Reader,
    kept: Mutex<VecDeque<(u32, Arc<Vec<Block>>)>>,
}

/// A tenant as it was, and its API keys with when each was last used.
pub(in crate::state) struct Registered {
    pub(in crate::state) tenant: Tenant,
    pub(super) records: Vec<(Key, Bytes)>,
}

impl<'a> Contents<'a> {
    pub(in crate::state) fn of(reader: &'a Reader) -> Self {
        Self {
            reader,
            kept: Mutex::default(),
        }
    }

    /// The blocks of a chunk, if it is as it was written.
    pub(super) async fn chunk(&self, number: u32) -> Result<Arc<Vec<Block>>> {
        let known = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let found = kept.iter().find(|(known, _)| *known == number);
            found.map(|(_, blocks)| blocks.clone())
        };
        if let Some(blocks) = known {
            return Ok(blocks);
        }
        let blocks = Arc::new(self.reader.chunk(number).await?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((number, blocks.clone()));
        while kept.len() > KEPT {
            kept.pop_front();
        }
        Ok(blocks)
    }

    /// The records of a component in one chunk.
    pub(super) async fn records(
        &self,
        number: u32,
        (held, component): (&Held, Component),
        key: &ChunkKey,
    ) -> Result<Vec<Record>> {
        let damaged = |damage| Trouble::Damaged(damage).of(self.reader.id(), Part::Chunk(number));
        let mut records = Vec::new();
        for block in self.chunk(number).await?.iter() {
            if !held.has(block) || block.component != component {
                continue;
            }
            for record in block.open(key.sealing()).map_err(damaged)? {
                records.push(record.map_err(damaged)?);
            }
        }
        Ok(records)
    }

    /// All records of a component that are few.
    pub(super) async fn all(
        &self,
        held: &Held,
        component: Component,
        key: &ChunkKey,
    ) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        for number in held.chunks_of(&BTreeSet::from([component])) {
            all.extend(self.records(number, (held, component), key).await?);
        }
        Ok(all)
    }

    /// What API keys are compared by.
    pub(super) async fn secret(&self) -> Result<Option<Bytes>> {
        let store = &self.reader.manifest().store;
        let records = self
            .all(store, Component::Tenants, self.reader.store_key())
            .await?;
        let is_secret = |record: &Record| {
            record.kind == Kind::Table(Table::Meta) && record.path == b"pepper"[..]
        };
        Ok(records
            .into_iter()
            .find(is_secret)
            .map(|record| record.value))
    }

    /// The settings of the replica that took it.
    pub(super) async fn settings(&self) -> Result<BTreeMap<String, String>> {
        let store = &self.reader.manifest().store;
        let records = self
            .all(store, Component::Config, self.reader.store_key())
            .await?;
        let setting = |record: Record| {
            let path = String::from_utf8(record.path.to_vec()).ok()?;
            let value: Setting = serde_json::from_slice(&record.value).ok()?;
            (record.kind == Kind::Setting).then_some((path, value.value))
        };
        Ok(records.into_iter().filter_map(setting).collect())
    }

    /// A tenant's record and its API keys; `None` where they are not in it.
    pub(in crate::state) async fn registered(
        &self,
        held: &Held,
        key: &ChunkKey,
    ) -> Result<Option<Registered>> {
        let mut tenant = None;
        let mut records = Vec::new();
        for found in self.all(held, Component::Tenants, key).await? {
            match found.kind {
                Kind::Table(Table::Tenant) => {
                    tenant = Some(record::decode::<Tenant>(&found.value)?);
                }
                Kind::Table(table @ (Table::ApiKey | Table::KeyUse)) => {
                    records.push((Key::new(table, found.path), found.value));
                }
                _ => {}
            }
        }
        let Some(mut tenant) = tenant else {
            return Ok(None);
        };
        if let Some(wrapped) = &key.data_keys
            && tenant.encryption.is_some()
        {
            // As the master key that is needed now wraps them.
            tenant.encryption = Some(wrapped.clone());
        }
        let same = tenant.tenant_id == held.tenant_id
            && Some(tenant.incarnation) == super::plan::life(held);
        if !same {
            return Err(Error::CheckpointCorrupt {
                checkpoint_id: self.reader.id().to_string(),
                part: Part::Index.to_string(),
                problem: format!("it takes {} for {}", tenant.tenant_id, held.tenant_id),
            });
        }
        Ok(Some(Registered { tenant, records }))
    }
}
