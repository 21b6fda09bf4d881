//! Rows of counters: what is added once, what is refused, what is kept. It does
//! not know what is counted.

use std::collections::BTreeMap;

use riptide_persistence::store::{
    Add, Count, Cursor, Error, MAX_COUNT, METER_SPACES, Once, Recall, Row, Stamp, Step, Tallied,
    Tally,
};
use tokio::task::JoinSet;

use super::*;

fn count(name: &str, amount: i64) -> Count {
    Count {
        name: Bytes::copy_from_slice(name.as_bytes()),
        amount,
        limit: None,
    }
}

fn limited(name: &str, amount: i64, limit: u64) -> Count {
    Count {
        limit: Some(limit),
        ..count(name, amount)
    }
}

fn add(row: &str, counts: impl IntoIterator<Item = Count>) -> Add {
    Add {
        row: Bytes::copy_from_slice(row.as_bytes()),
        keep_ms: None,
        counts: counts.into_iter().collect(),
    }
}

fn adds(adds: impl IntoIterator<Item = Add>) -> Tally {
    Tally {
        adds: adds.into_iter().collect(),
        ..Tally::default()
    }
}

fn stamped(source: &str, sequence: u64) -> Option<Stamp> {
    Some(Stamp {
        source: Bytes::copy_from_slice(source.as_bytes()),
        sequence,
    })
}

fn once(name: &str, keep_ms: u64) -> Option<Once> {
    Some(Once {
        name: Bytes::copy_from_slice(name.as_bytes()),
        keep_ms,
    })
}

async fn tally(store: &Handle, space: &Space, tally: Tally) -> Tallied {
    store.tally(space, tally).await.unwrap()
}

async fn added(store: &Handle, space: &Space, adds: Tally) -> Vec<Vec<u64>> {
    match tally(store, space, adds).await {
        Tallied::Added(shows) => shows,
        other => panic!("{other:?}"),
    }
}

async fn row(store: &Handle, space: &Space, name: &str) -> Vec<(String, u64)> {
    let names = [Bytes::copy_from_slice(name.as_bytes())];
    let rows = store.rows(space, &names).await.unwrap();
    let [row] = rows.as_slice() else {
        panic!("{rows:?}");
    };
    let text = |name: &Bytes| String::from_utf8(name.to_vec()).unwrap();
    row.iter()
        .map(|(name, shows)| (text(name), *shows))
        .collect()
}

fn shown(row: &[(&str, u64)]) -> Vec<(String, u64)> {
    row.iter()
        .map(|(name, shows)| ((*name).to_owned(), *shows))
        .collect()
}

pub async fn amounts_are_added_and_shown(store: &Handle) {
    let space = space();
    assert_eq!(added(store, &space, adds([])).await, Vec::<Vec<u64>>::new());
    let first = adds([
        add("r", [count("b", 2), count("a", 1)]),
        add("s", [count("a", 10), count("zero", 0)]),
        add("none", []),
    ]);
    let shows = added(store, &space, first).await;
    assert_eq!(shows, [vec![2, 1], vec![10, 0], vec![]]);
    let second = adds([
        add("r", [count("c", 7), count("a", 5)]),
        add("r", [count("a", 100)]),
    ]);
    let shows = added(store, &space, second).await;
    assert_eq!(shows, [vec![7, 6], vec![106]]);
    assert_eq!(
        row(store, &space, "r").await,
        shown(&[("a", 106), ("b", 2), ("c", 7)])
    );
    assert_eq!(
        row(store, &space, "s").await,
        shown(&[("a", 10), ("zero", 0)])
    );
    assert_eq!(row(store, &space, "none").await, []);
    assert_eq!(
        view(store, &space).await,
        View::default(),
        "a tally is no commit"
    );
    assert_eq!(counted(store, &space).await, (0, 0));
    assert_agrees(store, &space).await;
}

