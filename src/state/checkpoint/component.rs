//! What a checkpoint can hold, and how much it does. It does not know where a
//! component comes from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Record;

/// What a checkpoint can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// Tenants and their API keys.
    Tenants,
    /// Cache entries.
    Cache,
    /// Sessions.
    Sessions,
    /// The configuration, without secrets.
    Config,
    /// Usage and bills.
    Usage,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Tenants,
        Self::Cache,
        Self::Sessions,
        Self::Config,
        Self::Usage,
    ];

    /// Those that are taken where none is named: a cache can be filled again.
    pub const DEFAULT: [Self; 4] = [Self::Tenants, Self::Sessions, Self::Config, Self::Usage];

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Cache => "cache",
            Self::Sessions => "sessions",
            Self::Config => "config",
            Self::Usage => "usage",
        }
    }

    /// The component of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Its number in a block. Never changes; 0 is none.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tenants => 1,
            Self::Cache => 2,
            Self::Sessions => 3,
            Self::Config => 4,
            Self::Usage => 5,
        }
    }

    pub(super) fn numbered(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.number() == number)
    }
}

/// How much of something there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Records.
    pub records: u64,
    /// Bytes of their paths and values.
    pub bytes: u64,
}

impl Count {
    /// Counts a record.
    pub fn add(&mut self, record: &Record) {
        self.records += 1;
        self.bytes = self.bytes.saturating_add(record.bytes());
    }

    /// Adds another count.
    pub fn merge(&mut self, other: Self) {
        self.records = self.records.saturating_add(other.records);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// How much there is of each component; one that holds nothing may be missing.
pub type Counts = BTreeMap<Component, Count>;

/// Adds up counts by component.
pub fn merge(sum: &mut Counts, other: &Counts) {
    for (component, count) in other {
        sum.entry(*component).or_default().merge(*count);
    }
}
