//! A store that notes which keys it was asked for, and can hold commits back or
//! fail them. It does not know why.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use riptide_persistence::store::{
    Audit, Batch, Changes, Commit, Cursor, Error, Gauges, Handle, Health, Key, Lease, Leased,
    Meters, Notes, Page, Position, Query, Read, Reclaim, Reclaimed, Result, Row, Space, Store,
    Tallied, Tally, Unit, Usage,
};
use tokio::sync::watch;

/// Passes every call on, and keeps the keys of the last read.
pub struct Recorder {
    store: Handle,
    last_read: Mutex<Vec<Key>>,
    held: watch::Sender<bool>,
    /// Commits until it fails them.
    commits_left: AtomicUsize,
}

impl Recorder {
    pub fn new(store: Handle) -> Self {
        Self {
            store,
            last_read: Mutex::default(),
            held: watch::Sender::new(false),
            commits_left: AtomicUsize::new(usize::MAX),
        }
    }

    /// Holds commits back until they are let go.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    pub fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// Fails commits after so many.
    pub fn fail_after(&self, commits: usize) {
        self.commits_left.store(commits, Ordering::SeqCst);
    }

    pub fn last_read(&self) -> Vec<Key> {
        self.last_read.lock().unwrap().clone()
    }
}

#[async_trait]
impl Store for Recorder {
    async fn read(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        *self.last_read.lock().unwrap() = keys.to_vec();
        self.store.read(space, generation, keys).await
    }

    async fn read_lingering(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        *self.last_read.lock().unwrap() = keys.to_vec();
        self.store.read_lingering(space, generation, keys).await
    }

    async fn commit(&self, space: &Space, batch: Batch) -> Result<Commit> {
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
        let one_less = |left: usize| left.checked_sub(1);
        let (before, after) = (Ordering::SeqCst, Ordering::SeqCst);
        if self
            .commits_left
            .fetch_update(before, after, one_less)
            .is_err()
        {
            return Err(Error::Unavailable("it was told to fail".into()));
        }
        self.store.commit(space, batch).await
    }

    async fn list(&self, space: &Space, query: Query) -> Result<Page> {
        self.store.list(space, query).await
    }

    async fn usage(&self, space: &Space) -> Result<Usage> {
        self.store.usage(space).await
    }

    async fn meters(&self, space: &Space, unit: Unit) -> Result<Meters> {
        self.store.meters(space, unit).await
    }

    async fn tally(&self, space: &Space, tally: Tally) -> Result<Tallied> {
        self.store.tally(space, tally).await
    }

    async fn rows(&self, space: &Space, names: &[Bytes]) -> Result<Vec<Row>> {
        self.store.rows(space, names).await
    }

    async fn lease(&self, space: &Space, lease: Lease) -> Result<Leased> {
        self.store.lease(space, lease).await
    }

    async fn audit(&self, space: &Space) -> Result<Audit> {
        self.store.audit(space).await
    }

    async fn reclaim(
        &self,
        space: &Space,
        what: Reclaim,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Reclaimed> {
        self.store.reclaim(space, what, after, limit).await
    }

    async fn changes(&self, position: Option<Position>) -> Result<Changes> {
        self.store.changes(position).await
    }

    async fn notes(&self, space: &Space, after: Option<Position>, limit: usize) -> Result<Notes> {
        self.store.notes(space, after, limit).await
    }

    async fn ping(&self) -> Result<Health> {
        self.store.ping().await
    }

    async fn gauges(&self) -> Result<Gauges> {
        self.store.gauges().await
    }

    fn now_ms(&self) -> u64 {
        self.store.now_ms()
    }

    fn backend(&self) -> &'static str {
        self.store.backend()
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
