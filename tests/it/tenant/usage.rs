//! Usage over time, by a clock of the test's: what falls into which unit and
//! period, and what a flush does when the store fails. It does not know gRPC.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use riptide_persistence::{
    cache::{Cache, Condition, Freshness, Set},
    error::Error,
    store::{Batch, Calls, Check, Key, Space, Table, Unit, Write},
    tenant::{
        Access, Caller, Counts, Event, Tenancy, Usage,
        plan::CustomQuota,
        usage::{Range, Totals},
    },
};

use super::{DAY_MS, Replica, Stage, cut::Cut, named};

const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;

/// A tenant of a replica, its cache, and the clock: 2027-01-15T08:00:00Z.
struct Rig {
    stage: Stage,
    replica: Replica,
    cache: Cache,
    tenancy: Tenancy,
    /// Bytes that an entry counts beside its value, for a key of one byte.
    beside: u64,
}

impl Rig {
    async fn new() -> Self {
        let stage = Stage::new();
        let mut settings = super::settings();
        for plan in settings.plans.values_mut() {
            plan.quotas.operations_per_minute = -1;
            plan.quotas.memory_bytes = -1;
            plan.default_ttl = None;
        }
        stage.settings.store(Arc::new(settings));
        let replica = stage.deaf_replica();
        let mut new = named("acme");
        let custom = |window_ms| CustomQuota {
            limit: 1_000_000,
            window_ms,
        };
        new.profile.quotas = Some(riptide_persistence::tenant::Quotas {
            custom: BTreeMap::from([
                ("seats".to_owned(), custom(None)),
                ("renders".to_owned(), custom(Some(HOUR_MS))),
            ]),
            ..Default::default()
        });
        replica
            .tenants
            .create(new, Default::default())
            .await
            .unwrap();
        let tenancy = admit(&replica).await;
        let mut settings = crate::cache::settings();
        // So that an entry counts what its value is long.
        settings.compression.enabled = false;
        let cache = Cache::new(stage.store.clone(), Arc::default(), Arc::new(settings));
        let mut rig = Self {
            stage,
            replica,
            cache,
            tenancy,
            beside: 0,
        };
        // An entry of another tenant tells what an empty one counts.
        let probe = rig.replica.create("probe").await.tenant.incarnation;
        let space = Space::tenant(probe);
        let tenancy = rig
            .replica
            .tenants
            .admit(&Caller::Admin, "probe", Access::Write)
            .await
            .unwrap();
        rig.cache
            .set(&tenancy, "", &set("k", &[], None))
            .await
            .unwrap();
        rig.beside = rig.stage.store.usage(&space).await.unwrap().bytes;
        rig.flush().await;
        rig
    }

    /// Writes an entry that counts so many bytes.
    async fn set(&self, key: &str, bytes: u64, ttl_ms: Option<i64>) {
        let value = vec![0; usize::try_from(bytes - self.beside).unwrap()];
        let set = set(key, &value, ttl_ms);
        self.cache.set(&self.tenancy, "", &set).await.unwrap();
    }

    async fn get(&self, key: &str) {
        let fresh = Freshness::default();
        self.cache
            .get(&self.tenancy, "", key, &fresh)
            .await
            .unwrap();
    }

    async fn flush(&self) {
        self.replica.tenants.flush_meters().await.unwrap();
    }

    async fn usage(&self) -> Usage {
        usage(&self.replica, Range::default()).await
    }

    async fn points(&self, unit: Unit, start_ms: u64) -> Vec<(u64, Totals)> {
        let range = Range {
            unit: Some(unit),
            start_ms: Some(start_ms),
            ..Range::default()
        };
        usage(&self.replica, range).await.points
    }

    /// What a call asked of the store.
    async fn calls<T>(&self, call: impl Future<Output = T>) -> (Calls, T) {
        let before = self.stage.counters.calls();
        let answer = call.await;
        (self.stage.counters.calls().since(before), answer)
    }
}

