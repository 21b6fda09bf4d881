//! Every RPC against every kind of credential: what is not granted is refused,
//! with the same words whatever is behind it.

use std::time::Duration;

use riptide_persistence::{
    grpc::{METHODS, Method},
    proto::v1::{
        BatchDeleteRequest, BatchGetRequest, BatchSetRequest, CheckQuotaRequest,
        CreateSessionRequest, DeleteRequest, GetCacheStatsRequest, GetOrLeaseRequest, GetRequest,
        GetSessionRequest, GetTenantBillingRequest, GetTenantRequest, GetTenantUsageRequest,
        InvalidateCacheRequest, Keys, ListKeysRequest, ListSessionsRequest, RevokeApiKeyRequest,
        Session, SetEntry, SetRequest, TerminateSessionRequest, TerminateSessionsRequest,
        TouchRequest, TouchSessionRequest, UpdateSessionRequest, WarmCacheRequest,
        WatchInvalidationsRequest, WhoAmIRequest, invalidate_cache_request::Target,
    },
};
use rstest::rstest;
use tonic::{Code, Request, Status};

use crate::server::{Clients, Kind, empty_call, raw_call, reason};

const SCOPES: [&str; 7] = [
    "cache.read",
    "cache.write",
    "cache.invalidate",
    "session.read",
    "session.write",
    "usage.read",
    "tenant.read",
];

/// Asks for cache.read as well, which no option of a method can say.
const TWO_SCOPES: &str = "GetOrLease";

/// Calls with an empty message. A stream that is let through ends with the time it
/// was given.
async fn call(clients: &Clients, method: &Method) -> Result<tonic::Response<()>, Status> {
    let mut request = Request::new(());
    if ["WatchInvalidations", "WatchConfig"].contains(&method.name) {
        request.set_timeout(Duration::from_secs(3));
    }
    raw_call::<()>(clients.keyed.clone(), method.path, request).await
}

fn refusal(answer: Result<tonic::Response<()>, Status>) -> Option<(Code, String)> {
    let status = answer.err()?;
    let refused = matches!(
        status.code(),
        Code::Unauthenticated | Code::PermissionDenied
    );
    refused.then(|| (status.code(), reason(&status)))
}

/// The bytes of its details, whose maps have no order.
fn sorted_details(status: &Status) -> Vec<u8> {
    let mut bytes = status.details().to_vec();
    bytes.sort_unstable();
    bytes
}

