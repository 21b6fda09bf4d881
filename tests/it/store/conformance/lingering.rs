//! Records that are kept beyond their end, and to whom they show. Here the store's
//! clock is the subject, so these cases wait for it.

use riptide_persistence::store::{Error, MAX_EXPIRE_MS, Query, Step, charge};

use super::*;

/// Longer than any case takes.
const LONG_MS: u64 = 600_000;

fn lingering(key: Key, value: impl Into<Bytes>, after_ms: u64, linger_ms: u64) -> Write {
    Write::put(key, value).expiring(Expiry::Lingering {
        after_ms,
        linger_ms,
    })
}

/// When the record of the only write ends.
fn end(applied: &Applied) -> u64 {
    match applied.outcomes.as_slice() {
        [
            Outcome::Done {
                expire_ms: Some(end),
                ..
            },
        ] => *end,
        outcomes => panic!("{outcomes:?}"),
    }
}

/// The record as it is, or as it was when it ended.
async fn lingers(store: &Handle, space: &Space, key: Key) -> Option<Record> {
    let generation = view(store, space).await.generation;
    let read = store.read_lingering(space, generation, &[key]).await;
    read.unwrap().records.into_iter().next().unwrap()
}

pub async fn an_ended_record_shows_only_where_it_is_asked_for(store: &Handle) {
    let space = space();
    let put = lingering(entry("k"), "value", 60, LONG_MS);
    let put = applied(store, &space, Batch::of([put])).await;
    let end = end(&put);
    let there = lingers(store, &space, entry("k")).await.unwrap();
    assert_eq!(there.expire_ms, Some(end));
    assert_eq!(lingers(store, &space, entry("absent")).await, None);

    wait_past(store, end).await;
    assert_eq!(record(store, &space, entry("k")).await, None);
    assert_eq!(lingers(store, &space, entry("k")).await, Some(there));
    let query = Query {
        table: Table::Entry,
        generation: view(store, &space).await.generation,
        prefix: Bytes::new(),
        after: None,
        limit: 10,
        value_bytes: 10,
    };
    let page = store.list(&space, query).await.unwrap();
    assert_eq!((page.items, page.next), (vec![], None));
    assert_eq!(counted(store, &space).await, (1, charge(b"k", 5)));
    assert_agrees(store, &space).await;
}

pub async fn an_ended_record_is_absent_to_writes(store: &Handle) {
    let space = space();
    let put = lingering(entry("k"), "value", 40, LONG_MS);
    let put = applied(store, &space, Batch::of([put])).await;
    wait_past(store, end(&put)).await;

    let present = Write::check(entry("k"), Check::Present);
    assert_eq!(
        refused(store, &space, Batch::of([present])).await,
        Refusal::Conflict {
            write: 0,
            found: None
        }
    );
    let touched = touch(entry("k"), Expiry::Never);
    let touched = applied(store, &space, Batch::of([touched])).await;
    let absent = |version, expire_ms| Outcome::Done {
        existed: false,
        version,
        expire_ms,
    };
    assert_eq!(touched.outcomes, [absent(0, None)]);
    assert!(lingers(store, &space, entry("k")).await.is_some());

    let new = Write::put(entry("k"), "new").when(Check::Absent);
    let new = applied(store, &space, Batch::of([new])).await;
    let version = record(store, &space, entry("k")).await.unwrap().version;
    assert_eq!(new.outcomes, [absent(version, None)]);
    assert_eq!(
        (new.usage.entries, new.usage.bytes),
        (1, charge(b"k", 3)),
        "what lingered is uncounted as it is replaced"
    );
    assert_agrees(store, &space).await;
}

pub async fn a_deleted_record_lingers_no_more(store: &Handle) {
    let space = space();
    let put = lingering(entry("k"), "value", 40, LONG_MS);
    let put = applied(store, &space, Batch::of([put])).await;
    wait_past(store, end(&put)).await;
    let deleted = applied(store, &space, Batch::of([Write::delete(entry("k"))])).await;
    assert!(matches!(
        deleted.outcomes[0],
        Outcome::Done { existed: false, .. }
    ));
    assert_eq!(lingers(store, &space, entry("k")).await, None);
    assert_eq!(counted(store, &space).await, (0, 0));
    assert_agrees(store, &space).await;
}

