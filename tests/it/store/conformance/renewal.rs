//! Records that are renewed as they say themselves, and records that are shown by the
//! commit that changes them. It does not know what is kept so long.

use riptide_persistence::store::{Error, Mode, Query, Renewal};

use super::*;

/// How far the store's clock may be from what its answers say, in milliseconds.
const SLACK_MS: u64 = 30;

fn session(path: &str) -> Key {
    key(Table::Session, path)
}

/// A value that is renewed for so long, until this time at most.
fn renewable(idle_ms: u64, until_ms: u64) -> Bytes {
    let renewal = Renewal { idle_ms, until_ms };
    Bytes::from([&renewal.encode()[..], b"the rest"].concat())
}

fn renew(key: Key) -> Write {
    Write::new(key, Check::Any, Action::Renew)
}

fn take(key: Key) -> Write {
    Write::new(key, Check::Any, Action::Take)
}

async fn shown(store: &Handle, space: &Space, write: Write) -> Option<Record> {
    let applied = applied(store, space, Batch::of([write])).await;
    match &applied.outcomes[..] {
        [Outcome::Shown(shown)] => shown.clone(),
        outcomes => panic!("{outcomes:?}"),
    }
}

pub async fn a_record_is_renewed_as_it_says(store: &Handle) {
    let space = space();
    for table in [Table::Session, Table::Request] {
        let kept = renewable(600_000, store.now_ms() + 3_600_000);
        let put = ending(key(table, "k"), kept.clone(), 60_000);
        let version = write(store, &space, put).await;
        let counted_before = counted(store, &space).await;
        let before = store.now_ms();
        let renewed = shown(store, &space, renew(key(table, "k"))).await.unwrap();
        let after = store.now_ms();
        assert_eq!((renewed.version, &renewed.value), (version, &kept));
        let end = renewed.expire_ms.unwrap();
        let allowed = before + 600_000 - SLACK_MS..=after + 600_000 + SLACK_MS;
        assert!(allowed.contains(&end), "{end} is not in {allowed:?}");
        assert_eq!(record(store, &space, key(table, "k")).await, Some(renewed));
        assert_eq!(counted(store, &space).await, counted_before);
    }
    assert_agrees(store, &space).await;
}

pub async fn a_record_is_renewed_no_longer_than_it_says(store: &Handle) {
    let space = space();
    let until_ms = store.now_ms() + 400;
    let put = ending(session("k"), renewable(60_000, until_ms), 60_000);
    write(store, &space, put).await;
    let renewed = shown(store, &space, renew(session("k"))).await.unwrap();
    assert_eq!(renewed.expire_ms, Some(until_ms));
    assert_eq!(counted(store, &space).await.0, 1);
    wait_past(store, until_ms).await;
    assert_eq!(shown(store, &space, renew(session("k"))).await, None);
    assert_eq!(record(store, &space, session("k")).await, None);
    assert_eq!(counted(store, &space).await, (0, 0));
    assert_agrees(store, &space).await;
}

pub async fn what_has_come_to_its_end_is_not_renewed(store: &Handle) {
    let space = space();
    assert_eq!(shown(store, &space, renew(session("none"))).await, None);
    // It says so itself, although its expiry does not.
    let past = renewable(60_000, store.now_ms().saturating_sub(1_000));
    write(store, &space, ending(session("k"), past, 60_000)).await;
    let before = record(store, &space, session("k")).await;
    assert_eq!(shown(store, &space, renew(session("k"))).await, None);
    assert_eq!(record(store, &space, session("k")).await, before);
    let absent = renew(session("k")).when(Check::Present);
    assert_eq!(
        refused(store, &space, Batch::of([absent])).await,
        Refusal::Conflict {
            write: 0,
            found: None
        }
    );
    assert_agrees(store, &space).await;
}

pub async fn checks_decide_what_is_shown(store: &Handle) {
    let space = space();
    let kept = renewable(600_000, store.now_ms() + 3_600_000);
    let put = ending(session("k"), kept.clone(), 60_000);
    let version = write(store, &space, put).await;
    for action in [Action::Renew, Action::Take] {
        let other = Check::Version(version + 1);
        let write = Write::new(session("k"), other, action);
        assert_eq!(
            refused(store, &space, Batch::of([write])).await,
            Refusal::Conflict {
                write: 0,
                found: Some(version)
            }
        );
    }
    let before = record(store, &space, session("k")).await;
    let right = take(session("k")).when(Check::Version(version));
    assert_eq!(shown(store, &space, right).await, before);
}

