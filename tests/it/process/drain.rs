//! Going away: health first, then the calls, then the streams, then the port.

use std::{net::TcpStream, time::Duration};

use riptide_persistence::proto::v1::{GetRequest, GetServerInfoRequest, SetRequest};
use rstest::rstest;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::server::{Backend, Kind, Server, reason};

fn get() -> GetRequest {
    GetRequest {
        key: "k".into(),
        ..Default::default()
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn health_goes_first_and_streams_end_with_a_reason(#[case] kind: Kind) {
    let mut server = kind
        .start_with(|config| config.drain.delay = Duration::from_millis(300))
        .await;
    let watch = HealthClient::new(server.connect())
        .watch(HealthCheckRequest::default())
        .await;
    let mut states = watch.unwrap().into_inner();
    let state = states.message().await.unwrap().unwrap();
    assert_eq!(state.status(), ServingStatus::Serving);

    server.begin_stop();
    let state = states.message().await.unwrap().unwrap();
    assert_eq!(state.status(), ServingStatus::NotServing);
    // Calls are still served, while those who send them learn of it.
    server
        .admin()
        .state
        .get_server_info(GetServerInfoRequest {})
        .await
        .unwrap();
    for name in ["", "config", "riptide.persistence.v1.StateService"] {
        assert_eq!(
            server.health(name).await.unwrap(),
            ServingStatus::NotServing,
            "{name}"
        );
    }
    assert_eq!(server.probe("/readyz").0, 503);

    let end = states.message().await.unwrap_err();
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::Unavailable, "DRAINING")
    );
    let address = server.address;
    server.stop().await;
    assert!(
        TcpStream::connect(address).is_err(),
        "the port is still bound"
    );
}

#[tokio::test]
async fn calls_in_flight_finish_and_new_ones_are_refused() {
    let mut server = Kind::Redis
        .start_with(|config| {
            config.redis.command_timeout = Duration::from_secs(30);
            // Nothing is answered from memory.
            config.cache.near.enabled = false;
        })
        .await;
    let mut cache = server.tenant("acme").await.clients.cache;
    let set = SetRequest {
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    };
    cache.set(set).await.unwrap();
    cache.get(get()).await.unwrap();

    server.redis().unwrap().freeze();
    let before = server.calls().read;
    let in_flight = tokio::spawn(async move { cache.get(get()).await });
    while server.calls().read == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.begin_stop();
    while TcpStream::connect(server.address).is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.redis().unwrap().thaw();
    let entry = in_flight
        .await
        .unwrap()
        .unwrap()
        .into_inner()
        .entry
        .unwrap();
    assert_eq!(&entry.value[..], b"v");
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut() {
    let mut server = Kind::Redis
        .start_with(|config| {
            config.redis.command_timeout = Duration::from_secs(30);
            config.drain.timeout = Duration::from_millis(200);
        })
        .await;
    let mut cache = server.tenant("acme").await.clients.cache;
    cache.get(get()).await.unwrap();
    server.redis().unwrap().freeze();
    let before = server.calls().read;
    let in_flight = tokio::spawn(async move { cache.get(get()).await });
    while server.calls().read == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let redis = server.take_redis().unwrap();
    server.stop().await;
    assert!(in_flight.await.unwrap().is_err());
    redis.thaw();
}

#[tokio::test]
async fn a_port_can_be_bound_again_at_once() {
    let first = Server::start(Backend::Embedded).await;
    let address = first.address;
    first
        .admin()
        .state
        .get_server_info(GetServerInfoRequest {})
        .await
        .unwrap();
    first.stop().await;
    let again = Server::start_with(Backend::Embedded, |config| config.server.listen = address);
    assert_eq!(again.await.address, address);
}

#[rstest]
#[case::per_core(riptide_persistence::config::Runtime::PerCore)]
#[case::multi_thread(riptide_persistence::config::Runtime::MultiThread)]
#[tokio::test]
async fn both_kinds_of_runtime_serve_and_end(
    #[case] runtime: riptide_persistence::config::Runtime,
) {
    let server = Kind::Embedded
        .start_with(|config| config.server.runtime = runtime)
        .await;
    let calls = (0..8).map(|_| {
        let mut clients = crate::server::Clients::new(
            server.connect(),
            crate::server::Bearer::new(crate::server::ADMIN_KEY),
        );
        tokio::spawn(async move { clients.state.get_server_info(GetServerInfoRequest {}).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    server.stop().await;
}
