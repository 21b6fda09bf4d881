//! Prefixes and tags that disappear at once: from every call, race-free, and then
//! from the store. It does not know how floors are kept.

use std::sync::Arc;

use riptide_persistence::{
    cache::{Condition, Freshness, Range, Set},
    error::Error,
    store::{Batch, Handle, Key, Write},
    tenant::{
        Tenancy,
        reclaim::{self, Work},
    },
};

use super::{
    Rig, fields,
    flush::{floors, reclaimed},
    found, get, keys, set, sweeper, tenancy,
};
use crate::tenant::cut::Cut;

fn tagged<'a>(key: &'a str, value: &'a str, tags: &'a [String]) -> Set<'a> {
    Set {
        tags,
        ..set(key, value)
    }
}

/// Entries `a` to `e` whose tag is `gone`, and `kept`, whose tag is another.
async fn fill(rig: &Rig, tenancy: &Tenancy) -> u64 {
    let (gone, kept) = (keys(&["kept", "gone"]), keys(&["kept"]));
    for key in ["a", "b", "c", "d", "e"] {
        let set = tagged(key, "before", &gone);
        rig.cache.set(tenancy, "", &set).await.unwrap();
    }
    for (namespace, tags) in [("", &kept), ("other", &gone)] {
        let set = tagged("kept", "kept", tags);
        rig.cache.set(tenancy, namespace, &set).await.unwrap();
    }
    rig.get(tenancy, "a").await.unwrap().version
}

#[tokio::test]
async fn what_a_tag_hid_is_absent_to_every_call() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let before = fill(&rig, &tenant).await;
    let tags = keys(&["none", "gone"]);
    let flushed = cache.invalidate_tags(&tenant, "", &tags).await.unwrap();
    assert_eq!((flushed.invalidated, flushed.generation), (0, 0));
    absent_to_every_call(&rig, &tenant, before).await;
}

#[tokio::test]
async fn what_a_prefix_hid_is_absent_to_every_call() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let before = fill(&rig, &tenant).await;
    for prefix in ["a", "b", "c", "d", "e"] {
        cache.invalidate_prefix(&tenant, "", prefix).await.unwrap();
    }
    absent_to_every_call(&rig, &tenant, before).await;
}

async fn absent_to_every_call(rig: &Rig, tenant: &Tenancy, before: u64) {
    let cache = &rig.cache;
    let fresh = Freshness::default();
    assert_eq!(rig.get(tenant, "a").await, None);
    let asked = keys(&["a", "kept", "b"]);
    let read = cache.batch_get(tenant, "", &asked, &fresh);
    let read: Vec<_> = read
        .await
        .unwrap()
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        read.iter().map(Option::is_some).collect::<Vec<_>>(),
        [false, true, false]
    );
    let range = Range::new(tenant, "", "", 0).unwrap();
    let listed = cache.list_keys(tenant, &range, None).await.unwrap().keys;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].key, "kept");
    let touched = cache.touch(tenant, "", "a", Some(1000)).await.unwrap();
    assert!(!touched.found);
    assert!(!cache.delete(tenant, "", "a", 0).await.unwrap());
    assert!(!cache.delete(tenant, "", "b", before as i64).await.unwrap());
    let deleted = cache.batch_delete(tenant, "", &keys(&["b", "c"])).await;
    assert_eq!(deleted.unwrap(), [Ok(false), Ok(false)]);
    let some = keys(&["c", "d", "kept", "kept"]);
    let flushed = cache.invalidate_keys(tenant, "", &some);
    assert_eq!(flushed.await.unwrap().invalidated, 1);
    let conditional = |condition, if_version| Set {
        condition: Some(condition),
        if_version,
        ..set("e", "after")
    };
    let present = conditional(Condition::IfPresent, 0);
    assert_eq!(found(cache.set(tenant, "", &present).await), None);
    let hidden = conditional(Condition::None, before as i64);
    assert_eq!(found(cache.set(tenant, "", &hidden).await), None);
    let absent = conditional(Condition::IfAbsent, 0);
    let twice = cache
        .batch_set(tenant, "", &[absent, absent])
        .await
        .unwrap();
    assert!(
        twice[0].is_ok() && twice[1].is_err(),
        "it sees the one before it"
    );
    assert_eq!(rig.text(tenant, "e").await.unwrap(), "after");
    assert!(found(cache.set(tenant, "", &absent).await).is_some());
    cache.set(tenant, "", &set("a", "after")).await.unwrap();
    assert_eq!(rig.text(tenant, "a").await.unwrap(), "after");

    let kept = get(cache, tenant, "other", "kept").await.unwrap();
    assert_eq!(&kept.unwrap().value[..], b"kept");
    assert!(rig.store.audit(&tenant.space).await.unwrap().agrees());
    // Another replica sees it so, too, and so it is when all is removed.
    let replica = rig.replica();
    assert_eq!(get(&replica, tenant, "", "b").await.unwrap(), None);
    reclaimed(rig, tenant).await;
    assert_eq!(floors(rig, tenant).await, "{}");
    for (key, there) in [("a", true), ("b", false), ("d", false), ("e", true)] {
        assert_eq!(rig.get(tenant, key).await.is_some(), there, "{key}");
    }
    let audit = rig.store.audit(&tenant.space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
    assert_eq!(audit.found.entries, 3, "a, e and the other namespace's");
}

