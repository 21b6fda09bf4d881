//! Statements against figures worked out by hand, and what must hold of any. It
//! knows no store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::{config::MAX_PRICE_MICROS as MAX_PRICE, tenant::billing::price::Price};

fn november() -> Period {
    Period::parse("2026-11").unwrap()
}

/// So many days into November, which has 30.
fn day(days: u64) -> u64 {
    november().start_ms() + days * 86_400_000
}

fn price(unit_price_micros: i64, unit: i64, included: i64) -> Price {
    Price {
        unit_price_micros,
        unit,
        included,
    }
}

fn part(plan: &str, tariff: Tariff, from: u64, to: u64, quantities: &[(Metric, u128)]) -> Part {
    Part {
        plan: plan.into(),
        tariff,
        start_ms: from,
        end_ms: to,
        quantities: quantities.iter().cloned().collect(),
    }
}

fn drawn(parts: &[Part], until_ms: u64) -> Statement {
    draw_up("acme", "EUR", november(), parts, until_ms).unwrap()
}

/// Plan, metric, quantity, included, amount of each line.
fn told(statement: &Statement) -> Vec<(&str, &str, i64, i64, i64)> {
    statement
        .lines
        .iter()
        .map(|line| {
            (
                line.plan.as_str(),
                line.metric.as_str(),
                line.quantity,
                line.included,
                line.amount_micros,
            )
        })
        .collect()
}

#[test]
fn a_month_on_two_plans() {
    let small = Tariff::of(
        3_000_001,
        [
            (Metric::Operations, price(200_000, 1_000_000, 9_000_000)),
            (Metric::ComputeMs, price(100_000, 3_600_000, 0)),
        ],
    );
    let large = Tariff::of(
        30_000_000,
        [(Metric::Operations, price(150_000, 1_000_000, 60_000_000))],
    );
    let pages = Metric::Custom("pages".into());
    let parts = [
        part(
            "small",
            small,
            day(0),
            day(10),
            &[(Metric::Operations, 4_000_001), (Metric::ComputeMs, 18)],
        ),
        part(
            "large",
            large,
            day(10),
            day(30),
            &[(Metric::Operations, 45_000_000), (pages, 7)],
        ),
    ];
    let statement = drawn(&parts, day(30));
    assert_eq!(
        told(&statement),
        [
            // A third of 3.000001: 1.000000333.
            ("small", "base_fee", 864_000_000, 0, 1_000_000),
            // A third of 9 M is included; large leaves none; 1,000,001 at 0.2 each.
            ("small", "operations", 4_000_001, 3_000_000, 200_000),
            // 18 ms of 3600 s at 0.1: 0.0000005, and half a micro goes up.
            ("small", "compute_ms", 18, 0, 1),
            // Two thirds of 30, and the third of a micro that was rounded away: 20.000000333.
            ("large", "base_fee", 1_728_000_000, 0, 20_000_000),
            // Two thirds of 60 M are included; 5 M at 0.15 each.
            ("large", "operations", 45_000_000, 40_000_000, 750_000),
            ("large", "pages", 7, 0, 0),
        ]
    );
    assert_eq!(statement.total_micros, 21_950_001);
    assert_eq!(statement.projected_total_micros, 21_950_001);
    assert_eq!((statement.start_ms, statement.end_ms), (day(0), day(30)));
    assert_eq!(
        (statement.lines[0].start_ms, statement.lines[0].end_ms),
        (day(0), day(10))
    );
}

#[test]
fn a_period_under_way_owes_its_fee_so_far_and_is_projected() {
    let tariff = || Tariff::of(30_000_000, [(Metric::Operations, price(1_000, 1, 900))]);
    // 6 days of 30 are over: 500 operations of 900 that are included.
    let parts = [part(
        "p",
        tariff(),
        day(0),
        day(30),
        &[(Metric::Operations, 500)],
    )];
    let statement = drawn(&parts, day(6));
    assert_eq!(
        told(&statement),
        [
            ("p", "base_fee", 6 * 86_400_000, 0, 6_000_000),
            ("p", "operations", 500, 900, 0),
        ]
    );
    assert_eq!(statement.total_micros, 6_000_000);
    // 2,500 operations by the end, and the whole fee.
    assert_eq!(statement.projected_total_micros, 30_000_000 + 1_600_000);
    // Created on day 3, 3 days ago: 4,500 by the end, of 810 that are included.
    let parts = [part(
        "p",
        tariff(),
        day(3),
        day(30),
        &[(Metric::Operations, 500)],
    )];
    let statement = drawn(&parts, day(6));
    assert_eq!(statement.total_micros, 3_000_000);
    assert_eq!(statement.projected_total_micros, 27_000_000 + 3_690_000);
    // This very moment.
    let statement = drawn(&parts, day(3));
    assert_eq!(statement.total_micros, 0);
    assert_eq!(statement.projected_total_micros, 27_000_000);
}

