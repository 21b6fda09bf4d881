//! Events of RecordUsage across a restore: one that was counted counts no more, when it
//! is repeated on a store that was lost and restored. It does not know how a store
//! remembers them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use riptide_persistence::{
    proto::v1::{RecordUsageRequest, UsageGranularity},
    state::{checkpoint::Kind as RecordKind, objects::Objects},
};

use super::*;

/// Only what events are in, so that a checkpoint of it takes no walk but theirs.
const USED: [Component; 2] = [Component::Tenants, Component::Usage];

/// A server whose checkpoints can be read without a master key.
async fn serve(stage: &Stage) -> Server {
    stage
        .serve_with(|config| config.encryption.master_keys = None)
        .await
}

/// The same on a store that is empty, once it knows so.
async fn emptied(stage: &Stage, server: Server, secret: &str) -> Server {
    let server = match &stage.redis {
        Some(redis) => {
            redis.cli(&["flushall"]);
            server
        }
        None => {
            server.stop().await;
            serve(stage).await
        }
    };
    let who = || server.with_key(secret).tenant;
    while who().who_am_i(WhoAmIRequest {}).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    server
}

/// Reports an event that took a millisecond; whether it counted.
async fn report(admin: &Clients, tenant_id: &str, event_id: &str) -> bool {
    let request = RecordUsageRequest {
        tenant_id: tenant_id.into(),
        event_id: event_id.into(),
        compute_ms: 1,
        ..Default::default()
    };
    let recorded = admin.tenant.clone().record_usage(request).await.unwrap();
    recorded.into_inner().recorded
}

/// What a tenant reported in this period, and in all units of these days.
async fn reported(admin: &Clients, tenant_id: &str) -> Vec<i64> {
    let mut sums = Vec::new();
    for granularity in [
        UsageGranularity::Minute,
        UsageGranularity::Hour,
        UsageGranularity::Day,
    ] {
        let now = std::time::SystemTime::now();
        let ago = std::time::Duration::from_secs(3600);
        let request = GetTenantUsageRequest {
            tenant_id: tenant_id.into(),
            granularity: granularity.into(),
            start_time: Some((now - ago).into()),
            ..Default::default()
        };
        let usage = admin.tenant.clone().get_tenant_usage(request).await;
        let usage = usage.unwrap().into_inner();
        if sums.is_empty() {
            sums.push(usage.usage.unwrap().compute_ms);
        }
        sums.push(usage.points.iter().map(|point| point.compute_ms).sum());
    }
    sums
}

/// When each event of a tenant is forgotten, as a checkpoint has it, by its id.
async fn ends(stage: &Stage, id: &str, tenant_id: &str) -> BTreeMap<String, u64> {
    let url = format!("file://{}", stage.checkpoints.path().display());
    let held = crate::rpc::checkpoint::contents(&Objects::open(&url).unwrap(), id).await;
    let events = held[tenant_id].iter().map(|(_, record)| record);
    let events = events.filter(|record| record.kind == RecordKind::Event);
    events
        .map(|record| {
            let event_id = String::from_utf8(record.path.to_vec()).unwrap();
            (event_id, record.expire_ms.unwrap())
        })
        .collect()
}

