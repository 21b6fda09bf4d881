//! A server that starts warm: on either store its first reads are answered from
//! memory, and whatever is wrong with that, it serves in time. It does not know what
//! is hot.

use std::{path::Path, time::Duration};

use riptide_persistence::{
    config::{self, Config},
    proto::v1::{CreateTenantRequest, GetRequest, SetRequest, WhoAmIRequest},
};
use rstest::rstest;
use tempfile::TempDir;

use crate::{
    redis::Redis,
    server::{Backend, Clients, Kind, Server},
};

/// Keys that are used.
const KEYS: usize = 100;

/// A store that outlives the servers on it.
enum Lasting {
    File(TempDir),
    Redis(Redis),
}

impl Lasting {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Embedded => Self::File(TempDir::new().unwrap()),
            Kind::Redis => Self::Redis(Redis::start()),
        }
    }

    fn launch(&self, set: impl FnOnce(&mut Config)) -> Server {
        let backend = match self {
            Self::File(_) => Backend::Embedded,
            Self::Redis(redis) => Backend::Redis(redis),
        };
        let at: Option<&Path> = match self {
            Self::File(folder) => Some(folder.path()),
            Self::Redis(_) => None,
        };
        let launched = Server::launch(backend, |config| {
            if let Some(path) = at {
                config.store.backend = config::Backend::Embedded;
                config.store.ephemeral = false;
                config.store.path = path.into();
            }
            set(config);
        });
        launched.unwrap()
    }

    async fn start(&self, set: impl FnOnce(&mut Config)) -> Server {
        let server = self.launch(set);
        server.serves(true).await;
        server
    }
}

async fn get(clients: &Clients, n: usize) -> Option<bytes::Bytes> {
    let request = GetRequest {
        tenant_id: "acme".into(),
        key: format!("k{n}"),
        ..Default::default()
    };
    let answer = clients.cache.clone().get(request).await.unwrap();
    answer.into_inner().entry.map(|entry| entry.value)
}

/// Has a tenant whose entries are near.
async fn fill(server: &Server) {
    let mut admin = server.admin();
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        plan: "enterprise".into(),
        ..Default::default()
    };
    admin.tenant.create_tenant(request).await.unwrap();
    for n in 0..KEYS {
        let request = SetRequest {
            tenant_id: "acme".into(),
            key: format!("k{n}"),
            value: format!("value {n}").into(),
            ..Default::default()
        };
        admin.cache.set(request).await.unwrap();
    }
    // Until all are answered near, whatever the store says of itself meanwhile.
    for _ in 0..500 {
        if asked(server).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing is answered near");
}

/// Reads every key; how many reads of the store that took.
async fn asked(server: &Server) -> u64 {
    let clients = server.admin();
    // The tenant is known from here on.
    let mut whoever = clients.tenant.clone();
    whoever.who_am_i(WhoAmIRequest {}).await.unwrap();
    let absent = GetRequest {
        tenant_id: "acme".into(),
        key: "absent".into(),
        ..Default::default()
    };
    clients.cache.clone().get(absent).await.unwrap();
    let before = server.calls().read;
    for n in 0..KEYS {
        let value = get(&clients, n).await.expect("it was set");
        assert_eq!(value, format!("value {n}"));
    }
    server.calls().read - before
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn the_first_reads_after_a_restart_are_answered_near(#[case] kind: Kind) {
    let store = Lasting::new(kind);
    let server = store.start(|_| {}).await;
    fill(&server).await;
    server.stop().await;

    let server = store.start(|_| {}).await;
    let asked_now = asked(&server).await;
    // A proof may be late on a busy machine; what was not pulled shows as all.
    assert!(asked_now < 20, "{asked_now} reads of the store");
    server.stop().await;

    let server = store
        .start(|config| config.cache.warm_start.enabled = false)
        .await;
    let asked_now = asked(&server).await;
    assert!(asked_now >= KEYS as u64, "{asked_now}: it was not off");
}

#[tokio::test]
async fn a_store_that_cannot_tell_of_changes_does_not_hold_it_up() {
    let store = Lasting::new(Kind::Redis);
    let server = store.start(|_| {}).await;
    fill(&server).await;
    server.stop().await;
    let Lasting::Redis(redis) = &store else {
        unreachable!()
    };
    redis.cli(&["acl", "setuser", "default", "-client|tracking"]);
    let server = store
        .start(|config| config.cache.warm_start.timeout = Duration::from_millis(300))
        .await;
    let clients = server.admin();
    assert_eq!(get(&clients, 1).await.unwrap(), "value 1");
    server.stop().await;
}

#[tokio::test]
async fn a_store_that_is_frozen_at_the_start_is_served_as_soon_as_it_answers() {
    let store = Lasting::new(Kind::Redis);
    let server = store.start(|_| {}).await;
    fill(&server).await;
    server.stop().await;
    let Lasting::Redis(redis) = &store else {
        unreachable!()
    };
    redis.freeze();
    let server = store.launch(|config| {
        config.cache.warm_start.timeout = Duration::from_millis(100);
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(server.probe("/readyz").0, 503);
    redis.thaw();
    server.serves(true).await;
    assert_eq!(get(&server.admin(), 1).await.unwrap(), "value 1");
    server.stop().await;
}
