//! The manifest of a checkpoint, which makes it one, and its index: what it holds of
//! each tenant, and where. It does not know how either came about.
//!
//! `manifest.json` is one JSON object whose last field, `mac`, is the HMAC-SHA-256 of
//! all before it by the store's key in the checkpoint: whoever has not that key cannot
//! change a count unnoticed. `index` is a line of JSON for each tenant; the manifest has
//! its SHA-256. Fields are added, not changed; a greater format is refused.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de};

use super::{Block, CheckpointId, ChunkKey, Component, Counts, Digested, Owner, Trouble, tail};
use crate::error::Result;

/// The greatest format that is read, and written where there are events in it: who knows
/// only the first takes their records for damage.
pub const FORMAT: u32 = 2;

/// The format written where there are none.
pub const WITHOUT_EVENTS: u32 = 1;

/// Why a checkpoint was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody asked for it.
    Manual,
    /// The schedule.
    Scheduled,
    /// A drain.
    Shutdown,
    /// A restore was about to begin.
    Safety,
}

/// What a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// See [`FORMAT`].
    pub format: u32,
    /// Its id.
    pub checkpoint_id: String,
    /// Why it was taken.
    pub cause: Cause,
    /// When it was begun, by the store's clock, in ms since 1970.
    pub create_ms: u64,
    /// When it was done.
    pub end_ms: u64,
    /// What its maker wrote.
    #[serde(default)]
    pub description: String,
    /// The tenants it was asked for; empty means all.
    #[serde(default)]
    pub tenant_ids: Vec<String>,
    /// What it holds.
    pub components: BTreeSet<Component>,
    /// How much of each.
    pub counts: Counts,
    /// How many tenants it holds.
    pub tenants: u64,
    /// Those it could not take.
    #[serde(default)]
    pub missed: Vec<Missed>,
    /// What it holds of the store itself.
    pub store: Held,
    /// The index.
    pub index: Digested,
    /// The chunks, by number.
    pub chunks: Vec<Digested>,
    /// Bytes of all keys.
    pub keys_bytes: u64,
    /// The version of the service that took it.
    pub version: String,
}

/// A tenant that a checkpoint could not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Which.
    pub tenant_id: String,
    /// Why, in words.
    pub why: String,
}

/// What a checkpoint holds of an owner, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The tenant's id; empty for the store.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant_id: String,
    /// Whose it is.
    pub owner: Owner,
    /// The moment it is as of, by the store's clock, in ms since 1970.
    pub at_ms: u64,
    /// Which attempt at it was whole: blocks of others do not count.
    pub take: u8,
    /// How much of each component.
    pub counts: Counts,
    /// The chunks that have blocks of a component, as runs of numbers: first and last.
    pub chunks: BTreeMap<Component, Vec<(u32, u32)>>,
    /// The last version that the space of a component had given, so that versions go on
    /// growing where it is restored.
    #[serde(default)]
    pub versions: BTreeMap<Component, u64>,
    /// What tells the key of its blocks from any other ([`ChunkKey::check`]).
    pub key_check: String,
}

impl Held {
    /// The chunks that have blocks of these components, each once, in order.
    pub fn chunks_of(&self, components: &BTreeSet<Component>) -> BTreeSet<u32> {
        let runs = self
            .chunks
            .iter()
            .filter(|(component, _)| components.contains(component));
        runs.flat_map(|(_, runs)| runs)
            .flat_map(|(first, last)| *first..=*last)
            .collect()
    }

    /// Whether a block is one of its own; others in its chunks are other owners', or
    /// were left by an attempt that failed.
    pub fn has(&self, block: &Block) -> bool {
        block.owner == self.owner && block.take == self.take
    }

    /// Notes that a chunk, no lower than those before, has a block of a component.
    pub fn note(&mut self, component: Component, chunk: u32) {
        let runs = self.chunks.entry(component).or_default();
        match runs.last_mut() {
            Some((_, last)) if chunk <= last.saturating_add(1) => *last = chunk.max(*last),
            _ => runs.push((chunk, chunk)),
        }
    }
}

/// The field that ends it.
const MAC: &str = "mac";

impl Manifest {
    /// Its bytes, authenticated by the store's key.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::error::Error::Internal), which no manifest meets.
    pub fn encode(&self, key: &ChunkKey) -> Result<Bytes> {
        let bytes = crate::tenant::record::encode(self)?.to_vec();
        Ok(tail::append(bytes, MAC, |told| key.mac(told))?.into())
    }

    /// Bytes of all other objects.
    pub fn parts_bytes(&self) -> u64 {
        let chunks = self.chunks.iter().map(|chunk| chunk.bytes);
        let others = self.index.bytes.saturating_add(self.keys_bytes);
        chunks.fold(others, u64::saturating_add)
    }

    /// Reads the manifest of this checkpoint without asking who wrote it: for lists.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn glance(bytes: &[u8], id: &CheckpointId) -> std::result::Result<Self, Trouble> {
        let format = format_of(bytes)?;
        if format > FORMAT {
            return Err(Trouble::incompatible(format!(
                "it has format {format}, known is {FORMAT}: a later version of this service took it"
            )));
        }
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| Trouble::damage(format!("it cannot be read: {error}")))?;
        if manifest.checkpoint_id != id.as_str() {
            return Err(Trouble::damage(format!(
                "it is the manifest of {}",
                manifest.checkpoint_id
            )));
        }
        Ok(manifest)
    }

    /// Reads the manifest of this checkpoint, and believes none of it that the key does
    /// not vouch for.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn decode(
        bytes: &[u8],
        id: &CheckpointId,
        key: &ChunkKey,
    ) -> std::result::Result<Self, Trouble> {
        let vouched = tail::split(bytes, MAC);
        if !vouched.is_some_and(|(told, mac)| key.is_mac(told, &mac)) {
            return Err(Trouble::damage("its MAC is not right"));
        }
        Self::glance(bytes, id)
    }
}

