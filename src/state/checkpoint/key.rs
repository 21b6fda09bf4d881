//! The keys of a checkpoint: one for each owner, drawn at random, kept in an object of
//! its own. Where that object is gone, what the key sealed is gone. It does not know
//! when a key goes.
//!
//! A key object is JSON. Where master keys are configured the first of them wraps the
//! key, bound to the checkpoint and the owner; where none is, the key is in the clear,
//! and whoever can read the object store can read the checkpoint.

use std::fmt;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{CheckpointId, Owner, Trouble, tail};
use crate::{
    codec::seal::{KEY_BYTES, Key},
    error::Result,
    tenant::{
        Encryption,
        data_key::{Masters, NotUnwrapped, Wrapped},
    },
};

const FORMAT: u32 = 1;

/// The key of an owner in a checkpoint. It does not print, and is wiped when it is
/// dropped.
pub struct ChunkKey {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    sealing: Key,
    /// The data keys in the record of its tenant, as they are wrapped since the keys of
    /// the checkpoint were wrapped anew; `None` where the record tells.
    pub data_keys: Option<Encryption>,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    checkpoint_id: String,
    owner: String,
    /// The key, wrapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wrapped: Option<Wrapped>,
    /// The key, in base64, where nothing wraps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clear: Option<String>,
    /// See [`ChunkKey::data_keys`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_keys: Option<Encryption>,
}

/// The field that ends it: the SHA-256 of all before, which tells a key that was damaged
/// from one of another master key.
const SHA: &str = "sha256";

impl ChunkKey {
    /// A new one.
    pub fn draw() -> Self {
        Self::of(Zeroizing::new(crate::random::bytes()))
    }

    fn of(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let sealing = Key::new(&bytes);
        Self {
            bytes,
            sealing,
            data_keys: None,
        }
    }

    /// What seals and opens blocks.
    pub fn sealing(&self) -> &Key {
        &self.sealing
    }

    /// What tells this key from any other, in hex, and nothing else of it.
    pub fn check(&self) -> String {
        let mac = self.mac(b"check");
        HEXLOWER.encode(mac.get(..16).unwrap_or(&mac))
    }

    /// A MAC over bytes by this key.
    pub(super) fn mac(&self, bytes: &[u8]) -> [u8; 32] {
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.bytes.as_slice())
            .expect("HMAC takes a key of any length");
        // Apart from what the key does to blocks.
        mac.update(b"checkpoint mac ");
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }

    /// Whether a MAC is that of these bytes; in constant time.
    pub(super) fn is_mac(&self, bytes: &[u8], mac: &[u8]) -> bool {
        self.mac(bytes).as_slice().ct_eq(mac).into()
    }

    /// Its object in a checkpoint.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::error::Error::Internal), which no key meets.
    pub fn encode(&self, masters: &Masters, id: &CheckpointId, owner: Owner) -> Result<Bytes> {
        let wrapped = masters.wrap_for(&purpose(id, owner), &self.bytes)?;
        let clear = wrapped
            .is_none()
            .then(|| BASE64.encode(self.bytes.as_slice()));
        let stored = Stored {
            format: FORMAT,
            checkpoint_id: id.to_string(),
            owner: owner.to_string(),
            wrapped,
            clear,
            data_keys: self.data_keys.clone(),
        };
        let bytes = crate::tenant::record::encode(&stored)?.to_vec();
        Ok(tail::append(bytes, SHA, sha256)?.into())
    }

    /// The key in an object that was found as this owner's in this checkpoint.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn decode(
        bytes: &[u8],
        masters: &Masters,
        id: &CheckpointId,
        owner: Owner,
    ) -> std::result::Result<Self, Trouble> {
        let stored = Stored::read(bytes, id, owner)?;
        let bytes = match (&stored.wrapped, &stored.clear) {
            (Some(wrapped), _) => masters
                .unwrap_for(&purpose(id, owner), wrapped)
                .map_err(|why: NotUnwrapped| Trouble::incompatible(why.to_string()))?,
            (None, Some(clear)) => BASE64
                .decode(clear.as_bytes())
                .ok()
                .map(Zeroizing::new)
                .and_then(|key| key.as_slice().try_into().ok().map(Zeroizing::new))
                .ok_or_else(|| Trouble::damage("it holds no key"))?,
            (None, None) => return Err(Trouble::damage("it holds no key")),
        };
        Ok(Self {
            data_keys: stored.data_keys,
            ..Self::of(bytes)
        })
    }

    /// The master key that wraps the key in an object, by its id; `None` where it is in
    /// the clear.
    ///
    /// # Errors
    /// [`Trouble`]; not where that master key is unknown.
    pub fn wrapped_by(
        bytes: &[u8],
        id: &CheckpointId,
        owner: Owner,
    ) -> std::result::Result<Option<String>, Trouble> {
        let stored = Stored::read(bytes, id, owner)?;
        Ok(stored.wrapped.map(|wrapped| wrapped.master_key))
    }
}

