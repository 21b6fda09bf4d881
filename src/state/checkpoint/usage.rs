//! Meters, rows of counters, and the events counted in them, as records of a checkpoint.
//! It does not know how any of them is written back.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Damage, Kind, Record};
use crate::{
    error::Result,
    store::{Meters, Opening, Reading, Row, Unit},
    tenant::{KeptMeters, KeptRow, event::counted::Counted, record},
};

/// Which of a tenant's spaces meters are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metered {
    /// That of its cache.
    Cache,
    /// That of its sessions.
    Sessions,
}

/// Meters of a space in a unit, as a record holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetersOf {
    /// Of which space.
    pub space: Metered,
    /// In which unit.
    pub unit: Unit,
    /// The meters.
    pub meters: Meters,
    /// As [`Usage::expired`](crate::store::Usage::expired).
    pub expired: u64,
}

/// The stored form. Sums that JSON has no number for are text.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    last: StoredReading,
    held_bytes: u64,
    now_ms: u64,
    expired: u64,
    openings: Vec<StoredOpening>,
}

#[derive(Serialize, Deserialize)]
struct StoredReading {
    at_ms: u64,
    byte_ms: String,
    operations: u64,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredOpening {
    start_ms: u64,
    before: StoredReading,
    held_bytes: u64,
}

impl StoredReading {
    fn of(reading: &Reading) -> Self {
        Self {
            at_ms: reading.at_ms,
            byte_ms: reading.byte_ms.to_string(),
            operations: reading.operations,
            bytes: reading.bytes,
        }
    }

    fn reading(&self) -> std::result::Result<Reading, Damage> {
        let byte_ms = self.byte_ms.parse();
        Ok(Reading {
            at_ms: self.at_ms,
            byte_ms: byte_ms.map_err(|_| Damage::new("a meter is no number"))?,
            operations: self.operations,
            bytes: self.bytes,
        })
    }
}

/// The record of meters.
///
/// # Errors
/// [`Error::Internal`](crate::error::Error::Internal), which no meters meet.
pub(super) fn of_meters(space: Metered, kept: &KeptMeters) -> Result<Record> {
    let meters = &kept.meters;
    let stored = Stored {
        format: record::FORMAT,
        last: StoredReading::of(&meters.last),
        held_bytes: meters.held_bytes,
        now_ms: meters.now_ms,
        expired: kept.expired,
        openings: meters
            .openings
            .iter()
            .map(|opening| StoredOpening {
                start_ms: opening.start_ms,
                before: StoredReading::of(&opening.before),
                held_bytes: opening.held_bytes,
            })
            .collect(),
    };
    let (space, unit) = (name(space), unit_name(kept.unit));
    Ok(Record {
        kind: Kind::Meters,
        path: format!("{space}:{unit}").into(),
        version: 0,
        expire_ms: None,
        value: record::encode(&stored)?,
    })
}

/// The meters in a record of [`Kind::Meters`].
///
/// # Errors
/// [`Damage`] where it holds none.
pub fn meters(record: &Record) -> std::result::Result<MetersOf, Damage> {
    let unknown = || Damage::new("meters of an unknown space or unit");
    let path = std::str::from_utf8(&record.path).map_err(|_| unknown())?;
    let (space, unit) = path.split_once(':').ok_or_else(unknown)?;
    let space = [Metered::Cache, Metered::Sessions]
        .into_iter()
        .find(|known| name(*known) == space)
        .ok_or_else(unknown)?;
    let unit = Unit::ALL
        .into_iter()
        .find(|known| unit_name(*known) == unit)
        .ok_or_else(unknown)?;
    let stored: Stored = serde_json::from_slice(&record.value)
        .map_err(|error| Damage::new(format!("meters cannot be read: {error}")))?;
    let openings = stored.openings.iter().map(|opening| {
        Ok(Opening {
            start_ms: opening.start_ms,
            before: opening.before.reading()?,
            held_bytes: opening.held_bytes,
        })
    });
    Ok(MetersOf {
        space,
        unit,
        meters: Meters {
            last: stored.last.reading()?,
            held_bytes: stored.held_bytes,
            now_ms: stored.now_ms,
            openings: openings.collect::<std::result::Result<_, Damage>>()?,
        },
        expired: stored.expired,
    })
}

/// The record of a row of counters: its path is the row's name, and it expires when the
/// row does.
///
/// # Errors
/// [`Error::Internal`](crate::error::Error::Internal), which no row meets.
pub(super) fn of_row(kept: &KeptRow) -> Result<Record> {
    let named = kept.row.iter().map(|(name, count)| {
        let name = String::from_utf8_lossy(name).into_owned();
        (name, *count)
    });
    let stored: BTreeMap<String, u64> = named.collect();
    Ok(Record {
        kind: Kind::Row,
        path: kept.name.clone(),
        version: 0,
        expire_ms: kept.until_ms,
        value: record::encode(&stored)?,
    })
}

/// The counters in a record of [`Kind::Row`], in the order of their names' bytes.
///
/// # Errors
/// [`Damage`] where it holds none.
pub fn row(record: &Record) -> std::result::Result<Row, Damage> {
    let stored: BTreeMap<String, u64> = serde_json::from_slice(&record.value)
        .map_err(|error| Damage::new(format!("a row cannot be read: {error}")))?;
    let counters = stored.into_iter();
    Ok(counters
        .map(|(name, count)| (Bytes::from(name), count))
        .collect())
}

/// The record of an event that was counted.
pub(super) fn of_event(counted: &Counted) -> Record {
    Record {
        kind: Kind::Event,
        path: counted.event_id.clone(),
        version: 0,
        expire_ms: Some(counted.until_ms),
        value: Bytes::new(),
    }
}

/// The id of the event in a record of [`Kind::Event`], and until when it is remembered.
///
/// # Errors
/// [`Damage`] where it tells no end.
pub fn event(record: Record) -> std::result::Result<(Bytes, u64), Damage> {
    let until_ms = record.expire_ms;
    let until_ms = until_ms.ok_or_else(|| Damage::new("an event is remembered for ever"))?;
    Ok((record.path, until_ms))
}

fn name(space: Metered) -> &'static str {
    match space {
        Metered::Cache => "cache",
        Metered::Sessions => "sessions",
    }
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Minute => "minute",
        Unit::Hour => "hour",
        Unit::Day => "day",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{Incarnation, Space};

