//! What the writer does on its own, and what it does when it cannot keep up.
//! These cases know the inside of the store; the port's promises are tested
//! elsewhere.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{
    super::{
        Add, Batch, Commit, Count, Error, Expiry, Key, Lease, Metered, Once, Reclaim, Space, Stamp,
        Step, Store, Table, Tally, Unit, Write,
    },
    Embedded,
};

/// A store whose clock the test sets.
fn with_hands(start_ms: u64) -> (Embedded, Arc<AtomicU64>) {
    let hands = Arc::new(AtomicU64::new(start_ms));
    let clock = hands.clone();
    let store = Embedded::in_memory_with_clock(move || clock.load(Ordering::Relaxed)).unwrap();
    (store, hands)
}

/// Rows of records and of spaces in the file.
fn rows(store: &Embedded) -> (u64, u64) {
    store.shared.snapshot.load_full().unwrap().rows().unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn records_whose_time_is_over_are_deleted_from_an_idle_space() {
    let (store, hands) = with_hands(1_000_000);
    let space = Space::registry();
    for table in [Table::Entry, Table::Request] {
        let ends = (0..700).map(|number| {
            let expiry = Expiry::AfterMs(1 + number % 90);
            Write::put(Key::new(table, number.to_string()), "v").expiring(expiry)
        });
        store.commit(&space, Batch::of(ends)).await.unwrap();
    }
    let stays = Write::put(Key::new(Table::Entry, "stays"), "v");
    store.commit(&space, Batch::of([stays])).await.unwrap();
    assert_eq!(rows(&store), (1401, 1));
    hands.store(1_000_500, Ordering::Relaxed);
    until("what is over is deleted", || rows(&store) == (1, 1)).await;
}

#[tokio::test]
async fn what_lies_beside_records_is_deleted_when_it_is_over() {
    let (store, hands) = with_hands(1_000_000);
    let space = Space::registry();
    let name = |number: u64| Bytes::from(number.to_string());
    for number in 0..20 {
        let tally = Tally {
            stamp: Some(Stamp {
                source: name(number),
                sequence: 1,
            }),
            once: Some(Once {
                name: name(number),
                keep_ms: 500,
            }),
            absent: Vec::new(),
            adds: vec![Add {
                row: name(number),
                keep_ms: (number > 0).then_some(90_000),
                counts: vec![Count {
                    name: name(number),
                    amount: 1,
                    limit: None,
                }],
            }],
        };
        store.tally(&space, tally).await.unwrap();
        let lease = Lease {
            window: name(number),
            limit: 5,
            span_ms: 60_000,
            want: 1,
            share: 1,
            ..Lease::default()
        };
        assert_eq!(store.lease(&space, lease).await.unwrap().granted, 1);
    }
    assert_eq!(rows(&store), (80, 1));
    hands.fetch_add(1_000, Ordering::Relaxed);
    until("names are forgotten", || rows(&store) == (60, 1)).await;
    hands.fetch_add(62_000, Ordering::Relaxed);
    until("windows are forgotten", || rows(&store) == (40, 1)).await;
    hands.fetch_add(62_000, Ordering::Relaxed);
    until("rows are forgotten", || rows(&store) == (21, 1)).await;
    hands.fetch_add(2 * Unit::Day.ms(), Ordering::Relaxed);
    until("one row stays for ever", || rows(&store) == (1, 1)).await;
}

#[tokio::test]
async fn openings_go_with_their_space() {
    let (store, hands) = with_hands(1_000_000);
    let space = Space::registry();
    for _ in 0..40 {
        let put = Batch::of([Write::put(Key::new(Table::Entry, "k"), "v")]);
        let metered = Metered {
            operations: 1,
            bytes: 1,
        };
        store
            .commit(&space, Batch { metered, ..put })
            .await
            .unwrap();
        hands.fetch_add(60_000, Ordering::Relaxed);
    }
    let openings = || {
        let snapshot = store.shared.snapshot.load_full().unwrap();
        snapshot.openings().unwrap()
    };
    assert_eq!(openings(), 40 + 1 + 1, "of minutes, an hour and a day");
    let remove = Batch {
        step: Some(Step::Remove),
        ..Batch::default()
    };
    store.commit(&space, remove).await.unwrap();
    let (mut calls, mut after) = (0, None);
    loop {
        calls += 1;
        let reclaim = Reclaim::Orphans { below: u64::MAX };
        after = store
            .reclaim(&space, reclaim, after, 10)
            .await
            .unwrap()
            .next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(openings(), 0);
    assert!(calls >= 4, "a few at a time: {calls}");
}

#[tokio::test]
async fn a_removed_space_is_forgotten_when_it_is_empty_and_long_gone() {
    let (store, hands) = with_hands(1_000_000);
    let space = Space::registry();
    let put = || Batch::of([Write::put(Key::new(Table::Control, "c"), "v")]);
    store.commit(&space, put()).await.unwrap();
    let remove = Batch {
        step: Some(Step::Remove),
        ..Batch::default()
    };
    store.commit(&space, remove).await.unwrap();
    hands.fetch_add(3_600_000, Ordering::Relaxed);
    let reclaimed = store
        .reclaim(&space, Reclaim::Orphans { below: 1 }, None, 100)
        .await;
    assert_eq!(reclaimed.unwrap().next, None);
    assert_eq!(rows(&store), (0, 1), "an hour is remembered");
    let commit = store.commit(&space, put()).await.unwrap();
    assert!(matches!(commit, Commit::Refused(_)));
    hands.fetch_add(2 * 3_600_000, Ordering::Relaxed);
    until("the space is forgotten", || rows(&store) == (0, 0)).await;
}

#[tokio::test]
async fn writes_that_cannot_wait_are_refused_at_once() {
    let stalled = Arc::new(AtomicBool::new(false));
    let stall = stalled.clone();
    let clock = move || {
        while stall.load(Ordering::Relaxed) && std::thread::current().name() == Some("store-writer")
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        1_000_000
    };
    let store = Arc::new(Embedded::in_memory_with_clock(clock).unwrap());
    let space = Space::registry();
    stalled.store(true, Ordering::Relaxed);
    let mut writers = JoinSet::new();
    for number in 0..6_000u32 {
        let (store, space) = (store.clone(), space.clone());
        writers.spawn(async move {
            let put = Write::put(Key::new(Table::Entry, number.to_string()), "v");
            store.commit(&space, Batch::of([put])).await
        });
    }
    // The first that is answered is one that was refused.
    let first = writers.join_next().await.unwrap().unwrap();
    assert!(matches!(first, Err(Error::Unavailable(_))), "{first:?}");
    stalled.store(false, Ordering::Relaxed);
    let applied = writers
        .join_all()
        .await
        .into_iter()
        .filter(|commit| match commit {
            Ok(Commit::Applied(_)) => true,
            Err(Error::Unavailable(_)) => false,
            other => panic!("{other:?}"),
        });
    let applied = applied.count() as u64;
    assert!((4_096..6_000).contains(&applied), "{applied}");
    assert_eq!(store.usage(&space).await.unwrap().entries, applied);
}