async fn admit(replica: &Replica) -> Tenancy {
    let tenants = &replica.tenants;
    let tenancy = tenants.admit(&Caller::Admin, "acme", Access::Write).await;
    tenancy.unwrap()
}

async fn usage(replica: &Replica, range: Range) -> Usage {
    let usage = replica.tenants.usage(&Caller::Admin, "acme", range).await;
    usage.unwrap()
}

fn set<'a>(key: &'a str, value: &'a [u8], ttl_ms: Option<i64>) -> Set<'a> {
    Set {
        key,
        value,
        ttl_ms,
        content_type: "",
        tags: &[],
        condition: Some(Condition::None),
        if_version: 0,
        lease_token: "",
    }
}

fn event(event_id: &str, event_ms: u64, operations: i64) -> Event {
    Event {
        tenant_id: "acme".into(),
        event_id: event_id.into(),
        event_ms: Some(event_ms),
        operations,
        ..Event::default()
    }
}

fn read(operations: u64) -> Counts {
    Counts {
        operations,
        bytes_out: 10 * operations,
        ..Counts::default()
    }
}

#[tokio::test]
async fn two_days_come_to_what_a_hand_computes() {
    let rig = Rig::new().await;
    let begin_ms = rig.stage.now_ms();
    rig.set("k", 1000, None).await; // 08:00
    rig.stage.pass_time(HOUR_MS / 2 + 10_000);
    rig.get("k").await; // 08:30:10
    rig.get("k").await;
    rig.get("none").await;
    rig.stage.pass_time(1000);
    rig.flush().await;
    rig.stage.pass_time(HOUR_MS * 3 / 2 - 11_000);
    rig.set("l", 3000, None).await; // 10:00
    rig.stage.pass_time(14 * HOUR_MS - 500);
    rig.get("k").await; // 23:59:59.5, flushed on the next day
    rig.stage.pass_time(1000);
    rig.flush().await;
    rig.stage.pass_time(6 * HOUR_MS - 500);
    rig.cache.delete(&rig.tenancy, "", "k", 0).await.unwrap(); // 06:00
    rig.stage.pass_time(6 * HOUR_MS);
    rig.set("t", 500, Some(1_800_000)).await; // 12:00, gone at 12:30
    rig.stage.pass_time(12 * HOUR_MS); // 00:00

    let now = rig.usage().await;
    assert_eq!((now.held.bytes, now.held.entries), (3000, 1));
    assert_eq!(now.totals.operations, 8);
    assert_eq!((now.totals.hits, now.totals.misses), (3, 1));
    assert_eq!(now.totals.memory_byte_seconds, 490_500_000);
    assert_eq!(now.as_of_ms, rig.stage.now_ms());

    let days = rig.points(Unit::Day, begin_ms).await;
    let figures: Vec<_> = days
        .iter()
        .map(|(_, day)| {
            (
                day.operations,
                day.hits,
                day.misses,
                day.memory_byte_seconds,
            )
        })
        .collect();
    assert_eq!(
        figures,
        [(5, 2, 1, 208_800_000), (3, 1, 0, 281_700_000), (0, 0, 0, 0)]
    );
    assert_eq!(days[0].0, begin_ms - 8 * HOUR_MS);

    let hours = rig.points(Unit::Hour, begin_ms).await;
    assert_eq!(hours.len(), 41);
    for (at, (start_ms, hour)) in hours.iter().enumerate() {
        assert_eq!(*start_ms, begin_ms + at as u64 * HOUR_MS);
        let held = match at {
            0..2 => 1000 * 3600,
            2..22 => 4000 * 3600,
            28 => 3000 * 3600 + 500 * 1800,
            40 => 0,
            _ => 3000 * 3600,
        };
        let operations = match at {
            0 => 4,
            2 | 16 | 22 | 28 => 1,
            _ => 0,
        };
        assert_eq!(
            (hour.memory_byte_seconds, hour.operations),
            (held, operations),
            "hour {at}"
        );
    }
    let minutes = rig.points(Unit::Minute, rig.stage.now_ms() - HOUR_MS).await;
    assert_eq!(minutes.len(), 61);
    assert!(
        minutes[..60]
            .iter()
            .all(|(_, minute)| minute.memory_byte_seconds == 3000 * 60 && minute.operations == 0)
    );
    let expiry = begin_ms + 28 * HOUR_MS + 29 * MINUTE_MS;
    let minutes = rig.points(Unit::Minute, expiry).await;
    let held: Vec<_> = minutes.iter().map(|(_, m)| m.memory_byte_seconds).collect();
    assert_eq!(held[..2], [3500 * 60, 3000 * 60]);
}