pub async fn rows_come_in_the_order_asked_for(store: &Handle) {
    let space = space();
    let names: Vec<Bytes> = [&b"b"[..], b"\0\xff:{}\r\n", b"absent", b"a", b"b"]
        .map(Bytes::from_static)
        .into();
    let odd = [&b"\xff"[..], b"a", b"", b"\0", b"x:\n", b"aa"];
    let counts: Vec<Count> = odd
        .iter()
        .filter(|name| !name.is_empty())
        .zip(1..)
        .map(|(name, amount)| Count {
            name: Bytes::from_static(name),
            amount,
            limit: None,
        })
        .collect();
    let tallied = adds(["b", "a"].map(|row| add(row, [count("n", 3)])));
    added(store, &space, tallied).await;
    let odd = Add {
        row: names[1].clone(),
        keep_ms: None,
        counts,
    };
    added(store, &space, adds([odd])).await;
    let n: Row = vec![(Bytes::from_static(b"n"), 3)];
    let by_bytes = [
        (&b"\0"[..], 3),
        (b"a", 2),
        (b"aa", 5),
        (b"x:\n", 4),
        (b"\xff", 1),
    ];
    let odd: Row = by_bytes
        .map(|(name, shows)| (Bytes::from_static(name), shows))
        .into();
    assert_eq!(
        store.rows(&space, &names).await.unwrap(),
        [n.clone(), odd, Row::new(), n.clone(), n]
    );
    assert_eq!(store.rows(&space, &[]).await.unwrap(), Vec::<Row>::new());
    let many: Vec<Bytes> = (0..1000).map(|row| format!("r{row}").into()).collect();
    assert_eq!(store.rows(&space, &many).await.unwrap().len(), 1000);
    let other = super::space();
    assert_eq!(row(store, &other, "a").await, [], "spaces do not mix");
}

pub async fn a_stamp_that_is_not_above_the_last_adds_nothing(store: &Handle) {
    let space = space();
    let of = |source, sequence| Tally {
        stamp: stamped(source, sequence),
        ..adds([add("r", [count("n", 1)])])
    };
    for (source, sequence, adds) in [
        ("a", 1, true),
        ("a", 1, false),
        ("a", 5, true),
        ("a", 4, false),
        ("a", 5, false),
        ("b", 3, true),
        ("b", 1, false),
        ("a", 6, true),
        ("a", u64::from(u32::MAX) * 4, true),
        ("a", u64::from(u32::MAX) * 4 - 1, false),
        ("a", u64::from(u32::MAX) * 4, false),
    ] {
        let tallied = tally(store, &space, of(source, sequence)).await;
        assert_eq!(
            tallied != Tallied::Duplicate,
            adds,
            "{source} {sequence}: {tallied:?}"
        );
    }
    assert_eq!(row(store, &space, "r").await, shown(&[("n", 5)]));
    let elsewhere = super::space();
    assert_eq!(added(store, &elsewhere, of("a", 1)).await, [[1]]);
}

pub async fn what_was_told_once_adds_nothing_again(store: &Handle) {
    let space = space();
    let of = |name, keep_ms, stamp| Tally {
        once: once(name, keep_ms),
        stamp,
        ..adds([add("r", [count("n", 1)])])
    };
    assert_eq!(added(store, &space, of("event", 60_000, None)).await, [[1]]);
    let again = of("event", 60_000, stamped("s", 7));
    assert_eq!(tally(store, &space, again).await, Tallied::Duplicate);
    // The stamp of a tally that added nothing is not used up.
    let other = of("other", 60_000, stamped("s", 7));
    assert_eq!(added(store, &space, other.clone()).await, [[2]]);
    assert_eq!(tally(store, &space, other).await, Tallied::Duplicate);

    assert_eq!(added(store, &space, of("short", 40, None)).await, [[3]]);
    wait_past(store, store.now_ms() + 40).await;
    assert_eq!(added(store, &space, of("short", 40, None)).await, [[4]]);
    let still = of("event", 60_000, None);
    assert_eq!(tally(store, &space, still).await, Tallied::Duplicate);
}

/// All that is remembered so, with its ends, by place of the space and name.
async fn recalled(
    store: &Handle,
    spaces: &[Space],
    prefix: &'static [u8],
    limit: usize,
) -> BTreeMap<(usize, Bytes), u64> {
    let mut found = BTreeMap::new();
    let mut recall = Recall {
        spaces: spaces.to_vec(),
        prefix: Bytes::from_static(prefix),
        after: None,
        limit,
    };
    loop {
        let page = store.recall(recall.clone()).await.unwrap();
        assert!(page.lost.is_empty());
        for name in page.names {
            assert!(name.name.starts_with(prefix), "{name:?}");
            found.insert((name.space, name.name), name.until_ms);
        }
        recall.after = page.next;
        if recall.after.is_none() {
            return found;
        }
    }
}

