//! Pins on real servers: what they leave there, and what becomes of them where a
//! server is replaced, emptied or loses slots. It does not repeat the promises of the
//! port, which conformance.rs holds every backend to.

use std::{sync::Arc, time::Duration};

use riptide_persistence::store::{
    Action, Batch, Check, Commit, Error, Expiry, Handle, Keep, Key, Pin, Pinning, Space, Step,
    Table, Write,
};

use super::{
    conformance::pins::{Walk, is_lost, kept, pinned},
    redis_faults::{connected, space},
};
use crate::{
    redis::{Options, Redis as Server, eventually},
    redis_groups::{Cluster, Sentinels, carry, mark},
};

async fn on(url: &str) -> Handle {
    Arc::new(connected(url).await)
}

fn entry(number: usize) -> Key {
    Key::entry("default", &number.to_string())
}

async fn apply(store: &Handle, space: &Space, batch: Batch) {
    let commit = store.commit(space, batch).await.unwrap();
    assert!(matches!(commit, Commit::Applied(_)), "{commit:?}");
}

async fn fill(store: &Handle, space: &Space, records: usize) {
    let puts = (0..records).map(|number| Write::put(entry(number), "value"));
    apply(store, space, Batch::of(puts.collect::<Vec<_>>())).await;
}

async fn change(store: &Handle, space: &Space, numbers: std::ops::Range<usize>) {
    let writes = numbers.map(|number| match number % 3 {
        0 => Write::put(entry(number), "new"),
        1 => Write::delete(entry(number)),
        _ => Write::new(
            entry(number),
            Check::Any,
            Action::Touch(Expiry::AfterMs(90_000)),
        ),
    });
    apply(store, space, Batch::of(writes.collect::<Vec<_>>())).await;
}

fn state(space: &Space) -> String {
    format!("v1:{{{}}}:s", space.name())
}

/// The names of what is kept for pins of a space.
fn keys(server: &Server, space: &Space) -> Vec<String> {
    let keys = server.cli(&["keys", &format!("v1:{{{}}}:y:*", space.name())]);
    let keys = keys.lines().filter(|line| !line.is_empty());
    keys.map(str::to_owned).collect()
}

/// The format of the state, and its bytes.
fn format(server: &Server, space: &Space) -> (String, String) {
    let first = server.cli(&[
        "eval",
        "return string.byte(redis.call('GET', KEYS[1]) or '\\0')",
        "1",
        &state(space),
    ]);
    (first, server.cli(&["strlen", &state(space)]))
}

fn formatted(format: u8, bytes: usize) -> (String, String) {
    (format.to_string(), bytes.to_string())
}

#[tokio::test]
async fn a_pin_leaves_nothing_behind() {
    let server = Server::start();
    let store = on(&server.url()).await;
    let space = space();
    fill(&store, &space, 1000).await;
    assert_eq!(format(&server, &space), formatted(3, 92));
    let pin = pinned(&store, &space).await;
    assert_eq!(format(&server, &space), formatted(5, 140));
    change(&store, &space, 0..600).await;
    change(&store, &space, 0..600).await;
    // Two of three have moved to places of the list, one left its head.
    assert_eq!(keys(&server, &space).len(), 1 + 600);
    store.unpin(&pin).await.unwrap();
    assert_eq!(keys(&server, &space), [""; 0]);
    assert_eq!(format(&server, &space), formatted(3, 92));
    assert!(store.audit(&space).await.unwrap().agrees());
    // Where nothing was ever written, not even that is left.
    let empty = super::redis_faults::space();
    let pin = pinned(&store, &empty).await;
    store.unpin(&pin).await.unwrap();
    assert_eq!(server.cli(&["exists", &state(&empty)]), "0");
}

