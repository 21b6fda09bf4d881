//! Tallies, rows and windows on a real Redis: what its scripts alone can
//! get wrong. It does not repeat the promises of the port, which conformance.rs
//! holds every backend to.

use std::time::Duration;

use riptide_persistence::store::{
    Add, Count, Error, Key, Lease, MAX_COUNT, Once, Settle, Space, Stamp, Store, Table, Tallied,
    Tally,
};

use super::redis_faults::{answering, connected, open_for, space};
use crate::{redis::Redis as Server, redis_groups::Cluster};

fn count(name: &'static str, amount: i64, limit: Option<u64>) -> Count {
    Count {
        name: name.into(),
        amount,
        limit,
    }
}

fn tally(row: &'static str, counts: Vec<Count>) -> Tally {
    Tally {
        adds: vec![Add {
            row: row.into(),
            keep_ms: Some(60_000),
            counts,
        }],
        ..Tally::default()
    }
}

#[tokio::test]
async fn counters_beyond_what_lua_can_hold_are_exact() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    let add = async |amount, limit| {
        let counts = vec![count("a", amount, limit)];
        store.tally(&space, tally("r", counts)).await.unwrap()
    };
    let (odd, most) = ((1 << 53) + 1, MAX_COUNT as i64);
    assert_eq!(add(odd, None).await, Tallied::Added(vec![vec![odd as u64]]));
    let twice = odd as u64 + 999_999_999;
    assert_eq!(
        add(999_999_999, Some(twice)).await,
        Tallied::Added(vec![vec![twice]])
    );
    assert_eq!(
        add(1, Some(twice)).await,
        Tallied::Exceeded {
            add: 0,
            count: 0,
            limit: twice,
            used: twice
        }
    );
    assert_eq!(
        add(most - twice as i64 + 1, Some(u64::MAX)).await,
        Tallied::Exceeded {
            add: 0,
            count: 0,
            limit: MAX_COUNT,
            used: twice
        }
    );
    let all = add(most - twice as i64, None).await;
    assert_eq!(all, Tallied::Added(vec![vec![MAX_COUNT]]));
    let less = add(-1_000_000_001, None).await;
    assert_eq!(less, Tallied::Added(vec![vec![MAX_COUNT - 1_000_000_001]]));
    assert_eq!(add(i64::MIN, None).await, Tallied::Added(vec![vec![0]]));
    assert!(matches!(
        add(i64::MAX, None).await,
        Tallied::Exceeded { .. }
    ));
    let rows = store.rows(&space, &["r".into(), "none".into()]).await;
    assert_eq!(rows.unwrap(), [vec![("a".into(), 0)], vec![]]);
}

