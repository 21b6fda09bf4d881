//! Periods are closed once, whatever dies meanwhile, and listed. It does not know
//! the bills' arithmetic.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use riptide_persistence::{
    config,
    error::Error,
    tenant::{
        Caller, Change, Event, Profile, Tenant, Tenants, Update,
        billing::{Closing, Statement},
    },
};

use crate::tenant::{DAY_MS, Replica, Stage, cut::Cut};

/// 2027-02-01T00:00Z; a stage begins on January 15th, at 08:00.
const FEBRUARY: u64 = 1_801_440_000_000;
const MARCH: u64 = FEBRUARY + 28 * DAY_MS;

/// A stage on which every plan has a price.
fn stage() -> Stage {
    let stage = Stage::new();
    let mut settings = super::super::settings();
    for plan in settings.plans.values_mut() {
        plan.prices.base_fee_micros = 31_000_000;
        plan.prices.operations.unit_price_micros = 7;
        plan.prices.memory_gib_hours.unit_price_micros = 1_000_000_000_000;
    }
    stage.settings.store(Arc::new(settings));
    stage
}

fn pass_to(stage: &Stage, ms: u64) {
    stage.pass_time(ms - stage.now_ms());
}

/// A tenant that holds something and reported something.
async fn tenant(stage: &Stage, replica: &Replica, tenant_id: &str) -> Tenant {
    let tenant = replica.create(tenant_id).await.tenant;
    stage.fill(tenant.incarnation, "default", 3).await;
    let event = Event {
        tenant_id: tenant_id.into(),
        event_id: "e".into(),
        operations: 5,
        ..Event::default()
    };
    assert!(replica.tenants.record(event).await.unwrap());
    tenant
}

async fn statement(tenants: &Tenants, tenant_id: &str, period: &str) -> Statement {
    let bill = tenants.billing(&Caller::Admin, tenant_id, period).await;
    bill.unwrap().statement
}

/// All statements of a period, page by page; whether they are all, and how many
/// there are.
async fn listed(tenants: &Tenants, period: &str, size: i32) -> (Vec<Statement>, bool, u64) {
    let (mut statements, mut token) = (Vec::new(), String::new());
    loop {
        let page = tenants.list_statements(period, size, &token).await.unwrap();
        assert!(page.statements.len() <= usize::try_from(size).unwrap());
        statements.extend(page.statements);
        token = page.next_page_token;
        if token.is_empty() {
            return (statements, page.complete, page.total);
        }
    }
}

/// What two statements of the same must agree in.
fn settled(statement: &Statement) -> Statement {
    Statement {
        close_ms: None,
        ..statement.clone()
    }
}

