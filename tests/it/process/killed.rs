//! The service killed while callers write, on a Redis that goes on. It does not
//! know how Redis itself takes a kill.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use riptide_persistence::{
    proto::v1::{CreateTenantRequest, DeleteRequest, GetRequest, SetRequest},
    store::{Incarnation, Space, Store},
};
use tokio::task::JoinSet;
use tonic::{Status, transport::Endpoint};
use tonic_types::StatusExt;

use crate::{
    cli::Folder,
    ledger::{Deed, Ledger},
    redis::{Redis, eventually},
    server::{ADMIN_KEY, Bearer, Clients},
};

const WRITERS: usize = 8;
/// Acknowledged writes before a kill.
const ENOUGH: usize = 400;

/// A client with a connection of its own.
fn client(address: &str, key: &str) -> Clients {
    let endpoint = Endpoint::from_shared(address.to_owned()).unwrap();
    Clients::new(endpoint.connect_lazy(), Bearer::new(key))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let redis = Redis::start();
    let folder = Folder::new();
    let settings = format!(
        "persistence: {{redis: {{url: '{}'}}, auth: {{admin_key: '{ADMIN_KEY}'}}}}",
        redis.url()
    );
    folder.write("persistence.yml", settings);
    let mut serving = folder.serve(&[]);
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let mut admin = client(&serving.address, ADMIN_KEY).tenant;
    let created = admin.create_tenant(request).await.unwrap().into_inner();
    drop(admin);

    let mut ledgers: Vec<Ledger> = (0..WRITERS).map(Ledger::new).collect();
    for round in 0..4 {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut writers = JoinSet::new();
        for ledger in ledgers.drain(..) {
            let acme = client(&serving.address, &created.secret);
            writers.spawn(write(acme, ledger, acknowledged.clone()));
        }
        eventually("they write", || acknowledged.load(Relaxed) >= ENOUGH);
        drop(serving);
        ledgers = writers.join_all().await;
        // What it sent before it ended is done before anyone looks: a client is
        // forgotten once all that it sent has been read.
        eventually("only redis-cli is connected", || {
            redis.cli(&["client", "list"]).lines().count() == 1
        });

        serving = folder.serve(&[]);
        let mut acme = client(&serving.address, &created.secret);
        for ledger in &mut ledgers {
            let mut found = Vec::new();
            for name in ledger.names() {
                found.push(get(&mut acme, name).await);
            }
            ledger.settle(found);
        }
        let store = crate::store::patient(&redis.url()).await;
        let audit = store.audit(&space(&redis)).await.unwrap();
        assert!(audit.agrees(), "round {round}: {audit:?}");
        store.close().await.unwrap();
    }
}

/// Writes until the service is gone, and keeps what it was told.
async fn write(mut acme: Clients, mut ledger: Ledger, acknowledged: Arc<AtomicUsize>) -> Ledger {
    loop {
        let deed = ledger.next();
        match send(&mut acme, &deed).await {
            Ok(version) => ledger.acknowledged(deed, version),
            Err(status) => {
                let details = status.get_error_details();
                assert!(details.error_info().is_none(), "it answered {status:?}");
                ledger.unknown(deed);
                return ledger;
            }
        }
        acknowledged.fetch_add(1, Relaxed);
    }
}

/// The version of what was put, or 0.
async fn send(acme: &mut Clients, deed: &Deed) -> Result<u64, Status> {
    let key = deed.name.clone();
    let Some(value) = deed.value.clone() else {
        let request = DeleteRequest {
            key,
            ..Default::default()
        };
        return acme.cache.delete(request).await.map(|_| 0);
    };
    let ttl = deed.ttl_ms.map(|ms| prost_types::Duration {
        seconds: (ms / 1000) as i64,
        nanos: (ms % 1000 * 1_000_000) as i32,
    });
    let request = SetRequest {
        key,
        value: value.into(),
        ttl,
        ..Default::default()
    };
    let answer = acme.cache.set(request).await?;
    Ok(answer.into_inner().version as u64)
}

async fn get(acme: &mut Clients, key: String) -> Option<(u64, String)> {
    let request = GetRequest {
        key,
        ..Default::default()
    };
    let entry = acme.cache.get(request).await.unwrap().into_inner().entry?;
    let value = String::from_utf8(entry.value.to_vec()).unwrap();
    Some((entry.version as u64, value))
}

/// The space of the only tenant.
fn space(redis: &Redis) -> Space {
    let keys = redis.cli(&["keys", "v1:{*}:s"]);
    let mut incarnations = keys.lines().filter_map(|key| {
        let name = key.strip_prefix("v1:{")?.strip_suffix("}:s")?;
        Incarnation::parse(name)
    });
    let incarnation = incarnations.next().unwrap();
    assert_eq!(incarnations.next(), None, "{keys}");
    Space::tenant(incarnation)
}
