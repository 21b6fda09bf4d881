//! Price tables: what plans cost is read as written, and what makes no sense
//! stops the start, by name. It does not make a bill.

use std::time::Duration;

use riptide_persistence::config::{BytesPrice, HoursPrice, Price, Prices};

use super::Given;

#[test]
fn a_plan_of_ones_own_has_the_prices_it_names() {
    let config = Given::file(
        "
persistence:
  billing: {currency: EUR, close_after: 12h}
  tenant:
    plans:
      gold:
        default_ttl: 1h
        quotas:
          memory_bytes: 1 GiB
          cache_entries: 5
          storage_bytes: 0
          operations_per_minute: -1
          data_transfer_bytes: -1
          active_sessions: 0
          custom:
            pages_rendered: {limit: 5000, window: 1h}
            seats: {limit: 3}
        prices:
          base_fee_micros: 5000000
          data_transfer_bytes: {unit_price_micros: 7, unit: 1 MiB, included: 2 GiB}
          memory_gib_hours: {unit_price_micros: 11, included: 24}
          custom:
            pages_rendered: {unit_price_micros: 3, unit: 1000, included: 50}
",
    )
    .and_env(
        "PERSISTENCE_TENANT__PLANS__GOLD__PRICES__CUSTOM__SEATS__UNIT_PRICE_MICROS",
        "9",
    )
    .config();
    assert_eq!(config.billing.currency, "EUR");
    assert_eq!(config.billing.close_after, Duration::from_secs(12 * 3600));
    let gold = &config.tenant.plans["gold"];
    assert_eq!(gold.quotas.custom["pages_rendered"].limit, 5000);
    assert_eq!(
        gold.quotas.custom["pages_rendered"].window,
        Some(Duration::from_secs(3600))
    );
    assert_eq!(gold.quotas.custom["seats"].window, None);
    let prices = Prices {
        base_fee_micros: 5_000_000,
        operations: Price::default(),
        data_transfer_bytes: BytesPrice {
            unit_price_micros: 7,
            unit: 1 << 20,
            included: 2 << 30,
        },
        memory_gib_hours: HoursPrice {
            unit_price_micros: 11,
            included: 24,
        },
        custom: [
            (
                "pages_rendered".to_owned(),
                Price {
                    unit_price_micros: 3,
                    unit: 1000,
                    included: 50,
                },
            ),
            (
                "seats".to_owned(),
                Price {
                    unit_price_micros: 9,
                    unit: 1,
                    included: 0,
                },
            ),
        ]
        .into(),
        ..Prices::default()
    };
    assert_eq!(gold.prices, prices);
    assert_eq!(config.tenant.plans["free"].prices.base_fee_micros, 0);
    assert_eq!(
        config.tenant.plans["basic"].prices.base_fee_micros,
        9_000_000
    );
}

#[test]
fn everything_that_is_wrong_with_a_price_table_is_told_at_once() {
    let problems = Given::file(
        "
persistence:
  billing: {currency: usd, close_after: 21d}
  tenant:
    plans:
      basic:
        quotas:
          custom:
            pages: {limit: 5}
            Pages: {limit: 5}
            seats: {window: 1h}
        prices:
          base_fee_micros: -1
          operations: {unit_price_micros: 1000000000001, unit: 0}
          data_transfer_bytes: {unit: 0 B, included: -5}
          compute_ms: {unit_price_micros: 1.5}
          memory_gib_hours: {included: 2000001, unit: 3}
          sessions: {unit_price_micros: 1}
          custom:
            pages: {unit_price_micros: -3, unit: many, colour: red}
            pags: {unit_price_micros: 3}
",
    )
    .problems();
    let at = |path: &str, message: &str| format!("{path} (file persistence.yml): {message}");
    let plan = |path: &str, message: &str| at(&format!("tenant.plans.basic.{path}"), message);
    let mut expected = vec![
        at(
            "billing.currency",
            "\"usd\" is not a currency; allowed is a code of ISO 4217, three capital letters such as USD",
        ),
        at(
            "billing.close_after",
            "21d is out of bounds; allowed is 0s to 20d",
        ),
        plan(
            "quotas.custom.Pages",
            "is not a metric's name: ^[a-z][a-z0-9_]{0,62}$ is allowed",
        ),
        plan("quotas.custom.seats.limit", "is missing"),
        plan(
            "prices.base_fee_micros",
            "-1 is out of bounds; allowed is 0 to 1000000000000",
        ),
        plan(
            "prices.operations.unit_price_micros",
            "1000000000001 is out of bounds; allowed is 0 to 1000000000000",
        ),
        plan(
            "prices.operations.unit",
            "0 is out of bounds; allowed is 1 to 1000000000000000",
        ),
        plan(
            "prices.data_transfer_bytes.unit",
            "0 is out of bounds; allowed is 1 to 1000000000000000",
        ),
        plan(
            "prices.data_transfer_bytes.included",
            "\"-5\" is not a size: bytes, or with a unit such as 512 KiB, 20 MiB or 1 GiB",
        ),
        plan(
            "prices.compute_ms.unit_price_micros",
            "\"1.5\" is not a whole number of 0 or more, within bounds",
        ),
        plan(
            "prices.memory_gib_hours.included",
            "2000001 is out of bounds; allowed is 0 to 2000000",
        ),
        plan(
            "prices.memory_gib_hours.unit",
            "is not a setting; tenant.plans.basic.prices.memory_gib_hours has: included, unit_price_micros",
        ),
        plan(
            "prices.sessions",
            "is not a setting; tenant.plans.basic.prices has: base_fee_micros, compute_ms, data_transfer_bytes, memory_gib_hours, operations, storage_gib_hours",
        ),
        plan(
            "prices.custom.pages.unit_price_micros",
            "-3 is out of bounds; allowed is 0 to 1000000000000",
        ),
        plan(
            "prices.custom.pages.unit",
            "\"many\" is not a whole number of 0 or more, within bounds",
        ),
        plan(
            "prices.custom.pages.colour",
            "is not a setting; tenant.plans.basic.prices.custom.pages has: included, unit, unit_price_micros",
        ),
        plan(
            "prices.custom.pags",
            "is the price of a metric that is not known; beside the service's own there are those in quotas.custom of some plan",
        ),
    ];
    let mut problems = problems;
    problems.sort();
    expected.sort();
    assert_eq!(problems, expected);
}
