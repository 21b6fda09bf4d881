//! What is charged, and at what price. It does not know what was consumed.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{config, tenant::rows};

/// A GiB held for an hour, in byte-seconds.
pub const GIB_HOUR: i64 = (1 << 30) * 3600;

/// What a statement calls the fee for the plan itself.
pub const BASE_FEE: &str = "base_fee";

/// What is charged by consumption, in the order of a statement's lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Calls that were answered, and operations that were reported.
    Operations,
    /// Bytes in and out.
    DataTransferBytes,
    /// Milliseconds of computing that were reported.
    ComputeMs,
    /// Bytes of cache entries held, times the seconds they were held.
    MemoryByteSeconds,
    /// Bytes of sessions held, times the seconds they were held.
    StorageByteSeconds,
    /// A metric of the platform's own.
    Custom(String),
}

impl Metric {
    /// The service's own metrics.
    pub const OWN: [Self; 5] = [
        Self::Operations,
        Self::DataTransferBytes,
        Self::ComputeMs,
        Self::MemoryByteSeconds,
        Self::StorageByteSeconds,
    ];

    /// Its name in statements.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Operations => rows::OPERATIONS.into(),
            Self::DataTransferBytes => "data_transfer_bytes".into(),
            Self::ComputeMs => rows::COMPUTE_MS.into(),
            Self::MemoryByteSeconds => "memory_byte_seconds".into(),
            Self::StorageByteSeconds => "storage_byte_seconds".into(),
            Self::Custom(name) => name.clone().into(),
        }
    }
}

/// The price of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// The price of one unit, in millionths of the currency.
    pub unit_price_micros: i64,
    /// The quantity that it is for; at least 1.
    pub unit: i64,
    /// What costs nothing, in a whole period.
    pub included: i64,
}

impl Price {
    /// What consumption costs that has no price.
    pub const NOTHING: Self = Self {
        unit_price_micros: 0,
        unit: 1,
        included: 0,
    };
}

/// What a plan costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tariff {
    /// For a whole period, in millionths of the currency.
    pub base_fee_micros: i64,
    prices: BTreeMap<Metric, Price>,
}

impl Tariff {
    /// A tariff of these prices.
    pub fn of(base_fee_micros: i64, prices: impl IntoIterator<Item = (Metric, Price)>) -> Self {
        Self {
            base_fee_micros,
            prices: prices.into_iter().collect(),
        }
    }

    /// The tariff of a plan as it is configured.
    pub fn configured(prices: &config::Prices) -> Self {
        let counted = |price: &config::Price| Price {
            unit_price_micros: price.unit_price_micros,
            unit: price.unit,
            included: price.included,
        };
        let held = |price: &config::HoursPrice| Price {
            unit_price_micros: price.unit_price_micros,
            unit: GIB_HOUR,
            // The settings allow no more hours than fit.
            included: price.included.saturating_mul(GIB_HOUR),
        };
        let transfer = Price {
            unit_price_micros: prices.data_transfer_bytes.unit_price_micros,
            unit: prices.data_transfer_bytes.unit,
            included: prices.data_transfer_bytes.included,
        };
        let own = [
            (Metric::Operations, counted(&prices.operations)),
            (Metric::DataTransferBytes, transfer),
            (Metric::ComputeMs, counted(&prices.compute_ms)),
            (Metric::MemoryByteSeconds, held(&prices.memory_gib_hours)),
            (Metric::StorageByteSeconds, held(&prices.storage_gib_hours)),
        ];
        let custom = prices.custom.iter();
        let custom = custom.map(|(name, price)| (Metric::Custom(name.clone()), counted(price)));
        Self::of(prices.base_fee_micros, own.into_iter().chain(custom))
    }

    /// The price of a metric.
    pub fn price(&self, metric: &Metric) -> Price {
        self.prices.get(metric).copied().unwrap_or(Price::NOTHING)
    }

    /// The metrics that have a price.
    pub fn metrics(&self) -> impl Iterator<Item = &Metric> {
        self.prices.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gib_hours_become_byte_seconds_and_customs_come_last() {
        let configured = config::Prices {
            base_fee_micros: 7,
            memory_gib_hours: config::HoursPrice {
                unit_price_micros: 20_000,
                included: 2_000_000,
            },
            custom: [("abc".to_owned(), config::Price::default())].into(),
            ..config::Prices::default()
        };
        let tariff = Tariff::configured(&configured);
        assert_eq!(
            tariff.price(&Metric::MemoryByteSeconds),
            Price {
                unit_price_micros: 20_000,
                unit: 3_865_470_566_400,
                included: 7_730_941_132_800_000_000,
            }
        );
        let names: Vec<_> = tariff.metrics().map(Metric::name).collect();
        assert_eq!(
            names,
            [
                "operations",
                "data_transfer_bytes",
                "compute_ms",
                "memory_byte_seconds",
                "storage_byte_seconds",
                "abc"
            ]
        );
        assert_eq!(tariff.price(&Metric::Custom("x".into())), Price::NOTHING);
    }
}
