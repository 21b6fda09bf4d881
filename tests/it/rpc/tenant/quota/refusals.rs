//! What a caller learns at a limit: the details of a refusal, in calls and in
//! items of batches, and the warnings of modes that let through.

use std::time::Duration;

use riptide_persistence::proto::v1::{
    BatchSetRequest, DeleteRequest, GetTenantUsageRequest, InvalidateCacheRequest, QuotaMode,
    Quotas, SetEntry, SetRequest, invalidate_cache_request::Target,
};
use rstest::rstest;
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::StatusExt;

use super::{super::assert_refused, PEEK, check, quotas, set_quotas, tenant};
use crate::server::{Clients, Kind};

/// What an answer tells of limits that were passed.
pub fn warnings(metadata: &MetadataMap) -> Vec<String> {
    let all = metadata.get_all("riptide-quota-warning");
    all.iter()
        .map(|told| told.to_str().unwrap().to_owned())
        .collect()
}

fn entry(key: &str, bytes: usize) -> SetRequest {
    // Bytes that no compression shortens are not needed: 1 KiB is not compressed.
    SetRequest {
        key: key.into(),
        value: vec![b'v'; bytes].into(),
        ..Default::default()
    }
}

async fn set(clients: &Clients, key: &str, bytes: usize) -> Result<Vec<String>, Status> {
    let answer = clients.cache.clone().set(entry(key, bytes)).await?;
    Ok(warnings(answer.metadata()))
}

async fn throttled(clients: &Clients) -> i64 {
    let request = GetTenantUsageRequest::default();
    let usage = clients.tenant.clone().get_tenant_usage(request).await;
    usage.unwrap().into_inner().usage.unwrap().throttled
}

/// Asserts that the details name whose quota of which metric it is.
fn assert_names(status: &Status, metric: &str, limit: i64, used: i64) {
    let details = status.get_error_details();
    let violation = &details.quota_failure().unwrap().violations[0];
    assert_eq!(violation.subject, "tenant:acme");
    assert_eq!(violation.quota_metric, metric);
    assert_eq!(violation.quota_value, limit);
    assert_eq!(violation.quota_dimensions["used"], used.to_string());
    assert_eq!(violation.quota_dimensions["scope"], "tenant:acme");
    let told = &details.error_info().unwrap().metadata;
    for (name, value) in [
        ("metric", metric.to_owned()),
        ("scope", "tenant:acme".to_owned()),
        ("limit", limit.to_string()),
        ("used", used.to_string()),
    ] {
        assert_eq!(told[name], value, "{name}");
    }
}

