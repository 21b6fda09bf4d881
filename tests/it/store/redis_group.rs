//! Commits that travel together to Redis: each is applied or refused by itself, whatever
//! becomes of those beside it. It does not know the promises of the port, which
//! conformance.rs holds every backend to.

use std::{collections::BTreeSet, pin::pin, task::Poll};

use futures::future::join_all;
use riptide_persistence::store::{
    Batch, Check, Commit, Error, Expiry, Key, Limits, Metric, Outcome, Refusal, Result, Space,
    Store, Write, redis::Redis,
};

use super::redis_faults::{connected, put, space, version};
use crate::redis::Redis as Server;

/// How many scripts Redis has run.
fn scripts(server: &Server) -> u64 {
    server.commands().get("evalsha").copied().unwrap_or(0)
}

async fn at_once(store: &Redis, space: &Space, batches: Vec<Batch>) -> Vec<Result<Commit>> {
    join_all(batches.into_iter().map(|batch| store.commit(space, batch))).await
}

fn limited(name: &str, entries: u64) -> Batch {
    Batch {
        limits: Limits {
            entries: Some(entries),
            bytes: None,
        },
        ..put(name)
    }
}

/// The version that a batch of one write gave.
fn written(outcome: &Result<Commit>) -> Option<u64> {
    match outcome {
        Ok(Commit::Applied(applied)) => match applied.outcomes[..] {
            [Outcome::Done { version, .. }] => Some(version),
            _ => None,
        },
        _ => None,
    }
}

async fn has(store: &Redis, space: &Space, name: &str) -> bool {
    let key = Key::entry("default", name);
    let read = store.read(space, 0, &[key]).await.unwrap();
    read.records[0].is_some()
}

async fn agrees(store: &Redis, space: &Space, entries: u64) {
    let audit = store.audit(space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
    assert_eq!(store.usage(space).await.unwrap().entries, entries);
}

#[tokio::test]
async fn what_comes_at_once_travels_together() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let (space, other) = (space(), space());
    version(&store, &space, put("before")).await;
    let before = scripts(&server);
    let batches = (0..200).map(|number| put(&format!("k{number}"))).collect();
    let beside = (0..3).map(|number| put(&format!("k{number}"))).collect();
    let (outcomes, beside) = futures::future::join(
        at_once(&store, &space, batches),
        at_once(&store, &other, beside),
    )
    .await;
    let versions: BTreeSet<_> = outcomes.iter().filter_map(written).collect();
    assert_eq!(versions, (2..=201).collect());
    let versions: Vec<_> = beside.iter().filter_map(written).collect();
    assert_eq!(versions, [1, 2, 3], "in the order they were asked for");
    // 64 writes go together at most.
    assert_eq!(scripts(&server) - before, 4 + 1);
    agrees(&store, &space, 201).await;
    agrees(&store, &other, 3).await;

    // One that comes alone goes alone, at once.
    let before = scripts(&server);
    for number in 0..3 {
        version(&store, &space, put(&format!("k{number}"))).await;
    }
    assert_eq!(scripts(&server) - before, 3);
}

