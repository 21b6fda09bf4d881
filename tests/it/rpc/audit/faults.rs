//! The audit log while the store is away, and when the service is killed. It does not
//! know what else is lost then.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use riptide_persistence::proto::v1::{CreateTenantRequest, WhoAmIRequest};
use rstest::rstest;
use tokio::task::JoinSet;
use tonic::Code;

use super::{events, events_by, named, until};
use crate::{
    cli::Folder,
    process::client,
    redis::{Redis, eventually},
    server::{ADMIN_KEY, Backend, Kind, Server},
};

#[tokio::test]
async fn what_is_told_while_the_store_is_away_is_kept_when_it_is_back() {
    let mut server = Kind::Redis.start().await;
    server.tenant("acme").await;
    let before = events(&server, "").await;
    server.redis().unwrap().freeze();
    server.serves(false).await;
    // Nobody waits for what cannot be written.
    let mut nobody = server.anonymous();
    let denied = nobody.tenant.who_am_i(named("away", WhoAmIRequest {}));
    assert_eq!(denied.await.unwrap_err().code(), Code::Unauthenticated);
    server.redis().unwrap().thaw();
    server.serves(true).await;
    let has = |id: &'static str| move |event: &_| is(event, id);
    let events = until(&server, |events| events.iter().any(has("away"))).await;
    let away = events.iter().find(|event| is(event, "away")).unwrap();
    let last = before.last().unwrap();
    assert_eq!(away.replica, last.replica);
    assert!(away.sequence > last.sequence);

    // Where it comes back empty, the chain is gone, and another begins.
    let mut redis = server.take_redis().unwrap();
    redis.kill();
    server.serves(false).await;
    let denied = nobody.tenant.who_am_i(named("gone", WhoAmIRequest {}));
    denied.await.unwrap_err();
    redis.restart();
    server.serves(true).await;
    let created = server.tenant("again").await;
    drop(created);
    let events = until(&server, |events| {
        events.iter().any(|event| event.tenant_id == "again")
    })
    .await;
    assert!(events.iter().all(|event| event.replica != last.replica));
    assert_eq!(events[0].sequence, 1);
    server.hold(Some(redis));
}

fn is(event: &riptide_persistence::proto::v1::AuditEvent, id: &str) -> bool {
    event.request_id == id
}

#[tokio::test]
async fn replicas_write_chains_of_their_own() {
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;
    for n in 0..5 {
        one.tenant(&format!("one-{n}")).await;
        two.tenant(&format!("two-{n}")).await;
    }
    let of_one = events(&one, "").await;
    let of_two = events(&two, "").await;
    assert_eq!(of_one, of_two);
    let chain = |tenant_id: &str| {
        let of = of_one.iter().filter(|e| e.tenant_id.starts_with(tenant_id));
        of.map(|event| event.replica.clone())
            .collect::<BTreeSet<_>>()
    };
    let (first, second) = (chain("one"), chain("two"));
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second);
    // What is folded is written at the end, by the one that leaves.
    for _ in 0..20 {
        let mut nobody = one.anonymous();
        nobody.tenant.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    }
    one.stop().await;
    let denied: i64 = events(&two, "")
        .await
        .iter()
        .filter(|event| event.rpc == "WhoAmI")
        .map(|event| event.count)
        .sum();
    assert_eq!(denied, 20);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_that_was_answered_is_forgotten_by_a_kill(#[case] kind: Kind) {
    let redis = (kind == Kind::Redis).then(Redis::start);
    let folder = Folder::new();
    let store = match &redis {
        Some(redis) => format!("redis: {{url: '{}'}}, ", redis.url()),
        None => String::new(),
    };
    let settings = format!("persistence: {{{store}auth: {{admin_key: '{ADMIN_KEY}'}}}}");
    folder.write("persistence.yml", settings);
    let acknowledged: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    for round in 0..3 {
        let serving = folder.serve(&[]);
        let mut callers = JoinSet::new();
        let enough = acknowledged.lock().unwrap().len() + 40;
        for caller in 0..4 {
            let admin = client(&serving.address, ADMIN_KEY);
            let acknowledged = acknowledged.clone();
            callers.spawn(async move {
                for n in 0.. {
                    let tenant_id = format!("t-{round}-{caller}-{n}");
                    let request = CreateTenantRequest {
                        tenant_id: tenant_id.clone(),
                        ..Default::default()
                    };
                    if admin.tenant.clone().create_tenant(request).await.is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().insert(tenant_id);
                }
            });
        }
        eventually("they create", || {
            acknowledged.lock().unwrap().len() >= enough
        });
        drop(serving);
        callers.join_all().await;
    }
    let serving = folder.serve(&[]);
    let kept = events_by(&client(&serving.address, ADMIN_KEY), "").await;
    let kept: BTreeSet<_> = kept
        .into_iter()
        .filter(|event| event.rpc == "CreateTenant" && event.outcome == "OK")
        .map(|event| event.tenant_id)
        .collect();
    let forgotten: Vec<_> = acknowledged
        .lock()
        .unwrap()
        .difference(&kept)
        .cloned()
        .collect();
    assert_eq!(forgotten, [""; 0]);
}
