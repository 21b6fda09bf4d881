//! The client in Rust against whole servers: keys, errors by reason, retries within the
//! deadline, streams. It does not know how a call is repeated; `src/client/retry.rs` does.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use futures::stream;
use riptide_persistence::{
    client::{Client, Options, Outcome, Reason, Unconnected, retry::Retry},
    proto::v1::{
        CreateTenantRequest, GetRequest, InvalidateCacheRequest, Quotas, SetCondition, SetEntry,
        SetRequest, Tenant, UpdateTenantRequest, WarmCacheRequest, WatchInvalidationsRequest,
        WhoAmIRequest, invalidate_cache_request, invalidation_event,
    },
};
use rstest::rstest;
use tonic::Code;

use super::stage::Stage;
use crate::{
    rpc::tenant::mask,
    server::{ADMIN_KEY, Kind, Server},
};

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// An admin's client, to be connected.
pub(super) fn admin(server: &Server) -> Options {
    Client::to(server.address.to_string())
        .key(ADMIN_KEY)
        .deadline(PATIENCE)
}

pub(super) fn get(key: &str) -> GetRequest {
    GetRequest {
        key: key.into(),
        ..Default::default()
    }
}

pub(super) fn set(key: &str) -> SetRequest {
    SetRequest {
        key: key.into(),
        value: "value".into(),
        ..Default::default()
    }
}

pub(super) fn new_tenant(tenant_id: &str) -> CreateTenantRequest {
    CreateTenantRequest {
        tenant_id: tenant_id.into(),
        ..Default::default()
    }
}

/// A tenant's client, over the connection of an admin's.
pub(super) async fn tenant(admin: &Client, tenant_id: &str) -> Client {
    let created = admin.call(new_tenant(tenant_id)).await.unwrap();
    admin.with_key(&created.secret).unwrap()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn answers_and_refusals_are_told_by_their_types(#[case] kind: Kind) {
    let server = kind.start().await;
    let admin = admin(&server).connect().await.unwrap();
    let acme = tenant(&admin, "acme").await;
    assert_eq!(acme.call(WhoAmIRequest {}).await.unwrap().tenant_id, "acme");
    assert!(acme.call(get("k")).await.unwrap().entry.is_none());
    let written = acme.call(set("k")).await.unwrap();
    let entry = acme.call(get("k")).await.unwrap().entry.unwrap();
    assert_eq!(
        (&entry.value[..], entry.version),
        (&b"value"[..], written.version)
    );
    let answer = acme.respond(get("k")).await.unwrap();
    assert!(answer.metadata().contains_key("x-request-id"));

    let wrong = SetRequest {
        namespace: "Not Allowed".into(),
        ..set("")
    };
    let refused = acme.call(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.reason(), Some(Reason::ValidationFailed));
    assert_eq!(refused.outcome(), Outcome::NotDone);
    assert_eq!(refused.attempts(), 1);
    let fields: BTreeSet<&str> = refused.violations().map(|(field, _)| field).collect();
    assert_eq!(fields, BTreeSet::from(["key", "namespace"]));
    assert!(refused.request_id().is_some_and(|id| !id.is_empty()));
    assert!(refused.to_string().ends_with("(VALIDATION_FAILED)"));

    let absent = SetRequest {
        condition: SetCondition::IfAbsent.into(),
        ..set("k")
    };
    let refused = acme.call(absent).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::ConditionNotMet));
    let exists = admin.call(new_tenant("acme")).await.unwrap_err();
    assert_eq!(exists.reason(), Some(Reason::TenantExists));
    let long = SetRequest {
        value: vec![0; 21 << 20].into(),
        ..set("long")
    };
    let refused = acme.call(long).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::EntryTooLarge));
    assert_eq!(refused.metadata("limit"), Some("20971520"));

    let stranger = admin.with_key("rtp_nobody").unwrap();
    let refused = stranger.call(get("k")).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::ApiKeyInvalid));
    assert!(!format!("{admin:?} {:?}", self::admin(&server)).contains(ADMIN_KEY));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn calls_wait_for_a_server_that_restarts(#[case] kind: Kind) {
    let mut stage = Stage::open(kind).await;
    let (tell, told) = mpsc::channel();
    let options = admin(stage.server()).attempts(1000).on_retry(move |retry| {
        tell.send((retry.path, retry.failure.outcome())).unwrap();
    });
    let admin = options.clone().connect().await.unwrap();
    let acme = tenant(&admin, "acme").await;
    acme.call(set("kept")).await.unwrap();
    stage.stop().await;

    // A read, a write that is named, and one that was not there before the server went.
    let late = options.connect_lazily().unwrap();
    let calls = tokio::spawn(async move {
        let entry = acme.call(get("kept")).await.unwrap().entry;
        let created = admin.call(new_tenant("late")).await.unwrap();
        (entry, created.tenant.unwrap().tenant_id)
    });
    let other = tokio::spawn(async move { late.call(new_tenant("other")).await.unwrap() });
    let retried = tokio::task::spawn_blocking(move || (told.recv().unwrap(), told));
    let ((path, _), told) = retried.await.unwrap();
    assert!(path.starts_with("/riptide.persistence.v1."), "{path}");
    stage.start().await;
    let (entry, created) = calls.await.unwrap();
    assert_eq!(&entry.unwrap().value[..], b"value");
    assert_eq!(created, "late");
    assert_eq!(other.await.unwrap().tenant.unwrap().tenant_id, "other");
    drop(told);
}

