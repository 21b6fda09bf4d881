//! Encrypted tenants over a real socket, on both backends: what the store holds of
//! them, what becomes of what is changed or moved there, keys that are lost and
//! found, rotated and destroyed. It does not know how a value is sealed.

mod keys;
mod lost;
mod rotation;
mod tampered;

use bytes::Bytes;
use data_encoding::BASE64;
use riptide_persistence::{
    config::Config,
    proto::v1::{
        BatchGetRequest, BatchGetResult, CacheEntry, CreateTenantRequest, GetRequest, SetRequest,
    },
    store::{Batch, Commit, Handle, Incarnation, Key, Space, Write, embedded::Embedded},
    tenant::record,
};
use tempfile::TempDir;
use tonic::Status;

use crate::{
    process::audit,
    redis::Redis,
    server::{Backend, Clients, Kind, Server, Tenant},
};

/// A master key with this name; the same for the same name.
pub fn master(id: &str) -> String {
    let byte = id.bytes().fold(7_u8, u8::wrapping_add);
    format!("{id}:{}", BASE64.encode(&[byte; 32]))
}

/// A store that outlives the servers on it.
pub struct Stage {
    folder: TempDir,
    redis: Option<Redis>,
}

impl Stage {
    pub fn new(kind: Kind) -> Self {
        audit::listen();
        Self {
            folder: tempfile::tempdir().unwrap(),
            redis: (kind == Kind::Redis).then(Redis::start),
        }
    }

    /// A server whose master keys are these, the first one writing.
    pub async fn serve(&self, masters: &[&str]) -> Server {
        self.serve_with(masters, |_| {}).await
    }

    pub async fn serve_with(&self, masters: &[&str], set: impl FnOnce(&mut Config)) -> Server {
        let backend = match &self.redis {
            Some(redis) => Backend::Redis(redis),
            None => Backend::Embedded,
        };
        let masters: Vec<_> = masters.iter().map(|id| master(id)).collect();
        Server::start_with(backend, |config| {
            config.store.ephemeral = false;
            config.store.path = self.folder.path().into();
            if !masters.is_empty() {
                config.encryption.master_keys = Some(masters.join(",").into());
            }
            set(config);
        })
        .await
    }

    /// The store itself; no server may be on it.
    pub async fn store(&self) -> Handle {
        match &self.redis {
            Some(redis) => std::sync::Arc::new(crate::store::patient(&redis.url()).await),
            None => std::sync::Arc::new(Embedded::open(self.folder.path()).unwrap()),
        }
    }

    /// How many of the store's files or values hold these bytes.
    pub fn holding(&self, text: &str) -> usize {
        let Some(redis) = &self.redis else {
            let files = std::fs::read_dir(self.folder.path()).unwrap();
            // The folder of checkpoints is beside the store's file, and not its own.
            let files = files.map(|file| file.unwrap().path());
            let files = files.filter(|path| path.is_file());
            let files = files.map(|path| std::fs::read(path).unwrap());
            return files.filter(|bytes| holds(bytes, text.as_bytes())).count();
        };
        let script = "local found = 0
            for _, key in ipairs(redis.call('KEYS', '*')) do
                local kind = redis.call('TYPE', key).ok
                local values = {}
                if kind == 'string' then values = {redis.call('GET', key)}
                elseif kind == 'hash' then values = redis.call('HGETALL', key)
                elseif kind == 'zset' then values = redis.call('ZRANGE', key, 0, -1) end
                for _, value in ipairs(values) do
                    if string.find(value, ARGV[1], 1, true) then found = found + 1 end
                end
            end
            return found";
        let found = redis.cli(&["EVAL", script, "0", text]);
        found
            .trim()
            .trim_start_matches("(integer) ")
            .parse()
            .unwrap()
    }
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|part| part == text)
}

/// A new encrypted tenant.
pub async fn vault(server: &Server, tenant_id: &str) -> Tenant {
    let request = CreateTenantRequest {
        tenant_id: tenant_id.into(),
        encryption_enabled: true,
        ..Default::default()
    };
    let created = server.admin().tenant.create_tenant(request).await.unwrap();
    let created = created.into_inner();
    Tenant {
        clients: server.with_key(&created.secret),
        secret: created.secret,
        message: created.tenant.unwrap(),
    }
}

pub async fn set(
    clients: &Clients,
    namespace: &str,
    key: &str,
    value: impl Into<Bytes>,
) -> Result<i64, Status> {
    let request = SetRequest {
        namespace: namespace.into(),
        key: key.into(),
        value: value.into(),
        content_type: "text/plain".into(),
        tags: vec!["a-tag".into()],
        ..Default::default()
    };
    let set = clients.cache.clone().set(request).await?;
    Ok(set.into_inner().version)
}

pub async fn get(
    clients: &Clients,
    namespace: &str,
    key: &str,
) -> Result<Option<CacheEntry>, Status> {
    let request = GetRequest {
        namespace: namespace.into(),
        key: key.into(),
        ..Default::default()
    };
    Ok(clients.cache.clone().get(request).await?.into_inner().entry)
}

pub async fn value(clients: &Clients, namespace: &str, key: &str) -> Option<Bytes> {
    let entry = get(clients, namespace, key).await.unwrap();
    entry.map(|entry| entry.value)
}

pub async fn batch(clients: &Clients, keys: &[&str]) -> Vec<BatchGetResult> {
    let request = BatchGetRequest {
        keys: keys.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let got = clients.cache.clone().batch_get(request).await.unwrap();
    got.into_inner().results
}

/// The life of a tenant, as its record has it.
pub async fn incarnation(store: &Handle, tenant_id: &str) -> Incarnation {
    registered(store, tenant_id).await.incarnation
}

pub async fn registered(store: &Handle, tenant_id: &str) -> record::Tenant {
    let key = record::tenant_key(tenant_id);
    let found = raw(store, &Space::registry(), key).await;
    record::decode(&found.unwrap()).unwrap()
}

/// What is stored under a key.
pub async fn raw(store: &Handle, space: &Space, key: Key) -> Option<Bytes> {
    let read = store.read(space, 0, &[key]).await.unwrap();
    read.records[0].as_ref().map(|record| record.value.clone())
}

/// Puts these bytes under a key, whatever they are.
pub async fn plant(store: &Handle, space: &Space, key: Key, bytes: impl Into<Bytes>) {
    let planted = store
        .commit(space, Batch::of([Write::put(key, bytes)]))
        .await;
    assert!(matches!(planted.unwrap(), Commit::Applied(_)));
}