/// The format that a stored JSON object says it has.
pub(super) fn format_of(bytes: &[u8]) -> std::result::Result<u32, Trouble> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let found: Format = serde_json::from_slice(bytes)
        .map_err(|error| Trouble::damage(format!("it cannot be read: {error}")))?;
    Ok(found.format)
}

/// The bytes of an index.
///
/// # Errors
/// [`Error::Internal`](crate::error::Error::Internal), which no index meets.
pub fn encode_index(held: &[Held]) -> Result<(Bytes, Digested)> {
    let mut bytes = Vec::new();
    for held in held {
        bytes.extend_from_slice(&crate::tenant::record::encode(held)?);
        bytes.push(b'\n');
    }
    let digested = Digested {
        bytes: bytes.len() as u64,
        sha256: super::chunk::sha256(&bytes),
        blocks: 0,
    };
    Ok((bytes.into(), digested))
}

/// Reads the index that a manifest tells of.
///
/// # Errors
/// [`Trouble`].
pub fn decode_index(bytes: &[u8], told: &Digested) -> std::result::Result<Vec<Held>, Trouble> {
    if bytes.len() as u64 != told.bytes || super::chunk::sha256(bytes) != told.sha256 {
        return Err(Trouble::damage(
            "its SHA-256 is another than the manifest's",
        ));
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            serde_json::from_slice(line)
                .map_err(|error| Trouble::damage(format!("it cannot be read: {error}")))
        })
        .collect()
}

impl Serialize for Owner {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let tenant = || crate::store::Incarnation::parse(&text).map(Self::Tenant);
        let owner = (text == "store").then_some(Self::Store).or_else(tenant);
        owner.ok_or_else(|| de::Error::custom("neither store nor an incarnation"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::store::Incarnation;

    pub(in crate::state::checkpoint) fn held(owner: Owner) -> Held {
        Held {
            tenant_id: "acme".into(),
            owner,
            at_ms: 5,
            take: 1,
            counts: Counts::default(),
            chunks: BTreeMap::new(),
            versions: BTreeMap::from([(Component::Cache, u64::MAX)]),
            key_check: ChunkKey::draw().check(),
        }
    }

    pub(in crate::state::checkpoint) fn manifest(id: &CheckpointId) -> Manifest {
        Manifest {
            format: FORMAT,
            checkpoint_id: id.to_string(),
            cause: Cause::Manual,
            create_ms: 1,
            end_ms: 2,
            description: "before \"the\" move\n".into(),
            tenant_ids: vec!["acme".into()],
            components: BTreeSet::from([Component::Cache]),
            counts: Counts::default(),
            tenants: 1,
            missed: Vec::new(),
            store: held(Owner::Store),
            index: Digested {
                bytes: 0,
                sha256: String::new(),
                blocks: 0,
            },
            chunks: Vec::new(),
            keys_bytes: 0,
            version: "1".into(),
        }
    }

    #[test]
    fn a_manifest_comes_back_and_no_byte_of_it_can_be_another() {
        let (id, key) = (CheckpointId::new(1), ChunkKey::draw());
        let made = manifest(&id);
        let bytes = made.encode(&key).unwrap();
        assert_eq!(Manifest::decode(&bytes, &id, &key).unwrap(), made);
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            if let Some(byte) = flipped.get_mut(at) {
                *byte ^= 2;
            }
            Manifest::decode(&flipped, &id, &key).unwrap_err();
            Manifest::decode(bytes.get(..at).unwrap(), &id, &key).unwrap_err();
        }
        Manifest::decode(&bytes, &id, &ChunkKey::draw()).unwrap_err();
        Manifest::decode(&bytes, &CheckpointId::new(1), &key).unwrap_err();
    }

    #[test]
    fn a_later_format_is_no_damage() {
        let (id, key) = (CheckpointId::new(1), ChunkKey::draw());
        let later = Manifest {
            format: FORMAT + 1,
            ..manifest(&id)
        };
        let bytes = later.encode(&key).unwrap();
        let told = Manifest::decode(&bytes, &id, &key).unwrap_err();
        assert!(matches!(told, Trouble::Incompatible(_)), "{told:?}");
    }

    #[test]
    fn an_index_comes_back_and_tells_its_chunks() {
        let mut one = held(Owner::Tenant(Incarnation::random()));
        for chunk in [3, 3, 4, 5, 9] {
            one.note(Component::Cache, chunk);
        }
        one.note(Component::Tenants, 2);
        let all = vec![one, held(Owner::Tenant(Incarnation::random()))];
        let (bytes, digested) = encode_index(&all).unwrap();
        assert_eq!(decode_index(&bytes, &digested).unwrap(), all);
        let chunks = |components: &[Component]| {
            let components = components.iter().copied().collect();
            all.first().unwrap().chunks_of(&components)
        };
        assert_eq!(chunks(&[Component::Cache]), BTreeSet::from([3, 4, 5, 9]));
        assert_eq!(chunks(&Component::ALL), BTreeSet::from([2, 3, 4, 5, 9]));
        decode_index(bytes.get(1..).unwrap(), &digested).unwrap_err();
    }
}