#[tokio::test]
async fn a_flush_whose_answer_is_lost_doubles_nothing() {
    for answer_lost in [true, false] {
        for commits in [0, 1] {
            let rig = Rig::new().await;
            let cut: Arc<Cut> = Arc::new(Cut::after(rig.stage.store.clone(), commits, answer_lost));
            let cut = rig.replica.tenants.through(cut);
            rig.tenancy.account.meter.count(read(3));
            let lost = commits == 0 || answer_lost;
            assert_eq!(cut.flush_meters().await.is_err(), lost);
            rig.tenancy.account.meter.count(read(2));
            assert!(cut.flush_meters().await.is_err());
            rig.stage.pass_time(3 * MINUTE_MS);
            rig.flush().await;
            rig.flush().await;
            let usage = rig.usage().await;
            assert_eq!(usage.totals.operations, 5, "{answer_lost} {commits}");
            assert_eq!(usage.totals.data_transfer_bytes(), 50);
            let used = usage.quotas.get("data_transfer_bytes").unwrap().used;
            assert_eq!(used, 50);
            // Whenever it arrives, a count belongs to the minute it was flushed in.
            let minutes = rig.points(Unit::Minute, rig.stage.now_ms() - 3 * MINUTE_MS);
            assert_eq!(minutes.await.first().unwrap().1.operations, 5);
        }
    }
}

