//! What a flush hides, from whom, and what is left of it afterwards. It does not
//! know how often the store is asked.

use std::sync::Arc;

use riptide_persistence::{
    cache::{Condition, Freshness, Range, Set},
    error::Error,
    store::{Batch, Key, Table, Write},
    tenant::{Tenancy, reclaim},
};

use super::{Rig, found, get, keys, set, sweeper, tenancy};

/// Works off whatever jobs a tenant has.
pub async fn reclaimed(rig: &Rig, tenancy: &Tenancy) {
    // A job of a flush that found another's is kept until its own cannot come.
    rig.pass(10_001);
    let done = async {
        while !reclaim::pending(&rig.store, tenancy.incarnation)
            .await
            .unwrap()
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = done => {}
        () = reclaim::run(rig.store.clone(), sweeper()) => unreachable!("it runs for ever"),
    }
}

#[tokio::test]
async fn what_a_flush_hid_is_absent_to_every_call() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    for key in ["a", "b", "c", "d", "e"] {
        rig.set(&tenant, key, "before").await;
    }
    cache
        .set(&tenant, "other", &set("a", "kept"))
        .await
        .unwrap();
    let before = rig.get(&tenant, "a").await.unwrap().version;
    cache.flush_namespace(&tenant, "").await.unwrap();

    let fresh = Freshness::default();
    assert_eq!(rig.get(&tenant, "a").await, None);
    let read = cache
        .batch_get(&tenant, "", &keys(&["a", "b"]), &fresh)
        .await;
    assert_eq!(read.unwrap(), [Ok(None), Ok(None)]);
    let range = Range::new(&tenant, "", "", 0).unwrap();
    assert!(
        cache
            .list_keys(&tenant, &range, None)
            .await
            .unwrap()
            .keys
            .is_empty()
    );
    assert!(
        !cache
            .touch(&tenant, "", "a", Some(1000))
            .await
            .unwrap()
            .found
    );
    assert!(!cache.delete(&tenant, "", "a", 0).await.unwrap());
    assert!(!cache.delete(&tenant, "", "b", before as i64).await.unwrap());
    assert_eq!(
        cache
            .batch_delete(&tenant, "", &keys(&["b"]))
            .await
            .unwrap(),
        [Ok(false)]
    );
    let flushed = cache.invalidate_keys(&tenant, "", &keys(&["c", "d"])).await;
    assert_eq!(flushed.unwrap().invalidated, 0);
    let conditional = |condition, if_version| Set {
        condition: Some(condition),
        if_version,
        ..set("e", "after")
    };
    let present = conditional(Condition::IfPresent, 0);
    assert_eq!(found(cache.set(&tenant, "", &present).await), None);
    let hidden = conditional(Condition::None, before as i64);
    assert_eq!(found(cache.set(&tenant, "", &hidden).await), None);
    let absent = conditional(Condition::IfAbsent, 0);
    cache.set(&tenant, "", &absent).await.unwrap();
    assert_eq!(rig.text(&tenant, "e").await.unwrap(), "after");
    assert!(found(cache.set(&tenant, "", &absent).await).is_some());

    let kept = get(cache, &tenant, "other", "a").await.unwrap();
    assert_eq!(&kept.unwrap().value[..], b"kept");
    assert!(rig.store.audit(&tenant.space).await.unwrap().agrees());
}

#[tokio::test]
async fn a_flushed_tenant_is_empty_and_its_entries_are_counted() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    for namespace in ["a", "b", "c"] {
        cache.set(&tenant, namespace, &set("k", "v")).await.unwrap();
    }
    cache.flush_namespace(&tenant, "a").await.unwrap();
    let flushed = cache.flush_tenant(&tenant).await.unwrap();
    assert_eq!((flushed.invalidated, flushed.generation), (3, 1));
    for namespace in ["a", "b", "c"] {
        assert_eq!(get(cache, &tenant, namespace, "k").await.unwrap(), None);
    }
    let again = cache.flush_tenant(&tenant).await.unwrap();
    assert_eq!((again.invalidated, again.generation), (0, 2));
    cache.set(&tenant, "a", &set("k", "new")).await.unwrap();
    let keyed = cache
        .invalidate_keys(&tenant, "a", &keys(&["k", "k", "absent"]))
        .await;
    let keyed = keyed.unwrap();
    assert_eq!((keyed.invalidated, keyed.generation), (1, 2));
}