#[test]
fn a_figure_that_does_not_fit_is_told() {
    let dear = Tariff::of(0, [(Metric::Operations, price(MAX_PRICE, 1, 0))]);
    let statement = |quantity| {
        let parts = [part(
            "p",
            dear.clone(),
            day(0),
            day(30),
            &[(Metric::Operations, quantity)],
        )];
        draw_up("acme", "EUR", november(), &parts, day(30))
    };
    let most = 9_223_372;
    assert_eq!(
        statement(most).unwrap().total_micros,
        9_223_372_000_000_000_000
    );
    assert_eq!(
        statement(most + 1).unwrap_err().to_string(),
        "operations of plan p is more than a statement can say, 2^63 - 1"
    );
    assert_eq!(
        statement(1 << 63).unwrap_err().to_string(),
        "operations is more than a statement can say, 2^63 - 1"
    );
    let twice = [0, 15].map(|from| {
        part(
            "p",
            dear.clone(),
            day(from),
            day(from + 15),
            &[(Metric::Operations, 5_000_000)],
        )
    });
    assert_eq!(
        draw_up("acme", "EUR", november(), &twice, day(30))
            .unwrap_err()
            .0,
        "total_micros"
    );
    // What is to be expected stops at the greatest figure.
    let early = [part(
        "p",
        dear.clone(),
        day(0),
        day(30),
        &[(Metric::Operations, most)],
    )];
    let early = draw_up("acme", "EUR", november(), &early, day(1)).unwrap();
    assert_eq!(early.projected_total_micros, i64::MAX);
}

/// Any price that is allowed.
fn prices() -> impl Strategy<Value = Price> + Clone {
    (
        0..=MAX_PRICE,
        1..=1_000_000_000_000_000_i64,
        0..=1_000_000_000_000_000_000_i64,
    )
        .prop_map(|(unit_price, unit, included)| price(unit_price, unit, included))
}

/// Prices as they are: not too far from what is consumed.
fn usual_prices() -> impl Strategy<Value = Price> + Clone {
    (0..1_000_000_i64, 1..2_000_i64, 0..20_000_i64)
        .prop_map(|(unit_price, unit, included)| price(unit_price, unit, included))
}

fn tariffs(prices: impl Strategy<Value = Price> + Clone) -> impl Strategy<Value = Tariff> {
    (0..=MAX_PRICE, prices.clone(), prices).prop_map(|(fee, operations, pages)| {
        Tariff::of(
            fee,
            [
                (Metric::Operations, operations),
                (Metric::Custom("pages".into()), pages),
            ],
        )
    })
}

/// Parts that follow each other, each with its tariff and quantities.
fn parts(
    prices: impl Strategy<Value = Price> + Clone,
    most: u128,
) -> impl Strategy<Value = Vec<Part>> {
    let one = (tariffs(prices), 0..=most, 0..=most);
    (
        proptest::collection::vec((one, 0..2_592_000_000_u64), 1..6),
        any::<bool>(),
    )
        .prop_map(|(mut drawn, from_start)| {
            drawn.sort_by_key(|(_, at)| *at);
            let mut starts: Vec<u64> = drawn.iter().map(|(_, at)| day(0) + at).collect();
            if from_start {
                starts[0] = day(0);
            }
            let ends = starts.clone().into_iter().skip(1).chain([day(30)]);
            let named = drawn.into_iter().enumerate();
            named
                .zip(starts)
                .zip(ends)
                .map(|(((n, ((tariff, operations, pages), _)), start), end)| {
                    let quantities = [
                        (Metric::Operations, operations),
                        (Metric::Custom("pages".into()), pages),
                    ];
                    part(&format!("plan-{n}"), tariff, start, end, &quantities)
                })
                .collect()
        })
}