    #[test]
    fn meters_and_rows_come_back() {
        let reading = |at_ms| Reading {
            at_ms,
            byte_ms: u128::MAX - u128::from(at_ms),
            operations: u64::MAX,
            bytes: 3,
        };
        let kept = KeptMeters {
            space: Space::tenant(Incarnation::random()),
            unit: Unit::Hour,
            meters: Meters {
                last: reading(9),
                held_bytes: 4,
                now_ms: 12,
                openings: vec![Opening {
                    start_ms: 7,
                    before: reading(5),
                    held_bytes: 2,
                }],
            },
            expired: 11,
        };
        let record = of_meters(Metered::Sessions, &kept).unwrap();
        let expected = MetersOf {
            space: Metered::Sessions,
            unit: Unit::Hour,
            meters: kept.meters,
            expired: 11,
        };
        assert_eq!(meters(&record).unwrap(), expected);

        let kept = KeptRow {
            name: Bytes::from_static(b"d:x:1"),
            row: vec![
                (Bytes::from_static(b"hits"), 3),
                (Bytes::from_static(b"x:widgets"), u64::MAX),
            ],
            until_ms: Some(4),
        };
        let record = of_row(&kept).unwrap();
        assert_eq!(row(&record).unwrap(), kept.row);
        assert_eq!((record.path, record.expire_ms), (kept.name, Some(4)));

        let counted = Counted {
            incarnation: Incarnation::random(),
            event_id: Bytes::from_static(b"a:b"),
            until_ms: 9,
        };
        let record = of_event(&counted);
        assert_eq!(event(record.clone()).unwrap(), (counted.event_id, 9));
        let endless = Record {
            expire_ms: None,
            ..record
        };
        event(endless).unwrap_err();
        for damaged in [b"{".as_slice(), b"[]", b"{\"a\":-1}"] {
            let record = Record {
                kind: Kind::Row,
                path: Bytes::from_static(b"cache:day"),
                version: 0,
                expire_ms: None,
                value: Bytes::from_static(damaged),
            };
            row(&record).unwrap_err();
            meters(&record).unwrap_err();
        }
    }
}