async fn tell(store: &Handle, space: &Space, name: &[u8], keep_ms: u64) {
    let once = Once {
        name: Bytes::copy_from_slice(name),
        keep_ms,
    };
    let tally = Tally {
        once: Some(once),
        ..adds([add("r", [count("n", 1)])])
    };
    added(store, space, tally).await;
}

pub async fn names_that_are_remembered_are_recalled(store: &Handle) {
    let spaces = [space(), space(), space(), space()];
    let [one, other, gone, _] = &spaces;
    let mut expected = BTreeMap::new();
    for n in 0..70 {
        let name = format!("event:{n}");
        let keep_ms = 60_000 + n * 1000;
        let told_ms = store.now_ms();
        tell(store, one, name.as_bytes(), keep_ms).await;
        expected.insert((0, Bytes::from(name)), told_ms + keep_ms);
    }
    for name in [&b"event:1"[..], b"event:", b"event:\0*?[}{:\\\r\n\xff"] {
        let until_ms = store.now_ms() + 90_000;
        tell(store, other, name, 90_000).await;
        expected.insert((1, Bytes::copy_from_slice(name)), until_ms);
    }
    tell(store, one, b"eve", 60_000).await;
    tell(store, one, b"other:1", 60_000).await;
    tell(store, one, b"event:short", 40).await;
    tell(store, gone, b"event:1", 60_000).await;
    let remove = Batch {
        step: Some(Step::Remove),
        ..Batch::default()
    };
    applied(store, gone, remove).await;
    // Neither a row nor a stamp is a name, nor is a record.
    let row = Tally {
        stamp: stamped("event:s", 1),
        ..adds([add("event:r", [count("n", 1)])])
    };
    added(store, one, row).await;
    write(store, one, Write::put(key(Table::Control, "event:c"), "v")).await;
    wait_past(store, store.now_ms() + 40).await;

    let found = recalled(store, &spaces, b"event:", 7).await;
    let names = |of: &BTreeMap<(usize, Bytes), u64>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for (name, until_ms) in &expected {
        let end = found[name];
        assert!(
            end.abs_diff(*until_ms) < 5_000,
            "{name:?}: {end} {until_ms}"
        );
    }
    // What ends when stays so, whoever asks how.
    assert_eq!(recalled(store, &spaces, b"event:", 1000).await, found);
    let one_alone = recalled(store, &spaces[1..2], b"event:\0*", 1).await;
    assert_eq!(one_alone.len(), 1);
    assert_eq!(recalled(store, &spaces, b"", 1000).await.len(), 75);
    assert_eq!(recalled(store, &spaces[3..], b"", 1).await.len(), 0);
}

pub async fn names_are_recalled_beside_tallies(store: &Handle) {
    let space = space();
    for n in 0..300 {
        tell(store, &space, format!("event:{n}").as_bytes(), 600_000).await;
    }
    let beside = {
        let (store, space) = (store.clone(), space.clone());
        tokio::spawn(async move {
            for n in 300..500 {
                tell(&store, &space, format!("event:{n}").as_bytes(), 600_000).await;
            }
        })
    };
    while !beside.is_finished() {
        let found = recalled(store, std::slice::from_ref(&space), b"event:", 10).await;
        for n in 0..300 {
            let name = Bytes::from(format!("event:{n}"));
            assert!(found.contains_key(&(0, name)), "{n}");
        }
        tokio::task::yield_now().await;
    }
    beside.await.unwrap();
    let found = recalled(store, std::slice::from_ref(&space), b"event:", 10).await;
    assert_eq!(found.len(), 500);
}

pub async fn a_name_alone_is_remembered(store: &Handle) {
    let space = space();
    let alone = Tally {
        once: once("event", 60_000),
        ..Tally::default()
    };
    let nothing: Vec<Vec<u64>> = Vec::new();
    assert_eq!(added(store, &space, alone.clone()).await, nothing);
    assert_eq!(tally(store, &space, alone).await, Tallied::Duplicate);
    let counting = Tally {
        once: once("event", 60_000),
        ..adds([add("r", [count("n", 1)])])
    };
    assert_eq!(tally(store, &space, counting).await, Tallied::Duplicate);
    assert_eq!(row(store, &space, "r").await, []);
    assert_eq!(recalled(store, &[space], b"ev", 1).await.len(), 1);
}

