//! Starting: what stops a start is named, and what need not, does not.

use std::{net::TcpListener, time::Duration};

use riptide_persistence::{
    config,
    proto::v1::{ListTenantsRequest, WhoAmIRequest},
    server::Error,
};
use tonic::Code;

use crate::{
    redis::{Options, Redis},
    server::{Backend, Server, reason},
};

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let refused = |set: fn(&mut config::Config, std::net::SocketAddr), setting: &str| {
        let Err(error) = Server::launch(Backend::Embedded, |config| set(config, address)) else {
            panic!("{setting}: started on a taken port");
        };
        assert!(matches!(error, Error::Listen { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(setting) && text.contains(&address.to_string()),
            "{text}"
        );
    };
    refused(
        |config, address| config.server.listen = address,
        "server.listen",
    );
    refused(
        |config, address| config.server.admin_listen = address,
        "server.admin_listen",
    );
}

#[tokio::test]
async fn plaintext_beyond_loopback_is_refused_unless_allowed() {
    let everywhere = || "0.0.0.0:0".parse().unwrap();
    let Err(error) = Server::launch(Backend::Embedded, |config| {
        config.server.listen = everywhere()
    }) else {
        panic!("listens everywhere");
    };
    let text = error.to_string();
    assert!(
        text.contains("server.listen") && text.contains("allow_plaintext"),
        "{text}"
    );
    Server::launch(Backend::Embedded, |config| {
        config.server.listen = everywhere();
        config.server.allow_plaintext_beyond_loopback = true;
    })
    .unwrap()
    .stop()
    .await;
}

#[tokio::test]
async fn a_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let on_folder = |config: &mut config::Config| {
        config.store.ephemeral = false;
        config.store.path = folder.path().into();
    };
    let first = Server::start_with(Backend::Embedded, on_folder).await;
    let Err(error) = Server::launch(Backend::Embedded, on_folder) else {
        panic!("two servers on one folder");
    };
    let text = error.to_string();
    assert!(
        text.contains("store.path") && text.contains("use"),
        "{text}"
    );
    first.tenant("acme").await;
    first.stop().await;

    // What was acknowledged is there when it starts again.
    let again = Server::start_with(Backend::Embedded, on_folder).await;
    let list = again
        .admin()
        .tenant
        .list_tenants(ListTenantsRequest::default())
        .await
        .unwrap();
    assert_eq!(list.into_inner().tenants.len(), 1);
}

#[tokio::test]
async fn an_admin_key_is_made_at_first_start_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let keyless = |config: &mut config::Config| {
        config.auth.admin_key = None;
        config.store.path = folder.path().into();
    };
    let first = Server::start_with(Backend::Embedded, keyless).await;
    let key = std::fs::read_to_string(folder.path().join("admin.key")).unwrap();
    let who = first
        .with_key(key.trim())
        .tenant
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap();
    assert!(who.into_inner().admin);
    let refused = first
        .admin()
        .tenant
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "API_KEY_INVALID");
    first.stop().await;

    let again = Server::start_with(Backend::Embedded, keyless).await;
    assert!(
        again
            .with_key(key.trim())
            .tenant
            .who_am_i(WhoAmIRequest {})
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_wrong_password_is_named_and_the_server_waits() {
    let mut redis = Options::new().password("right").start();
    let url = redis.url().replace("right", "wrong");
    let server = Server::launch(Backend::Redis(&redis), |config| {
        config.redis.url = Some(url.into())
    })
    .unwrap();
    let mut why = String::new();
    for _ in 0..100 {
        why = server.probe("/readyz").1;
        if why.to_lowercase().contains("password") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(why.to_lowercase().contains("password"), "{why}");
    assert!(!why.contains("wrong:") && !why.contains(":wrong"), "{why}");
    let refused = server
        .admin()
        .tenant
        .list_tenants(ListTenantsRequest::default())
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "STORE_UNAVAILABLE")
    );
    redis.kill();
}

#[tokio::test]
async fn without_redis_calls_are_refused_at_once_until_it_is_there() {
    let mut redis = Redis::start();
    redis.kill();
    let server = Server::launch(Backend::Redis(&redis), |_| {}).unwrap();
    let list = async || {
        server
            .admin()
            .tenant
            .list_tenants(ListTenantsRequest::default())
            .await
    };
    let refused = list().await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "STORE_UNAVAILABLE")
    );
    redis.restart();
    server.serves(true).await;
    list().await.unwrap();
}
