//! Checkpoints end to end, on both backends: taken while calls go on, listed, verified,
//! damaged, removed. It does not know how they are restored.

mod damage;
mod killed;
mod life;
mod object_store;
mod purge;
mod rotated;
mod schedule;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use riptide_persistence::{
    config::Config,
    proto::v1::{
        Checkpoint, Component as Named, CreateCheckpointRequest, CreateTenantRequest,
        ListCheckpointsRequest, SetRequest, VerifyCheckpointRequest, VerifyCheckpointResponse,
        create_checkpoint_response::Event,
    },
    state::{
        checkpoint::{CheckpointId, Component, Kind as RecordKind, Owner, Reader, Record},
        objects::Objects,
    },
    tenant::Masters,
};
use tempfile::TempDir;
use tonic::Status;

use crate::server::{Clients, Server};

/// A directory that checkpoints lie in.
pub struct Vault {
    folder: TempDir,
}

impl Vault {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// Lets a server keep its checkpoints here.
    pub fn set(&self) -> impl FnOnce(&mut Config) {
        let url = self.url();
        move |config| config.checkpoint.url = Some(url)
    }

    pub fn part(&self, id: &str, part: &str) -> PathBuf {
        self.path().join(id).join(part)
    }

    /// A place beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("vault")
    }

    /// What a checkpoint holds of each tenant; of the store under the empty name.
    pub async fn contents(&self, id: &str) -> BTreeMap<String, Vec<(Component, Record)>> {
        contents(&Objects::open(&self.url()).unwrap(), id).await
    }
}

pub async fn contents(objects: &Objects, id: &str) -> BTreeMap<String, Vec<(Component, Record)>> {
    let id = CheckpointId::parse(id).unwrap();
    let masters = Masters::default();
    let reader = Reader::open(objects, &masters, &id).await.unwrap();
    let mut index = reader.index().await.unwrap();
    index.push(reader.manifest().store.clone());
    let mut found = BTreeMap::new();
    for held in index {
        let key = reader.key(&masters, &held).await.unwrap().unwrap();
        let mut records = Vec::new();
        let all: BTreeSet<Component> = Component::ALL.into_iter().collect();
        for chunk in held.chunks_of(&all) {
            for block in reader.chunk(chunk).await.unwrap() {
                if held.has(&block) {
                    let opened = block.open(key.sealing()).unwrap();
                    records.extend(opened.map(|record| (block.component, record.unwrap())));
                }
            }
        }
        let told: u64 = held.counts.values().map(|count| count.records).sum();
        assert_eq!(told, records.len() as u64, "{held:?}");
        assert_eq!(held.owner == Owner::Store, held.tenant_id.is_empty());
        found.insert(held.tenant_id, records);
    }
    found
}

/// Takes a checkpoint, to the last message.
pub async fn take(admin: &Clients, request: CreateCheckpointRequest) -> Result<Checkpoint, Status> {
    let mut client = admin.state.clone();
    let mut events = client.create_checkpoint(request).await?.into_inner();
    let mut id = None;
    loop {
        let message = events.message().await?.expect("a checkpoint is the last");
        match message.event.unwrap() {
            Event::Progress(progress) => id = Some(progress.checkpoint_id),
            Event::Checkpoint(checkpoint) => {
                assert!(id.is_none_or(|id| id == checkpoint.checkpoint_id));
                assert!(events.message().await.unwrap().is_none());
                return Ok(checkpoint);
            }
        }
    }
}

/// Takes one of these components.
pub async fn take_of(server: &Server, components: &[Named]) -> Checkpoint {
    take(&server.admin(), of(components)).await.unwrap()
}

pub fn of(components: &[Named]) -> CreateCheckpointRequest {
    CreateCheckpointRequest {
        components: components.iter().map(|named| (*named).into()).collect(),
        ..Default::default()
    }
}

pub async fn verify(server: &Server, id: &str) -> Result<VerifyCheckpointResponse, Status> {
    verify_by(&server.admin(), id).await
}

pub async fn verify_by(admin: &Clients, id: &str) -> Result<VerifyCheckpointResponse, Status> {
    let request = VerifyCheckpointRequest {
        checkpoint_id: id.into(),
    };
    let answer = admin.state.clone().verify_checkpoint(request).await?;
    Ok(answer.into_inner())
}

pub async fn set(clients: &Clients, key: &str, value: impl Into<Vec<u8>>) -> i64 {
    let request = SetRequest {
        key: key.into(),
        value: value.into().into(),
        ..Default::default()
    };
    let set = clients.cache.clone().set(request).await.unwrap();
    set.into_inner().version
}

/// The entries of a tenant, by path.
pub fn entries(records: &[(Component, Record)]) -> BTreeMap<String, Record> {
    let mut entries = BTreeMap::new();
    for (component, record) in records {
        if *component == Component::Cache {
            assert_eq!(
                record.kind,
                RecordKind::Table(riptide_persistence::store::Table::Entry)
            );
            let path = String::from_utf8(record.path.to_vec()).unwrap();
            let twice = entries.insert(path, record.clone());
            assert!(twice.is_none(), "{twice:?} is in it twice");
        }
    }
    entries
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds().await {
        assert!(
            std::time::Instant::now() < end,
            "it never came to be that {what}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// All checkpoints there are, the newest first.
pub async fn list(server: &Server) -> Vec<Checkpoint> {
    list_by(&server.admin()).await
}

pub async fn list_by(admin: &Clients) -> Vec<Checkpoint> {
    let request = ListCheckpointsRequest::default();
    let listed = admin.state.clone().list_checkpoints(request).await;
    listed.unwrap().into_inner().checkpoints
}

/// A tenant made by way of these clients, and its first key.
pub async fn tenant_by(admin: &Clients, tenant_id: &str) -> String {
    let request = CreateTenantRequest {
        tenant_id: tenant_id.into(),
        ..Default::default()
    };
    let created = admin.tenant.clone().create_tenant(request).await;
    created.unwrap().into_inner().secret
}