pub async fn misuse_of_recalls_is_named(store: &Handle) {
    let one = space();
    let good = Recall {
        spaces: vec![one.clone()],
        limit: 1,
        ..Recall::default()
    };
    let of = |spaces| Recall {
        spaces,
        ..good.clone()
    };
    for misused in [
        of(vec![]),
        of(vec![one.clone(), space(), one]),
        of((0..=METER_SPACES).map(|_| space()).collect()),
        Recall {
            limit: 0,
            ..good.clone()
        },
        Recall {
            limit: 1001,
            ..good.clone()
        },
        Recall {
            after: Some(Cursor(Bytes::from_static(b"x"))),
            ..good.clone()
        },
    ] {
        let result = store.recall(misused.clone()).await;
        assert!(
            matches!(result, Err(Error::Misuse(_))),
            "{misused:?}: {result:?}"
        );
    }
    store.recall(good).await.unwrap();
}

pub async fn a_record_that_must_be_absent_bars_a_tally(store: &Handle) {
    let space = space();
    let bars = [
        key(Table::Control, "first"),
        key(Table::Statement, "second"),
        entry("e"),
    ];
    let of = |stamp| Tally {
        absent: bars.to_vec(),
        stamp,
        ..adds([add("r", [count("n", 1)])])
    };
    assert_eq!(added(store, &space, of(stamped("s", 1))).await, [[1]]);
    for (place, bar) in bars.iter().enumerate().rev() {
        write(store, &space, Write::put(bar.clone(), "v")).await;
        let barred = Tallied::Barred { key: place };
        assert_eq!(tally(store, &space, of(stamped("s", 2))).await, barred);
    }
    assert_eq!(
        tally(store, &space, of(stamped("s", 1))).await,
        Tallied::Duplicate,
        "what was added before is so whatever bars it now"
    );
    for bar in &bars[..2] {
        write(store, &space, Write::delete(bar.clone())).await;
    }
    write(store, &space, ending(entry("e"), "v", 30)).await;
    wait_past(store, store.now_ms() + 30).await;
    assert_eq!(
        added(store, &space, of(stamped("s", 2))).await,
        [[2]],
        "a tally that was barred can be sent again"
    );
    write(store, &space, Write::put(entry("e"), "v")).await;
    let flush = Batch {
        step: Some(Step::Generation),
        ..Batch::default()
    };
    applied(store, &space, flush).await;
    assert_eq!(added(store, &space, of(None)).await, [[3]]);
}

pub async fn a_limit_refuses_all_of_a_tally(store: &Handle) {
    let space = space();
    let first = adds([add("r", [limited("n", 5, 5), count("m", 1)])]);
    assert_eq!(added(store, &space, first).await, [[5, 1]]);
    let second = Tally {
        stamp: stamped("s", 1),
        once: once("o", 60_000),
        ..adds([
            add("q", [count("x", 1)]),
            add("r", [count("m", 1), limited("n", 2, 6)]),
            add("t", [count("x", 1)]),
        ])
    };
    let exceeded = Tallied::Exceeded {
        add: 1,
        count: 1,
        limit: 6,
        used: 5,
    };
    assert_eq!(tally(store, &space, second.clone()).await, exceeded);
    for name in ["q", "t"] {
        assert_eq!(row(store, &space, name).await, []);
    }
    assert_eq!(row(store, &space, "r").await, shown(&[("m", 1), ("n", 5)]));
    // A limit below what is shown refuses growth, and nothing else.
    for (amount, limit, shows) in [(0, 0, 5), (-1, 0, 4), (-1, 2, 3)] {
        let lower = adds([add("r", [limited("n", amount, limit)])]);
        assert_eq!(added(store, &space, lower).await, [[shows]]);
    }
    let grows = adds([add("r", [limited("n", 1, 2)])]);
    assert_eq!(
        tally(store, &space, grows).await,
        Tallied::Exceeded {
            add: 0,
            count: 0,
            limit: 2,
            used: 3
        }
    );
    // Neither its stamp nor its name was used up.
    assert_eq!(
        added(store, &space, second).await,
        [vec![1], vec![2, 5], vec![1]]
    );
}