#[tokio::test]
async fn a_pin_whose_replica_was_killed_ends_by_itself() {
    let server = Server::start();
    let store = on(&server.url()).await;
    let space = space();
    fill(&store, &space, 90).await;
    let keep = Keep {
        for_ms: 400,
        ..Keep::default()
    };
    let pin = kept(&store, &space, keep).await;
    change(&store, &space, 0..90).await;
    let there = keys(&server, &space);
    assert_eq!(there.len(), 91);
    for key in &there {
        let left: i64 = server.cli(&["pttl", key]).parse().unwrap();
        assert!(left == -2 || (0..=1_000).contains(&left), "{key}: {left}");
    }
    eventually("all is gone", || keys(&server, &space).is_empty());
    assert!(is_lost(&store, &pin).await);
    // The next commit that changes something finds out, and puts the state back.
    fill(&store, &space, 1).await;
    assert_eq!(format(&server, &space), formatted(3, 92));
    assert_eq!(keys(&server, &space), [""; 0]);
}

#[tokio::test]
async fn copies_beyond_their_bound_end_the_pin_and_no_commit() {
    let server = Server::start();
    let store = on(&server.url()).await;
    let keep = Keep {
        copies_bytes: 100_000,
        ..Keep::default()
    };
    let large = |number: usize| Write::put(entry(number), vec![b'v'; 30_000]);
    // However records are changed: by puts, deletes, touches, reclaims.
    for way in 0..3 {
        let space = space();
        apply(&store, &space, Batch::of((0..5).map(large))).await;
        let pin = kept(&store, &space, keep).await;
        let step = |number| match way {
            0 => Batch::of([large(number)]),
            _ => Batch::of([Write::delete(entry(number))]),
        };
        for number in 0..3 {
            apply(&store, &space, step(number)).await;
        }
        assert!(!is_lost(&store, &pin).await);
        if way < 2 {
            apply(&store, &space, step(3)).await;
        } else {
            let what = riptide_persistence::store::Reclaim::Below {
                prefix: "".into(),
                version: 1 << 40,
            };
            let reclaimed = store.reclaim(&space, what, None, 100).await.unwrap();
            assert_eq!(reclaimed.entries, 2);
        }
        assert!(is_lost(&store, &pin).await);
        assert_eq!(format(&server, &space), formatted(3, 92));
        let usage = store.usage(&space).await.unwrap();
        assert_eq!(usage.entries, [5, 1, 0][way]);
        assert!(store.audit(&space).await.unwrap().agrees());
        store.unpin(&pin).await.unwrap();
        assert_eq!(keys(&server, &space), [""; 0]);
    }
    let space = space();
    fill(&store, &space, 900).await;
    let pin = kept(&store, &space, keep).await;
    let touches = (0..900).map(|number| {
        let touch = Action::Touch(Expiry::AfterMs(90_000));
        Write::new(entry(number), Check::Any, touch)
    });
    apply(&store, &space, Batch::of(touches.collect::<Vec<_>>())).await;
    assert!(is_lost(&store, &pin).await, "heads take room, too");
    store.unpin(&pin).await.unwrap();
    assert_eq!(keys(&server, &space), [""; 0]);
}

/// Begins a walk that is not at its end.
async fn begun(store: &Handle, pin: &Pin) -> Walk {
    let mut walk = Walk::over(std::slice::from_ref(pin), &Table::ALL, 10);
    assert!(walk.step(store).await);
    walk
}

