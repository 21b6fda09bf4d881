//! The embedded store's meters and windows over months of time, beside a model
//! that remembers every record and every permit. It does not know other backends.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use riptide_persistence::store::{
    Action, Batch, Check, Commit, Expiry, Incarnation, Key, Lease, Metered, Opening, Outcome,
    Reading, Settle, Space, Step, Store, Table, Unit, Write, bucket_ms, charge, embedded::Embedded,
};

/// 2026-11-24, some hours into the day.
const BEGIN_MS: u64 = 1_795_521_600_000 + 40_123_457;

/// A store whose clock the test sets.
fn with_hands() -> (Embedded, Arc<AtomicU64>) {
    let hands = Arc::new(AtomicU64::new(BEGIN_MS));
    let clock = hands.clone();
    let store = Embedded::in_memory_with_clock(move || clock.load(Ordering::Relaxed)).unwrap();
    (store, hands)
}

fn space() -> Space {
    Space::tenant(Incarnation::random())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn cases(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Put(u8, usize, Option<u64>),
    Touch(u8, Option<u64>),
    Delete(u8),
    Flush,
    Metered(u64, u64),
}

/// What was held, and from when until when.
#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    from_ms: u64,
    expire_ms: u64,
    end_ms: u64,
}

#[derive(Default)]
struct Model {
    present: HashMap<u8, Held>,
    past: Vec<Held>,
    carried: Vec<(u64, Metered)>,
}

impl Model {
    fn end(&mut self, key: u8, now_ms: u64) {
        if let Some(held) = self.present.remove(&key) {
            let end_ms = held.end_ms.min(now_ms);
            self.past.push(Held { end_ms, ..held });
        }
    }

    fn apply(&mut self, deed: &Deed, now_ms: u64) {
        let ends = |ttl_ms: Option<u64>| {
            ttl_ms.map_or((u64::MAX, u64::MAX), |ttl_ms| {
                let expire_ms = now_ms + ttl_ms;
                (expire_ms, expire_ms.next_multiple_of(bucket_ms(ttl_ms)))
            })
        };
        let carried = match deed {
            Deed::Metered(operations, bytes) => Metered {
                operations: *operations,
                bytes: *bytes,
            },
            _ => Metered::default(),
        };
        match deed {
            Deed::Put(key, bytes, ttl_ms) => {
                self.end(*key, now_ms);
                let (expire_ms, end_ms) = ends(*ttl_ms);
                let held = Held {
                    bytes: charge(path(*key).as_bytes(), *bytes),
                    from_ms: now_ms,
                    expire_ms,
                    end_ms,
                };
                self.present.insert(*key, held);
            }
            Deed::Touch(key, ttl_ms) => {
                let held = self.present.get_mut(key);
                if let Some(held) = held.filter(|held| now_ms < held.expire_ms) {
                    (held.expire_ms, held.end_ms) = ends(*ttl_ms);
                }
            }
            Deed::Delete(key) => self.end(*key, now_ms),
            Deed::Flush => {
                for key in 0..=u8::MAX {
                    self.end(key, now_ms);
                }
            }
            Deed::Metered(..) => {}
        }
        self.carried.push((now_ms, carried));
    }

    /// The meters at a moment: what a move at that very moment does comes after it.
    fn at(&self, at_ms: u64, moves_then: bool) -> (u128, u64, u64) {
        let held = self.past.iter().chain(self.present.values());
        let byte_ms = held.map(|held| {
            let until_ms = held.end_ms.min(at_ms);
            u128::from(held.bytes) * u128::from(until_ms.saturating_sub(held.from_ms))
        });
        let (mut operations, mut bytes) = (0, 0);
        for (moved_ms, carried) in &self.carried {
            if *moved_ms < at_ms || (moves_then && *moved_ms == at_ms) {
                operations += carried.operations;
                bytes += carried.bytes;
            }
        }
        (byte_ms.sum(), operations, bytes)
    }
}

fn path(key: u8) -> String {
    format!("k{key}")
}

