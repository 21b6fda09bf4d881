//! A month of one tenant, scripted to the millisecond, against a sheet worked out
//! by hand. It does not know gRPC.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use riptide_persistence::{
    cache::{Cache, Freshness},
    config,
    error::Error,
    store::Space,
    tenant::{
        Access, Caller, Change, Event, NewTenant, Profile, Tenancy, Tenants, Update,
        billing::{Bill, Closing, Statement},
    },
};
use rstest::rstest;

use super::{clocked::Clocked, replica};
use crate::{server::Kind, tenant::DAY_MS};

/// 2027-02-01T00:00Z. February has 28 days.
const FEBRUARY: u64 = 1_801_440_000_000;
const HOUR_MS: u64 = 60 * 60 * 1000;

/// What an entry under a key of one byte counts beside its value: 20 bytes of
/// record, `default:k`, 21 bytes of frame.
const BESIDE: usize = 20 + 9 + 21;

/// Midnight after so many days of February; the 1st is day 1.
fn day(day: u64) -> u64 {
    FEBRUARY + (day - 1) * DAY_MS
}

fn price(unit_price_micros: i64, unit: i64, included: i64) -> config::Price {
    config::Price {
        unit_price_micros,
        unit,
        included,
    }
}

fn settings() -> config::Tenant {
    let plan = |prices: config::Prices| config::Plan {
        quotas: config::Quotas {
            memory_bytes: -1,
            cache_entries: -1,
            storage_bytes: -1,
            operations_per_minute: -1,
            data_transfer_bytes: -1,
            active_sessions: -1,
            custom: BTreeMap::from([(
                "pages".to_owned(),
                config::CustomQuota {
                    limit: -1,
                    window: Some(Duration::from_secs(3600)),
                },
            )]),
            ..config::Quotas::default()
        },
        default_ttl: None,
        prices,
    };
    let transfer = |unit_price_micros, included| config::BytesPrice {
        unit_price_micros,
        unit: 1024,
        included,
    };
    let hours = |unit_price_micros| config::HoursPrice {
        unit_price_micros,
        included: 0,
    };
    let small = config::Prices {
        base_fee_micros: 2_800_001,
        operations: price(5_000, 10, 40),
        data_transfer_bytes: transfer(300, 20_480),
        compute_ms: price(70, 1000, 0),
        memory_gib_hours: hours(1_000_000_000_000),
        custom: [("pages".to_owned(), price(250, 1, 10))].into(),
        ..config::Prices::default()
    };
    let large = config::Prices {
        base_fee_micros: 28_000_000,
        operations: price(4_000, 10, 100),
        data_transfer_bytes: transfer(200, 262_144),
        compute_ms: price(60, 1000, 5_000),
        memory_gib_hours: hours(500_000_000_000),
        custom: [("pages".to_owned(), price(200, 1, 30))].into(),
        ..config::Prices::default()
    };
    config::Tenant {
        default_plan: "small".into(),
        plans: [
            ("small".to_owned(), plan(small)),
            ("large".to_owned(), plan(large)),
        ]
        .into(),
        ..super::super::settings()
    }
}

struct Month {
    clocked: Clocked,
    settings: Arc<ArcSwap<config::Tenant>>,
    tenants: Tenants,
    cache: Cache,
}

impl Month {
    async fn begin(kind: Kind, now_ms: u64) -> Self {
        let clocked = Clocked::new(kind, now_ms).await;
        let settings = Arc::new(ArcSwap::from_pointee(settings()));
        let tenants = replica(clocked.store.clone(), settings.clone());
        let mut cache = crate::cache::settings();
        // So that an entry counts what its value is long.
        cache.compression.enabled = false;
        let cache = Cache::new(clocked.store.clone(), Arc::default(), Arc::new(cache));
        let acme = NewTenant {
            tenant_id: "acme".into(),
            ..NewTenant::default()
        };
        clocked.pass_to(now_ms).await;
        tenants.create(acme, Change::default()).await.unwrap();
        Self {
            clocked,
            settings,
            tenants,
            cache,
        }
    }

    /// Another replica on the same store.
    fn other(&self) -> Tenants {
        replica(self.clocked.store.clone(), self.settings.clone())
    }

    async fn tenancy(&self) -> Tenancy {
        let admitted = self.tenants.admit(&Caller::Admin, "acme", Access::Write);
        admitted.await.unwrap()
    }

    async fn set(&self, key: &str, bytes: usize, ttl_ms: Option<u64>) {
        let value = vec![0; bytes];
        let mut set = crate::cache::set(key, "");
        set.value = &value;
        set.ttl_ms = ttl_ms.map(|ms| i64::try_from(ms).unwrap());
        let tenancy = self.tenancy().await;
        self.cache.set(&tenancy, "", &set).await.unwrap();
    }

    async fn get(&self, key: &str, times: usize) {
        let tenancy = self.tenancy().await;
        for _ in 0..times {
            let fresh = Freshness::default();
            self.cache.get(&tenancy, "", key, &fresh).await.unwrap();
        }
        self.tenants.flush_meters().await.unwrap();
    }

