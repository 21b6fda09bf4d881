//! A row of counters as it lies in the file, and what adding to it does. It does
//! not know the row's name, or how long it is kept.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::{Count, MAX_COUNT, Row};

/// The counters of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(BTreeMap<Bytes, u64>);

impl Counts {
    /// Adds to a counter; what it shows then. `Err` is the limit that it would
    /// pass, and what it shows.
    pub(super) fn add(&mut self, count: &Count) -> Result<u64, (u64, u64)> {
        let used = self.0.get(&count.name).copied().unwrap_or_default();
        let amount = count.amount.unsigned_abs();
        let shows = if count.amount < 0 {
            used.saturating_sub(amount)
        } else {
            used.saturating_add(amount)
        };
        let limit = count.limit.unwrap_or(MAX_COUNT).min(MAX_COUNT);
        if count.amount > 0 && shows > limit {
            return Err((limit, used));
        }
        self.0.insert(count.name.clone(), shows);
        Ok(shows)
    }

    /// For each counter: the length of its name, the name, what it shows.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 24);
        for (name, shows) in &self.0 {
            let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&shows.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut counts = BTreeMap::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_first_chunk()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (name, rest) = rest.split_at_checked(length)?;
            let (shows, rest) = rest.split_first_chunk()?;
            counts.insert(Bytes::copy_from_slice(name), u64::from_le_bytes(*shows));
            bytes = rest;
        }
        Some(Self(counts))
    }

    /// As the port shows it.
    pub(super) fn row(self) -> Row {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_as_they_were_written() {
        let mut counts = Counts::default();
        for (name, amount) in [(&b"b"[..], 7), (b"\0\xff", i64::MAX / 10), (b"", 0)] {
            let name = Bytes::from_static(name);
            let shows = counts.add(&Count {
                name,
                amount,
                limit: None,
            });
            assert_eq!(shows, Ok(amount.unsigned_abs()));
        }
        let stored = counts.encode();
        assert_eq!(Counts::decode(&stored), Some(counts.clone()));
        assert_eq!(Counts::decode(&stored[1..]), None);
        assert_eq!(Counts::decode(b""), Some(Counts::default()));
        let names: Vec<_> = counts.row().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [&b""[..], b"\0\xff", b"b"]);
    }

    #[test]
    fn a_counter_passes_no_limit_and_no_end() {
        let mut counts = Counts::default();
        let mut add = |amount, limit| {
            counts.add(&Count {
                name: Bytes::from_static(b"c"),
                amount,
                limit,
            })
        };
        assert_eq!(add(5, Some(5)), Ok(5));
        assert_eq!(add(1, Some(5)), Err((5, 5)));
        assert_eq!(add(-2, Some(0)), Ok(3));
        assert_eq!(add(0, Some(0)), Ok(3));
        assert_eq!(add(i64::MIN, None), Ok(0));
        assert_eq!(add(i64::MAX, None), Err((MAX_COUNT, 0)));
        assert_eq!(add(i64::MAX, Some(u64::MAX)), Err((MAX_COUNT, 0)));
        let most = i64::try_from(MAX_COUNT).unwrap();
        assert_eq!(add(most, None), Ok(MAX_COUNT));
        assert_eq!(add(1, None), Err((MAX_COUNT, MAX_COUNT)));
    }
}