fn batch(deed: &Deed) -> Batch {
    let expiry = |ttl_ms: &Option<u64>| ttl_ms.map_or(Expiry::Never, Expiry::AfterMs);
    let key = |key: &u8| Key::new(Table::Entry, path(*key));
    match deed {
        Deed::Put(of, bytes, ttl_ms) => {
            Batch::of([Write::put(key(of), vec![7; *bytes]).expiring(expiry(ttl_ms))])
        }
        Deed::Touch(of, ttl_ms) => {
            let action = Action::Touch(expiry(ttl_ms));
            Batch::of([Write::new(key(of), Check::Any, action)])
        }
        Deed::Delete(of) => Batch::of([Write::delete(key(of))]),
        Deed::Flush => Batch {
            step: Some(Step::Generation),
            ..Batch::default()
        },
        Deed::Metered(operations, bytes) => Batch {
            metered: Metered {
                operations: *operations,
                bytes: *bytes,
            },
            ..Batch::default()
        },
    }
}

fn spans() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![
        2 => Just(0),
        4 => 1u64..2_000,
        4 => 1u64..200_000,
        2 => 1u64..10_000_000,
        1 => 1u64..400_000_000,
    ]
}

fn histories() -> impl Strategy<Value = Vec<(u64, bool, Deed)>> {
    let ttl = || proptest::option::weighted(0.7, spans().prop_map(|span| span.max(1)));
    let deed = prop_oneof![
        6 => (0u8..6, 0usize..3_000, ttl()).prop_map(|(key, bytes, ttl)| Deed::Put(key, bytes, ttl)),
        2 => (0u8..6, ttl()).prop_map(|(key, ttl)| Deed::Touch(key, ttl)),
        2 => (0u8..6).prop_map(Deed::Delete),
        1 => Just(Deed::Flush),
        3 => (0u64..9, 0u64..1_000_000).prop_map(|(calls, bytes)| Deed::Metered(calls, bytes)),
    ];
    // Some moments are borders of minutes.
    proptest::collection::vec((spans(), proptest::bool::weighted(0.15), deed), 1..50)
}

fn figures(reading: Reading) -> (u128, u64, u64) {
    (reading.byte_ms, reading.operations, reading.bytes)
}

async fn compare(store: &Embedded, space: &Space, model: &Model, now_ms: u64) {
    for unit in Unit::ALL {
        let meters = store.meters(space, unit).await.unwrap();
        assert_eq!(meters.now_ms, now_ms);
        assert_eq!(figures(meters.now()), model.at(now_ms, true), "now");
        let last_ms = unit.start_ms(now_ms);
        for back in 0..unit.kept() {
            let border_ms = last_ms - back * unit.ms();
            let expected = model.at(border_ms, false);
            assert_eq!(
                figures(meters.at(border_ms)),
                expected,
                "{unit:?} {border_ms}, {back} before {now_ms}"
            );
            if expected == (0, 0, 0) && border_ms < BEGIN_MS {
                break;
            }
        }
    }
}

