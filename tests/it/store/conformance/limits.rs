//! Limits, exactly. It does not know who sets them.

use riptide_persistence::store::{Limits, Metric, Mode, Step, charge};

use super::*;

fn entries(limit: u64) -> Limits {
    Limits {
        entries: Some(limit),
        bytes: None,
    }
}

fn bytes(limit: u64) -> Limits {
    Limits {
        entries: None,
        bytes: Some(limit),
    }
}

fn limited(limits: Limits, writes: impl IntoIterator<Item = Write>) -> Batch {
    Batch {
        limits,
        ..Batch::of(writes)
    }
}

/// Puts of so many entries of 1 KiB each, as they are charged.
fn kilobytes(names: std::ops::Range<u32>) -> impl Iterator<Item = Write> {
    names.map(|name| {
        let path = format!("{name:04}");
        let value = vec![b'v'; 1024 - charge(path.as_bytes(), 0) as usize];
        Write::put(entry(path), value)
    })
}

pub async fn the_limit_itself_is_allowed(store: &Handle) {
    let space = space();
    let put = applied(store, &space, limited(bytes(4096), kilobytes(0..4))).await;
    assert_eq!((put.usage.entries, put.usage.bytes), (4, 4096));
    let refusal = refused(
        store,
        &space,
        limited(bytes(4096), [Write::put(entry("k"), "")]),
    )
    .await;
    assert_eq!(
        refusal,
        Refusal::Exceeded {
            metric: Metric::Bytes,
            limit: 4096,
            used: 4096
        }
    );
    let refusal = refused(
        store,
        &space,
        limited(entries(4), [Write::put(entry("k"), "")]),
    )
    .await;
    assert_eq!(
        refusal,
        Refusal::Exceeded {
            metric: Metric::Entries,
            limit: 4,
            used: 4
        }
    );
    applied(
        store,
        &space,
        limited(entries(5), [Write::put(entry("k"), "")]),
    )
    .await;
    applied(
        store,
        &space,
        limited(bytes(4097 + 21), [Write::put(entry("k"), "v")]),
    )
    .await;
    assert_agrees(store, &space).await;
}

pub async fn one_more_is_refused(store: &Handle) {
    let space = space();
    let refusal = refused(store, &space, limited(bytes(4095), kilobytes(0..4))).await;
    assert_eq!(
        refusal,
        Refusal::Exceeded {
            metric: Metric::Bytes,
            limit: 4095,
            used: 0
        }
    );
    let refusal = refused(store, &space, limited(entries(3), kilobytes(0..4))).await;
    assert_eq!(
        refusal,
        Refusal::Exceeded {
            metric: Metric::Entries,
            limit: 3,
            used: 0
        }
    );
    let refusal = refused(store, &space, limited(entries(0), kilobytes(0..1))).await;
    assert_eq!(
        refusal,
        Refusal::Exceeded {
            metric: Metric::Entries,
            limit: 0,
            used: 0
        }
    );
    assert_eq!(view(store, &space).await, View::default());

    applied(
        store,
        &space,
        limited(
            Limits {
                entries: Some(1),
                bytes: Some(1024),
            },
            kilobytes(0..1),
        ),
    )
    .await;
    let larger = Write::put(entry("0000"), vec![b'v'; 1024]);
    let refusal = refused(store, &space, limited(bytes(1024), [larger])).await;
    assert_eq!(
        refusal,
        Refusal::Exceeded {
            metric: Metric::Bytes,
            limit: 1024,
            used: 1024
        }
    );
}

pub async fn what_does_not_grow_is_never_refused(store: &Handle) {
    let space = space();
    applied(store, &space, Batch::of(kilobytes(0..8))).await;
    // The limits are far below what is counted by now.
    let tight = Limits {
        entries: Some(1),
        bytes: Some(100),
    };
    let same = kilobytes(0..1);
    applied(store, &space, limited(tight, same)).await;
    applied(
        store,
        &space,
        limited(tight, [Write::put(entry("0000"), "smaller")]),
    )
    .await;
    applied(
        store,
        &space,
        limited(tight, [touch(entry("0001"), Expiry::AfterMs(60_000))]),
    )
    .await;
    applied(
        store,
        &space,
        limited(tight, [Write::put(key(Table::Control, "c"), "unmetered")]),
    )
    .await;
    applied(
        store,
        &space,
        limited(
            tight,
            [Write::delete(entry("0002")), Write::put(entry("new"), "v")],
        ),
    )
    .await;
    applied(
        store,
        &space,
        limited(tight, [Write::delete(entry("0003"))]),
    )
    .await;
    applied(store, &space, limited(tight, [])).await;
    let grows = limited(tight, [Write::put(entry("0004"), vec![b'v'; 2048])]);
    assert!(matches!(
        refused(store, &space, grows).await,
        Refusal::Exceeded {
            metric: Metric::Bytes,
            ..
        }
    ));
    assert_agrees(store, &space).await;
}

