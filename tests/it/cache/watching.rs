//! Watching a tenant: what is told, and that nothing else is. It does not know how
//! watchers are reached.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use riptide_persistence::{
    cache::{Change, Reach, Told, Watcher},
    store::{Batch, Key, Position, Space, Table, Write},
};

use super::*;

async fn watch(cache: &Cache, tenancy: &Tenancy, from: Option<Position>) -> Watcher {
    let reach = Reach::new(tenancy, &[]).unwrap();
    cache.watch(tenancy, reach, from).await.unwrap()
}

async fn next(watcher: &mut Watcher) -> Result<Told> {
    let told = tokio::time::timeout(Duration::from_secs(20), watcher.next()).await;
    told.expect("nothing is told")
}

/// The next changes, as many as there are expected.
async fn told(watcher: &mut Watcher, count: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    while changes.len() < count {
        changes.extend(next(watcher).await.unwrap().changes);
    }
    assert_eq!(changes.len(), count, "{changes:?}");
    changes
}

fn changed(keys: &[&str]) -> Change {
    Change::Keys("default".into(), super::keys(keys))
}

async fn end(store: &Handle, space: &Space) -> Position {
    store.notes(space, None, 1).await.unwrap().position
}

async fn noted(store: &Handle, space: &Space, after: &Position) -> usize {
    let notes = store.notes(space, Some(after.clone()), 1000).await.unwrap();
    assert!(!notes.lost);
    notes.notes.len()
}

#[tokio::test]
async fn every_change_is_told_once_and_in_order_whoever_makes_it() {
    let rig = Rig::new();
    let (tenant, other) = (tenancy(), rig.replica());
    // Both rely on a time before anybody watched.
    rig.set(&tenant, "k", "v").await;
    assert!(get(&other, &tenant, "", "k").await.unwrap().is_some());

    let mut watcher = watch(&rig.cache, &tenant, None).await;
    other.set(&tenant, "", &set("a", "v")).await.unwrap();
    rig.set(&tenant, "b", "v").await;
    let entries = [set("c", "v"), set("d", "v")];
    other.batch_set(&tenant, "n", &entries).await.unwrap();
    other.touch(&tenant, "", "a", Some(1000)).await.unwrap();
    assert!(other.delete(&tenant, "", "a", 0).await.unwrap());
    let both = keys(&["b", "k"]);
    other.batch_delete(&tenant, "", &both).await.unwrap();
    let both = keys(&["c", "d"]);
    other.invalidate_keys(&tenant, "n", &both).await.unwrap();
    other.invalidate_prefix(&tenant, "n", "p:").await.unwrap();
    let tags = keys(&["x", "y"]);
    other.invalidate_tags(&tenant, "n", &tags).await.unwrap();
    other.flush_namespace(&tenant, "n").await.unwrap();
    other.flush_tenant(&tenant).await.unwrap();
    rig.set(&tenant, "last", "v").await;
    let expected = [
        changed(&["a"]),
        changed(&["b"]),
        Change::Keys("n".into(), keys(&["c", "d"])),
        changed(&["a"]),
        changed(&["a"]),
        changed(&["b", "k"]),
        Change::Keys("n".into(), keys(&["c", "d"])),
        Change::Prefix("n".into(), "p:".into()),
        Change::Tags("n".into(), tags),
        Change::Namespace("n".into()),
        Change::Tenant,
        changed(&["last"]),
    ];
    assert_eq!(told(&mut watcher, expected.len()).await, expected);
}

#[tokio::test]
async fn what_changes_nothing_is_not_told() {
    let rig = Rig::new();
    let tenant = tenancy();
    let mut watcher = watch(&rig.cache, &tenant, None).await;
    rig.set(&tenant, "k", "v").await;
    assert!(!rig.cache.delete(&tenant, "", "absent", 0).await.unwrap());
    rig.cache.touch(&tenant, "", "absent", None).await.unwrap();
    let conditional = Set {
        condition: Some(Condition::IfAbsent),
        ..set("k", "w")
    };
    assert!(rig.cache.set(&tenant, "", &conditional).await.is_err());
    rig.get(&tenant, "k").await;
    // An entry that expires has told when.
    let short = Set {
        ttl_ms: Some(10),
        ..set("short", "v")
    };
    rig.cache.set(&tenant, "", &short).await.unwrap();
    rig.pass(1000);
    assert!(rig.get(&tenant, "short").await.is_none());
    rig.set(&tenant, "last", "v").await;
    let expected = [changed(&["k"]), changed(&["short"]), changed(&["last"])];
    assert_eq!(told(&mut watcher, 3).await, expected);
}

