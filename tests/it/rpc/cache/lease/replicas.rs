//! Replicas on one Redis: of all their callers one refills an entry, whichever of
//! them is killed.

use std::time::Instant;

use futures::future::join_all;
use riptide_persistence::proto::v1::CreateTenantRequest;

use super::{Duration, GetOrLeaseRequest, again, ask, asked, get, lapsed, refill, seconds, wait};
use crate::{
    cli::Folder,
    process::client,
    redis::Redis,
    server::{ADMIN_KEY, Backend, Server},
};

#[tokio::test]
async fn of_callers_at_three_replicas_one_refills() {
    let redis = Redis::start();
    let replicas = join_all((0..3).map(|_| Server::start(Backend::Redis(&redis)))).await;
    let acme = replicas[0].tenant("acme").await;
    let clients: Vec<_> = replicas.iter().map(|r| r.with_key(&acme.secret)).collect();
    for round in 0..5 {
        let key = format!("key {round}");
        let calls = (0..60).map(|n| ask(&clients[n % 3], asked(&key)));
        let told: Vec<_> = join_all(calls)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let (leased, waiting): (Vec<_>, Vec<_>) =
            told.iter().partition(|told| !told.lease_token.is_empty());
        assert_eq!((leased.len(), waiting.len()), (1, 59), "{round}");
        for told in waiting {
            again(told);
        }

        // Set at another replica than it was leased at, and seen at every one.
        let token = &leased[0].lease_token;
        let set = refill(&clients[round % 3], &key, "value", token).await;
        set.unwrap();
        for clients in &clients {
            let request = asked(&key);
            let told = wait(clients, &request).await;
            assert_eq!(&told.entry.unwrap().value[..], b"value");
            assert!(get(clients, &key).await.unwrap().is_some());
            lapsed(refill(clients, &key, "again", token).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_ends_at_its_time_where_the_replica_that_granted_it_is_killed() {
    let redis = Redis::start();
    let folder = Folder::new();
    let settings = format!(
        "persistence: {{redis: {{url: '{}'}}, auth: {{admin_key: '{ADMIN_KEY}'}}}}",
        redis.url()
    );
    folder.write("persistence.yml", settings);
    let killed = folder.serve(&[]);
    let other = folder.serve(&[]);
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let mut admin = client(&killed.address, ADMIN_KEY).tenant;
    let created = admin.create_tenant(request).await.unwrap().into_inner();
    let there = client(&other.address, &created.secret);
    // It knows the tenant, so that the next call is about the lease alone.
    assert!(get(&there, "k").await.unwrap().is_none());

    let began = Instant::now();
    let brief = GetOrLeaseRequest {
        lease_duration: seconds(2),
        ..asked("k")
    };
    let here = client(&killed.address, &created.secret);
    let first = ask(&here, brief.clone()).await.unwrap().lease_token;
    assert!(!first.is_empty());
    drop(killed);
    let next = wait(&there, &brief).await;
    // Less by what the clocks of two machines may differ in two seconds.
    let held = began.elapsed() + Duration::from_millis(50);
    assert!(held >= Duration::from_secs(2), "{held:?}");
    assert!(!next.lease_token.is_empty() && next.lease_token != first);
    again(&ask(&there, brief).await.unwrap());
    lapsed(refill(&there, "k", "late", &first).await);
    let set = refill(&there, "k", "value", &next.lease_token).await;
    set.unwrap();
    let entry = get(&there, "k").await.unwrap().unwrap();
    assert_eq!(&entry.value[..], b"value");
}
