//! A checkpoint that is read: nothing of it is believed before its manifest's MAC and
//! the SHA-256 of each part are right. It does not know what is done with what it holds.

use std::{collections::HashSet, fmt};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::{
    Block, CheckpointId, ChunkKey, Held, Manifest, Owner, Part, Place, Trouble, chunk, manifest,
};
use crate::{
    error::{Error, Result},
    state::objects::Objects,
    store::Incarnation,
    tenant::data_key::Masters,
};

/// A checkpoint whose manifest is known to be as it was written.
pub struct Reader {
    objects: Objects,
    id: CheckpointId,
    manifest: Manifest,
    /// The SHA-256 of the manifest, in hex.
    sha256: String,
    /// Bytes of the manifest.
    bytes: u64,
    key: ChunkKey,
    /// The tenants that were purged, as known when the first key was asked for.
    purged: OnceCell<HashSet<Incarnation>>,
}

impl Reader {
    /// Opens a checkpoint by its manifest.
    ///
    /// # Errors
    /// [`Error::NotFound`] where no part of it is there; [`Error::CheckpointCorrupt`],
    /// also for one that has no manifest; [`Error::CheckpointIncompatible`]; those of the
    /// object store.
    pub async fn open(objects: &Objects, masters: &Masters, id: &CheckpointId) -> Result<Self> {
        let Some(bytes) = objects.get(id, Part::Manifest).await? else {
            if objects.list(id).await?.is_empty() {
                return Err(Error::no_checkpoint(id.as_str()));
            }
            let missing = Trouble::damage("it is missing: the checkpoint was never finished");
            return Err(missing.of(id, Part::Manifest));
        };
        let part = Part::Key(Owner::Store);
        let key = objects.get(id, part).await?;
        let key = key.ok_or_else(|| Trouble::damage("it is missing").of(id, part))?;
        let key = ChunkKey::decode(&key, masters, id, Owner::Store)
            .map_err(|trouble| trouble.of(id, part))?;
        let manifest =
            Manifest::decode(&bytes, id, &key).map_err(|trouble| trouble.of(id, Part::Manifest))?;
        if manifest.store.key_check != key.check() {
            return Err(Trouble::damage("it is another key than the manifest's").of(id, part));
        }
        Ok(Self {
            objects: objects.clone(),
            id: id.clone(),
            manifest,
            sha256: chunk::sha256(&bytes),
            bytes: bytes.len() as u64,
            key,
            purged: OnceCell::new(),
        })
    }

    /// Its id.
    pub fn id(&self) -> &CheckpointId {
        &self.id
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The SHA-256 of its manifest, in hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Bytes of its objects.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.manifest.parts_bytes()
    }

    /// What it holds of each tenant, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::CheckpointCorrupt`]; those of the object store.
    pub async fn index(&self) -> Result<Vec<Held>> {
        let bytes = self.get(Part::Index).await?;
        manifest::decode_index(&bytes, &self.manifest.index)
            .map_err(|trouble| trouble.of(&self.id, Part::Index))
    }

    /// The key of what it holds of an owner; `None` where the tenant was purged: then it
    /// is gone, and one that was brought back from elsewhere is not looked at.
    ///
    /// # Errors
    /// [`Error::CheckpointCorrupt`], [`Error::CheckpointIncompatible`]; those of the
    /// object store.
    pub async fn key(&self, masters: &Masters, held: &Held) -> Result<Option<ChunkKey>> {
        let part = Part::Key(held.owner);
        let told = |trouble: Trouble| trouble.of(&self.id, part);
        let Some(bytes) = self.objects.get(&self.id, part).await? else {
            return match held.owner {
                Owner::Store => Err(told(Trouble::damage("it is missing"))),
                Owner::Tenant(_) => Ok(None),
            };
        };
        if let Owner::Tenant(life) = held.owner
            && self.purged().await?.contains(&life)
        {
            return Ok(None);
        }
        let key = ChunkKey::decode(&bytes, masters, &self.id, held.owner).map_err(told)?;
        if key.check() == held.key_check {
            Ok(Some(key))
        } else {
            Err(told(Trouble::damage("it is another key than the index's")))
        }
    }

    async fn purged(&self) -> Result<&HashSet<Incarnation>> {
        let asked = self.purged.get_or_try_init(|| self.objects.purged());
        Ok(asked.await?)
    }

    /// The store's own key, which opens what it holds of the store itself.
    pub fn store_key(&self) -> &ChunkKey {
        &self.key
    }

    /// The blocks of a chunk, still sealed, if it is as it was written.
    ///
    /// # Errors
    /// [`Error::CheckpointCorrupt`]; those of the object store.
    pub async fn chunk(&self, number: u32) -> Result<Vec<Block>> {
        let part = Part::Chunk(number);
        let told = usize::try_from(number).ok();
        let told = told.and_then(|number| self.manifest.chunks.get(number));
        let told = told.ok_or_else(|| {
            Trouble::damage("the index names it, and the manifest does not").of(&self.id, part)
        })?;
        let bytes = self.get(part).await?;
        let place = Place {
            checkpoint: self.id.clone(),
            chunk: number,
        };
        chunk::blocks(&place, &bytes, told)
            .map_err(|damage| Trouble::Damaged(damage).of(&self.id, part))
    }

    async fn get(&self, part: Part) -> Result<Bytes> {
        let found = self.objects.get(&self.id, part).await?;
        found.ok_or_else(|| Trouble::damage("it is missing").of(&self.id, part))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.id).finish()
    }
}
