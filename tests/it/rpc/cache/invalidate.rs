//! Prefixes and tags that disappear at once, and then for good, over a real socket.
//! It does not know how they are hidden.

use std::time::Duration;

use riptide_persistence::{
    proto::v1::{
        CreateApiKeyRequest, CreateTenantRequest, DeleteRequest, GetTenantUsageRequest,
        InvalidateCacheRequest, Keys, ListKeysRequest, SetCondition, SetRequest, Tags,
        invalidate_cache_request::Target,
    },
    store::Store,
};
use rstest::rstest;
use tonic::{Code, Status};

use super::{flush, get, item, keys, set};
use crate::{
    cli::Folder,
    process::{client, space},
    redis::{Redis, eventually},
    server::{ADMIN_KEY, Clients, Kind, Server, fields, reason},
};

fn tags(tags: &[&str]) -> Target {
    Target::Tags(Tags { tags: keys(tags) })
}

fn prefix(prefix: &str) -> Target {
    Target::Prefix(prefix.into())
}

async fn invalidate(clients: &Clients, target: Target) -> Result<(i64, i64), Status> {
    let answer = clients
        .cache
        .clone()
        .invalidate_cache(flush(target))
        .await?;
    let answer = answer.into_inner();
    Ok((answer.invalidated, answer.generation))
}

