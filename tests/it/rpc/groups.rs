//! Tenants and their caches on a Redis Cluster and behind Sentinels, through two
//! replicas each, over real sockets. It does not know what happens where a server
//! of them fails.

use std::time::Duration;

use futures::stream;
use riptide_persistence::{
    proto::v1::{
        BatchDeleteRequest, BatchGetRequest, BatchSetRequest, Consistency, DeleteRequest,
        DeleteTenantRequest, GetCacheStatsRequest, GetOrLeaseRequest, GetRequest,
        GetTenantUsageRequest, InvalidateCacheRequest, InvalidationEvent, Keys, ListKeysRequest,
        ListSessionsRequest, PurgeTenantRequest, ResumeTenantRequest, SetEntry, SetRequest,
        SuspendTenantRequest, SuspensionMode, Tags, TerminateSessionsRequest, TouchRequest,
        WarmCacheRequest, WatchInvalidationsRequest, invalidate_cache_request::Target,
        invalidation_event,
    },
    store::Incarnation,
};
use rstest::rstest;
use tonic::Code;

use crate::{
    redis_groups::{shared_cluster, shared_sentinels},
    rpc::session,
    server::{Backend, Clients, Server, reason},
};

/// What the replicas work on. Tests share it, so each has a tenant of its own.
#[derive(Clone, Copy)]
enum Group {
    Cluster,
    Sentinels,
}

/// A tenant at two replicas.
struct Stage {
    one: Server,
    two: Server,
    tenant_id: String,
    /// By its own key.
    here: Clients,
    there: Clients,
}

impl Group {
    async fn stage(self) -> Stage {
        let url = match self {
            Self::Cluster => shared_cluster().url(),
            Self::Sentinels => shared_sentinels().url(),
        };
        let one = Server::start(Backend::Url(&url)).await;
        let two = Server::start(Backend::Url(&url)).await;
        let tenant_id = format!("t-{}", Incarnation::random());
        let tenant = one.tenant(&tenant_id).await;
        Stage {
            there: two.with_key(&tenant.secret),
            here: tenant.clients,
            one,
            two,
            tenant_id,
        }
    }
}

fn set(namespace: &str, key: &str, tags: &[&str]) -> SetRequest {
    SetRequest {
        namespace: namespace.into(),
        key: key.into(),
        value: format!("value of {key}").into(),
        tags: strings(tags),
        ..Default::default()
    }
}

fn strings(strings: &[&str]) -> Vec<String> {
    strings.iter().map(ToString::to_string).collect()
}

/// The value there is now, whatever is kept near.
async fn get(clients: &Clients, namespace: &str, key: &str) -> Option<String> {
    read(clients, namespace, key, Consistency::Strong).await
}

async fn read(
    clients: &Clients,
    namespace: &str,
    key: &str,
    consistency: Consistency,
) -> Option<String> {
    let request = GetRequest {
        namespace: namespace.into(),
        key: key.into(),
        consistency: consistency.into(),
        ..Default::default()
    };
    let answer = clients.cache.clone().get(request).await.unwrap();
    let entry = answer.into_inner().entry?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

/// Waits until something comes to be.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let settled = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(30), settled).await;
    settled.unwrap_or_else(|_| panic!("it never came to be that {what}"));
}

#[rstest]
#[case::cluster(Group::Cluster)]
#[case::sentinels(Group::Sentinels)]
#[tokio::test]
async fn a_tenant_lives_and_ends_at_all_replicas(#[case] group: Group) {
    let stage = group.stage().await;
    let mut admin = stage.one.admin().tenant;
    let tenant_id = || stage.tenant_id.clone();
    stage
        .here
        .cache
        .clone()
        .set(set("", "k", &[]))
        .await
        .unwrap();
    assert!(get(&stage.there, "", "k").await.is_some());

    let suspend = SuspendTenantRequest {
        tenant_id: tenant_id(),
        mode: SuspensionMode::ReadOnly.into(),
        ..Default::default()
    };
    admin.suspend_tenant(suspend).await.unwrap();
    let write = async || stage.there.cache.clone().set(set("", "k", &[])).await;
    eventually("writes are refused", async || {
        write()
            .await
            .is_err_and(|status| reason(&status) == "TENANT_SUSPENDED")
    })
    .await;
    assert!(get(&stage.there, "", "k").await.is_some());
    let resume = ResumeTenantRequest {
        tenant_id: tenant_id(),
        ..Default::default()
    };
    admin.resume_tenant(resume).await.unwrap();
    eventually("writes are taken again", async || write().await.is_ok()).await;

    let delete = DeleteTenantRequest {
        tenant_id: tenant_id(),
        ..Default::default()
    };
    admin.delete_tenant(delete).await.unwrap();
    eventually("its key is refused", async || write().await.is_err()).await;
    let purge = PurgeTenantRequest {
        tenant_id: tenant_id(),
        ..Default::default()
    };
    let report = stage.two.admin().tenant.purge_tenant(purge).await.unwrap();
    let report = report.into_inner().report.unwrap();
    assert_eq!((report.entries, report.api_keys), (1, 1));
    let usage = GetTenantUsageRequest {
        tenant_id: tenant_id(),
        ..Default::default()
    };
    let gone = admin.get_tenant_usage(usage).await.unwrap_err();
    assert_eq!(
        (gone.code(), &*reason(&gone)),
        (Code::NotFound, "TENANT_NOT_FOUND")
    );
}