    async fn held(&self) -> u64 {
        let space = Space::tenant(self.tenancy().await.incarnation);
        self.clocked.store.usage(&space).await.unwrap().bytes
    }

    async fn bill(&self, period: &str) -> Bill {
        let bill = self.tenants.billing(&Caller::Admin, "acme", period);
        bill.await.unwrap()
    }
}

fn event(event_id: &str, event_ms: u64, pages: i64, compute_ms: i64) -> Event {
    Event {
        tenant_id: "acme".into(),
        event_id: event_id.into(),
        event_ms: Some(event_ms),
        compute_ms,
        custom: [("pages".to_owned(), pages)].into(),
        ..Event::default()
    }
}

/// Plan, metric, quantity, included, unit price, unit, amount of each line.
type Row = (&'static str, &'static str, i64, i64, i64, i64, i64);

fn rows(statement: &Statement) -> Vec<(&str, &str, i64, i64, i64, i64, i64)> {
    let row = statement.lines.iter().map(|line| {
        (
            line.plan.as_str(),
            line.metric.as_str(),
            line.quantity,
            line.included,
            line.unit_price_micros,
            line.unit,
            line.amount_micros,
        )
    });
    row.collect()
}

/// The sheet of February.
///
/// | when | what | operations | bytes | else |
/// |---|---|---|---|---|
/// | 2nd | set a, 950 bytes, for a day | 1 | 951 | holds 1,000 bytes for 86,400 s |
/// | 5th | set b, 1,950 bytes | 1 | 1,951 | holds 2,000 bytes until the 20th |
/// | 6th | get a 10 times: it has expired | 10 | 10 | |
/// | 6th | get b 20 times | 20 | 20 + 39,000 | |
/// | 10th | reported | 25 | 5,000 | 12 pages, 12,345 ms |
/// | 2nd of March | reported late, of the 14th | | | 5 pages |
/// | 15th | **from small to large** | **57** | **46,932** | **17 pages, 12,345 ms** |
/// | 16th | get b 60 times | 60 | 60 + 117,000 | |
/// | 18th | reported | | | 40 pages, 2,500 ms |
/// | 20th | the cache is flushed | 1 | 0 | b is gone |
/// | 21st | set c, 450 bytes, for 36 hours | 1 | 451 | holds 500 bytes for 129,600 s |
/// | | **large** | **62** | **117,511** | **40 pages, 2,500 ms** |
///
/// Each plan had 14 of 28 days, 1,209,600,000 of 2,419,200,000 ms. Byte-seconds:
/// small 1,000 * 86,400 + 2,000 * 10 * 86,400 = 1,814,400,000,
/// large 2,000 * 5 * 86,400 + 500 * 129,600 = 928,800,000.
const SHEET: [Row; 12] = [
    // Half of 2,800,001 is 1,400,000.5.
    (
        "small",
        "base_fee",
        1_209_600_000,
        0,
        2_800_001,
        2_419_200_000,
        1_400_001,
    ),
    // Half of 40 is included: 37 * 5,000 / 10.
    ("small", "operations", 57, 20, 5_000, 10, 18_500),
    // Half of 20,480 is included, and the 131,072 - 117,511 = 13,561 that large
    // leaves: (46,932 - 23,801) * 300 / 1024 = 6,776.66.
    (
        "small",
        "data_transfer_bytes",
        46_932,
        23_801,
        300,
        1024,
        6_777,
    ),
    // 12,345 * 70 / 1000 = 864.15.
    ("small", "compute_ms", 12_345, 0, 70, 1000, 864),
    // 1,814,400,000 * 10^12 / 3,865,470,566,400 = 469,386,577.61.
    (
        "small",
        "memory_byte_seconds",
        1_814_400_000,
        0,
        1_000_000_000_000,
        3_865_470_566_400,
        469_386_578,
    ),
    // Half of 10 is included: 12 * 250.
    ("small", "pages", 17, 5, 250, 1, 3_000),
    // 14,000,000, and 15,400,000.5 in all, rounded to 15,400,001, less 1,400,001.
    (
        "large",
        "base_fee",
        1_209_600_000,
        0,
        28_000_000,
        2_419_200_000,
        14_000_000,
    ),
    // Half of 100 is included: 12 * 4,000 / 10.
    ("large", "operations", 62, 50, 4_000, 10, 4_800),
    // What it needs of the half of 262,144; small has the rest.
    (
        "large",
        "data_transfer_bytes",
        117_511,
        117_511,
        200,
        1024,
        0,
    ),
    // Half of 5,000 is included.
    ("large", "compute_ms", 2_500, 2_500, 60, 1000, 0),
    // 928,800,000 * 5 * 10^11 / 3,865,470,566,400 = 120,140,612.13.
    (
        "large",
        "memory_byte_seconds",
        928_800_000,
        0,
        500_000_000_000,
        3_865_470_566_400,
        120_140_612,
    ),
    // 5 and half of 30 are 20 in all, less 5: 25 * 200.
    ("large", "pages", 40, 15, 200, 1, 5_000),
];

