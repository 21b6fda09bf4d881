//! Warming by itself: items each on their own, in pieces, within bounds, up to
//! where it stops. It does not know who sends the parts.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{Stream, StreamExt, stream};
use riptide_persistence::{
    cache::{Cache, Condition, NewEntry, Part},
    error::Error,
    store::{Calls, Counters, Handle, Observed},
    tenant::Tenancy,
};

use super::{Rig, confined, keys, recorder::Recorder, set, settings, tenancy};

fn entry(key: &str, value: impl Into<bytes::Bytes>) -> NewEntry {
    NewEntry {
        key: key.to_owned(),
        value: value.into(),
        ttl_ms: None,
        content_type: String::new(),
        tags: Vec::new(),
        condition: Some(Condition::None),
        if_version: 0,
    }
}

fn part(tenancy: &Tenancy, entries: Vec<NewEntry>) -> Part {
    Part {
        tenancy: tenancy.clone(),
        entries,
        keys: Vec::new(),
    }
}

/// So many parts of so many entries each, `k0`, `k1` and on.
fn parts(tenancy: &Tenancy, count: usize, entries: usize) -> Vec<Part> {
    let of = |first| {
        let entries = (first..first + entries).map(|n| entry(&format!("k{n}"), "value"));
        part(tenancy, entries.collect())
    };
    (0..count).map(|n| of(n * entries)).collect()
}

/// A cache on a store that holds commits back as it is told.
fn held(rig: &Rig) -> (Cache, Arc<Recorder>, Arc<Counters>) {
    let store = Arc::new(Recorder::new(rig.store.clone()));
    let counters = Arc::new(Counters::default());
    let observed: Handle = Arc::new(Observed::new(store.clone(), counters.clone()));
    let cache = Cache::new(observed, Arc::default(), Arc::new(settings()));
    (cache, store, counters)
}

/// The parts, counting those that were taken.
fn counted(parts: Vec<Part>, taken: &AtomicUsize) -> impl Stream<Item = Part> + Send + '_ {
    stream::iter(parts).inspect(|_| {
        taken.fetch_add(1, Ordering::Relaxed);
    })
}

#[tokio::test]
async fn each_item_is_stored_by_itself_and_told_where_it_failed() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.set(&tenant, "there", "old").await;
    let absent = NewEntry {
        condition: Some(Condition::IfAbsent),
        ..entry("there", "new")
    };
    let long = "k".repeat(1025);
    let first = vec![entry("a", "1"), entry("", "2"), entry("b", "3")];
    let second = vec![absent, entry("c", "4"), entry(&long, "5")];
    let parts = [part(&tenant, first), part(&tenant, second)];
    let (warmed, done) = rig.cache.warm("", stream::iter(parts)).await;
    done.unwrap();
    assert_eq!((warmed.stored, warmed.failed), (3, 3));
    for (key, value) in [("a", "1"), ("b", "3"), ("c", "4"), ("there", "old")] {
        assert_eq!(rig.text(&tenant, key).await.as_deref(), Some(value));
    }
    let failed: Vec<_> = warmed
        .failures
        .iter()
        .map(|failed| (failed.item, &*failed.key))
        .collect();
    assert_eq!(failed, [(1, ""), (3, "there"), (5, &long)]);
    let [empty, present, too_long] = &warmed.failures[..] else {
        panic!("{:?}", warmed.failures);
    };
    let field = |error: &Error| match error {
        Error::Invalid(violations) => violations[0].field.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&empty.error), "entries[1].key");
    assert!(matches!(present.error, Error::ConditionNotMet { .. }));
    assert_eq!(field(&too_long.error), "entries[2].key", "in its own part");
}

