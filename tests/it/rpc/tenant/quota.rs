//! Quotas over a real socket, on both backends: CheckQuota of each metric, what
//! refusals tell, modes that let through. It does not know how anything is kept.

mod refusals;
mod replicas;

use std::time::Duration;

use futures::future::join_all;
use riptide_persistence::{
    config::{self, Config},
    proto::v1::{
        CheckQuotaMode, CheckQuotaRequest, CheckQuotaResponse, CreateTenantRequest, CustomQuota,
        QuotaMode, Quotas, SuspensionMode, Tenant, UpdateTenantRequest,
    },
};
use rstest::rstest;
use tonic::{Code, Status};

use super::{assert_refused, mask, store, suspend};
use crate::server::{Clients, Kind, Server, fields};

/// A tenant's own quotas: a small one of each kind, all with this mode.
pub fn quotas(mode: QuotaMode) -> Quotas {
    let custom = |limit, window: Option<i64>| CustomQuota {
        limit,
        window: window.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    };
    let metrics = [
        "memory_bytes",
        "cache_entries",
        "operations_per_minute",
        "data_transfer_bytes",
        "pages",
        "seats",
    ];
    Quotas {
        memory_bytes: Some(1000),
        cache_entries: Some(3),
        operations_per_minute: Some(10),
        data_transfer_bytes: Some(1000),
        custom: [
            ("pages".to_owned(), custom(10, Some(3600))),
            ("seats".to_owned(), custom(10, None)),
            ("free".to_owned(), custom(-1, None)),
            ("drops".to_owned(), custom(-1, Some(3600))),
        ]
        .into(),
        modes: metrics
            .map(|metric| (metric.to_owned(), mode.into()))
            .into(),
        ..Default::default()
    }
}

/// Clients with the first key of a new tenant that has these quotas.
pub async fn tenant(server: &Server, tenant_id: &str, quotas: Quotas) -> Clients {
    let request = CreateTenantRequest {
        tenant_id: tenant_id.into(),
        quotas: Some(quotas),
        ..Default::default()
    };
    let created = server.admin().tenant.create_tenant(request).await;
    server.with_key(&created.unwrap().into_inner().secret)
}

pub async fn check(
    clients: &Clients,
    metric: &str,
    amount: i64,
    mode: CheckQuotaMode,
) -> Result<CheckQuotaResponse, Status> {
    let request = CheckQuotaRequest {
        tenant_id: "acme".into(),
        metric: metric.into(),
        amount,
        mode: mode.into(),
    };
    let answer = clients.tenant.clone().check_quota(request).await?;
    Ok(answer.into_inner())
}

/// Sets quotas of `acme`, as the mask names them.
pub async fn set_quotas(server: &Server, quotas: Quotas, paths: &[&str]) {
    let request = UpdateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: "acme".into(),
            quotas: Some(quotas),
            ..Default::default()
        }),
        update_mask: mask(paths),
        ..Default::default()
    };
    server.admin().tenant.update_tenant(request).await.unwrap();
}

const PEEK: CheckQuotaMode = CheckQuotaMode::Peek;
const CONSUME: CheckQuotaMode = CheckQuotaMode::Consume;
const RELEASE: CheckQuotaMode = CheckQuotaMode::Release;

