//! What a server shows of itself: reflection, information, request ids, probes,
//! and how it answers what is no call of ours.

use riptide_persistence::proto::v1::{GetConfigRequest, GetServerInfoRequest};
use rstest::rstest;
use tokio_stream::{StreamExt, once};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::server::{Backend, Kind, Server, reason};

const SERVICES: [&str; 4] = [
    "grpc.health.v1.Health",
    "riptide.persistence.v1.CacheService",
    "riptide.persistence.v1.StateService",
    "riptide.persistence.v1.TenantService",
];

macro_rules! listed {
    ($server:ident, $version:ident) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answers = ServerReflectionClient::new($server.channel())
            .server_reflection_info(once(request))
            .await;
        match answers {
            Err(status) => Err(status),
            Ok(answers) => {
                let answer = answers.into_inner().next().await.unwrap().unwrap();
                let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response
                else {
                    panic!("{answer:?}");
                };
                let names = list.service.into_iter().map(|service| service.name);
                Ok(names.collect::<Vec<_>>())
            }
        }
    }};
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let server = Server::start(Backend::Embedded).await;
    for names in [
        listed!(server, v1).unwrap(),
        listed!(server, v1alpha).unwrap(),
    ] {
        for service in SERVICES {
            assert!(
                names.iter().any(|name| name == service),
                "{service} in {names:?}"
            );
        }
    }
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    let off = riptide_persistence::config::Reflection::Off;
    let server =
        Server::start_with(Backend::Embedded, |config| config.server.reflection = off).await;
    for refused in [listed!(server, v1), listed!(server, v1alpha)] {
        assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    }
}

#[rstest]
#[case::embedded(Kind::Embedded, "embedded")]
#[case::redis(Kind::Redis, "redis")]
#[tokio::test]
async fn a_server_tells_what_it_is(#[case] kind: Kind, #[case] backend: &str) {
    let server = kind
        .start_with(|config| config.cache.max_batch_items = 77)
        .await;
    let info = server
        .admin()
        .state
        .get_server_info(GetServerInfoRequest {})
        .await;
    let info = info.unwrap().into_inner();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert!(!info.commit.is_empty());
    assert_eq!(info.backend, backend);
    assert_eq!(info.limits.unwrap().batch_items, 77);
    assert!(
        info.features
            .iter()
            .any(|feature| feature.name == "reflection" && feature.enabled)
    );
    assert!(info.start_time.is_some());
}

#[tokio::test]
async fn a_server_tells_its_settings_and_no_secret() {
    let server = Server::start(Backend::Embedded).await;
    let config = server
        .admin()
        .state
        .get_config(GetConfigRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(config.version, 1);
    let listen = config
        .values
        .iter()
        .find(|value| value.path == "server.listen")
        .unwrap();
    assert_eq!(
        (listen.value.as_str(), listen.source.as_str()),
        ("127.0.0.1:50051", "default")
    );
    assert!(!format!("{config:?}").contains(crate::server::ADMIN_KEY));
}

#[tokio::test]
async fn a_call_has_an_id_its_own_or_the_callers() {
    let server = Server::start(Backend::Embedded).await;
    let id_of = async |given: Option<&'static str>| {
        let mut request = Request::new(GetServerInfoRequest {});
        if let Some(given) = given {
            request
                .metadata_mut()
                .insert("x-request-id", given.parse().unwrap());
        }
        let answer = server.admin().state.get_server_info(request).await.unwrap();
        answer
            .metadata()
            .get("x-request-id")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(id_of(Some("order-7_retry.2")).await, "order-7_retry.2");
    for unsound in [None, Some("no spaces"), Some("")] {
        let made = uuid::Uuid::parse_str(&id_of(unsound).await).unwrap();
        assert_eq!(made.get_version_num(), 7);
    }

    // An error ties the same id to its details.
    let mut request = Request::new(GetServerInfoRequest {});
    request
        .metadata_mut()
        .insert("x-request-id", "mine".parse().unwrap());
    let refused = server
        .anonymous()
        .state
        .get_server_info(request)
        .await
        .unwrap_err();
    assert_eq!(refused.metadata().get("x-request-id").unwrap(), "mine");
    assert_eq!(
        refused
            .get_error_details()
            .request_info()
            .unwrap()
            .request_id,
        "mine"
    );
}

#[tokio::test]
async fn probes_follow_the_health() {
    let mut server = Kind::Redis.start().await;
    assert_eq!(server.probe("/healthz"), (200, "ok\n".into()));
    assert_eq!(server.probe("/readyz"), (200, "ok\n".into()));
    assert_eq!(server.probe("/metrics").0, 200);
    assert_eq!(server.probe("/nowhere").0, 404);
    server.redis().unwrap().kill();
    server.serves(false).await;
    assert_eq!(server.probe("/healthz").0, 200);
    let (status, why) = server.probe("/readyz");
    assert_eq!(status, 503);
    assert!(why.contains("store"), "{why}");
}

#[tokio::test]
async fn what_is_no_rpc_is_unimplemented() {
    let server = Server::start(Backend::Embedded).await;
    for path in [
        "/riptide.persistence.v1.CacheService/Nothing",
        "/riptide.persistence.v1.NoService/Get",
        "/grpc.health.v1.Health/Nothing",
        "/elsewhere.Service/Get",
    ] {
        let refused = crate::server::empty_call(server.admin().keyed, path)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{path}");
        assert_eq!(reason(&refused), "UNIMPLEMENTED", "{path}");
    }
}
