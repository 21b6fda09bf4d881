//! Rates while the store is gone: each policy over a real socket, and what holds
//! when it is back. It does not know how long an outage is.

use std::time::{Duration, Instant};

use riptide_persistence::{
    config::WhenStoreIsDown,
    proto::v1::{CheckQuotaMode, CheckQuotaRequest, CheckQuotaResponse, QuotaMode},
};
use tonic::Status;

use super::{METRIC, get, limited};
use crate::{
    redis::{Options, Redis},
    server::{Backend, Clients, Server, reason},
};

async fn consume(clients: &Clients) -> Result<CheckQuotaResponse, Status> {
    let request = CheckQuotaRequest {
        tenant_id: "acme".into(),
        metric: METRIC.into(),
        amount: 1,
        mode: CheckQuotaMode::Consume.into(),
    };
    let answer = clients.tenant.clone().check_quota(request).await?;
    Ok(answer.into_inner())
}

/// A server whose rates fare so without the store.
async fn server(redis: &Redis, policy: &str) -> Server {
    Server::start_with(Backend::Redis(redis), |config| {
        config.tenant.when_store_is_down = WhenStoreIsDown::parse(policy).unwrap();
    })
    .await
}

/// Kills the store, and waits until calls of the cache show it.
async fn kill(redis: &mut Redis, clients: &Clients) {
    // The feed tells of the creation once; what is looked up after that stays.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(consume(clients).await.unwrap().allowed);
    redis.kill();
    until("calls fail", async || {
        get(clients)
            .await
            .is_err_and(|status| reason(&status) == "STORE_UNAVAILABLE")
    })
    .await;
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn alone_a_replica_lets_its_part_through_and_the_store_hears_of_it() {
    let mut redis = Options::new().aof().start();
    let (one, two) = (server(&redis, "local").await, server(&redis, "local").await);
    let (here, secret) = limited(&one, 40, QuotaMode::Enforce).await;
    let there = two.with_key(&secret);
    consume(&here).await.unwrap();
    consume(&there).await.unwrap();
    // Each has said that it lives and heard of the other.
    tokio::time::sleep(Duration::from_millis(2_500)).await;

    kill(&mut redis, &here).await;
    let failed = Instant::now();
    let mut passed = 2;
    let refused = loop {
        let checked = consume(&here).await.unwrap();
        if !checked.allowed {
            break checked;
        }
        passed += 1;
    };
    assert!(failed.elapsed() < Duration::from_secs(30));
    assert_eq!(refused.used, 20);
    // The calls that found out that the store was gone have taken permits, too.
    assert!((15..=20).contains(&passed), "{passed}");
    let retry = refused.retry_after.unwrap();
    assert!((1..=61).contains(&retry.seconds), "{retry:?}");
    // By the admin key too, who is asked for nothing but the key.
    assert!(!consume(&one.admin()).await.unwrap().allowed);

    redis.restart();
    one.serves(true).await;
    two.serves(true).await;
    // What was used meanwhile counts, and the rest is free, at any replica.
    until("the store tells what is used", async || {
        consume(&there).await.is_ok_and(|checked| checked.used > 20)
    })
    .await;
    let mut used = 0;
    while let Ok(checked) = consume(&there).await
        && checked.allowed
    {
        used = checked.used;
    }
    assert_eq!(used, 40);
    assert!(!consume(&here).await.unwrap().allowed);
}

#[tokio::test]
async fn a_rate_that_is_denied_without_the_store_is_unavailable_and_recovers() {
    let mut redis = Options::new().aof().start();
    let server = server(&redis, "allow, operations_per_minute=deny").await;
    let (acme, _) = limited(&server, 40, QuotaMode::Enforce).await;
    kill(&mut redis, &acme).await;
    // What was leased a moment ago may be used to its end.
    until("it is denied", async || {
        consume(&acme)
            .await
            .is_err_and(|status| reason(&status) == "STORE_UNAVAILABLE")
    })
    .await;
    redis.restart();
    until("it is allowed again", async || consume(&acme).await.is_ok()).await;
}

#[tokio::test]
async fn a_rate_that_is_allowed_without_the_store_passes_and_counts_after_it() {
    let mut redis = Options::new().aof().start();
    let server = server(&redis, "deny, operations_per_minute=allow").await;
    let (acme, _) = limited(&server, 40, QuotaMode::Enforce).await;
    kill(&mut redis, &acme).await;
    for _ in 0..100 {
        assert!(consume(&acme).await.unwrap().allowed);
    }
    redis.restart();
    until("the limit holds again", async || {
        consume(&acme).await.is_ok_and(|checked| !checked.allowed)
    })
    .await;
    assert!(consume(&acme).await.unwrap().used >= 100);
}
