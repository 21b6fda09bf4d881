//! The chains of the audit log, checked event by event as they are listed. It knows what
//! the proto says of a chain, and nothing of how a server makes one.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::Timestamp;
use sha2::{Digest, Sha256};

use crate::proto::v1::{AuditChain, AuditEvent};

/// What an event shows that is not what was written.
const DAMAGED: &str = "EVENT_DAMAGED";

/// How far this machine's clock and the store's may differ.
const SLACK_MS: i64 = 60_000;

/// What was found of a chain so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// The places of its oldest and its newest event.
    pub(super) first: i64,
    pub(super) last: i64,
    /// The newest one's hash; empty where it could not be relied on.
    pub(super) hash: String,
    /// Until when the newest one is kept, in ms since 1970.
    pub(super) expire_ms: i64,
}

/// Where a chain ended when somebody looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) replica: String,
    pub(super) sequence: i64,
    pub(super) hash: String,
    pub(super) expire_ms: i64,
}

impl From<AuditChain> for End {
    fn from(chain: AuditChain) -> Self {
        Self {
            replica: chain.replica,
            sequence: chain.sequence,
            hash: chain.hash,
            expire_ms: ms(chain.expire_time),
        }
    }
}

/// All chains.
#[derive(Debug, Default)]
pub(super) struct Chains {
    /// By their names.
    pub(super) found: BTreeMap<String, Chain>,
    /// What must stand in a place, by chain and place.
    ends: BTreeMap<(String, i64), Vec<End>>,
    /// What is wrong, in the order in which it was found.
    pub(super) breaks: Vec<String>,
    /// Events that were read.
    pub(super) events: u64,
}

impl Chains {
    /// Chains that must not end before these.
    pub(super) fn ending(ends: Vec<End>) -> Self {
        let mut chains = Self::default();
        for end in ends {
            let place = (end.replica.clone(), end.sequence);
            chains.ends.entry(place).or_default().push(end);
        }
        chains
    }

    /// Takes the next event of the listing.
    pub(super) fn add(&mut self, event: &AuditEvent, now_ms: i64) {
        self.events += 1;
        let (replica, sequence) = (&event.replica, event.sequence);
        let at = format!("event {sequence} of chain {replica}");
        let sound = match &*event.outcome {
            DAMAGED => Err("is not what was written there"),
            _ if digest(event) != event.hash => Err("was changed: its hash does not fit"),
            _ => Ok(()),
        };
        if let Err(why) = sound {
            self.breaks.push(format!("{at} {why}"));
        }
        // What has come to its end is gone, and only that.
        let gone = ms(event.previous_expire_time) <= now_ms + SLACK_MS;
        match self.found.get(replica) {
            None if sequence > 1 && sound.is_ok() && !gone => self.breaks.push(format!(
                "chain {replica} begins with event {sequence}, and those before it are missing \
                 although they were to be kept"
            )),
            None if sequence == 1 && sound.is_ok() && !event.previous_hash.is_empty() => {
                self.breaks
                    .push(format!("{at} follows one that is not there"));
            }
            Some(before) if sequence <= before.last => {
                self.breaks
                    .push(format!("{at} stands after event {}", before.last));
            }
            Some(before) if sequence > before.last + 1 && (sound.is_err() || !gone) => {
                let (from, to) = (before.last + 1, sequence - 1);
                let missing = match from == to {
                    true => format!("event {from} of chain {replica} is missing"),
                    false => format!("events {from} to {to} of chain {replica} are missing"),
                };
                self.breaks.push(missing);
            }
            // Their time was over, and there is nothing that it could follow.
            Some(before) if sequence > before.last + 1 => {}
            Some(before)
                if sound.is_ok()
                    && !before.hash.is_empty()
                    && before.hash != event.previous_hash =>
            {
                self.breaks.push(format!(
                    "{at} does not follow the event before it: that one was replaced"
                ));
            }
            _ => {}
        }
        for end in self
            .ends
            .remove(&(replica.clone(), sequence))
            .unwrap_or_default()
        {
            if sound.is_ok() && end.hash != event.hash {
                self.breaks.push(format!(
                    "{at} is another than the one that was there: the chain was written anew"
                ));
            }
        }
        let chain = self.found.entry(replica.clone()).or_insert(Chain {
            first: sequence,
            ..Chain::default()
        });
        chain.last = chain.last.max(sequence);
        chain.hash = sound.map_or_else(|_| String::new(), |()| event.hash.clone());
        chain.expire_ms = chain.expire_ms.max(ms(event.expire_time));
    }

    /// After the last event, with the names of all chains whose end the server knows:
    /// what is missing at the ends.
    pub(super) fn end(&mut self, known: &BTreeSet<String>, now_ms: i64) {
        for ((replica, sequence), ends) in std::mem::take(&mut self.ends) {
            let kept = ends.iter().any(|end| end.expire_ms > now_ms + SLACK_MS);
            if sequence == 0 {
                self.breaks
                    .push(format!("the end of chain {replica} cannot be read"));
            } else if kept {
                let last = self.found.get(&replica).map_or(0, |chain| chain.last);
                self.breaks.push(match last {
                    0 => format!("chain {replica} is missing, all {sequence} events of it"),
                    last if last < sequence => format!(
                        "events {} to {sequence} of chain {replica} are missing at its end",
                        last + 1
                    ),
                    _ => format!("event {sequence} of chain {replica} is missing"),
                });
            }
        }
        for (replica, chain) in &self.found {
            if !known.contains(replica) && chain.expire_ms > now_ms + SLACK_MS {
                self.breaks
                    .push(format!("the end of chain {replica} is missing"));
            }
        }
    }
}

