//! An event as it is stored, what its hash is made of, and where it lies. It does not
//! know which events there are.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    store::{Key, Table},
    tenant::record,
};

/// The outcome of an event that stands for events that could not be kept: its count
/// tells how many.
pub const LOST: &str = "EVENTS_LOST";

/// The outcome that is shown where the store holds something else than the event that
/// was written there.
pub const DAMAGED: &str = "EVENT_DAMAGED";

/// What is told of calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// When the call ended, the last one where there are more, by the store's clock, in
    /// ms since 1970.
    pub time_ms: u64,
    /// See [`Event`](super::Event).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// The RPC.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rpc: String,
    /// The tenant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tenant_id: String,
    /// How they ended.
    pub outcome: String,
    /// The id of the call, the last one where there are more.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// Where it came from; empty where that is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// How many calls.
    pub count: u64,
}

/// An event in its chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// See [`record::FORMAT`].
    pub format: u32,
    /// The chain: one of the replica that wrote it.
    pub replica: String,
    /// Its place in the chain, from 1.
    pub sequence: u64,
    /// Until when it is kept.
    pub expire_ms: u64,
    /// Until when the one before it is; 0 for the first.
    pub previous_expire_ms: u64,
    /// The hash of the one before it, in hex; empty for the first.
    pub previous_hash: String,
    /// The hash of all the rest, in hex; see [`Entry::digest`].
    pub hash: String,
    /// What it tells.
    #[serde(flatten)]
    pub facts: Facts,
}

impl Entry {
    /// SHA-256, in hex, of all but the hash itself: each field as a netstring
    /// (`<bytes>:<field>,`), numbers in decimal, in the order that the proto tells.
    pub fn digest(&self) -> String {
        let Facts {
            time_ms,
            actor,
            rpc,
            tenant_id,
            outcome,
            request_id,
            peer,
            count,
        } = &self.facts;
        let mut digest = Sha256::new();
        for field in [
            &*self.replica,
            &self.sequence.to_string(),
            &time_ms.to_string(),
            actor,
            rpc,
            tenant_id,
            outcome,
            request_id,
            peer,
            &count.to_string(),
            &self.expire_ms.to_string(),
            &self.previous_expire_ms.to_string(),
            &self.previous_hash,
        ] {
            digest.update(field.len().to_string());
            digest.update(":");
            digest.update(field);
            digest.update(",");
        }
        HEXLOWER.encode(&digest.finalize())
    }

    /// What is listed by: its time, its chain, its place there.
    pub(super) fn place(&self) -> String {
        format!(
            "{}:{}:{:012}",
            moment(self.facts.time_ms),
            self.replica,
            self.sequence
        )
    }

    /// Reads what lies at a place. What is not the event that was written there is
    /// shown as such, so that one that was changed hides no other.
    pub(super) fn read(place: &str, value: &[u8]) -> Self {
        match record::decode::<Self>(value) {
            Ok(entry) if entry.place() == place => entry,
            _ => Self::damaged(place),
        }
    }

    fn damaged(place: &str) -> Self {
        let mut parts = place.splitn(3, ':');
        let mut next = || parts.next().unwrap_or_default();
        let (time, replica, sequence) = (next(), next(), next());
        Self {
            replica: replica.to_owned(),
            sequence: sequence.parse().unwrap_or_default(),
            facts: Facts {
                time_ms: time.parse().unwrap_or_default(),
                outcome: DAMAGED.to_owned(),
                count: 1,
                ..Facts::default()
            },
            ..Self::default()
        }
    }
}

/// Where a chain ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// See [`record::FORMAT`].
    pub format: u32,
    /// The chain.
    pub replica: String,
    /// The place of its last event.
    pub sequence: u64,
    /// The hash of that event.
    pub hash: String,
    /// When it was written.
    pub time_ms: u64,
    /// Until when it is kept.
    pub expire_ms: u64,
}

/// A time as it stands in paths: in the order of times, until the year 5138.
pub(super) fn moment(time_ms: u64) -> String {
    let mut text = String::with_capacity(14);
    // A string takes whatever is written to it.
    let _ = write!(text, "{:014}", time_ms.min(99_999_999_999_999));
    text
}

/// What the paths of all events begin with.
pub(super) const EVENTS: &str = "e:";

/// What the paths of chains' ends begin with.
pub(super) const HEADS: &str = "h:";

/// What the paths begin with that lead to the events of a tenant.
pub(super) fn of_tenant(tenant_id: &str) -> String {
    format!("t:{tenant_id}:")
}

/// Where something of the log lies.
pub(super) fn key(beginning: &str, rest: &str) -> Key {
    Key::new(Table::Audit, format!("{beginning}{rest}").into_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let mut entry = Entry {
            format: 1,
            replica: "r".repeat(16),
            sequence: 7,
            expire_ms: 20,
            previous_expire_ms: 10,
            previous_hash: "ab".into(),
            facts: Facts {
                time_ms: 5,
                actor: "admin".into(),
                rpc: "CreateTenant".into(),
                tenant_id: "acme".into(),
                outcome: "OK".into(),
                request_id: "id".into(),
                peer: "127.0.0.1".into(),
                count: 1,
            },
            ..Entry::default()
        };
        entry.hash = entry.digest();
        entry
    }

    #[test]
    fn the_hash_never_changes_its_meaning() {
        // Who verifies stored chains in another language relies on it.
        assert_eq!(
            entry().digest(),
            "c3aa8836baf73ab0639053e4ce521f62db860244937592893e2dceec9f9ed02f"
        );
        let mut moved = entry();
        (moved.facts.actor, moved.facts.rpc) = ("adminC".into(), "reateTenant".into());
        assert_ne!(moved.digest(), entry().digest());
    }

    #[test]
    fn an_event_reads_back_and_in_its_place_alone() {
        let entry = entry();
        let stored = record::encode(&entry).unwrap();
        assert_eq!(Entry::read(&entry.place(), &stored), entry);
        let elsewhere = entry.place().replace("07", "08");
        for (place, value) in [
            (&elsewhere, &stored[..]),
            (&elsewhere, b"{"),
            (&entry.place(), b"{\"format\":9}"),
        ] {
            let read = Entry::read(place, value);
            assert_eq!(read.facts.outcome, DAMAGED);
            assert_eq!(read.place(), *place);
        }
        assert_eq!(Entry::read("x", b"").facts.outcome, DAMAGED);
    }
}