impl Stored {
    /// Reads an object that was found as this owner's in this checkpoint.
    fn read(bytes: &[u8], id: &CheckpointId, owner: Owner) -> std::result::Result<Self, Trouble> {
        let vouched = tail::split(bytes, SHA);
        if vouched.is_none_or(|(told, sha)| sha256(told) != *sha) {
            return Err(Trouble::damage("its SHA-256 is not right"));
        }
        let format = super::manifest::format_of(bytes)?;
        if format > FORMAT {
            return Err(Trouble::incompatible(format!(
                "its keys have format {format}, known is {FORMAT}"
            )));
        }
        let stored: Self = serde_json::from_slice(bytes)
            .map_err(|error| Trouble::damage(format!("it cannot be read: {error}")))?;
        if stored.checkpoint_id != id.as_str() || stored.owner != owner.to_string() {
            return Err(Trouble::damage(format!(
                "it is the key of {} in {}",
                stored.owner, stored.checkpoint_id
            )));
        }
        Ok(stored)
    }
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkKey(..)")
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn purpose(id: &CheckpointId, owner: Owner) -> Vec<u8> {
    format!("checkpoint key {id} {owner}").into_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{config, store::Incarnation};

    fn masters(byte: u8) -> Masters {
        Masters::new(&[config::MasterKey {
            id: "m".into(),
            key: Zeroizing::new([byte; KEY_BYTES]),
        }])
    }

    #[test]
    fn a_key_comes_back_in_its_place_alone() {
        let (one, other) = (CheckpointId::new(1), CheckpointId::new(1));
        let life = Owner::Tenant(Incarnation::random());
        for by in [Masters::default(), masters(1)] {
            let key = ChunkKey::draw();
            let stored = key.encode(&by, &one, life).unwrap();
            let back = ChunkKey::decode(&stored, &by, &one, life).unwrap();
            assert_eq!(back.check(), key.check());
            assert_ne!(back.check(), ChunkKey::draw().check());
            for (id, owner) in [(&other, life), (&one, Owner::Store)] {
                let told = ChunkKey::decode(&stored, &by, id, owner).unwrap_err();
                assert!(matches!(told, Trouble::Damaged(_)), "{told:?}");
            }
            for at in 0..stored.len() {
                let mut bytes = stored.to_vec();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1;
                }
                let told = ChunkKey::decode(&bytes, &by, &one, life).unwrap_err();
                assert!(matches!(told, Trouble::Damaged(_)), "byte {at}: {told:?}");
                let _ = ChunkKey::decode(bytes.get(..at).unwrap(), &by, &one, life).unwrap_err();
            }
        }
    }

    #[test]
    fn another_master_key_is_told_apart_from_damage() {
        let id = CheckpointId::new(1);
        let key = ChunkKey::draw();
        let stored = key.encode(&masters(1), &id, Owner::Store).unwrap();
        assert!(!String::from_utf8_lossy(&stored).contains("clear"));
        for by in [masters(2), Masters::default()] {
            let told = ChunkKey::decode(&stored, &by, &id, Owner::Store).unwrap_err();
            assert!(matches!(told, Trouble::Incompatible(_)), "{told:?}");
        }
    }
}
