//! A checkpoint's life: what it holds, under which id, as of which moment.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use riptide_persistence::{
    codec::{Frame, Place},
    proto::v1::{
        CheckpointKind, CheckpointState, Component as Named, CreateCheckpointRequest,
        CreateSessionRequest, DeleteCheckpointRequest, GetCheckpointRequest,
        InvalidateCacheRequest, ListCheckpointsRequest, Tags, invalidate_cache_request::Target,
    },
    state::checkpoint::{Component, Kind as RecordKind, Record},
    store::{Incarnation, Table},
};
use rstest::rstest;
use tonic::Code;

use super::{Vault, entries, list, of, set, take, take_of, until, verify};
use crate::server::{Clients, Kind, Server, fields, reason};

/// The value in a stored frame.
fn value(record: &Record, life: &str) -> Vec<u8> {
    let place = Place {
        incarnation: Incarnation::parse(life).unwrap(),
        namespace: "default",
        key: "",
        keyring: None,
    };
    let frame = Frame::decode(&record.value, 8 << 20, &place).unwrap();
    frame.unwrap().value.to_vec()
}

fn life_of(records: &[(Component, Record)]) -> String {
    let tenant = records
        .iter()
        .find(|(_, record)| record.kind == RecordKind::Table(Table::Tenant));
    let stored: serde_json::Value = serde_json::from_slice(&tenant.unwrap().1.value).unwrap();
    stored["incarnation"].as_str().unwrap().to_owned()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn it_holds_what_tenants_hold(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    let acme = server.tenant("acme").await;
    let other = server.tenant("other").await;
    for n in 0..50 {
        set(&acme.clients, &format!("key-{n}"), format!("value {n}")).await;
    }
    let big = vec![7; 3 << 20];
    let version = set(&other.clients, "big", big.clone()).await;
    server.key("acme", &["cache.read"]).await;
    let session = CreateSessionRequest {
        user_id: "someone".into(),
        ..Default::default()
    };
    acme.clients
        .state
        .clone()
        .create_session(session)
        .await
        .unwrap();

    let all = [
        Named::Tenants,
        Named::Cache,
        Named::Sessions,
        Named::Config,
        Named::Usage,
    ];
    let request = CreateCheckpointRequest {
        description: "before the move".into(),
        ..of(&all)
    };
    let taken = take(&server.admin(), request).await.unwrap();
    assert_eq!(taken.kind(), CheckpointKind::Manual);
    assert_eq!(taken.state(), CheckpointState::Complete);
    assert_eq!(taken.description, "before the move");
    assert_eq!((taken.tenants, taken.missed.len()), (2, 0));
    assert_eq!(taken.sha256.len(), 64);
    let count = |named: Named| {
        let counts = taken.counts.iter();
        counts
            .filter(|count| count.component() == named)
            .map(|count| count.records)
            .sum::<i64>()
    };
    assert_eq!(count(Named::Cache), 51);
    assert_eq!(count(Named::Sessions), 1);
    // Two tenants, three keys, and the secret they are compared by; uses of keys come
    // on top as they are noted.
    assert!((6..=9).contains(&count(Named::Tenants)), "{taken:?}");
    assert!(count(Named::Config) > 50 && count(Named::Usage) > 0);

    let contents = vault.contents(&taken.checkpoint_id).await;
    let life = life_of(&contents["acme"]);
    let sessions = contents["acme"]
        .iter()
        .filter(|(of, _)| *of == Component::Sessions);
    for (_, record) in sessions {
        assert_eq!(record.kind, RecordKind::Table(Table::Session));
        assert!(record.expire_ms.is_some());
    }
    let held = entries(&contents["acme"]);
    assert_eq!(held.len(), 50);
    for n in 0..50 {
        let record = &held[&format!("default:key-{n}")];
        assert_eq!(value(record, &life), format!("value {n}").into_bytes());
        assert!(record.version > 0 && record.expire_ms.is_some());
    }
    let held = entries(&contents["other"]);
    assert_eq!(held["default:big"].version, version as u64);
    assert_eq!(value(&held["default:big"], &life), big);
    let secret = contents[""]
        .iter()
        .find(|(_, record)| record.kind == RecordKind::Table(Table::Meta));
    assert_eq!(&secret.unwrap().1.path[..], b"pepper");
    let listen = contents[""]
        .iter()
        .find(|(_, record)| record.path == "auth.admin_key");
    let shown = String::from_utf8_lossy(&listen.unwrap().1.value).into_owned();
    assert!(!shown.contains("the-admin-key"), "{shown}");

    let verified = verify(&server, &taken.checkpoint_id).await.unwrap();
    assert!(verified.valid, "{verified:?}");
    assert_eq!(verified.checkpoint.unwrap(), taken);

    let mut state = server.admin().state;
    let get = |id: &str| GetCheckpointRequest {
        checkpoint_id: id.into(),
    };
    let found = state.get_checkpoint(get(&taken.checkpoint_id)).await;
    assert_eq!(found.unwrap().into_inner().checkpoint.unwrap(), taken);
    let delete = DeleteCheckpointRequest {
        checkpoint_id: taken.checkpoint_id.clone(),
        allow_missing: false,
    };
    let gone = state.delete_checkpoint(delete.clone()).await.unwrap();
    assert_eq!(gone.into_inner().checkpoint.unwrap(), taken);
    let missing = state.delete_checkpoint(delete.clone()).await.unwrap_err();
    assert_eq!(reason(&missing), "CHECKPOINT_NOT_FOUND");
    let missing = state.get_checkpoint(get(&taken.checkpoint_id)).await;
    assert_eq!(reason(&missing.unwrap_err()), "CHECKPOINT_NOT_FOUND");
    let missing = verify(&server, &taken.checkpoint_id).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let allowed = DeleteCheckpointRequest {
        allow_missing: true,
        ..delete
    };
    let nothing = state.delete_checkpoint(allowed).await.unwrap().into_inner();
    assert_eq!(nothing.checkpoint, None);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_was_not_asked_for_is_not_in_it(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    let acme = server.tenant("acme").await;
    server.tenant("other").await;
    set(&acme.clients, "key", "value").await;
    // By default all but the cache.
    let default = take(&server.admin(), CreateCheckpointRequest::default())
        .await
        .unwrap();
    assert!(!default.components.contains(&Named::Cache.into()));
    let contents = vault.contents(&default.checkpoint_id).await;
    assert!(entries(&contents["acme"]).is_empty());

    let one = CreateCheckpointRequest {
        tenant_ids: vec!["acme".into()],
        ..of(&[Named::Cache])
    };
    let taken = take(&server.admin(), one).await.unwrap();
    assert_eq!(taken.tenant_ids, ["acme"]);
    let contents = vault.contents(&taken.checkpoint_id).await;
    let names: Vec<_> = contents.keys().map(String::as_str).collect();
    assert_eq!(names, ["", "acme"]);
    assert!(contents[""].is_empty());
    assert!(
        contents["acme"]
            .iter()
            .all(|(of, _)| *of == Component::Cache)
    );
    assert_eq!(entries(&contents["acme"]).len(), 1);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_is_gone_is_not_in_it(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    let acme = server.tenant("acme").await;
    for (namespace, key, tags) in [
        ("default", "stays", vec![]),
        ("default", "tagged", vec!["old".to_owned()]),
        ("default", "user:1", vec![]),
        ("gone", "key", vec![]),
    ] {
        let request = riptide_persistence::proto::v1::SetRequest {
            namespace: namespace.into(),
            key: key.into(),
            value: "value".into(),
            tags,
            ..Default::default()
        };
        acme.clients.cache.clone().set(request).await.unwrap();
    }
    for (namespace, target) in [
        ("gone", Target::WholeNamespace(true)),
        ("default", Target::Prefix("user:".into())),
        (
            "default",
            Target::Tags(Tags {
                tags: vec!["old".into()],
            }),
        ),
    ] {
        let request = InvalidateCacheRequest {
            namespace: namespace.into(),
            target: Some(target),
            ..Default::default()
        };
        acme.clients
            .cache
            .clone()
            .invalidate_cache(request)
            .await
            .unwrap();
    }
    let taken = take_of(&server, &[Named::Cache]).await;
    let contents = vault.contents(&taken.checkpoint_id).await;
    let held = entries(&contents["acme"]);
    assert_eq!(held.keys().collect::<Vec<_>>(), ["default:stays"]);
}

/// A tenant's one writer puts n under the key n modulo 40: whatever moment it is, the 40
/// values there follow one another without a gap.
#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_of_one_moment_while_writes_go_on(#[case] kind: Kind) {
    const KEYS: u64 = 40;
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for tenant in ["one", "two", "three"] {
        let tenant = server.tenant(tenant).await;
        let written = Arc::new(AtomicU64::new(0));
        let (over, wrote) = (over.clone(), written.clone());
        let task = tokio::spawn(async move {
            for n in 0.. {
                let key = format!("key-{}", n % KEYS);
                set(&tenant.clients, &key, n.to_string()).await;
                wrote.store(n, Relaxed);
                if over.load(Relaxed) {
                    break;
                }
            }
        });
        writers.push((written, task));
    }
    for round in 0..5 {
        until("they write", async || {
            let wrote =
                |(written, _): &(Arc<AtomicU64>, _)| written.load(Relaxed) > KEYS + round * 20;
            writers.iter().all(wrote)
        })
        .await;
        let before: Vec<u64> = writers.iter().map(|(n, _)| n.load(Relaxed)).collect();
        let taken = take_of(&server, &[Named::Tenants, Named::Cache]).await;
        let after: Vec<u64> = writers.iter().map(|(n, _)| n.load(Relaxed)).collect();
        let contents = vault.contents(&taken.checkpoint_id).await;
        for (at, tenant) in ["one", "two", "three"].into_iter().enumerate() {
            let life = life_of(&contents[tenant]);
            let mut values: Vec<u64> = entries(&contents[tenant])
                .values()
                .map(|record| String::from_utf8(value(record, &life)).unwrap())
                .map(|text| text.parse().unwrap())
                .collect();
            values.sort_unstable();
            assert_eq!(values.len() as u64, KEYS, "{tenant} in round {round}");
            let (first, last) = (values[0], values[values.len() - 1]);
            assert_eq!(
                last - first,
                KEYS - 1,
                "{tenant} in round {round}: {values:?}"
            );
            // Of a moment between the call and its answer.
            assert!(last >= before[at] && last <= after[at] + 1);
        }
        assert!(verify(&server, &taken.checkpoint_id).await.unwrap().valid);
    }
    over.store(true, Relaxed);
    for (_, task) in writers {
        task.await.unwrap();
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn lists_are_paged_and_the_newest_is_first(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    server.tenant("acme").await;
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(take_of(&server, &[Named::Tenants]).await);
    }
    // What has no manifest is none, and is told of; what is no checkpoint is not.
    let unfinished = "20200101t000000-00000000";
    std::fs::create_dir_all(vault.part(unfinished, "")).unwrap();
    std::fs::write(vault.part(unfinished, "chunk-000000"), b"begun").unwrap();
    std::fs::create_dir_all(vault.part("lost+found", "")).unwrap();

    let mut state = server.admin().state;
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListCheckpointsRequest {
            page_size: 2,
            page_token,
        };
        let page = state.list_checkpoints(request).await.unwrap().into_inner();
        assert!(page.checkpoints.len() <= 2);
        found.extend(page.checkpoints);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut ids: Vec<_> = taken.iter().map(|c| c.checkpoint_id.clone()).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids.push(unfinished.into());
    let listed: Vec<_> = found.iter().map(|c| c.checkpoint_id.clone()).collect();
    assert_eq!(listed, ids);
    let last = found.last().unwrap();
    assert_eq!(last.state(), CheckpointState::Incomplete);
    assert_eq!(last.size_bytes, 5);

    let told = verify(&server, unfinished).await.unwrap();
    assert!(!told.valid);
    assert_eq!(told.damaged_part, "manifest.json");
    let request = ListCheckpointsRequest {
        page_size: 2,
        page_token: "nonsense".into(),
    };
    let refused = state.list_checkpoints(request).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");
    let delete = DeleteCheckpointRequest {
        checkpoint_id: unfinished.into(),
        allow_missing: false,
    };
    state.delete_checkpoint(delete).await.unwrap();
    assert!(!vault.part(unfinished, "").exists());
}

async fn refused(admin: &Clients, request: CreateCheckpointRequest) -> tonic::Status {
    take(admin, request).await.unwrap_err()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_makes_no_sense_is_named(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    let acme = server.tenant("acme").await;
    let admin = server.admin();
    let bad = CreateCheckpointRequest {
        tenant_ids: vec!["acme".into(), "../x".into()],
        components: vec![0, 99, Named::Cache.into()],
        description: "d".repeat(1025),
        request_id: "no uuid".into(),
    };
    let status = refused(&admin, bad).await;
    let mut named = fields(&status);
    named.sort_unstable();
    assert_eq!(
        named,
        [
            "components[0]",
            "components[1]",
            "description",
            "request_id",
            "tenant_ids[1]"
        ]
    );
    let nobody = CreateCheckpointRequest {
        tenant_ids: vec!["nobody".into()],
        ..Default::default()
    };
    let status = refused(&admin, nobody).await;
    assert_eq!(reason(&status), "TENANT_NOT_FOUND");
    let status = refused(&acme.clients, CreateCheckpointRequest::default()).await;
    assert_eq!(reason(&status), "SCOPE_MISSING");

    // Ids that would leave the folder, were they used as they come.
    let outside = vault.beside("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("manifest.json"), b"{}").unwrap();
    let mut state = server.admin().state;
    for id in [
        "../outside",
        "..",
        "",
        "/",
        "a/../../outside",
        "20261125t213059-4b0c9dq/",
    ] {
        let checkpoint_id = id.to_owned();
        let get = state.get_checkpoint(GetCheckpointRequest {
            checkpoint_id: checkpoint_id.clone(),
        });
        assert_eq!(fields(&get.await.unwrap_err()), ["checkpoint_id"], "{id}");
        let told = verify(&server, id).await.unwrap_err();
        assert_eq!(fields(&told), ["checkpoint_id"], "{id}");
        let delete = state.delete_checkpoint(DeleteCheckpointRequest {
            checkpoint_id,
            allow_missing: true,
        });
        assert_eq!(
            fields(&delete.await.unwrap_err()),
            ["checkpoint_id"],
            "{id}"
        );
    }
    assert!(outside.join("manifest.json").exists());
    std::fs::remove_dir_all(&outside).unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_request_takes_one_checkpoint_and_only_one_is_taken_at_a_time(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    server.tenant("acme").await;
    let admin = server.admin();
    let request = CreateCheckpointRequest {
        request_id: "7c9a1c1e-4b7d-4c6e-9f0a-3f8f2f1f0b5a".into(),
        ..of(&[Named::Tenants])
    };
    let first = take(&admin, request.clone()).await.unwrap();
    assert_eq!(take(&admin, request.clone()).await.unwrap(), first);
    let other = CreateCheckpointRequest {
        description: "another".into(),
        ..request
    };
    assert_eq!(reason(&refused(&admin, other).await), "REQUEST_ID_REUSED");

    // Many at once: each is taken, or refused because another is.
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let admin = server.admin();
        asked.spawn(async move { take(&admin, of(&[Named::Tenants])).await });
    }
    let mut taken = 0;
    for result in asked.join_all().await {
        match result {
            Ok(_) => taken += 1,
            Err(status) => assert_eq!(reason(&status), "REQUEST_IN_PROGRESS"),
        }
    }
    assert!(taken >= 1);
}

/// The caller leaves, and the checkpoint is taken all the same.
#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn it_goes_on_when_its_caller_leaves(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    server.tenant("acme").await;
    let mut state = server.admin().state;
    let events = state.create_checkpoint(of(&[Named::Tenants])).await;
    drop(events.unwrap());
    whole(&server, 1).await;
}

/// Waits until there are so many whole checkpoints.
async fn whole(server: &Server, count: usize) {
    until("checkpoints are whole", async || {
        let listed = list(server).await;
        let whole = listed
            .iter()
            .filter(|c| c.state() == CheckpointState::Complete);
        whole.count() == count
    })
    .await;
}
