//! The chain of a replica: each event carries the hash of the one before it, and a
//! record tells where the chain ends. It does not know when it is written.

use std::time::Duration;

use super::{
    Entry, Head,
    entry::{self, EVENTS, HEADS},
    log::Pending,
};
use crate::{
    error::Result,
    random,
    store::{Batch, Check, Expiry, Key, Write},
    tenant::record,
};

/// The end of a chain, and what is about to be put behind it.
pub(super) struct Chain {
    /// Its last event in the store; of sequence 0 where there is none.
    end: Head,
    /// The version of the record that says so.
    version: u64,
    flight: Option<Flight>,
}

/// Events that are written together, and stay what they are until it is known that
/// they are in the store.
struct Flight {
    entries: Vec<Entry>,
    pending: Vec<Pending>,
    end: Head,
}

impl Chain {
    /// A chain that is not begun.
    pub(super) fn new(replica: String) -> Self {
        Self {
            end: Head {
                format: record::FORMAT,
                replica,
                ..Head::default()
            },
            version: 0,
            flight: None,
        }
    }

    /// Whether events are on their way.
    pub(super) fn is_in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// How many events are on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.flight
            .as_ref()
            .map_or(0, |flight| flight.entries.len())
    }

    /// Puts events behind the chain's end, to be kept so long from their time on.
    pub(super) fn prepare(&mut self, pending: Vec<Pending>, keep: Duration) {
        let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let mut end = self.end.clone();
        let mut entries = Vec::with_capacity(pending.len());
        for Pending { facts, .. } in &pending {
            let mut entry = Entry {
                format: record::FORMAT,
                replica: end.replica.clone(),
                sequence: end.sequence + 1,
                previous_expire_ms: end.expire_ms,
                previous_hash: std::mem::take(&mut end.hash),
                facts: facts.clone(),
                ..Entry::default()
            };
            // The cores' events come in nearly the order of their times; in the chain
            // they stand in it, so that a listing by time is one by chain too. The ends
            // keep that order, so that what is gone is always the oldest.
            entry.facts.time_ms = entry.facts.time_ms.max(end.time_ms);
            entry.expire_ms = entry.facts.time_ms.saturating_add(keep_ms);
            entry.expire_ms = entry.expire_ms.max(end.expire_ms);
            entry.hash = entry.digest();
            end.sequence = entry.sequence;
            end.hash.clone_from(&entry.hash);
            end.time_ms = entry.facts.time_ms;
            end.expire_ms = entry.expire_ms;
            entries.push(entry);
        }
        self.flight = Some(Flight {
            entries,
            pending,
            end,
        });
    }

    /// The commit that puts them into the store, if the chain ends there as it is known
    /// to; the record of its end is the first write.
    ///
    /// # Errors
    /// Where an event cannot be encoded, which no event is.
    pub(super) fn batch(&self, now_ms: u64) -> Result<Batch> {
        let Some(flight) = &self.flight else {
            return Ok(Batch::default());
        };
        let until = |expire_ms: u64| Expiry::AfterMs(expire_ms.saturating_sub(now_ms).max(1));
        let check = match self.version {
            0 => Check::Absent,
            version => Check::Version(version),
        };
        let head = Write::put(head_key(&flight.end.replica), record::encode(&flight.end)?)
            .when(check)
            .expiring(until(flight.end.expire_ms));
        let mut writes = vec![head];
        for entry in &flight.entries {
            let (place, tenant_id) = (entry.place(), &entry.facts.tenant_id);
            let mut put = |key: Key, value| {
                let write = Write::put(key, value).when(Check::Absent);
                writes.push(write.expiring(until(entry.expire_ms)));
            };
            put(entry::key(EVENTS, &place), record::encode(entry)?);
            if !tenant_id.is_empty() {
                // It leads to the event, and holds nothing of it.
                let beginning = entry::of_tenant(tenant_id);
                put(entry::key(&beginning, &place), bytes::Bytes::new());
            }
        }
        Ok(Batch::of(writes))
    }

    /// Where the record of its end is.
    pub(super) fn head_key(&self) -> Key {
        head_key(&self.end.replica)
    }

    /// Whether what the store holds as its end is what is on its way.
    pub(super) fn is_end(&self, stored: &[u8]) -> bool {
        let stored = record::decode::<Head>(stored).ok();
        self.flight
            .as_ref()
            .is_some_and(|flight| stored.as_ref() == Some(&flight.end))
    }

    /// Notes that what was on its way is in the store, with the record of the end at
    /// this version; the events, and where the chain ends.
    pub(super) fn arrived(&mut self, version: u64) -> (Vec<Pending>, Head) {
        if let Some(flight) = self.flight.take() {
            self.end = flight.end;
            self.version = version;
            return (flight.pending, self.end.clone());
        }
        (Vec::new(), self.end.clone())
    }

    /// Begins another chain with what is on its way, where the store does not hold the
    /// end of this one any more.
    pub(super) fn begin_anew(&mut self, keep: Duration) {
        let replica = random::BASE32.encode(&random::bytes::<10>());
        let flight = self.flight.take();
        *self = Self::new(replica);
        if let Some(flight) = flight {
            self.prepare(flight.pending, keep);
        }
    }
}

fn head_key(replica: &str) -> Key {
    entry::key(HEADS, replica)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::audit::Facts;

    fn pending(time_ms: u64) -> Pending {
        let facts = Facts {
            time_ms,
            tenant_id: "acme".into(),
            ..Facts::default()
        };
        let awaited = None;
        Pending { facts, awaited }
    }

    #[test]
    fn a_chain_goes_on_where_it_ended_and_never_back_in_time() {
        let mut chain = Chain::new("r".into());
        let mut all = Vec::new();
        for (times, keep_ms) in [([5, 3], 100), ([9, 8], 50)] {
            let keep = Duration::from_millis(keep_ms);
            chain.prepare(times.map(pending).into(), keep);
            all.extend(chain.flight.iter().flat_map(|f| f.entries.clone()));
            // The end, and each event with what leads to it.
            assert_eq!(chain.batch(0).map(|batch| batch.writes.len()), Ok(5));
            chain.arrived(1);
        }
        let (mut hash, mut expire_ms) = (String::new(), 0);
        for (entry, (sequence, time_ms)) in all.iter().zip([(1, 5), (2, 5), (3, 9), (4, 9)]) {
            assert_eq!((entry.sequence, entry.facts.time_ms), (sequence, time_ms));
            assert_eq!(entry.previous_hash, hash);
            assert_eq!(entry.previous_expire_ms, expire_ms);
            assert!(entry.expire_ms >= expire_ms);
            assert_eq!(entry.digest(), entry.hash);
            (hash, expire_ms) = (entry.hash.clone(), entry.expire_ms);
        }
    }

    #[test]
    fn another_chain_takes_what_was_on_its_way() {
        let mut chain = Chain::new("r".into());
        chain.prepare(vec![pending(5)], Duration::ZERO);
        chain.begin_anew(Duration::ZERO);
        assert_ne!(chain.end.replica, "r");
        assert_eq!(chain.in_flight(), 1);
        let (events, end) = chain.arrived(1);
        assert_eq!((events.len(), end.sequence), (1, 1));
        assert!(!chain.is_in_flight());
    }
}
