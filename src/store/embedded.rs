//! The embedded backend: a file of this process, or memory. One thread writes,
//! any thread reads. It does not know what is stored in it.

#[cfg(test)]
mod background;
mod clock;
mod counts;
mod decision;
#[cfg(test)]
mod failing;
mod fault;
mod history;
mod layout;
mod ledger;
mod log;
mod metering;
mod opening;
mod passage;
mod pins;
mod recall;
mod shelter;
mod snapshot;
mod state;
mod window;
mod work;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use self::{
    clock::Clock,
    fault::contained,
    history::History,
    log::Logs,
    opening::Opening,
    passage::{closed, unexpected},
    pins::Pins,
    snapshot::Snapshot,
    work::{Answer, Request, Work},
    writer::Writer,
};
use super::{
    Audit, Batch, Changes, Commit, Cursor, Error, Gauges, Health, Keep, Key, Lease, Leased, Meters,
    Notes, Page, Pin, PinnedPage, Pinning, Position, Query, Read, Recall, Recalled, Reclaim,
    Reclaimed, Result, Row, Space, Store, Table, Tallied, Tally, Ties, Unit, Usage, Vouch, Watch,
    Watched, Watcher, misuse,
};

/// Requests that may wait for the writer.
const QUEUE: usize = 4_096;

/// The embedded store. All cores share one.
pub struct Embedded {
    shared: Arc<Shared>,
    queue: Mutex<Option<SyncSender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer and the readers share.
struct Shared {
    clock: Clock,
    history: History,
    logs: Logs,
    pins: Pins,
    snapshot: ArcSwapOption<Snapshot>,
    queued_bytes: AtomicUsize,
    /// The file; `None` in memory.
    file: Option<PathBuf>,
    closed: AtomicBool,
    /// Who is told of changes.
    watcher: OnceLock<Arc<dyn Watcher>>,
    watch: Arc<Watch>,
}

impl Shared {
    /// A promise on what is read from now on, where somebody is told of changes.
    fn vouch(&self) -> Option<Vouch> {
        let told = self.watcher.get().is_some();
        told.then(|| self.watch.vouch()).flatten()
    }
}

impl Embedded {
    /// Opens the store in a folder, which is made where it is missing. A folder
    /// that is in use by another process, or holds no store, is refused with
    /// [`Error::Unusable`].
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with_clock(folder, clock::machine_ms)
    }

