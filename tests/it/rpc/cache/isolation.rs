//! Tenants side by side: nobody reads another's entries, and two replicas agree.
//! It does not know how a tenant is made.

use std::sync::Arc;

use riptide_persistence::proto::v1::{
    BatchGetRequest, BatchSetRequest, Consistency, GetRequest, SetCondition, SetRequest, Tags,
    invalidate_cache_request::Target,
};
use rstest::rstest;
use tokio::sync::Semaphore;
use tonic::Code;

use super::{flush, get, item, keys, set};
use crate::{
    redis::Redis,
    server::{Backend, Clients, Kind, Server, reason},
};

/// Tenants of the crowd; 1,000 where the machine is one's own.
const TENANTS: &str = "RIPTIDE_TEST_TENANTS";
const ENTRIES: usize = 100;
const CALLERS: usize = 50;

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn another_tenants_id_is_refused_whether_it_exists_or_not(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut mine = server.tenant("mine").await.clients;
    let yours = server.tenant("yours").await.clients;
    yours.cache.clone().set(set("k", "secret")).await.unwrap();
    let mut texts = Vec::new();
    for tenant_id in ["yours", "nobodys"] {
        let request = GetRequest {
            tenant_id: tenant_id.into(),
            key: "k".into(),
            ..Default::default()
        };
        let refused = mine.cache.get(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(reason(&refused), "TENANT_MISMATCH");
        texts.push(refused.message().to_owned());
    }
    assert_eq!(texts[0], texts[1]);
    assert_eq!(get(&mine, "k").await.unwrap(), None);
    let named = GetRequest {
        tenant_id: "mine".into(),
        key: "k".into(),
        ..Default::default()
    };
    assert!(mine.cache.get(named).await.is_ok());

    let mut admin = server.admin();
    let asked = |tenant_id: &str| GetRequest {
        tenant_id: tenant_id.into(),
        key: "k".into(),
        ..Default::default()
    };
    let read = admin.cache.get(asked("yours")).await.unwrap().into_inner();
    assert_eq!(&read.entry.unwrap().value[..], b"secret");
    let unknown = admin.cache.get(asked("nobodys")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(reason(&unknown), "TENANT_NOT_FOUND");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_tenants_sees_no_foreign_value(#[case] kind: Kind) {
    let tenants: usize = std::env::var(TENANTS).map_or(100, |count| count.parse().unwrap());
    let server = Arc::new(kind.start().await);
    let value = |tenant: usize, entry: usize| format!("value {entry} of tenant {tenant}");
    let names: Arc<Vec<_>> = Arc::new((0..ENTRIES).map(|n| format!("key {n}")).collect());

    // All tenants have the same keys.
    let callers = Arc::new(Semaphore::new(CALLERS));
    let mut filling = tokio::task::JoinSet::new();
    for tenant in 0..tenants {
        let permit = callers.clone().acquire_owned().await.unwrap();
        let (server, names) = (server.clone(), names.clone());
        filling.spawn(async move {
            let _permit = permit;
            let mut clients = server.tenant(&format!("tenant-{tenant}")).await.clients;
            let items = names.iter().enumerate();
            let entries = items.map(|(n, key)| item(key, value(tenant, n))).collect();
            let request = BatchSetRequest {
                entries,
                ..Default::default()
            };
            let written = clients.cache.batch_set(request).await.unwrap().into_inner();
            assert!(written.results.iter().all(|result| result.status.is_none()));
            (tenant, clients)
        });
    }
    let mut crowd = filling.join_all().await;
    crowd.sort_by_key(|(tenant, _)| *tenant);
    let crowd: Arc<Vec<_>> = Arc::new(crowd.into_iter().map(|(_, clients)| clients).collect());

    let mut reading = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (crowd, names) = (crowd.clone(), names.clone());
        reading.spawn(async move {
            let mut read = 0;
            for step in 0..tenants {
                let tenant = (caller * 7 + step) % tenants;
                let mut clients = crowd[tenant].clone();
                if step % 10 == 0 {
                    let request = BatchGetRequest {
                        keys: names.to_vec(),
                        ..Default::default()
                    };
                    let answer = clients.cache.batch_get(request).await.unwrap().into_inner();
                    for (n, result) in answer.results.iter().enumerate() {
                        let entry = result.entry.as_ref().unwrap();
                        assert_eq!(entry.value, value(tenant, n));
                        read += 1;
                    }
                } else {
                    let n = (caller + step) % ENTRIES;
                    let entry = get(&clients, &names[n]).await.unwrap().unwrap();
                    assert_eq!(entry.value, value(tenant, n));
                    read += 1;
                }
            }
            read
        });
    }
    let read: usize = reading.join_all().await.into_iter().sum();
    assert!(read >= CALLERS * tenants);
}

#[tokio::test]
async fn two_replicas_on_one_redis_agree_at_once() {
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;
    let tenant = one.tenant("acme").await;
    let mut here = tenant.clients;
    let mut there = two.with_key(&tenant.secret);

    let tagged = |value: &'static str| SetRequest {
        tags: keys(&["red", "green"]),
        ..set("k", value)
    };
    // What is kept near may be a moment behind, so the store is asked.
    let is_there = async |clients: &Clients| {
        let request = GetRequest {
            key: "k".into(),
            consistency: Consistency::Strong.into(),
            ..Default::default()
        };
        let answer = clients.cache.clone().get(request).await.unwrap();
        answer.into_inner().entry.is_some()
    };
    here.cache.set(tagged("v")).await.unwrap();
    assert!(is_there(&there).await);
    for target in [
        Target::WholeNamespace(true),
        Target::Tags(Tags {
            tags: keys(&["blue", "green"]),
        }),
        Target::Prefix("k".into()),
        Target::WholeTenant(true),
    ] {
        here.cache.invalidate_cache(flush(target)).await.unwrap();
        assert!(!is_there(&there).await);
        let absent = SetRequest {
            condition: SetCondition::IfAbsent.into(),
            ..tagged("again")
        };
        there.cache.set(absent).await.unwrap();
        assert!(is_there(&here).await);
        (here, there) = (there, here);
    }
}
