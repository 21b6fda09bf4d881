//! The Redis backend and who is at the other end: nobody yet, a stranger, a server
//! that it cannot work with. It does not know what servers suffer later.

use std::{
    io::{Read, Write as _},
    net::TcpListener,
    time::Duration,
};

use riptide_persistence::store::{Error, Store};

use super::redis_faults::{answering, connected, failing, open, put, space, version};
use crate::redis::{Options, Redis as Server, free_port};

#[tokio::test]
async fn a_wrong_password_is_named_until_it_is_right() {
    let server = Options::new().password("right").start();
    for url in [
        server.url().replace("right", "wrong"),
        format!("redis://127.0.0.1:{}", server.port()),
    ] {
        let store = open(&url);
        let error = failing(&store, |error| matches!(error, Error::Unusable(_))).await;
        assert!(error.to_string().contains("password"), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
        let error = store.commit(&space(), put("a")).await.unwrap_err();
        assert!(matches!(error, Error::Unusable(_)), "{error}");
    }
    let store = open(&server.url().replace("right", "wrong"));
    failing(&store, |error| matches!(error, Error::Unusable(_))).await;
    server.cli(&["config", "set", "requirepass", "wrong"]);
    answering(&store).await;
    assert_eq!(version(&store, &space(), put("a")).await, 1);
}

#[tokio::test]
async fn a_peer_that_is_not_redis_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let store = open(&url);
    let error = failing(&store, |error| matches!(error, Error::Unusable(_))).await;
    assert!(error.to_string().contains("protocol"), "{error}");
}

#[tokio::test]
async fn a_server_that_comes_late_is_found() {
    let port = free_port();
    let store = open(&format!("redis://127.0.0.1:{port}"));
    let error = store.commit(&space(), put("a")).await.unwrap_err();
    assert!(
        matches!(error, Error::Unavailable(_)),
        "surely not written: {error}"
    );
    let error = store.changes(None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    let _server = Options::new().start_on(port);
    answering(&store).await;
    assert_eq!(version(&store, &space(), put("a")).await, 1);
}

#[tokio::test]
async fn a_server_that_may_evict_is_told() {
    let server = Options::new()
        .with(&["--maxmemory-policy", "allkeys-lru"])
        .start();
    let store = connected(&server.url()).await;
    let health = store.ping().await.unwrap();
    assert!(!health.exact && health.version.starts_with("redis 7"));
    assert!(!store.usage(&space()).await.unwrap().exact);
}

#[tokio::test]
async fn a_replica_is_not_written_to() {
    let primary = Server::start();
    let port = primary.port().to_string();
    let replica = Options::new()
        .with(&["--replicaof", "127.0.0.1", &port])
        .start();
    let store = open(&replica.url());
    let error = failing(&store, |error| error.to_string().contains("replica")).await;
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    replica.cli(&["replicaof", "no", "one"]);
    answering(&store).await;
    assert_eq!(version(&store, &space(), put("a")).await, 1);
}

#[tokio::test]
async fn a_dropped_store_leaves_nothing_behind() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    store.changes(None).await.unwrap();
    let clients = || server.cli(&["client", "list"]).lines().count();
    assert_eq!(clients(), 1 + 2 + 1, "redis-cli, the pool, the feed");
    drop(store);
    for _ in 0..1000 {
        if clients() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{}", server.cli(&["client", "list"]));
}