#[rstest]
#[case::cluster(Group::Cluster)]
#[case::sentinels(Group::Sentinels)]
#[tokio::test]
async fn entries_are_written_here_and_read_there(#[case] group: Group) {
    let stage = group.stage().await;
    let (mut here, mut there) = (stage.here.cache.clone(), stage.there.cache.clone());
    let entry = |n: usize| SetEntry {
        key: format!("k{n}"),
        value: vec![b'v'; n * 500].into(),
        ..Default::default()
    };
    let batch = BatchSetRequest {
        entries: (0..100).map(entry).collect(),
        ..Default::default()
    };
    let written = here.batch_set(batch).await.unwrap().into_inner().results;
    assert!(written.iter().all(|result| result.version > 0));
    let batch = BatchGetRequest {
        keys: (0..101).map(|n| format!("k{n}")).collect(),
        consistency: Consistency::Strong.into(),
        ..Default::default()
    };
    let found = there.batch_get(batch).await.unwrap().into_inner().results;
    for (n, result) in found.iter().enumerate() {
        let bytes = result.entry.as_ref().map(|entry| entry.value.len());
        assert_eq!(bytes, (n < 100).then_some(n * 500), "{n}");
    }
    let touch = TouchRequest {
        key: "k7".into(),
        ttl: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        ..Default::default()
    };
    assert!(there.touch(touch).await.unwrap().into_inner().found);
    let delete = DeleteRequest {
        key: "k8".into(),
        ..Default::default()
    };
    assert!(there.delete(delete).await.unwrap().into_inner().deleted);
    let batch = BatchDeleteRequest {
        keys: (9..100).map(|n| format!("k{n}")).collect(),
        ..Default::default()
    };
    let removed = there.batch_delete(batch).await.unwrap().into_inner();
    assert!(removed.results.iter().all(|result| result.deleted));
    let mut listed = Vec::new();
    let mut request = ListKeysRequest::default();
    loop {
        let page = here.list_keys(request.clone()).await.unwrap().into_inner();
        listed.extend(page.keys.into_iter().map(|key| key.key));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    listed.sort();
    listed.dedup();
    assert_eq!(listed, (0..8).map(|n| format!("k{n}")).collect::<Vec<_>>());
}

#[rstest]
#[case::cluster(Group::Cluster)]
#[case::sentinels(Group::Sentinels)]
#[tokio::test]
async fn what_is_invalidated_here_is_gone_there(#[case] group: Group) {
    let stage = group.stage().await;
    let mut here = stage.here.cache.clone();
    // Beside each target what it takes of the namespace: a1, a2 (red), b1 (red), b2.
    let targets = [
        (
            Target::Keys(Keys {
                keys: strings(&["a1"]),
            }),
            &["a1"][..],
        ),
        (Target::Prefix("a".into()), &["a1", "a2"]),
        (
            Target::Tags(Tags {
                tags: strings(&["red"]),
            }),
            &["a2", "b1"],
        ),
        (Target::WholeNamespace(true), &["a1", "a2", "b1", "b2"]),
        (Target::WholeTenant(true), &["a1", "a2", "b1", "b2"]),
    ];
    for (target, gone) in targets {
        let case = format!("{target:?}");
        for (key, tags) in [
            ("a1", &[][..]),
            ("a2", &["red"]),
            ("b1", &["red"]),
            ("b2", &[]),
        ] {
            here.set(set("ns", key, tags)).await.unwrap();
            // The other one keeps it near from now on.
            for _ in 0..2 {
                let near = read(&stage.there, "ns", key, Consistency::Eventual).await;
                assert!(near.is_some(), "{key}: {case}");
            }
        }
        here.set(set("other", "a1", &["red"])).await.unwrap();
        let whole_tenant = matches!(target, Target::WholeTenant(_));
        let request = InvalidateCacheRequest {
            namespace: if whole_tenant { "" } else { "ns" }.into(),
            target: Some(target),
            ..Default::default()
        };
        here.invalidate_cache(request).await.unwrap();
        for key in ["a1", "a2", "b1", "b2"] {
            let there = get(&stage.there, "ns", key).await.is_some();
            assert_eq!(there, !gone.contains(&key), "{key}: {case}");
            eventually("what is kept near goes, too", async || {
                let near = read(&stage.there, "ns", key, Consistency::Eventual).await;
                near.is_some() == there
            })
            .await;
        }
        let other = get(&stage.there, "other", "a1").await.is_some();
        assert_eq!(other, !whole_tenant, "{case}");
    }
}

#[rstest]
#[case::cluster(Group::Cluster)]
#[case::sentinels(Group::Sentinels)]
#[tokio::test]
async fn what_both_replicas_did_adds_up(#[case] group: Group) {
    let stage = group.stage().await;
    let message = WarmCacheRequest {
        entries: (0..300)
            .map(|n| SetEntry {
                key: format!("k{n}"),
                value: "v".into(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let pull = WarmCacheRequest {
        keys: (0..301).map(|n| format!("k{n}")).collect(),
        ..Default::default()
    };
    let mut cache = stage.here.cache.clone();
    let warmed = cache.warm_cache(stream::iter([message, pull])).await;
    let warmed = warmed.unwrap().into_inner();
    assert_eq!((warmed.stored, warmed.missing, warmed.failed), (300, 1, 0));
    for n in 0..10 {
        for clients in [&stage.here, &stage.there] {
            assert!(get(clients, "", &format!("k{n}")).await.is_some());
            assert!(get(clients, "", "absent").await.is_none());
        }
    }
    let stats = async |clients: &Clients| {
        let request = GetCacheStatsRequest::default();
        let answer = clients
            .cache
            .clone()
            .get_cache_stats(request)
            .await
            .unwrap();
        answer.into_inner().stats.unwrap()
    };
    stats(&stage.there).await;
    let found = stats(&stage.here).await;
    // The warming may have counted its own reads, too.
    assert!(found.hits >= 20 && found.misses >= 20, "{found:?}");
    assert_eq!((found.sets, found.entries), (300, Some(300)));
    assert_eq!(stats(&stage.there).await.hits, found.hits);
    let request = GetTenantUsageRequest::default();
    let usage = stage.there.tenant.clone().get_tenant_usage(request).await;
    let usage = usage.unwrap().into_inner().usage.unwrap();
    assert_eq!((usage.cache_entries, usage.hits), (300, found.hits));
    assert!(usage.exact);

    let request = GetCacheStatsRequest::default();
    let fleet = stage
        .two
        .admin()
        .cache
        .get_cache_stats(request)
        .await
        .unwrap();
    let (fleet, store) = {
        let answer = fleet.into_inner();
        (answer.fleet.unwrap(), answer.store.unwrap())
    };
    // Other tests' tenants are in it.
    assert!(fleet.hits >= found.hits && fleet.sets >= 300);
    assert!(store.records.unwrap() >= 300 && store.used_bytes.unwrap() > 0);
}

#[rstest]
#[case::cluster(Group::Cluster)]
#[case::sentinels(Group::Sentinels)]
#[tokio::test]
async fn of_callers_at_all_replicas_one_refills(#[case] group: Group) {
    let stage = group.stage().await;
    let ask = async |clients: &Clients, key: &str| {
        let request = GetOrLeaseRequest {
            key: key.into(),
            ..Default::default()
        };
        let answer = clients.cache.clone().get_or_lease(request).await;
        answer.unwrap().into_inner()
    };
    // Keys of a tenant lie in one slot, tenants in many: one of each is enough.
    for key in ["a", "b"] {
        let calls = (0..20).map(|n| ask([&stage.here, &stage.there][n % 2], key));
        let told = futures::future::join_all(calls).await;
        let leased: Vec<_> = told
            .iter()
            .filter(|it| !it.lease_token.is_empty())
            .collect();
        let waiting = told.iter().filter(|it| it.retry_after.is_some()).count();
        assert_eq!((leased.len(), waiting), (1, 19), "{key}");
        let refill = SetRequest {
            lease_token: leased[0].lease_token.clone(),
            ..set("", key, &[])
        };
        let mut there = stage.there.cache.clone();
        there.set(refill.clone()).await.unwrap();
        let late = there.set(refill).await.unwrap_err();
        assert_eq!(reason(&late), "CONDITION_NOT_MET");
        for clients in [&stage.here, &stage.there] {
            eventually("the entry is answered", async || {
                ask(clients, key).await.entry.is_some()
            })
            .await;
        }
    }
}

#[rstest]
#[case::cluster(Group::Cluster)]
#[case::sentinels(Group::Sentinels)]
#[tokio::test]
async fn who_watches_here_is_told_of_what_is_done_there(#[case] group: Group) {
    let stage = group.stage().await;
    let watch = async |clients: &Clients, resume_token: String| {
        let request = WatchInvalidationsRequest {
            resume_token,
            ..Default::default()
        };
        let answer = clients.cache.clone().watch_invalidations(request).await;
        answer.unwrap().into_inner()
    };
    let both = || Keys {
        keys: strings(&["a", "b"]),
    };
    let red = || Tags {
        tags: strings(&["red"]),
    };
    let changes = [
        (
            Target::Keys(both()),
            Some(invalidation_event::Target::Keys(both())),
        ),
        (
            Target::Prefix("a".into()),
            Some(invalidation_event::Target::Prefix("a".into())),
        ),
        (
            Target::Tags(red()),
            Some(invalidation_event::Target::Tags(red())),
        ),
        (Target::WholeNamespace(true), None),
    ];
    let mut stream = watch(&stage.here, String::new()).await;
    let first = stream.message().await.unwrap().unwrap();
    let mut token = first.resume_token;
    let mut there = stage.there.cache.clone();
    for (number, (target, told)) in changes.into_iter().enumerate() {
        there.set(set("ns", "a", &["red"])).await.unwrap();
        let request = InvalidateCacheRequest {
            namespace: "ns".into(),
            target: Some(target),
            ..Default::default()
        };
        there.invalidate_cache(request).await.unwrap();
        let written = invalidation_event::Target::Keys(Keys {
            keys: strings(&["a"]),
        });
        let expected = [Some(written), told].map(|target| InvalidationEvent {
            namespace: "ns".into(),
            target,
        });
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            let response = tokio::time::timeout(Duration::from_secs(30), stream.message());
            let response = response.await.expect("it is told").unwrap().unwrap();
            heard.extend(response.events);
            token = response.resume_token;
        }
        assert_eq!(heard, expected);
        // It goes on at another replica where it was left at this one.
        let clients = [&stage.there, &stage.here][number % 2];
        stream = watch(clients, token.clone()).await;
    }
}

#[rstest]
#[case::cluster(Group::Cluster)]
#[case::sentinels(Group::Sentinels)]
#[tokio::test]
async fn sessions_are_the_same_at_all_replicas(#[case] group: Group) {
    let stage = group.stage().await;
    let (here, there) = (&stage.here, &stage.there);
    let mut ids = Vec::new();
    for number in 0..12 {
        let clients = if number % 2 == 0 { here } else { there };
        let created = session::create(clients, session::of("ann")).await.unwrap();
        ids.push(created.session_id);
    }
    session::create(here, session::of("bob")).await.unwrap();
    let read = session::get(there, &ids[0]).await.unwrap();
    let touched = session::touch(there, &ids[0]).await.unwrap();
    assert_eq!(touched.etag, read.etag);
    assert_eq!(session::get(here, &ids[0]).await.unwrap(), touched);
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListSessionsRequest {
            user_id: "ann".into(),
            page_size: 5,
            page_token: token,
            ..Default::default()
        };
        let page = there.state.clone().list_sessions(request).await.unwrap();
        let page = page.into_inner();
        found.extend(page.sessions.into_iter().map(|found| found.session_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    found.sort();
    ids.sort();
    assert_eq!(found, ids);
    let request = TerminateSessionsRequest {
        user_id: "ann".into(),
        except_session_id: ids[3].clone(),
        ..Default::default()
    };
    let ended = here
        .state
        .clone()
        .terminate_sessions(request)
        .await
        .unwrap();
    assert_eq!(ended.into_inner().terminated, 11);
    let gone = session::get(there, &ids[0]).await.unwrap_err();
    assert_eq!(reason(&gone), "SESSION_NOT_FOUND");
    let request = GetTenantUsageRequest::default();
    let usage = there.tenant.clone().get_tenant_usage(request).await;
    let usage = usage.unwrap().into_inner().usage.unwrap();
    assert_eq!(usage.active_sessions, 2);
}