#[tokio::test]
async fn a_flush_asks_for_those_who_called_alone() {
    let rig = Rig::new().await;
    let one = |calls: Calls| Calls {
        tally: calls.tally,
        ..Calls::default()
    };
    assert_eq!(rig.calls(rig.flush()).await.0, Calls::default());
    for _ in 0..1000 {
        rig.tenancy.account.meter.count(read(1));
    }
    let (calls, ()) = rig.calls(rig.flush()).await;
    assert_eq!((calls.tally, calls), (1, one(calls)));
    assert_eq!(rig.calls(rig.flush()).await.0, Calls::default());
    let (calls, usage) = rig.calls(rig.usage()).await;
    assert_eq!(usage.totals.operations, 1000);
    // The record, and again where a space has no meters, as it may be elsewhere; what is
    // held by its cache and as sessions; their meters; rows; the one custom rate.
    let expected = Calls {
        read: 2,
        usage: 2,
        meters: 2,
        rows: 1,
        lease: 1,
        ..Calls::default()
    };
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn replicas_sum_and_each_reads_what_it_did() {
    let rig = Rig::new().await;
    let other = rig.stage.deaf_replica();
    let there = admit(&other).await;
    for _ in 0..10 {
        rig.tenancy.account.meter.count(read(1));
        there.account.meter.count(read(2));
        there.account.meter.consume("renders", 5);
    }
    assert_eq!(rig.usage().await.totals.operations, 10);
    let usage = usage(&other, Range::default()).await;
    assert_eq!(usage.totals.operations, 30);
    assert_eq!(usage.totals.custom.get("renders"), Some(&50));
    assert_eq!(rig.usage().await.totals.operations, 30);
}

#[tokio::test]
async fn a_late_event_counts_in_its_own_time() {
    let rig = Rig::new().await;
    rig.stage.pass_time(25 * DAY_MS); // 2027-02-09T08:00
    let now_ms = rig.stage.now_ms();
    let late_ms = now_ms - 20 * DAY_MS - HOUR_MS / 2; // 2027-01-20T07:30
    let tenants = &rig.replica.tenants;
    assert!(tenants.record(event("late", late_ms, 7)).await.unwrap());
    assert!(tenants.record(event("today", now_ms - 1, 1)).await.unwrap());
    assert!(!tenants.record(event("late", now_ms, 7)).await.unwrap());
    assert_eq!(rig.usage().await.totals.operations, 1);

    let days = rig.points(Unit::Day, now_ms - 25 * DAY_MS).await;
    let used: Vec<_> = days.iter().map(|(_, day)| day.operations).collect();
    let mut expected = vec![0; 26];
    (expected[5], expected[25]) = (7, 1);
    assert_eq!(used, expected);
    let hours = rig.points(Unit::Hour, late_ms - HOUR_MS).await;
    assert_eq!((hours[0].1.operations, hours[1].1.operations), (0, 7));

    // The name is remembered for as long as the event would be taken.
    rig.stage.pass_time(35 * DAY_MS - 1);
    assert!(!tenants.record(event("today", now_ms, 1)).await.unwrap());
}

/// Says that a period of the tenant is being closed, as billing does.
async fn close(rig: &Rig, period: &str) {
    let incarnation = rig.tenancy.incarnation;
    let key = Key::new(Table::Control, format!("closing:{period}:{incarnation}"));
    let write = Write::put(key, "").when(Check::Absent);
    let space = Space::meters(incarnation);
    let commit = rig.stage.store.commit(&space, Batch::of([write])).await;
    assert!(matches!(
        commit.unwrap(),
        riptide_persistence::store::Commit::Applied(_)
    ));
}

#[tokio::test]
async fn a_closed_period_takes_nothing_more() {
    let rig = Rig::new().await;
    rig.stage.pass_time(17 * DAY_MS - 9 * HOUR_MS); // 2027-01-31T23:00
    let cut = Arc::new(Cut::after(rig.stage.store.clone(), 0, false));
    let cut = rig.replica.tenants.through(cut);
    rig.tenancy.account.meter.count(read(3));
    assert!(cut.flush_meters().await.is_err());
    rig.stage.pass_time(2 * HOUR_MS); // 2027-02-01T01:00
    rig.tenancy.account.meter.count(read(2));
    close(&rig, "2027-01").await;
    rig.flush().await;
    // All of it is in February: the late part could go nowhere else.
    assert_eq!(rig.usage().await.totals.operations, 5);
    let hours = rig
        .points(Unit::Hour, rig.stage.now_ms() - 2 * HOUR_MS)
        .await;
    let used: Vec<_> = hours.iter().map(|(_, hour)| hour.operations).collect();
    assert_eq!(used.iter().sum::<u64>(), 5);
    assert_eq!(used[0], 0);

    let late = event("late", rig.stage.now_ms() - 3 * HOUR_MS, 7);
    let refused = rig.replica.tenants.record(late).await.unwrap_err();
    assert!(
        matches!(&refused, Error::ConditionNotMet { subject, .. } if subject == "event_time"),
        "{refused:?}"
    );
    assert_eq!(rig.usage().await.totals.operations, 5);
}

#[tokio::test]
async fn reports_fill_levels_and_windows() {
    let rig = Rig::new().await;
    let now_ms = rig.stage.now_ms();
    rig.stage.pass_time(2 * HOUR_MS);
    let custom = |event_id: &str, event_ms, renders| Event {
        operations: 0,
        custom: BTreeMap::from([("seats".to_owned(), 2), ("renders".to_owned(), renders)]),
        ..event(event_id, event_ms, 0)
    };
    let tenants = &rig.replica.tenants;
    assert!(tenants.record(custom("old", now_ms, 10)).await.unwrap());
    let recent = now_ms + HOUR_MS * 3 / 2;
    assert!(tenants.record(custom("new", recent, 5)).await.unwrap());
    let usage = rig.usage().await;
    let used = |metric: &str| usage.quotas.get(metric).unwrap().used;
    assert_eq!((used("seats"), used("renders")), (4, 5));
    assert_eq!(usage.totals.custom.get("seats"), Some(&4));
    assert_eq!(usage.totals.custom.get("renders"), Some(&15));
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Move {
    Pass(u64),
    Set(u8, u64, Option<i64>),
    Delete(u8),
    Get(u8),
    Flush,
    Record(u64, i64),
    FlushCache,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0..8 * HOUR_MS).prop_map(Move::Pass),
        2 => (0..90_000_u64).prop_map(Move::Pass),
        4 => (0..4_u8, 200..4000_u64, proptest::option::of(1..20_000_000_i64))
            .prop_map(|(key, bytes, ttl)| Move::Set(key, bytes, ttl)),
        1 => (0..4_u8).prop_map(Move::Delete),
        3 => (0..4_u8).prop_map(Move::Get),
        2 => Just(Move::Flush),
        1 => (0..HOUR_MS, 1..100_i64).prop_map(|(ago, n)| Move::Record(ago, n)),
        1 => Just(Move::FlushCache),
    ];
    proptest::collection::vec(one, 1..40)
}