/// Goes on with a walk until it ends, whatever fails on the way.
async fn finish(store: &Handle, mut walk: Walk) -> Walk {
    for _ in 0..4_000 {
        match walk.attempt(store).await {
            Ok(false) => return walk,
            Ok(true) => {}
            Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the walk never ended");
}

#[tokio::test]
async fn a_pin_is_lost_with_what_its_server_held() {
    let mut server = Options::new().aof().start();
    let store = on(&server.url()).await;
    let space = space();
    for way in 0..3 {
        fill(&store, &space, 500).await;
        let pin = pinned(&store, &space).await;
        let walk = begun(&store, &pin).await;
        match way {
            0 => drop(server.cli(&["flushall"])),
            // The pin is there again, but the walk's place means nothing any more.
            1 => server.restart(),
            _ => {
                server.cli(&["del", &state(&space)]);
            }
        }
        let walk = finish(&store, walk).await;
        assert_eq!(walk.lost, [0], "{way}");
        while store.unpin(&pin).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.cli(&["flushall"]);
    }
    // A pin alone outlives its server's process, where its contents do.
    fill(&store, &space, 500).await;
    let pin = pinned(&store, &space).await;
    change(&store, &space, 0..200).await;
    server.restart();
    let walk = Walk::over(std::slice::from_ref(&pin), &Table::ALL, 100);
    let walk = finish(&store, walk).await;
    assert_eq!((walk.lost.len(), walk.found[0].len()), (0, 500));
}

#[tokio::test]
async fn a_failover_in_a_walk_loses_the_pin() {
    let mut group = Sentinels::start();
    let store = on(&group.url()).await;
    let space = space();
    fill(&store, &space, 500).await;
    let pin = pinned(&store, &space).await;
    let walk = begun(&store, &pin).await;
    change(&store, &space, 0..100).await;
    group.primary.cli(&["wait", "1", "5000"]);
    group.primary.kill();
    assert_eq!(finish(&store, walk).await.lost, [0]);
}

fn slot(node: &Server, space: &Space) -> String {
    node.cli(&["cluster", "keyslot", &state(space)])
}

fn place(slot: &str) -> usize {
    slot.parse::<usize>().unwrap() / 5461
}

#[tokio::test]
async fn a_slot_that_moves_loses_its_pin_and_no_other() {
    let cluster = Cluster::start();
    let store = on(&cluster.url()).await;
    let node = &cluster.nodes[0];
    for way in 0..3 {
        let spaces: Vec<Space> = (0..6)
            .map(|number| {
                let on_it = |space: &Space| place(&slot(node, space)) == number % 3;
                std::iter::repeat_with(space).find(on_it).unwrap()
            })
            .collect();
        let mut pins = Vec::new();
        for space in &spaces {
            fill(&store, space, 400).await;
            pins.push(pinned(&store, space).await);
        }
        let moving = slot(node, &spaces[0]);
        let (from, to) = (
            &cluster.nodes[place(&moving)],
            &cluster.nodes[(place(&moving) + 1) % 3],
        );
        if way == 0 {
            mark(&moving, from, to);
        }
        let mut walk = Walk::over(&pins, &Table::ALL, 100);
        assert!(walk.step(&store).await);
        if way == 1 {
            mark(&moving, from, to);
        }
        if way == 2 {
            mark(&moving, from, to);
            carry(&moving, from, to);
        }
        // The driver learns of it by a command that meets the slot.
        let _ = store.usage(&spaces[0]).await;
        for space in &spaces[1..] {
            change(&store, space, 0..50).await;
        }
        let walk = finish(&store, walk).await;
        assert_eq!(walk.lost, [0], "{way}");
        for found in &walk.found[1..] {
            assert_eq!(found.len(), 400);
        }
        if way < 2 {
            carry(&moving, from, to);
        }
        eventually("the slot has settled", || {
            node.cli(&["cluster", "nodes"]).matches("->-").count() == 0
        });
        // Where it has come to rest it can be read again.
        let mut again = None;
        for _ in 0..4_000 {
            store.unpin(&pins[0]).await.ok();
            match store.pin(&spaces[0], Keep::default()).await {
                Ok(Pinning::Pinned(pin)) => {
                    again = Some(pin);
                    break;
                }
                Ok(Pinning::Taken { .. }) | Err(_) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(Pinning::Gone) => panic!("it is there"),
            }
        }
        pins[0] = again.unwrap();
        let walk = finish(&store, Walk::over(&pins[..1], &Table::ALL, 100)).await;
        assert_eq!((walk.lost.len(), walk.found[0].len()), (0, 400));
        for pin in &pins {
            store.unpin(pin).await.unwrap();
        }
    }
}

/// Writes a state of a former format, with one entry of 7 bytes.
const FORMER: &str = "
local state = struct.pack('>I6I6I7I7I6I7I6I6', 4, 0, 9, 7, 1, 0, 0, 0)
if ARGV[1] == '1' then state = '\\1\\0' .. state
elseif ARGV[1] == '2' then state = '\\2\\0' .. state .. struct.pack('>I6I6I6I7I2I6', 5, 0, 0, 0, 0, 0)
else state = '\\3\\0' .. state .. struct.pack('>I6I6I6I7I2I6I6', 5, 0, 0, 0, 0, 0, 3) end
redis.call('SET', KEYS[1], state)
return 'done'";

#[tokio::test]
async fn states_of_all_formats_can_be_pinned_and_newer_ones_are_errors() {
    let server = Server::start();
    let store = on(&server.url()).await;
    for former in ["1", "2", "3"] {
        let space = space();
        let done = server.cli(&["eval", FORMER, "1", &state(&space), former]);
        assert_eq!(done, "done");
        let pin = pinned(&store, &space).await;
        assert_eq!((pin.version, pin.view.epoch), (9, 4));
        assert_eq!((pin.usage.entries, pin.usage.bytes), (1, 7));
        assert!(!is_lost(&store, &pin).await);
        let usage = store.usage(&space).await.unwrap();
        assert_eq!((usage.entries, usage.bytes), (1, 7));
        store.unpin(&pin).await.unwrap();
        assert_eq!(format(&server, &space), formatted(3, 92));
    }
    // A fence stays where a pin comes and goes, and a pin where a fence comes.
    let fenced = space();
    fill(&store, &fenced, 10).await;
    let fence = || Batch {
        step: Some(Step::Fence),
        ..Batch::default()
    };
    let pin = pinned(&store, &fenced).await;
    apply(&store, &fenced, fence()).await;
    assert_eq!(format(&server, &fenced), formatted(5, 140));
    assert!(!is_lost(&store, &pin).await);
    store.unpin(&pin).await.unwrap();
    assert_eq!(format(&server, &fenced), formatted(4, 92));
    let pin = pinned(&store, &fenced).await;
    store.unpin(&pin).await.unwrap();
    assert_eq!(format(&server, &fenced), formatted(4, 92));
    let refused = store.commit(&fenced, Batch::of([Write::put(entry(1), "v")]));
    assert!(matches!(refused.await, Ok(Commit::Refused(_))));

    let newer = space();
    let text = format!("\u{6}{}", "x".repeat(150));
    server.cli(&["set", &state(&newer), &text]);
    let error = store.pin(&newer, Keep::default()).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
    let put = Batch::of([Write::put(entry(1), "v")]);
    let error = store.commit(&newer, put).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
}

#[tokio::test]
async fn a_pin_is_kept_where_scripts_are_flushed_and_memory_is_full() {
    let server = Server::start();
    let store = on(&server.url()).await;
    let space = space();
    fill(&store, &space, 300).await;
    let pin = pinned(&store, &space).await;
    let walk = begun(&store, &pin).await;
    assert_eq!(server.cli(&["script", "flush"]), "OK");
    server.cli(&["config", "set", "maxmemory", "1"]);
    // What needs no memory goes on, and is kept all the same.
    let deletes = (0..300).map(|number| Write::delete(entry(number)));
    apply(&store, &space, Batch::of(deletes.collect::<Vec<_>>())).await;
    let walk = finish(&store, walk).await;
    assert_eq!((walk.lost.len(), walk.found[0].len()), (0, 300));
    let other = super::redis_faults::space();
    let full = store.pin(&other, Keep::default()).await;
    assert!(matches!(full, Err(Error::Full(_))), "{full:?}");
    store.unpin(&pin).await.unwrap();
    server.cli(&["config", "set", "maxmemory", "0"]);
    assert_eq!(keys(&server, &space), [""; 0]);
}
