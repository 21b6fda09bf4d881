//! Health: what it says of each component, and how fast it follows the store.

use std::time::{Duration, Instant};

use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    redis::Redis,
    server::{Backend, Kind, Server},
};

const NEED_THE_STORE: [&str; 4] = [
    "",
    "store",
    "riptide.persistence.v1.TenantService",
    "riptide.persistence.v1.CacheService",
];
const NEED_NOTHING: [&str; 2] = ["config", "riptide.persistence.v1.StateService"];

/// Health follows within so much.
const FOLLOWS: Duration = Duration::from_secs(2);

#[tokio::test]
async fn each_component_has_a_state_and_others_are_unknown() {
    let server = Server::start(Backend::Embedded).await;
    for name in NEED_THE_STORE.iter().chain(&NEED_NOTHING) {
        assert_eq!(
            server.health(name).await.unwrap(),
            ServingStatus::Serving,
            "{name}"
        );
    }
    let unknown = server.health("nothing").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    // Watching an unknown name says so and goes on, as the protocol wants.
    let request = HealthCheckRequest {
        service: "nothing".into(),
    };
    let mut states = HealthClient::new(server.channel())
        .watch(request)
        .await
        .unwrap()
        .into_inner();
    let state = states.message().await.unwrap().unwrap();
    assert_eq!(state.status(), ServingStatus::ServiceUnknown);
    let next = tokio::time::timeout(Duration::from_millis(50), states.message()).await;
    assert!(next.is_err(), "{next:?}");
}

#[tokio::test]
async fn health_follows_a_store_that_goes_and_comes_back() {
    let mut server = Kind::Redis.start().await;
    server.redis().unwrap().kill();
    let killed = Instant::now();
    server.serves(false).await;
    assert!(killed.elapsed() < FOLLOWS, "{:?}", killed.elapsed());
    for name in NEED_THE_STORE {
        assert_eq!(
            server.health(name).await.unwrap(),
            ServingStatus::NotServing,
            "{name}"
        );
    }
    for name in NEED_NOTHING {
        assert_eq!(
            server.health(name).await.unwrap(),
            ServingStatus::Serving,
            "{name}"
        );
    }

    server.redis().unwrap().restart();
    let restarted = Instant::now();
    server.serves(true).await;
    assert!(restarted.elapsed() < FOLLOWS, "{:?}", restarted.elapsed());
}

#[tokio::test]
async fn a_server_starts_without_its_redis_and_recovers_by_itself() {
    let mut redis = Redis::start();
    redis.kill();
    let server = Server::launch(Backend::Redis(&redis), |_| {}).unwrap();
    assert_eq!(server.health("").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(
        server.health("config").await.unwrap(),
        ServingStatus::Serving
    );
    redis.restart();
    server.serves(true).await;
}