#[tokio::test]
async fn another_replica_sees_a_flush_at_once() {
    let rig = Rig::new();
    let tenant = tenancy();
    let other = rig.replica();
    let absent = Set {
        condition: Some(Condition::IfAbsent),
        ..set("k", "v")
    };
    rig.set(&tenant, "k", "v").await;
    assert!(get(&other, &tenant, "", "k").await.unwrap().is_some());

    rig.cache.flush_namespace(&tenant, "").await.unwrap();
    assert_eq!(get(&other, &tenant, "", "k").await.unwrap(), None);
    rig.set(&tenant, "k", "v").await;
    rig.cache.flush_namespace(&tenant, "").await.unwrap();
    other.set(&tenant, "", &absent).await.unwrap();

    rig.cache.flush_tenant(&tenant).await.unwrap();
    let range = Range::new(&tenant, "", "", 0).unwrap();
    assert!(
        other
            .list_keys(&tenant, &range, None)
            .await
            .unwrap()
            .keys
            .is_empty()
    );
    other.set(&tenant, "", &absent).await.unwrap();
    assert!(rig.get(&tenant, "k").await.is_some());
    rig.cache.flush_tenant(&tenant).await.unwrap();
    assert!(!other.touch(&tenant, "", "k", Some(1)).await.unwrap().found);
}

#[tokio::test]
async fn the_background_gives_the_bytes_back() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    for n in 0..600 {
        cache
            .set(&tenant, "a", &set(&format!("key {n}"), "v"))
            .await
            .unwrap();
    }
    cache.set(&tenant, "b", &set("k", "v")).await.unwrap();
    cache.flush_namespace(&tenant, "a").await.unwrap();
    cache.set(&tenant, "a", &set("key 1", "new")).await.unwrap();
    assert!(rig.store.usage(&tenant.space).await.unwrap().entries > 2);
    reclaimed(&rig, &tenant).await;
    assert_eq!(rig.store.usage(&tenant.space).await.unwrap().entries, 2);
    assert!(get(cache, &tenant, "a", "key 1").await.unwrap().is_some());

    cache.flush_tenant(&tenant).await.unwrap();
    let usage = rig.store.usage(&tenant.space).await.unwrap();
    assert!(usage.orphaned_bytes > 0);
    reclaimed(&rig, &tenant).await;
    let usage = rig.store.usage(&tenant.space).await.unwrap();
    assert_eq!(
        (usage.entries, usage.bytes, usage.orphaned_bytes),
        (0, 0, 0)
    );
    assert!(rig.store.audit(&tenant.space).await.unwrap().agrees());
}

/// The control record that holds the floors, as text.
pub async fn floors(rig: &Rig, tenancy: &Tenancy) -> String {
    let key = Key::new(Table::Control, &b"floors"[..]);
    let read = rig.store.read(&tenancy.space, 0, &[key]).await.unwrap();
    let record = read.records.into_iter().next().unwrap();
    let Some(record) = record else {
        return String::new();
    };
    let held: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
    // Those that were dropped of late hide nothing; they void leases only.
    match held.get("floors") {
        Some(floors) => floors.to_string(),
        None => "{}".to_owned(),
    }
}

