//! How often each RPC calls the store: the round trips are the cost of the
//! service, so they are counted and not guessed.

use std::time::Duration;

use riptide_persistence::{
    proto::v1::{
        BatchDeleteRequest, BatchGetRequest, BatchSetRequest, CheckQuotaMode, CheckQuotaRequest,
        CreateSessionRequest, CreateTenantRequest, CustomQuota, DeleteRequest,
        GetCacheStatsRequest, GetOrLeaseRequest, GetRequest, GetSessionRequest, GetTenantRequest,
        InvalidateCacheRequest, Keys, ListAuditEventsRequest, ListKeysRequest, ListSessionsRequest,
        ListTenantsRequest, Quotas, Session, SetEntry, SetRequest, Tags, Tenant,
        TerminateSessionRequest, TerminateSessionsRequest, TouchRequest, TouchSessionRequest,
        UpdateSessionRequest, UpdateTenantRequest, WarmCacheRequest, WatchInvalidationsRequest,
        invalidate_cache_request::Target,
    },
    store::{Calls, METER_SPACES},
};
use rstest::rstest;
use tonic::Status;

use crate::server::{Kind, Server};

const READ: Calls = Calls { read: 1, ..NONE };
const COMMIT: Calls = Calls { commit: 1, ..NONE };
const LIST: Calls = Calls { list: 1, ..NONE };
const TALLY: Calls = Calls { tally: 1, ..NONE };
const ROWS: Calls = Calls { rows: 1, ..NONE };
const USAGE: Calls = Calls { usage: 1, ..NONE };
const STATS: Calls = Calls {
    read: 1,
    rows: 1,
    usage: 1,
    ..NONE
};
const NONE: Calls = Calls {
    read: 0,
    commit: 0,
    list: 0,
    usage: 0,
    meters: 0,
    tally: 0,
    rows: 0,
    recall: 0,
    lease: 0,
    audit: 0,
    reclaim: 0,
    pin: 0,
    pinned: 0,
    unpin: 0,
    changes: 0,
    notes: 0,
    ping: 0,
    close: 0,
};

/// Quotas with a level of the platform's own.
fn seats() -> Quotas {
    let seats = CustomQuota {
        limit: 100,
        window: None,
    };
    Quotas {
        custom: [("seats".to_owned(), seats)].into(),
        ..Default::default()
    }
}

/// What a call costs beyond the checks that go on all the time. On a busy machine
/// the change feed can be late for a moment, and what is remembered is looked up
/// then; so the least of a few counts.
async fn cost<T>(server: &Server, mut call: impl AsyncFnMut(usize) -> Result<T, Status>) -> Calls {
    let mut costs = Vec::new();
    for attempt in 0..5 {
        let before = server.calls();
        call(attempt).await.unwrap();
        costs.push(Calls {
            ping: 0,
            // A watcher's own.
            notes: 0,
            ..server.calls().since(before)
        });
    }
    costs
        .into_iter()
        .min_by_key(|cost| {
            cost.read + cost.commit + cost.list + cost.tally + cost.rows + cost.lease
        })
        .unwrap()
}

