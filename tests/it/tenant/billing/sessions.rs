//! Bytes of sessions over a month: held to the millisecond, billed by plan, and to the
//! end where the tenant leaves. It does not know gRPC.

use std::sync::Arc;

use arc_swap::ArcSwap;
use riptide_persistence::{
    config::{self, Config},
    error::Violations,
    state::session::{NewSession, Sessions},
    store::Space,
    tenant::{
        Access, Caller, Change, NewTenant, Profile, Tenancy, Tenants, Update, billing::Statement,
        usage::Range,
    },
};
use rstest::rstest;

use super::{clocked::Clocked, replica};
use crate::{server::Kind, tenant::DAY_MS};

/// 2027-02-01T00:00Z.
const FEBRUARY: u64 = 1_801_440_000_000;

/// Midnight after so many days of February; the 1st is day 1.
fn day(day: u64) -> u64 {
    FEBRUARY + (day - 1) * DAY_MS
}

fn settings() -> config::Tenant {
    let mut settings = super::super::settings();
    for (plan, price) in settings.plans.values_mut().zip([2, 3]) {
        plan.prices.storage_gib_hours.unit_price_micros = price * 1_000_000_000_000;
    }
    settings
}

struct Month {
    clocked: Clocked,
    tenants: Tenants,
    sessions: Sessions,
}

impl Month {
    async fn begin(kind: Kind) -> Self {
        let clocked = Clocked::new(kind, day(1)).await;
        clocked.pass_to(day(1)).await;
        let settings = Arc::new(ArcSwap::from_pointee(settings()));
        let tenants = replica(clocked.store.clone(), settings);
        let acme = NewTenant {
            tenant_id: "acme".into(),
            ..NewTenant::default()
        };
        tenants.create(acme, Change::default()).await.unwrap();
        let Config { session, cache, .. } = Config::defaults();
        let sessions = Sessions::new(clocked.store.clone(), session, cache);
        Self {
            clocked,
            tenants,
            sessions,
        }
    }

    async fn tenancy(&self) -> Tenancy {
        let admitted = self.tenants.admit(&Caller::Admin, "acme", Access::Write);
        admitted.await.unwrap()
    }

    /// Creates a session that ends after so many days without activity; its id.
    async fn create(&self, ttl_days: u64, idle_days: u64) -> String {
        let new = NewSession {
            user_id: "ann".into(),
            ttl_ms: Some(ttl_days * DAY_MS),
            idle_ms: Some(idle_days * DAY_MS),
            ..NewSession::default()
        };
        let tenancy = self.tenancy().await;
        let created = self.sessions.create(&tenancy, &new, Violations::default());
        created.await.unwrap().session_id.to_string()
    }

    async fn touch(&self, session_id: &str) {
        let tenancy = self.tenancy().await;
        self.sessions.touch(&tenancy, session_id).await.unwrap();
    }

    async fn held(&self) -> (u64, u64) {
        let space = Space::sessions(self.tenancy().await.incarnation);
        let usage = self.clocked.store.usage(&space).await.unwrap();
        (usage.entries, usage.bytes)
    }

    async fn statement(&self) -> Statement {
        let bill = self.tenants.billing(&Caller::Admin, "acme", "2027-02");
        bill.await.unwrap().statement
    }
}

/// Byte-seconds of sessions billed on a plan, and what they cost.
fn stored(statement: &Statement, plan: &str) -> (u64, i64) {
    let mut lines = statement.lines.iter();
    let line = lines.find(|line| line.plan == plan && line.metric == "storage_byte_seconds");
    line.map_or((0, 0), |line| {
        (u64::try_from(line.quantity).unwrap(), line.amount_micros)
    })
}

/// An end is rounded up to 15 s, and the clock of a store that stands is known to about
/// a second.
fn assert_held(found: u64, bytes: u64, days: u64) {
    let least = bytes * days * 86_400;
    let allowed = least..=least + bytes * 17;
    assert!(allowed.contains(&found), "{found} is not in {allowed:?}");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn sessions_are_billed_for_as_long_as_they_last(#[case] kind: Kind) {
    let month = Month::begin(kind).await;
    let clocked = &month.clocked;

    // From the 2nd: one lasts a day idle, one is touched on the 4th and ends on the 12th.
    clocked.pass_to(day(2)).await;
    month.create(20, 1).await;
    let (entries, bytes) = month.held().await;
    assert_eq!(entries, 1);
    let touched = month.create(10, 9).await;
    // What they take may differ by a digit.
    let both = month.held().await.1;
    let other = both - bytes;
    clocked.pass_to(day(4)).await;
    assert_eq!(month.held().await, (1, other));
    month.touch(&touched).await;

    clocked.pass_to(day(7)).await;
    let to_basic = Update {
        tenant_id: "acme".into(),
        profile: Profile {
            plan: "basic".into(),
            ..Profile::default()
        },
        update_mask: vec!["plan".into()],
    };
    let updated = month.tenants.update(to_basic, Change::default()).await;
    assert_eq!(updated.unwrap().segments.len(), 2);

    clocked.pass_to(day(14)).await;
    assert_eq!(month.held().await, (0, 0));
    let statement = month.statement().await;
    let (free, free_micros) = stored(&statement, "free");
    let (basic, basic_micros) = stored(&statement, "basic");
    assert_held(free, bytes + other * 5, 1);
    assert_held(basic, other, 5);
    // Plans are in the order of their names: basic costs 2, free 3.
    let micros = |byte_seconds: u64, price: u64| {
        let whole = u128::from(byte_seconds) * u128::from(price) * 1_000_000_000_000;
        let gib_hour = 3_865_470_566_400;
        i64::try_from((whole + gib_hour / 2) / gib_hour).unwrap()
    };
    assert_eq!(basic_micros, micros(basic, 2));
    assert_eq!(free_micros, micros(free, 3));
    let lines = statement.lines.iter();
    let operations = lines.filter(|line| line.metric == "operations");
    let operations: i64 = operations.map(|line| line.quantity).sum();
    assert_eq!(operations, 3, "two were created, one was touched");

    let usage = month
        .tenants
        .usage(&Caller::Admin, "acme", Range::default());
    let usage = usage.await.unwrap();
    assert_eq!(usage.totals.storage_byte_seconds, free + basic);
    assert_eq!(usage.totals.operations, 3);

    // Another from the 20th on, until the tenant leaves on the 22nd.
    clocked.pass_to(day(20)).await;
    month.create(30, 30).await;
    let (_, last) = month.held().await;
    clocked.pass_to(day(22)).await;
    let delete = month.tenants.delete("acme", false, Change::default());
    delete.await.unwrap();
    let report = month
        .tenants
        .purge("acme", Change::default())
        .await
        .unwrap();
    assert_eq!((report.sessions, report.session_bytes), (1, last));
    clocked.pass_to(day(30)).await;
    let closed = month.tenants.list_statements("2027-02", 0, "").await;
    let closed = closed.unwrap().statements;
    let [closed] = &closed[..] else {
        panic!("{closed:?}")
    };
    assert_eq!(stored(closed, "free"), (free, free_micros));
    assert_held(stored(closed, "basic").0 - basic, last, 2);
}
