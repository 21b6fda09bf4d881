//! Whose turn it is: one checkpoint at a time is taken on a store, whichever replica
//! does, and the keys of one at a time are wrapped anew. The turn is a claim in the
//! registry, renewed while the work goes on; its version is the fencing token: every
//! renewal, and the last one before the manifest is written, is refused where another
//! has taken the turn since. It does not know how the work is done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::CheckpointId;
use crate::{
    error::{Error, Result},
    store::{Batch, Check, Commit, Handle, Key, Outcome, Refusal, Space, Table, Write},
    tenant::record,
};

/// How long a claim lasts without being renewed.
const CLAIM_MS: u64 = 8_000;

/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(2);

/// What is done in a turn; there is one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A checkpoint is taken.
    Taking,
    /// The keys of one are wrapped anew.
    Rewrapping,
}

impl Work {
    fn key(self) -> Key {
        let name: &[u8] = match self {
            Self::Taking => b"checkpoint",
            Self::Rewrapping => b"checkpoint-rewrap",
        };
        Key::new(Table::Meta, name)
    }
}

/// Who works on a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Running {
    format: u32,
    /// The checkpoint.
    pub(super) checkpoint_id: String,
    by: String,
    until_ms: u64,
}

/// A turn that was taken.
pub(super) struct Turn {
    store: Handle,
    work: Work,
    running: Running,
    version: u64,
}

/// Who does this work now, and the version of the claim that was there, over or not.
pub(super) async fn now(store: &Handle, work: Work) -> Result<(Option<Running>, Option<u64>)> {
    let read = store.read(&Space::registry(), 0, &[work.key()]).await?;
    let Some(found) = read.records.into_iter().next().flatten() else {
        return Ok((None, None));
    };
    let running: Running = record::decode(&found.value)?;
    let live = store.now_ms() < running.until_ms;
    Ok((live.then_some(running), Some(found.version)))
}

impl Turn {
    /// Takes the turn for work on a checkpoint, with these writes in the same commit.
    ///
    /// # Errors
    /// [`Error::RequestInProgress`] where another has it, or a write is refused; the
    /// store's.
    pub(super) async fn take(
        store: &Handle,
        work: Work,
        id: &CheckpointId,
        by: &str,
        writes: impl IntoIterator<Item = Write>,
    ) -> Result<Self> {
        let (running, found) = now(store, work).await?;
        if running.is_some() {
            return Err(Error::RequestInProgress);
        }
        let mut turn = Self {
            store: store.clone(),
            work,
            running: Running {
                format: record::FORMAT,
                checkpoint_id: id.to_string(),
                by: by.to_owned(),
                until_ms: 0,
            },
            version: found.unwrap_or(0),
        };
        let check = found.map_or(Check::Absent, Check::Version);
        turn.save(check, writes).await?;
        Ok(turn)
    }

    /// Renews it, so that it is certain that nobody has taken it since.
    ///
    /// # Errors
    /// [`Error::RequestInProgress`] where another has; the store's.
    pub(super) async fn renew(&mut self) -> Result<()> {
        self.save(Check::Version(self.version), []).await
    }

    /// Renews it for as long as it is polled; ends where it is lost.
    pub(super) async fn keep(&mut self) -> Error {
        loop {
            tokio::time::sleep(RENEW).await;
            match self.renew().await {
                Ok(()) => {}
                Err(error @ Error::RequestInProgress) => return error,
                // It may come back before the claim is over.
                Err(error) if self.running.until_ms < self.store.now_ms() => return error,
                Err(error) => tracing::debug!(%error, "turn of a checkpoint not renewed"),
            }
        }
    }

    /// Gives it up, so that nobody has to wait for its end.
    pub(super) async fn end(self) {
        let write = Write::delete(self.work.key()).when(Check::Version(self.version));
        let ended = self
            .store
            .commit(&Space::registry(), Batch::of([write]))
            .await;
        if let Err(error) = ended {
            tracing::debug!(%error, "turn of a checkpoint not ended");
        }
    }

    async fn save(&mut self, check: Check, writes: impl IntoIterator<Item = Write>) -> Result<()> {
        self.running.until_ms = self.store.now_ms().saturating_add(CLAIM_MS);
        let claim = Write::put(self.work.key(), record::encode(&self.running)?).when(check);
        let batch = Batch::of([claim].into_iter().chain(writes));
        match self.store.commit(&Space::registry(), batch).await? {
            Commit::Applied(applied) => {
                if let Some(Outcome::Done { version, .. }) = applied.outcomes.first() {
                    self.version = *version;
                }
                Ok(())
            }
            Commit::Refused(Refusal::Conflict { .. }) => Err(Error::RequestInProgress),
            Commit::Refused(refusal) => Err(Error::Internal(format!(
                "the store refused a commit of the registry: {refusal:?}"
            ))),
        }
    }
}