#[test]
fn meters_are_exact_at_every_border() {
    let runtime = runtime();
    TestRunner::new(cases(64))
        .run(&histories(), |history| {
            runtime.block_on(async {
                let (store, hands) = with_hands();
                let space = space();
                let mut model = Model::default();
                let mut now_ms = BEGIN_MS;
                for (number, (span_ms, to_border, deed)) in history.iter().enumerate() {
                    now_ms += span_ms;
                    if *to_border {
                        now_ms = now_ms.next_multiple_of(60_000);
                    }
                    hands.store(now_ms, Ordering::Relaxed);
                    if number % 16 == 7 {
                        // As it looks before anybody moves what is over.
                        compare(&store, &space, &model, now_ms).await;
                    }
                    let commit = store.commit(&space, batch(deed)).await.unwrap();
                    assert!(matches!(commit, Commit::Applied(_)));
                    model.apply(deed, now_ms);
                }
                compare(&store, &space, &model, now_ms).await;
                now_ms += 3 * Unit::Day.ms();
                hands.store(now_ms, Ordering::Relaxed);
                compare(&store, &space, &model, now_ms).await;
                assert!(store.audit(&space).await.unwrap().agrees());
            });
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn an_idle_space_is_read_after_three_days() {
    let (store, hands) = with_hands();
    let space = space();
    // One ends every six hours, and nobody looks.
    let puts = (1..=12).map(|number| {
        Write::put(Key::new(Table::Entry, format!("k{number:02}")), "value")
            .expiring(Expiry::AfterMs(number * 6 * Unit::Hour.ms()))
    });
    let commit = store.commit(&space, Batch::of(puts)).await.unwrap();
    let Commit::Applied(applied) = commit else {
        panic!("{commit:?}");
    };
    let ends: Vec<u64> = applied
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Done {
                expire_ms: Some(expire_ms),
                ..
            } => expire_ms.next_multiple_of(15_000),
            other => panic!("{other:?}"),
        })
        .collect();
    let now_ms = BEGIN_MS + 3 * Unit::Day.ms() + 20_000;
    hands.store(now_ms, Ordering::Relaxed);
    let meters = store.meters(&space, Unit::Hour).await.unwrap();
    assert_eq!(meters.held_bytes, 0);
    assert_eq!(
        meters.openings.len(),
        13,
        "only hours in which something ended, and the first"
    );
    for hours in 0..=73 {
        let border_ms = Unit::Hour.start_ms(BEGIN_MS) + hours * Unit::Hour.ms();
        let held = ends
            .iter()
            .map(|end_ms| charge(b"k01", 5) * border_ms.min(*end_ms).saturating_sub(BEGIN_MS));
        assert_eq!(
            meters.at(border_ms).byte_ms,
            u128::from(held.sum::<u64>()),
            "hour {hours}"
        );
    }
}

#[tokio::test]
async fn a_busy_space_keeps_as_many_borders_as_it_must() {
    let (store, hands) = with_hands();
    let space = space();
    let put = Write::put(Key::new(Table::Entry, "k"), "value");
    store.commit(&space, Batch::of([put])).await.unwrap();
    let minutes = Unit::Minute.kept() + 300;
    let of = |operations| Batch {
        metered: Metered {
            operations,
            bytes: 0,
        },
        ..Batch::default()
    };
    for minute in 1..=minutes {
        hands.store(BEGIN_MS + minute * 60_000, Ordering::Relaxed);
        store.commit(&space, of(1)).await.unwrap();
    }
    let now_ms = BEGIN_MS + minutes * 60_000;
    let meters = store.meters(&space, Unit::Minute).await.unwrap();
    assert_eq!(meters.openings.len() as u64, Unit::Minute.kept());
    for back in 0..Unit::Minute.kept() {
        let border_ms = Unit::Minute.start_ms(now_ms) - back * 60_000;
        let reading = meters.at(border_ms);
        assert_eq!(reading.operations, minutes - back - 1);
        let held = charge(b"k", 5) * (border_ms - BEGIN_MS);
        assert_eq!(reading.byte_ms, u128::from(held));
    }
    // A turn of the ring later, what is old is not taken for what is new.
    hands.store(now_ms + 7 * Unit::Day.ms(), Ordering::Relaxed);
    store.commit(&space, of(1)).await.unwrap();
    let meters = store.meters(&space, Unit::Minute).await.unwrap();
    let starts: Vec<u64> = meters
        .openings
        .iter()
        .map(|Opening { start_ms, .. }| *start_ms)
        .collect();
    assert_eq!(starts, [Unit::Minute.start_ms(now_ms) + 7 * Unit::Day.ms()]);
    let held = charge(b"k", 5) * (starts[0] - BEGIN_MS);
    assert_eq!(meters.at(starts[0]).byte_ms, u128::from(held));
}

#[tokio::test]
async fn meters_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Arc::new(AtomicU64::new(BEGIN_MS));
    let open = || {
        let clock = hands.clone();
        Embedded::open_with_clock(folder.path(), move || clock.load(Ordering::Relaxed)).unwrap()
    };
    let space = space();
    let store = open();
    let batch = Batch {
        metered: Metered {
            operations: 3,
            bytes: 9,
        },
        ..Batch::of([Write::put(Key::new(Table::Entry, "k"), "value")])
    };
    store.commit(&space, batch).await.unwrap();
    store.close().await.unwrap();
    hands.fetch_add(Unit::Day.ms(), Ordering::Relaxed);
    let now = open().meters(&space, Unit::Day).await.unwrap().now();
    let held = u128::from(charge(b"k", 5)) * u128::from(Unit::Day.ms());
    assert_eq!(figures(now), (held, 3, 9));
}