fn only(metric: &str, limit: i64, mode: QuotaMode) -> Quotas {
    let mut quotas = Quotas {
        modes: [(metric.to_owned(), mode.into())].into(),
        ..Default::default()
    };
    match metric {
        "memory_bytes" => quotas.memory_bytes = Some(limit),
        "cache_entries" => quotas.cache_entries = Some(limit),
        _ => quotas.data_transfer_bytes = Some(limit),
    }
    quotas
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_refused_write_says_which_limit_and_whose(#[case] kind: Kind) {
    let server = kind.start().await;
    let enforce = QuotaMode::Enforce;
    let acme = tenant(&server, "acme", only("cache_entries", 1, enforce)).await;
    set(&acme, "a", 5).await.unwrap();
    let status = assert_refused(
        set(&acme, "b", 5).await,
        Code::ResourceExhausted,
        "QUOTA_EXCEEDED",
    );
    assert_names(&status, "cache_entries", 1, 1);
    // No wait makes room for what never expires.
    assert!(status.get_error_details().retry_info().is_none());
    assert_eq!(
        status.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "-1"
    );

    let item = |key: &str| SetEntry {
        key: key.into(),
        ..Default::default()
    };
    let batch = BatchSetRequest {
        entries: vec![item("a"), item("b"), item("c")],
        ..Default::default()
    };
    let results = acme.cache.clone().batch_set(batch).await.unwrap();
    let results = results.into_inner().results;
    assert!(results[0].status.is_none());
    for result in &results[1..] {
        let refused = result.status.as_ref().unwrap();
        assert_eq!(refused.code, Code::ResourceExhausted as i32);
        let status = Status::with_details(
            Code::ResourceExhausted,
            &refused.message,
            prost::Message::encode_to_vec(refused).into(),
        );
        assert_names(&status, "cache_entries", 1, 1);
    }
    assert_eq!(throttled(&acme).await, 2, "one call, and one batch");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_quota_below_what_is_used_lets_only_shrink(#[case] kind: Kind) {
    let server = kind.start().await;
    let enforce = QuotaMode::Enforce;
    let acme = tenant(&server, "acme", only("memory_bytes", 10_000, enforce)).await;
    set(&acme, "a", 500).await.unwrap();
    set(&acme, "b", 500).await.unwrap();
    set_quotas(
        &server,
        only("memory_bytes", 600, enforce),
        &["quotas.memory_bytes"],
    )
    .await;
    // In force at once on the replica that set it, within a second on others.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let grown = set(&acme, "a", 501).await;
    assert_refused(grown, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let new = set(&acme, "c", 1).await;
    assert_refused(new, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    set(&acme, "a", 400)
        .await
        .expect("it shrinks, though what is used is above the quota");
    let delete = DeleteRequest {
        key: "b".into(),
        ..Default::default()
    };
    acme.cache.clone().delete(delete).await.unwrap();
    set(&acme, "c", 1).await.expect("there is room again");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn levels_that_let_through_count_and_warn_tells(#[case] kind: Kind) {
    let server = kind.start().await;
    for (mode, told, after) in [
        (
            QuotaMode::Warn,
            vec!["metric=cache_entries, limit=1, used=2"],
            1,
        ),
        (QuotaMode::Shadow, vec![], 2),
    ] {
        let set_to = only("cache_entries", 1, mode);
        let acme = match mode {
            QuotaMode::Warn => tenant(&server, "acme", set_to).await,
            _ => {
                set_quotas(&server, set_to, &["quotas.modes"]).await;
                tokio::time::sleep(Duration::from_millis(1000)).await;
                let key = server.key("acme", &["cache.write", "usage.read"]).await;
                server.with_key(&key)
            }
        };
        if mode == QuotaMode::Warn {
            assert_eq!(set(&acme, "a", 5).await.unwrap(), Vec::<String>::new());
        }
        assert_eq!(set(&acme, "b", 5).await.unwrap(), told, "{mode:?}");
        assert_eq!(throttled(&acme).await, after, "{mode:?}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_a_flush_left_behind_is_waited_for(#[case] kind: Kind) {
    let server = kind.start().await;
    let enforce = QuotaMode::Enforce;
    let acme = tenant(&server, "acme", only("memory_bytes", 1000, enforce)).await;
    let flush = InvalidateCacheRequest {
        target: Some(Target::WholeTenant(true)),
        ..Default::default()
    };
    // The background removes what a flush left, if it is quick before the next write.
    let mut status = None;
    for _ in 0..100 {
        match set(&acme, "a", 900).await {
            Ok(_) => {
                let flushed = acme.cache.clone().invalidate_cache(flush.clone()).await;
                flushed.unwrap();
            }
            Err(refused) => {
                status = Some(refused);
                break;
            }
        }
    }
    let status = status.expect("the room is refused until it is reclaimed");
    assert_names(&status, "memory_bytes", 1000, 0);
    let wait = status.get_error_details().retry_info().unwrap().retry_delay;
    assert_eq!(wait, Some(Duration::from_secs(1)));
    assert_eq!(
        status.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "1000"
    );
    let began = std::time::Instant::now();
    while set(&acme, "b", 900).await.is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "nothing is reclaimed"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn transfer_ends_with_the_periods_quota(#[case] kind: Kind) {
    let server = kind.start().await;
    let enforce = QuotaMode::Enforce;
    let acme = tenant(&server, "acme", only("data_transfer_bytes", 300, enforce)).await;
    // The call under way when the limit is reached is finished.
    set(&acme, "a", 299).await.unwrap();
    let status = assert_refused(
        set(&acme, "b", 1).await,
        Code::ResourceExhausted,
        "QUOTA_EXCEEDED",
    );
    assert_names(&status, "data_transfer_bytes", 300, 300);
    let wait = status
        .get_error_details()
        .retry_info()
        .unwrap()
        .retry_delay
        .unwrap();
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_secs(31 * 86_400),
        "{wait:?}"
    );
    let looked = check(&acme, "data_transfer_bytes", 1, PEEK).await.unwrap();
    assert_eq!((looked.allowed, looked.used), (false, 300));

    set_quotas(
        &server,
        only("data_transfer_bytes", 300, QuotaMode::Warn),
        &["quotas.modes"],
    )
    .await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let told = set(&acme, "b", 1).await.unwrap();
    assert_eq!(told, ["metric=data_transfer_bytes, limit=300, used=300"]);
    // The quotas of another tenant are its own.
    let other = tenant(&server, "other", quotas(enforce)).await;
    set(&other, "a", 5).await.unwrap();
}
