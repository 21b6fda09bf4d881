//! GetOrLease, and Set with its token, over a real socket on both backends. It does
//! not know how a lease is kept.

mod replicas;

use std::time::Duration;

use riptide_persistence::proto::v1::{
    BatchDeleteRequest, CacheEntry, DeleteRequest, GetOrLeaseRequest, GetOrLeaseResponse,
    GetTenantUsageRequest, InvalidateCacheRequest, Keys, SetCondition, SetRequest, SetResponse,
    SuspendTenantRequest, SuspensionMode, Tags, invalidate_cache_request::Target,
};
use rstest::rstest;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{flush, get, keys, seconds, set};
use crate::server::{Clients, Kind, fields, reason};

fn asked(key: &str) -> GetOrLeaseRequest {
    GetOrLeaseRequest {
        key: key.into(),
        ..Default::default()
    }
}

async fn ask(clients: &Clients, request: GetOrLeaseRequest) -> Result<GetOrLeaseResponse, Status> {
    let answer = clients.cache.clone().get_or_lease(request).await?;
    Ok(answer.into_inner())
}

/// The token of a lease that nobody else holds.
async fn token(clients: &Clients, key: &str) -> String {
    let answer = ask(clients, asked(key)).await.unwrap();
    assert!(!answer.lease_token.is_empty(), "no lease: {answer:?}");
    assert_eq!((&answer.entry, answer.stale), (&None, false));
    assert_eq!(answer.retry_after, None);
    answer.lease_token
}

async fn refill(
    clients: &Clients,
    key: &str,
    value: &str,
    token: &str,
) -> Result<SetResponse, Status> {
    let request = SetRequest {
        lease_token: token.into(),
        ..set(key, value.to_owned())
    };
    Ok(clients.cache.clone().set(request).await?.into_inner())
}

/// Asserts that a refill was refused because its lease is none any more.
fn lapsed<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert_eq!(reason(&status), "CONDITION_NOT_MET");
    let details = status.get_error_details();
    let violations = &details.precondition_failure().unwrap().violations;
    assert_eq!(violations[0].subject, "lease_token");
    assert!(!violations[0].description.is_empty());
}

/// When to come again, where another refills it.
fn again(answer: &GetOrLeaseResponse) -> Duration {
    assert_eq!(answer.lease_token, "");
    let again = Duration::try_from(answer.retry_after.expect("nobody refills it")).unwrap();
    assert!(again > Duration::ZERO && again <= Duration::from_millis(500));
    again
}