pub async fn counters_are_never_negative(store: &Handle) {
    let space = space();
    for (amount, shows) in [(-3, 0), (4, 4), (-9, 0), (i64::MIN, 0), (2, 2), (-2, 0)] {
        let one = adds([add("r", [count("n", amount)])]);
        assert_eq!(added(store, &space, one).await, [[shows]], "{amount}");
    }
    assert_eq!(row(store, &space, "r").await, shown(&[("n", 0)]));
}

pub async fn large_counts_are_exact(store: &Handle) {
    let space = space();
    let most = i64::try_from(MAX_COUNT).unwrap();
    let of = |amount| adds([add("r", [count("n", amount)])]);
    let odd = (1i64 << 53) + 1;
    let mut sum = 0;
    for amount in [odd, 1, odd, 2, -1, 1, 999_999_999_999, -odd] {
        sum += amount;
        assert_eq!(
            added(store, &space, of(amount)).await,
            [[sum.unsigned_abs()]]
        );
    }
    assert_eq!(added(store, &space, of(most - sum)).await, [[MAX_COUNT]]);
    for amount in [1, most, i64::MAX] {
        assert_eq!(
            tally(store, &space, of(amount)).await,
            Tallied::Exceeded {
                add: 0,
                count: 0,
                limit: MAX_COUNT,
                used: MAX_COUNT
            }
        );
    }
    assert_eq!(added(store, &space, of(-1)).await, [[MAX_COUNT - 1]]);
    let limit = MAX_COUNT - 3;
    let beyond = adds([add("r", [limited("n", 1, limit)])]);
    assert_eq!(
        tally(store, &space, beyond).await,
        Tallied::Exceeded {
            add: 0,
            count: 0,
            limit,
            used: MAX_COUNT - 1
        }
    );
    assert_eq!(
        row(store, &space, "r").await,
        shown(&[("n", MAX_COUNT - 1)])
    );
    let whole = adds([add("s", [limited("n", most, u64::MAX)])]);
    assert_eq!(added(store, &space, whole).await, [[MAX_COUNT]]);
    let limit = (1 << 53) + 1;
    let close = adds([add("t", [limited("n", odd, limit)])]);
    assert_eq!(added(store, &space, close).await, [[limit]]);
    let beyond = adds([add("u", [limited("n", odd + 1, limit)])]);
    assert!(matches!(
        tally(store, &space, beyond).await,
        Tallied::Exceeded { used: 0, .. }
    ));
}

pub async fn the_largest_tally_is_taken(store: &Handle) {
    let space = space();
    let whole = || {
        let rows = (0..4).map(|row| {
            let counts = (0..64).map(|number| count(&format!("n{number:02}"), number + 1));
            add(&format!("r{row}"), counts)
        });
        adds(rows)
    };
    added(store, &space, whole()).await;
    let shows = added(store, &space, whole()).await;
    assert_eq!(shows.concat().len(), 256);
    assert!(shows.iter().all(|row| row[0] == 2 && row[63] == 128));
    assert_eq!(row(store, &space, "r3").await.len(), 64);
    let many = (0..256).map(|row| add(&format!("one{row}"), [count("n", 1)]));
    assert_eq!(added(store, &space, adds(many)).await.len(), 256);
}

pub async fn rows_end_when_they_are_said_to(store: &Handle) {
    let space = space();
    let keeping = |row, keep_ms| {
        adds([Add {
            keep_ms,
            ..add(row, [count("n", 1)])
        }])
    };
    for (row, keep_ms) in [
        ("short", Some(60)),
        ("for ever", None),
        ("longer", Some(60)),
        ("shorter", Some(60_000)),
        ("kept", Some(60)),
        ("let go", None),
    ] {
        assert_eq!(added(store, &space, keeping(row, keep_ms)).await, [[1]]);
    }
    for (row, keep_ms) in [
        ("longer", Some(60_000)),
        ("shorter", Some(60)),
        ("kept", None),
        ("let go", Some(60)),
    ] {
        added(store, &space, keeping(row, keep_ms)).await;
    }
    wait_past(store, store.now_ms() + 60).await;
    for (name, shows) in [
        ("short", None),
        ("for ever", Some(1)),
        ("longer", Some(2)),
        ("shorter", None),
        ("kept", Some(2)),
        ("let go", None),
    ] {
        let expected: Vec<_> = shows.map(|shows| ("n", shows)).into_iter().collect();
        assert_eq!(row(store, &space, name).await, shown(&expected), "{name}");
    }
    assert_eq!(
        added(store, &space, keeping("short", None)).await,
        [[1]],
        "it begins anew"
    );
}

