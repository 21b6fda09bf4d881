//! The checkpoints there are: found by their manifests, listed, opened and removed. It
//! does not know how they came about.

use futures::{StreamExt, TryStreamExt, stream};

use super::{CheckpointId, Checkpoints, Manifest, Part, Reader, Trouble, chunk, turn::Work};
use crate::{
    error::{Error, Result},
    state::restore::restoring,
    tenant::page,
};

/// Manifests read at once.
const READ_AT_ONCE: usize = 8;

/// A checkpoint, as far as it can be told without its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// What it is; `None` where it is not whole, or its manifest cannot be read.
    pub manifest: Option<Manifest>,
    /// Whether it has a manifest.
    pub complete: bool,
    /// Bytes of its objects.
    pub size_bytes: u64,
    /// The SHA-256 of its manifest, in hex; empty where it has none.
    pub sha256: String,
    /// Why its manifest cannot be read; empty where it can.
    pub problem: String,
}

/// A page of checkpoints.
#[derive(Debug)]
pub struct Listed {
    /// The newest first.
    pub checkpoints: Vec<Checkpoint>,
    /// Where the next page begins; empty at the end.
    pub next_page_token: String,
}

impl Checkpoints {
    /// A checkpoint, by what its manifest says of itself; `None` where nothing of it is
    /// there.
    pub(super) async fn find(&self, id: &CheckpointId) -> Result<Option<Checkpoint>> {
        let objects = &self.vault.objects;
        let mut checkpoint = Checkpoint {
            id: id.clone(),
            manifest: None,
            complete: false,
            size_bytes: 0,
            sha256: String::new(),
            problem: String::new(),
        };
        let Some(bytes) = objects.get(id, Part::Manifest).await? else {
            let parts = objects.list(id).await?;
            checkpoint.size_bytes = parts.iter().map(|object| object.bytes).sum();
            return Ok((!parts.is_empty()).then_some(checkpoint));
        };
        checkpoint.complete = true;
        checkpoint.sha256 = chunk::sha256(&bytes);
        match Manifest::glance(&bytes, id) {
            Ok(manifest) => {
                checkpoint.size_bytes = bytes.len() as u64 + manifest.parts_bytes();
                checkpoint.manifest = Some(manifest);
            }
            Err(Trouble::Damaged(damage)) => checkpoint.problem = damage.to_string(),
            Err(Trouble::Incompatible(why)) => checkpoint.problem = why,
        }
        Ok(Some(checkpoint))
    }

    /// A page of checkpoints, the newest first.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`]; those of both stores.
    pub async fn list(&self, size: usize, page_token: &str) -> Result<Listed> {
        let (this, page_token) = (self.clone(), page_token.to_owned());
        self.away(async move { this.page(size, &page_token).await })
            .await
    }

    async fn page(&self, size: usize, page_token: &str) -> Result<Listed> {
        let tenants = &self.vault.tenants;
        let listing = page::Listing {
            name: "ListCheckpoints",
            filter: &[],
        };
        let after = tenants.open_page(&listing, page_token).await?;
        let mut ids = self.vault.objects.checkpoints().await?;
        if let Some(after) = &after {
            ids.retain(|id| id.as_str().as_bytes() < after.0.as_ref());
        }
        let more = ids.len() > size;
        ids.truncate(size);
        let asked: Vec<_> = ids.iter().map(|id| self.find(id)).collect();
        let found: Vec<Option<Checkpoint>> = stream::iter(asked)
            .buffered(READ_AT_ONCE)
            .try_collect()
            .await?;
        let next_page_token = match ids.last().filter(|_| more) {
            Some(last) => {
                let cursor = crate::store::Cursor(last.to_string().into());
                tenants.seal_page(&listing, &cursor).await?
            }
            None => String::new(),
        };
        Ok(Listed {
            // One that was removed meanwhile is not listed.
            checkpoints: found.into_iter().flatten().collect(),
            next_page_token,
        })
    }

    /// A checkpoint, whole or not. Its manifest is authenticated.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::CheckpointIncompatible`],
    /// [`Error::CheckpointCorrupt`] where the manifest is damaged; those of the object
    /// store.
    pub async fn get(&self, id: CheckpointId) -> Result<Checkpoint> {
        let this = self.clone();
        self.away(async move {
            let found = this.find(&id).await?;
            let found = found.ok_or_else(|| Error::no_checkpoint(id.as_str()))?;
            if found.complete {
                this.open(&id).await?;
            }
            Ok(found)
        })
        .await
    }

    /// Opens a checkpoint.
    ///
    /// # Errors
    /// Those of [`Reader::open`].
    pub async fn open(&self, id: &CheckpointId) -> Result<Reader> {
        let vault = &self.vault;
        Reader::open(&vault.objects, vault.tenants.masters(), id).await
    }

    /// Removes a checkpoint; what it was, or `None` where there was none.
    ///
    /// # Errors
    /// [`Error::RequestInProgress`] while it is being taken, restored or
    /// wrapped anew; those of both stores.
    pub async fn delete(&self, id: CheckpointId) -> Result<Option<Checkpoint>> {
        let this = self.clone();
        self.away(async move {
            for work in [Work::Taking, Work::Rewrapping] {
                if this.is_in_turn(work, &id).await? {
                    return Err(Error::RequestInProgress);
                }
            }
            let restored = restoring(&this.vault.store).await?;
            if restored.is_some_and(|restored| restored == id.as_str()) {
                return Err(Error::RequestInProgress);
            }
            let found = this.find(&id).await?;
            if found.is_some() {
                this.vault.objects.remove_all(&id).await?;
            }
            Ok(found)
        })
        .await
    }
}
