//! What callers do to caches and sessions, and what that does to a replica's memory: each
//! figure moves by what it counts. It does not know how the calls are answered.

use futures::stream;
use prost_types::Duration as Span;
use riptide_persistence::proto::v1::{
    CreateSessionRequest, GetOrLeaseRequest, InvalidateCacheRequest, Keys, SetEntry, Tags,
    TerminateSessionRequest, TerminateSessionsRequest, TouchRequest, WarmCacheRequest,
    WatchInvalidationsRequest, invalidate_cache_request::Target,
};
use rstest::rstest;

use super::{Samples, get, scrape, set, sum};
use crate::server::{Clients, Kind, Server};

/// What has moved by so much since.
fn moved(server: &Server, before: &Samples, name: &str, label: &str) -> f64 {
    let after = scrape(server).1;
    let labels = [label];
    let labels = labels.iter().filter(|label| !label.is_empty());
    let labels: Vec<&str> = labels.copied().collect();
    sum(&after, name, &labels) - sum(before, name, &labels)
}

async fn invalidate(clients: &Clients, target: Target) {
    let request = InvalidateCacheRequest {
        target: Some(target),
        ..Default::default()
    };
    clients
        .cache
        .clone()
        .invalidate_cache(request)
        .await
        .unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn touches_and_invalidations_are_counted_by_kind(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = server.tenant("acme").await.clients;
    acme.cache.clone().set(set("k")).await.unwrap();
    let before = scrape(&server).1;
    for key in ["k", "k", "none"] {
        let touch = TouchRequest {
            key: key.into(),
            ttl: Some(Span {
                seconds: 60,
                nanos: 0,
            }),
            ..Default::default()
        };
        acme.cache.clone().touch(touch).await.unwrap();
    }
    let keys = |keys: &[&str]| Keys {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    invalidate(&acme, Target::Keys(keys(&["k", "none"]))).await;
    for prefix in ["a", "b"] {
        invalidate(&acme, Target::Prefix(prefix.into())).await;
    }
    let tags = vec!["red".to_owned()];
    invalidate(&acme, Target::Tags(Tags { tags })).await;
    invalidate(&acme, Target::WholeNamespace(true)).await;
    invalidate(&acme, Target::WholeTenant(true)).await;
    let nothing = InvalidateCacheRequest::default();
    assert!(acme.cache.clone().invalidate_cache(nothing).await.is_err());

    let moved = |name, label: &str| moved(&server, &before, name, &format!("\"{label}\""));
    assert_eq!(moved("riptide_cache_writes_total", "touch"), 2.0);
    for (kind, count) in [
        ("keys", 1.0),
        ("prefix", 2.0),
        ("tags", 1.0),
        ("namespace", 1.0),
        ("tenant", 1.0),
    ] {
        assert_eq!(
            moved("riptide_cache_invalidations_total", kind),
            count,
            "{kind}"
        );
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn leases_are_counted_by_what_callers_are_told(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = server.tenant("acme").await.clients;
    let before = scrape(&server).1;
    let ask = async |key: &str, stale_ok| {
        let request = GetOrLeaseRequest {
            key: key.into(),
            stale_ok,
            ..Default::default()
        };
        let answer = acme.cache.clone().get_or_lease(request).await.unwrap();
        answer.into_inner()
    };
    // Hits, from the store and near; leases granted; those told to wait; those shown what was.
    let mut told = [0.0; 4];
    acme.cache.clone().set(set("there")).await.unwrap();
    for _ in 0..5 {
        assert!(ask("there", false).await.entry.is_some());
        told[0] += 1.0;
    }
    // What was is shown until its bytes are reclaimed, which may be soon.
    while told[3] == 0.0 {
        let key = format!("was-{}", told[1]);
        acme.cache.clone().set(set(&key)).await.unwrap();
        invalidate(&acme, Target::Prefix(key.clone())).await;
        assert!(!ask(&key, true).await.lease_token.is_empty());
        told[1] += 1.0;
        let answer = ask(&key, true).await;
        assert!(answer.retry_after.is_some());
        told[if answer.stale { 3 } else { 2 }] += 1.0;
        let answer = ask(&key, false).await;
        assert!(answer.retry_after.is_some() && answer.entry.is_none());
        told[2] += 1.0;
    }
    for (result, count) in ["hit", "granted", "wait", "stale"].into_iter().zip(told) {
        let label = format!("\"{result}\"");
        let moved = moved(&server, &before, "riptide_cache_leases_total", &label);
        assert_eq!(moved, count, "{result}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn items_of_a_warming_are_counted_by_outcome(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = server.tenant("acme").await.clients;
    acme.cache.clone().set(set("there")).await.unwrap();
    let before = scrape(&server).1;
    let entry = |key: &str| SetEntry {
        key: key.into(),
        value: "v".into(),
        ..Default::default()
    };
    let part = WarmCacheRequest {
        // A key that is too long is no entry.
        entries: vec![entry("a"), entry("b"), entry(&"x".repeat(2000))],
        keys: vec!["there".into(), "none".into(), "nor this".into()],
        ..Default::default()
    };
    let warmed = acme.cache.clone().warm_cache(stream::iter([part])).await;
    let warmed = warmed.unwrap().into_inner();
    let told = [
        ("stored", warmed.stored, 2),
        ("missing", warmed.missing, 2),
        ("failed", warmed.failed, 1),
        // Which of the two depends on whether the store could vouch for it.
        ("pulled", warmed.pulled, warmed.pulled),
        ("not_kept", warmed.not_kept, 1 - warmed.pulled),
    ];
    for (outcome, answered, expected) in told {
        assert_eq!(answered, expected, "{outcome}: {warmed:?}");
        let label = format!("\"{outcome}\"");
        let moved = moved(&server, &before, "riptide_cache_warmed_total", &label);
        assert_eq!(moved, expected as f64, "{outcome}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn watchers_are_counted_while_they_watch(#[case] kind: Kind) {
    let server = kind.start().await;
    let watchers = || sum(&scrape(&server).1, "riptide_cache_watchers", &[]);
    let mut watching = Vec::new();
    for tenant in ["acme", "acme-too"] {
        let clients = server.tenant(tenant).await.clients;
        for _ in 0..2 {
            let request = WatchInvalidationsRequest::default();
            let mut cache = clients.cache.clone();
            let mut stream = cache
                .watch_invalidations(request)
                .await
                .unwrap()
                .into_inner();
            stream.message().await.unwrap().unwrap();
            watching.push(stream);
        }
    }
    assert_eq!(watchers(), 4.0);
    watching.pop();
    while watchers() != 3.0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    watching.clear();
    while watchers() != 0.0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_leaves_the_memory_is_counted_by_why(#[case] kind: Kind) {
    let server = kind
        .start_with(|config| config.cache.near.max_bytes = 1 << 20)
        .await;
    let acme = server.tenant("acme").await.clients;
    let mut cache = acme.cache.clone();
    let told = |name| sum(&scrape(&server).1, name, &[]);
    let (entries, evicted, changed) = (
        || told("riptide_cache_near_entries"),
        || told("riptide_cache_near_evictions_total"),
        || told("riptide_cache_near_invalidations_total"),
    );
    cache.set(set("k")).await.unwrap();
    while entries() == 0.0 {
        cache.get(get("k")).await.unwrap();
    }
    let before = (evicted(), changed());
    // A write takes it out; what is not there leaves nothing.
    cache.set(set("k")).await.unwrap();
    cache.set(set("other")).await.unwrap();
    assert_eq!((evicted(), changed()), (before.0, before.1 + 1.0));
    assert_eq!(entries(), 0.0);

    // More than fits: what is pulled takes the place of what is there.
    let keys: Vec<String> = (0..200).map(|n| format!("large-{n}")).collect();
    let large = |key: &String| SetEntry {
        key: key.clone(),
        value: vec![7; 10_000].into(),
        ..Default::default()
    };
    let store = WarmCacheRequest {
        entries: keys.iter().map(large).collect(),
        ..Default::default()
    };
    let warm = async |part| {
        let warmed = acme.cache.clone().warm_cache(stream::iter([part])).await;
        warmed.unwrap().into_inner()
    };
    assert_eq!(warm(store).await.stored, 200);
    let before = (entries(), evicted(), changed());
    let pull = WarmCacheRequest {
        keys,
        ..Default::default()
    };
    let pulled = warm(pull).await.pulled as f64;
    assert!(pulled > 150.0, "{pulled} were pulled");
    // Whatever was pulled and is not there has left.
    assert!(entries() < 110.0, "{} fit", entries());
    assert_eq!(before.0 + pulled - entries(), evicted() - before.1);
    assert_eq!(changed(), before.2);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn sessions_are_counted_as_they_are_created_and_terminated(#[case] kind: Kind) {
    let server = kind.start().await;
    let state = server.tenant("acme").await.clients.state;
    let before = scrape(&server).1;
    let mut ids = Vec::new();
    for _ in 0..4 {
        let create = CreateSessionRequest {
            user_id: "ann".into(),
            ..Default::default()
        };
        let created = state.clone().create_session(create).await.unwrap();
        ids.push(created.into_inner().session.unwrap().session_id);
    }
    // A repetition creates no other.
    for _ in 0..2 {
        let create = CreateSessionRequest {
            user_id: "bob".into(),
            request_id: "3f8a1c52-6f0b-4a8e-9d51-0e6f2b7c9a10".into(),
            ..Default::default()
        };
        state.clone().create_session(create).await.unwrap();
    }
    let end = || TerminateSessionRequest {
        session_id: ids[0].clone(),
        ..Default::default()
    };
    state.clone().terminate_session(end()).await.unwrap();
    assert!(state.clone().terminate_session(end()).await.is_err());
    let all = TerminateSessionsRequest {
        user_id: "ann".into(),
        ..Default::default()
    };
    let ended = state.clone().terminate_sessions(all).await.unwrap();
    assert_eq!(ended.into_inner().terminated, 3);
    let moved = |name, label| moved(&server, &before, name, label);
    assert_eq!(moved("riptide_sessions_created_total", ""), 5.0);
    let terminated = "riptide_sessions_terminated_total";
    assert_eq!(moved(terminated, "\"session\""), 1.0);
    assert_eq!(moved(terminated, "\"user\""), 3.0);
}
