//! The service killed while callers write, on a Redis that goes on. It does not
//! know how Redis itself takes a kill.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use riptide_persistence::{
    proto::v1::{CreateTenantRequest, DeleteRequest, GetCacheStatsRequest, GetRequest, SetRequest},
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
pub fn client(address: &str, key: &str) -> Clients {
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
pub fn space(redis: &Redis) -> Space {
    let keys = redis.cli(&["keys", "v1:{*}:s"]);
    let mut incarnations = keys.lines().filter_map(|key| {
        let name = key.strip_prefix("v1:{")?.strip_suffix("}:s")?;
        Incarnation::parse(name)
    });
    let incarnation = incarnations.next().unwrap();
    assert_eq!(incarnations.next(), None, "{keys}");
    Space::tenant(incarnation)
}

/// What the cache of the tenant did by its own key: sets, hits, misses.
async fn counted(acme: &Clients) -> [i64; 3] {
    let request = GetCacheStatsRequest::default();
    let answer = acme.cache.clone().get_cache_stats(request).await.unwrap();
    let stats = answer.into_inner().stats.unwrap();
    [stats.sets, stats.hits, stats.misses]
}

/// So many sets, hits and misses of each; all are answered.
async fn use_cache(acme: &mut Clients, times: i64) {
    for n in 0..times {
        let deed = Deed {
            name: format!("k{n}"),
            value: Some("v".into()),
            ttl_ms: None,
        };
        send(acme, &deed).await.unwrap();
        assert!(get(acme, deed.name).await.is_some());
        assert!(get(acme, format!("absent {n}")).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_outlast_a_kill_but_for_the_last_second_and_never_double() {
    let redis = Redis::start();
    let folder = Folder::new();
    let settings = format!(
        "persistence: {{redis: {{url: '{}'}}, auth: {{admin_key: '{ADMIN_KEY}'}}}}",
        redis.url()
    );
    folder.write("persistence.yml", settings);
    let mut dying = folder.serve(&[]);
    let other = folder.serve(&[]);
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let mut admin = client(&dying.address, ADMIN_KEY).tenant;
    let created = admin.create_tenant(request).await.unwrap().into_inner();
    drop(admin);
    let watcher = client(&other.address, &created.secret);

    let mut total = [0; 3];
    for round in 1..4 {
        let mut acme = client(&dying.address, &created.secret);
        use_cache(&mut acme, 20 * round).await;
        total = total.map(|count| count + 20 * round);
        // Nobody asks the one that is to die: it flushes by itself.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while counted(&watcher).await != total {
            assert!(std::time::Instant::now() < deadline, "it does not flush");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        if round == 2 {
            // These may be lost, in part or wholly, and count at most once.
            use_cache(&mut acme, 10).await;
        }
        drop(acme);
        drop(dying);
        dying = folder.serve(&[]);
        let acme = client(&dying.address, &created.secret);
        let found = counted(&acme).await;
        let most = total.map(|count| count + if round == 2 { 10 } else { 0 });
        for ((found, least), most) in found.iter().zip(total).zip(most) {
            assert!((least..=most).contains(found), "{found}: {least} to {most}");
        }
        assert_eq!(counted(&watcher).await, found);
        total = found;
    }
}