    /// The same by another clock, in milliseconds since 1970.
    pub fn open_with_clock(
        folder: &Path,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self> {
        let what = format!("folder {}", folder.display());
        Self::start(Opening::folder(folder)?, &what, Clock::over(clock))
    }

    /// A store that forgets everything when it is closed.
    pub fn in_memory() -> Result<Self> {
        Self::in_memory_with_clock(clock::machine_ms)
    }

    /// The same by another clock, in milliseconds since 1970.
    pub fn in_memory_with_clock(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Result<Self> {
        Self::start(Opening::memory(), "memory", Clock::over(clock))
    }

    fn start(opening: Opening, what: &str, clock: Clock) -> Result<Self> {
        let opened = opening.first(what)?;
        clock.not_before(opened.clock_ms);
        let snapshot = contained(|| Snapshot::take(&opened.database))?;
        let shared = Arc::new(Shared {
            clock,
            history: History::new(),
            logs: Logs::default(),
            pins: Pins::default(),
            snapshot: ArcSwapOption::from_pointee(snapshot),
            queued_bytes: AtomicUsize::new(0),
            file: opening.file.clone(),
            closed: AtomicBool::new(false),
            watcher: OnceLock::new(),
            watch: Arc::new(Watch::always()),
        });
        let (queue, requests) = sync_channel(QUEUE);
        let writer = Writer::new(
            opening,
            opened.database,
            shared.clone(),
            requests,
            opened.run,
            opened.number,
        );
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| Error::Unavailable(format!("no thread to write: {error}")))?;
        Ok(Self {
            shared,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// The same store, telling this watcher of every change from now on. For
    /// whoever has just opened it: a store has one watcher, the first.
    #[must_use]
    pub fn watched_by(self, watcher: Arc<dyn Watcher>) -> Self {
        let _ = self.shared.watcher.set(watcher);
        self
    }
}

#[async_trait]
impl Store for Embedded {
    async fn read(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        self.look(|snapshot, now_ms| {
            snapshot.read(space, generation, keys, |head| head.alive(now_ms))
        })
        .await
    }

    async fn read_lingering(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        self.look(|snapshot, now_ms| {
            snapshot.read(space, generation, keys, |head| head.lingers(now_ms))
        })
        .await
    }

    async fn read_watched(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Watched> {
        // The promise comes first: what is broken off while the records are read
        // does not hold for them.
        let vouch = self.shared.vouch();
        let read = self.read(space, generation, keys).await?;
        Ok(Watched { read, vouch })
    }

    async fn commit(&self, space: &Space, batch: Batch) -> Result<Commit> {
        match self.ask(Work::Commit(space.clone(), batch)).await? {
            Answer::Commit(commit) => Ok(commit),
            answer => Err(unexpected(&answer)),
        }
    }

    async fn list(&self, space: &Space, query: Query) -> Result<Page> {
        self.look(|snapshot, now_ms| snapshot.list(space, &query, now_ms))
            .await
    }

    async fn usage(&self, space: &Space) -> Result<Usage> {
        self.look(|snapshot, now_ms| snapshot.usage(space, now_ms))
            .await
    }

    async fn meters(&self, space: &Space, unit: Unit) -> Result<Meters> {
        self.look(|snapshot, now_ms| snapshot.meters(space, unit, now_ms))
            .await
    }

    async fn tally(&self, space: &Space, tally: Tally) -> Result<Tallied> {
        misuse::tally(&tally)?;
        match self.ask(Work::Tally(space.clone(), tally)).await? {
            Answer::Tallied(tallied) => Ok(tallied),
            answer => Err(unexpected(&answer)),
        }
    }

    async fn rows(&self, space: &Space, names: &[Bytes]) -> Result<Vec<Row>> {
        misuse::rows(names)?;
        self.look(|snapshot, now_ms| snapshot.counts(space, names, now_ms))
            .await
    }

    async fn recall(&self, recall: Recall) -> Result<Recalled> {
        self.list_names(&recall).await
    }

    async fn lease(&self, space: &Space, lease: Lease) -> Result<Leased> {
        misuse::lease(&lease)?;
        match self.ask(Work::Lease(space.clone(), lease)).await? {
            Answer::Leased(leased) => Ok(leased),
            answer => Err(unexpected(&answer)),
        }
    }

    async fn audit(&self, space: &Space) -> Result<Audit> {
        let snapshot = self.shared.snapshot.load_full().ok_or_else(closed)?;
        let shared = self.shared.clone();
        let space = space.clone();
        let work = move || contained(|| snapshot.audit(&space, shared.clock.now_ms()));
        match tokio::task::spawn_blocking(work).await {
            Ok(audit) => Ok(audit?),
            Err(error) => Err(Error::Unavailable(error.to_string())),
        }
    }

    async fn reclaim(
        &self,
        space: &Space,
        what: Reclaim,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Reclaimed> {
        if limit == 0 {
            return Err(Error::Misuse("a reclaim looks at 1 record at least".into()));
        }
        let work = Work::Reclaim {
            space: space.clone(),
            what,
            after,
            limit,
        };
        match self.ask(work).await? {
            Answer::Reclaimed(reclaimed) => Ok(reclaimed),
            answer => Err(unexpected(&answer)),
        }
    }

    async fn pin(&self, space: &Space, keep: Keep) -> Result<Pinning> {
        misuse::keep(keep)?;
        self.begin_pin(space, keep).await
    }

    async fn pinned(
        &self,
        pins: &[Pin],
        tables: &[Table],
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<PinnedPage> {
        self.read_pins(pins, tables, after, limit).await
    }

    async fn unpin(&self, pin: &Pin) -> Result<()> {
        self.end_pin(pin);
        Ok(())
    }

    async fn changes(&self, position: Option<Position>) -> Result<Changes> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        Ok(self.shared.history.after(position).await)
    }

    async fn notes(&self, space: &Space, after: Option<Position>, limit: usize) -> Result<Notes> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        self.shared.logs.after(space, after.as_ref(), limit)
    }

    async fn ping(&self) -> Result<Health> {
        let began = Instant::now();
        self.look(|snapshot, now_ms| snapshot.usage(&Space::registry(), now_ms))
            .await?;
        Ok(Health {
            latency_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            exact: true,
            version: "embedded (redb 4)".into(),
        })
    }

    async fn gauges(&self) -> Result<Gauges> {
        let file = self.shared.file.as_deref();
        self.look(|snapshot, _| snapshot.gauges(file)).await
    }

    fn ties(&self) -> Ties {
        Ties {
            vouches: self.shared.vouch().is_some(),
            ..Ties::default()
        }
    }

    fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    fn backend(&self) -> &'static str {
        "embedded"
    }

    async fn close(&self) -> Result<()> {
        let Some(queue) = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return Ok(());
        };
        let (reply, answer) = oneshot::channel();
        let mut request = Request {
            work: Work::Close,
            weight: 0,
            reply,
        };
        while let Err(error) = queue.try_send(request) {
            match error {
                TrySendError::Full(again) => request = again,
                TrySendError::Disconnected(_) => return Ok(()),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        answer.await.map_err(|_| closed())??;
        Ok(())
    }
}

impl Drop for Embedded {
    /// Makes everything acknowledged durable and frees the file.
    fn drop(&mut self) {
        drop(
            self.queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}