/// Waits until a call is answered from memory.
async fn eventually<T>(server: &Server, call: impl AsyncFn() -> Result<T, Status>) {
    while cost(server, async |_| call().await).await != NONE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn an_rpc_costs_what_the_budget_allows(#[case] kind: Kind) {
    let server = kind.start().await;
    let admin = server.admin();
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
    let warm = SetRequest {
        key: "warm".into(),
        ..Default::default()
    };
    tenant.cache.set(warm).await.unwrap();

    macro_rules! assert_cost {
        ($client:ident.$service:ident.$rpc:ident, $cost:expr, $request:expr) => {{
            let request = $request;
            let mut client = $client.$service.clone();
            let cost = cost(&server, async |attempt| client.$rpc(request(attempt)).await).await;
            assert_eq!(cost, $cost, stringify!($rpc));
        }};
    }
    // Redis is asked until its connection has proved that it tells of changes.
    eventually(&server, async || tenant.cache.clone().get(get()).await).await;
    let miss = |_| GetRequest {
        key: "missing".into(),
        ..Default::default()
    };
    assert_cost!(tenant.cache.get, READ, miss);
    assert_cost!(tenant.cache.set, COMMIT, |_| set());
    let touch = |_| TouchRequest {
        key: key(),
        ..Default::default()
    };
    assert_cost!(tenant.cache.touch, COMMIT, touch);
    let delete = |_| DeleteRequest {
        key: key(),
        ..Default::default()
    };
    assert_cost!(tenant.cache.delete, COMMIT, delete);

    let lease = |attempt| GetOrLeaseRequest {
        key: format!("leased {attempt}"),
        ..Default::default()
    };
    let taken = Calls { read: 1, ..COMMIT };
    assert_cost!(tenant.cache.get_or_lease, taken, lease);
    assert_cost!(tenant.cache.get_or_lease, READ, lease);
    let there = |_| GetOrLeaseRequest {
        key: "warm".into(),
        ..Default::default()
    };
    assert_cost!(tenant.cache.get_or_lease, NONE, there);

    let keys: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
    let entries = || {
        keys.iter().map(|key| SetEntry {
            key: key.clone(),
            ..Default::default()
        })
    };
    let batch = |_| BatchSetRequest {
        entries: entries().collect(),
        ..Default::default()
    };
    assert_cost!(tenant.cache.batch_set, COMMIT, batch);
    let batch = |attempt| BatchGetRequest {
        keys: (0..100).map(|n| format!("{attempt} missing {n}")).collect(),
        ..Default::default()
    };
    assert_cost!(tenant.cache.batch_get, READ, batch);
    let batch = || BatchGetRequest {
        keys: keys.clone(),
        ..Default::default()
    };
    eventually(&server, async || {
        tenant.cache.clone().batch_get(batch()).await
    })
    .await;
    let batch = |_| BatchDeleteRequest {
        keys: keys.clone(),
        ..Default::default()
    };
    assert_cost!(tenant.cache.batch_delete, COMMIT, batch);
    assert_cost!(tenant.cache.list_keys, LIST, |_| ListKeysRequest::default());

    // Entries of a message are one commit up to 100, keys one read up to 25.
    let stored = |_| {
        let message = WarmCacheRequest {
            entries: entries().collect(),
            ..Default::default()
        };
        futures::stream::iter([message])
    };
    assert_cost!(tenant.cache.warm_cache, COMMIT, stored);
    let pulled = |_| {
        let message = WarmCacheRequest {
            keys: keys.clone(),
            ..Default::default()
        };
        futures::stream::iter([message])
    };
    assert_cost!(tenant.cache.warm_cache, Calls { read: 4, ..NONE }, pulled);

    let invalidation = |target: Target| {
        move |_| InvalidateCacheRequest {
            target: Some(target.clone()),
            ..Default::default()
        }
    };
    for (target, cost) in [
        (Target::Keys(Keys { keys: keys.clone() }), COMMIT),
        (Target::Prefix("k".into()), COMMIT),
        (
            Target::Tags(Tags {
                tags: vec!["t".into()],
            }),
            COMMIT,
        ),
        (Target::WholeNamespace(true), COMMIT),
        // The job that gives the bytes back is left first, each time.
        (Target::WholeTenant(true), Calls { commit: 2, ..NONE }),
    ] {
        assert_cost!(tenant.cache.invalidate_cache, cost, invalidation(target));
    }
    // That somebody watches is written once, and read by those who come after.
    assert_cost!(tenant.cache.watch_invalidations, READ, |_| {
        WatchInvalidationsRequest::default()
    });

    // The first session of a tenant asks whether the tenant is there.
    let create = |_| CreateSessionRequest {
        user_id: "ann".into(),
        ..Default::default()
    };
    let session = tenant.state.clone().create_session(create(0)).await;
    let session_id = session.unwrap().into_inner().session.unwrap().session_id;
    assert_cost!(tenant.state.create_session, COMMIT, create);
    let id = || session_id.clone();
    assert_cost!(tenant.state.get_session, READ, |_| GetSessionRequest {
        session_id: id(),
        ..Default::default()
    });
    assert_cost!(tenant.state.touch_session, COMMIT, |_| {
        TouchSessionRequest {
            session_id: id(),
            ..Default::default()
        }
    });
    let change = Calls { read: 1, ..COMMIT };
    assert_cost!(tenant.state.update_session, change, |_| {
        UpdateSessionRequest {
            session: Some(Session {
                session_id: id(),
                ..Default::default()
            }),
            ..Default::default()
        }
    });
    assert_cost!(tenant.state.list_sessions, LIST, |_| ListSessionsRequest {
        user_id: "ann".into(),
        ..Default::default()
    });
    let mut sessions = Vec::new();
    for _ in 0..5 {
        let session = tenant.state.clone().create_session(create(0)).await;
        sessions.push(session.unwrap().into_inner().session.unwrap().session_id);
    }
    assert_cost!(tenant.state.terminate_session, COMMIT, |attempt: usize| {
        TerminateSessionRequest {
            session_id: sessions[attempt].clone(),
            ..Default::default()
        }
    });
    // Those there are, and then none.
    assert_cost!(tenant.state.terminate_sessions, LIST, |_| {
        TerminateSessionsRequest {
            user_id: "ann".into(),
            ..Default::default()
        }
    });

    let set = UpdateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: "acme".into(),
            quotas: Some(seats()),
            ..Default::default()
        }),
        ..Default::default()
    };
    admin.tenant.clone().update_tenant(set).await.unwrap();
    let check = |metric: &'static str, mode: CheckQuotaMode| {
        move |_| CheckQuotaRequest {
            tenant_id: "acme".into(),
            metric: metric.into(),
            mode: mode.into(),
            ..Default::default()
        }
    };
    let (peek, consume) = (CheckQuotaMode::Peek, CheckQuotaMode::Consume);
    assert_cost!(admin.tenant.check_quota, TALLY, check("seats", consume));
    assert_cost!(
        admin.tenant.check_quota,
        TALLY,
        check("seats", CheckQuotaMode::Release)
    );
    assert_cost!(admin.tenant.check_quota, ROWS, check("seats", peek));
    for metric in ["memory_bytes", "storage_bytes", "active_sessions"] {
        assert_cost!(admin.tenant.check_quota, USAGE, check(metric, peek));
    }

    // The tenant, its rows, what it holds: however many namespaces and keys it has.
    // What is still to be flushed goes with the first.
    let stats = |tenant_id: &'static str, namespace: &'static str| {
        move |_| GetCacheStatsRequest {
            tenant_id: tenant_id.into(),
            namespace: namespace.into(),
        }
    };
    assert_cost!(tenant.cache.get_cache_stats, STATS, stats("", ""));
    assert_cost!(admin.cache.get_cache_stats, STATS, stats("acme", ""));
    let of_namespace = Calls { usage: 0, ..STATS };
    assert_cost!(
        admin.cache.get_cache_stats,
        of_namespace,
        stats("acme", "default")
    );
    let of_fleet = Calls {
        rows: METER_SPACES as u64,
        ..NONE
    };
    assert_cost!(admin.cache.get_cache_stats, of_fleet, stats("", ""));

    let create = |attempt| CreateTenantRequest {
        tenant_id: format!("tenant-{attempt}"),
        ..Default::default()
    };
    assert_cost!(admin.tenant.create_tenant, COMMIT, create);
    assert_cost!(admin.tenant.list_tenants, LIST, |_| {
        ListTenantsRequest::default()
    });
    let get = |_| GetTenantRequest {
        tenant_id: "acme".into(),
    };
    assert_cost!(admin.tenant.get_tenant, READ, get);

    // Those of a tenant are found by what leads to them; of all, first where chains end.
    let of = |tenant_id: &'static str| {
        move |_| ListAuditEventsRequest {
            tenant_id: tenant_id.into(),
            ..Default::default()
        }
    };
    let of_tenant = Calls { read: 1, ..LIST };
    assert_cost!(admin.tenant.list_audit_events, of_tenant, of("acme"));
    let of_all = Calls { list: 2, ..NONE };
    assert_cost!(admin.tenant.list_audit_events, of_all, of(""));
}