/// A time in milliseconds since 1970; 0 where there is none.
pub(super) fn ms(time: Option<Timestamp>) -> i64 {
    time.map_or(0, |time| {
        time.seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(time.nanos / 1_000_000))
    })
}

/// The hash of an event, as the proto says.
fn digest(event: &AuditEvent) -> String {
    let mut digest = Sha256::new();
    for field in [
        &*event.replica,
        &event.sequence.to_string(),
        &ms(event.time).to_string(),
        &event.actor,
        &event.rpc,
        &event.tenant_id,
        &event.outcome,
        &event.request_id,
        &event.peer,
        &event.count.to_string(),
        &ms(event.expire_time).to_string(),
        &ms(event.previous_expire_time).to_string(),
        &event.previous_hash,
    ] {
        digest.update(format!("{}:{field},", field.len()));
    }
    data_encoding::HEXLOWER.encode(&digest.finalize())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_000_000_000_000;

    fn time(ms: i64) -> Option<Timestamp> {
        (ms > 0).then(|| Timestamp {
            seconds: ms / 1000,
            nanos: i32::try_from(ms % 1000 * 1_000_000).unwrap(),
        })
    }

    /// A chain of so many events, of which the first ones have come to their end.
    fn chain(events: i64, ended: i64) -> Vec<AuditEvent> {
        let mut made: Vec<AuditEvent> = Vec::new();
        for sequence in 1..=events {
            let kept_ms = if sequence <= ended { -100_000 } else { 100_000 };
            let last = made.last();
            let mut event = AuditEvent {
                time: time(NOW_MS - 1000 + sequence),
                actor: "admin".into(),
                rpc: "CreateTenant".into(),
                outcome: "OK".into(),
                count: 1,
                replica: "one".into(),
                sequence,
                expire_time: time(NOW_MS + kept_ms + sequence),
                previous_expire_time: last.and_then(|last| last.expire_time),
                previous_hash: last.map_or_else(String::new, |last| last.hash.clone()),
                ..AuditEvent::default()
            };
            event.hash = digest(&event);
            made.push(event);
        }
        made
    }

    fn end(event: &AuditEvent) -> End {
        End {
            replica: event.replica.clone(),
            sequence: event.sequence,
            hash: event.hash.clone(),
            expire_ms: ms(event.expire_time),
        }
    }

    fn breaks(events: &[AuditEvent], ends: Vec<End>) -> Vec<String> {
        let known = ends.iter().map(|end| end.replica.clone()).collect();
        let mut chains = Chains::ending(ends);
        for event in events {
            chains.add(event, NOW_MS);
        }
        chains.end(&known, NOW_MS);
        chains.breaks
    }

    #[test]
    fn a_whole_chain_has_no_break_and_may_have_lost_what_has_ended() {
        let whole = chain(9, 4);
        let ends = || vec![end(&whole[8])];
        for gone in 0..=4 {
            assert_eq!(breaks(&whole[gone..], ends()), [""; 0], "{gone}");
        }
        // It may have gone on since its end was told.
        assert_eq!(breaks(&whole, vec![end(&whole[6])]), [""; 0]);
        // All of it has ended.
        let ended = chain(4, 4);
        assert_eq!(breaks(&[], vec![end(&ended[3])]), [""; 0]);
    }

    #[test]
    fn each_way_of_tampering_is_named() {
        let whole = chain(9, 4);
        let ends = || vec![end(&whole[8])];
        let told = |change: &dyn Fn(&mut Vec<AuditEvent>)| {
            let mut events = whole.clone();
            change(&mut events);
            breaks(&events, ends())
        };
        let one = |words: &str| vec![words.to_owned()];
        let changed = told(&|events| events[5].actor = "nobody".into());
        assert_eq!(
            changed,
            one("event 6 of chain one was changed: its hash does not fit")
        );
        let hidden = told(&|events| {
            events[5].actor = "nobody".into();
            events[5].hash = digest(&events[5]);
        });
        assert_eq!(
            hidden,
            one("event 7 of chain one does not follow the event before it: that one was replaced")
        );
        let removed = told(&|events| drop(events.remove(6)));
        assert_eq!(removed, one("event 7 of chain one is missing"));
        let first = told(&|events| drop(events.drain(..6)));
        assert_eq!(
            first,
            one(
                "chain one begins with event 7, and those before it are missing although they \
                 were to be kept"
            )
        );
        let swapped = told(&|events| events.swap(6, 7));
        assert!(swapped.len() > 1, "{swapped:?}");
        let cut = told(&|events| events.truncate(6));
        assert_eq!(
            cut,
            one("events 7 to 9 of chain one are missing at its end")
        );
        let all = told(&Vec::clear);
        assert_eq!(all, one("chain one is missing, all 9 events of it"));
        let damaged = told(&|events| events[6].outcome = DAMAGED.into());
        assert_eq!(
            damaged,
            one("event 7 of chain one is not what was written there")
        );
        assert_eq!(
            breaks(&whole, vec![]),
            one("the end of chain one is missing")
        );
    }

    #[test]
    fn a_chain_that_was_written_anew_is_found_by_who_kept_its_end() {
        let whole = chain(9, 0);
        let mut forged = whole.clone();
        forged[2].actor = "nobody".into();
        for at in 2..9 {
            forged[at].previous_hash = forged[at - 1].hash.clone();
            forged[at].hash = digest(&forged[at]);
        }
        assert_eq!(breaks(&forged, vec![end(&forged[8])]), [""; 0]);
        let kept = vec![end(&forged[8]), end(&whole[4])];
        assert_eq!(
            breaks(&forged, kept),
            [
                "event 5 of chain one is another than the one that was there: the chain was \
                 written anew"
            ]
        );
    }
}