#[tokio::test]
async fn a_floor_is_dropped_when_nothing_is_left_below_it() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    cache.set(&tenant, "a", &set("k", "v")).await.unwrap();
    cache.flush_namespace(&tenant, "a").await.unwrap();
    cache.flush_namespace(&tenant, "b").await.unwrap();
    let held = floors(&rig, &tenant).await;
    assert!(held.contains("\"a\"") && held.contains("\"b\""), "{held}");
    reclaimed(&rig, &tenant).await;
    assert_eq!(floors(&rig, &tenant).await, "{}");
    assert_eq!(get(cache, &tenant, "a", "k").await.unwrap(), None);
    cache.flush_namespace(&tenant, "c").await.unwrap();
    let held = floors(&rig, &tenant).await;
    assert!(!held.contains("\"a\"") && held.contains("\"c\""), "{held}");

    cache.flush_tenant(&tenant).await.unwrap();
    assert_eq!(floors(&rig, &tenant).await, "{}");
}

#[tokio::test]
async fn floors_are_bounded() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    // As a replica of an older release left them.
    let held: Vec<_> = (0..1000).map(|n| format!("\"n{n}\":1")).collect();
    let record = format!("{{\"floors\":{{{}}}}}", held.join(","));
    let write = Write::put(Key::new(Table::Control, &b"floors"[..]), record);
    let batch = Batch::of([write]);
    rig.store.commit(&tenant.space, batch).await.unwrap();

    match cache.flush_namespace(&tenant, "one-more").await {
        Err(Error::QuotaExceeded {
            limit: 1000,
            used: 1000,
            retry_after,
            ..
        }) => assert!(retry_after.is_some()),
        other => panic!("{other:?}"),
    }
    let jobs = reclaim::pending(&rig.store, tenant.incarnation);
    assert!(jobs.await.unwrap().is_empty());
    // One that is held already can be raised, and the whole tenant can go.
    cache.flush_namespace(&tenant, "n7").await.unwrap();
    cache.flush_tenant(&tenant).await.unwrap();
    cache.flush_namespace(&tenant, "one-more").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_from_before_a_flush_is_seen_after_it() {
    let rig = Arc::new(Rig::new());
    let tenant = tenancy();
    let mut calls = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let (rig, tenant) = (rig.clone(), tenant.clone());
        let cache = if caller % 2 == 0 {
            rig.cache.clone()
        } else {
            rig.replica()
        };
        calls.spawn(async move {
            let key = format!("key {caller}");
            for round in 0..40 {
                let written = cache
                    .set(&tenant, "", &set(&key, "v"))
                    .await
                    .unwrap()
                    .version;
                if round % 10 == caller {
                    cache.flush_namespace(&tenant, "").await.unwrap();
                    let seen = get(&cache, &tenant, "", &key).await.unwrap();
                    assert_eq!(seen, None);
                } else if round % 20 == caller + 1 {
                    cache.flush_tenant(&tenant).await.unwrap();
                    assert_eq!(get(&cache, &tenant, "", &key).await.unwrap(), None);
                } else if let Some(seen) = get(&cache, &tenant, "", &key).await.unwrap() {
                    assert_eq!(seen.version, written);
                }
            }
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    assert!(rig.store.audit(&tenant.space).await.unwrap().agrees());
    reclaimed(&rig, &tenant).await;
    assert!(rig.store.audit(&tenant.space).await.unwrap().agrees());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_creates_an_entry() {
    let rig = Arc::new(Rig::new());
    let tenant = tenancy();
    rig.set(&tenant, "k", "hidden").await;
    rig.cache.flush_namespace(&tenant, "").await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for caller in 0..16 {
        let (rig, tenant) = (rig.clone(), tenant.clone());
        calls.spawn(async move {
            let cache = if caller % 2 == 0 {
                rig.cache.clone()
            } else {
                rig.replica()
            };
            let absent = Set {
                condition: Some(Condition::IfAbsent),
                ..set("k", "v")
            };
            cache.set(&tenant, "", &absent).await.is_ok()
        });
    }
    assert_eq!(
        calls
            .join_all()
            .await
            .into_iter()
            .filter(|&won| won)
            .count(),
        1
    );
}