/// A holder of leases: waits so long, asks for so many, uses this part of them,
/// this part of the lease away, and tells of it or not.
#[derive(Clone, Debug)]
struct Turn {
    wait_ms: u64,
    want: u64,
    share: u64,
    hold_ms: u64,
    used: u64,
    when: u64,
    settles: bool,
}

fn turns() -> impl Strategy<Value = (u64, Vec<Turn>)> {
    let turn = (
        prop_oneof![0u64..30, 0u64..400, 0u64..3_000],
        0u64..12,
        1u64..5,
        0u64..=100,
        0u64..=100,
        0u64..=100,
        any::<bool>(),
    );
    let turn = turn.prop_map(
        |(wait_ms, want, share, hold_ms, used, when, settles)| Turn {
            wait_ms,
            want,
            share,
            hold_ms,
            used,
            when,
            settles,
        },
    );
    let span_ms = prop_oneof![Just(1_000u64), Just(1_777), Just(6_000), Just(60_000)];
    (span_ms, proptest::collection::vec(turn, 1..120))
}

#[test]
fn no_span_of_a_window_holds_more_than_its_limit() {
    const LIMIT: u64 = 20;
    let runtime = runtime();
    let (store, hands) = with_hands();
    TestRunner::new(cases(96))
        .run(&turns(), |(span_ms, turns)| {
            let space = space();
            let mut now_ms = hands.load(Ordering::Relaxed);
            let mut uses: Vec<u64> = Vec::new();
            let mut open: Option<(Settle, u64)> = None;
            for turn in turns {
                now_ms += turn.wait_ms;
                hands.store(now_ms, Ordering::Relaxed);
                // Permits whose use lies ahead yet are not told of.
                let settle = open
                    .take_if(|(_, used_ms)| *used_ms <= now_ms)
                    .map(|(settle, _)| settle);
                let asked = Lease {
                    window: Bytes::from_static(b"w"),
                    limit: LIMIT,
                    span_ms,
                    want: turn.want,
                    least: turn.want.min(1),
                    share: turn.share,
                    hold_ms: turn.hold_ms * span_ms / 1_000,
                    forced: 0,
                    settle,
                };
                let leased = runtime
                    .block_on(store.lease(&space, asked.clone()))
                    .unwrap();
                assert!(leased.counted <= LIMIT);
                assert!(leased.until_ms >= now_ms + asked.hold_ms);
                if leased.granted == 0 {
                    if let (Some(wait_ms), true) = (leased.retry_after_ms, turn.want > 0) {
                        assert!(wait_ms > 0);
                        let again = Lease {
                            settle: None,
                            want: 0,
                            least: 0,
                            ..asked
                        };
                        let counted = async |at_ms| {
                            hands.store(at_ms, Ordering::Relaxed);
                            store.lease(&space, again.clone()).await.unwrap().counted
                        };
                        now_ms += wait_ms;
                        assert_eq!(runtime.block_on(counted(now_ms - 1)), LIMIT);
                        assert!(runtime.block_on(counted(now_ms)) < LIMIT);
                    }
                    continue;
                }
                let used = leased.granted * turn.used / 100;
                let used_ms = now_ms + (leased.until_ms - now_ms) * turn.when / 100;
                uses.extend((0..used).map(|_| used_ms));
                if turn.settles && open.is_none() {
                    let settle = Settle {
                        until_ms: leased.until_ms,
                        used,
                        unused: leased.granted - used,
                    };
                    open = Some((settle, used_ms));
                }
            }
            uses.sort_unstable();
            for (place, used_ms) in uses.iter().enumerate() {
                let within = uses[place..].partition_point(|later| *later < used_ms + span_ms);
                assert!(within as u64 <= LIMIT, "{within} from {used_ms}");
            }
            hands.store(now_ms, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
}
