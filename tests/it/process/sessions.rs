//! The service killed while sessions are created, on either store. It does not know
//! what becomes of caches.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use riptide_persistence::proto::v1::{CreateTenantRequest, GetTenantUsageRequest};
use rstest::rstest;
use tokio::task::JoinSet;
use tonic_types::StatusExt;

use super::client;
use crate::{
    cli::Folder,
    redis::{Redis, eventually},
    rpc::session,
    server::{ADMIN_KEY, Clients, Kind},
};

const WRITERS: usize = 6;
/// Acknowledged sessions before a kill.
const ENOUGH: usize = 60;

/// Creates sessions of a user until the service is gone; those it was told of.
async fn write(acme: Clients, user_id: String, acknowledged: Arc<AtomicUsize>) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        match session::create(&acme, session::of(&user_id)).await {
            Ok(created) => ids.push(created.session_id),
            Err(status) => {
                let details = status.get_error_details();
                assert!(details.error_info().is_none(), "it answered {status:?}");
                return ids;
            }
        }
        acknowledged.fetch_add(1, Relaxed);
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_sessions_survive_a_kill(#[case] kind: Kind) {
    let redis = (kind == Kind::Redis).then(Redis::start);
    let folder = Folder::new();
    let store = redis.as_ref().map_or_else(
        || "store: {backend: embedded}".to_owned(),
        |redis| format!("redis: {{url: '{}'}}", redis.url()),
    );
    let settings = format!("persistence: {{{store}, auth: {{admin_key: '{ADMIN_KEY}'}}}}");
    folder.write("persistence.yml", settings);
    let mut serving = folder.serve(&[]);
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        plan: "enterprise".into(),
        ..Default::default()
    };
    let mut admin = client(&serving.address, ADMIN_KEY).tenant;
    let created = admin.create_tenant(request).await.unwrap().into_inner();
    drop(admin);
    let mut kept = Vec::new();
    for round in 0..3 {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let acme = client(&serving.address, &created.secret);
            let user_id = format!("user{number}");
            writers.spawn(write(acme, user_id, acknowledged.clone()));
        }
        eventually("they write", || acknowledged.load(Relaxed) >= ENOUGH);
        drop(serving);
        kept.extend(writers.join_all().await.into_iter().flatten());
        if let Some(redis) = &redis {
            // What it sent before it ended is done before anyone looks.
            eventually("only redis-cli is connected", || {
                redis.cli(&["client", "list"]).lines().count() == 1
            });
        }
        serving = folder.serve(&[]);
        let acme = client(&serving.address, &created.secret);
        for id in &kept {
            session::get(&acme, id).await.unwrap();
        }
        let request = GetTenantUsageRequest::default();
        let usage = acme.tenant.clone().get_tenant_usage(request).await;
        let usage = usage.unwrap().into_inner().usage.unwrap();
        // Of each writer one may have been made that nobody was told of.
        let found = usize::try_from(usage.active_sessions).unwrap();
        let most = kept.len() + (round + 1) * WRITERS;
        assert!(
            (kept.len()..=most).contains(&found),
            "{found}, {}",
            kept.len()
        );
    }
}
