//! Random tallies, leases and metered batches for both backends, and every reply
//! compared as far as it is no matter of time. It does not know what is counted.

use bytes::Bytes;
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use riptide_persistence::store::{
    Add, Batch, Check, Commit, Count, Handle, Incarnation, Key, Lease, Leased, Limits, MAX_COUNT,
    Metered, Mode, Once, Settle, Space, Stamp, Step, Table, Tally, Unit, Write, embedded::Embedded,
};

const ROWS: [&[u8]; 4] = [b"r", b"r:1", b"\0\xff{x}", b"never"];

const WINDOWS: [&[u8]; 2] = [b"w", b"\0:{w}"];

const TABLES: [Table; 3] = [Table::Entry, Table::Control, Table::Statement];

const COUNTERS: [&[u8]; 4] = [b"n", b"x:\r\n", b"\xff", b"m"];

#[derive(Clone, Debug)]
enum Deed {
    Tally(Tally),
    /// A lease, and which earlier one it settles, how many used and unused.
    Lease(Lease, Option<(usize, u64, u64)>),
    Commit(Batch),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let most = i64::try_from(MAX_COUNT).unwrap_or(i64::MAX);
    let amount = prop_oneof![
        6 => -20i64..60,
        1 => Just(0),
        1 => (1i64 << 53)..(1 << 54),
        1 => -(1i64 << 54)..-(1 << 53),
        1 => most - 3..=most,
        1 => Just(i64::MAX),
        1 => Just(i64::MIN),
    ];
    let limit = prop_oneof![
        6 => Just(None),
        2 => (0u64..100).prop_map(Some),
        1 => ((1u64 << 53)..(1 << 54)).prop_map(Some),
        1 => Just(Some(u64::MAX)),
    ];
    let counts = proptest::collection::btree_map(select(&COUNTERS[..]), (amount, limit), 0..4);
    let counts = counts.prop_map(|counts| {
        let count = |(name, (amount, limit))| Count {
            name: Bytes::from_static(name),
            amount,
            limit,
        };
        counts.into_iter().map(count).collect()
    });
    let keep_ms = prop_oneof![2 => Just(None), 1 => (600_000u64..1 << 36).prop_map(Some)];
    let add = (select(&ROWS[..3]), keep_ms, counts).prop_map(|(row, keep_ms, counts)| Add {
        row: Bytes::from_static(row),
        keep_ms,
        counts,
    });
    let stamp = (0u8..2, prop_oneof![1u64..20, (1u64 << 53)..(1 << 53) + 4]);
    let stamp = stamp.prop_map(|(source, sequence)| Stamp {
        source: vec![b'a' + source].into(),
        sequence,
    });
    let once = (0u8..12).prop_map(|name| Once {
        name: vec![name].into(),
        keep_ms: 600_000,
    });
    let key = || {
        (select(&TABLES[..]), 0u8..5).prop_map(|(table, path)| Key::new(table, vec![b'k', path]))
    };
    let tally = (
        proptest::option::weighted(0.3, stamp),
        proptest::option::weighted(0.3, once),
        proptest::collection::vec(key(), 0..2),
        proptest::collection::vec(add, 0..5),
    );
    let tally = tally.prop_map(|(stamp, once, absent, adds)| Tally {
        stamp,
        once,
        absent,
        adds,
    });
    // A slot of the longest span is more than an hour, so both are in the same.
    let lease = (
        (select(&WINDOWS[..]), 0u64..60, 0u64..40),
        (0u64..3, 1u64..6, 0u64..3, any::<bool>()),
        proptest::option::weighted(0.6, (0usize..4, 0u64..20, 0u64..20)),
    );
    let lease = lease.prop_map(
        |((window, limit, want), (least, share, forced, held), settle)| {
            let lease = Lease {
                window: Bytes::from_static(window),
                limit,
                span_ms: 31 * Unit::Day.ms(),
                want,
                least: least.min(want),
                share,
                hold_ms: if held { 2 * Unit::Day.ms() } else { 0 },
                forced,
                settle: None,
            };
            (lease, settle)
        },
    );
    let write = (key(), 0usize..200, any::<bool>(), any::<bool>());
    let write = write.prop_map(|(key, bytes, delete, absent)| {
        let write = if delete {
            Write::delete(key)
        } else {
            Write::put(key, vec![b'v'; bytes])
        };
        write.when(if absent { Check::Absent } else { Check::Any })
    });
    let batch = (
        proptest::collection::vec(write, 0..3),
        proptest::option::weighted(0.3, 0u64..4),
        (0u64..4, 0u64..1 << 50),
        prop_oneof![9 => Just(None), 1 => Just(Some(Step::Generation)), 1 => Just(Some(Step::Epoch))],
    );
    let batch = batch.prop_map(|(writes, entries, (operations, bytes), step)| Batch {
        mode: Mode::Each,
        limits: Limits {
            entries,
            bytes: None,
        },
        metered: Metered { operations, bytes },
        step,
        ..Batch::of(writes)
    });
    let deed = prop_oneof![
        4 => tally.prop_map(Deed::Tally),
        4 => lease.prop_map(|(lease, settle)| Deed::Lease(lease, settle)),
        3 => batch.prop_map(Deed::Commit),
    ];
    proptest::collection::vec(deed, 5..60)
}