#[tokio::test]
async fn sequences_are_compared_as_numbers() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    let mut sum = 0;
    for (sequence, added) in [
        (9, true),
        (10, true),
        (9, false),
        (10, false),
        ((1 << 53) + 1, true),
        (1 << 53, false),
        ((1 << 53) + 2, true),
        (u64::MAX - 1, true),
        (u64::MAX, true),
        (u64::MAX, false),
    ] {
        let tally = Tally {
            stamp: Some(Stamp {
                source: "replica".into(),
                sequence,
            }),
            ..tally("r", vec![count("a", 1, None)])
        };
        sum += u64::from(added);
        let expected = if added {
            Tallied::Added(vec![vec![sum]])
        } else {
            Tallied::Duplicate
        };
        assert_eq!(store.tally(&space, tally).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_full_server_counts_nothing_and_shows_what_it_has() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    let one = || tally("r", vec![count("a", 1, None)]);
    store.tally(&space, one()).await.unwrap();
    server.cli(&["config", "set", "maxmemory", "1"]);
    assert!(matches!(
        store.tally(&space, one()).await,
        Err(Error::Full(_))
    ));
    let rows = store.rows(&space, &["r".into()]).await.unwrap();
    assert_eq!(rows, [vec![("a".into(), 1)]]);
    server.cli(&["config", "set", "maxmemory", "0"]);
    let added = store.tally(&space, one()).await.unwrap();
    assert_eq!(added, Tallied::Added(vec![vec![2]]));
}

#[tokio::test]
async fn what_is_counted_goes_when_its_time_is_over() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    let tally = |keep_ms| Tally {
        stamp: Some(Stamp {
            source: "replica".into(),
            sequence: 1,
        }),
        once: Some(Once {
            name: "event".into(),
            keep_ms: 5_000,
        }),
        absent: vec![Key::new(Table::Control, "closing")],
        adds: vec![Add {
            row: "r".into(),
            keep_ms,
            counts: vec![count("a", 1, None)],
        }],
    };
    let ttl = |key: &str| -> i64 {
        let key = format!("v1:{{{}}}:{key}", space.name());
        server.cli(&["pttl", &key]).parse().unwrap()
    };
    store.tally(&space, tally(Some(9_000))).await.unwrap();
    for (key, most) in [
        ("w:r", 9_000),
        ("e:event", 5_000),
        ("q:replica", 172_800_000),
    ] {
        let left = ttl(key);
        assert!(left <= most && left > most - 4_000, "{key}: {left}");
    }
    // A row that is to be kept for ever from now on is.
    let adds = tally(None).adds;
    let kept = Tally {
        adds,
        ..Tally::default()
    };
    store.tally(&space, kept).await.unwrap();
    assert_eq!(ttl("w:r"), -1);
}

#[tokio::test]
async fn a_tally_without_an_answer_is_unknown_and_its_stamp_tells() {
    let server = Server::start();
    let store = open_for(&server.url(), Duration::from_millis(400));
    answering(&store).await;
    let space = space();
    let stamped = || Tally {
        stamp: Some(Stamp {
            source: "replica".into(),
            sequence: 1,
        }),
        ..tally("r", vec![count("a", 1, None)])
    };
    server.freeze();
    let lost = store.tally(&space, stamped()).await;
    assert!(matches!(lost, Err(Error::OutcomeUnknown(_))), "{lost:?}");
    server.thaw();
    answering(&store).await;
    // Whether the first arrived or not, it is added once.
    store.tally(&space, stamped()).await.unwrap();
    let rows = store.rows(&space, &["r".into()]).await.unwrap();
    assert_eq!(rows, [vec![("a".into(), 1)]]);
}

fn window(limit: u64, want: u64) -> Lease {
    Lease {
        window: "w".into(),
        limit,
        span_ms: 60_000,
        want,
        least: want.min(1),
        share: 1,
        ..Lease::default()
    }
}

#[tokio::test]
async fn a_window_is_never_overdrawn_by_many() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    let asks = (0..300).map(|_| store.lease(&space, window(1_000, 7)));
    let given: u64 = futures::future::join_all(asks)
        .await
        .into_iter()
        .map(|leased| leased.unwrap().granted)
        .sum();
    assert_eq!(given, 1_000);
    let refused = store.lease(&space, window(1_000, 1)).await.unwrap();
    assert_eq!((refused.granted, refused.counted), (0, 1_000));
    let wait = refused.retry_after_ms.unwrap();
    assert!((1..=60_100).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_window_leaves_slot_by_slot_and_then_as_a_whole() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    let key = format!("v1:{{{}}}:v:w", space.name());
    // As if slots of long ago and of now had been written: 700 s ago to now.
    let now_ms = store.now_ms();
    let present = now_ms / 100;
    let slots: Vec<String> = (0..600)
        .flat_map(|back| [(present - 6_000 + back * 10).to_string(), "2".into()])
        .collect();
    let slots = ["hset", &key]
        .into_iter()
        .chain(slots.iter().map(|text| &**text));
    server.cli(&slots.collect::<Vec<&str>>());
    let (first, last) = ((present - 6_000).to_string(), (present - 10).to_string());
    let fields = [
        "hset", &key, "t", "1200", "f", &first, "l", &last, "w", "100",
    ];
    server.cli(&fields);
    let leased = store.lease(&space, window(10_000, 0)).await.unwrap();
    let slots: usize = server.cli(&["hlen", &key]).parse().unwrap();
    // The last minute's, one in ten slots: 60, or one more or fewer at its edges.
    assert!((115..=122).contains(&leased.counted), "{leased:?}");
    assert_eq!(leased.counted, 2 * (slots as u64 - 4));
    // It ends with its last slot.
    let leased = store.lease(&space, window(10_000, 3)).await.unwrap();
    assert_eq!(leased.granted, 3);
    let ends = server.cli(&["pexpiretime", &key]).parse::<u64>().unwrap();
    assert_eq!(ends, leased.until_ms + 60_000);
    // One that was idle for long begins anew.
    let long_ago = ["hset", &key, "f", "1", "l", "2", "t", "9000"];
    server.cli(&long_ago);
    let anew = store.lease(&space, window(10_000, 1)).await.unwrap();
    assert_eq!((anew.granted, anew.counted), (1, 1));
    assert_eq!(server.cli(&["hlen", &key]), "5");
}

