//! ListAuditEvents: what is told of calls, by whom they were made, and for how long it
//! is kept. It does not know how events are chained; tests of the command line do.

mod faults;
mod listing;
mod state;

use std::time::Duration;

use riptide_persistence::{
    grpc::{METHODS, Method},
    proto::v1::{
        AuditEvent, GetRequest, GetTenantRequest, InvalidateCacheRequest, ListAuditEventsRequest,
        ListAuditEventsResponse, RevokeApiKeyRequest, SetRequest, WhoAmIRequest,
        invalidate_cache_request::Target,
    },
    tenant::api_key,
};
use rstest::rstest;
use tonic::{Request, Status};

use crate::server::{Clients, Kind, Server, raw_call};

/// A page of events.
async fn page(
    admin: &Clients,
    request: ListAuditEventsRequest,
) -> Result<ListAuditEventsResponse, Status> {
    let answer = admin.tenant.clone().list_audit_events(request).await;
    answer.map(tonic::Response::into_inner)
}

/// All events about a tenant, or of all.
async fn events_by(admin: &Clients, tenant_id: &str) -> Vec<AuditEvent> {
    let mut request = ListAuditEventsRequest {
        tenant_id: tenant_id.into(),
        page_size: 100,
        ..Default::default()
    };
    let mut events = Vec::new();
    loop {
        let page = page(admin, request.clone()).await.unwrap();
        events.extend(page.events);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return events;
        }
    }
}

async fn events(server: &Server, tenant_id: &str) -> Vec<AuditEvent> {
    events_by(&server.admin(), tenant_id).await
}

