//! A Redis that stands still under every RPC that needs it: each ends by its
//! deadline, and goes through once Redis goes on. It does not know what the
//! answers hold.

use std::time::Duration;

use futures::{
    FutureExt,
    future::{BoxFuture, join, join_all},
};
use riptide_persistence::{
    grpc::{Idempotency, METHODS, Method},
    proto::v1::{
        BatchDeleteRequest, BatchGetRequest, BatchSetRequest, CheckQuotaRequest,
        CreateApiKeyRequest, CreateCheckpointRequest, CreateSessionRequest, CreateTenantRequest,
        DeleteRequest, DeleteTenantRequest, GetCacheStatsRequest, GetOrLeaseRequest, GetRequest,
        GetSessionRequest, GetTenantBillingRequest, GetTenantRequest, GetTenantUsageRequest,
        InvalidateCacheRequest, Keys, ListApiKeysRequest, ListAuditEventsRequest, ListKeysRequest,
        ListSessionsRequest, ListStatementsRequest, ListTenantsRequest, PurgeTenantRequest,
        RecordUsageRequest, RestoreCheckpointRequest, ResumeTenantRequest, RevokeApiKeyRequest,
        RewrapCheckpointKeysRequest, RewrapDataKeysRequest, RotateApiKeyRequest,
        RotateDataKeyRequest, Session, SetEntry, SetRequest, SuspendTenantRequest, SuspensionMode,
        Tenant, TerminateSessionRequest, TerminateSessionsRequest, TouchRequest,
        TouchSessionRequest, UndeleteTenantRequest, UpdateSessionRequest, UpdateTenantRequest,
        WarmCacheRequest, WatchInvalidationsRequest, WhoAmIRequest,
        invalidate_cache_request::Target,
    },
};
use tonic::{Code, Response, Status, Streaming};

use crate::{
    rpc::{encryption::master, restore::checkpoint},
    server::{Clients, Kind, Server, reason},
};

/// What no call takes: beyond it, it hangs.
const HANG: Duration = Duration::from_secs(30);

/// What is answered from memory, or from the object store of checkpoints.
const WITHOUT_STORE: [&str; 10] = [
    "GetConfig",
    "GetServerInfo",
    "ReloadConfig",
    "WatchConfig",
    "DeleteCheckpoint",
    "DownloadCheckpoint",
    "GetCheckpoint",
    "ListCheckpoints",
    "UploadCheckpoint",
    "VerifyCheckpoint",
];

/// What cannot be made again once it has happened, and is tried by itself.
const ONCE: [&str; 4] = [
    "CreateCheckpoint",
    "RestoreCheckpoint",
    "RewrapCheckpointKeys",
    "TerminateSession",
];

/// A well-formed call on a tenant of its own, to be made any number of times.
struct Call {
    method: &'static Method,
    tenant_id: &'static str,
    tenant: Clients,
    /// The last version of the tenant's entries, and how far one write moves it.
    version: i64,
    step: i64,
    make: Box<dyn Fn() -> BoxFuture<'static, Result<(), Status>>>,
}

