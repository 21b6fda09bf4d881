//! The counters against the records, and the store's own state. It does not
//! know what is done with the figures.

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use riptide_persistence::store::{Error, Mode, Reclaim, Step, charge};

use super::*;

pub async fn usage_follows_each_write(store: &Handle) {
    let space = space();
    assert_eq!(counted(store, &space).await, (0, 0));
    let of = |value: usize| charge(b"k", value);
    for (put, expected) in [
        (Write::put(entry("k"), vec![0; 10]), (1, of(10))),
        (Write::put(entry("k"), vec![0; 99]), (1, of(99))),
        (ending(entry("k"), vec![0; 5], 90_000), (1, of(5))),
        (touch(entry("k"), Expiry::AfterMs(4_000_000)), (1, of(5))),
        (Write::put(entry("l"), vec![0; 7]), (2, of(5) + of(7))),
        (Write::delete(entry("k")), (1, of(7))),
        (Write::delete(entry("k")), (1, of(7))),
        (Write::check(entry("l"), Check::Present), (1, of(7))),
        (
            Write::put(key(Table::Tenant, "t"), vec![0; 3]),
            (2, of(7) + of(3)),
        ),
        (Write::delete(key(Table::Tenant, "t")), (1, of(7))),
        (Write::delete(entry("l")), (0, 0)),
    ] {
        let applied = applied(store, &space, Batch::of([put])).await;
        assert_eq!((applied.usage.entries, applied.usage.bytes), expected);
        assert_eq!(counted(store, &space).await, expected);
        assert_agrees(store, &space).await;
    }
}

pub async fn unmetered_tables_do_not_count(store: &Handle) {
    let space = space();
    for table in Table::ALL.into_iter().filter(|table| !table.metered()) {
        write(store, &space, Write::put(key(table, "k"), "v")).await;
        write(store, &space, ending(key(table, "t"), "v", 60_000)).await;
    }
    assert_eq!(counted(store, &space).await, (0, 0));
    assert_agrees(store, &space).await;
}

/// Writes on few keys, so that they meet.
fn operations(runner: &mut TestRunner, count: usize) -> Vec<Write> {
    let expiry = proptest::prop_oneof![
        2 => proptest::strategy::Just(Expiry::Never),
        3 => (1u64..200).prop_map(Expiry::AfterMs),
        1 => (1u64..8_000_000).prop_map(Expiry::AfterMs),
        1 => (1u64..200, 0u64..200).prop_map(|(after_ms, linger_ms)| Expiry::Lingering { after_ms, linger_ms }),
        1 => (1u64..200, 0u64..8_000_000).prop_map(|(after_ms, linger_ms)| Expiry::Lingering { after_ms, linger_ms }),
    ];
    let action = (0u8..8, 0usize..300, expiry).prop_map(|(kind, bytes, expiry)| match kind {
        0..=4 => Action::Put {
            value: vec![kind; bytes].into(),
            expiry,
        },
        5 => Action::Touch(expiry),
        _ => Action::Delete,
    });
    let write = (0u16..200, proptest::bool::ANY, action).prop_map(|(name, tenant, action)| {
        let table = if tenant { Table::Tenant } else { Table::Entry };
        Write::new(key(table, format!("k{name}")), Check::Any, action)
    });
    let writes = proptest::collection::vec(write, count);
    writes.new_tree(runner).unwrap().current()
}

pub async fn counters_agree_after_random_operations(store: &Handle) {
    let space = space();
    let mut runner = TestRunner::deterministic();
    for round in 0..200 {
        let batch = Batch {
            mode: Mode::Each,
            ..Batch::of(operations(&mut runner, 500))
        };
        applied(store, &space, batch).await;
        if round % 20 == 0 {
            assert_agrees(store, &space).await;
        }
    }
    assert_agrees(store, &space).await;
    wait_past(store, store.now_ms() + 200).await;
    assert_agrees(store, &space).await;
    let usage = counted(store, &space).await;
    let applied = applied(store, &space, Batch::default()).await;
    assert_eq!((applied.usage.entries, applied.usage.bytes), usage);
}

fn lingering(key: Key, after_ms: u64, linger_ms: u64) -> Write {
    Write::put(key, "v").expiring(Expiry::Lingering {
        after_ms,
        linger_ms,
    })
}

/// When the last of its records ends.
fn latest(applied: &Applied) -> u64 {
    let ends = applied.outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Done { expire_ms, .. } => *expire_ms,
        outcome => panic!("{outcome:?}"),
    });
    ends.max().unwrap()
}