/// Asks as told until there is something else to be told.
async fn wait(clients: &Clients, request: &GetOrLeaseRequest) -> GetOrLeaseResponse {
    loop {
        let answer = ask(clients, request.clone()).await.unwrap();
        if answer.retry_after.is_none() {
            return answer;
        }
        tokio::time::sleep(again(&answer)).await;
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn one_refills_and_the_others_are_told_when_to_come_again(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let token = token(&clients, "k").await;
    let other = ask(&clients, asked("k")).await.unwrap();
    again(&other);
    assert_eq!((other.entry, other.stale), (None, false));

    let waits = tokio::spawn({
        let clients = clients.clone();
        async move { wait(&clients, &asked("k")).await }
    });
    let written = refill(&clients, "k", "value", &token).await.unwrap();
    let told = waits.await.unwrap();
    let entry: CacheEntry = told.entry.unwrap();
    assert_eq!((entry.key.as_str(), &entry.value[..]), ("k", &b"value"[..]));
    assert_eq!(entry.version, written.version);
    assert_eq!(entry.expire_time, written.expire_time);
    assert_eq!(get(&clients, "k").await.unwrap().unwrap(), entry);
    lapsed(refill(&clients, "k", "again", &token).await);
    assert_eq!(get(&clients, "k").await.unwrap().unwrap(), entry);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_token_of_another_entry_or_an_ended_lease_sets_nothing(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = server.tenant("acme").await.clients;
    let other = server.tenant("other").await.clients;
    let [mine, theirs] = [token(&acme, "k").await, token(&other, "k").await];
    token(&acme, "l").await;
    lapsed(refill(&acme, "l", "v", &mine).await);
    lapsed(refill(&acme, "k", "v", &theirs).await);
    let elsewhere = SetRequest {
        namespace: "elsewhere".into(),
        lease_token: mine.clone(),
        ..set("k", "v")
    };
    lapsed(acme.cache.clone().set(elsewhere).await);
    refill(&acme, "k", "v", &mine).await.unwrap();
    refill(&other, "k", "v", &theirs).await.unwrap();

    let short = GetOrLeaseRequest {
        lease_duration: Some(prost_types::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
        ..asked("short")
    };
    let first = ask(&acme, short.clone()).await.unwrap().lease_token;
    assert!(!first.is_empty());
    // Whoever waits gets it when the first lease has ended, and the first is late.
    let second = wait(&acme, &asked("short")).await.lease_token;
    assert!(!second.is_empty() && second != first);
    lapsed(refill(&acme, "short", "late", &first).await);
    refill(&acme, "short", "v", &second).await.unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_happens_to_the_entry_meanwhile_voids_the_lease(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let tagged = Target::Tags(Tags {
        tags: keys(&["red"]),
    });
    let targets = [
        Target::Keys(Keys { keys: keys(&["k"]) }),
        Target::Prefix("k".into()),
        tagged.clone(),
        Target::WholeNamespace(true),
        Target::WholeTenant(true),
    ];
    // With the tag, so that it matters that the tag was invalidated.
    let late = async |token: &str| {
        let request = SetRequest {
            lease_token: token.into(),
            tags: keys(&["red"]),
            ..set("k", "late")
        };
        clients.cache.clone().set(request).await
    };
    for target in targets {
        let token = token(&clients, "k").await;
        let flush = flush(target.clone());
        clients.cache.clone().invalidate_cache(flush).await.unwrap();
        lapsed(late(&token).await);
        assert_eq!(get(&clients, "k").await.unwrap(), None, "{target:?}");
    }
    let delete = DeleteRequest {
        key: "k".into(),
        ..Default::default()
    };
    let held = token(&clients, "k").await;
    clients.cache.clone().delete(delete.clone()).await.unwrap();
    lapsed(late(&held).await);
    let held = token(&clients, "k").await;
    let batch = BatchDeleteRequest {
        keys: keys(&["k"]),
        ..Default::default()
    };
    clients.cache.clone().batch_delete(batch).await.unwrap();
    lapsed(late(&held).await);
    let held = token(&clients, "k").await;
    clients
        .cache
        .clone()
        .set(set("k", "between"))
        .await
        .unwrap();
    lapsed(late(&held).await);
    let there = get(&clients, "k").await.unwrap().unwrap();
    assert_eq!(&there.value[..], b"between");
    clients.cache.clone().delete(delete).await.unwrap();

    // What concerns other entries leaves it.
    let held = token(&clients, "k").await;
    let others = [
        flush(Target::Keys(Keys { keys: keys(&["l"]) })),
        flush(Target::Prefix("kk".into())),
        flush(tagged),
        InvalidateCacheRequest {
            namespace: "other".into(),
            ..flush(Target::WholeNamespace(true))
        },
    ];
    for other in others {
        clients.cache.clone().invalidate_cache(other).await.unwrap();
    }
    refill(&clients, "k", "v", &held).await.unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_was_is_shown_as_stale_while_one_refills(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let stale_ok = GetOrLeaseRequest {
        stale_ok: true,
        ..asked("k")
    };
    let held = token(&clients, "k").await;
    let request = SetRequest {
        lease_token: held,
        ttl: seconds(5),
        ..set("k", "old")
    };
    let written = clients
        .cache
        .clone()
        .set(request)
        .await
        .unwrap()
        .into_inner();
    let fresh = ask(&clients, stale_ok.clone()).await.unwrap();
    assert!(!fresh.stale && fresh.retry_after.is_none());
    while get(&clients, "k").await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let held = token(&clients, "k").await;
    let stale = ask(&clients, stale_ok.clone()).await.unwrap();
    again(&stale);
    let entry = stale.entry.unwrap();
    assert!(stale.stale);
    assert_eq!(
        (&entry.value[..], entry.version),
        (&b"old"[..], written.version)
    );
    assert_eq!(entry.expire_time, written.expire_time);
    let other = ask(&clients, asked("k")).await.unwrap();
    assert_eq!(
        (other.entry, other.stale),
        (None, false),
        "nobody asked for it"
    );
    refill(&clients, "k", "new", &held).await.unwrap();

    let flushed = flush(Target::WholeNamespace(true));
    clients
        .cache
        .clone()
        .invalidate_cache(flushed)
        .await
        .unwrap();
    let held = token(&clients, "k").await;
    let stale = ask(&clients, stale_ok.clone()).await.unwrap();
    again(&stale);
    // As far as the store still has it: the background may have been faster.
    let value = stale.entry.map(|entry| entry.value);
    assert_eq!(stale.stale, value.is_some());
    assert!(value.is_none_or(|value| value == "new"));
    refill(&clients, "k", "newer", &held).await.unwrap();
    let fresh = ask(&clients, stale_ok).await.unwrap();
    assert_eq!(
        (&fresh.entry.unwrap().value[..], fresh.stale),
        (&b"newer"[..], false)
    );
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn whoever_asks_wrongly_is_told_the_field(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let held = token(&clients, "k").await;
    for bad in ["x", &held[1..], &format!("{held}{held}")] {
        let status = refill(&clients, "k", "v", bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(fields(&status), ["lease_token"], "{bad:?}");
    }
    let both = SetRequest {
        lease_token: held.clone(),
        condition: SetCondition::IfAbsent.into(),
        ..set("k", "v")
    };
    let status = clients.cache.clone().set(both).await.unwrap_err();
    assert_eq!(fields(&status), ["condition"]);
    for lease_duration in [seconds(0), seconds(-1), seconds(61), seconds(i64::MAX)] {
        let request = GetOrLeaseRequest {
            namespace: "A".into(),
            lease_duration,
            ..asked("")
        };
        let status = ask(&clients, request).await.unwrap_err();
        assert_eq!(fields(&status), ["lease_duration", "namespace", "key"]);
    }
    refill(&clients, "k", "v", &held).await.unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn it_takes_who_may_read_and_write_and_a_tenant_that_may(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = server.tenant("acme").await.clients;
    for (scopes, lacks) in [
        (&["cache.write"][..], "cache.read"),
        (&["cache.read"], "cache.write"),
    ] {
        let key = server.key("acme", scopes).await;
        let refused = ask(&server.with_key(&key), asked("k")).await.unwrap_err();
        assert_eq!(reason(&refused), "SCOPE_MISSING");
        assert!(refused.message().contains(lacks), "{refused:?}");
    }
    let key = server.key("acme", &["cache.write", "cache.read"]).await;
    let held = token(&server.with_key(&key), "k").await;
    refill(&acme, "k", "value", &held).await.unwrap();

    let suspend = |mode: SuspensionMode| SuspendTenantRequest {
        tenant_id: "acme".into(),
        mode: mode.into(),
        ..Default::default()
    };
    let mut admin = server.admin().tenant;
    admin
        .suspend_tenant(suspend(SuspensionMode::ReadOnly))
        .await
        .unwrap();
    let there = ask(&acme, asked("k")).await.unwrap();
    assert_eq!(&there.entry.unwrap().value[..], b"value");
    let refused = ask(&acme, asked("absent")).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_SUSPENDED");
    admin
        .suspend_tenant(suspend(SuspensionMode::Blocked))
        .await
        .unwrap();
    let refused = ask(&acme, asked("k")).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_SUSPENDED");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn each_call_is_one_operation_and_a_hit_or_a_miss(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let held = token(&clients, "key").await;
    again(&ask(&clients, asked("key")).await.unwrap());
    refill(&clients, "key", "value", &held).await.unwrap();
    assert!(ask(&clients, asked("key")).await.unwrap().entry.is_some());
    loop {
        let request = GetTenantUsageRequest {
            tenant_id: "acme".into(),
            ..Default::default()
        };
        let usage = server.admin().tenant.get_tenant_usage(request).await;
        let usage = usage.unwrap().into_inner().usage.unwrap();
        // Reads are told once a second.
        if usage.operations == 4 && usage.hits + usage.misses == 3 {
            assert_eq!((usage.hits, usage.misses), (1, 2));
            assert_eq!((usage.bytes_in, usage.bytes_out), (4 * 3 + 5, 5));
            return;
        }
        assert!(usage.operations <= 4, "{usage:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