fn format(stage: &Stage, id: &str) -> u64 {
    let manifest = std::fs::read(stage.part(id, "manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    manifest["format"].as_u64().unwrap()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_counted_counts_no_more_after_a_restore(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = serve(&stage).await;
    let acme = server.tenant("acme").await;
    server.tenant("other").await;
    let admin = server.admin();
    let plain = checkpoint(&admin, &USED).await;
    // Nobody who knows only the first format is kept from what holds no events.
    assert_eq!(format(&stage, &plain), 1);
    let events: Vec<String> = (0..120).map(|n| format!("event:{n} \u{fc}")).collect();
    for event_id in &events {
        assert!(report(&admin, "acme", event_id).await);
        assert!(!report(&admin, "acme", event_id).await);
    }
    assert!(report(&admin, "other", &events[0]).await);
    let before = reported(&admin, "acme").await;
    assert_eq!(before, [120; 4]);
    let id = checkpoint(&admin, &USED).await;
    assert_eq!(format(&stage, &id), 2);
    let first = ends(&stage, &id, "acme").await;
    assert!(
        first
            .keys()
            .eq(events.iter().collect::<std::collections::BTreeSet<_>>())
    );
    assert_eq!(ends(&stage, &id, "other").await.len(), 1);
    assert!(report(&admin, "acme", "after the checkpoint").await);

    let server = emptied(&stage, server, &acme.secret).await;
    let admin = server.admin();
    let result = restored(&admin, asked(&id, RestoreConflict::Fail)).await;
    assert_eq!(result.created, 2);
    assert_eq!(reported(&admin, "acme").await, before);
    for event_id in &events {
        assert!(!report(&admin, "acme", event_id).await, "{event_id}");
    }
    assert_eq!(reported(&admin, "acme").await, before);
    // Another tenant's event of the same name is another one.
    assert!(!report(&admin, "other", &events[0]).await);
    assert!(report(&admin, "other", &events[1]).await);
    // What the checkpoint does not know counts, and counts once.
    for counts in [true, false] {
        assert_eq!(report(&admin, "acme", "after the checkpoint").await, counts);
    }
    assert_eq!(reported(&admin, "acme").await, [121; 4]);

    // It is forgotten when it would have been, and what was restored can be kept again.
    let again = checkpoint(&admin, &USED).await;
    let mut second = ends(&stage, &again, "acme").await;
    assert!(second.remove("after the checkpoint").is_some());
    assert!(second.keys().eq(first.keys()));
    for (event_id, end_ms) in &first {
        assert!(second[event_id].abs_diff(*end_ms) < 5_000, "{event_id}");
    }
    // Where the tenant is there, its events stay what they are, as its rows do.
    restored(&admin, asked(&plain, RestoreConflict::Replace)).await;
    assert!(!report(&admin, "acme", &events[7]).await);
    assert_eq!(reported(&admin, "acme").await, [121; 4]);
    server.stop().await;
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_beside_a_checkpoint_are_in_it_wholly_or_not_at_all(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = serve(&stage).await;
    let acme = server.tenant("acme").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut reporters = Vec::new();
    for reporter in 0..4 {
        let (admin, stop) = (server.admin(), stop.clone());
        reporters.push(tokio::spawn(async move {
            let mut told = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let event_id = format!("{reporter}:{}", told.len());
                assert!(report(&admin, "acme", &event_id).await);
                told.push(event_id);
                tokio::time::sleep(std::time::Duration::from_millis(4)).await;
            }
            told
        }));
    }
    while reported(&server.admin(), "acme").await[0] < 50 {}
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(checkpoint(&server.admin(), &USED).await);
    }
    let counted = reported(&server.admin(), "acme").await[0];
    while reported(&server.admin(), "acme").await[0] < counted + 20 {}
    stop.store(true, Ordering::Relaxed);
    let mut events = Vec::new();
    for reporter in reporters {
        events.extend(reporter.await.unwrap());
    }
    let all = events.len() as i64;
    assert_eq!(reported(&server.admin(), "acme").await, [all; 4]);

    let mut server = server;
    for id in taken {
        server = emptied(&stage, server, &acme.secret).await;
        let admin = server.admin();
        restored(&admin, asked(&id, RestoreConflict::Fail)).await;
        let rows = reported(&admin, "acme").await;
        assert!(rows[0] >= 50 && rows[0] < all, "{rows:?} of {all}");
        assert_eq!(rows, [rows[0]; 4]);
        assert_eq!(ends(&stage, &id, "acme").await.len() as i64, rows[0]);
        let mut counted = 0;
        for event_id in &events {
            counted += i64::from(report(&admin, "acme", event_id).await);
        }
        assert_eq!(counted, all - rows[0]);
        assert_eq!(reported(&admin, "acme").await, [all; 4]);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_forgotten_when_its_rest_is_over() {
    let stage = Stage::new(Kind::Redis);
    let server = serve(&stage).await;
    let acme = server.tenant("acme").await;
    for event_id in ["old", "young"] {
        assert!(report(&server.admin(), "acme", event_id).await);
    }
    let redis = stage.redis.as_ref().unwrap();
    let name = |event_id: &str| {
        let found = redis.cli(&["keys", &format!("v1:{{meters*}}:e:event:*:{event_id}")]);
        found.trim().to_owned()
    };
    // As one that was counted almost 35 days ago.
    redis.cli(&["pexpire", &name("old"), "8000"]);
    let ends_at = redis.cli(&["pexpiretime", &name("old")]);
    let id = checkpoint(&server.admin(), &USED).await;
    let server = emptied(&stage, server, &acme.secret).await;
    let admin = server.admin();
    restored(&admin, asked(&id, RestoreConflict::Fail)).await;
    let restored_at = redis.cli(&["pexpiretime", &name("old")]);
    let ms = |text: &str| text.trim().parse::<i64>().unwrap();
    if !name("old").is_empty() {
        assert!((ms(&restored_at) - ms(&ends_at)).abs() < 2000);
    }
    while !name("old").is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(report(&admin, "acme", "old").await);
    assert!(!report(&admin, "acme", "young").await);
    server.stop().await;
}