fn is(code: Code, reason: &str) -> Option<(Code, String)> {
    Some((code, reason.to_owned()))
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn every_rpc_asks_for_its_permission(#[case] kind: Kind) {
    let server = kind.start().await;
    server.tenant("acme").await;
    let mut by_scope = Vec::new();
    for scope in SCOPES {
        let key = server.key("acme", &[scope]).await;
        by_scope.push((scope, server.with_key(&key)));
    }
    for method in METHODS {
        let path = method.path;
        let none = empty_call(server.anonymous().keyed, path).await;
        assert_eq!(
            refusal(none),
            is(Code::Unauthenticated, "API_KEY_MISSING"),
            "{path}"
        );
        for (scope, clients) in &by_scope {
            let answer = refusal(call(clients, method).await);
            if [*scope, "any"].contains(&method.permission) && method.name != TWO_SCOPES {
                assert_eq!(answer, None, "{path} with {scope}");
            } else {
                let denied = is(Code::PermissionDenied, "SCOPE_MISSING");
                assert_eq!(answer, denied, "{path} with {scope}");
            }
        }
        let admin = call(&server.admin(), method).await;
        assert_eq!(refusal(admin), None, "{path} with the admin key");
    }
    let both = server.key("acme", &["cache.read", "cache.write"]).await;
    let path = METHODS.iter().find(|method| method.name == TWO_SCOPES);
    let path = path.unwrap().path;
    let answer = empty_call(server.with_key(&both).keyed, path).await;
    assert_eq!(refusal(answer), None, "{path} with both scopes");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_wrong_key_is_refused_in_one_way_whatever_is_wrong(#[case] kind: Kind) {
    let server = kind.start().await;
    let tenant = server.tenant("acme").await;
    let other = server.tenant("other").await;
    let revoked = server.key("acme", &["cache.read"]).await;
    let key_id = server
        .with_key(&revoked)
        .tenant
        .who_am_i(WhoAmIRequest {})
        .await;
    let key_id = key_id.unwrap().into_inner().key_id;
    let request = RevokeApiKeyRequest {
        key_id,
        ..Default::default()
    };
    server.admin().tenant.revoke_api_key(request).await.unwrap();
    // A key id of one key with the secret of another.
    let (head, _) = tenant.secret.rsplit_once('_').unwrap();
    let (_, tail) = other.secret.rsplit_once('_').unwrap();
    let swapped = format!("{head}_{tail}");

    let mut words = Vec::new();
    for wrong in ["", "x", "rtp_x_y", "rta_wrong", &revoked, &swapped] {
        for method in METHODS {
            let mut request = Request::new(());
            request
                .metadata_mut()
                .insert("x-request-id", "same".parse().unwrap());
            let answer = raw_call::<()>(server.with_key(wrong).keyed, method.path, request).await;
            let status = answer.unwrap_err();
            assert_eq!(
                status.code(),
                Code::Unauthenticated,
                "{} with {wrong}",
                method.path
            );
            assert_eq!(
                reason(&status),
                "API_KEY_INVALID",
                "{} with {wrong}",
                method.path
            );
            words.push((status.message().to_owned(), sorted_details(&status)));
        }
    }
    words.dedup();
    assert_eq!(words.len(), 1, "{words:?}");
}

/// Every RPC that a tenant key can call on a tenant, naming `tenant_id`.
async fn calls_on(clients: &Clients, tenant_id: &str) -> Vec<(&'static str, Status)> {
    let (mut cache, mut tenant) = (clients.cache.clone(), clients.tenant.clone());
    let mut state = clients.state.clone();
    let tenant_id = || tenant_id.to_owned();
    let key = || "k".to_owned();
    let mut refused = Vec::new();
    macro_rules! call {
        // One of them has no other field than tenant_id.
        ($client:ident.$rpc:ident($request:ident { $($field:ident: $value:expr),* $(,)? })) => {{
            #[allow(clippy::needless_update)]
            let message = $request { tenant_id: tenant_id(), $($field: $value,)* ..Default::default() };
            let mut request = Request::new(message);
            request.metadata_mut().insert("x-request-id", "same".parse().unwrap());
            refused.push((stringify!($rpc), $client.$rpc(request).await.map(drop).unwrap_err()));
        }};
    }
    call!(tenant.get_tenant(GetTenantRequest {}));
    call!(tenant.get_tenant_usage(GetTenantUsageRequest {}));
    call!(tenant.get_tenant_billing(GetTenantBillingRequest {}));
    let metric = || "memory_bytes".to_owned();
    call!(tenant.check_quota(CheckQuotaRequest { metric: metric() }));
    call!(cache.get(GetRequest { key: key() }));
    call!(cache.set(SetRequest { key: key() }));
    call!(cache.delete(DeleteRequest { key: key() }));
    call!(cache.touch(TouchRequest { key: key() }));
    call!(cache.list_keys(ListKeysRequest {}));
    call!(cache.batch_get(BatchGetRequest { keys: vec![key()] }));
    let entries = || {
        vec![SetEntry {
            key: key(),
            ..Default::default()
        }]
    };
    call!(cache.batch_set(BatchSetRequest { entries: entries() }));
    call!(cache.batch_delete(BatchDeleteRequest { keys: vec![key()] }));
    let target = || Some(Target::Keys(Keys { keys: vec![key()] }));
    call!(cache.get_cache_stats(GetCacheStatsRequest {}));
    call!(cache.get_or_lease(GetOrLeaseRequest { key: key() }));
    call!(cache.watch_invalidations(WatchInvalidationsRequest {}));
    let first = WarmCacheRequest {
        tenant_id: tenant_id(),
        keys: vec![key()],
        ..Default::default()
    };
    let mut request = Request::new(futures::stream::iter([first]));
    request
        .metadata_mut()
        .insert("x-request-id", "same".parse().unwrap());
    refused.push(("warm_cache", cache.warm_cache(request).await.unwrap_err()));
    call!(cache.invalidate_cache(InvalidateCacheRequest { target: target() }));
    let session_id = || "0".repeat(52);
    call!(state.create_session(CreateSessionRequest { user_id: key() }));
    call!(state.get_session(GetSessionRequest {
        session_id: session_id()
    }));
    call!(state.touch_session(TouchSessionRequest {
        session_id: session_id()
    }));
    call!(state.terminate_session(TerminateSessionRequest {
        session_id: session_id()
    }));
    call!(state.list_sessions(ListSessionsRequest { user_id: key() }));
    call!(state.terminate_sessions(TerminateSessionsRequest { user_id: key() }));
    let session = Session {
        tenant_id: tenant_id(),
        session_id: session_id(),
        ..Default::default()
    };
    let mut request = Request::new(UpdateSessionRequest {
        session: Some(session),
        ..Default::default()
    });
    request
        .metadata_mut()
        .insert("x-request-id", "same".parse().unwrap());
    let update = state.update_session(request).await;
    refused.push(("update_session", update.unwrap_err()));
    refused
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_key_reaches_no_other_tenant_and_learns_nothing_of_it(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = server.tenant("acme").await;
    server.tenant("other").await;
    let other = calls_on(&acme.clients, "other").await;
    let nobody = calls_on(&acme.clients, "nobody").await;
    let of_tenants = METHODS
        .iter()
        .filter(|method| SCOPES.contains(&method.permission))
        .count();
    assert_eq!(
        other.len(),
        of_tenants,
        "an RPC of tenant keys is not tried here"
    );
    for ((rpc, there), (_, not_there)) in other.iter().zip(&nobody) {
        assert_eq!(there.code(), Code::PermissionDenied, "{rpc}: {there:?}");
        assert_eq!(reason(there), "TENANT_MISMATCH", "{rpc}");
        // Byte for byte the same, whether the other tenant exists or not.
        assert_eq!(there.message(), not_there.message(), "{rpc}");
        assert_eq!(sorted_details(there), sorted_details(not_there), "{rpc}");
    }
}
