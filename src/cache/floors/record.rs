//! The control record that holds a tenant's floors. It does not know what they hide.
//!
//! # Format 2
//!
//! JSON: `{"format":2,"job_ms":..,"floors":[{"namespace":..,"all":..,"tagged":..,
//! "prefixes":{..},"tags":{..}}],"past":..,"watched_until_ms":..}`. A version of 2^64 - 1
//! is that of the record itself, so that the write that raises a floor needs no other
//! to learn how high. Format 1 was `{"floors":{namespace: version}}`. Its readers find
//! a list where they expect a map, and answer INTERNAL rather than show what is gone;
//! a record without floors has no list, and both read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Floors, Marks, past::Past};
use crate::{
    error::{Error, Result},
    store::Record,
};

/// The format written.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "is_zero")]
    format: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    job_ms: u64,
    #[serde(default, skip_serializing_if = "Held::is_empty")]
    floors: Held,
    #[serde(default, skip_serializing_if = "Past::is_empty")]
    past: Past,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watched_until_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Held {
    Second(Vec<Named>),
    First(BTreeMap<Box<str>, u64>),
}

#[derive(Serialize, Deserialize)]
struct Named {
    namespace: Box<str>,
    #[serde(flatten)]
    marks: Marks,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl Held {
    fn is_empty(&self) -> bool {
        match self {
            Self::Second(named) => named.is_empty(),
            Self::First(floors) => floors.is_empty(),
        }
    }
}

impl Default for Held {
    fn default() -> Self {
        Self::Second(Vec::new())
    }
}

impl Floors {
    /// Reads them from their record.
    pub(in crate::cache) fn decode(record: Option<&Record>) -> Result<Self> {
        let Some(record) = record else {
            return Ok(Self::default());
        };
        let unreadable = |what| Error::Internal(format!("the control record floors: {what}"));
        let stored: Stored =
            serde_json::from_slice(&record.value).map_err(|error| unreadable(error.to_string()))?;
        if stored.format > FORMAT {
            return Err(unreadable(format!("of format {}", stored.format)));
        }
        let all = |(namespace, all)| {
            let marks = Marks {
                all,
                ..Marks::default()
            };
            (namespace, marks)
        };
        let namespaces = match stored.floors {
            Held::First(floors) => floors.into_iter().map(all).collect(),
            Held::Second(named) => named.into_iter().map(|n| (n.namespace, n.marks)).collect(),
        };
        let mut floors = Self {
            version: None,
            job_ms: stored.job_ms,
            watched_until_ms: stored.watched_until_ms,
            namespaces,
            past: stored.past,
        };
        floors.past.measure();
        floors.settle(record.version);
        Ok(floors)
    }

    /// The value of their record.
    pub(in crate::cache) fn encode(&self) -> Result<Vec<u8>> {
        let named = self.namespaces.iter().map(|(namespace, marks)| Named {
            namespace: namespace.clone(),
            marks: marks.clone(),
        });
        let (format, job_ms) = match self.is_empty() && self.past.is_empty() {
            true => (0, 0),
            false => (FORMAT, self.job_ms),
        };
        let stored = Stored {
            format,
            job_ms,
            floors: Held::Second(named.collect()),
            past: self.past.clone(),
            watched_until_ms: self.watched_until_ms,
        };
        serde_json::to_vec(&stored).map_err(|error| Error::Internal(error.to_string()))
    }
}
