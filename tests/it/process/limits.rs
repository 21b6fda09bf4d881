//! Limits and deadlines: each is kept, and each says which it was.

use std::time::{Duration, Instant};

use riptide_persistence::proto::v1::{GetRequest, GetServerInfoRequest, SetRequest};
use rstest::rstest;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt;

use crate::server::{ADMIN_KEY, Backend, Clients, Kind, Server, fields, reason};

fn set(bytes: usize) -> SetRequest {
    SetRequest {
        key: "k".into(),
        value: vec![b'x'; bytes].into(),
        ..Default::default()
    }
}

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
async fn values_of_20_mib_pass_and_larger_ones_are_refused_by_name(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut cache = server.tenant("acme").await.clients.cache;
    cache.set(set(20 << 20)).await.unwrap();
    let entry = cache.get(get()).await.unwrap().into_inner().entry.unwrap();
    assert_eq!(entry.value.len(), 20 << 20);
    // Over the value's limit, and over the message's.
    for bytes in [21 << 20, 40 << 20] {
        let refused = cache.set(set(bytes)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert_eq!(reason(&refused), "ENTRY_TOO_LARGE");
        assert_eq!(fields(&refused).len(), 1);
    }
    assert!(cache.get(get()).await.is_ok());
}

#[tokio::test]
async fn a_deadline_that_cannot_be_read_is_refused() {
    let server = Server::start(Backend::Embedded).await;
    let mut request = Request::new(GetServerInfoRequest {});
    request
        .metadata_mut()
        .insert("grpc-timeout", "soon".parse().unwrap());
    let refused = server
        .admin()
        .state
        .get_server_info(request)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "VALIDATION_FAILED")
    );
    assert_eq!(fields(&refused), ["grpc-timeout"]);
}

/// A server whose store stands still, and clients of a tenant in it.
async fn frozen(set: impl FnOnce(&mut riptide_persistence::config::Config)) -> (Server, Clients) {
    let mut server = Kind::Redis
        .start_with(|config| {
            // Only the deadline ends a call.
            config.redis.command_timeout = Duration::from_secs(60);
            // Nothing is answered from memory.
            config.cache.near.enabled = false;
            set(config);
        })
        .await;
    let clients = server.tenant("acme").await.clients;
    clients.cache.clone().set(self::set(1)).await.unwrap();
    clients.cache.clone().get(get()).await.unwrap();
    server.redis().unwrap().freeze();
    (server, clients)
}

#[tokio::test]
async fn calls_on_a_frozen_store_end_by_their_deadline_and_work_again_after_it() {
    let deadline = Duration::from_millis(400);
    let (mut server, clients) = frozen(|config| config.server.max_deadline = deadline).await;
    let mut cache = clients.cache;
    let ended = |began: Instant, status: &Status, wanted: &str| {
        let slack = Duration::from_millis(300);
        assert!(
            began.elapsed() < deadline + slack,
            "{wanted} took {:?}",
            began.elapsed()
        );
        // Once the store is known to be gone, calls need not wait for it.
        if status.code() != Code::Unavailable {
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
            assert_eq!(reason(status), wanted);
        }
    };
    let began = Instant::now();
    ended(
        began,
        &cache.get(get()).await.unwrap_err(),
        "DEADLINE_EXCEEDED",
    );
    let began = Instant::now();
    ended(
        began,
        &cache.set(set(1)).await.unwrap_err(),
        "OUTCOME_UNKNOWN",
    );
    server.serves(false).await;

    server.redis().unwrap().thaw();
    server.serves(true).await;
    cache.set(set(1)).await.unwrap();
    cache.get(get()).await.unwrap();
}

#[tokio::test]
async fn what_is_too_much_is_shed_but_health_answers() {
    let server = Kind::Embedded
        .start_with(|config| config.server.max_in_flight = 3)
        .await;
    let mut state = server.admin().state;
    // Calls whose messages do not come are in flight until they do.
    let mut waiting = Vec::new();
    let shed = loop {
        waiting.push(open_call(&server).await);
        match state.get_server_info(GetServerInfoRequest {}).await {
            Err(status) => break status,
            Ok(_) => assert!(waiting.len() < 100),
        }
    };
    assert_eq!(
        (shed.code(), reason(&shed).as_str()),
        (Code::Unavailable, "OVERLOADED")
    );
    assert!(shed.get_error_details().retry_info().is_some());
    assert_eq!(server.health("").await.unwrap(), ServingStatus::Serving);

    drop(waiting);
    while let Err(status) = state.get_server_info(GetServerInfoRequest {}).await {
        assert_eq!(reason(&status), "OVERLOADED");
        tokio::task::yield_now().await;
    }
}

/// The head of a call, whose message is to come.
fn get_call() -> http::Request<()> {
    http::Request::post("http://localhost/riptide.persistence.v1.CacheService/Get")
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {ADMIN_KEY}"))
        .body(())
        .unwrap()
}

/// A call whose message never ends, on a connection of its own.
async fn open_call(server: &Server) -> impl Sized {
    let stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let call = send.send_request(get_call(), false).unwrap();
    (send, connection, call)
}

#[tokio::test]
async fn a_connection_carries_as_many_streams_as_it_was_told() {
    let server = Kind::Embedded
        .start_with(|config| config.server.max_streams_per_connection = 2)
        .await;
    let stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    // Asked before the peer could read the limit, the third is refused.
    let mut open = || send.send_request(get_call(), false).unwrap();
    let (first, second, third) = (open(), open(), open());
    let connection = tokio::spawn(connection);
    let refused = third.0.await.unwrap_err();
    assert_eq!(refused.reason(), Some(h2::Reason::REFUSED_STREAM));
    // From then on the peer knows, and opens no third.
    assert_eq!(send.current_max_send_streams(), 2);
    drop((first, second));
    let mut send = send.ready().await.unwrap();
    let call = http::Request::get("http://localhost/").body(()).unwrap();
    let (answer, _) = send.send_request(call, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 405);
    connection.abort();
}
