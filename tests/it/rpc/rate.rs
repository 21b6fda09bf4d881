//! operations_per_minute over a real socket: how many calls pass, what the next
//! is told, and what replicas share. It does not know how permits are leased.

mod outage;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::future::join_all;
use riptide_persistence::{
    grpc::WARNING,
    proto::v1::{
        BatchGetRequest, CreateTenantRequest, GetRequest, QuotaMode, Quotas, SetRequest, Tenant,
        UpdateTenantRequest,
    },
};
use rstest::rstest;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::tenant::mask;
use crate::{
    redis::Redis,
    server::{Backend, Clients, Kind, Server, reason},
};

const METRIC: &str = "operations_per_minute";

fn quotas(limit: i64, mode: QuotaMode) -> Quotas {
    Quotas {
        operations_per_minute: Some(limit),
        modes: [(METRIC.to_owned(), mode.into())].into(),
        ..Default::default()
    }
}

/// A new tenant with this limit, and its key's clients.
async fn limited(server: &Server, limit: i64, mode: QuotaMode) -> (Clients, String) {
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        quotas: Some(quotas(limit, mode)),
        ..Default::default()
    };
    let created = server.admin().tenant.create_tenant(request).await.unwrap();
    let secret = created.into_inner().secret;
    (server.with_key(&secret), secret)
}

async fn get(clients: &Clients) -> Result<Vec<String>, Status> {
    let request = GetRequest {
        tenant_id: "acme".into(),
        key: "k".into(),
        ..Default::default()
    };
    let answer = clients.cache.clone().get(request).await?;
    let warnings = answer.metadata().get_all(WARNING).iter();
    Ok(warnings
        .map(|value| value.to_str().unwrap().to_owned())
        .collect())
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn so_many_calls_pass_and_the_next_is_told_when_to_retry(#[case] kind: Kind) {
    let server = kind.start().await;
    let (acme, _) = limited(&server, 20, QuotaMode::Enforce).await;
    let began = Instant::now();
    // A batch is one call, whatever it holds, and so is one by the admin key.
    let batch = BatchGetRequest {
        keys: (0..100).map(|n| format!("k{n}")).collect(),
        ..Default::default()
    };
    acme.cache.clone().batch_get(batch).await.unwrap();
    let set = SetRequest {
        key: "k".into(),
        ..Default::default()
    };
    acme.cache.clone().set(set).await.unwrap();
    for _ in 0..9 {
        get(&server.admin()).await.unwrap();
        assert_eq!(get(&acme).await.unwrap(), Vec::<String>::new());
    }
    for clients in [acme, server.admin()] {
        let refused = get(&clients).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(reason(&refused), "RATE_LIMITED");
        let details = refused.get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata["metric"], METRIC);
        assert_eq!(
            (metadata["limit"].as_str(), metadata["used"].as_str()),
            ("20", "20")
        );
        assert_eq!(metadata["scope"], "tenant:acme");
        let violation = &details.quota_failure().unwrap().violations[0];
        assert_eq!(
            (violation.subject.as_str(), violation.quota_metric.as_str()),
            ("tenant:acme", METRIC)
        );
        let retry = details.retry_info().unwrap().retry_delay.unwrap();
        let pushback = refused.metadata().get("grpc-retry-pushback-ms").unwrap();
        assert_eq!(pushback.to_str().unwrap(), retry.as_millis().to_string());
        // The first permit is free again a minute after it was used, and a slot
        // and a lease at most after that.
        let free = began.elapsed() + retry;
        assert!(free >= Duration::from_secs(60), "{free:?}");
        assert!(free <= Duration::from_secs(62), "{free:?}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_warning_lets_through_and_tells_and_a_shadow_only_lets_through(#[case] kind: Kind) {
    for (mode, told) in [(QuotaMode::Warn, true), (QuotaMode::Shadow, false)] {
        let server = kind.start().await;
        let (acme, _) = limited(&server, 3, mode).await;
        for used in 1..=8 {
            let warnings = get(&acme).await.unwrap();
            let expected = (told && used > 3)
                .then(|| format!("metric=operations_per_minute, limit=3, used={used}"));
            assert_eq!(warnings, Vec::from_iter(expected), "{mode:?} {used}");
        }
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_limit_of_none_refuses_for_good_and_no_limit_asks_nobody(#[case] kind: Kind) {
    let server = kind.start().await;
    let (acme, _) = limited(&server, 0, QuotaMode::Enforce).await;
    let refused = get(&acme).await.unwrap_err();
    assert_eq!(reason(&refused), "RATE_LIMITED");
    assert!(refused.get_error_details().retry_info().is_none());
    assert_eq!(
        refused.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "-1"
    );

    set_limit(&server, -1).await;
    eventually(|| async { get(&acme).await.is_ok() }).await;
    let before = server.calls();
    for _ in 0..50 {
        get(&acme).await.unwrap();
    }
    assert_eq!(server.calls().since(before).lease, 0);
}

async fn set_limit(server: &Server, limit: i64) {
    let request = UpdateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: "acme".into(),
            quotas: Some(quotas(limit, QuotaMode::Enforce)),
            ..Default::default()
        }),
        update_mask: mask(&["quotas"]),
        ..Default::default()
    };
    server.admin().tenant.update_tenant(request).await.unwrap();
}

async fn eventually<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn replicas_share_a_limit_to_the_last_permit_and_hear_of_another() {
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;
    let (here, secret) = limited(&one, 100, QuotaMode::Enforce).await;
    let there = two.with_key(&secret);

    // Each by turns, until both are refused: neither keeps what the other lacks.
    let (mut passed, mut refused) = (0, BTreeSet::new());
    while refused.len() < 2 {
        for (at, clients) in [&here, &there].into_iter().enumerate() {
            match get(clients).await {
                Ok(_) => passed += 1,
                Err(status) => {
                    assert_eq!(reason(&status), "RATE_LIMITED");
                    refused.insert(at);
                }
            }
        }
    }
    assert_eq!(passed, 100);

    // A higher limit is in force at the other replica within a second.
    set_limit(&one, 1_000).await;
    let began = Instant::now();
    eventually(|| async { get(&there).await.is_ok() }).await;
    assert!(began.elapsed() < Duration::from_secs(1));

    // All at once, they pass no more than the limit.
    let burst = (0..2_000).map(|n| get(if n % 2 == 0 { &here } else { &there }));
    let answers = join_all(burst).await;
    assert!(began.elapsed() < Duration::from_secs(40));
    let passed = 101 + answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((950..=1_000).contains(&passed), "{passed} passed");
    // What one leased and did not use, either can use when it was given back.
    let mut passed = passed;
    let began = Instant::now();
    while passed < 1_000 {
        for clients in [&here, &there] {
            passed += usize::from(get(clients).await.is_ok());
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{passed} passed");
    }
    assert!(get(&here).await.is_err() && get(&there).await.is_err());
}