/// 470,815,720 of small, 134,150,412 of large.
const TOTAL: i64 = 604_966_132;

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_scripted_month_is_billed_to_the_last_micro(#[case] kind: Kind) {
    // Created on January 20th.
    let month = Month::begin(kind, FEBRUARY - 12 * DAY_MS).await;
    let clocked = &month.clocked;

    clocked.pass_to(day(2)).await;
    month.set("a", 1_000 - BESIDE, Some(DAY_MS)).await;
    assert_eq!(month.held().await, 1_000);
    clocked.pass_to(day(5)).await;
    month.set("b", 2_000 - BESIDE, None).await;
    assert_eq!(month.held().await, 2_000);
    clocked.pass_to(day(6)).await;
    month.get("a", 10).await;
    month.get("b", 20).await;

    // A week is over: a quarter of the fee, and what nobody has used costs nothing.
    clocked.pass_to(day(8)).await;
    let early = month.bill("").await.statement;
    let fee = &early.lines[0];
    assert_eq!(
        (fee.metric.as_str(), fee.amount_micros),
        ("base_fee", 700_000)
    );
    assert_eq!((early.end_ms, early.close_ms), (day(29), None));
    assert!(early.projected_total_micros > early.total_micros);

    clocked.pass_to(day(10)).await;
    let reported = Event {
        operations: 25,
        data_transfer_bytes: 5_000,
        ..event("one", day(10), 12, 12_345)
    };
    assert!(month.tenants.record(reported).await.unwrap());

    clocked.pass_to(day(15)).await;
    let to_large = Update {
        tenant_id: "acme".into(),
        profile: Profile {
            plan: "large".into(),
            ..Profile::default()
        },
        update_mask: vec!["plan".into()],
    };
    let changed = month.tenants.update(to_large, Change::default());
    let started_ms = changed.await.unwrap().segments[1].start_ms;
    assert_eq!(started_ms, day(15));
    clocked.pass_to(day(16)).await;
    month.get("b", 60).await;
    clocked.pass_to(day(18)).await;
    let reported = event("two", day(18), 40, 2_500);
    assert!(month.tenants.record(reported).await.unwrap());
    clocked.pass_to(day(20)).await;
    month
        .cache
        .flush_tenant(&month.tenancy().await)
        .await
        .unwrap();
    clocked.pass_to(day(21)).await;
    month.set("c", 500 - BESIDE, Some(36 * HOUR_MS)).await;
    assert_eq!(month.held().await, 500);

    // March. What comes late, through a replica that has just started, counts in
    // its own time and plan, and once.
    clocked.pass_to(day(30)).await;
    assert_eq!(month.held().await, 0);
    let late = || event("late", day(14) + 12 * HOUR_MS, 5, 0);
    assert!(month.other().record(late()).await.unwrap());
    assert!(!month.tenants.record(late()).await.unwrap());
    let open = month.bill("2027-02").await.statement;
    assert_eq!(rows(&open), SHEET);
    assert_eq!((open.total_micros, open.close_ms), (TOTAL, None));
    assert_eq!(month.tenants.close_pass().await.unwrap(), Closing::Done);
    assert_eq!(month.bill("2027-02").await.statement.close_ms, None);

    // Three days after the month's end it is closed, by two replicas at once.
    clocked.pass_to(day(32)).await;
    let (one, other) = (&month.tenants, &month.other());
    let (one, other) = tokio::join!(one.close_pass(), other.close_pass());
    let outcomes = [one.unwrap(), other.unwrap()];
    assert!(outcomes.contains(&Closing::Done), "{outcomes:?}");
    let bill = month.bill("2027-02").await;
    let closed = bill.statement;
    assert_eq!(rows(&closed), SHEET);
    assert_eq!(closed.total_micros, TOTAL);
    assert_eq!(closed.projected_total_micros, TOTAL);
    assert!(closed.close_ms.is_some());
    assert_eq!((closed.start_ms, closed.end_ms), (day(1), day(29)));
    assert_eq!(closed.currency, "USD");

    // 12 of January's 31 days: 2,800,001 * 12 / 31 = 1,083,871.35.
    let [january] = &bill.previous[..] else {
        panic!("January alone is before it: {:?}", bill.previous)
    };
    assert_eq!(january.period.to_string(), "2027-01");
    assert_eq!(january.total_micros, 1_083_871);

    // Nothing changes it: neither what comes later nor other prices.
    let refused = month.tenants.record(event("later", day(20), 1, 0)).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(&refused, Error::ConditionNotMet { description, .. } if description.contains("2027-02")),
        "{refused:?}"
    );
    let mut dearer = settings();
    for plan in dearer.plans.values_mut() {
        plan.prices.base_fee_micros *= 2;
    }
    month.settings.store(Arc::new(dearer));
    assert_eq!(month.tenants.close_pass().await.unwrap(), Closing::Done);
    assert_eq!(month.bill("2027-02").await.statement, closed);
    let listed = month
        .tenants
        .list_statements("2027-02", 0, "")
        .await
        .unwrap();
    assert_eq!(listed.statements, [closed]);
    assert!(listed.complete && listed.next_page_token.is_empty());
}
