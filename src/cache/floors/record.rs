//! The control record that holds a tenant's floors. It does not know what they hide.
//!
//! # Format 2
//!
//! JSON: `{"format":2,"job_ms":..,"floors":[{"namespace":..,"all":..,"tagged":..,
//! "prefixes":{..},"tags":{..}}],"past":..}`. A version of 2^64 - 1 is that of the record
//! itself, so that the write that raises a floor needs no other to learn how high.
//! Format 1 was `{"floors":{namespace: version}}`. Its readers find a list where
//! they expect a map, and answer INTERNAL rather than show what is gone; a record
//! without floors has no list, and both read it.

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
    #[serde(default)]
    format: u32,
    #[serde(default)]
    job_ms: u64,
    #[serde(default, skip_serializing_if = "Held::is_empty")]
    floors: Held,
    #[serde(default, skip_serializing_if = "Past::is_empty")]
    past: Past,
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

impl Held {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Second(floors) if floors.is_empty())
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
            namespaces,
            past: stored.past,
        };
        floors.past.measure();
        floors.settle(record.version);
        Ok(floors)
    }

    /// The value of their record.
    pub(in crate::cache) fn encode(&self) -> Result<Vec<u8>> {
        if self.is_empty() && self.past.is_empty() {
            return Ok(b"{}".to_vec());
        }
        let name = |(namespace, marks): (&Box<str>, &Marks)| Named {
            namespace: namespace.clone(),
            marks: marks.clone(),
        };
        let stored = Stored {
            format: FORMAT,
            job_ms: self.job_ms,
            floors: Held::Second(self.namespaces.iter().map(name).collect()),
            past: self.past.clone(),
        };
        serde_json::to_vec(&stored).map_err(|error| Error::Internal(error.to_string()))
    }
}