impl Call {
    /// How it ends on a store that stands still.
    async fn refused(&self) -> Status {
        loop {
            match (self.make)().await {
                Err(status) => return status,
                // What the replica has just learned, it may tell from memory.
                Ok(()) => assert_eq!(
                    self.method.idempotency,
                    Idempotency::NoSideEffects,
                    "{} was acknowledged",
                    self.method.name
                ),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn key() -> String {
    "k".into()
}

async fn write(clients: &Clients) -> i64 {
    let request = SetRequest {
        key: key(),
        value: "before".into(),
        ..Default::default()
    };
    let answer = clients.cache.clone().set(request).await;
    answer.unwrap().into_inner().version
}

/// Every RPC that needs the store, with what it is about in place.
async fn calls(server: &Server) -> Vec<Call> {
    let mut calls = Vec::new();
    let admin = server.admin();
    macro_rules! call {
        (@ $service:ident $rpc:ident $tenant_id:ident $tenant:ident $caller:ident $key_id:ident $request:expr) => {{
            let name = stringify!($rpc).replace('_', "");
            let method = METHODS.iter().find(|method| method.name.to_lowercase() == name);
            let first = write(&$tenant).await;
            let version = write(&$tenant).await;
            let (client, request) = ($caller.$service.clone(), $request);
            calls.push(Call {
                method: method.unwrap(),
                tenant_id: $tenant_id,
                tenant: $tenant,
                version,
                step: version - first,
                make: Box::new(move || {
                    let (mut client, request) = (client.clone(), request.clone());
                    async move { client.$rpc(request).await.map(drop) }.boxed()
                }),
            });
        }};
        // By the tenant's own key.
        (cache.$rpc:ident($request:ident { $($field:ident: $value:expr),* })) => {{
            let tenant_id = concat!("of-", stringify!($rpc)).replace('_', "-").leak();
            let tenant_id: &'static str = tenant_id;
            let tenant = server.tenant(tenant_id).await.clients;
            let caller = tenant.clone();
            call!(@ cache $rpc tenant_id tenant caller key_id
                $request { $($field: $value,)* ..Default::default() });
        }};
        (state.$rpc:ident(|$session_id:ident| $request:expr)) => {{
            let tenant_id = concat!("of-", stringify!($rpc)).replace('_', "-").leak();
            let tenant_id: &'static str = tenant_id;
            let tenant = server.tenant(tenant_id).await.clients;
            #[allow(unused_variables)]
            let $session_id = session(&tenant).await;
            let caller = tenant.clone();
            call!(@ state $rpc tenant_id tenant caller key_id $request);
        }};
        // By the admin.
        (admin.$rpc:ident(|$id:ident, $key_id:ident| $request:expr)) => {{
            let $id: &'static str = concat!("of-", stringify!($rpc)).replace('_', "-").leak();
            let tenant = server.tenant($id).await.clients;
            let who = tenant.tenant.clone().who_am_i(WhoAmIRequest {}).await;
            #[allow(unused_variables)]
            let $key_id = who.unwrap().into_inner().key_id;
            call!(@ tenant $rpc $id tenant admin $key_id $request);
        }};
    }
    let request_id = || uuid::Uuid::now_v7().to_string();
    let entry = SetEntry {
        key: key(),
        value: "frozen".into(),
        ..Default::default()
    };
    let target = Target::Keys(Keys { keys: vec![key()] });
    call!(cache.get(GetRequest { key: key() }));
    call!(cache.set(SetRequest {
        key: key(),
        value: "frozen".into()
    }));
    call!(cache.delete(DeleteRequest { key: key() }));
    call!(cache.touch(TouchRequest { key: key() }));
    call!(cache.list_keys(ListKeysRequest { page_size: 10 }));
    call!(cache.batch_get(BatchGetRequest { keys: vec![key()] }));
    call!(cache.batch_set(BatchSetRequest {
        entries: vec![entry.clone()]
    }));
    call!(cache.batch_delete(BatchDeleteRequest { keys: vec![key()] }));
    call!(cache.invalidate_cache(InvalidateCacheRequest {
        target: Some(target.clone())
    }));
    call!(cache.get_cache_stats(GetCacheStatsRequest {}));
    // Of a key that is not there: one that is may be answered from memory.
    call!(cache.get_or_lease(GetOrLeaseRequest {
        key: "missing".into()
    }));
    call!(cache.watch_invalidations(WatchInvalidationsRequest {}));
    {
        let tenant_id = "of-warm-cache";
        let tenant = server.tenant(tenant_id).await.clients;
        let caller = tenant.clone();
        let first = WarmCacheRequest {
            entries: vec![entry.clone()],
            ..Default::default()
        };
        call!(@ cache warm_cache tenant_id tenant caller key_id futures::stream::iter([first]));
    }

    call!(state.create_session(|_id| CreateSessionRequest {
        user_id: "u".into(),
        request_id: request_id(),
        ..Default::default()
    }));
    call!(state.get_session(|id| GetSessionRequest {
        session_id: id.clone(),
        ..Default::default()
    }));
    call!(state.update_session(|id| UpdateSessionRequest {
        session: Some(Session {
            session_id: id.clone(),
            attributes: [("device".to_owned(), "phone".to_owned())].into(),
            ..Default::default()
        }),
        ..Default::default()
    }));
    call!(state.touch_session(|id| TouchSessionRequest {
        session_id: id.clone(),
        ..Default::default()
    }));
    call!(state.list_sessions(|_id| ListSessionsRequest {
        user_id: "u".into(),
        ..Default::default()
    }));
    call!(state.terminate_sessions(|_id| TerminateSessionsRequest {
        user_id: "u".into(),
        ..Default::default()
    }));

    call!(admin.get_tenant(|id, _key| GetTenantRequest {
        tenant_id: id.into()
    }));
    call!(admin.list_tenants(|_id, _key| ListTenantsRequest::default()));
    call!(admin.create_tenant(|_id, _key| CreateTenantRequest {
        tenant_id: "created".into(),
        request_id: request_id(),
        ..Default::default()
    }));
    call!(admin.update_tenant(|id, _key| UpdateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: id.into(),
            display_name: "frozen".into(),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["display_name".into()]
        }),
        request_id: request_id(),
        ..Default::default()
    }));
    call!(admin.suspend_tenant(|id, _key| SuspendTenantRequest {
        tenant_id: id.into(),
        mode: SuspensionMode::ReadOnly.into(),
        ..Default::default()
    }));
    call!(admin.resume_tenant(|id, _key| ResumeTenantRequest {
        tenant_id: id.into(),
        ..Default::default()
    }));
    call!(admin.delete_tenant(|id, _key| DeleteTenantRequest {
        tenant_id: id.into(),
        request_id: request_id(),
        ..Default::default()
    }));
    call!(admin.undelete_tenant(|id, _key| UndeleteTenantRequest {
        tenant_id: id.into(),
        request_id: request_id(),
        ..Default::default()
    }));
    call!(admin.purge_tenant(|id, _key| PurgeTenantRequest {
        tenant_id: id.into(),
        ..Default::default()
    }));
    call!(admin.check_quota(|id, _key| CheckQuotaRequest {
        tenant_id: id.into(),
        metric: "cache_entries".into(),
        ..Default::default()
    }));
    call!(admin.get_tenant_usage(|id, _key| GetTenantUsageRequest {
        tenant_id: id.into(),
        ..Default::default()
    }));
    call!(
        admin.get_tenant_billing(|id, _key| GetTenantBillingRequest {
            tenant_id: id.into(),
            ..Default::default()
        })
    );
    call!(admin.list_audit_events(|id, _key| ListAuditEventsRequest {
        tenant_id: id.into(),
        ..Default::default()
    }));
    call!(admin.list_statements(|_id, _key| ListStatementsRequest {
        period: "2026-01".into(),
        ..Default::default()
    }));
    call!(admin.record_usage(|id, _key| RecordUsageRequest {
        tenant_id: id.into(),
        event_id: "frozen".into(),
        operations: 1,
        ..Default::default()
    }));
    call!(admin.create_api_key(|id, _key| CreateApiKeyRequest {
        tenant_id: id.into(),
        scopes: vec!["cache.read".into()],
        request_id: request_id(),
        ..Default::default()
    }));
    call!(admin.list_api_keys(|id, _key| ListApiKeysRequest {
        tenant_id: id.into(),
        ..Default::default()
    }));
    call!(admin.rotate_api_key(|_id, key_id| RotateApiKeyRequest {
        key_id: key_id.clone(),
        request_id: request_id(),
        ..Default::default()
    }));
    call!(admin.rotate_data_key(|id, _key| RotateDataKeyRequest {
        tenant_id: id.into(),
        request_id: request_id(),
        ..Default::default()
    }));
    call!(admin.rewrap_data_keys(|_id, _key| RewrapDataKeysRequest::default()));
    call!(admin.revoke_api_key(|_id, key_id| RevokeApiKeyRequest {
        key_id: key_id.clone(),
        ..Default::default()
    }));
    {
        let tenant_id = "of-who-am-i";
        let tenant = server.tenant(tenant_id).await.clients;
        let caller = tenant.clone();
        call!(@ tenant who_am_i tenant_id tenant caller key_id WhoAmIRequest {});
    }
    // What they need besides a tenant.
    for tenant_id in ["of-undelete-tenant", "of-purge-tenant"] {
        let request = DeleteTenantRequest {
            tenant_id: tenant_id.into(),
            ..Default::default()
        };
        admin.tenant.clone().delete_tenant(request).await.unwrap();
    }
    calls
}

async fn session(clients: &Clients) -> String {
    let request = CreateSessionRequest {
        user_id: "u".into(),
        ..Default::default()
    };
    let answer = clients.state.clone().create_session(request).await;
    answer.unwrap().into_inner().session.unwrap().session_id
}

/// How a call ends that answers with a stream, or in it.
async fn refused<T>(answer: Result<Response<Streaming<T>>, Status>) -> Status {
    let mut events = match answer {
        Ok(events) => events.into_inner(),
        Err(status) => return status,
    };
    loop {
        match events.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it went through"),
            Err(status) => return status,
        }
    }
}

