//! Records become blocks, blocks chunks, and chunks objects, while more are read. It
//! does not know where records come from.

use tokio::task::JoinSet;

use super::{
    CheckpointId, Chunk, ChunkKey, Component, Digested, Held, Owner, Part, Place, Record, chunk,
};
use crate::{
    error::{Error, Result},
    state::objects::Objects,
};

/// Chunks that are on their way at once; one more waits, and whoever reads with it.
const AT_ONCE: usize = 3;

/// What is packed of one owner.
pub(super) struct Parcel {
    /// What the index will tell of it.
    pub(super) held: Held,
    pub(super) key: ChunkKey,
    /// Records that are no block yet, by component.
    loose: Vec<(Component, Vec<u8>)>,
}

impl Parcel {
    pub(super) fn new(tenant_id: &str, owner: Owner, key: ChunkKey, at_ms: u64) -> Self {
        let held = Held {
            tenant_id: tenant_id.to_owned(),
            owner,
            at_ms,
            take: 1,
            counts: Default::default(),
            chunks: Default::default(),
            versions: Default::default(),
            key_check: key.check(),
        };
        Self {
            held,
            key,
            loose: Vec::new(),
        }
    }

    /// Begins it anew: nothing that was packed of it counts.
    pub(super) fn begin_anew(&mut self) {
        self.held.take = self.held.take.wrapping_add(1);
        self.held.counts.clear();
        self.held.chunks.clear();
        self.held.versions.clear();
        self.loose.clear();
    }

    fn loose_bytes(&self) -> usize {
        self.loose.iter().map(|(_, records)| records.len()).sum()
    }
}

/// Packs a checkpoint.
pub(super) struct Packer {
    objects: Objects,
    id: CheckpointId,
    chunk: Option<Chunk>,
    /// What is told of the chunks before it.
    done: Vec<Digested>,
    uploads: JoinSet<Result<()>>,
}

impl Packer {
    pub(super) fn new(objects: Objects, id: CheckpointId) -> Self {
        Self {
            objects,
            id,
            chunk: None,
            done: Vec::new(),
            uploads: JoinSet::new(),
        }
    }

    /// Packs a record.
    pub(super) async fn add(
        &mut self,
        parcel: &mut Parcel,
        component: Component,
        record: &Record,
    ) -> Result<()> {
        let at = match parcel.loose.iter().position(|(of, _)| *of == component) {
            Some(at) => at,
            None => {
                parcel.loose.push((component, Vec::new()));
                parcel.loose.len() - 1
            }
        };
        let Some((_, records)) = parcel.loose.get_mut(at) else {
            return Ok(());
        };
        record
            .encode(records)
            .map_err(|damage| Error::Internal(damage.to_string()))?;
        let counts = parcel.held.counts.entry(component).or_default();
        counts.add(record);
        if records.len() >= chunk::BLOCK_BYTES {
            self.block(parcel, at).await?;
        }
        Ok(())
    }

    /// Makes blocks of all that is loose.
    pub(super) async fn finish(&mut self, parcel: &mut Parcel) -> Result<()> {
        for at in 0..parcel.loose.len() {
            self.block(parcel, at).await?;
        }
        parcel.loose = Vec::new();
        Ok(())
    }

    /// Makes blocks of what is loose where it is more than so many bytes in all.
    pub(super) async fn bound<'a>(
        &mut self,
        parcels: impl Iterator<Item = &'a mut Parcel>,
        bytes: usize,
    ) -> Result<()> {
        let parcels: Vec<_> = parcels.collect();
        let loose: usize = parcels.iter().map(|parcel| parcel.loose_bytes()).sum();
        if loose > bytes {
            for parcel in parcels {
                self.finish(parcel).await?;
            }
        }
        Ok(())
    }

    async fn block(&mut self, parcel: &mut Parcel, at: usize) -> Result<()> {
        let Some((component, records)) = parcel.loose.get_mut(at) else {
            return Ok(());
        };
        if records.is_empty() {
            return Ok(());
        }
        let number = u32::try_from(self.done.len())
            .map_err(|_| Error::Internal("a checkpoint has too many chunks".into()))?;
        let place = || Place {
            checkpoint: self.id.clone(),
            chunk: number,
        };
        let chunk = self.chunk.get_or_insert_with(|| Chunk::begin(place()));
        let (owner, take) = (parcel.held.owner, parcel.held.take);
        chunk.push(owner, *component, take, records, parcel.key.sealing())?;
        // Whoever serves calls waits for this core no longer than for a block.
        std::thread::yield_now();
        let component = *component;
        *records = Vec::new();
        parcel.held.note(component, number);
        if chunk.is_full() {
            self.send().await?;
        }
        Ok(())
    }

    /// Sends the chunk on its way, once there is room.
    async fn send(&mut self) -> Result<()> {
        let Some(chunk) = self.chunk.take() else {
            return Ok(());
        };
        while self.uploads.len() >= AT_ONCE {
            self.arrived().await?;
        }
        let part = Part::Chunk(u32::try_from(self.done.len()).unwrap_or(u32::MAX));
        let (bytes, digested) = chunk.end();
        self.done.push(digested);
        let (objects, id) = (self.objects.clone(), self.id.clone());
        self.uploads
            .spawn(async move { Ok(objects.put(&id, part, bytes).await?) });
        Ok(())
    }

    async fn arrived(&mut self) -> Result<()> {
        match self.uploads.join_next().await {
            None => Ok(()),
            Some(Ok(put)) => put,
            Some(Err(error)) => Err(Error::Internal(format!("a chunk was not sent: {error}"))),
        }
    }

    /// Sends what is left, and waits until all has arrived: what is told of each chunk.
    pub(super) async fn end(mut self) -> Result<Vec<Digested>> {
        self.send().await?;
        while !self.uploads.is_empty() {
            self.arrived().await?;
        }
        Ok(self.done)
    }
}
