//! How often each RPC calls the store: the round trips are the cost of the
//! service, so they are counted and not guessed.

use riptide_persistence::{
    proto::v1::{
        BatchDeleteRequest, BatchGetRequest, BatchSetRequest, CreateTenantRequest, DeleteRequest,
        GetRequest, GetTenantRequest, ListKeysRequest, ListTenantsRequest, SetEntry, SetRequest,
        TouchRequest,
    },
    store::Calls,
};
use rstest::rstest;

use crate::server::{Kind, Server};

const READ: Calls = Calls { read: 1, ..NONE };
const COMMIT: Calls = Calls { commit: 1, ..NONE };
const LIST: Calls = Calls { list: 1, ..NONE };
const NONE: Calls = Calls {
    read: 0,
    commit: 0,
    list: 0,
    usage: 0,
    audit: 0,
    reclaim: 0,
    changes: 0,
    ping: 0,
    close: 0,
};

/// What a call costs beyond the checks that go on all the time.
async fn cost<T, E: std::fmt::Debug>(
    server: &Server,
    call: impl Future<Output = Result<T, E>>,
) -> Calls {
    let before = server.calls();
    call.await.unwrap();
    Calls {
        ping: 0,
        ..server.calls().since(before)
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn an_rpc_costs_what_the_budget_allows(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let mut tenant = server.tenant("acme").await.clients;
    let key = || "k".to_owned();
    let set = || SetRequest {
        key: key(),
        value: "v".into(),
        ..Default::default()
    };
    let get = || GetRequest {
        key: key(),
        ..Default::default()
    };
    // What the first call of a tenant looks up is remembered by all others.
    tenant.cache.set(set()).await.unwrap();
    tenant.cache.get(get()).await.unwrap();

    assert_eq!(cost(&server, tenant.cache.get(get())).await, READ, "Get");
    let miss = GetRequest {
        key: "missing".into(),
        ..Default::default()
    };
    assert_eq!(
        cost(&server, tenant.cache.get(miss)).await,
        READ,
        "Get of a miss"
    );
    assert_eq!(cost(&server, tenant.cache.set(set())).await, COMMIT, "Set");
    let touch = TouchRequest {
        key: key(),
        ..Default::default()
    };
    assert_eq!(
        cost(&server, tenant.cache.touch(touch)).await,
        COMMIT,
        "Touch"
    );
    let delete = DeleteRequest {
        key: key(),
        ..Default::default()
    };
    assert_eq!(
        cost(&server, tenant.cache.delete(delete)).await,
        COMMIT,
        "Delete"
    );

    let keys: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
    let entries = keys.iter().map(|key| SetEntry {
        key: key.clone(),
        ..Default::default()
    });
    let batch = BatchSetRequest {
        entries: entries.collect(),
        ..Default::default()
    };
    assert_eq!(
        cost(&server, tenant.cache.batch_set(batch)).await,
        COMMIT,
        "BatchSet"
    );
    let batch = BatchGetRequest {
        keys: keys.clone(),
        ..Default::default()
    };
    assert_eq!(
        cost(&server, tenant.cache.batch_get(batch)).await,
        READ,
        "BatchGet"
    );
    let batch = BatchDeleteRequest {
        keys,
        ..Default::default()
    };
    assert_eq!(
        cost(&server, tenant.cache.batch_delete(batch)).await,
        COMMIT,
        "BatchDelete"
    );
    let list = ListKeysRequest::default();
    assert_eq!(
        cost(&server, tenant.cache.list_keys(list)).await,
        LIST,
        "ListKeys"
    );

    let create = CreateTenantRequest {
        tenant_id: "second".into(),
        ..Default::default()
    };
    assert_eq!(
        cost(&server, admin.tenant.create_tenant(create)).await,
        COMMIT,
        "CreateTenant"
    );
    let list = ListTenantsRequest::default();
    assert_eq!(
        cost(&server, admin.tenant.list_tenants(list)).await,
        LIST,
        "ListTenants"
    );
    let get = GetTenantRequest {
        tenant_id: "acme".into(),
    };
    assert_eq!(
        cost(&server, admin.tenant.get_tenant(get)).await,
        READ,
        "GetTenant"
    );
}