/// What the tenant is told that it uses.
async fn entries(clients: &Clients) -> i64 {
    let request = GetTenantUsageRequest::default();
    let answer = clients.tenant.clone().get_tenant_usage(request).await;
    let usage = answer.unwrap().into_inner().usage.unwrap();
    assert!(usage.exact);
    usage.cache_entries
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn prefixes_and_tags_disappear_at_once_and_their_bytes_come_back(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    for (key, tagged) in [
        ("user:1", &["red"][..]),
        ("user:2", &["blue"]),
        ("user", &["red", "blue"]),
        ("plain", &[]),
    ] {
        for namespace in ["", "other"] {
            let request = SetRequest {
                namespace: namespace.into(),
                tags: keys(tagged),
                ..set(key, "v")
            };
            clients.cache.set(request).await.unwrap();
        }
    }
    assert_eq!(entries(&clients).await, 8);

    assert_eq!(invalidate(&clients, prefix("user:")).await.unwrap(), (0, 0));
    let found = async |clients: &Clients| {
        let mut found = Vec::new();
        for key in ["user:1", "user:2", "user", "plain"] {
            found.push(get(clients, key).await.unwrap().is_some());
        }
        found
    };
    assert_eq!(found(&clients).await, [false, false, true, true]);
    assert_eq!(
        invalidate(&clients, tags(&["none", "red"])).await.unwrap(),
        (0, 0)
    );
    assert_eq!(found(&clients).await, [false, false, false, true]);
    let listed = clients.cache.list_keys(ListKeysRequest::default()).await;
    let listed = listed.unwrap().into_inner().keys;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].key, "plain");

    // What was there is absent to what depends on it.
    let delete = DeleteRequest {
        key: "user".into(),
        ..Default::default()
    };
    let deleted = clients.cache.delete(delete).await.unwrap().into_inner();
    assert!(!deleted.deleted);
    let present = SetRequest {
        condition: SetCondition::IfPresent.into(),
        ..set("user:1", "w")
    };
    let refused = clients.cache.set(present).await.unwrap_err();
    assert_eq!(reason(&refused), "CONDITION_NOT_MET");
    let again = SetRequest {
        condition: SetCondition::IfAbsent.into(),
        tags: keys(&["red"]),
        ..set("user:1", "w")
    };
    clients.cache.set(again).await.unwrap();
    assert_eq!(found(&clients).await, [true, false, false, true]);

    // The other namespace's four, and two here.
    let swept = async {
        while entries(&clients).await != 6 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let swept = tokio::time::timeout(Duration::from_secs(60), swept).await;
    swept.expect("a sweep removes what is hidden");
    assert_eq!(found(&clients).await, [true, false, false, true]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn every_field_of_an_invalidation_that_breaks_a_rule_is_named(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let long = "p".repeat(1025);
    let many: Vec<_> = (0..101).map(|n| n.to_string()).collect();
    let wide = "t".repeat(129);
    for (target, field) in [
        (Some(prefix("")), "prefix"),
        (Some(prefix(&long)), "prefix"),
        (Some(tags(&[])), "tags.tags"),
        (Some(Target::Tags(Tags { tags: many })), "tags.tags"),
        (Some(tags(&["fine", &wide])), "tags.tags[1]"),
        (Some(tags(&["", "fine"])), "tags.tags[0]"),
        (Some(Target::WholeNamespace(false)), "whole_namespace"),
        (Some(Target::WholeTenant(false)), "whole_tenant"),
        (
            Some(Target::Keys(Keys { keys: keys(&[""]) })),
            "keys.keys[0]",
        ),
        (None, "target"),
    ] {
        let request = InvalidateCacheRequest {
            namespace: "No!".into(),
            target,
            ..Default::default()
        };
        let status = clients.cache.clone().invalidate_cache(request).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(reason(&status), "VALIDATION_FAILED");
        assert_eq!(fields(&status), ["namespace", field]);
    }
    invalidate(&clients, prefix(&"p".repeat(1024)))
        .await
        .unwrap();
    let most: Vec<_> = (0..100).map(|n| format!("{n:0128}")).collect();
    invalidate(&clients, Target::Tags(Tags { tags: most }))
        .await
        .unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_confined_key_invalidates_only_what_it_reaches(#[case] kind: Kind) {
    let server = kind.start().await;
    let tenant = server.tenant("acme").await;
    let confined = async |namespaces: &[&str], prefixes: &[&str]| {
        let request = CreateApiKeyRequest {
            tenant_id: "acme".into(),
            display_name: "confined".into(),
            scopes: keys(&["cache.invalidate"]),
            namespaces: keys(namespaces),
            key_prefixes: keys(prefixes),
            ..Default::default()
        };
        let created = server.admin().tenant.create_api_key(request).await.unwrap();
        server.with_key(&created.into_inner().secret)
    };
    tenant
        .clients
        .cache
        .clone()
        .set(set("user:1", "v"))
        .await
        .unwrap();
    let narrow = confined(&[], &["user:"]).await;
    for target in [
        tags(&["t"]),
        prefix("use"),
        prefix("x"),
        Target::WholeNamespace(true),
        Target::WholeTenant(true),
    ] {
        let status = invalidate(&narrow, target).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(reason(&status), "SCOPE_MISSING");
    }
    assert!(get(&tenant.clients, "user:1").await.unwrap().is_some());
    invalidate(&narrow, prefix("user:")).await.unwrap();
    assert_eq!(get(&tenant.clients, "user:1").await.unwrap(), None);
    let elsewhere = confined(&["other"], &[]).await;
    for target in [tags(&["t"]), prefix("user:")] {
        let status = invalidate(&elsewhere, target).await.unwrap_err();
        assert_eq!(reason(&status), "SCOPE_MISSING");
    }
}

/// Entries of the tenant in these tests.
const MANY: usize = 20_000;

async fn fill(clients: &Clients) {
    for chunk in 0..MANY / 1000 {
        let entries = (0..1000).map(|n| {
            let mut entry = item(&format!("key {chunk} {n}"), "v");
            entry.tags = keys(&["some", if n % 10 == 0 { "kept" } else { "gone" }]);
            entry
        });
        let request = riptide_persistence::proto::v1::BatchSetRequest {
            entries: entries.collect(),
            ..Default::default()
        };
        clients.cache.clone().batch_set(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_goes_on_at_another_replica_when_its_own_is_killed() {
    let redis = Redis::start();
    let folder = Folder::new();
    let settings = format!(
        "persistence: {{redis: {{url: '{}'}}, auth: {{admin_key: '{ADMIN_KEY}'}}}}",
        redis.url()
    );
    folder.write("persistence.yml", settings);
    let killed = folder.serve(&[]);
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let mut admin = client(&killed.address, ADMIN_KEY).tenant;
    let created = admin.create_tenant(request).await.unwrap().into_inner();
    let acme = client(&killed.address, &created.secret);
    fill(&acme).await;
    invalidate(&acme, tags(&["gone"])).await.unwrap();
    let left = || redis.cli(&["dbsize"]).trim().parse::<usize>().unwrap();
    let before = left();
    eventually("it sweeps", || left() < before - 500);
    drop(killed);
    assert!(left() > MANY / 10 + 1000, "it was killed before its end");

    let other = folder.serve(&[]);
    let acme = client(&other.address, &created.secret);
    assert_eq!(
        get(&acme, "key 19 1").await.unwrap(),
        None,
        "it is hidden meanwhile"
    );
    assert!(get(&acme, "key 19 10").await.unwrap().is_some());
    let swept = async {
        while entries(&acme).await != MANY as i64 / 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let swept = tokio::time::timeout(Duration::from_secs(120), swept).await;
    swept.expect("the other goes on when the claim has ended");
    let store = crate::store::patient(&redis.url()).await;
    let audit = store.audit(&space(&redis)).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
    assert_eq!(audit.found.entries, MANY as u64 / 10);
    store.close().await.unwrap();
    assert!(get(&acme, "key 19 10").await.unwrap().is_some());
}

/// The sweep is background work: no command of it may keep Redis from its callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_sends_only_commands_that_look_at_few_entries() {
    let redis = Redis::start();
    let server = Server::start(crate::server::Backend::Redis(&redis)).await;
    let acme = server.tenant("acme").await.clients;
    fill(&acme).await;
    redis.cli(&["config", "set", "slowlog-log-slower-than", "0"]);
    redis.cli(&["config", "set", "slowlog-max-len", "100000"]);
    redis.cli(&["slowlog", "reset"]);
    invalidate(&acme, tags(&["gone"])).await.unwrap();
    let swept = async {
        while entries(&acme).await != MANY as i64 / 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let swept = tokio::time::timeout(Duration::from_secs(120), swept).await;
    swept.expect("it is swept");
    // Keys beyond the first 31 arguments are told as `... (n more arguments)`.
    let told = redis.cli(&["slowlog", "get", "-1"]);
    let more = told.lines().filter_map(|line| {
        let line = line.split_once("... (")?.1;
        line.split_once(" more arguments")?.0.parse::<usize>().ok()
    });
    let most = more.max().unwrap_or(0);
    // 64 deletes are keys and two arguments each; 128 entries are looked at.
    assert!(most > 0 && most < 300, "{most}");
}
