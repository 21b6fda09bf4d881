//! Gets that a replica answers from its own memory, over a real socket. It does not
//! know how a replica learns of changes.

use std::time::{Duration, Instant};

use riptide_persistence::{
    proto::v1::{
        BatchGetRequest, BatchSetRequest, Consistency, DeleteRequest, GetCacheStatsRequest,
        GetRequest, GetServerInfoRequest, RevokeApiKeyRequest, SuspendTenantRequest, Tags,
        TouchRequest, invalidate_cache_request::Target,
    },
    store::{Key, STALENESS, Store, Table},
};
use rstest::rstest;
use tonic::Status;

use super::{flush, get, item, keys, seconds, set};
use crate::{
    process::space,
    redis::Redis,
    server::{Backend, Clients, Kind, Server, reason},
};

/// Whether the store was asked for a Get.
async fn asked(server: &Server, clients: &Clients, request: GetRequest) -> bool {
    let before = server.calls();
    clients.cache.clone().get(request).await.unwrap();
    server.calls().since(before).read > 0
}

fn of(key: &str) -> GetRequest {
    GetRequest {
        key: key.into(),
        ..Default::default()
    }
}

/// Reads until the answer comes from memory.
async fn warm(server: &Server, clients: &Clients, key: &str) {
    while asked(server, clients, of(key)).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_is_asked_for_often_is_answered_from_memory(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let written = clients.cache.set(set("k", "v")).await.unwrap().into_inner();
    warm(&server, &clients, "k").await;
    let entry = get(&clients, "k").await.unwrap().unwrap();
    assert_eq!(
        (&entry.value[..], entry.version),
        (&b"v"[..], written.version)
    );

    let nanos = |nanos| Some(prost_types::Duration { seconds: 0, nanos });
    for (case, request) in [
        (
            "strong",
            GetRequest {
                consistency: Consistency::Strong.into(),
                ..of("k")
            },
        ),
        (
            "no age",
            GetRequest {
                max_age: nanos(0),
                ..of("k")
            },
        ),
        (
            "a later version",
            GetRequest {
                min_version: written.version + 1,
                ..of("k")
            },
        ),
    ] {
        assert!(asked(&server, &clients, request).await, "{case}");
    }
    let request = BatchGetRequest {
        keys: keys(&["k"]),
        consistency: Consistency::Strong.into(),
        ..Default::default()
    };
    let before = server.calls();
    clients.cache.batch_get(request).await.unwrap();
    assert_eq!(server.calls().since(before).read, 1, "a strong batch");

    // What it was asked for is counted, and told.
    let near_hits = async || {
        let request = GetCacheStatsRequest::default();
        let answer = clients.cache.clone().get_cache_stats(request).await;
        let stats = answer.unwrap().into_inner().stats.unwrap();
        assert!(stats.near_hits <= stats.hits, "{stats:?}");
        stats.near_hits
    };
    while near_hits().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_caller_reads_what_it_wrote(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    for round in 0..20 {
        let value = format!("v{round}");
        clients.cache.set(set("k", value.clone())).await.unwrap();
        for _ in 0..3 {
            let entry = get(&clients, "k").await.unwrap().unwrap();
            assert_eq!(entry.value, value);
        }
    }
    warm(&server, &clients, "k").await;
    let touch = TouchRequest {
        key: "k".into(),
        ttl: seconds(60),
        ..Default::default()
    };
    let touched = clients.cache.touch(touch).await.unwrap().into_inner();
    let entry = get(&clients, "k").await.unwrap().unwrap();
    assert_eq!(entry.expire_time, touched.expire_time);
    for target in [
        Target::WholeNamespace(true),
        Target::WholeTenant(true),
        Target::Prefix("k".into()),
    ] {
        clients.cache.set(set("k", "v")).await.unwrap();
        warm(&server, &clients, "k").await;
        clients.cache.invalidate_cache(flush(target)).await.unwrap();
        assert_eq!(get(&clients, "k").await.unwrap(), None);
    }
    clients.cache.set(set("k", "v")).await.unwrap();
    warm(&server, &clients, "k").await;
    let delete = DeleteRequest {
        key: "k".into(),
        ..Default::default()
    };
    clients.cache.delete(delete).await.unwrap();
    assert_eq!(get(&clients, "k").await.unwrap(), None);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_switch_turns_it_off(#[case] kind: Kind) {
    let told = async |server: &Server| {
        let mut state = server.admin().state;
        let answer = state.get_server_info(GetServerInfoRequest::default()).await;
        let features = answer.unwrap().into_inner().features;
        let near = features.into_iter().find(|it| it.name == "near_cache");
        near.unwrap().enabled
    };
    let server = kind
        .start_with(|config| config.cache.near.enabled = false)
        .await;
    let mut clients = server.tenant("acme").await.clients;
    clients.cache.set(set("k", "v")).await.unwrap();
    for _ in 0..10 {
        assert!(asked(&server, &clients, of("k")).await);
    }
    assert!(!told(&server).await);
    assert!(told(&kind.start().await).await);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn who_may_not_call_is_not_answered_from_memory_either(#[case] kind: Kind) {
    let server = kind.start().await;
    let admin = server.admin();
    let refused = async |clients: &Clients| loop {
        match get(clients, "k").await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(status) => return reason(&status),
        }
    };
    let mut acme = server.tenant("acme").await;
    acme.clients.cache.set(set("k", "acme's")).await.unwrap();
    warm(&server, &acme.clients, "k").await;
    // Another tenant's key of the same name is not that one.
    let other = server.tenant("other").await;
    assert_eq!(get(&other.clients, "k").await.unwrap(), None);

    let reader = server.with_key(&server.key("acme", &["cache.read"]).await);
    warm(&server, &reader, "k").await;
    let who = riptide_persistence::proto::v1::WhoAmIRequest::default();
    let key_id = reader
        .tenant
        .clone()
        .who_am_i(who)
        .await
        .unwrap()
        .into_inner()
        .key_id;
    let revoke = RevokeApiKeyRequest {
        key_id,
        ..Default::default()
    };
    admin.tenant.clone().revoke_api_key(revoke).await.unwrap();
    assert_eq!(refused(&reader).await, "API_KEY_INVALID");

    warm(&server, &acme.clients, "k").await;
    let suspend = SuspendTenantRequest {
        tenant_id: "acme".into(),
        mode: riptide_persistence::proto::v1::SuspensionMode::Blocked.into(),
        ..Default::default()
    };
    admin.tenant.clone().suspend_tenant(suspend).await.unwrap();
    assert_eq!(refused(&acme.clients).await, "TENANT_SUSPENDED");
}

/// What a read must see that began half a second after this.
async fn sees(
    clients: &Clients,
    acknowledged: Instant,
    wanted: impl Fn(&Result<Option<bytes::Bytes>, Status>) -> bool,
) {
    loop {
        let began = Instant::now();
        let found = get(clients, "k").await;
        let found = found.map(|entry| entry.map(|entry| entry.value));
        if wanted(&found) {
            return;
        }
        assert!(
            began.saturating_duration_since(acknowledged) < STALENESS,
            "{found:?} half a second later"
        );
    }
}

#[tokio::test]
async fn what_another_replica_changes_is_seen_within_half_a_second() {
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;
    let acme = one.tenant("acme").await;
    let (mut here, mut there) = (acme.clients, two.with_key(&acme.secret));
    let absent = |found: &Result<Option<bytes::Bytes>, _>| matches!(found, Ok(None));
    for round in 0..10 {
        let value = bytes::Bytes::from(format!("v{round}"));
        there.cache.set(set("k", value.clone())).await.unwrap();
        let now = |found: &Result<_, _>| matches!(found, Ok(Some(found)) if *found == value);
        sees(&here, Instant::now(), now).await;
        warm(&one, &here, "k").await;
    }
    for target in [
        Target::WholeNamespace(true),
        Target::WholeTenant(true),
        Target::Prefix("k".into()),
        Target::Tags(Tags {
            tags: keys(&["red"]),
        }),
    ] {
        let tagged = riptide_persistence::proto::v1::SetRequest {
            tags: keys(&["red"]),
            ..set("k", "v")
        };
        here.cache.set(tagged).await.unwrap();
        warm(&one, &here, "k").await;
        there.cache.invalidate_cache(flush(target)).await.unwrap();
        sees(&here, Instant::now(), absent).await;
    }
    here.cache.set(set("k", "v")).await.unwrap();
    warm(&one, &here, "k").await;
    let touch = TouchRequest {
        key: "k".into(),
        ttl: Some(prost_types::Duration {
            seconds: 0,
            nanos: 1_000_000,
        }),
        ..Default::default()
    };
    there.cache.touch(touch).await.unwrap();
    sees(&here, Instant::now() + Duration::from_millis(50), absent).await;
    let entries = vec![item("k", "v")];
    let batch = BatchSetRequest {
        entries,
        ..Default::default()
    };
    here.cache.batch_set(batch).await.unwrap();
    warm(&one, &here, "k").await;
    let delete = DeleteRequest {
        key: "k".into(),
        ..Default::default()
    };
    there.cache.delete(delete).await.unwrap();
    sees(&here, Instant::now(), absent).await;
}

/// A sweep removes what floors hide, and then drops the floors. Another replica hears
/// of both, in any order.
#[tokio::test]
async fn what_was_invalidated_stays_gone_when_its_floors_are_dropped() {
    const KEYS: usize = 30;
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;
    let acme = one.tenant("acme").await;
    let (mut here, there) = (acme.clients, two.with_key(&acme.secret));
    let names: Vec<_> = (0..KEYS).map(|n| format!("k{n}")).collect();
    let store = crate::store::patient(&redis.url()).await;
    let dropped = async || {
        let key = Key::new(Table::Control, &b"floors"[..]);
        let read = store.read(&space(&redis), 0, &[key]).await.unwrap();
        let record = read.records.into_iter().next().flatten().unwrap();
        let held: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        held.get("floors").is_none()
    };
    for target in [
        Target::Tags(Tags {
            tags: keys(&["red"]),
        }),
        Target::Prefix("k".into()),
        Target::WholeNamespace(true),
    ] {
        let entries = names.iter().map(|key| {
            let mut entry = item(key, "v");
            entry.tags = keys(&["red"]);
            entry
        });
        let batch = BatchSetRequest {
            entries: entries.collect(),
            ..Default::default()
        };
        here.cache.batch_set(batch).await.unwrap();
        for key in &names {
            warm(&two, &there, key).await;
        }
        here.cache.invalidate_cache(flush(target)).await.unwrap();
        let acknowledged = Instant::now();
        let mut gone = [false; KEYS];
        let mut over = None;
        // Until all that was told of it must have been heard.
        while over.is_none_or(|over: Instant| over.elapsed() < STALENESS) {
            assert!(acknowledged.elapsed() < Duration::from_secs(60), "no sweep");
            let began = Instant::now();
            let request = BatchGetRequest {
                keys: names.clone(),
                ..Default::default()
            };
            let found = there.cache.clone().batch_get(request).await.unwrap();
            let age = began.saturating_duration_since(acknowledged);
            for (result, gone) in found.into_inner().results.iter().zip(&mut gone) {
                let found = result.entry.is_some();
                assert!(
                    !found || !*gone && age < STALENESS,
                    "after {age:?}: {result:?}"
                );
                *gone = !found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            if over.is_none() && dropped().await {
                over = Some(Instant::now());
            }
        }
    }
    store.close().await.unwrap();
}
