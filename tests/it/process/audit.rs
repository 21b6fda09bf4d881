//! The audit log: what matters is told once, answered or refused, and no secret
//! with it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock},
};

use riptide_persistence::{
    grpc::METHODS,
    proto::v1::{CreateTenantRequest, GetTenantRequest, InvalidateCacheRequest},
    tenant::audit::TARGET,
};
use rstest::rstest;
use tonic::Request;
use tracing::{Event, Subscriber, field::Visit};
use tracing_subscriber::{
    Layer, filter::Targets, layer::Context, prelude::*, registry::LookupSpan,
};

use crate::server::Kind;

type Fields = BTreeMap<String, String>;

static TOLD: Mutex<Vec<Fields>> = Mutex::new(Vec::new());

/// Keeps the audit events of all servers of the test process.
struct Keep;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Read::default();
        event.record(&mut fields);
        TOLD.lock().unwrap().push(fields.0);
    }
}

#[derive(Default)]
struct Read(Fields);

impl Visit for Read {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
}

/// Begins to keep what is told.
pub fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let only = Targets::new().with_target(TARGET, tracing::Level::INFO);
        tracing_subscriber::registry()
            .with(Keep.with_filter(only))
            .init();
    });
}

/// Why entries of this tenant were not opened, as often as it was told.
pub fn unopened(tenant_id: &str) -> Vec<String> {
    let told = TOLD.lock().unwrap();
    let of = told
        .iter()
        .filter(|event| event["tenant_id"] == tenant_id && event["outcome"] == "ENTRY_CORRUPT");
    of.map(|event| event["why"].clone()).collect()
}

/// What was told of the call with this id: actor, rpc, tenant and outcome.
pub fn told(request_id: &str) -> Vec<[String; 4]> {
    let told = TOLD.lock().unwrap();
    let of = told
        .iter()
        .filter(|event| event["request_id"] == request_id);
    of.map(|event| ["actor", "rpc", "tenant_id", "outcome"].map(|name| event[name].clone()))
        .collect()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_matters_is_told_with_its_outcome(#[case] kind: Kind) {
    listen();
    let server = kind.start().await;
    let id = |case: &str| format!("audit-{kind:?}-{case}");
    fn call<T>(id: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("x-request-id", id.parse().unwrap());
        request
    }
    let new = || CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };

    let mut admin = server.admin();
    let created = admin
        .tenant
        .create_tenant(call(&id("new"), new()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(told(&id("new")), [["admin", "CreateTenant", "acme", "OK"]]);
    admin
        .tenant
        .create_tenant(call(&id("again"), new()))
        .await
        .unwrap_err();
    assert_eq!(
        told(&id("again")),
        [["admin", "CreateTenant", "acme", "TENANT_EXISTS"]]
    );
    // A generated name is told too.
    let unnamed = call(&id("unnamed"), CreateTenantRequest::default());
    let unnamed = admin
        .tenant
        .create_tenant(unnamed)
        .await
        .unwrap()
        .into_inner();
    let name = unnamed.tenant.unwrap().tenant_id;
    assert_eq!(
        told(&id("unnamed")),
        [["admin", "CreateTenant", &name, "OK"]]
    );

    let key = server.key("acme", &["cache.read"]).await;
    let mut reader = server.with_key(&key);
    let flush = call(&id("flush"), InvalidateCacheRequest::default());
    reader.cache.invalidate_cache(flush).await.unwrap_err();
    let told_of = told(&id("flush"));
    assert_eq!(told_of.len(), 1);
    assert_eq!(
        told_of[0][1..],
        ["InvalidateCache", "acme", "SCOPE_MISSING"]
    );
    assert!(
        key.contains(&told_of[0][0]) && !told_of[0][0].is_empty(),
        "{told_of:?}"
    );

    let nobody = call(&id("nobody"), new());
    server
        .anonymous()
        .tenant
        .create_tenant(nobody)
        .await
        .unwrap_err();
    assert_eq!(
        told(&id("nobody")),
        [["", "CreateTenant", "", "API_KEY_MISSING"]]
    );

    let read = call(
        &id("read"),
        GetTenantRequest {
            tenant_id: "acme".into(),
        },
    );
    admin.tenant.get_tenant(read).await.unwrap();
    assert!(told(&id("read")).is_empty());

    let all = format!("{:?}", TOLD.lock().unwrap());
    for secret in [&created.secret, &key, crate::server::ADMIN_KEY] {
        assert!(!all.contains(secret), "a secret is in the audit log");
    }
}

#[test]
fn whatever_changes_a_tenant_is_audited() {
    for method in METHODS.iter().filter(|method| method.permission == "admin") {
        let reads = ["Get", "List", "Watch", "Verify"]
            .iter()
            .any(|verb| method.name.starts_with(verb));
        assert_eq!(method.audited, !reads, "{}", method.path);
    }
}
