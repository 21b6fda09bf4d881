//! A window that permits are leased from: the arithmetic of [`Lease`], and how it
//! lies in the file. It does not know whose window it is.

use std::collections::BTreeMap;

use super::super::{Lease, Leased, slot_ms};

/// Permits that count, by the time they are free again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window(BTreeMap<u64, u64>);

impl Window {
    /// Takes a lease: what was settled first, then what is forced, then what can
    /// be given.
    pub(super) fn lease(&mut self, lease: &Lease, now_ms: u64) -> Leased {
        self.0 = self.0.split_off(&now_ms.saturating_add(1));
        let slot = slot_ms(lease.span_ms);
        let up = |ms: u64| ms.checked_next_multiple_of(slot).unwrap_or(u64::MAX);
        let free_ms = |used_ms: u64| up(used_ms.saturating_add(lease.span_ms));
        if let Some(settle) = lease.settle {
            let leased_at = free_ms(settle.until_ms);
            self.take(leased_at, settle.unused);
            let used = self.take(leased_at, settle.used);
            self.count(leased_at.min(free_ms(now_ms)), used);
        }
        self.count(free_ms(now_ms), lease.forced);

        let counted = self.counted();
        let free = lease.limit.saturating_sub(counted);
        let granted = if free < lease.least {
            0
        } else {
            let most = lease.least.saturating_add(free / lease.share.max(1));
            most.min(free).min(lease.want)
        };
        let until_ms = up(now_ms.saturating_add(lease.hold_ms));
        self.count(free_ms(until_ms), granted);
        Leased {
            granted,
            until_ms,
            counted: counted.saturating_add(granted),
            retry_after_ms: (granted == 0)
                .then(|| self.retry_after_ms(lease, counted, now_ms))
                .flatten(),
        }
    }

    /// The wait until enough of what counts is free.
    fn retry_after_ms(&self, lease: &Lease, counted: u64, now_ms: u64) -> Option<u64> {
        if lease.least > lease.limit {
            return None;
        }
        let mut rest = counted;
        if rest <= lease.limit - lease.least {
            return Some(0);
        }
        for (free_ms, permits) in &self.0 {
            rest = rest.saturating_sub(*permits);
            if rest <= lease.limit - lease.least {
                return Some(free_ms.saturating_sub(now_ms));
            }
        }
        None
    }

    fn counted(&self) -> u64 {
        self.0
            .values()
            .fold(0, |sum, permits| sum.saturating_add(*permits))
    }

    fn count(&mut self, free_ms: u64, permits: u64) {
        if permits > 0 {
            let counted = self.0.entry(free_ms).or_default();
            *counted = counted.saturating_add(permits);
        }
    }

    /// Takes permits away, as many as there are; how many there were.
    fn take(&mut self, free_ms: u64, permits: u64) -> u64 {
        let Some(counted) = self.0.get_mut(&free_ms) else {
            return 0;
        };
        let taken = permits.min(*counted);
        *counted -= taken;
        if *counted == 0 {
            self.0.remove(&free_ms);
        }
        taken
    }

    /// When the last permit is free; `None` where all are.
    pub(super) fn ends_ms(&self) -> Option<u64> {
        self.0.last_key_value().map(|(free_ms, _)| *free_ms)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 16);
        for (free_ms, permits) in &self.0 {
            bytes.extend_from_slice(&free_ms.to_le_bytes());
            bytes.extend_from_slice(&permits.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (pairs, rest) = bytes.as_chunks::<16>();
        if !rest.is_empty() {
            return None;
        }
        let mut permits = BTreeMap::new();
        for pair in pairs {
            let (free_ms, count) = pair.split_first_chunk()?;
            let count = count.try_into().ok()?;
            permits.insert(u64::from_le_bytes(*free_ms), u64::from_le_bytes(count));
        }
        Some(Self(permits))
    }
}
