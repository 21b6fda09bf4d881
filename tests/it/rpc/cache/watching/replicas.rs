//! Watching through one replica what is written through another, over restarts and
//! losses of the Redis they share.

use std::collections::HashMap;

use super::*;
use crate::{
    redis::{Options, Redis},
    server::Backend,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_through_all_replicas_are_told_once_over_reconnects() {
    const WRITES: usize = 300;
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;
    let tenant = one.tenant("acme").await;
    let elsewhere = two.with_key(&tenant.secret);
    // Both rely on a time before anybody watched.
    put(&tenant.clients, "before").await;
    put(&elsewhere, "before").await;
    let mut watch = Watch::begin(&elsewhere).await;
    let writers: Vec<_> = [tenant.clients.clone(), elsewhere.clone()]
        .into_iter()
        .enumerate()
        .map(|(writer, clients)| {
            tokio::spawn(async move {
                for number in 0..WRITES {
                    put(&clients, &format!("{writer} {number}")).await;
                }
            })
        })
        .collect();

    let mut heard: Vec<String> = Vec::new();
    let mut responses = 0;
    while heard.len() < 2 * WRITES {
        for event in watch.response().await.unwrap().events {
            match event.target {
                Some(Target::Keys(of)) => heard.extend(of.keys),
                other => panic!("{other:?}"),
            }
        }
        responses += 1;
        if responses % 5 == 0 {
            // Now through the one replica, now through the other.
            let clients = [&tenant.clients, &elsewhere][responses / 5 % 2];
            watch = Watch::resume(clients, &watch.token).await;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut times = HashMap::new();
    for key in &heard {
        *times.entry(key.clone()).or_insert(0) += 1;
    }
    assert!(times.len() == 2 * WRITES && times.values().all(|times| *times == 1));
    for writer in 0..2 {
        let of_one: Vec<_> = heard
            .iter()
            .filter_map(|key| key.strip_prefix(&format!("{writer} ")))
            .map(|number| number.parse::<usize>().unwrap())
            .collect();
        assert!(of_one.is_sorted(), "in the order they were acknowledged");
    }
}

#[tokio::test]
async fn a_watch_goes_on_when_redis_comes_back_with_all_it_had() {
    let mut redis = Options::new().aof().start();
    let server = Server::start(Backend::Redis(&redis)).await;
    let tenant = server.tenant("acme").await;
    let mut watch = Watch::begin(&tenant.clients).await;
    put(&tenant.clients, "a").await;
    assert_eq!(watch.events(1).await, [changed(&["a"])]);
    redis.restart();
    let again = async {
        while tenant
            .clients
            .cache
            .clone()
            .set(set("b", "v"))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    again.await;
    // A write whose answer was lost may have been told, too.
    let events = watch.events(1).await;
    assert_eq!(events.last(), Some(&changed(&["b"])), "{events:?}");
}

#[tokio::test]
async fn a_watch_waits_for_a_store_in_vain_for_a_while_and_then_says_so() {
    let mut redis = Options::new().aof().start();
    let server = Server::start(Backend::Redis(&redis)).await;
    let tenant = server.tenant("acme").await;
    let watch = Watch::begin(&tenant.clients).await;
    let token = watch.token.clone();
    put(&tenant.clients, "a").await;
    redis.kill();
    let end = watch.end().await;
    assert_eq!(end.code(), Code::Unavailable);
    assert_eq!(reason(&end), "STORE_UNAVAILABLE");
    redis.restart();
    server.serves(true).await;
    let mut watch = Watch::resume(&tenant.clients, &token).await;
    assert_eq!(watch.events(1).await, [changed(&["a"])]);
}

#[tokio::test]
async fn a_lost_log_means_that_all_may_have_changed() {
    let redis = Redis::start();
    let server = Server::start(Backend::Redis(&redis)).await;
    let tenant = server.tenant("acme").await;
    let mut watch = Watch::begin(&tenant.clients).await;
    put(&tenant.clients, "a").await;
    assert_eq!(watch.events(1).await, [changed(&["a"])]);
    let token = watch.token.clone();
    let names = redis.cli(&["--scan", "--pattern", "v1:{*}:n"]);
    let log = names.lines().next().expect("there is a log");
    redis.cli(&["DEL", log]);
    assert_eq!(watch.events(1).await, [whole_tenant()]);
    put(&tenant.clients, "b").await;
    assert_eq!(watch.events(1).await, [changed(&["b"])]);
    // A token from before is answered likewise, through any replica.
    let other = Server::start(Backend::Redis(&redis)).await;
    let elsewhere = other.with_key(&tenant.secret);
    let mut watch = Watch::resume(&elsewhere, &token).await;
    assert_eq!(watch.events(1).await, [whole_tenant()]);
    put(&tenant.clients, "c").await;
    assert_eq!(watch.events(1).await, [changed(&["c"])]);
}

#[tokio::test]
async fn a_store_that_was_emptied_ends_a_watch_and_gets_nothing_back() {
    let redis = Redis::start();
    let server = Server::start(Backend::Redis(&redis)).await;
    let tenant = server.tenant("acme").await;
    let admin = WatchInvalidationsRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let watches = [
        Watch::begin(&tenant.clients).await,
        Watch::call(&server.admin(), admin).await.unwrap(),
    ];
    let token = watches[0].token.clone();
    put(&tenant.clients, "a").await;
    redis.cli(&["FLUSHALL"]);
    for watch in watches {
        let end = reason(&watch.end().await);
        assert!(
            ["API_KEY_INVALID", "TENANT_NOT_FOUND"].contains(&&*end),
            "{end}"
        );
    }
    let names = redis.cli(&["--scan", "--pattern", "v1:{*}:s"]);
    let lasting = ["registry", "meters", "audit"];
    let of_tenants = |name: &&str| !lasting.iter().any(|space| name.contains(space));
    assert_eq!(names.lines().filter(of_tenants).count(), 0);
    // A tenant of the same name is another one.
    let reborn = server.tenant("acme").await;
    let refused = WatchInvalidationsRequest {
        resume_token: token,
        ..Default::default()
    };
    let Err(refused) = Watch::call(&reborn.clients, refused).await else {
        panic!("a token of an earlier life is taken");
    };
    assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");
}
