//! The meters of a space: what moves them, and the integral of bytes over time.
//! It does not know what is billed.
//!
//! The moments of moves are read off the store, so that sums are exact.

use riptide_persistence::store::{
    Limits, Metered, Meters, Mode, Reading, Reclaim, Refusal, Step, Unit, charge,
};

use super::*;

fn metered(operations: u64, bytes: u64) -> Metered {
    Metered { operations, bytes }
}

fn metering(writes: impl IntoIterator<Item = Write>, operations: u64, bytes: u64) -> Batch {
    Batch {
        metered: metered(operations, bytes),
        ..Batch::of(writes)
    }
}

fn step(step: Step) -> Batch {
    Batch {
        step: Some(step),
        ..Batch::default()
    }
}

/// The meters, which are the same by every unit.
async fn meters(store: &Handle, space: &Space) -> Meters {
    let meters = store.meters(space, Unit::Minute).await.unwrap();
    for unit in [Unit::Hour, Unit::Day] {
        let other = store.meters(space, unit).await.unwrap();
        if other.last.at_ms == meters.last.at_ms {
            assert_eq!(other.last, meters.last);
            assert_eq!(other.held_bytes, meters.held_bytes);
        }
        assert!(other.now_ms >= meters.now_ms);
    }
    assert!(meters.now_ms >= meters.last.at_ms);
    meters
}

async fn carried(store: &Handle, space: &Space) -> (u64, u64) {
    let Reading {
        operations, bytes, ..
    } = meters(store, space).await.now();
    (operations, bytes)
}

pub async fn a_space_never_written_has_none(store: &Handle) {
    let space = space();
    for unit in Unit::ALL {
        let meters = store.meters(&space, unit).await.unwrap();
        let now = meters.now();
        assert_eq!((now.byte_ms, now.operations, now.bytes), (0, 0, 0));
        assert_eq!((meters.held_bytes, &meters.openings[..]), (0, &[][..]));
        assert_eq!(meters.at(unit.start_ms(meters.now_ms)).byte_ms, 0);
    }
    assert_eq!(view(store, &space).await, View::default());
}

pub async fn a_batch_moves_the_meters_if_it_is_applied(store: &Handle) {
    let space = space();
    let put = || Write::put(entry("k"), "v");
    applied(store, &space, metering([put()], 1, 100)).await;
    assert_eq!(carried(store, &space).await, (1, 100));
    applied(store, &space, metering([], 2, 0)).await;
    applied(
        store,
        &space,
        metering([Write::delete(entry("none"))], 0, 7),
    )
    .await;
    assert_eq!(carried(store, &space).await, (3, 107));

    let absent = put().when(Check::Absent);
    refused(store, &space, metering([absent.clone()], 1, 1)).await;
    let limited = Batch {
        limits: Limits {
            entries: Some(1),
            bytes: None,
        },
        ..metering([Write::put(entry("l"), "v")], 1, 1)
    };
    refused(store, &space, limited.clone()).await;
    let stale = Batch {
        view: Some(View {
            epoch: 99,
            generation: 0,
        }),
        ..metering([put()], 1, 1)
    };
    assert!(matches!(
        refused(store, &space, stale).await,
        Refusal::Stale(_)
    ));
    assert_eq!(carried(store, &space).await, (3, 107));

    for batch in [metering([absent], 1, 1), limited] {
        let each = Batch {
            mode: Mode::Each,
            ..batch
        };
        let applied = applied(store, &space, each).await;
        assert!(matches!(applied.outcomes[..], [Outcome::Refused(_)]));
    }
    assert_eq!(carried(store, &space).await, (5, 109));
    let stepped = Batch {
        step: Some(Step::Epoch),
        ..metering([], 1, 0)
    };
    applied(store, &space, stepped).await;
    assert_eq!(carried(store, &space).await, (6, 109));
    let large = (1u64 << 50) + 1;
    for _ in 0..9 {
        applied(store, &space, metering([], 0, large)).await;
    }
    assert_eq!(carried(store, &space).await, (6, 109 + 9 * large));
    let elsewhere = super::space();
    assert_eq!(carried(store, &elsewhere).await, (0, 0));
}

