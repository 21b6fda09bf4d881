//! What becomes of rates while the store cannot be asked, as an operator writes
//! it: one word for all of them, and others by metric. It does not know which
//! metrics there are: tenants have their own.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::unit;

/// What becomes of a rate while the store cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDown {
    /// Each replica lets through its part of the limit.
    #[default]
    Local,
    /// Nothing is let through.
    Deny,
    /// Everything is let through.
    Allow,
}

/// What becomes of each rate while the store cannot be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhenStoreIsDown {
    all: WhenDown,
    by_metric: BTreeMap<String, WhenDown>,
}

const EXPECTED: &str =
    "local, deny or allow, and after it metric=local|deny|allow, comma-separated, each metric once";

impl WhenStoreIsDown {
    /// What becomes of the rate of this metric.
    pub fn of(&self, metric: &str) -> WhenDown {
        self.by_metric.get(metric).copied().unwrap_or(self.all)
    }

    /// Reads what an operator wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',').map(str::trim);
        let all = word(parts.next()?)?;
        let mut by_metric = BTreeMap::new();
        for part in parts {
            let (metric, what) = part.split_once('=')?;
            let what = word(what.trim())?;
            let metric = metric.trim();
            if !is_metric(metric) || by_metric.insert(metric.to_owned(), what).is_some() {
                return None;
            }
        }
        Some(Self { all, by_metric })
    }
}

impl<'de> Deserialize<'de> for WhenStoreIsDown {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        unit::required(value, EXPECTED, Self::parse)
    }
}

fn word(text: &str) -> Option<WhenDown> {
    match text {
        "local" => Some(WhenDown::Local),
        "deny" => Some(WhenDown::Deny),
        "allow" => Some(WhenDown::Allow),
        _ => None,
    }
}

/// Whether a metric can have this name, built in or not.
fn is_metric(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_word_for_all_and_others_by_metric() {
        let read = WhenStoreIsDown::parse("local, operations_per_minute=deny , pages=allow");
        let read = read.unwrap();
        assert_eq!(read.of("operations_per_minute"), WhenDown::Deny);
        assert_eq!(read.of("pages"), WhenDown::Allow);
        assert_eq!(read.of("other"), WhenDown::Local);
        assert_eq!(
            WhenStoreIsDown::parse("deny").unwrap().of("pages"),
            WhenDown::Deny
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "LOCAL",
            "pages=deny",
            "local,",
            "local,pages",
            "local,pages=never",
            "local,Pages=deny",
            "local,=deny",
            "local,pages=deny,pages=deny",
        ] {
            assert_eq!(WhenStoreIsDown::parse(text), None, "{text}");
        }
    }
}
