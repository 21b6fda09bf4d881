//! What was asked for most, hottest first, as it is kept in the store. It does not
//! know what it is a list of.

use std::{cmp::Reverse, collections::HashMap, hash::Hash};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    store::Record,
};

/// Bytes of a list in the store; the coldest of a longer one are left out.
const MAX_BYTES: usize = 512 << 10;

/// The version of the stored form. Of one that is not known nothing is read.
const FORMAT: u32 = 1;

/// A list in the order of how often each was asked for of late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heat<T> {
    format: u32,
    pub(super) hot: Vec<(T, u32)>,
}

impl<T> Default for Heat<T> {
    fn default() -> Self {
        Self {
            format: FORMAT,
            hot: Vec::new(),
        }
    }
}

impl<T: Clone + Eq + Hash + Serialize + DeserializeOwned> Heat<T> {
    /// The list in a record; an empty one where there is none that can be read.
    pub(super) fn decode(record: Option<&Record>) -> Self {
        let decoded = record.and_then(|record| serde_json::from_slice(&record.value).ok());
        decoded
            .filter(|heat: &Self| heat.format == FORMAT)
            .unwrap_or_default()
    }

    /// The same after this was seen: each counts as it is now, or half of what it
    /// did before, so that what others keep stays, and what nobody asks for leaves.
    pub(super) fn seen(self, now: impl IntoIterator<Item = (T, u32)>, most: usize) -> Self {
        let halved = self.hot.into_iter().map(|(what, uses)| (what, uses / 2));
        let mut merged: HashMap<T, u32> = halved.filter(|(_, uses)| *uses > 0).collect();
        for (what, uses) in now {
            let kept = merged.entry(what).or_default();
            *kept = uses.max(*kept);
        }
        let mut hot: Vec<_> = merged.into_iter().collect();
        hot.sort_by_key(|(_, uses)| Reverse(*uses));
        hot.truncate(most);
        Self {
            format: FORMAT,
            hot,
        }
    }

    /// As it is kept, as much of it as may be.
    pub(super) fn encode(mut self) -> Result<Vec<u8>> {
        loop {
            let bytes = serde_json::to_vec(&self);
            let bytes = bytes.map_err(|error| Error::Internal(error.to_string()))?;
            if bytes.len() <= MAX_BYTES || self.hot.is_empty() {
                return Ok(bytes);
            }
            // A tenth less than fits if all are of one size.
            let part = self.hot.len() * MAX_BYTES / bytes.len();
            self.hot.truncate(part - part.div_ceil(10));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn heat(hot: &[(&str, u32)]) -> Heat<String> {
        Heat {
            format: FORMAT,
            hot: owned(hot),
        }
    }

    fn owned(hot: &[(&str, u32)]) -> Vec<(String, u32)> {
        hot.iter()
            .map(|&(what, uses)| (what.to_owned(), uses))
            .collect()
    }

    fn record(value: impl Into<bytes::Bytes>) -> Record {
        Record {
            version: 1,
            expire_ms: None,
            value: value.into(),
        }
    }

    #[test]
    fn what_is_not_asked_for_leaves_by_halves() {
        let before = heat(&[("a", 200), ("b", 9), ("c", 1)]);
        let now = owned(&[("b", 7), ("d", 3), ("e", 0)]);
        let merged = before.seen(now, 10);
        assert_eq!(merged, heat(&[("a", 100), ("b", 7), ("d", 3), ("e", 0)]));
        assert_eq!(merged.seen([], 1), heat(&[("a", 50)]));
    }

    #[test]
    fn it_comes_back_as_it_was_kept_and_within_bounds() {
        let kept = heat(&[("a", 3), ("b", 1)]);
        let bytes = kept.clone().encode().unwrap();
        assert_eq!(Heat::decode(Some(&record(bytes))), kept);

        let long = |n: usize| (format!("{n:0>1024}"), u32::try_from(2000 - n).unwrap());
        let many = Heat::default().seen((0..2000).map(long), 2000);
        let bytes = many.clone().encode().unwrap();
        assert!((MAX_BYTES * 8 / 10..=MAX_BYTES).contains(&bytes.len()));
        let back = Heat::<String>::decode(Some(&record(bytes)));
        assert_eq!(back.hot[..], many.hot[..back.hot.len()], "the hottest");
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let none = Heat::<String>::default();
        for value in ["", "{}", "nonsense", r#"{"format":2,"hot":[["a",1]]}"#] {
            assert_eq!(Heat::decode(Some(&record(value))), none, "{value}");
        }
        assert_eq!(Heat::<String>::decode(None), none);
    }
}