#[tokio::test]
async fn a_refusal_is_of_one_alone() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    // A whole batch that is refused for its second write has counted its first.
    let conflict = |name: &str| {
        let first = Write::put(Key::entry("default", name), "x");
        let second = Write::put(Key::entry("default", "k0"), "x").when(Check::Absent);
        Batch::of([first, second])
    };
    // There before any of the others: groups come by several connections, in any order.
    version(&store, &space, put("k0")).await;
    let mut batches = Vec::new();
    for number in 1..40 {
        batches.push(limited(&format!("k{number}"), 10));
        batches.push(conflict(&format!("never{number}")));
    }
    let outcomes = at_once(&store, &space, batches).await;
    assert_eq!(outcomes.iter().filter_map(written).count(), 9);
    let (mut exceeded, mut conflicts) = (0, 0);
    for outcome in outcomes {
        match outcome.unwrap() {
            Commit::Applied(_) => {}
            Commit::Refused(Refusal::Exceeded { metric, used, .. }) => {
                assert_eq!((metric, used), (Metric::Entries, 10));
                exceeded += 1;
            }
            Commit::Refused(Refusal::Conflict { write: 1, found }) => {
                assert_eq!(found, Some(1));
                conflicts += 1;
            }
            Commit::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
    assert_eq!((exceeded, conflicts), (30, 39));
    agrees(&store, &space, 10).await;
    for number in 1..40 {
        assert!(!has(&store, &space, &format!("never{number}")).await);
    }
    // Versions have no gaps where nothing was written.
    assert_eq!(version(&store, &space, put("k0")).await, 11);
}

#[tokio::test]
async fn a_damaged_record_hinders_none_beside_it() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    for (name, command) in [("list", "rpush"), ("text", "set")] {
        let key = format!("v1:{{{}}}:k:0:default:{name}", space.name());
        server.cli(&[command, &key, "none of ours"]);
    }
    let names = ["a", "list", "b", "text", "c"];
    let outcomes = at_once(&store, &space, names.map(put).into()).await;
    for (name, outcome) in names.iter().zip(outcomes) {
        match outcome {
            Err(Error::Corrupt(_)) => assert!(["list", "text"].contains(name)),
            Ok(Commit::Applied(_)) => assert_eq!(name.len(), 1),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(store.usage(&space).await.unwrap().entries, 3);
}

#[tokio::test]
async fn who_gives_up_takes_none_along() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    version(&store, &space, put("before")).await;
    let begin = |name: &str| store.commit(&space, put(name));
    let others = {
        // The first of them is given up before they leave, and the third.
        let mut first = pin!(begin("first"));
        let mut second = Box::pin(begin("second"));
        let mut third = pin!(begin("third"));
        let mut fourth = Box::pin(begin("fourth"));
        assert!(futures::poll!(first.as_mut()).is_pending());
        assert!(futures::poll!(second.as_mut()).is_pending());
        assert!(futures::poll!(third.as_mut()).is_pending());
        assert!(futures::poll!(fourth.as_mut()).is_pending());
        [second, fourth]
    };
    let outcomes = join_all(others).await;
    assert!(outcomes.iter().all(|outcome| written(outcome).is_some()));
    assert!(!has(&store, &space, "first").await, "it never left");
    for name in ["second", "fourth"] {
        assert!(has(&store, &space, name).await);
    }
    let audit = store.audit(&space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");

    // One that leaves alone and is given up at once is not written either.
    let alone = {
        let mut alone = pin!(begin("alone"));
        futures::poll!(alone.as_mut())
    };
    assert!(matches!(alone, Poll::Pending));
    tokio::task::yield_now().await;
    assert!(!has(&store, &space, "alone").await);
}

#[tokio::test]
async fn what_needs_no_memory_goes_on_beside_what_does() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    let large = Write::put(Key::entry("default", "large"), vec![0; 2_000_000]);
    version(&store, &space, Batch::of([large])).await;
    for name in ["a", "b", "c"] {
        version(&store, &space, put(name)).await;
    }
    server.cli(&["config", "set", "maxmemory", "1mb"]);
    let mut batches = Vec::new();
    for name in ["a", "b", "c"] {
        batches.push(Batch::of([Write::delete(Key::entry("default", name))]));
        batches.push(put(&format!("more-{name}")));
    }
    for (number, outcome) in at_once(&store, &space, batches).await.iter().enumerate() {
        match (number % 2, outcome) {
            (0, Ok(Commit::Applied(_))) | (1, Err(Error::Full(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    agrees(&store, &space, 1).await;
}

#[tokio::test]
async fn what_is_too_much_for_one_script_takes_several() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    version(&store, &space, put("before")).await;
    let before = scripts(&server);
    let many = |first: usize| {
        let writes = (first..first + 40).map(|number| {
            Write::put(Key::entry("default", &format!("m{number}")), "x")
                .expiring(Expiry::AfterMs(60_000))
        });
        Batch::of(writes)
    };
    let wide = |name: &str| {
        let value = vec![1; 100_000];
        Batch::of([Write::put(Key::entry("default", name), value)])
    };
    // Each of forty begins one; the first has room for two of 100 kB, too.
    let batches = vec![
        many(0),
        many(40),
        many(80),
        wide("w1"),
        wide("w2"),
        wide("w3"),
    ];
    for outcome in at_once(&store, &space, batches).await {
        assert!(matches!(outcome, Ok(Commit::Applied(_))), "{outcome:?}");
    }
    assert_eq!(scripts(&server) - before, 3);
    agrees(&store, &space, 1 + 120 + 3).await;
}