#[tokio::test]
async fn a_closing_cut_at_any_commit_is_finished_by_another_replica() {
    for answer_lost in [false, true] {
        for commits in 1.. {
            let stage = stage();
            let replica = stage.deaf_replica();
            for tenant_id in ["acme", "beta"] {
                tenant(&stage, &replica, tenant_id).await;
            }
            pass_to(&stage, FEBRUARY + 3 * DAY_MS);
            let mut expected = Vec::new();
            for tenant_id in ["acme", "beta"] {
                let open = statement(&replica.tenants, tenant_id, "2027-01").await;
                assert!(open.close_ms.is_none() && open.total_micros > 16_000_000);
                expected.push(open);
            }
            let cut = Cut::after(stage.store.clone(), commits, answer_lost);
            let first = stage.replica_on(Arc::new(cut)).tenants.close_pass().await;
            let (before, complete, _) = listed(&replica.tenants, "2027-01", 10).await;
            if first.is_err() && !complete {
                // The claim of the one that was cut lapses.
                let busy = replica.tenants.close_pass().await.unwrap();
                assert!(busy == Closing::Busy || commits == 1, "{commits}");
            }
            stage.pass_time(11_000);
            assert_eq!(replica.tenants.close_pass().await.unwrap(), Closing::Done);
            let (mut after, complete, total) = listed(&replica.tenants, "2027-01", 10).await;
            assert_eq!((after.len(), complete, total), (2, true, 2), "{commits}");
            assert!(before.iter().all(|closed| after.contains(closed)));
            after.sort_by(|one, other| one.tenant_id.cmp(&other.tenant_id));
            let after: Vec<_> = after.iter().map(settled).collect();
            assert_eq!(after, expected, "{commits} {answer_lost}");
            if first.is_ok() {
                // Twelve periods that nobody was there for are closed too.
                assert!(commits > 12 + 6, "{commits}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_tenant_that_leaves_is_billed_until_then_once_however_it_is_cut() {
    for answer_lost in [false, true] {
        for commits in 1.. {
            let stage = stage();
            let replica = stage.deaf_replica();
            tenant(&stage, &replica, "acme").await;
            pass_to(&stage, FEBRUARY + 3 * DAY_MS);
            let january = statement(&replica.tenants, "acme", "2027-01").await;
            let deleted = replica.tenants.delete("acme", false, Change::default());
            deleted.await.unwrap();
            // It was there for 7 of February's 28 days.
            pass_to(&stage, FEBRUARY + 7 * DAY_MS);
            let february = statement(&replica.tenants, "acme", "").await;
            let cut = Cut::after(stage.store.clone(), commits, answer_lost);
            let cut = stage.replica_on(Arc::new(cut));
            let first = cut.tenants.purge("acme", Change::default()).await;
            stage.pass_time(DAY_MS);
            // The period may be closed for all at the same time.
            let other = stage.deaf_replica();
            let (purged, closed) = tokio::join!(
                replica.tenants.purge("acme", Change::default()),
                other.tenants.close_pass()
            );
            assert_eq!(purged.is_err(), purged == Err(Error::no_tenant("acme")));
            let closed = closed.unwrap();
            assert!([Closing::Done, Closing::Incomplete].contains(&closed));

            let january_closed = listed(&replica.tenants, "2027-01", 10).await.0;
            let settled_once: Vec<_> = january_closed.iter().map(settled).collect();
            assert_eq!(settled_once, [january], "{commits} {answer_lost}");
            pass_to(&stage, MARCH);
            let [left] = &listed(&replica.tenants, "2027-02", 10).await.0[..] else {
                panic!("one statement of February: {commits}")
            };
            assert_eq!(left.end_ms, FEBRUARY + 7 * DAY_MS, "{commits}");
            assert_eq!(left.lines, february.lines, "{commits}");
            if first.is_ok_and(|report| report.reclaimed) {
                assert!(commits > 6, "{commits}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn periods_that_were_missed_are_closed_in_order_and_only_once_due() {
    let stage = stage();
    let replica = stage.deaf_replica();
    tenant(&stage, &replica, "acme").await;
    // 72 hours after January's end, less a millisecond.
    pass_to(&stage, FEBRUARY + 3 * DAY_MS - 1);
    assert_eq!(replica.tenants.close_pass().await.unwrap(), Closing::Done);
    assert_eq!(
        listed(&replica.tenants, "2027-01", 10).await,
        (vec![], false, 0)
    );
    // Those before were closed, and nobody was there.
    assert_eq!(
        listed(&replica.tenants, "2026-12", 10).await,
        (vec![], true, 0)
    );
    replica.create("late").await;

    pass_to(&stage, MARCH + 40 * DAY_MS);
    assert_eq!(replica.tenants.close_pass().await.unwrap(), Closing::Done);
    let mut closed = Vec::new();
    for (period, count) in [("2027-01", 1), ("2027-02", 2), ("2027-03", 2)] {
        let (statements, complete, total) = listed(&replica.tenants, period, 10).await;
        assert_eq!(
            (statements.len(), complete, total),
            (count, true, count as u64)
        );
        closed.extend(statements);
    }
    let acme: Vec<_> = closed
        .iter()
        .filter(|statement| statement.tenant_id == "acme")
        .collect();
    // What it holds and its fee go on; what it reported was in January.
    assert!(acme[0].lines.iter().any(|line| line.quantity == 5));
    assert!(
        acme[1]
            .lines
            .iter()
            .all(|line| line.metric != "operations" || line.quantity == 0)
    );
    assert_eq!(acme[2].lines[0].amount_micros, 31_000_000);
    let late = closed
        .iter()
        .find(|statement| statement.tenant_id == "late");
    assert_eq!(late.unwrap().start_ms, FEBRUARY + 3 * DAY_MS - 1);
    let bill = replica.tenants.billing(&Caller::Admin, "acme", "").await;
    let previous = bill.unwrap().previous;
    let previous: Vec<_> = previous.iter().collect();
    assert_eq!(previous, acme.into_iter().rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn statements_are_listed_once_in_an_order_that_stays() {
    let stage = stage();
    let replica = stage.deaf_replica();
    for number in 0..40 {
        replica.create(&format!("tenant-{number:02}")).await;
    }
    pass_to(&stage, FEBRUARY);
    // A purge closes the first; the others follow when they are due.
    let deleted = replica
        .tenants
        .delete("tenant-00", false, Change::default());
    deleted.await.unwrap();
    let purged = replica.tenants.purge("tenant-00", Change::default()).await;
    purged.unwrap();
    let (one, complete, total) = listed(&replica.tenants, "2027-01", 7).await;
    assert_eq!((one.len(), complete, total), (1, false, 1));
    pass_to(&stage, FEBRUARY + 3 * DAY_MS);
    assert_eq!(replica.tenants.close_pass().await.unwrap(), Closing::Done);
    let (all, complete, total) = listed(&replica.tenants, "2027-01", 1000).await;
    assert_eq!((complete, total), (true, 40));
    let ids: BTreeSet<_> = all.iter().map(|statement| &statement.tenant_id).collect();
    assert_eq!((all.len(), ids.len()), (40, 40));
    for size in [1, 7, 40] {
        assert_eq!(
            listed(&replica.tenants, "2027-01", size).await.0,
            all,
            "{size}"
        );
    }

    let tenants = &stage.deaf_replica().tenants;
    let page = tenants.list_statements("2027-01", 7, "").await.unwrap();
    let token = page.next_page_token;
    for (period, token) in [("2026-12", token.as_str()), ("2027-01", "AAAA")] {
        let refused = tenants.list_statements(period, 7, token).await;
        assert_eq!(refused.unwrap_err(), Error::InvalidPageToken);
    }
    for (period, size, fields) in [
        ("2027-02", 0, vec!["period"]),
        ("2027-13", -1, vec!["page_size", "period"]),
        ("", 0, vec!["period"]),
    ] {
        let refused = tenants.list_statements(period, size, "").await;
        assert_eq!(crate::cache::fields(refused), fields, "{period}");
    }
}

#[tokio::test]
async fn only_periods_of_the_tenants_life_have_a_bill() {
    let stage = stage();
    let replica = stage.deaf_replica();
    replica.create("acme").await;
    pass_to(&stage, FEBRUARY);
    let ask = async |tenant_id: &str, period: &str| {
        let bill = replica.tenants.billing(&Caller::Admin, tenant_id, period);
        bill.await
    };
    for period in ["2026-12", "2027-03", "2027-13", "January", "2027-1", " "] {
        assert_eq!(
            crate::cache::fields(ask("acme", period).await),
            ["period"],
            "{period}"
        );
    }
    let told = ask("acme", "2026-12").await.unwrap_err().to_string();
    assert!(
        told.contains("2027-01") && told.contains("2027-02"),
        "{told}"
    );
    assert_eq!(
        crate::cache::fields(ask("", "now").await),
        ["period", "tenant_id"]
    );
    let nobody = ask("nobody", "2027-01").await.unwrap_err();
    assert_eq!(nobody, Error::no_tenant("nobody"));
    for period in ["2027-01", "2027-02", ""] {
        ask("acme", period).await.unwrap();
    }
}

async fn to_plan(replica: &Replica, plan: &str) -> Result<Tenant, Error> {
    let update = Update {
        tenant_id: "acme".into(),
        profile: Profile {
            plan: plan.into(),
            ..Profile::default()
        },
        update_mask: vec!["plan".into()],
    };
    replica.tenants.update(update, Change::default()).await
}

#[tokio::test]
async fn plans_change_a_hundred_times_a_period_and_leave_the_record_when_billed() {
    let stage = stage();
    let replica = stage.deaf_replica();
    replica.create("acme").await;
    let plans = ["basic", "free"];
    // With the plan it began on, 100.
    for change in 0..99 {
        stage.pass_time(60_000);
        let changed = to_plan(&replica, plans[change % 2]).await.unwrap();
        assert_eq!(changed.segments.len(), change + 2);
        let same = to_plan(&replica, plans[change % 2]).await.unwrap();
        assert_eq!(
            same.segments, changed.segments,
            "the same plan begins nothing"
        );
    }
    let refused = to_plan(&replica, plans[1]).await.unwrap_err();
    assert!(
        matches!(refused, Error::ConditionNotMet { .. }),
        "{refused:?}"
    );
    let january = statement(&replica.tenants, "acme", "").await;
    let fees = january
        .lines
        .iter()
        .filter(|line| line.metric == "base_fee");
    assert_eq!(fees.count(), 100);

    // In the next period it can change again; what is not billed yet is kept.
    pass_to(&stage, FEBRUARY + DAY_MS);
    let changed = to_plan(&replica, plans[1]).await.unwrap();
    assert_eq!(changed.segments.len(), 101);
    pass_to(&stage, FEBRUARY + 3 * DAY_MS);
    let open = statement(&replica.tenants, "acme", "2027-01").await;
    assert_eq!(replica.tenants.close_pass().await.unwrap(), Closing::Done);
    let changed = to_plan(&replica, plans[0]).await.unwrap();
    let numbers: Vec<_> = changed
        .segments
        .iter()
        .map(|segment| segment.number)
        .collect();
    assert_eq!(numbers, [99, 100, 101]);
    let closed = statement(&replica.tenants, "acme", "2027-01").await;
    assert_eq!(settled(&closed), open);
    // Its days of January add up to those it had: 31 less 14 and 8 hours.
    let fee = open.lines.iter().filter(|line| line.metric == "base_fee");
    let fee: i64 = fee.map(|line| line.amount_micros).sum();
    assert_eq!(fee, 16_666_667);
}

#[tokio::test]
async fn a_bill_beyond_all_figures_is_told_and_holds_nobody_else_up() {
    let stage = stage();
    let mut settings = super::super::settings();
    for plan in settings.plans.values_mut() {
        plan.prices.operations.unit_price_micros = 1_000_000_000_000;
    }
    stage.settings.store(Arc::new(settings));
    let replica = stage.deaf_replica();
    tenant(&stage, &replica, "zeta").await;
    tenant(&stage, &replica, "acme").await;
    let monstrous = Event {
        tenant_id: "acme".into(),
        event_id: "monstrous".into(),
        operations: 1_000_000_000_000_000,
        ..Event::default()
    };
    assert!(replica.tenants.record(monstrous).await.unwrap());
    let told = replica.tenants.billing(&Caller::Admin, "acme", "").await;
    let told = told.unwrap_err();
    assert!(
        matches!(&told, Error::ConditionNotMet { subject, description }
            if subject.contains("2027-01") && description.contains("operations")),
        "{told:?}"
    );
    pass_to(&stage, FEBRUARY + 3 * DAY_MS);
    let closing = replica.tenants.close_pass().await.unwrap();
    assert_eq!(closing, Closing::Incomplete);
    let (statements, complete, total) = listed(&replica.tenants, "2027-01", 10).await;
    assert_eq!(
        (statements[0].tenant_id.as_str(), complete, total),
        ("zeta", false, 1)
    );
    // The prices are put right, and the rest is closed.
    stage.settings.store(Arc::new(super::super::settings()));
    assert_eq!(replica.tenants.close_pass().await.unwrap(), Closing::Done);
    let (statements, complete, _) = listed(&replica.tenants, "2027-01", 10).await;
    assert_eq!((statements.len(), complete), (2, true));
    assert!(statements.contains(&statement(&replica.tenants, "zeta", "2027-01").await));
}

#[tokio::test]
async fn when_periods_close_can_change_meanwhile() {
    let stage = stage();
    let replica = stage.deaf_replica();
    tenant(&stage, &replica, "acme").await;
    let mut settings = config::Config::defaults().billing;
    settings.close_after = Duration::from_secs(20 * 24 * 3600);
    let billing = Arc::new(ArcSwap::from_pointee(settings.clone()));
    let tenants = replica.tenants.clone().billed(billing.clone());
    pass_to(&stage, FEBRUARY + 4 * DAY_MS);
    let closed = async || {
        assert_eq!(tenants.close_pass().await.unwrap(), Closing::Done);
        let january = statement(&tenants, "acme", "2027-01").await;
        january.close_ms.is_some()
    };
    assert!(!closed().await);
    settings.close_after = Duration::from_secs(3 * 24 * 3600);
    billing.store(Arc::new(settings));
    assert!(closed().await);
}