#[tokio::test]
async fn one_sweep_removes_what_all_floors_hid_and_nothing_else() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let (red, blue) = (keys(&["red"]), keys(&["blue", "large"]));
    for n in 0..600 {
        let key = format!("{}:{n}", n % 3);
        let tags = if n % 2 == 0 { &red } else { &blue };
        for namespace in ["a", "b"] {
            let set = tagged(&key, "v", tags);
            cache.set(&tenant, namespace, &set).await.unwrap();
        }
    }
    cache.invalidate_tags(&tenant, "a", &red).await.unwrap();
    cache.invalidate_prefix(&tenant, "a", "1:").await.unwrap();
    cache.flush_namespace(&tenant, "b").await.unwrap();
    cache
        .set(&tenant, "a", &tagged("1:1", "new", &red))
        .await
        .unwrap();
    let before = rig.counters.calls();
    reclaimed(&rig, &tenant).await;
    let asked = rig.counters.calls().since(before);
    assert_eq!(asked.reclaim, 0);
    assert!(asked.commit < 40, "{asked:?}");
    let usage = rig.store.usage(&tenant.space).await.unwrap();
    // Of 600 in `a` the odd ones of two thirds, and one that is new.
    assert_eq!(usage.entries, 201);
    let audit = rig.store.audit(&tenant.space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
    assert_eq!(floors(&rig, &tenant).await, "{}");
    for n in 0..600 {
        let key = format!("{}:{n}", n % 3);
        let there = n == 1 || n % 2 == 1 && n % 3 != 1;
        let seen = get(cache, &tenant, "a", &key).await.unwrap();
        assert_eq!(seen.is_some(), there, "{key}");
        assert_eq!(get(cache, &tenant, "b", &key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn tags_are_found_wherever_a_frame_holds_them() {
    // More than a listing reads of an entry at first.
    let rig = Rig::with(|settings| {
        settings.max_tags = 60;
        settings.max_tag_bytes = 200;
    });
    let (tenant, cache) = (tenancy(), &rig.cache);
    let mut tags: Vec<_> = (0..40).map(|n| format!("{n:0200}")).collect();
    cache
        .set(&tenant, "", &tagged("kept", "v", &tags))
        .await
        .unwrap();
    tags.push("last".into());
    cache
        .set(&tenant, "", &tagged("gone", "v", &tags))
        .await
        .unwrap();
    // A value does not make a tag.
    let looks = "\u{4}last".repeat(100);
    cache.set(&tenant, "", &set("value", &looks)).await.unwrap();
    cache
        .invalidate_tags(&tenant, "", &keys(&["last"]))
        .await
        .unwrap();
    let listed = async || {
        let range = Range::new(&tenant, "", "", 0).unwrap();
        let page = cache.list_keys(&tenant, &range, None).await.unwrap();
        let mut names: Vec<_> = page.keys.into_iter().map(|info| info.key).collect();
        names.sort();
        names
    };
    assert_eq!(listed().await, ["kept", "value"]);
    reclaimed(&rig, &tenant).await;
    assert_eq!(listed().await, ["kept", "value"]);
    assert_eq!(rig.store.usage(&tenant.space).await.unwrap().entries, 2);
}

#[tokio::test]
async fn what_cannot_be_told_from_a_tagged_entry_goes_with_it() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    cache.set(&tenant, "", &set("plain", "v")).await.unwrap();
    let view = rig.store.read(&tenant.space, 0, &[]).await.unwrap().view;
    let put = |key: &str, frame: &'static [u8]| Write::put(Key::entry("default", key), frame);
    let batch = Batch {
        view: Some(view),
        ..Batch::of([put("later", b"\xf5\x63later"), put("damaged", b"damaged")])
    };
    rig.store.commit(&tenant.space, batch).await.unwrap();
    cache
        .invalidate_tags(&tenant, "", &keys(&["t"]))
        .await
        .unwrap();
    assert!(matches!(
        get(cache, &tenant, "", "damaged").await,
        Err(Error::EntryCorrupt(_))
    ));
    assert!(
        cache.delete(&tenant, "", "damaged", 0).await.unwrap(),
        "it can be removed"
    );
    reclaimed(&rig, &tenant).await;
    assert_eq!(rig.store.usage(&tenant.space).await.unwrap().entries, 1);
    assert!(get(cache, &tenant, "", "plain").await.unwrap().is_some());
}

/// The jobs a tenant has.
async fn jobs(rig: &Rig, tenancy: &Tenancy) -> usize {
    let jobs = reclaim::pending(&rig.store, tenancy.incarnation)
        .await
        .unwrap();
    assert!(jobs.iter().all(|job| *job == Work::Hidden));
    jobs.len()
}

#[tokio::test]
async fn a_replica_that_dies_between_job_and_floor_leaves_nothing_that_stays() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.set(&tenant, "k", "v").await;
    let tags = keys(&["t"]);
    // The job is left; the floor is not, or nobody knows whether it is.
    for (commits, answer_lost, raised) in [(1, false, false), (2, true, true)] {
        let store: Handle = Arc::new(Cut::after(rig.store.clone(), commits, answer_lost));
        let dying = riptide_persistence::cache::Cache::new(
            store,
            Arc::default(),
            Arc::new(super::settings()),
        );
        assert!(dying.invalidate_tags(&tenant, "", &tags).await.is_err());
        assert_eq!(jobs(&rig, &tenant).await, 1);
        assert_eq!(floors(&rig, &tenant).await.contains("\"t\""), raised);
        reclaimed(&rig, &tenant).await;
        assert_eq!(floors(&rig, &tenant).await, "{}");
        assert!(rig.get(&tenant, "k").await.is_some());
    }
}

#[tokio::test]
async fn a_floor_that_comes_after_its_job_was_given_up_has_another() {
    let rig = Rig::new();
    let tenant = tenancy();
    let tags = keys(&["t"]);
    rig.cache
        .set(&tenant, "", &tagged("k", "v", &tags))
        .await
        .unwrap();
    // This replica knows the floors, and then stands still for long after it left
    // its job: its commit comes last.
    let slow = rig.replica();
    get(&slow, &tenant, "", "k").await.unwrap();
    let left = reclaim::enqueue(&rig.store, tenant.incarnation, Work::Hidden);
    left.await.unwrap();
    reclaimed(&rig, &tenant).await;
    slow.invalidate_tags(&tenant, "", &tags).await.unwrap();
    assert_eq!(jobs(&rig, &tenant).await, 1);
    assert_eq!(rig.get(&tenant, "k").await, None);
    reclaimed(&rig, &tenant).await;
    assert_eq!(rig.store.usage(&tenant.space).await.unwrap().entries, 0);
}

#[tokio::test]
async fn a_sweep_that_was_cut_short_is_resumed_by_another_replica() {
    let rig = Rig::new();
    let (tenant, tags) = (tenancy(), keys(&["t"]));
    let names: Vec<_> = (0..900).map(|n| format!("key {n}")).collect();
    let sets: Vec<_> = names.iter().map(|name| tagged(name, "v", &tags)).collect();
    rig.cache.batch_set(&tenant, "", &sets).await.unwrap();
    rig.set(&tenant, "kept", "v").await;
    rig.cache.invalidate_tags(&tenant, "", &tags).await.unwrap();

    // It claims the job, removes some hundred entries, and is gone.
    let dying: Handle = Arc::new(Cut::after(rig.store.clone(), 4, false));
    let left = async || rig.store.usage(&tenant.space).await.unwrap().entries;
    tokio::select! {
        () = async { while left().await > 901 - 3 * 64 { tokio::task::yield_now().await } } => {}
        () = reclaim::run(dying, sweeper()) => unreachable!("it runs for ever"),
    }
    assert!(left().await > 1 && floors(&rig, &tenant).await.contains("\"t\""));
    assert_eq!(rig.get(&tenant, "key 899").await, None);
    let audit = rig.store.audit(&tenant.space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
    // Its claim ends by itself.
    reclaimed(&rig, &tenant).await;
    assert_eq!(
        (left().await, floors(&rig, &tenant).await),
        (1, "{}".into())
    );
    assert!(rig.get(&tenant, "kept").await.is_some());
    let audit = rig.store.audit(&tenant.space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
}

#[tokio::test]
async fn a_tenant_that_is_flushed_meanwhile_ends_the_sweep() {
    let rig = Rig::new();
    let (tenant, tags) = (tenancy(), keys(&["t"]));
    rig.cache
        .set(&tenant, "", &tagged("k", "v", &tags))
        .await
        .unwrap();
    rig.cache.invalidate_tags(&tenant, "", &tags).await.unwrap();
    rig.cache.flush_tenant(&tenant).await.unwrap();
    assert_eq!(floors(&rig, &tenant).await, "{}");
    rig.cache
        .set(&tenant, "", &tagged("k", "new", &tags))
        .await
        .unwrap();
    reclaimed(&rig, &tenant).await;
    assert_eq!(rig.text(&tenant, "k").await.unwrap(), "new");
    let audit = rig.store.audit(&tenant.space).await.unwrap();
    assert!(
        audit.agrees() && audit.found.orphaned_bytes == 0,
        "{audit:?}"
    );
}

#[tokio::test]
async fn all_that_is_wrong_with_an_invalidation_is_told_at_once() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let long = "p".repeat(1025);
    for prefix in ["", &long] {
        let refused = cache.invalidate_prefix(&tenant, "No", prefix).await;
        assert_eq!(fields(refused), ["namespace", "prefix"]);
    }
    let many = vec!["t".to_owned(); 101];
    for tags in [&[][..], &many] {
        let refused = cache.invalidate_tags(&tenant, "No", tags).await;
        assert_eq!(fields(refused), ["namespace", "tags.tags"]);
    }
    let tags = keys(&["", "t", &"t".repeat(129)]);
    let refused = cache.invalidate_tags(&tenant, "", &tags).await;
    assert_eq!(fields(refused), ["tags.tags[0]", "tags.tags[2]"]);

    // As long as they may be.
    let prefix = "p".repeat(1024);
    cache.invalidate_prefix(&tenant, "", &prefix).await.unwrap();
    let tags: Vec<_> = (0..100).map(|n| format!("{n:0128}")).collect();
    cache.invalidate_tags(&tenant, "", &tags).await.unwrap();
}

#[tokio::test]
async fn a_confined_key_invalidates_no_more_than_it_reaches() {
    let rig = Rig::new();
    let tenant = tenancy();
    let missing = |refused: riptide_persistence::error::Result<_>| {
        matches!(refused, Err(Error::ScopeMissing { .. }))
    };
    let cache = &rig.cache;
    let tags = keys(&["t"]);
    let narrow = super::confined(&tenant, &["a"], &["user:"]);
    assert!(
        cache
            .invalidate_prefix(&narrow, "a", "user:1")
            .await
            .is_ok()
    );
    assert!(cache.invalidate_prefix(&narrow, "a", "user:").await.is_ok());
    assert!(missing(cache.invalidate_prefix(&narrow, "a", "use").await));
    assert!(missing(
        cache.invalidate_prefix(&narrow, "b", "user:").await
    ));
    assert!(missing(cache.invalidate_tags(&narrow, "a", &tags).await));
    let whole = super::confined(&tenant, &["a"], &[]);
    assert!(cache.invalidate_tags(&whole, "a", &tags).await.is_ok());
    assert!(missing(cache.invalidate_tags(&whole, "b", &tags).await));
    assert!(missing(cache.invalidate_prefix(&whole, "b", "x").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_invalidations_at_once_all_come_through() {
    let rig = Arc::new(Rig::new());
    let tenant = tenancy();
    let replicas = [rig.cache.clone(), rig.replica(), rig.replica()];
    let mut calls = tokio::task::JoinSet::new();
    for caller in 0..24_usize {
        let tenant = tenant.clone();
        let cache = replicas[caller % 3].clone();
        calls.spawn(async move {
            let key = format!("key {caller}");
            let tags = [format!("tag {}", caller / 2)];
            for _ in 0..10 {
                let set = tagged(&key, "v", &tags);
                cache.set(&tenant, "", &set).await.unwrap();
                // Both of a tag's entries go with either.
                match caller % 4 {
                    0 => cache.invalidate_prefix(&tenant, "", &key).await.unwrap(),
                    _ => cache.invalidate_tags(&tenant, "", &tags).await.unwrap(),
                };
                assert_eq!(get(&cache, &tenant, "", &key).await.unwrap(), None);
            }
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    assert!(rig.store.audit(&tenant.space).await.unwrap().agrees());
    reclaimed(&rig, &tenant).await;
    assert_eq!(rig.store.usage(&tenant.space).await.unwrap().entries, 0);
    assert_eq!(floors(&rig, &tenant).await, "{}");
}

/// A conditional write races with invalidations of its tag and with other writes:
/// of all that create the entry between two invalidations, one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_creates_an_entry_whose_tag_is_gone() {
    let rig = Arc::new(Rig::new());
    let (tenant, tags) = (tenancy(), keys(&["t"]));
    rig.cache
        .set(&tenant, "", &tagged("k", "hidden", &tags))
        .await
        .unwrap();
    rig.cache.invalidate_tags(&tenant, "", &tags).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for caller in 0..16 {
        let (rig, tenant, tags) = (rig.clone(), tenant.clone(), tags.clone());
        calls.spawn(async move {
            let cache = match caller % 2 {
                0 => rig.cache.clone(),
                _ => rig.replica(),
            };
            let absent = Set {
                condition: Some(Condition::IfAbsent),
                ..tagged("k", "v", &tags)
            };
            cache.set(&tenant, "", &absent).await.is_ok()
        });
    }
    let created = calls.join_all().await;
    assert_eq!(created.into_iter().filter(|&won| won).count(), 1);
}