#[tokio::test]
async fn a_tenant_that_nobody_watches_notes_nothing_and_costs_nothing() {
    let rig = Rig::new();
    let (tenant, commit) = (tenancy(), |commit| Calls {
        commit,
        ..Calls::default()
    });
    rig.set(&tenant, "k", "v").await;
    let start = end(&rig.store, &tenant.space).await;
    assert_eq!(rig.calls(rig.set(&tenant, "k", "v")).await.0, commit(1));
    assert_eq!(noted(&rig.store, &tenant.space, &start).await, 0);

    // The watcher polls by calls of its own; a write while it does is one commit.
    let watching = rig.replica();
    let watcher = watch(&watching, &tenant, None).await;
    rig.set(&tenant, "k", "v").await;
    let before = rig.counters.calls().commit;
    rig.set(&tenant, "k", "v").await;
    assert_eq!(rig.counters.calls().commit - before, 1);
    drop(watcher);
    // Whoever finds the time over ends it, and then nothing is noted.
    rig.pass(u64::try_from(LINGER.as_millis()).unwrap() + 1);
    rig.set(&tenant, "k", "v").await;
    let start = end(&rig.store, &tenant.space).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.calls(rig.set(&tenant, "k", "v")).await.0, commit(1));
    assert_eq!(noted(&rig.store, &tenant.space, &start).await, 0);
}

#[tokio::test]
async fn who_comes_back_in_time_misses_nothing_and_hears_nothing_twice() {
    let rig = Rig::new();
    let tenant = tenancy();
    let mut watcher = watch(&rig.cache, &tenant, None).await;
    rig.set(&tenant, "a", "v").await;
    let place = next(&mut watcher).await.unwrap().position;
    drop(watcher);
    for key in ["b", "c", "d"] {
        rig.set(&tenant, key, "v").await;
    }
    // Also at another replica, and when the time is over but nobody has written.
    rig.pass(u64::try_from(LINGER.as_millis()).unwrap() + 1);
    let mut watcher = watch(&rig.replica(), &tenant, Some(place)).await;
    let expected = ["b", "c", "d"].map(|key| changed(&[key]));
    assert_eq!(told(&mut watcher, 3).await, expected);
    rig.set(&tenant, "e", "v").await;
    assert_eq!(told(&mut watcher, 1).await, [changed(&["e"])]);
}

#[tokio::test]
async fn who_comes_back_too_late_learns_that_all_may_have_changed() {
    let rig = Rig::new();
    let tenant = tenancy();
    let mut watcher = watch(&rig.cache, &tenant, None).await;
    rig.set(&tenant, "a", "v").await;
    let place = next(&mut watcher).await.unwrap().position;
    drop(watcher);
    rig.pass(u64::try_from(LINGER.as_millis()).unwrap() + 1);
    // This ends it: neither of them is noted.
    rig.set(&tenant, "b", "v").await;
    rig.set(&tenant, "c", "v").await;
    let mut watcher = watch(&rig.cache, &tenant, Some(place)).await;
    rig.set(&tenant, "d", "v").await;
    let expected = [Change::Tenant, changed(&["d"])];
    assert_eq!(told(&mut watcher, 2).await, expected);
    // A place that was never there is answered likewise.
    let strange = Some(Position("0-0".into()));
    let mut watcher = watch(&rig.cache, &tenant, strange).await;
    assert_eq!(told(&mut watcher, 1).await, [Change::Tenant]);
}

#[tokio::test]
async fn a_watch_that_is_ended_under_its_watchers_begins_anew() {
    let rig = Rig::new();
    let (tenant, other) = (tenancy(), rig.replica());
    let mut watcher = watch(&rig.cache, &tenant, None).await;
    rig.set(&tenant, "a", "v").await;
    assert_eq!(told(&mut watcher, 1).await, [changed(&["a"])]);
    // All at once, so that nobody kept the interest up meanwhile.
    rig.pass(u64::try_from(LINGER.as_millis()).unwrap() + 1);
    other.set(&tenant, "", &set("b", "v")).await.unwrap();
    assert_eq!(told(&mut watcher, 1).await, [Change::Tenant]);
    other.set(&tenant, "", &set("c", "v")).await.unwrap();
    assert_eq!(told(&mut watcher, 1).await, [changed(&["c"])]);
}