pub async fn single_writes_are_limited_each(store: &Handle) {
    let space = space();
    let batch = |limits, writes: Vec<Write>| Batch {
        mode: Mode::Each,
        ..limited(limits, writes)
    };
    let put = applied(store, &space, batch(entries(3), kilobytes(0..5).collect())).await;
    let refused: Vec<bool> = put
        .outcomes
        .iter()
        .map(|outcome| matches!(outcome, Outcome::Refused(_)))
        .collect();
    assert_eq!(refused, [false, false, false, true, true]);
    let exceeded = Refusal::Exceeded {
        metric: Metric::Entries,
        limit: 3,
        used: 3,
    };
    assert_eq!(put.outcomes[4], Outcome::Refused(exceeded));
    assert_eq!(put.usage.entries, 3);

    // A delete makes room for the write after it, and a smaller one fits where a larger did not.
    let writes = vec![
        Write::put(entry("new"), "v"),
        Write::delete(entry("0001")),
        Write::put(entry("new"), vec![b'v'; 2048]),
        Write::put(entry("new"), "v"),
    ];
    let limits = Limits {
        entries: Some(3),
        bytes: Some(3 * 1024),
    };
    let put = applied(store, &space, batch(limits, writes)).await;
    let refused: Vec<bool> = put
        .outcomes
        .iter()
        .map(|outcome| matches!(outcome, Outcome::Refused(_)))
        .collect();
    assert_eq!(refused, [true, false, true, false]);
    assert_agrees(store, &space).await;
}

pub async fn bytes_are_counted_as_charged(store: &Handle) {
    let space = space();
    let (path, value) = (vec![b'p'; 300], vec![0xff; 70_000]);
    let cost = charge(&path, value.len());
    let put = || [Write::put(entry(&path), value.clone())];
    refused(store, &space, limited(bytes(cost - 1), put())).await;
    applied(store, &space, limited(bytes(cost), put())).await;
    assert_eq!(counted(store, &space).await, (1, cost));
}

pub async fn ended_records_make_room(store: &Handle) {
    let space = space();
    let put = applied(
        store,
        &space,
        Batch::of((0..300).map(|n| ending(entry(format!("e{n}")), "v", 60))),
    )
    .await;
    let Outcome::Done {
        expire_ms: Some(end),
        ..
    } = put.outcomes[299]
    else {
        panic!("{put:?}")
    };
    wait_past(store, end).await;
    let limits = Limits {
        entries: Some(2),
        bytes: Some(2048),
    };
    applied(store, &space, limited(limits, kilobytes(0..2))).await;
    assert_eq!(counted(store, &space).await, (2, 2048));
    assert_agrees(store, &space).await;
}

pub async fn orphans_count_half(store: &Handle) {
    let space = space();
    let flush = || Batch {
        step: Some(Step::Generation),
        ..Batch::default()
    };
    applied(store, &space, limited(bytes(10_240), kilobytes(0..10))).await;
    applied(store, &space, flush()).await;
    let usage = store.usage(&space).await.unwrap();
    assert_eq!((usage.bytes, usage.orphaned_bytes), (0, 10_240));

    applied(store, &space, limited(bytes(10_240), kilobytes(0..5))).await;
    let one_more = || limited(bytes(10_240), kilobytes(5..6));
    let refusal = refused(store, &space, one_more()).await;
    assert_eq!(
        refusal,
        Refusal::Exceeded {
            metric: Metric::Flushed,
            limit: 10_240,
            used: 5 * 1024
        }
    );
    applied(store, &space, limited(bytes(10_240), kilobytes(4..5))).await;
    applied(
        store,
        &space,
        limited(bytes(10_240), [Write::delete(entry("0000"))]),
    )
    .await;
    applied(store, &space, one_more()).await;

    let below = view(store, &space).await.generation;
    let mut after = None;
    loop {
        let step = store
            .reclaim(
                &space,
                riptide_persistence::store::Reclaim::Orphans { below },
                after,
                100,
            )
            .await;
        after = step.unwrap().next;
        if after.is_none() {
            break;
        }
    }
    applied(store, &space, limited(bytes(10_240), kilobytes(10..15))).await;
    refused(store, &space, limited(bytes(10_240), kilobytes(20..21))).await;
}

pub async fn a_refusal_writes_nothing(store: &Handle) {
    let space = space();
    applied(store, &space, Batch::of(kilobytes(0..2))).await;
    let before = (counted(store, &space).await, view(store, &space).await);
    let writes = [
        Write::put(key(Table::Control, "c"), "v"),
        Write::delete(entry("0000")),
        Write::put(entry("large"), vec![0; 4096]),
    ];
    let batch = Batch {
        step: Some(Step::Generation),
        ..limited(bytes(3000), writes)
    };
    refused(store, &space, batch).await;
    assert_eq!(
        (counted(store, &space).await, view(store, &space).await),
        before
    );
    assert_eq!(value(store, &space, key(Table::Control, "c")).await, None);
    assert!(value(store, &space, entry("0000")).await.is_some());
}
