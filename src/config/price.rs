//! What plans cost: the settings of bills. It does not know how a bill is made.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{
    Config, unit,
    validate::{DAY, Note, span},
};

/// No price is higher, in millionths of the currency.
pub const MAX_PRICE_MICROS: i64 = 1_000_000_000_000;

/// No unit of a price is greater.
const MAX_UNIT: i64 = 1_000_000_000_000_000;

/// No included amount is greater; what is included for memory, in byte-seconds,
/// stays below 2^63.
const MAX_INCLUDED: i64 = 1_000_000_000_000_000_000;
const MAX_INCLUDED_HOURS: i64 = 2_000_000;

/// Late usage is taken for so long at most: before the next period is over.
const MAX_CLOSE_AFTER: Duration = Duration::from_secs(20 * 24 * 60 * 60);

/// Bills.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Billing {
    /// The currency of all prices, by its ISO 4217 code.
    #[serde(deserialize_with = "unit::text")]
    pub currency: String,
    /// How long after a period's end usage of it is still taken.
    #[serde(deserialize_with = "unit::duration")]
    pub close_after: Duration,
}

impl Default for Billing {
    fn default() -> Self {
        Self {
            currency: "USD".to_owned(),
            close_after: 3 * DAY,
        }
    }
}

/// What a plan costs, in millionths of the currency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prices {
    /// For a whole period.
    #[serde(deserialize_with = "unit::number")]
    pub base_fee_micros: i64,
    /// Calls that were answered, and operations that were reported.
    pub operations: Price,
    /// Bytes in and out.
    pub data_transfer_bytes: BytesPrice,
    /// Milliseconds of computing that were reported.
    pub compute_ms: Price,
    /// GiB of cache entries, times the hours they were held.
    pub memory_gib_hours: HoursPrice,
    /// GiB of sessions, times the hours they were held.
    pub storage_gib_hours: HoursPrice,
    /// The platform's own metrics, by name.
    pub custom: BTreeMap<String, Price>,
}

/// The price of a metric that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Price {
    /// The price of one unit.
    #[serde(deserialize_with = "unit::number")]
    pub unit_price_micros: i64,
    /// The quantity that it is for.
    #[serde(deserialize_with = "unit::number")]
    pub unit: i64,
    /// What costs nothing, in a whole period.
    #[serde(deserialize_with = "unit::number")]
    pub included: i64,
}

impl Default for Price {
    fn default() -> Self {
        Self {
            unit_price_micros: 0,
            unit: 1,
            included: 0,
        }
    }
}

/// The price of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BytesPrice {
    /// The price of one unit.
    #[serde(deserialize_with = "unit::number")]
    pub unit_price_micros: i64,
    /// The bytes that it is for.
    #[serde(deserialize_with = "unit::bytes")]
    pub unit: i64,
    /// The bytes that cost nothing, in a whole period.
    #[serde(deserialize_with = "unit::bytes")]
    pub included: i64,
}

impl Default for BytesPrice {
    fn default() -> Self {
        Self {
            unit_price_micros: 0,
            unit: 1 << 30,
            included: 0,
        }
    }
}

/// The price of what is held, by GiB and hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HoursPrice {
    /// The price of a GiB held for an hour.
    #[serde(deserialize_with = "unit::number")]
    pub unit_price_micros: i64,
    /// The GiB-hours that cost nothing, in a whole period.
    #[serde(deserialize_with = "unit::number")]
    pub included: i64,
}

/// Checks what bills are made of.
pub(super) fn check(config: &Config, note: Note<'_>) {
    let Billing {
        currency,
        close_after,
    } = &config.billing;
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_uppercase()) {
        note(
            "billing.currency",
            format!(
                "{currency:?} is not a currency; allowed is a code of ISO 4217, three capital letters such as USD"
            ),
        );
    }
    span(
        note,
        "billing.close_after",
        *close_after,
        Duration::ZERO,
        MAX_CLOSE_AFTER,
    );
    for (plan, settings) in &config.tenant.plans {
        prices(config, plan, &settings.prices, note);
    }
}

fn prices(config: &Config, plan: &str, prices: &Prices, note: Note<'_>) {
    let at = format!("tenant.plans.{plan}.prices");
    let mut bounded = |field: &str, value: i64, least: i64, most: i64| {
        if !(least..=most).contains(&value) {
            note(
                &format!("{at}.{field}"),
                format!("{value} is out of bounds; allowed is {least} to {most}"),
            );
        }
    };
    bounded(
        "base_fee_micros",
        prices.base_fee_micros,
        0,
        MAX_PRICE_MICROS,
    );
    let transfer = &prices.data_transfer_bytes;
    let transfer = Price {
        unit_price_micros: transfer.unit_price_micros,
        unit: transfer.unit,
        included: transfer.included,
    };
    let own = [
        ("operations", &prices.operations),
        ("data_transfer_bytes", &transfer),
        ("compute_ms", &prices.compute_ms),
    ];
    let own = own.map(|(metric, price)| (metric.to_owned(), price));
    let custom = prices.custom.iter();
    let custom = custom.map(|(metric, price)| (format!("custom.{metric}"), price));
    for (field, price) in own.into_iter().chain(custom) {
        let unit_price = format!("{field}.unit_price_micros");
        bounded(&unit_price, price.unit_price_micros, 0, MAX_PRICE_MICROS);
        bounded(&format!("{field}.unit"), price.unit, 1, MAX_UNIT);
        bounded(
            &format!("{field}.included"),
            price.included,
            0,
            MAX_INCLUDED,
        );
    }
    for (field, price) in [
        ("memory_gib_hours", &prices.memory_gib_hours),
        ("storage_gib_hours", &prices.storage_gib_hours),
    ] {
        let unit_price = format!("{field}.unit_price_micros");
        bounded(&unit_price, price.unit_price_micros, 0, MAX_PRICE_MICROS);
        bounded(
            &format!("{field}.included"),
            price.included,
            0,
            MAX_INCLUDED_HOURS,
        );
    }
    let plans = &config.tenant.plans;
    for metric in prices.custom.keys() {
        let known = |plan: &super::Plan| plan.quotas.custom.contains_key(metric);
        if !plans.values().any(known) {
            note(
                &format!("{at}.custom.{metric}"),
                "is the price of a metric that is not known; beside the service's own there are those \
                 in quotas.custom of some plan"
                    .to_owned(),
            );
        }
    }
}