pub async fn no_amount_is_lost_among_many(store: &Handle) {
    let space = space();
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let (store, space) = (store.clone(), space.clone());
        tasks.spawn(async move {
            for round in 1..=4 {
                let tally = Tally {
                    stamp: stamped(&format!("t{task}"), round),
                    ..adds([
                        add("r", [count("n", 3), count("m", -1)]),
                        add("s", [count("n", 1)]),
                    ])
                };
                // Each is sent twice, as after an answer that was lost.
                for duplicate in [false, true] {
                    let tallied = store.tally(&space, tally.clone()).await.unwrap();
                    assert_eq!(tallied == Tallied::Duplicate, duplicate);
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(
        row(store, &space, "r").await,
        shown(&[("m", 0), ("n", 768)])
    );
    assert_eq!(row(store, &space, "s").await, shown(&[("n", 256)]));
}

pub async fn exactly_the_limit_is_admitted_among_many(store: &Handle) {
    let space = space();
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let (store, space) = (store.clone(), space.clone());
        tasks.spawn(async move {
            let mut admitted = 0;
            for _ in 0..4 {
                let consume = adds([
                    add("level", [limited("n", 1, 100)]),
                    add(&format!("of {task}"), [count("n", 1)]),
                ]);
                match store.tally(&space, consume).await.unwrap() {
                    Tallied::Added(_) => admitted += 1,
                    Tallied::Exceeded { used: 100, .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            admitted
        });
    }
    let admitted: u64 = tasks.join_all().await.into_iter().sum();
    assert_eq!(admitted, 100);
    assert_eq!(row(store, &space, "level").await, shown(&[("n", 100)]));
    let names: Vec<Bytes> = (0..64).map(|task| format!("of {task}").into()).collect();
    let rows = store.rows(&space, &names).await.unwrap();
    let sum: u64 = rows.iter().flatten().map(|(_, shows)| shows).sum();
    assert_eq!(sum, 100);
}

pub async fn misuse_of_tallies_adds_nothing(store: &Handle) {
    let space = space();
    let good = || add("r", [count("n", 1)]);
    let misused = [
        adds([good(), add("", [count("n", 1)])]),
        adds([good(), add("r", [count("", 1)])]),
        adds([add("r", [count("n", 1), count("n", 1)])]),
        adds([add("r", (0..65).map(|n| count(&n.to_string(), 1)))]),
        adds((0..257).map(|row| add(&format!("r{row}"), [count("n", 1)]))),
        adds([Add {
            keep_ms: Some(0),
            ..good()
        }]),
        Tally {
            stamp: stamped("", 1),
            ..adds([good()])
        },
        Tally {
            stamp: stamped("s", 0),
            ..adds([good()])
        },
        Tally {
            once: once("", 1),
            ..adds([good()])
        },
        Tally {
            once: once("o", 0),
            ..adds([good()])
        },
        Tally {
            absent: vec![key(Table::Control, "")],
            ..adds([good()])
        },
        adds([good(), add(&"n".repeat(1025), [count("n", 1)])]),
        adds([good()].into_iter().chain((0..256).map(|_| add("r", [])))),
    ];
    for tally in misused {
        let result = store.tally(&space, tally.clone()).await;
        assert!(
            matches!(result, Err(Error::Misuse(_))),
            "{tally:?}: {result:?}"
        );
    }
    assert_eq!(row(store, &space, "r").await, []);
    let many: Vec<Bytes> = (0..1001).map(|row| format!("r{row}").into()).collect();
    for names in [&many[..], &[Bytes::new()]] {
        let result = store.rows(&space, names).await;
        assert!(matches!(result, Err(Error::Misuse(_))), "{result:?}");
    }
}