/// Waits until the events of all tenants are so.
async fn until(server: &Server, holds: impl Fn(&[AuditEvent]) -> bool) -> Vec<AuditEvent> {
    let found = async {
        loop {
            let events = events(server, "").await;
            if holds(&events) {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    found.expect("the events come before long")
}

/// A request that bears this id.
fn named<T>(request_id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let id = request_id.parse().unwrap();
    request.metadata_mut().insert("x-request-id", id);
    request
}

/// What an event of this id says: actor, RPC, tenant, outcome; there is one.
#[track_caller]
fn told<'a>(events: &'a [AuditEvent], request_id: &str) -> [&'a str; 4] {
    let found: Vec<_> = events
        .iter()
        .filter(|event| event.request_id == request_id)
        .collect();
    let [event] = found[..] else {
        panic!("{request_id}: {found:#?}");
    };
    assert_eq!((event.count, &*event.peer), (1, "127.0.0.1"), "{event:?}");
    [&event.actor, &event.rpc, &event.tenant_id, &event.outcome]
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn each_call_of_an_audited_rpc_leaves_one_event(#[case] kind: Kind) {
    let server = kind.start().await;
    let admin = server.admin();
    let audited: Vec<_> = METHODS.iter().filter(|method| method.audited).collect();
    assert!(audited.len() > 15, "{} RPCs are audited", audited.len());
    for method in METHODS {
        // Whatever it comes to, with nothing asked for.
        let mut request = named(method.name, ());
        request.set_timeout(Duration::from_secs(20));
        if !["WatchInvalidations", "WatchConfig"].contains(&method.name) {
            let _ = raw_call::<()>(admin.keyed.clone(), method.path, request).await;
        }
    }
    let has = |name: &'static str| move |event: &AuditEvent| event.request_id == name;
    let ended = |name: &'static str| {
        move |event: &AuditEvent| event.request_id == name && event.outcome != "STARTED"
    };
    let events = until(&server, |events| {
        audited
            .iter()
            .all(|method| events.iter().any(ended(method.name)))
    })
    .await;
    let (streams, single): (Vec<&Method>, Vec<&Method>) = audited
        .iter()
        .copied()
        .partition(|method| method.streams.answers());
    for method in single {
        let [actor, rpc, _, outcome] = told(&events, method.name);
        assert_eq!((actor, rpc), ("admin", method.name));
        assert!(!outcome.is_empty());
    }
    // A stream is told when it begins, and when it ends.
    for method in streams {
        let of: Vec<_> = events
            .iter()
            .filter(|event| has(method.name)(event))
            .collect();
        assert!((1..=2).contains(&of.len()), "{of:?}");
        assert_eq!(of.len() == 2, of[0].outcome == "STARTED", "{of:?}");
    }
    // What only reads is not told of.
    for method in METHODS.iter().filter(|method| {
        method.idempotency == riptide_persistence::grpc::Idempotency::NoSideEffects
            && !method.audited
    }) {
        assert!(!events.iter().any(has(method.name)), "{}", method.name);
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_change_is_answered_when_its_event_is_kept(#[case] kind: Kind) {
    let server = kind.start().await;
    let admin = server.admin();
    for n in 0..5 {
        let id = format!("new-{n}");
        let request = riptide_persistence::proto::v1::CreateTenantRequest {
            tenant_id: format!("tenant-{n}"),
            ..Default::default()
        };
        let mut tenants = admin.tenant.clone();
        tenants.create_tenant(named(&id, request)).await.unwrap();
        let events = events(&server, &format!("tenant-{n}")).await;
        assert_eq!(
            told(&events, &id),
            ["admin", "CreateTenant", &format!("tenant-{n}"), "OK"]
        );
    }
    // What an admin does to a tenant's data is told as well, and not its content.
    let set = SetRequest {
        tenant_id: "tenant-0".into(),
        key: "a-users-key".into(),
        value: "a-value".into(),
        ..Default::default()
    };
    admin.cache.clone().set(named("set", set)).await.unwrap();
    let flush = InvalidateCacheRequest {
        target: Some(Target::Prefix("a-users".into())),
        ..Default::default()
    };
    let own = server.key("tenant-0", &["cache.invalidate"]).await;
    let mut own_clients = server.with_key(&own);
    let flush = own_clients.cache.invalidate_cache(named("flush", flush));
    flush.await.unwrap();
    let events = until(&server, |events| {
        ["set", "flush"]
            .iter()
            .all(|id| events.iter().any(|event| event.request_id == *id))
    })
    .await;
    assert_eq!(told(&events, "set"), ["admin", "Set", "tenant-0", "OK"]);
    let [actor, ..] = told(&events, "flush");
    assert!(own.contains(actor) && !actor.is_empty());
    assert_eq!(
        told(&events, "flush")[1..],
        ["InvalidateCache", "tenant-0", "OK"]
    );
    let all = format!("{events:?}");
    for secret in ["a-users", "a-value", &own, crate::server::ADMIN_KEY] {
        assert!(!all.contains(secret), "{secret} is in the audit log");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn denied_calls_are_told_with_what_is_known_of_the_caller(#[case] kind: Kind) {
    let server = kind.start().await;
    server.tenant("acme").await;
    server.tenant("other").await;
    let key = server.key("acme", &["tenant.read", "cache.read"]).await;
    let key_id = api_key::parse(&key).unwrap().key_id.to_owned();
    let revoked = server.key("other", &["cache.read"]).await;
    let revoked_id = api_key::parse(&revoked).unwrap().key_id.to_owned();
    let request = RevokeApiKeyRequest {
        key_id: revoked_id.clone(),
        ..Default::default()
    };
    server.admin().tenant.revoke_api_key(request).await.unwrap();

    let get = |id| {
        let request = GetRequest {
            key: "k".into(),
            ..Default::default()
        };
        named(id, request)
    };
    let mut nobody = server.anonymous();
    nobody.cache.get(get("missing")).await.unwrap_err();
    let mut wrong = server.with_key("rta_no-key-at-all");
    wrong.cache.get(get("wrong")).await.unwrap_err();
    let mut gone = server.with_key(&revoked);
    gone.cache.get(get("revoked")).await.unwrap_err();
    let mut reader = server.with_key(&key);
    let set = SetRequest {
        key: "k".into(),
        ..Default::default()
    };
    let set = named("scope", set);
    reader.cache.set(set).await.unwrap_err();
    let other = GetTenantRequest {
        tenant_id: "other".into(),
    };
    let other = named("other", other);
    reader.tenant.get_tenant(other).await.unwrap_err();
    let admin_rpc = named("admin", ListAuditEventsRequest::default());
    reader
        .tenant
        .list_audit_events(admin_rpc)
        .await
        .unwrap_err();
    // What is allowed and reads is not told.
    reader.cache.get(get("allowed")).await.unwrap();
    let who = reader.tenant.who_am_i(named("who", WhoAmIRequest {})).await;
    who.unwrap();

    let ids = ["missing", "wrong", "revoked", "scope", "other", "admin"];
    let events = until(&server, |events| {
        ids.iter()
            .all(|id| events.iter().any(|event| event.request_id == *id))
    })
    .await;
    for (id, expected) in ids.into_iter().zip([
        ["", "Get", "", "API_KEY_MISSING"],
        ["", "Get", "", "API_KEY_INVALID"],
        [&revoked_id, "Get", "", "API_KEY_INVALID"],
        [&key_id, "Set", "acme", "SCOPE_MISSING"],
        [&key_id, "GetTenant", "acme", "TENANT_MISMATCH"],
        [&key_id, "ListAuditEvents", "acme", "SCOPE_MISSING"],
    ]) {
        assert_eq!(told(&events, id), expected);
    }
    for id in ["allowed", "who"] {
        assert!(!events.iter().any(|event| event.request_id == id), "{id}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_flood_is_few_events_that_count_all_of_it(#[case] kind: Kind) {
    const CALLS: i64 = 300;
    let server = kind.start().await;
    for _ in 0..CALLS {
        let mut nobody = server.anonymous();
        nobody.tenant.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    }
    let of = |event: &&AuditEvent| event.rpc == "WhoAmI";
    let counted = |events: &[AuditEvent]| -> i64 {
        let of_flood = events.iter().filter(of);
        of_flood.map(|event| event.count).sum()
    };
    let events = until(&server, |events| counted(events) == CALLS).await;
    let few = events.iter().filter(of).count();
    assert!(few < 30, "{few} events");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn events_outlive_the_tenant(#[case] kind: Kind) {
    let server = kind.start().await;
    server.tenant("acme").await;
    server.purge("acme").await;
    let events = events(&server, "acme").await;
    let rpcs: Vec<_> = events.iter().map(|event| &*event.rpc).collect();
    assert_eq!(rpcs, ["CreateTenant", "DeleteTenant", "PurgeTenant"]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn events_end_when_their_time_is_over(#[case] kind: Kind) {
    let server = kind
        .start_with(|config| config.audit.keep = Duration::from_millis(700))
        .await;
    server.tenant("acme").await;
    until(&server, <[_]>::is_empty).await;
    assert!(events(&server, "acme").await.is_empty());
    let first = page(&server.admin(), ListAuditEventsRequest::default()).await;
    assert_eq!(first.unwrap().chains, []);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn nothing_is_kept_where_that_is_switched_off(#[case] kind: Kind) {
    let server = kind.start_with(|config| config.audit.enabled = false).await;
    server.tenant("acme").await;
    let mut nobody = server.anonymous();
    nobody.tenant.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert!(events(&server, "").await.is_empty());
}