/// Watchers come and go, the interest ends and begins, and writers go on: each
/// write that begins after the first watcher was there is told of, or all is told to
/// have changed after it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_missed_while_interest_begins_and_ends() {
    let rig = Arc::new(Rig::new());
    let (tenant, order, done) = (tenancy(), AtomicU64::new(1), AtomicBool::new(false));
    let (order, done) = (Arc::new(order), Arc::new(done));
    let replicas = [rig.replica(), rig.replica()];
    let mut watcher = Some(watch(&rig.cache, &tenant, None).await);
    let writers: Vec<_> = replicas
        .into_iter()
        .enumerate()
        .map(|(writer, cache)| {
            let (tenant, order, done) = (tenant.clone(), order.clone(), done.clone());
            tokio::spawn(async move {
                let mut written = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let key = format!("{writer} {}", written.len());
                    let begun = order.fetch_add(1, Ordering::SeqCst);
                    cache.set(&tenant, "", &set(&key, "v")).await.unwrap();
                    written.push((key, begun));
                    tokio::task::yield_now().await;
                }
                written
            })
        })
        .collect();

    let (mut place, mut keys) = (None, HashMap::<String, u64>::new());
    let (mut last_whole, mut wholes) = (0, 0);
    let mut hear = |told: &Told| {
        for change in &told.changes {
            match change {
                Change::Keys(_, changed) => {
                    for key in changed {
                        *keys.entry(key.clone()).or_default() += 1;
                    }
                }
                Change::Tenant => {
                    wholes += 1;
                    last_whole = order.load(Ordering::SeqCst);
                }
                other => panic!("{other:?}"),
            }
        }
    };
    for round in 0..40 {
        let mut watching = match watcher.take() {
            Some(watcher) => watcher,
            None => watch(&rig.cache, &tenant, place.clone()).await,
        };
        for _ in 0..5 {
            let told = next(&mut watching).await.unwrap();
            hear(&told);
            place = Some(told.position);
        }
        drop(watching);
        if round % 2 == 0 {
            rig.pass(u64::try_from(LINGER.as_millis()).unwrap() + 1);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut watching = watch(&rig.cache, &tenant, place).await;
    done.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for writer in writers {
        written.extend(writer.await.unwrap());
    }
    rig.set(&tenant, "the end", "v").await;
    loop {
        let told = next(&mut watching).await.unwrap();
        hear(&told);
        if told.changes.contains(&changed(&["the end"])) {
            break;
        }
    }
    assert!(
        wholes > 0 && written.len() > 100,
        "{wholes} {}",
        written.len()
    );
    for (key, begun) in written {
        let times = keys.get(&key).copied().unwrap_or(0);
        assert!(times <= 1, "{key} was told {times} times");
        assert!(times == 1 || begun < last_whole, "{key} was missed");
    }
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off_and_the_others_are_not() {
    let rig = Rig::new();
    let tenant = tenancy();
    let mut slow = watch(&rig.cache, &tenant, None).await;
    let mut reading = watch(&rig.cache, &tenant, None).await;
    rig.set(&tenant, "first", "v").await;
    // It has begun to read from what this replica has read already.
    let place = next(&mut slow).await.unwrap().position;
    assert_eq!(told(&mut reading, 1).await, [changed(&["first"])]);

    let long = |number: usize| format!("{number:01000}");
    let mut seen = Vec::new();
    for number in 0..600 {
        rig.set(&tenant, &long(number), "v").await;
        if number % 50 == 49 {
            while seen.len() <= number {
                seen.extend(next(&mut reading).await.unwrap().changes);
            }
        }
    }
    assert_eq!(seen.len(), 600);
    let cut = next(&mut slow).await.unwrap_err();
    let Error::QuotaExceeded {
        metric,
        limit,
        used,
        ..
    } = cut
    else {
        panic!("{cut:?}");
    };
    assert_eq!((&*metric, limit), ("watch_backlog", 256 << 10));
    assert!(used <= limit + 2048, "{used}");
    drop(slow);
    // What it was told last is good to go on from.
    let mut again = watch(&rig.cache, &tenant, Some(place)).await;
    assert_eq!(told_at_least(&mut again, 600).await, seen);
}

async fn told_at_least(watcher: &mut Watcher, count: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    while changes.len() < count {
        changes.extend(next(watcher).await.unwrap().changes);
    }
    changes
}

#[tokio::test]
async fn a_tenant_has_so_many_watchers_and_no_more() {
    let rig = Rig::new();
    let tenant = tenancy();
    let mut watchers = Vec::new();
    for _ in 0..3 {
        watchers.push(watch(&rig.cache, &tenant, None).await);
    }
    let reach = Reach::new(&tenant, &[]).unwrap();
    let refused = rig.cache.watch(&tenant, reach.clone(), None).await;
    let Err(Error::QuotaExceeded {
        metric,
        limit: 3,
        used: 3,
        ..
    }) = refused.map(|_| ())
    else {
        panic!("a fourth sat down");
    };
    assert_eq!(metric, "watchers");
    watch(&rig.cache, &tenancy(), None).await;
    drop(watchers.pop());
    watchers.push(rig.cache.watch(&tenant, reach, None).await.unwrap());
    rig.set(&tenant, "k", "v").await;
    for watcher in &mut watchers {
        assert_eq!(told(watcher, 1).await, [changed(&["k"])]);
    }
}

#[tokio::test]
async fn a_watcher_sees_the_namespaces_it_names_and_what_its_key_reaches() {
    let rig = Rig::new();
    let tenant = tenancy();
    let some = Reach::new(&tenant, &keys(&["b", "a", "b"])).unwrap();
    let mut some = rig.cache.watch(&tenant, some, None).await.unwrap();
    let limited = confined(&tenant, &["a", "c"], &["x:"]);
    let mut limited = watch(&rig.cache, &limited, None).await;
    for namespace in ["a", "b", "c"] {
        let entries = [set("x:1", "v"), set("y", "v")];
        rig.cache
            .batch_set(&tenant, namespace, &entries)
            .await
            .unwrap();
    }
    rig.cache.flush_namespace(&tenant, "a").await.unwrap();
    rig.cache.flush_tenant(&tenant).await.unwrap();
    let both = |namespace: &str| Change::Keys(namespace.into(), keys(&["x:1", "y"]));
    let own = |namespace: &str| Change::Keys(namespace.into(), keys(&["x:1"]));
    let whole = || Change::Namespace("a".into());
    let expected = [both("a"), both("b"), whole(), Change::Tenant];
    assert_eq!(told(&mut some, 4).await, expected);
    let expected = [own("a"), own("c"), whole(), Change::Tenant];
    assert_eq!(told(&mut limited, 4).await, expected);

    let limited = confined(&tenant, &["a"], &[]);
    let refused = Reach::new(&limited, &keys(&["a", "b"]));
    assert!(matches!(refused, Err(Error::ScopeMissing { .. })));
    let wrong = keys(&["ok", "", "Not"]);
    let expected = ["namespaces[1]", "namespaces[2]"];
    assert_eq!(fields(Reach::new(&tenant, &wrong)), expected);
    let many: Vec<_> = (0..101).map(|number| format!("n{number}")).collect();
    assert_eq!(fields(Reach::new(&tenant, &many)), ["namespaces"]);
}

#[tokio::test]
async fn a_log_that_was_lost_makes_all_watchers_look_again() {
    let rig = Rig::new();
    let tenant = tenancy();
    let mut watchers = [
        watch(&rig.cache, &tenant, None).await,
        watch(&rig.cache, &tenant, None).await,
    ];
    rig.set(&tenant, "k", "v").await;
    for watcher in &mut watchers {
        assert_eq!(told(watcher, 1).await, [changed(&["k"])]);
    }
    // More notes at once than a log keeps, while nobody can read them.
    let note = bytes::Bytes::from(vec![b'?'; 4096]);
    futures::executor::block_on(tokio::task::unconstrained(async {
        for _ in 0..3000 {
            let batch = Batch {
                note: Some(note.clone()),
                ..Batch::of([Write::put(Key::new(Table::Control, "flood"), "v")])
            };
            rig.store.commit(&tenant.space, batch).await.unwrap();
        }
    }));
    for watcher in &mut watchers {
        assert_eq!(told(watcher, 1).await, [Change::Tenant]);
    }
    rig.set(&tenant, "after", "v").await;
    for watcher in &mut watchers {
        assert_eq!(told(watcher, 1).await, [changed(&["after"])]);
    }
}
