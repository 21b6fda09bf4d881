//! A tenant that is in use while it is restored, through several replicas. It does not
//! know what the checkpoint holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use riptide_persistence::proto::v1::{
    Consistency, WatchInvalidationsRequest, invalidation_event::Target,
};

use super::*;

/// Writes one key after the other, and keeps the numbers that were acknowledged.
async fn write(clients: Clients, name: &'static str, stop: Arc<AtomicBool>) -> Vec<u64> {
    let mut cache = clients.cache.clone();
    let mut acknowledged = Vec::new();
    for n in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        match cache.set(set(&format!("{name}:{n:06}"), "v")).await {
            Ok(_) => acknowledged.push(n),
            Err(status) => assert_eq!(reason(&status), "RESTORE_IN_PROGRESS"),
        }
    }
    acknowledged
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_lost_that_comes_after_one_that_is_kept(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    let acme = server.tenant("acme").await;
    fill(&acme.clients, 300, 1).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    // Another replica, where there can be one.
    let replica = match kind {
        Kind::Redis => Some(stage.serve().await),
        Kind::Embedded => None,
    };
    let mut writers = Vec::new();
    let stop = Arc::new(AtomicBool::new(false));
    let there = replica.as_ref().unwrap_or(&server);
    for (name, at) in [("here", &server), ("there", there)] {
        let clients = Clients::new(at.connect(), crate::server::Bearer::new(&acme.secret));
        writers.push((name, tokio::spawn(write(clients, name, stop.clone()))));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    restored(&server.admin(), asked(&id, RestoreConflict::Replace)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.store(true, Relaxed);
    let found = {
        let mut all = BTreeMap::new();
        for (name, writer) in writers {
            let acknowledged = writer.await.unwrap();
            all.insert(name, acknowledged);
        }
        all
    };
    let held = shown(&acme.clients).await;
    assert_eq!(held.keys().filter(|key| key.contains(":key:")).count(), 300);
    for (name, acknowledged) in found {
        let kept = |n: &u64| held.contains_key(&format!("default:{name}:{n:06}"));
        let first = acknowledged.iter().position(&kept);
        let first = first.expect("it wrote after the restore");
        let lost: Vec<_> = acknowledged[first..].iter().filter(|n| !kept(n)).collect();
        assert_eq!(lost, Vec::<&u64>::new(), "{name}");
        assert!(first > 0, "{name} wrote before it, too");
    }
    if let Some(redis) = &stage.redis {
        audit(redis).await;
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_replicas_answer_what_was_restored_and_watchers_are_told(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    let acme = server.tenant("acme").await;
    let mut cache = acme.clients.cache.clone();
    cache.set(set("k", "then")).await.unwrap();
    let id = checkpoint(&server.admin(), &ALL).await;
    cache.set(set("k", "now")).await.unwrap();
    let replica = match kind {
        Kind::Redis => Some(stage.serve().await),
        Kind::Embedded => None,
    };
    let there = replica.as_ref().unwrap_or(&server).with_key(&acme.secret);
    let get = |consistency: Consistency| {
        let mut cache = there.cache.clone();
        async move {
            let request = GetRequest {
                key: "k".into(),
                consistency: consistency.into(),
                ..Default::default()
            };
            let entry = cache.get(request).await.unwrap().into_inner().entry;
            String::from_utf8(entry.unwrap().value.to_vec()).unwrap()
        }
    };
    // Near, on the other replica.
    for _ in 0..20 {
        assert_eq!(get(Consistency::Eventual).await, "now");
    }
    let watch = WatchInvalidationsRequest::default();
    let mut told = there
        .cache
        .clone()
        .watch_invalidations(watch)
        .await
        .unwrap()
        .into_inner();
    let token = told.message().await.unwrap().unwrap().resume_token;

    restored(&server.admin(), asked(&id, RestoreConflict::Replace)).await;
    let since = std::time::Instant::now();
    while get(Consistency::Eventual).await != "then" {
        assert!(since.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(get(Consistency::Strong).await, "then");
    // From then on never anything from before.
    for _ in 0..200 {
        assert_eq!(get(Consistency::Eventual).await, "then");
    }
    let everything = |events: &[riptide_persistence::proto::v1::InvalidationEvent]| {
        events
            .iter()
            .any(|e| e.target == Some(Target::Tenant(true)))
    };
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), told.message());
        let message = message.await.unwrap().unwrap().unwrap();
        if everything(&message.events) {
            break;
        }
    }
    // And whoever comes back with a place from before.
    let again = WatchInvalidationsRequest {
        resume_token: token,
        ..Default::default()
    };
    let mut told = there
        .cache
        .clone()
        .watch_invalidations(again)
        .await
        .unwrap()
        .into_inner();
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), told.message());
        if everything(&message.await.unwrap().unwrap().unwrap().events) {
            break;
        }
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_restore_goes_on_at_a_time(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    let acme = server.tenant("acme").await;
    fill(&acme.clients, 200, 1).await;
    let then = shown(&acme.clients).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    let (done, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let all = (0..4).map(|_| async {
        match restore(&server.admin(), asked(&id, RestoreConflict::Replace)).await {
            Ok((_, result)) => {
                assert_eq!(result.unwrap().failures, []);
                done.fetch_add(1, Relaxed);
            }
            Err(status) => {
                assert_eq!(reason(&status), "RESTORE_IN_PROGRESS");
                refused.fetch_add(1, Relaxed);
            }
        }
    });
    futures::future::join_all(all).await;
    assert!(done.load(Relaxed) >= 1 && refused.load(Relaxed) >= 1);
    assert_same(&shown(&acme.clients).await, &then);
}