/// (metric, amount, what to do) -> (allowed under ENFORCE, used, remaining).
type Step = (&'static str, i64, CheckQuotaMode, bool, i64, i64);

const STEPS: [Step; 28] = [
    ("memory_bytes", 1000, PEEK, true, 0, 1000),
    ("memory_bytes", 1001, PEEK, false, 0, 1000),
    ("cache_entries", 3, PEEK, true, 0, 3),
    ("cache_entries", 4, PEEK, false, 0, 3),
    ("data_transfer_bytes", 1000, PEEK, true, 0, 1000),
    ("data_transfer_bytes", 1001, PEEK, false, 0, 1000),
    ("operations_per_minute", 10, PEEK, true, 0, 10),
    ("operations_per_minute", 11, PEEK, false, 0, 10),
    ("operations_per_minute", 4, CONSUME, true, 4, 6),
    ("operations_per_minute", 6, PEEK, true, 4, 6),
    ("operations_per_minute", 6, CONSUME, true, 10, 0),
    ("operations_per_minute", 0, PEEK, false, 10, 0),
    ("pages", 11, CONSUME, false, 0, 10),
    ("pages", 7, CONSUME, true, 7, 3),
    ("pages", 4, CONSUME, false, 7, 3),
    ("pages", 3, CONSUME, true, 10, 0),
    ("seats", 0, PEEK, true, 0, 10),
    ("seats", 0, CONSUME, true, 1, 9),
    ("seats", 9, CONSUME, true, 10, 0),
    ("seats", 1, CONSUME, false, 10, 0),
    ("seats", 1, PEEK, false, 10, 0),
    ("seats", 4, RELEASE, true, 6, 4),
    ("seats", 4, PEEK, true, 6, 4),
    ("seats", 100, RELEASE, true, 0, 10),
    (
        "free",
        1_000_000_000_000_000,
        CONSUME,
        true,
        1_000_000_000_000_000,
        -1,
    ),
    ("free", 1, CONSUME, true, 1_000_000_000_000_001, -1),
    ("free", 1, RELEASE, true, 1_000_000_000_000_000, -1),
    ("drops", 5, CONSUME, true, 0, -1),
];

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn each_metric_is_looked_at_consumed_and_released(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = tenant(&server, "acme", quotas(QuotaMode::Enforce)).await;
    let admin = server.admin();
    for (metric, amount, mode, allowed, used, remaining) in STEPS {
        let caller = if mode == RELEASE { &admin } else { &acme };
        let answer = check(caller, metric, amount, mode).await.unwrap();
        let case = format!("{metric} {amount} {mode:?}: {answer:?}");
        assert_eq!(answer.allowed, allowed, "{case}");
        assert_eq!((answer.used, answer.remaining), (used, remaining), "{case}");
        assert_eq!(answer.mode(), QuotaMode::Enforce, "{case}");
        let limit = if remaining < 0 { -1 } else { used + remaining };
        assert_eq!(answer.limit, limit, "{case}");
        // What no wait lowers has none; what a window or a period holds has.
        let waits = !allowed
            && (metric == "data_transfer_bytes"
                || mode == CONSUME && metric == "pages" && amount <= 10);
        if waits || allowed || ["seats", "memory_bytes", "cache_entries"].contains(&metric) {
            assert_eq!(answer.retry_after.is_some(), waits, "{case}");
        }
    }
    // What this version does not use is not used.
    for metric in ["storage_bytes", "active_sessions"] {
        let answer = check(&acme, metric, 1, PEEK).await.unwrap();
        assert_eq!((answer.allowed, answer.used), (true, 0), "{metric}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn warn_and_shadow_allow_what_is_beyond(#[case] kind: Kind) {
    let server = kind.start().await;
    for mode in [QuotaMode::Warn, QuotaMode::Shadow] {
        let set = quotas(mode);
        if mode == QuotaMode::Warn {
            tenant(&server, "acme", set).await;
        } else {
            set_quotas(&server, set, &["quotas.modes"]).await;
        }
        let admin = server.admin();
        // The level, as it stands after it was consumed twice.
        for used in [9, 18] {
            let answer = check(&admin, "seats", 9, CONSUME).await.unwrap();
            assert_eq!((answer.allowed, answer.used), (true, used), "{answer:?}");
            assert_eq!(answer.remaining, (10 - used).max(0));
        }
        check(&admin, "seats", 18, RELEASE).await.unwrap();
        for metric in [
            "memory_bytes",
            "cache_entries",
            "data_transfer_bytes",
            "pages",
        ] {
            let answer = check(&admin, metric, 1_000_000, PEEK).await.unwrap();
            assert!(answer.allowed, "{metric}: {answer:?}");
        }
        let told = crate::rpc::tenant::quota::refusals::warnings(
            admin
                .tenant
                .clone()
                .check_quota(CheckQuotaRequest {
                    tenant_id: "acme".into(),
                    metric: "seats".into(),
                    amount: 11,
                    mode: CONSUME.into(),
                })
                .await
                .unwrap()
                .metadata(),
        );
        check(&admin, "seats", 11, RELEASE).await.unwrap();
        let warned = match mode {
            QuotaMode::Warn => vec!["metric=seats, limit=10, used=11"],
            _ => vec![],
        };
        assert_eq!(told, warned, "{mode:?}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_cannot_be_checked_is_refused_with_all_that_is_wrong(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = tenant(&server, "acme", quotas(QuotaMode::Enforce)).await;
    let admin = server.admin();
    let unknown_mode = 7;
    for (metric, amount, mode, wrong) in [
        (
            "nothing",
            -1,
            unknown_mode,
            &["mode", "amount", "metric"][..],
        ),
        ("", 1, PEEK.into(), &["metric"]),
        ("seats", 1_000_000_000_000_001, CONSUME.into(), &["amount"]),
        ("seats", i64::MIN, RELEASE.into(), &["amount"]),
        ("memory_bytes", 1, CONSUME.into(), &["metric"]),
        ("cache_entries", 1, CONSUME.into(), &["metric"]),
        ("data_transfer_bytes", 1, CONSUME.into(), &["metric"]),
        ("active_sessions", 1, CONSUME.into(), &["metric"]),
        ("pages", 1, RELEASE.into(), &["metric"]),
        (
            "operations_per_minute",
            -5,
            RELEASE.into(),
            &["amount", "metric"],
        ),
    ] {
        let request = CheckQuotaRequest {
            tenant_id: "acme".into(),
            metric: metric.into(),
            amount,
            mode,
        };
        let answer = admin.tenant.clone().check_quota(request).await;
        let status = assert_refused(answer, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(fields(&status), wrong, "{metric} {amount} {mode}");
        if metric == "nothing" {
            assert!(status.message().contains("seats"), "{}", status.message());
        }
    }
    let released = check(&acme, "seats", 1, RELEASE).await;
    assert_refused(released, Code::PermissionDenied, "SCOPE_MISSING");

    // A suspended tenant may look; a deleted one is no more.
    let read_only = suspend("acme", SuspensionMode::ReadOnly);
    admin
        .tenant
        .clone()
        .suspend_tenant(read_only)
        .await
        .unwrap();
    check(&admin, "seats", 1, PEEK).await.unwrap();
    check(&admin, "seats", 1, RELEASE).await.unwrap();
    let consumed = check(&admin, "seats", 1, CONSUME).await;
    assert_refused(consumed, Code::FailedPrecondition, "TENANT_SUSPENDED");
    let delete = riptide_persistence::proto::v1::DeleteTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    admin.tenant.clone().delete_tenant(delete).await.unwrap();
    let looked = check(&admin, "seats", 1, PEEK).await;
    assert_refused(looked, Code::FailedPrecondition, "TENANT_DELETED");
}

/// A plan with a metric of the platform's own.
pub fn with_seats(limit: i64) -> impl FnOnce(&mut Config) {
    move |config: &mut Config| {
        let seats = config::CustomQuota {
            limit,
            window: None,
        };
        let plan = config.tenant.plans.get_mut("free").unwrap();
        plan.quotas.custom.insert("seats".into(), seats);
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_is_held_is_seen_by_a_look_and_shrinks_with_it(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = tenant(&server, "acme", quotas(QuotaMode::Enforce)).await;
    store(&acme, "k").await.unwrap();
    let entries = check(&acme, "cache_entries", 3, PEEK).await.unwrap();
    assert_eq!((entries.allowed, entries.used), (false, 1));
    let memory = check(&acme, "memory_bytes", 1, PEEK).await.unwrap();
    assert!(memory.allowed && memory.used > 20, "{memory:?}");
    let transfer = check(&acme, "data_transfer_bytes", 1, PEEK).await.unwrap();
    assert_eq!(transfer.used, 6, "a key of 1 byte and a value of 5");
    assert!(transfer.retry_after.is_none());
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_level_is_exact_under_many_consumers(#[case] kind: Kind) {
    let server = kind.start_with(with_seats(50)).await;
    let acme = server.tenant("acme").await.clients;
    let consume = (0..64).map(|_| check(&acme, "seats", 1, CONSUME));
    let all = tokio::time::timeout(Duration::from_secs(30), join_all(consume));
    let answers: Vec<_> = all.await.unwrap().into_iter().map(Result::unwrap).collect();
    let admitted = answers.iter().filter(|answer| answer.allowed).count();
    assert_eq!(admitted, 50);
    let looked = check(&acme, "seats", 1, PEEK).await.unwrap();
    assert_eq!(
        (looked.allowed, looked.used, looked.remaining),
        (false, 50, 0)
    );
}