fn sum<'a>(points: impl Iterator<Item = &'a (u64, Totals)>) -> Totals {
    let mut sum = Totals::default();
    for (_, point) in points {
        sum.operations += point.operations;
        sum.hits += point.hits;
        sum.misses += point.misses;
        sum.bytes_in += point.bytes_in;
        sum.bytes_out += point.bytes_out;
        sum.memory_byte_seconds += point.memory_byte_seconds;
    }
    sum
}

async fn sums_agree(moves: Vec<Move>) {
    let rig = Rig::new().await;
    let begin_ms = rig.stage.now_ms();
    for (at, step) in moves.into_iter().enumerate() {
        let key = |key: u8| char::from(b'a' + key).to_string();
        match step {
            Move::Pass(ms) => rig.stage.pass_time(ms),
            Move::Set(name, bytes, ttl) => rig.set(&key(name), bytes, ttl).await,
            Move::Delete(name) => {
                let deleted = rig.cache.delete(&rig.tenancy, "", &key(name), 0).await;
                deleted.unwrap();
            }
            Move::Get(name) => rig.get(&key(name)).await,
            Move::Flush => rig.flush().await,
            Move::Record(ago, operations) => {
                let event_ms = (rig.stage.now_ms() - ago).max(begin_ms);
                let event = event(&at.to_string(), event_ms, operations);
                assert!(rig.replica.tenants.record(event).await.unwrap());
            }
            Move::FlushCache => {
                rig.cache.flush_tenant(&rig.tenancy).await.unwrap();
            }
        }
    }
    let usage = rig.usage().await;
    let expected = sum([(0, usage.totals)].iter());
    let days = rig.points(Unit::Day, begin_ms).await;
    let hours = rig.points(Unit::Hour, begin_ms).await;
    assert_eq!(sum(days.iter()), expected, "days");
    assert_eq!(sum(hours.iter()), expected, "hours");
    // The last hours, as far as minutes are kept.
    let now_ms = rig.stage.now_ms();
    let kept_ms = Unit::Hour.start_ms(now_ms).saturating_sub(46 * HOUR_MS);
    let first_ms = kept_ms.max(begin_ms);
    let minutes = rig.points(Unit::Minute, first_ms).await;
    let recent = hours.iter().filter(|(start_ms, _)| *start_ms >= first_ms);
    assert_eq!(sum(minutes.iter()), sum(recent), "minutes");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn points_add_up_to_totals_whatever_happened(moves in moves()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(sums_agree(moves));
    }
}