#[tokio::test]
async fn what_nobody_answers_fails_at_the_deadline_and_is_not_done() {
    // A port that nobody listens at any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let options = Client::to(address.to_string()).deadline(Duration::from_millis(400));
    let failure = options.clone().connect().await.unwrap_err();
    assert!(
        matches!(failure, Unconnected::Unreachable { .. }),
        "{failure}"
    );
    let client = options.attempts(1000).connect_lazily().unwrap();
    let failure = client.call(set("k")).await.unwrap_err();
    assert_eq!(failure.code(), Code::Unavailable, "{failure}");
    assert_eq!(
        (failure.reason(), failure.outcome()),
        (None, Outcome::NotDone)
    );
    assert!(failure.attempts() > 1, "{failure}");

    let client = Client::to(address.to_string()).attempts(1);
    let failure = client.connect_lazily().unwrap().call(set("k")).await;
    assert_eq!(failure.unwrap_err().attempts(), 1);
    for (options, name) in [
        (Client::to("ftp://example"), "address"),
        (Client::to("localhost:1").key("a\nb"), "key"),
        (
            Client::to("https://localhost:1").ca_file("/nowhere.pem"),
            "ca_file",
        ),
        (
            Client::to("https://localhost:1").identity("/nowhere.crt", "/nowhere.key"),
            "cert_file",
        ),
    ] {
        match options.connect_lazily().unwrap_err() {
            Unconnected::Setting { name: told, .. } => assert_eq!(told, name),
            other => panic!("{other}"),
        }
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_rate_is_waited_for_as_long_as_it_says(#[case] kind: Kind) {
    let server = kind.start().await;
    let limit = |operations_per_minute| {
        Some(Quotas {
            operations_per_minute: Some(operations_per_minute),
            ..Default::default()
        })
    };
    let (tell, told) = mpsc::channel();
    let observed = move |retry: &Retry<'_>| {
        let failure = retry.failure;
        let pushback = failure.status().metadata().get("grpc-retry-pushback-ms");
        let pushback: u128 = pushback.unwrap().to_str().unwrap().parse().unwrap();
        let seen = (
            failure.reason(),
            retry.wait,
            failure.retry_after(),
            pushback,
        );
        tell.send(seen).unwrap();
    };
    let options = admin(&server).on_retry(observed);
    let client = options.connect().await.unwrap();
    let request = CreateTenantRequest {
        quotas: limit(1),
        ..new_tenant("acme")
    };
    let created = client.call(request).await.unwrap();
    let acme = client.with_key(&created.secret).unwrap();
    acme.call(get("k")).await.unwrap();

    // It is not waited for here: what it would wait is what the service says.
    let waiting = acme.clone();
    let waiting = tokio::spawn(async move { waiting.call(get("k")).await });
    let (reason, wait, after, pushback) = tokio::task::spawn_blocking(move || told.recv().unwrap())
        .await
        .unwrap();
    waiting.abort();
    assert_eq!((reason, Some(wait)), (Some(Reason::RateLimited), after));
    assert_eq!(wait.as_millis(), pushback);
    assert!(
        Duration::ZERO < wait && wait <= Duration::from_secs(62),
        "{wait:?}"
    );

    // Where it would end after the deadline, it is told at once.
    let hasty = acme.with_deadline(wait / 4);
    let refused = hasty.call(get("k")).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::RateLimited));
    assert_eq!(
        (refused.attempts(), refused.metadata("limit")),
        (1, Some("1"))
    );
    let change = UpdateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: "acme".into(),
            quotas: limit(1000),
            ..Default::default()
        }),
        update_mask: mask(&["quotas"]),
        ..Default::default()
    };
    client.call(change).await.unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn streams_go_both_ways(#[case] kind: Kind) {
    let server = kind.start().await;
    let admin = admin(&server).connect().await.unwrap();
    let acme = tenant(&admin, "acme").await;
    let mut watch = acme
        .follow(WatchInvalidationsRequest::default())
        .await
        .unwrap();
    watch.message().await.unwrap().unwrap();

    let chunks = (0..3).map(|chunk| WarmCacheRequest {
        entries: (0..10)
            .map(|n| SetEntry {
                key: format!("page:{chunk}:{n}"),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    let warmed = acme.send(stream::iter(chunks)).await.unwrap();
    assert_eq!((warmed.stored, warmed.failed), (30, 0));
    let prefix = invalidate_cache_request::Target::Prefix("page:".into());
    let request = InvalidateCacheRequest {
        target: Some(prefix),
        ..Default::default()
    };
    acme.call(request).await.unwrap();
    let wanted = Some(invalidation_event::Target::Prefix("page:".into()));
    let heard = async {
        loop {
            let answer = watch.message().await.unwrap().unwrap();
            if answer.events.iter().any(|event| event.target == wanted) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();

    let reader = server.key("acme", &["session.read"]).await;
    let reader = acme.with_key(&reader).unwrap();
    let refused = reader.follow(WatchInvalidationsRequest::default()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::ScopeMissing));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_replica_that_is_away_is_passed_over(#[case] kind: Kind) {
    let server = kind.start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = listener.local_addr().unwrap().to_string();
    drop(listener);
    let retries = Arc::new(Mutex::new(0));
    let counted = retries.clone();
    let options = admin(&server).or_to(away).on_retry(move |retry| {
        assert_eq!(retry.attempt, 1);
        *counted.lock().unwrap() += 1;
    });
    let client = options.connect_lazily().unwrap();
    // Each that meets the one that is away goes on to the other, and the next begins there.
    for _ in 0..8 {
        assert!(client.call(WhoAmIRequest {}).await.unwrap().admin);
    }
    assert!(*retries.lock().unwrap() > 0);
}

/// What a client knows is what docs/errors.md explains, and docs/sdks.md tells of each
/// whether it is repeated.
#[test]
fn every_reason_has_its_name() {
    let known: BTreeSet<String> = Reason::ALL.iter().map(Reason::to_string).collect();
    let errors = read("docs/errors.md");
    let rows = errors.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained = rows.map(|row| row.split('`').next().unwrap().to_owned());
    assert_eq!(known, explained.collect());

    let sdks = read("docs/sdks.md");
    let retries = sdks.split("\n## Retries\n").nth(1).unwrap();
    let rows = retries.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    let told = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    assert_eq!(known, told.map(str::to_owned).collect());
}

/// The functions that are copied from the tours know the same reasons.
#[test]
fn the_same_reasons_are_repeated_in_every_language() {
    let repeated = [
        Reason::RateLimited,
        Reason::QuotaExceeded,
        Reason::StoreUnavailable,
        Reason::Overloaded,
        Reason::Draining,
        Reason::RequestInProgress,
        Reason::RestoreInProgress,
        Reason::OutcomeUnknown,
    ];
    let repeated: BTreeSet<&str> = repeated.iter().map(|reason| reason.as_str()).collect();
    for file in [
        "python/retry.py",
        "go/retry.go",
        "typescript/src/grpc-retry.ts",
        "typescript/src/connect-retry.ts",
    ] {
        let text = read(&format!("tests/sdk/{file}"));
        let quoted = text.split('"').skip(1).step_by(2);
        let capitals = |word: &&str| {
            word.len() > 4 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        let known: BTreeSet<&str> = quoted.filter(capitals).collect();
        assert_eq!(known, repeated, "{file}");
    }
}

fn read(path: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).unwrap()
}