/// What a store answers to a deed, without its times. Leases it gave are kept.
async fn answer(store: &Handle, space: &Space, deed: &Deed, leases: &mut Vec<Leased>) -> String {
    match deed {
        Deed::Tally(tally) => format!("{:?}", store.tally(space, tally.clone()).await.unwrap()),
        Deed::Lease(lease, settle) => {
            let settle = settle.and_then(|(back, used, unused)| {
                let until_ms = leases.iter().rev().nth(back)?.until_ms;
                Some(Settle {
                    until_ms,
                    used,
                    unused,
                })
            });
            let lease = Lease {
                settle,
                ..lease.clone()
            };
            let leased = store.lease(space, lease).await.unwrap();
            leases.push(leased);
            let waits = leased.retry_after_ms.map(|wait_ms| wait_ms > 0);
            format!("{} of {}, {waits:?}", leased.granted, leased.counted)
        }
        Deed::Commit(batch) => match store.commit(space, batch.clone()).await.unwrap() {
            Commit::Applied(applied) => format!("{:?} {:?}", applied.outcomes, applied.usage),
            Commit::Refused(refusal) => format!("{refusal:?}"),
        },
    }
}

/// What a store shows afterwards.
async fn state(store: &Handle, space: &Space) -> String {
    let names = ROWS.map(Bytes::from_static);
    let rows = store.rows(space, &names).await.unwrap();
    let meters = store.meters(space, Unit::Day).await.unwrap();
    let last = meters.last;
    let held = (meters.held_bytes, last.operations, last.bytes);
    let view = store.read(space, 0, &[]).await.unwrap().view;
    format!("{rows:?} {held:?} {view:?}")
}

#[test]
fn both_backends_count_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = crate::redis::Redis::start();
    let embedded: Handle = std::sync::Arc::new(Embedded::in_memory().unwrap());
    let redis: Handle = std::sync::Arc::new(runtime.block_on(crate::store::patient(&server.url())));
    let config = Config {
        cases: 64,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&deeds(), |deeds| {
            runtime.block_on(async {
                let space = Space::tenant(Incarnation::random());
                let (mut by_embedded, mut by_redis) = (Vec::new(), Vec::new());
                for deed in &deeds {
                    let ours = answer(&embedded, &space, deed, &mut by_embedded).await;
                    let theirs = answer(&redis, &space, deed, &mut by_redis).await;
                    assert_eq!(ours, theirs, "embedded and redis, of {deed:?}");
                    assert_eq!(
                        state(&embedded, &space).await,
                        state(&redis, &space).await,
                        "embedded and redis, after {deed:?}"
                    );
                }
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        embedded.close().await.unwrap();
        redis.close().await.unwrap();
    });
}