pub async fn what_lingered_leaves_with_its_bucket(store: &Handle) {
    let space = space();
    for (after_ms, linger_ms) in [(20, 100), (120, 1), (60, 60)] {
        let put = lingering(entry("k"), "value", after_ms, linger_ms);
        let put = applied(store, &space, Batch::of([put])).await;
        let end = end(&put);
        assert_eq!(counted(store, &space).await, (1, charge(b"k", 5)));
        wait_past(store, end + linger_ms).await;
        assert_eq!(lingers(store, &space, entry("k")).await, None);
        assert_eq!(counted(store, &space).await, (0, 0));
        assert_agrees(store, &space).await;
    }
}

pub async fn touch_says_anew_how_long_a_record_lingers(store: &Handle) {
    let space = space();
    let put = lingering(entry("k"), "value", LONG_MS, LONG_MS);
    write(store, &space, put).await;
    let touched = touch(entry("k"), Expiry::AfterMs(40));
    let touched = applied(store, &space, Batch::of([touched])).await;
    wait_past(store, end(&touched)).await;
    assert_eq!(lingers(store, &space, entry("k")).await, None);
    assert_eq!(counted(store, &space).await, (0, 0));

    write(store, &space, Write::put(entry("k"), "value")).await;
    let expiry = Expiry::Lingering {
        after_ms: 40,
        linger_ms: LONG_MS,
    };
    let touched = applied(store, &space, Batch::of([touch(entry("k"), expiry)])).await;
    wait_past(store, end(&touched)).await;
    assert_eq!(record(store, &space, entry("k")).await, None);
    assert!(lingers(store, &space, entry("k")).await.is_some());
    assert_eq!(counted(store, &space).await, (1, charge(b"k", 5)));
    assert_agrees(store, &space).await;
}

pub async fn the_longest_lingering_is_cut(store: &Handle) {
    let space = space();
    let put = lingering(entry("k"), "value", 1 << 52, 1 << 52);
    let put = applied(store, &space, Batch::of([put])).await;
    assert_eq!(end(&put), MAX_EXPIRE_MS);
    write(store, &space, lingering(entry("l"), "v", LONG_MS, u64::MAX)).await;
    assert_eq!(counted(store, &space).await.0, 2);
    assert_agrees(store, &space).await;
}

pub async fn a_record_without_a_bucket_lingers_too(store: &Handle) {
    let space = space();
    let request = || key(Table::Request, "r");
    let put = lingering(request(), "value", 40, LONG_MS);
    let put = applied(store, &space, Batch::of([put])).await;
    wait_past(store, end(&put)).await;
    assert_eq!(record(store, &space, request()).await, None);
    let there = lingers(store, &space, request()).await.unwrap();
    assert_eq!(there.value, "value");
    assert_eq!(counted(store, &space).await, (0, 0));
}

pub async fn lingering_from_no_time_is_misuse(store: &Handle) {
    let space = space();
    let put = Batch::of([lingering(entry("k"), "value", 0, 10)]);
    let error = store.commit(&space, put).await.unwrap_err();
    assert!(matches!(error, Error::Misuse(_)), "{error}");
}

pub async fn a_lease_of_a_refill_ends_with_its_generation(store: &Handle) {
    let space = space();
    let lease = || Key::refill("n", "k");
    let put = ending(lease(), "v", LONG_MS).when(Check::Absent);
    let version = write(store, &space, put).await;
    let record_now = record(store, &space, lease()).await.unwrap();
    assert_eq!(record_now.version, version);
    assert_eq!(counted(store, &space).await, (0, 0));
    let flush = Batch {
        step: Some(Step::Generation),
        ..Batch::default()
    };
    applied(store, &space, flush).await;
    let use_it = Write::delete(lease()).when(Check::Version(version));
    assert_eq!(
        refused(store, &space, Batch::of([use_it])).await,
        Refusal::Conflict {
            write: 0,
            found: None
        }
    );
    assert_eq!(record(store, &space, lease()).await, None);
    assert_agrees(store, &space).await;
}