/// Whether this is an answer of a service whose store stands still.
fn sound(idempotency: Idempotency, status: &Status) -> bool {
    let reason = reason(status);
    match status.code() {
        Code::Unavailable => reason == "STORE_UNAVAILABLE",
        Code::DeadlineExceeded => {
            reason == "DEADLINE_EXCEEDED"
                || reason == "OUTCOME_UNKNOWN" && idempotency != Idempotency::NoSideEffects
        }
        _ => false,
    }
}

async fn api_keys(server: &Server, tenant_id: &str) -> usize {
    let request = ListApiKeysRequest {
        tenant_id: tenant_id.into(),
        ..Default::default()
    };
    let answer = server.admin().tenant.list_api_keys(request).await;
    answer.unwrap().into_inner().api_keys.len()
}

#[tokio::test]
async fn every_rpc_ends_by_its_deadline_and_writes_once() {
    let mut server = Kind::Redis
        .start_with(|config| {
            config.server.max_deadline = Duration::from_secs(2);
            // All tenants are, so that whatever is about data keys has some.
            config.encryption.enabled = true;
            config.encryption.master_keys = Some(master("one").into());
        })
        .await;
    let calls = calls(&server).await;
    let mut made: Vec<_> = calls.iter().map(|call| call.method.name).collect();
    made.extend(WITHOUT_STORE);
    made.extend(ONCE);
    made.sort_unstable();
    let mut all: Vec<_> = METHODS.iter().map(|method| method.name).collect();
    all.sort_unstable();
    assert_eq!(made, all, "an RPC is not tried here");

    let of_session = server.tenant("of-terminate-session").await.clients;
    let session_id = session(&of_session).await;
    let checkpoint_id = checkpoint(&server.admin(), &[]).await;

    server.redis().unwrap().freeze();
    let ended = tokio::time::timeout(HANG, join_all(calls.iter().map(Call::refused)));
    let ended = ended.await.expect("a call hangs on a frozen store");
    for (call, status) in calls.iter().zip(ended) {
        let sound = sound(call.method.idempotency, &status);
        assert!(sound, "{}: {status:?}", call.method.name);
    }
    let mut of_session = of_session.state.clone();
    let terminated = of_session.terminate_session(TerminateSessionRequest {
        session_id,
        ..Default::default()
    });
    let taken = server.admin().state;
    let taken = async move {
        refused(
            taken
                .clone()
                .create_checkpoint(CreateCheckpointRequest::default())
                .await,
        )
        .await
    };
    let restored = server.admin().state;
    let request = RestoreCheckpointRequest {
        checkpoint_id,
        ..Default::default()
    };
    let restored = async move { refused(restored.clone().restore_checkpoint(request).await).await };
    let mut rewrapping = server.admin().state;
    let rewrapped = rewrapping.rewrap_checkpoint_keys(RewrapCheckpointKeysRequest::default());
    let others = join(taken, join(restored, rewrapped));
    let ended = tokio::time::timeout(HANG, join(terminated, others)).await;
    let (terminated, (taken, (restored, rewrapped))) =
        ended.expect("a call hangs on a frozen store");
    for status in [
        terminated.expect_err("it was acknowledged"),
        taken,
        restored,
        rewrapped.expect_err("it was acknowledged"),
    ] {
        assert!(
            sound(Idempotency::IdempotencyUnknown, &status),
            "{status:?}"
        );
    }

    // What had been sent is done now, if at all.
    server.serves(false).await;
    server.redis().unwrap().thaw();
    server.serves(true).await;
    for call in &calls {
        if let Err(status) = (call.make)().await {
            panic!("{} after the thaw: {status:?}", call.method.name);
        }
    }
    for call in calls
        .iter()
        .filter(|call| call.method.service == "CacheService")
    {
        let reads = call.method.idempotency == Idempotency::NoSideEffects;
        // A watch has the tenant's writes noted, which is a write of the service's own.
        let writes = if reads && call.method.name != "WatchInvalidations" {
            0
        } else {
            2
        };
        let moved = write(&call.tenant).await - call.version;
        assert!(
            moved <= (writes + 1) * call.step,
            "{} of {} moved the version by {moved}, one write by {}",
            call.method.name,
            call.tenant_id,
            call.step
        );
    }
    for (tenant_id, keys) in [("created", 1), ("of-create-api-key", 2)] {
        assert_eq!(api_keys(&server, tenant_id).await, keys, "{tenant_id}");
    }
}
