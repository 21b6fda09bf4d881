//! When records end, and when they are counted no more. Here the store's clock
//! is the subject, so these cases wait for it; they know no limits.

use riptide_persistence::store::{MAX_EXPIRE_MS, charge};

use super::*;

/// How far the store's clock may be from what its answers say, in milliseconds:
/// half a round trip, on a busy machine.
const SLACK_MS: u64 = 30;

pub async fn a_record_is_absent_when_its_time_is_over(store: &Handle) {
    let space = space();
    for table in [Table::Entry, Table::Request] {
        let put = applied(
            store,
            &space,
            Batch::of([ending(key(table, "k"), "v", 120)]),
        )
        .await;
        let Outcome::Done {
            expire_ms: Some(end),
            ..
        } = put.outcomes[0]
        else {
            panic!("{put:?}")
        };
        let mut seen = false;
        loop {
            let before = store.now_ms();
            let record = record(store, &space, key(table, "k")).await;
            let after = store.now_ms();
            match record {
                Some(record) => {
                    seen = true;
                    assert_eq!(record.expire_ms, Some(end));
                    assert!(
                        before < end + SLACK_MS,
                        "{table:?}: there at {before}, though it ended at {end}"
                    );
                }
                None => {
                    assert!(
                        after + SLACK_MS >= end,
                        "{table:?}: gone at {after}, though it ends at {end}"
                    );
                    break;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert!(seen);
    }
}

pub async fn touch_keeps_the_version(store: &Handle) {
    let space = space();
    for table in [Table::Entry, Table::Request] {
        let version = write(store, &space, Write::put(key(table, "k"), "value")).await;
        let usage = counted(store, &space).await;
        let touched = applied(
            store,
            &space,
            Batch::of([touch(key(table, "k"), Expiry::AfterMs(60_000))]),
        )
        .await;
        let Outcome::Done {
            existed: true,
            version: kept,
            expire_ms: Some(end),
        } = touched.outcomes[0]
        else {
            panic!("{touched:?}");
        };
        assert_eq!(kept, version);
        let record_now = record(store, &space, key(table, "k")).await.unwrap();
        assert_eq!(
            (record_now.version, record_now.expire_ms),
            (version, Some(end))
        );
        assert_eq!(record_now.value, "value");
        assert_eq!(counted(store, &space).await, usage);

        write(store, &space, touch(key(table, "k"), Expiry::Never)).await;
        let record_now = record(store, &space, key(table, "k")).await.unwrap();
        assert_eq!((record_now.version, record_now.expire_ms), (version, None));
        assert_eq!(counted(store, &space).await, usage);
    }
    assert_agrees(store, &space).await;
}

pub async fn touch_of_the_absent_does_nothing(store: &Handle) {
    let space = space();
    let touched = applied(store, &space, Batch::of([touch(entry("k"), Expiry::Never)])).await;
    assert_eq!(
        touched.outcomes,
        [Outcome::Done {
            existed: false,
            version: 0,
            expire_ms: None
        }]
    );
    assert_eq!(value(store, &space, entry("k")).await, None);
    assert_eq!(counted(store, &space).await, (0, 0));
    let check = touch(entry("k"), Expiry::Never).when(Check::Present);
    assert_eq!(
        refused(store, &space, Batch::of([check])).await,
        Refusal::Conflict {
            write: 0,
            found: None
        }
    );
}

pub async fn a_put_without_expiry_ends_an_expiry(store: &Handle) {
    let space = space();
    let put = applied(
        store,
        &space,
        Batch::of([ending(entry("k"), "v", 40), ending(entry("t"), "v", 40)]),
    )
    .await;
    let Outcome::Done {
        expire_ms: Some(end),
        ..
    } = put.outcomes[0]
    else {
        panic!("{put:?}")
    };
    applied(
        store,
        &space,
        Batch::of([
            Write::put(entry("k"), "w"),
            touch(entry("t"), Expiry::Never),
        ]),
    )
    .await;
    wait_past(store, end).await;
    assert_eq!(value(store, &space, entry("k")).await, Some("w".into()));
    assert_eq!(value(store, &space, entry("t")).await, Some("v".into()));
    assert_eq!(counted(store, &space).await.0, 2);
    assert_agrees(store, &space).await;
}

pub async fn the_longest_expiry_is_cut(store: &Handle) {
    let space = space();
    let put = applied(store, &space, Batch::of([ending(entry("k"), "v", 1 << 52)])).await;
    assert!(
        matches!(
            put.outcomes[0],
            Outcome::Done {
                expire_ms: Some(MAX_EXPIRE_MS),
                ..
            }
        ),
        "{:?} ends at {MAX_EXPIRE_MS}",
        put.outcomes
    );
    assert_eq!(
        record(store, &space, entry("k")).await.unwrap().expire_ms,
        Some(MAX_EXPIRE_MS)
    );
    assert_eq!(counted(store, &space).await.0, 1);
    write(store, &space, Write::delete(entry("k"))).await;
    assert_eq!(counted(store, &space).await.0, 0);
}

pub async fn an_ended_record_counts_no_more(store: &Handle) {
    let space = space();
    let stays = charge(b"stays", 5);
    let ends = charge(b"ends", 4);
    let batch = Batch::of([
        Write::put(entry("stays"), "stays"),
        ending(entry("ends"), "ends", 60),
    ]);
    let put = applied(store, &space, batch).await;
    assert_eq!((put.usage.entries, put.usage.bytes), (2, stays + ends));
    let Outcome::Done {
        expire_ms: Some(end),
        ..
    } = put.outcomes[1]
    else {
        panic!("{put:?}")
    };
    wait_past(store, end).await;
    assert_eq!(counted(store, &space).await, (1, stays));
    assert_agrees(store, &space).await;
    let next = applied(store, &space, Batch::of([Write::put(entry("ends"), "new")])).await;
    assert_eq!(
        (next.usage.entries, next.usage.bytes),
        (2, stays + charge(b"ends", 3))
    );
    write(store, &space, Write::delete(entry("ends"))).await;
    assert_eq!(counted(store, &space).await, (1, stays));
    assert_agrees(store, &space).await;
}

pub async fn a_replaced_record_counts_once(store: &Handle) {
    let space = space();
    for ms in [40, 90_000, 40, 5_000_000, 60] {
        let put = applied(
            store,
            &space,
            Batch::of([ending(entry("k"), vec![b'v'; ms as usize % 97], ms)]),
        )
        .await;
        assert_eq!(
            (put.usage.entries, put.usage.bytes),
            (1, charge(b"k", ms as usize % 97))
        );
    }
    let end = record(store, &space, entry("k"))
        .await
        .and_then(|record| record.expire_ms);
    wait_past(store, end.unwrap_or_else(|| store.now_ms())).await;
    assert_eq!(counted(store, &space).await, (0, 0));
    assert_agrees(store, &space).await;
}