pub async fn what_ended_is_counted_once(store: &Handle) {
    let space = space();
    let expired = async || store.usage(&space).await.unwrap().expired;
    assert_eq!(expired().await, 0);
    let names = ["left", "replaced", "removed", "renewed", "touched", "stays"];
    // All but the first linger, so they are still there when they are written to again.
    let lasting = |name: &&str| lingering(entry(name), 50, 4_000_000);
    let first = applied(store, &space, Batch::of(names[1..5].iter().map(lasting))).await;
    let second = applied(
        store,
        &space,
        Batch::of([
            ending(entry("left"), "v", 50),
            Write::put(entry("stays"), "v"),
            Write::put(key(Table::Control, "c"), "v").expiring(Expiry::AfterMs(50)),
        ]),
    )
    .await;
    wait_past(store, latest(&first).max(latest(&second))).await;
    assert_eq!(expired().await, 1, "the one that left");
    applied(
        store,
        &space,
        Batch::of([
            Write::put(entry("replaced"), "v"),
            Write::delete(entry("removed")),
            ending(entry("renewed"), "v", 600_000),
            touch(entry("touched"), Expiry::Never),
            Write::put(entry("left"), "v"),
        ]),
    )
    .await;
    // One that is over cannot be touched, and lingers on.
    assert_eq!(expired().await, 4);
    applied(
        store,
        &space,
        Batch::of([
            Write::put(entry("replaced"), "v"),
            Write::delete(entry("renewed")),
            Write::delete(entry("stays")),
            Write::delete(entry("absent")),
        ]),
    )
    .await;
    let usage = store.usage(&space).await.unwrap();
    assert_eq!((usage.expired, usage.entries), (4, 3));
    assert_agrees(store, &space).await;
}

pub async fn what_was_flushed_or_reclaimed_did_not_end(store: &Handle) {
    let space = space();
    let over = ["a", "b"].map(|name| lingering(entry(name), 50, 4_000_000));
    let first = applied(store, &space, Batch::of(over)).await;
    wait_past(store, latest(&first)).await;
    let below = Reclaim::Below {
        prefix: "a".into(),
        version: 1_000_000,
    };
    let mut after = None;
    loop {
        let reclaimed = store.reclaim(&space, below.clone(), after, 1000).await;
        after = reclaimed.unwrap().next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(counted(store, &space).await.0, 1);
    let flush = Batch {
        step: Some(Step::Generation),
        ..Batch::default()
    };
    applied(store, &space, flush).await;
    applied(store, &space, Batch::of([Write::put(entry("b"), "v")])).await;
    let usage = store.usage(&space).await.unwrap();
    assert_eq!((usage.expired, usage.entries), (0, 1));
}

pub async fn the_store_tells_what_it_holds(store: &Handle) {
    let names = (0..100).map(|n| Write::put(entry(format!("k{n}")), "v"));
    applied(store, &space(), Batch::of(names)).await;
    let gauges = store.gauges().await.unwrap();
    // Others may use the store, too.
    assert!(gauges.records.unwrap() >= 100, "{gauges:?}");
    assert_eq!(gauges.evicted, Some(0));
    assert!(gauges.limit_bytes.is_none());
    if store.backend() == "redis" {
        assert!(gauges.used_bytes.unwrap() > 0 && gauges.expired.is_some());
        assert!(gauges.operations_per_second.is_some());
    }
}

pub async fn the_store_is_well(store: &Handle) {
    let health = store.ping().await.unwrap();
    assert!(health.exact);
    assert!(!health.version.is_empty());
    assert!(["redis", "embedded"].contains(&store.backend()));
    let (first, second) = (store.now_ms(), store.now_ms());
    assert!(first > 1_700_000_000_000 && second >= first);
}

pub async fn a_closed_store_says_so(store: &Handle) {
    let space = space();
    write(store, &space, Write::put(entry("k"), "v")).await;
    store.close().await.unwrap();
    let unavailable = |error: Error| assert!(matches!(error, Error::Unavailable(_)), "{error}");
    unavailable(store.read(&space, 0, &[entry("k")]).await.unwrap_err());
    unavailable(
        store
            .commit(&space, Batch::of([Write::put(entry("k"), "v")]))
            .await
            .unwrap_err(),
    );
    unavailable(store.usage(&space).await.unwrap_err());
    unavailable(store.ping().await.unwrap_err());
    unavailable(store.changes(None).await.unwrap_err());
    store.close().await.unwrap();
}
