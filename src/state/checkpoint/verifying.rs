//! Whether a checkpoint is whole and undamaged: every part is read, opened and counted.
//! It does not know what would be restored.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};

use super::{
    Checkpoint, CheckpointId, Checkpoints, ChunkKey, Component, Count, Counts, Held, Owner, Part,
    Reader, Trouble, component,
};
use crate::error::{Error, Result};

/// Chunks that are read at once.
const READ_AT_ONCE: usize = 3;

/// What verifying a checkpoint found.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The first part that is damaged, and what is wrong with it.
    pub damaged: Option<(String, String)>,
    /// Tenants whose records nobody can read any more.
    pub purged: Vec<String>,
}

impl Checkpoints {
    /// Reads, opens and counts every part of a checkpoint.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::CheckpointIncompatible`]; those of the object store.
    pub async fn verify(&self, id: CheckpointId) -> Result<Verified> {
        let this = self.clone();
        self.away(async move {
            let found = this.find(&id).await?;
            let checkpoint = found.ok_or_else(|| Error::no_checkpoint(id.as_str()))?;
            let (damaged, purged) = match this.read_all(&id).await {
                Ok(purged) => (None, purged),
                Err(Error::CheckpointCorrupt { part, problem, .. }) => {
                    (Some((part, problem)), Vec::new())
                }
                Err(error) => return Err(error),
            };
            Ok(Verified {
                checkpoint,
                damaged,
                purged,
            })
        })
        .await
    }

    /// The tenants that were purged; an error of the first damage.
    async fn read_all(&self, id: &CheckpointId) -> Result<Vec<String>> {
        let reader = self.open(id).await?;
        let index = reader.index().await?;
        let mut owners = BTreeMap::new();
        let mut purged = Vec::new();
        let masters = self.vault.tenants.masters();
        let store = &reader.manifest().store;
        for held in index.iter().chain([store]) {
            let key = reader.key(masters, held).await?;
            if key.is_none() {
                purged.push(held.tenant_id.clone());
            }
            let found = Counts::new();
            if owners.insert(held.owner, (held, key, found)).is_some() {
                let twice = Trouble::damage(format!("{} is in it twice", held.owner));
                return Err(twice.of(id, Part::Index));
            }
        }
        self.read_chunks(&reader, &mut owners).await?;
        let mut sum = Counts::new();
        for (held, key, found) in owners.values() {
            component::merge(&mut sum, &held.counts);
            if key.is_some() && counted(found) != counted(&held.counts) {
                let whose = match held.owner {
                    Owner::Store => "the store",
                    Owner::Tenant(_) => &held.tenant_id,
                };
                let other = Trouble::damage(format!("the records of {whose} are not as many"));
                return Err(other.of(id, Part::Index));
            }
        }
        if counted(&sum) != counted(&reader.manifest().counts) {
            let other = Trouble::damage("its counts are not those of the index");
            return Err(other.of(id, Part::Manifest));
        }
        Ok(purged)
    }

    async fn read_chunks(
        &self,
        reader: &Reader,
        owners: &mut BTreeMap<Owner, (&Held, Option<ChunkKey>, Counts)>,
    ) -> Result<()> {
        let chunks = u32::try_from(reader.manifest().chunks.len()).unwrap_or(u32::MAX);
        let mut read = stream::iter(0..chunks)
            .map(|number| async move { (number, reader.chunk(number).await) })
            .buffered(READ_AT_ONCE);
        while let Some((number, blocks)) = read.next().await {
            for block in blocks? {
                let Some((held, Some(key), found)) = owners.get_mut(&block.owner) else {
                    continue;
                };
                if !held.has(&block) {
                    continue;
                }
                let opened = block.open(key.sealing());
                let count = opened.and_then(super::Records::count);
                let count = count.map_err(|damage| {
                    Trouble::Damaged(damage).of(reader.id(), Part::Chunk(number))
                })?;
                found.entry(block.component).or_default().merge(count);
            }
            // Opening is work: whoever else has some here may go first.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// Counts without those of nothing.
fn counted(counts: &Counts) -> BTreeMap<Component, Count> {
    let some = counts.iter().filter(|(_, count)| count.records > 0);
    some.map(|(component, count)| (*component, *count))
        .collect()
}