pub async fn a_taken_record_is_shown_as_it_was(store: &Handle) {
    let space = space();
    for table in [Table::Session, Table::Entry, Table::Control] {
        // One that ends, one that does not, one that is empty.
        for put in [
            ending(key(table, "k"), "value", 60_000),
            Write::put(key(table, "k"), "value"),
            Write::put(key(table, "k"), ""),
        ] {
            write(store, &space, put).await;
            let before = record(store, &space, key(table, "k")).await;
            assert!(before.is_some());
            assert_eq!(shown(store, &space, take(key(table, "k"))).await, before);
            assert_eq!(record(store, &space, key(table, "k")).await, None);
            assert_eq!(shown(store, &space, take(key(table, "k"))).await, None);
        }
    }
    assert_eq!(counted(store, &space).await, (0, 0));
    // Several at once come each with their own value.
    let names = ["a", "b", "c"];
    let puts = names.map(|name| Write::put(session(name), name));
    applied(store, &space, Batch::of(puts)).await;
    let takes = ["b", "none", "c", "a"].map(|name| take(session(name)));
    let taken = applied(store, &space, Batch::of(takes)).await;
    let values = taken.outcomes.into_iter().map(|outcome| match outcome {
        Outcome::Shown(shown) => shown.map(|record| record.value),
        other => panic!("{other:?}"),
    });
    let values = values.collect::<Vec<_>>();
    assert_eq!(
        values,
        [Some("b".into()), None, Some("c".into()), Some("a".into())]
    );
    assert_agrees(store, &space).await;
}

pub async fn only_a_whole_batch_shows(store: &Handle) {
    let space = space();
    write(store, &space, Write::put(session("k"), "value")).await;
    for action in [Action::Renew, Action::Take] {
        let batch = Batch {
            mode: Mode::Each,
            ..Batch::of([Write::new(session("k"), Check::Any, action)])
        };
        let error = store.commit(&space, batch).await.unwrap_err();
        assert!(matches!(error, Error::Misuse(_)), "{error:?}");
    }
    // A value that says nothing of it is no reason to lose it.
    let error = store.commit(&space, Batch::of([renew(session("k"))])).await;
    assert!(matches!(error, Err(Error::Corrupt(_))), "{error:?}");
    assert_eq!(
        value(store, &space, session("k")).await,
        Some("value".into())
    );
}

pub async fn passing_records_are_listed_while_they_last(store: &Handle) {
    let space = space();
    let until_ms = store.now_ms() + 3_600_000;
    let mut ends = 0;
    for round in 0..3 {
        let writes = (0..50).map(|number| {
            let path = format!("user{}:{round}{number:02}", number % 5);
            ending(session(&path), renewable(600_000, until_ms), 200)
        });
        let put = applied(store, &space, Batch::of(writes)).await;
        for outcome in put.outcomes {
            let Outcome::Done { expire_ms, .. } = outcome else {
                panic!("{outcome:?}")
            };
            ends = ends.max(expire_ms.unwrap());
        }
    }
    let kept = session("user3:003");
    assert!(shown(store, &space, renew(kept)).await.is_some());
    assert_eq!(listed(store, &space, "user3:").await.len(), 30);
    write(store, &space, Write::delete(session("user3:008"))).await;
    wait_past(store, ends).await;
    assert_eq!(listed(store, &space, "user3:").await, ["user3:003"]);
    assert_eq!(listed(store, &space, "user4:").await, [""; 0]);
    // Those that end make room for what is listed then, under the same path too.
    write(store, &space, Write::put(session("user4:004"), "new")).await;
    assert_eq!(listed(store, &space, "").await, ["user3:003", "user4:004"]);
    assert_eq!(counted(store, &space).await.0, 2);
    assert_agrees(store, &space).await;
}

async fn listed(store: &Handle, space: &Space, prefix: &str) -> Vec<String> {
    let (mut paths, mut after) = (Vec::new(), None);
    loop {
        let query = Query {
            table: Table::Session,
            generation: 0,
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            after,
            limit: 7,
            value_bytes: 4,
        };
        let page = store.list(space, query).await.unwrap();
        for item in page.items {
            paths.push(String::from_utf8(item.path.to_vec()).unwrap());
        }
        after = page.next;
        if after.is_none() {
            return paths;
        }
    }
}