fn sums(statement: &Statement) -> BTreeMap<&str, (i128, i128, i128)> {
    let mut sums = BTreeMap::new();
    for line in &statement.lines {
        let sum: &mut (i128, i128, i128) = sums.entry(line.metric.as_str()).or_default();
        sum.0 += i128::from(line.quantity);
        sum.1 += i128::from(line.included);
        sum.2 += i128::from(line.amount_micros);
    }
    sums
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lines_add_up_to_the_total_and_none_is_negative(
        parts in parts(usual_prices(), 1_000_000_000),
        until in 0..2_592_000_000_u64,
    ) {
        let statement = drawn(&parts, day(0) + until);
        let sum: i128 = statement.lines.iter().map(|line| i128::from(line.amount_micros)).sum();
        prop_assert_eq!(sum, i128::from(statement.total_micros));
        for line in &statement.lines {
            prop_assert!(line.amount_micros >= 0 && line.included >= 0 && line.quantity >= 0);
        }
        let closed = drawn(&parts, day(30));
        prop_assert_eq!(closed.projected_total_micros, closed.total_micros);
        prop_assert!(closed.total_micros >= statement.total_micros);
    }

    #[test]
    fn splitting_a_period_changes_nothing_but_rounding(
        tariff in tariffs(usual_prices()),
        cuts in proptest::collection::vec((0..2_592_000_000_u64, 0..100_000_u128, 0..100_000_u128), 1..8),
        from in 0..2_592_000_000_u64,
    ) {
        let mut starts: Vec<u64> = cuts.iter().map(|(at, ..)| day(0) + at.max(&from)).collect();
        starts.sort_unstable();
        starts[0] = day(0) + from;
        let ends = starts.clone().into_iter().skip(1).chain([day(30)]);
        let of = |operations, pages| {
            [(Metric::Operations, operations), (Metric::Custom("pages".into()), pages)]
        };
        let split: Vec<Part> = starts.iter().zip(ends).zip(&cuts)
            .map(|((start, end), (_, operations, pages))| {
                part("p", tariff.clone(), *start, end, &of(*operations, *pages))
            })
            .collect();
        let whole = of(cuts.iter().map(|cut| cut.1).sum(), cuts.iter().map(|cut| cut.2).sum());
        let whole = [part("p", tariff, day(0) + from, day(30), &whole)];
        let (split, whole) = (drawn(&split, day(30)), drawn(&whole, day(30)));
        let splits = i128::try_from(cuts.len() - 1).unwrap();
        let (split, whole) = (sums(&split), sums(&whole));
        for (metric, (quantity, included, amount)) in &whole {
            let cut = split.get(metric).copied().unwrap_or_default();
            prop_assert_eq!(cut.0, *quantity, "{}", metric);
            prop_assert_eq!(cut.1, *included, "{}", metric);
            let allowed = if *metric == BASE_FEE { 0 } else { splits };
            prop_assert!((cut.2 - amount).abs() <= allowed, "{}: {} {}", metric, cut.2, amount);
        }
    }

    #[test]
    fn who_consumes_more_never_owes_less(
        parts in parts(usual_prices(), 100_000),
        at in any::<prop::sample::Index>(),
        more in 1..100_000_u128,
        until in 0..2_592_000_000_u64,
    ) {
        let before = drawn(&parts, day(0) + until);
        let mut parts = parts;
        let at = at.index(parts.len());
        *parts[at].quantities.get_mut(&Metric::Operations).unwrap() += more;
        let after = drawn(&parts, day(0) + until);
        prop_assert!(after.total_micros >= before.total_micros);
        prop_assert!(after.projected_total_micros >= before.projected_total_micros);
    }

    #[test]
    fn extremes_are_an_answer_or_an_overflow(
        parts in parts(prices(), u128::MAX),
        until in any::<u64>(),
    ) {
        if let Ok(statement) = draw_up("acme", "EUR", november(), &parts, until) {
            prop_assert!(statement.total_micros >= 0 && statement.projected_total_micros >= 0);
        }
        let mut modest = parts;
        for part in &mut modest {
            for quantity in part.quantities.values_mut() {
                *quantity >>= 66;
            }
        }
        let _ = draw_up("acme", "EUR", november(), &modest, until);
    }
}