#[tokio::test]
async fn small_parts_go_to_the_store_together() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.set(&tenant, "known", "").await;
    let (calls, (warmed, done)) = rig
        .calls(rig.cache.warm("", stream::iter(parts(&tenant, 1000, 1))))
        .await;
    done.unwrap();
    assert_eq!(warmed.stored, 1000);
    assert_eq!(
        calls,
        Calls {
            commit: 10,
            ..Calls::default()
        }
    );
    // Each part is an operation, as a batch by itself would be.
    let metered = rig.store.usage(&tenant.space).await.unwrap();
    assert_eq!(metered.entries, 1001);
    let unit = riptide_persistence::store::Unit::Hour;
    let meters = rig.store.meters(&tenant.space, unit).await.unwrap();
    assert_eq!(meters.last.operations, 1001);

    // Large ones are cut.
    let large = parts(&tenant, 1, 1000);
    let (calls, (warmed, _)) = rig.calls(rig.cache.warm("", stream::iter(large))).await;
    assert_eq!((calls.commit, warmed.stored), (10, 1000));
}

#[tokio::test]
async fn a_slow_store_is_not_outrun() {
    let rig = Rig::new();
    let tenant = tenancy();
    let (cache, store, counters) = held(&rig);
    store.hold();
    let taken = Arc::new(AtomicUsize::new(0));
    let value = "v".repeat(10_000);
    let of = |first: usize| {
        let entries = (first..first + 10).map(|n| entry(&format!("k{n}"), value.clone()));
        part(&tenant, entries.collect())
    };
    // 100 MB in parts of 100 kB.
    let all = (0..1000).map(|n| of(n * 10)).collect();
    let warm = cache.warm("", counted(all, &taken));
    let opened = async {
        // The first piece is on its way, and nothing comes back.
        while counters.calls().commit < 2 {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let (parts, commits) = (taken.load(Ordering::Relaxed), counters.calls().commit);
        assert!((2..=3).contains(&commits), "{commits} commits at once");
        assert!(parts <= 40, "{parts} parts of 100 kB were taken");
        store.let_go();
    };
    let ((warmed, done), ()) = tokio::join!(warm, opened);
    done.unwrap();
    assert_eq!(warmed.stored, 10_000);
    assert_eq!(taken.load(Ordering::Relaxed), 1000);
}

#[tokio::test]
async fn it_stops_where_the_store_does_and_tells_what_came_before() {
    let rig = Rig::new();
    let tenant = tenancy();
    let (cache, store, _) = held(&rig);
    // The first commit of a space begins its epoch; that is over.
    cache.set(&tenant, "", &set("known", "")).await.unwrap();
    store.fail_after(3);
    let taken = AtomicUsize::new(0);
    let all = parts(&tenant, 100, 100);
    let (warmed, done) = cache.warm("", counted(all, &taken)).await;
    assert_eq!(done, Err(Error::StoreUnavailable));
    assert_eq!((warmed.stored, warmed.failed), (300, 0));
    assert!(taken.load(Ordering::Relaxed) < 25, "and takes no more");
    for n in 0..300 {
        assert!(rig.get(&tenant, &format!("k{n}")).await.is_some(), "k{n}");
    }
}

#[tokio::test]
async fn the_last_of_a_key_wins() {
    let rig = Rig::new();
    let tenant = tenancy();
    let of = |n: usize| {
        // Pieces end between them, so that each has the key.
        let others = (0..99).map(|other| entry(&format!("{n} {other}"), ""));
        let entries = others.chain([entry("k", n.to_string())]);
        part(&tenant, entries.collect())
    };
    let (warmed, done) = rig.cache.warm("", stream::iter((0..20).map(of))).await;
    done.unwrap();
    assert_eq!(warmed.stored, 2000);
    assert_eq!(rig.text(&tenant, "k").await.as_deref(), Some("19"));
}

#[tokio::test]
async fn a_part_that_breaks_a_rule_ends_it_behind_those_before() {
    let rig = Rig::new();
    let tenant = tenancy();
    let large = parts(&tenant, 1, 1001).pop().unwrap();
    let elsewhere = Part {
        tenancy: confined(&tenant, &["other"], &[]),
        entries: vec![entry("x", "")],
        keys: Vec::new(),
    };
    let too_many = Part {
        keys: keys(&["x"; 1000]),
        ..part(&tenant, vec![entry("x", "")])
    };
    for (last, expected) in [(large, "entries"), (too_many, "keys"), (elsewhere, "scope")] {
        let mut all = parts(&tenant, 3, 2);
        all.push(last);
        all.extend(parts(&tenant, 1, 20));
        let taken = AtomicUsize::new(0);
        let (warmed, done) = rig.cache.warm("", counted(all, &taken)).await;
        match done {
            Err(Error::BatchTooLarge { field, limit, .. }) => {
                assert_eq!((field, limit), (expected, 1000));
            }
            Err(Error::ScopeMissing { .. }) => assert_eq!(expected, "scope"),
            other => panic!("{expected}: {other:?}"),
        }
        assert_eq!((warmed.stored, warmed.items()), (6, 6), "{expected}");
        assert_eq!(taken.load(Ordering::Relaxed), 4, "{expected}");
    }
    let (warmed, done) = rig
        .cache
        .warm("No", stream::iter(parts(&tenant, 1, 1)))
        .await;
    assert_eq!(super::fields(done), ["namespace"]);
    assert_eq!(warmed.items(), 0);
}

#[tokio::test]
async fn a_hundred_failures_are_told_and_all_are_counted() {
    let rig = Rig::new();
    let tenant = tenancy();
    let entries = (0..1000).map(|_| entry("", "v")).collect();
    let all = [part(&tenant, entries)];
    let (calls, (warmed, done)) = rig.calls(rig.cache.warm("", stream::iter(all))).await;
    done.unwrap();
    assert_eq!(calls, Calls::default());
    assert_eq!((warmed.failed, warmed.failures.len()), (1000, 100));
    let numbers: Vec<_> = warmed.failures.iter().map(|failed| failed.item).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn keys_are_pulled_near_in_pieces_of_their_own() {
    let rig = Rig::new();
    let tenant = tenancy();
    let (warmed, _) = rig
        .cache
        .warm("", stream::iter(parts(&tenant, 1, 200)))
        .await;
    assert_eq!(warmed.stored, 200);
    let named = (0..200).map(|n| format!("k{n}"));
    let named = named.chain(keys(&["absent", ""])).collect();
    let pull = Part {
        keys: named,
        // Stored before it is pulled, whatever is on its way.
        ..part(&tenant, vec![entry("k7", "fresh")])
    };
    let replica = rig.replica();
    let (calls, (warmed, done)) = rig.calls(replica.warm("", stream::iter([pull]))).await;
    done.unwrap();
    assert_eq!((warmed.stored, warmed.pulled), (1, 200));
    assert_eq!((warmed.missing, warmed.not_kept, warmed.failed), (1, 0, 1));
    assert_eq!(warmed.failures[0].item, 202);
    assert!(
        calls.read <= 10,
        "{calls:?}: 25 keys a read, and the snapshot"
    );
    for n in 0..200 {
        let key = format!("k{n}");
        let (calls, entry) = rig.calls(super::get(&replica, &tenant, "", &key)).await;
        assert_eq!(calls, Calls::default(), "{key}");
        let expected = if n == 7 { "fresh" } else { "value" };
        assert_eq!(entry.unwrap().unwrap().value, expected);
    }
    let unit = riptide_persistence::store::Unit::Hour;
    let meters = rig.store.meters(&tenant.space, unit).await.unwrap();
    assert_eq!(meters.last.operations, 2, "one a part, however it is cut");
}

#[tokio::test]
async fn what_is_too_large_to_be_kept_is_told_apart() {
    let rig = Rig::with(|settings| settings.near.max_bytes = 1 << 20);
    let tenant = tenancy();
    rig.set(&tenant, "large", &"v".repeat(100_000)).await;
    rig.set(&tenant, "small", "v").await;
    let pull = Part {
        keys: keys(&["large", "small"]),
        ..part(&tenant, Vec::new())
    };
    let (warmed, done) = rig.cache.warm("", stream::iter([pull])).await;
    done.unwrap();
    assert_eq!((warmed.pulled, warmed.not_kept), (1, 1));
}