pub async fn bytes_held_add_up_over_time(store: &Handle) {
    let space = space();
    let mut held = 0;
    let mut sum = 0;
    let mut last = meters(store, &space).await.last;
    for (put, holds) in [
        (Write::put(entry("k"), vec![0; 1000]), charge(b"k", 1000)),
        (Write::put(entry("k"), vec![0; 10]), charge(b"k", 10)),
        (
            Write::put(entry("l"), vec![0; 5000]),
            charge(b"k", 10) + charge(b"l", 5000),
        ),
        (Write::delete(entry("l")), charge(b"k", 10)),
        (Write::delete(entry("k")), 0),
        (ending(entry("m"), vec![0; 77], 90_000), charge(b"m", 77)),
        (
            touch(entry("m"), Expiry::AfterMs(4_000_000)),
            charge(b"m", 77),
        ),
    ] {
        applied(store, &space, metering([put], 1, 0)).await;
        let meters = meters(store, &space).await;
        sum += u128::from(held) * u128::from(meters.last.at_ms - last.at_ms);
        assert_eq!((meters.last.byte_ms, meters.held_bytes), (sum, holds));
        assert!(meters.last.at_ms >= last.at_ms);
        held = holds;
        last = meters.last;
        let soon = store.now_ms() + 3;
        while store.now_ms() < soon {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    // Nothing moves, and time goes on.
    let now = meters(store, &space).await;
    assert_eq!(now.last, last);
    assert_eq!(
        now.now().byte_ms,
        sum + u128::from(held) * u128::from(now.now_ms - last.at_ms)
    );
    assert!(now.now_ms > last.at_ms);
}

pub async fn tenants_are_held_and_control_records_are_not(store: &Handle) {
    let space = space();
    for table in Table::ALL.into_iter().filter(|table| !table.metered()) {
        write(store, &space, Write::put(key(table, "k"), "value")).await;
    }
    let none = meters(store, &space).await;
    assert_eq!((none.held_bytes, none.now().byte_ms), (0, 0));
    write(store, &space, Write::put(key(Table::Tenant, "t"), "value")).await;
    assert_eq!(meters(store, &space).await.held_bytes, charge(b"t", 5));
}

pub async fn a_record_is_held_to_the_end_of_its_bucket(store: &Handle) {
    let space = space();
    let ends = ending(entry("ends"), vec![0; 1000], 120);
    let outcome = applied(store, &space, Batch::of([ends])).await.outcomes;
    let [Outcome::Done { expire_ms, .. }] = outcome[..] else {
        panic!("{outcome:?}");
    };
    let put_ms = meters(store, &space).await.last.at_ms;
    let other = Write::put(entry("stays"), "");
    applied(store, &space, Batch::of([other])).await;
    let stays_ms = meters(store, &space).await.last.at_ms;
    let end_ms = expire_ms.unwrap().next_multiple_of(50);
    assert_eq!(expire_ms.unwrap(), put_ms + 120);
    wait_past(store, end_ms + 40).await;
    let (ends, stays) = (charge(b"ends", 1000), charge(b"stays", 0));
    let held = |now_ms: u64| {
        u128::from(ends) * u128::from(end_ms - put_ms)
            + u128::from(stays) * u128::from(now_ms - stays_ms)
    };
    // Nobody has looked at the space since.
    let looked = meters(store, &space).await;
    assert_eq!(looked.held_bytes, stays);
    assert_eq!(looked.now().byte_ms, held(looked.now_ms));
    applied(store, &space, metering([], 1, 0)).await;
    let moved = meters(store, &space).await;
    assert_eq!(moved.now().byte_ms, held(moved.now_ms));
}

pub async fn a_flush_ends_what_is_held_and_no_meter(store: &Handle) {
    let space = space();
    applied(
        store,
        &space,
        metering([Write::put(entry("k"), vec![0; 1000])], 5, 1000),
    )
    .await;
    let put = meters(store, &space).await.last;
    wait_past(store, put.at_ms).await;
    let flush = Batch {
        metered: metered(1, 0),
        ..step(Step::Generation)
    };
    applied(store, &space, flush).await;
    let flushed = meters(store, &space).await;
    assert_eq!(flushed.held_bytes, 0);
    let held = charge(b"k", 1000) * (flushed.last.at_ms - put.at_ms);
    assert!(held > 0);
    assert_eq!(flushed.last.byte_ms, u128::from(held));
    assert_eq!((flushed.last.operations, flushed.last.bytes), (6, 1000));
    // Orphans are not held, whether they are there or not.
    let orphans = Reclaim::Orphans { below: 1 };
    assert_eq!(reclaimed(store, &space, orphans).await, 1);
    let after = meters(store, &space).await;
    assert_eq!(after.now().byte_ms, u128::from(held));
}

/// Reclaims to the end; how many records.
async fn reclaimed(store: &Handle, space: &Space, what: Reclaim) -> u64 {
    let (mut entries, mut after) = (0, None);
    loop {
        let step = store.reclaim(space, what.clone(), after, 100).await;
        let step = step.unwrap();
        entries += step.entries;
        after = step.next;
        if after.is_none() {
            return entries;
        }
    }
}

pub async fn what_is_reclaimed_is_held_no_more(store: &Handle) {
    let space = space();
    let version = write(store, &space, Write::put(entry("a1"), vec![0; 100])).await;
    let first = meters(store, &space).await.last;
    write(store, &space, Write::put(entry("b1"), vec![0; 10])).await;
    let second = meters(store, &space).await.last;
    let below = Reclaim::Below {
        prefix: Bytes::from_static(b"a"),
        version,
    };
    assert_eq!(reclaimed(store, &space, below).await, 1);
    let after = meters(store, &space).await;
    let (a, b) = (charge(b"a1", 100), charge(b"b1", 10));
    assert_eq!(after.held_bytes, b);
    let held = a * (after.last.at_ms - first.at_ms) + b * (after.last.at_ms - second.at_ms);
    assert_eq!(after.last.byte_ms, u128::from(held));
}

pub async fn meters_end_with_their_space(store: &Handle) {
    let space = space();
    let put = Write::put(entry("k"), vec![0; 1000]);
    applied(store, &space, metering([put], 5, 1000)).await;
    let remove = Batch {
        metered: metered(1, 1),
        ..step(Step::Remove)
    };
    applied(store, &space, remove).await;
    let refusal = refused(store, &space, metering([], 1, 1)).await;
    assert_eq!(refusal, Refusal::Gone);
    for reclaimed in [false, true] {
        for unit in Unit::ALL {
            let meters = store.meters(&space, unit).await.unwrap();
            let now = meters.now();
            assert_eq!((now.byte_ms, now.operations, now.bytes), (0, 0, 0));
            assert_eq!((meters.held_bytes, &meters.openings[..]), (0, &[][..]));
        }
        if reclaimed {
            break;
        }
        let mut after = None;
        loop {
            let orphans = Reclaim::Orphans { below: u64::MAX };
            let step = store.reclaim(&space, orphans, after, 2);
            after = step.await.unwrap().next;
            if after.is_none() {
                break;
            }
        }
    }
}

pub async fn the_first_move_of_a_unit_opens_it(store: &Handle) {
    let space = space();
    let put = Write::put(entry("k"), vec![0; 1000]);
    applied(store, &space, metering([put], 1, 0)).await;
    let first = meters(store, &space).await.last.at_ms;
    applied(store, &space, metering([], 1, 0)).await;
    for unit in Unit::ALL {
        let meters = store.meters(&space, unit).await.unwrap();
        let opening = meters.openings[0];
        assert_eq!(opening.start_ms, unit.start_ms(first));
        assert_eq!((opening.before, opening.held_bytes), Default::default());
        // More than one only where this ran over a border.
        let units = 1 + (meters.last.at_ms / unit.ms()) - (first / unit.ms());
        assert_eq!(meters.openings.len() as u64, units);
        let began = meters.at(unit.start_ms(first));
        assert_eq!((began.byte_ms, began.operations), (0, 0));
        let ahead = meters.at(unit.start_ms(meters.now_ms) + unit.ms());
        assert_eq!(ahead, meters.now(), "now, where it is earlier");
        assert_eq!(ahead.operations, 2);
    }
}

pub async fn no_metered_operation_is_lost_among_many(store: &Handle) {
    let space = space();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..32u64 {
        let (store, space) = (store.clone(), space.clone());
        tasks.spawn(async move {
            for round in 0..8 {
                let put = Write::put(entry(format!("k{}", (task + round) % 5)), vec![0; 9]);
                applied(&store, &space, metering([put], 1, task)).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(carried(store, &space).await, (256, 8 * 31 * 16));
    assert_eq!(
        meters(store, &space).await.held_bytes,
        counted(store, &space).await.1
    );
}