#[tokio::test]
async fn a_window_of_another_span_keeps_what_counts() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    store.lease(&space, window(1_000, 40)).await.unwrap();
    let ask = |span_ms| Lease {
        span_ms,
        ..window(1_000, 1)
    };
    for (span_ms, counted) in [(3_600_000, 41), (31 * 86_400_000, 42), (60_000, 43)] {
        let leased = store.lease(&space, ask(span_ms)).await.unwrap();
        assert_eq!((leased.granted, leased.counted), (1, counted));
    }
    // The clock was set back by a day: what was used counts from now on.
    let key = format!("v1:{{{}}}:v:w", space.name());
    let present = store.now_ms() / 100;
    let tomorrow = (present + 864_000).to_string();
    server.cli(&["hset", &key, &tomorrow, "7", "t", "50", "l", &tomorrow]);
    let leased = store.lease(&space, window(1_000, 1)).await.unwrap();
    assert_eq!((leased.granted, leased.counted), (1, 51));
    let last: u64 = server.cli(&["hget", &key, "l"]).parse().unwrap();
    assert!(last <= present + 600, "{last}");
}

#[tokio::test]
async fn windows_work_when_the_server_is_full() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    server.cli(&["config", "set", "maxmemory", "1"]);
    let leased = store.lease(&space, window(10, 4)).await.unwrap();
    let settled = Lease {
        settle: Some(Settle {
            until_ms: leased.until_ms,
            used: 1,
            unused: 3,
        }),
        ..window(10, 0)
    };
    let left = store.lease(&space, settled).await.unwrap();
    assert_eq!((left.granted, left.counted), (0, 1));
}

#[tokio::test]
async fn a_cluster_keeps_the_counts_of_a_space_together() {
    let cluster = Cluster::start();
    let store = super::patient(&cluster.url()).await;
    for number in 0..16 {
        let space = Space::meters_at(number);
        let tally = Tally {
            stamp: Some(Stamp {
                source: "replica".into(),
                sequence: 1,
            }),
            once: Some(Once {
                name: "event".into(),
                keep_ms: 60_000,
            }),
            absent: vec![Key::new(Table::Control, "closing")],
            adds: ["a", "b", "c"]
                .map(|row| Add {
                    row: row.into(),
                    keep_ms: Some(60_000),
                    counts: vec![count("n", 1, None)],
                })
                .into(),
        };
        store.tally(&space, tally).await.unwrap();
        let leased = store.lease(&space, window(5, 5)).await.unwrap();
        assert_eq!(leased.granted, 5);
        let names: Vec<bytes::Bytes> = (0..200)
            .map(|number| if number % 2 == 0 { "a" } else { "none" }.into())
            .collect();
        let rows = store.rows(&space, &names).await.unwrap();
        assert_eq!(rows.iter().filter(|row| !row.is_empty()).count(), 100);
    }
}
