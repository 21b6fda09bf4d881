//! A new space filled with what a checkpoint holds of an old one, by ordinary commits,
//! and counted. It does not know when anybody looks into it.

use std::{collections::BTreeSet, pin::pin};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::{Listener, Progress, Restores, contents::Contents, job};
use crate::{
    error::{Error, Result},
    state::checkpoint::{ChunkKey, Component, Count, Held, Kind, Part, Record, Trouble},
    store::{
        Batch, Commit, Expiry, Handle, Key, Mode, Outcome, Refusal, Space, Table, Write, charge,
    },
};

/// Records and bytes of one commit: a script of some hundred microseconds.
const WRITES: usize = 64;
const WRITE_BYTES: usize = 256 << 10;

/// Commits on their way at once.
const AT_ONCE: usize = 8;

/// Chunks that are read before they are needed.
const AHEAD: usize = 2;

/// What came into a space.
#[derive(Clone, Copy, Debug, Default)]
struct Filled {
    /// Records of the checkpoint.
    read: Count,
    /// Those that were put.
    put: Count,
    /// Those that were put and were not there before, and what they count.
    new: u64,
    charged: u64,
}

/// A space to be filled.
pub(super) struct Filling<'a> {
    pub(super) contents: &'a Contents<'a>,
    pub(super) of: &'a Held,
    pub(super) component: Component,
    pub(super) key: &'a ChunkKey,
    pub(super) space: Space,
}

impl Restores {
    /// Fills a space; what was put. Renews the claim on the job as it goes.
    ///
    /// # Errors
    /// [`Error::CheckpointCorrupt`] where more or less was found than the index counts,
    /// [`Error::StoreFull`], and the stores'.
    pub(super) async fn fill(
        &self,
        filling: &Filling<'_>,
        held: &mut job::Held,
        (listener, progress): (&Listener, &mut Progress),
    ) -> Result<Count> {
        let Filling {
            contents,
            of,
            component,
            key,
            space,
        } = filling;
        let table = match component {
            Component::Sessions => Table::Session,
            _ => Table::Entry,
        };
        let store = self.store();
        let numbers = of.chunks_of(&BTreeSet::from([*component]));
        let chunks = stream::iter(numbers)
            .map(|number| contents.records(number, (of, *component), key))
            .buffered(AHEAD);
        let mut filled = Filled::default();
        let mut chunks = pin!(chunks);
        // A store that is slow, or an object store, must not cost the claim on the job.
        while let Some(records) = held.during(chunks.next().map(Ok)).await? {
            let mut counted = Count::default();
            let batches = batches(records?, table, store.now_ms(), &mut counted);
            filled.read.merge(counted);
            let commits = stream::iter(batches)
                .map(|batch| put(store, space, batch))
                .buffer_unordered(AT_ONCE)
                .try_collect::<Vec<_>>();
            for done in held.during(commits).await? {
                filled.put.merge(done.put);
                filled.new += done.new;
                filled.charged += done.charged;
            }
            progress.records_done += counted.records;
            progress.bytes_done += counted.bytes;
            listener.progress(progress);
            held.keep().await?;
        }
        self.verify(filling, &filled).await?;
        Ok(filled.put)
    }

    /// Whether all that the index counts was found, and the space counts all that was
    /// put and has not ended since.
    async fn verify(&self, filling: &Filling<'_>, filled: &Filled) -> Result<()> {
        let told = filling.of.counts.get(&filling.component).copied();
        let told = told.unwrap_or_default();
        if told != filled.read {
            let Count { records, bytes } = filled.read;
            let damage = format!(
                "its chunks hold {records} records and {bytes} bytes of {}, not {} and {}",
                filling.component.name(),
                told.records,
                told.bytes
            );
            let trouble = Trouble::Damaged(crate::state::checkpoint::Damage::new(damage));
            return Err(trouble.of(filling.contents.reader.id(), Part::Index));
        }
        let usage = self.store().usage(&filling.space).await?;
        let whole = usage.entries + usage.expired == filled.new
            && (usage.expired > 0 || usage.bytes == filled.charged);
        if whole || !usage.exact {
            return Ok(());
        }
        Err(Error::Internal(format!(
            "a restored space counts {} records and {} that ended, not {}",
            usage.entries, usage.expired, filled.new
        )))
    }
}

/// What is put at once, of records that are not over.
fn batches(
    records: Vec<Record>,
    table: Table,
    now_ms: u64,
    counted: &mut Count,
) -> Vec<Vec<(Write, u64)>> {
    let mut batches: Vec<Vec<(Write, u64)>> = Vec::new();
    let mut bytes = usize::MAX;
    for record in records {
        counted.add(&record);
        if record.kind != Kind::Table(table) {
            continue;
        }
        let expiry = match record.expire_ms {
            None => Expiry::Never,
            Some(expire_ms) if expire_ms <= now_ms => continue,
            Some(expire_ms) => Expiry::AfterMs(expire_ms - now_ms),
        };
        let size = record.path.len() + record.value.len();
        let full = batches.last().is_none_or(|batch| batch.len() >= WRITES);
        if full || bytes.saturating_add(size) > WRITE_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        let charged = charge(&record.path, record.value.len());
        let write = Write::put(Key::new(table, record.path), record.value).expiring(expiry);
        if let Some(batch) = batches.last_mut() {
            batch.push((write, charged));
        }
    }
    batches
}

/// Puts records, whatever was there.
async fn put(store: &Handle, space: &Space, writes: Vec<(Write, u64)>) -> Result<Filled> {
    let (writes, charged): (Vec<Write>, Vec<u64>) = writes.into_iter().unzip();
    let bytes = |write: &Write| match &write.action {
        crate::store::Action::Put { value, .. } => (write.key.path.len() + value.len()) as u64,
        _ => 0,
    };
    let put = Count {
        records: writes.len() as u64,
        bytes: writes.iter().map(bytes).sum(),
    };
    let batch = Batch {
        // A record that comes twice is the same both times.
        mode: Mode::Each,
        ..Batch::of(writes)
    };
    match store.commit(space, batch).await? {
        Commit::Applied(applied) => {
            let mut filled = Filled {
                put,
                ..Filled::default()
            };
            for (outcome, charged) in applied.outcomes.iter().zip(charged) {
                match outcome {
                    Outcome::Done { existed: false, .. } => {
                        filled.new += 1;
                        filled.charged += charged;
                    }
                    Outcome::Refused(refusal) => {
                        return Err(Error::Internal(format!("not restored: {refusal:?}")));
                    }
                    _ => {}
                }
            }
            Ok(filled)
        }
        // Whoever has taken the job over has removed it.
        Commit::Refused(Refusal::Gone | Refusal::Fenced) => Err(Error::RestoreInProgress),
        Commit::Refused(refusal) => Err(Error::Internal(format!("not restored: {refusal:?}"))),
    }
}
