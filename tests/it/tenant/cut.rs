//! A store that is lost in the middle of an operation. It does not know which.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use riptide_persistence::store::{
    Audit, Batch, Changes, Commit, Cursor, Error, Gauges, Handle, Health, Keep, Key, Lease, Leased,
    Meters, Notes, Page, Pin, PinnedPage, Pinning, Position, Query, Read, Recall, Recalled,
    Reclaim, Reclaimed, Result, Row, Space, Store, Table, Tallied, Tally, Unit, Usage,
};

/// Lets so many commits through; then the store is gone.
pub struct Cut {
    store: Handle,
    commits_left: AtomicUsize,
    /// Whether the last commit's answer is lost although it was applied.
    answer_lost: bool,
}

impl Cut {
    pub fn after(store: Handle, commits: usize, answer_lost: bool) -> Self {
        Self {
            store,
            commits_left: AtomicUsize::new(commits),
            answer_lost,
        }
    }

    fn alive(&self) -> Result<&Handle> {
        if self.commits_left.load(Ordering::SeqCst) == 0 {
            return Err(Error::Unavailable("cut".into()));
        }
        Ok(&self.store)
    }
}

#[async_trait]
impl Store for Cut {
    async fn read(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        self.alive()?.read(space, generation, keys).await
    }

    async fn read_lingering(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        self.alive()?.read_lingering(space, generation, keys).await
    }

    async fn commit(&self, space: &Space, batch: Batch) -> Result<Commit> {
        let answer = self.alive()?.commit(space, batch).await;
        if self.commits_left.fetch_sub(1, Ordering::SeqCst) == 1 && self.answer_lost {
            return Err(Error::OutcomeUnknown("cut".into()));
        }
        answer
    }

    async fn list(&self, space: &Space, query: Query) -> Result<Page> {
        self.alive()?.list(space, query).await
    }

    async fn usage(&self, space: &Space) -> Result<Usage> {
        self.alive()?.usage(space).await
    }

    async fn meters(&self, space: &Space, unit: Unit) -> Result<Meters> {
        self.alive()?.meters(space, unit).await
    }

    async fn tally(&self, space: &Space, tally: Tally) -> Result<Tallied> {
        let answer = self.alive()?.tally(space, tally).await;
        if self.commits_left.fetch_sub(1, Ordering::SeqCst) == 1 && self.answer_lost {
            return Err(Error::OutcomeUnknown("cut".into()));
        }
        answer
    }

    async fn rows(&self, space: &Space, names: &[Bytes]) -> Result<Vec<Row>> {
        self.alive()?.rows(space, names).await
    }

    async fn recall(&self, recall: Recall) -> Result<Recalled> {
        self.alive()?.recall(recall).await
    }

    async fn lease(&self, space: &Space, lease: Lease) -> Result<Leased> {
        self.alive()?.lease(space, lease).await
    }

    async fn audit(&self, space: &Space) -> Result<Audit> {
        self.alive()?.audit(space).await
    }

    async fn reclaim(
        &self,
        space: &Space,
        what: Reclaim,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Reclaimed> {
        self.alive()?.reclaim(space, what, after, limit).await
    }

    async fn pin(&self, space: &Space, keep: Keep) -> Result<Pinning> {
        self.alive()?.pin(space, keep).await
    }

    async fn pinned(
        &self,
        pins: &[Pin],
        tables: &[Table],
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<PinnedPage> {
        self.alive()?.pinned(pins, tables, after, limit).await
    }

    async fn unpin(&self, pin: &Pin) -> Result<()> {
        self.alive()?.unpin(pin).await
    }

    async fn changes(&self, position: Option<Position>) -> Result<Changes> {
        self.alive()?.changes(position).await
    }

    async fn notes(&self, space: &Space, after: Option<Position>, limit: usize) -> Result<Notes> {
        self.alive()?.notes(space, after, limit).await
    }

    async fn ping(&self) -> Result<Health> {
        self.alive()?.ping().await
    }

    async fn gauges(&self) -> Result<Gauges> {
        self.alive()?.gauges().await
    }

    fn now_ms(&self) -> u64 {
        self.store.now_ms()
    }

    fn backend(&self) -> &'static str {
        self.store.backend()
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
