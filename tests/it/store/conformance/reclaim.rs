//! Reclaiming what can no longer be reached. It does not know who drives it.

use riptide_persistence::store::{Reclaim, Reclaimed, Step, charge};

use super::*;

/// Reclaims to the end; the sum, and how many calls it took.
async fn reclaim_all(
    store: &Handle,
    space: &Space,
    what: Reclaim,
    limit: usize,
) -> (Reclaimed, usize) {
    let mut sum = Reclaimed::default();
    let mut calls = 0;
    loop {
        let step = store
            .reclaim(space, what.clone(), sum.next.take(), limit)
            .await
            .unwrap();
        calls += 1;
        sum.entries += step.entries;
        sum.bytes += step.bytes;
        sum.next = step.next;
        if sum.next.is_none() {
            return (sum, calls);
        }
        assert!(calls < 10_000, "it comes to an end");
    }
}

fn many(prefix: &str, count: usize) -> Batch {
    Batch::of((0..count).map(|number| Write::put(entry(format!("{prefix}{number:04}")), "value")))
}

fn stepping(step: Step) -> Batch {
    Batch {
        step: Some(step),
        ..Batch::default()
    }
}

pub async fn orphans_are_removed_in_bounded_steps(store: &Handle) {
    let space = space();
    let old = applied(store, &space, many("old", 500)).await;
    let below = applied(store, &space, stepping(Step::Generation))
        .await
        .view
        .generation;
    let new = applied(store, &space, many("new", 20)).await;
    applied(
        store,
        &space,
        Batch::of([Write::put(key(Table::Control, "c"), "v")]),
    )
    .await;

    let first = store
        .reclaim(&space, Reclaim::Orphans { below }, None, 50)
        .await
        .unwrap();
    assert!(
        first.next.is_some() && first.entries < 500,
        "a step is bounded: {first:?}"
    );
    let (sum, calls) = reclaim_all(store, &space, Reclaim::Orphans { below }, 50).await;
    assert!(calls > 1);
    assert_eq!(first.entries + sum.entries, 500);
    assert_eq!(first.bytes + sum.bytes, old.usage.bytes);

    let usage = store.usage(&space).await.unwrap();
    assert_eq!(
        (usage.entries, usage.bytes, usage.orphaned_bytes),
        (20, new.usage.bytes, 0)
    );
    let audit = store.audit(&space).await.unwrap();
    assert!(audit.agrees());
    assert_eq!(audit.found.orphaned_bytes, 0);
    assert!(value(store, &space, entry("new0000")).await.is_some());
    assert!(
        value(store, &space, key(Table::Control, "c"))
            .await
            .is_some()
    );
}

pub async fn orphans_of_a_removed_space_are_all_records(store: &Handle) {
    let (space, other) = (space(), space());
    for space in [&space, &other] {
        applied(store, space, many("e", 60)).await;
        applied(
            store,
            space,
            Batch::of(Table::ALL.map(|table| Write::put(key(table, "k"), "v"))),
        )
        .await;
    }
    let before = counted(store, &other).await;
    applied(store, &space, stepping(Step::Remove)).await;
    let (sum, _) = reclaim_all(
        store,
        &space,
        Reclaim::Orphans {
            below: u64::MAX >> 11,
        },
        16,
    )
    .await;
    assert_eq!(
        (sum.entries, sum.bytes),
        before,
        "the metered ones are told"
    );
    let audit = store.audit(&space).await.unwrap();
    assert_eq!(
        (audit.counted.orphaned_bytes, audit.found.orphaned_bytes),
        (0, 0)
    );
    assert_eq!(
        refused(store, &space, many("e", 1)).await,
        Refusal::Gone,
        "it stays gone"
    );
    assert_eq!(counted(store, &other).await, before);
    assert_agrees(store, &other).await;
}

pub async fn records_below_a_version_are_removed_and_uncounted(store: &Handle) {
    let space = space();
    applied(store, &space, many("a:", 100)).await;
    let other = applied(store, &space, many("b:", 10)).await;
    let Some(Outcome::Done { version, .. }) = other.outcomes.last() else {
        panic!("{other:?}")
    };
    write(store, &space, Write::put(entry("a:0000"), "newer")).await;
    applied(
        store,
        &space,
        Batch::of([ending(entry("a:timed"), "newer", 60_000)]),
    )
    .await;

    let what = Reclaim::Below {
        prefix: "a:".into(),
        version: *version,
    };
    let (sum, calls) = reclaim_all(store, &space, what, 20).await;
    assert!(calls > 1);
    assert_eq!(sum.entries, 99);
    assert_eq!(sum.bytes, 99 * charge(b"a:0001", 5));
    assert_eq!(value(store, &space, entry("a:0001")).await, None);
    assert_eq!(
        value(store, &space, entry("a:0000")).await,
        Some("newer".into())
    );
    assert!(value(store, &space, entry("b:0000")).await.is_some());
    assert_eq!(counted(store, &space).await.0, 12);
    assert_agrees(store, &space).await;
}

pub async fn reclaiming_twice_uncounts_once(store: &Handle) {
    let space = space();
    applied(store, &space, many("a:", 200)).await;
    applied(
        store,
        &space,
        Batch::of((0..50).map(|n| ending(entry(format!("a:t{n}")), "v", 60_000))),
    )
    .await;
    write(store, &space, Write::put(entry("b"), "v")).await;
    let below = Reclaim::Below {
        prefix: "a:".into(),
        version: u64::MAX >> 11,
    };
    let (one, two) = tokio::join!(
        reclaim_all(store, &space, below.clone(), 7),
        reclaim_all(store, &space, below.clone(), 11)
    );
    assert_eq!(one.0.entries + two.0.entries, 250);
    assert_eq!(counted(store, &space).await, (1, charge(b"b", 1)));
    assert_agrees(store, &space).await;

    applied(store, &space, many("c:", 100)).await;
    let below = applied(store, &space, stepping(Step::Generation))
        .await
        .view
        .generation;
    let orphans = Reclaim::Orphans { below };
    let (one, two) = tokio::join!(
        reclaim_all(store, &space, orphans.clone(), 7),
        reclaim_all(store, &space, orphans, 11)
    );
    assert_eq!(one.0.entries + two.0.entries, 101);
    let usage = store.usage(&space).await.unwrap();
    assert_eq!(
        (usage.entries, usage.bytes, usage.orphaned_bytes),
        (0, 0, 0)
    );
}

pub async fn reclaiming_nothing_ends_at_once(store: &Handle) {
    let space = space();
    let nothing =
        |reclaimed: Reclaimed| (reclaimed.entries, reclaimed.bytes, reclaimed.next) == (0, 0, None);
    assert!(nothing(
        reclaim_all(store, &space, Reclaim::Orphans { below: 5 }, 10)
            .await
            .0
    ));
    assert_eq!(
        view(store, &space).await,
        View::default(),
        "nothing is written"
    );
    write(store, &space, Write::put(entry("k"), "v")).await;
    assert!(nothing(
        reclaim_all(store, &space, Reclaim::Orphans { below: 5 }, 10)
            .await
            .0
    ));
    let above = Reclaim::Below {
        prefix: "".into(),
        version: 0,
    };
    assert!(nothing(reclaim_all(store, &space, above, 10).await.0));
    assert!(value(store, &space, entry("k")).await.is_some());
}
