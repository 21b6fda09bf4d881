//! API keys over a real socket. It does not know how a secret is kept.

use std::time::{Duration, SystemTime};

use riptide_persistence::proto::v1::{
    CreateApiKeyRequest, GetRequest, ListApiKeysRequest, RevokeApiKeyRequest, RotateApiKeyRequest,
    SetRequest, WhoAmIRequest, WhoAmIResponse,
};
use rstest::rstest;
use tonic::{Code, Status};

use super::{REQUEST, assert_refused, named, store};
use crate::server::{Clients, Kind, Server, fields};

async fn who(clients: &Clients) -> Result<WhoAmIResponse, Status> {
    Ok(clients
        .tenant
        .clone()
        .who_am_i(WhoAmIRequest {})
        .await?
        .into_inner())
}

fn new_key(scopes: &[&str]) -> CreateApiKeyRequest {
    CreateApiKeyRequest {
        tenant_id: "acme".into(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn rotate(key_id: &str, seconds: i64) -> RotateApiKeyRequest {
    RotateApiKeyRequest {
        key_id: key_id.into(),
        overlap: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    }
}

fn revoke(key_id: &str) -> RevokeApiKeyRequest {
    RevokeApiKeyRequest {
        key_id: key_id.into(),
        ..Default::default()
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_key_tells_whose_it_is_and_does_what_its_scopes_say(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let tenant = server.tenant("acme").await;
    let me = who(&tenant.clients).await.unwrap();
    assert_eq!(
        (me.tenant_id.as_str(), me.admin, me.scopes.len()),
        ("acme", false, 7)
    );
    let me = who(&admin).await.unwrap();
    assert_eq!(
        (me.tenant_id.as_str(), me.admin, me.key_id.as_str()),
        ("", true, "admin")
    );
    assert_eq!(me.scopes, ["admin"]);

    let reader = server.with_key(&server.key("acme", &["cache.read"]).await);
    assert_eq!(who(&reader).await.unwrap().scopes, ["cache.read"]);
    reader
        .cache
        .clone()
        .get(GetRequest {
            key: "k".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_refused(
        store(&reader, "k").await,
        Code::PermissionDenied,
        "SCOPE_MISSING",
    );
    let forbidden = reader.tenant.clone().create_tenant(named("mine")).await;
    assert_refused(forbidden, Code::PermissionDenied, "SCOPE_MISSING");

    let confined = CreateApiKeyRequest {
        namespaces: vec!["web".into()],
        key_prefixes: vec!["user:".into()],
        ..new_key(&["cache.read", "cache.write"])
    };
    let confined = admin
        .tenant
        .create_api_key(confined)
        .await
        .unwrap()
        .into_inner();
    let mut clients = server.with_key(&confined.secret);
    let set = |namespace: &str, key: &str| SetRequest {
        namespace: namespace.into(),
        key: key.into(),
        value: "v".into(),
        ..Default::default()
    };
    clients.cache.set(set("web", "user:1")).await.unwrap();
    for (namespace, key) in [("web", "order:1"), ("default", "user:1"), ("", "user:1")] {
        assert_refused(
            clients.cache.set(set(namespace, key)).await,
            Code::PermissionDenied,
            "SCOPE_MISSING",
        );
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn bad_keys_are_refused_with_every_fault(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    server.tenant("acme").await;
    let bad = CreateApiKeyRequest {
        namespaces: vec!["No".into()],
        key_prefixes: vec![String::new()],
        expire_time: Some(prost_types::Timestamp {
            seconds: 1,
            nanos: 0,
        }),
        ..new_key(&["cache.everything"])
    };
    let refused = assert_refused(
        admin.tenant.create_api_key(bad).await,
        Code::InvalidArgument,
        "VALIDATION_FAILED",
    );
    assert_eq!(
        fields(&refused),
        [
            "scopes[0]",
            "namespaces[0]",
            "key_prefixes[0]",
            "expire_time"
        ]
    );
    let none = admin.tenant.create_api_key(new_key(&[])).await;
    assert_eq!(
        fields(&assert_refused(
            none,
            Code::InvalidArgument,
            "VALIDATION_FAILED"
        )),
        ["scopes"]
    );
    let nobody = CreateApiKeyRequest {
        tenant_id: "nobody".into(),
        ..new_key(&["cache.read"])
    };
    assert_refused(
        admin.tenant.create_api_key(nobody).await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );
    let rotated = admin.tenant.rotate_api_key(rotate("", 0)).await;
    let refused = assert_refused(rotated, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_eq!(fields(&refused), ["key_id"]);
    let revoked = admin.tenant.revoke_api_key(revoke("")).await;
    let refused = assert_refused(revoked, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_eq!(fields(&refused), ["key_id"]);
    for key_id in ["nope", &"0".repeat(28)] {
        let rotated = admin.tenant.rotate_api_key(rotate(key_id, 0)).await;
        assert_refused(rotated, Code::NotFound, "API_KEY_NOT_FOUND");
        let revoked = admin.tenant.revoke_api_key(revoke(key_id)).await;
        assert_refused(revoked, Code::NotFound, "API_KEY_NOT_FOUND");
    }
    for seconds in [-1, 30 * 24 * 60 * 60 + 1, i64::MAX] {
        let rotated = admin.tenant.rotate_api_key(rotate("nope", seconds)).await;
        assert_eq!(
            fields(&assert_refused(
                rotated,
                Code::InvalidArgument,
                "VALIDATION_FAILED"
            )),
            ["overlap"]
        );
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_key_is_rotated_with_an_overlap_and_revoked(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let tenant = server.tenant("acme").await;
    let key_id = who(&tenant.clients).await.unwrap().key_id;

    let tried = RotateApiKeyRequest {
        validate_only: true,
        ..rotate(&key_id, 60)
    };
    assert_eq!(
        admin
            .tenant
            .rotate_api_key(tried)
            .await
            .unwrap()
            .into_inner()
            .secret,
        ""
    );
    let request = RotateApiKeyRequest {
        request_id: REQUEST.into(),
        ..rotate(&key_id, 60)
    };
    let second = admin
        .tenant
        .rotate_api_key(request.clone())
        .await
        .unwrap()
        .into_inner();
    let again = admin
        .tenant
        .rotate_api_key(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.secret, second.secret, "a replay rotates no further");
    let second = server.with_key(&second.secret);
    who(&second).await.unwrap();
    who(&tenant.clients).await.unwrap();

    let third = admin
        .tenant
        .rotate_api_key(rotate(&key_id, 0))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(third.api_key.unwrap().key_id, key_id);
    let third = server.with_key(&third.secret);
    who(&third).await.unwrap();
    for old in [&tenant.clients, &second] {
        assert_refused(who(old).await, Code::Unauthenticated, "API_KEY_INVALID");
    }

    let tried = RevokeApiKeyRequest {
        validate_only: true,
        ..revoke(&key_id)
    };
    admin.tenant.revoke_api_key(tried).await.unwrap();
    who(&third).await.unwrap();
    let revoked = admin
        .tenant
        .revoke_api_key(revoke(&key_id))
        .await
        .unwrap()
        .into_inner();
    assert!(revoked.api_key.as_ref().unwrap().revoke_time.is_some());
    assert_eq!(
        admin
            .tenant
            .revoke_api_key(revoke(&key_id))
            .await
            .unwrap()
            .into_inner(),
        revoked
    );
    assert_refused(who(&third).await, Code::Unauthenticated, "API_KEY_INVALID");
    let rotated = admin.tenant.rotate_api_key(rotate(&key_id, 0)).await;
    assert_refused(rotated, Code::FailedPrecondition, "CONDITION_NOT_MET");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn an_expired_key_is_as_unknown_as_any_other(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    server.tenant("acme").await;
    let end = SystemTime::now() + Duration::from_millis(700);
    let since = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let expire_time = prost_types::Timestamp {
        seconds: since.as_secs().try_into().unwrap(),
        nanos: since.subsec_nanos().try_into().unwrap(),
    };
    let short = CreateApiKeyRequest {
        expire_time: Some(expire_time),
        ..new_key(&["cache.read"])
    };
    let short = admin
        .tenant
        .create_api_key(short)
        .await
        .unwrap()
        .into_inner();
    let clients = server.with_key(&short.secret);
    let expired = async {
        loop {
            match who(&clients).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(status) => return status,
            }
        }
    };
    let expired = tokio::time::timeout(Duration::from_secs(20), expired)
        .await
        .unwrap();
    let wrong = who(&server.with_key("rtp_wrong")).await.unwrap_err();
    let said = |status: &Status| (status.code(), status.message().to_owned());
    assert_eq!(said(&expired), said(&wrong));
    assert_refused(
        Err::<(), _>(expired),
        Code::Unauthenticated,
        "API_KEY_INVALID",
    );
    assert_refused(
        who(&server.anonymous()).await,
        Code::Unauthenticated,
        "API_KEY_MISSING",
    );
}

async fn listed(server: &Server, page_size: i32, page_token: &str) -> (Vec<String>, String) {
    let request = ListApiKeysRequest {
        tenant_id: "acme".into(),
        page_size,
        page_token: page_token.into(),
    };
    let page = server
        .admin()
        .tenant
        .list_api_keys(request)
        .await
        .unwrap()
        .into_inner();
    (
        page.api_keys.into_iter().map(|key| key.key_id).collect(),
        page.next_page_token,
    )
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn keys_are_listed_without_secrets(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let tenant = server.tenant("acme").await;
    server.tenant("other").await;
    for _ in 0..4 {
        server.key("acme", &["cache.read"]).await;
    }
    let me = who(&tenant.clients).await.unwrap().key_id;
    let (mut ids, mut token) = listed(&server, 2, "").await;
    while !token.is_empty() {
        let (more, next) = listed(&server, 2, &token).await;
        ids.extend(more);
        token = next;
    }
    assert_eq!(ids.len(), 5);
    assert!(ids.is_sorted() && ids.contains(&me));

    let (_, token) = listed(&server, 2, "").await;
    let foreign = ListApiKeysRequest {
        tenant_id: "other".into(),
        page_token: token,
        ..Default::default()
    };
    let refused = admin.tenant.list_api_keys(foreign).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_PAGE_TOKEN");

    let request = ListApiKeysRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let page = admin
        .tenant
        .list_api_keys(request)
        .await
        .unwrap()
        .into_inner();
    let used = page.api_keys.iter().find(|key| key.key_id == me).unwrap();
    assert!(used.last_used_time.is_some());
    let bare = ListApiKeysRequest::default();
    assert_refused(
        admin.tenant.list_api_keys(bare).await,
        Code::InvalidArgument,
        "VALIDATION_FAILED",
    );
}
