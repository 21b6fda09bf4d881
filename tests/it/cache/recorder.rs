//! A store that notes which keys it was asked for, can hold commits back or fail
//! them, and stops on the way back or loses an answer where a test says so. It does
//! not know why.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use riptide_persistence::store::{
    Audit, Batch, Changes, Commit, Cursor, Error, Gauges, Handle, Health, Keep, Key, Lease, Leased,
    Meters, Notes, Page, Pin, PinnedPage, Pinning, Position, Query, Read, Recall, Recalled,
    Reclaim, Reclaimed, Result, Row, Space, Store, Table, Tallied, Tally, Unit, Usage, Watch,
    Watched,
};
use tokio::sync::watch;

/// Passes every call on, and keeps the keys of the last read.
pub struct Recorder {
    store: Handle,
    last_read: Mutex<Vec<Key>>,
    held: watch::Sender<bool>,
    /// Commits until it fails them.
    commits_left: AtomicUsize,
    /// Where reads and commits stop that are done below.
    pub reads: Gate,
    pub commits: Gate,
    /// Whether commits are done, and their answers lost.
    pub loses: AtomicBool,
    /// What vouches for reads in the place of the store below, where there is any.
    pub watch: Mutex<Option<Arc<Watch>>>,
}

/// Where calls stop while it is closed.
pub struct Gate {
    open: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            open: watch::Sender::new(true),
            arrived: watch::Sender::new(0),
        }
    }
}

impl Gate {
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until so many calls have come here since the beginning.
    pub async fn arrived(&self, calls: usize) {
        let mut arrived = self.arrived.subscribe();
        arrived.wait_for(|arrived| *arrived >= calls).await.unwrap();
    }

    /// Calls that have come here since the beginning.
    pub fn calls(&self) -> usize {
        *self.arrived.borrow()
    }

    async fn pass(&self) {
        self.arrived.send_modify(|arrived| *arrived += 1);
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
    }
}

impl Recorder {
    pub fn new(store: Handle) -> Self {
        Self {
            store,
            last_read: Mutex::default(),
            held: watch::Sender::new(false),
            commits_left: AtomicUsize::new(usize::MAX),
            reads: Gate::default(),
            commits: Gate::default(),
            loses: AtomicBool::default(),
            watch: Mutex::default(),
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
        let read = self.store.read(space, generation, keys).await;
        self.reads.pass().await;
        read
    }

    async fn read_watched(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Watched> {
        *self.last_read.lock().unwrap() = keys.to_vec();
        let watch = self.watch.lock().unwrap().clone();
        let vouch = watch.as_ref().map(|watch| watch.vouch());
        let watched = self.store.read_watched(space, generation, keys).await;
        self.reads.pass().await;
        let watched = watched?;
        Ok(Watched {
            vouch: vouch.unwrap_or(watched.vouch),
            ..watched
        })
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
        let commit = self.store.commit(space, batch).await;
        self.commits.pass().await;
        if self.loses.load(Ordering::SeqCst) {
            return Err(Error::OutcomeUnknown("lost".into()));
        }
        commit
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

    async fn recall(&self, recall: Recall) -> Result<Recalled> {
        self.store.recall(recall).await
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

    async fn pin(&self, space: &Space, keep: Keep) -> Result<Pinning> {
        self.store.pin(space, keep).await
    }

    async fn pinned(
        &self,
        pins: &[Pin],
        tables: &[Table],
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<PinnedPage> {
        self.store.pinned(pins, tables, after, limit).await
    }

    async fn unpin(&self, pin: &Pin) -> Result<()> {
        self.store.unpin(pin).await
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
