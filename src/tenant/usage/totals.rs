//! What a tenant came to in a span of time: what its commits metered, and what
//! was counted beside them. It does not know which span.

use std::collections::BTreeMap;

use crate::{
    store::Row,
    tenant::{Readings, held::BothMeters, rows},
};

/// What a tenant came to in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that were answered, and reported operations.
    pub operations: u64,
    /// Keys read and found.
    pub hits: u64,
    /// Keys read and not found.
    pub misses: u64,
    /// Calls refused for a quota or a rate.
    pub throttled: u64,
    /// Bytes of keys and values that callers sent.
    pub bytes_in: u64,
    /// Bytes of keys and values that callers were sent.
    pub bytes_out: u64,
    /// Bytes whose transfer was reported.
    pub reported_bytes: u64,
    /// Milliseconds of computing that were reported.
    pub compute_ms: u64,
    /// Bytes of entries times the seconds they were held.
    pub memory_byte_seconds: u64,
    /// Bytes of sessions times the seconds they were held.
    pub storage_byte_seconds: u64,
    /// The platform's own metrics, by name.
    pub custom: BTreeMap<String, u64>,
}

impl Totals {
    /// What commits metered from one border until another, or until now where
    /// that is earlier.
    pub(super) fn between(meters: &BothMeters, start_ms: u64, end_ms: u64) -> Self {
        let (start, end) = (meters.at(start_ms), meters.at(end_ms));
        let between = |byte_seconds: fn(&Readings) -> u128| {
            let held = byte_seconds(&end).saturating_sub(byte_seconds(&start));
            u64::try_from(held).unwrap_or(u64::MAX)
        };
        Self {
            operations: end.operations().saturating_sub(start.operations()),
            bytes_in: end.bytes().saturating_sub(start.bytes()),
            memory_byte_seconds: between(Readings::memory_byte_seconds),
            storage_byte_seconds: between(Readings::storage_byte_seconds),
            ..Self::default()
        }
    }

    /// Adds the counters of a row.
    pub(super) fn add(&mut self, row: &Row) {
        for (name, amount) in row {
            let sum = match std::str::from_utf8(name) {
                Ok(rows::OPERATIONS) => &mut self.operations,
                Ok(rows::HITS) => &mut self.hits,
                Ok(rows::MISSES) => &mut self.misses,
                Ok(rows::THROTTLED) => &mut self.throttled,
                Ok(rows::BYTES_IN) => &mut self.bytes_in,
                Ok(rows::BYTES_OUT) => &mut self.bytes_out,
                Ok(rows::REPORTED_BYTES) => &mut self.reported_bytes,
                Ok(rows::COMPUTE_MS) => &mut self.compute_ms,
                _ => match rows::custom_of(name) {
                    Some(metric) => self.custom.entry(metric.to_owned()).or_default(),
                    // Of a later version of this service.
                    None => continue,
                },
            };
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Bytes carried in either direction, and reported ones.
    pub fn data_transfer_bytes(&self) -> u64 {
        self.bytes_in
            .saturating_add(self.bytes_out)
            .saturating_add(self.reported_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Meters, Reading};

    #[test]
    fn rows_and_meters_add_up_by_name() {
        let entries = Meters {
            last: Reading {
                at_ms: 1_000,
                byte_ms: 0,
                operations: 3,
                bytes: 30,
            },
            held_bytes: 7,
            now_ms: 4_500,
            openings: Vec::new(),
        };
        let meters = BothMeters {
            sessions: Meters {
                held_bytes: 2,
                ..entries.clone()
            },
            entries,
        };
        let mut totals = Totals::between(&meters, 1_000, 9_999);
        assert_eq!(totals.memory_byte_seconds, 24, "7 bytes for 3.5 seconds");
        assert_eq!(totals.storage_byte_seconds, 7, "2 bytes for 3.5 seconds");
        // Without an opening nothing is known from before the last move.
        assert_eq!((totals.operations, totals.bytes_in), (0, 0));
        let row = |counters: &[(&'static str, u64)]| -> Row {
            let named = counters.iter();
            named
                .map(|(name, amount)| ((*name).into(), *amount))
                .collect()
        };
        totals.add(&row(&[
            (rows::OPERATIONS, 1),
            (rows::HITS, 2),
            (rows::MISSES, 3),
            (rows::THROTTLED, 4),
            (rows::BYTES_IN, 5),
            (rows::BYTES_OUT, 6),
            (rows::REPORTED_BYTES, 7),
            (rows::COMPUTE_MS, 8),
            ("of_tomorrow", 100),
            ("x:pages", 9),
        ]));
        totals.add(&row(&[("x:pages", 1), (rows::OPERATIONS, u64::MAX)]));
        let expected = Totals {
            operations: u64::MAX,
            hits: 2,
            misses: 3,
            throttled: 4,
            bytes_in: 5,
            bytes_out: 6,
            reported_bytes: 7,
            compute_ms: 8,
            memory_byte_seconds: 24,
            storage_byte_seconds: 7,
            custom: [("pages".to_owned(), 10)].into(),
        };
        assert_eq!(totals, expected);
        assert_eq!(totals.data_transfer_bytes(), 18);
    }
}
