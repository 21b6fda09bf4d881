//! A decorator that watches a store: how often each method is called, how long
//! it took and what came of it, and whether a commit was on its way when its
//! caller gave up. It does not know what it decorates, nor who reads the figures.

mod counters;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use self::counters::Method;
pub use self::counters::{Calls, Counters, Ended};
use super::{
    Audit, Batch, Changes, Commit, Cursor, Error, Gauges, Handle, Health, Keep, Key, Lease, Leased,
    Meters, Notes, Page, Pin, PinnedPage, Pinning, Position, Query, Read, Recall, Recalled,
    Reclaim, Reclaimed, Result, Row, Space, Store, Table, Tallied, Tally, Ties, Unit, Usage,
    Watched,
};
use crate::{moment, trace::Step};

/// A store that is watched. Several, one per core, may share their [`Counters`].
#[derive(Clone)]
pub struct Observed {
    store: Handle,
    counters: Arc<Counters>,
}

impl Observed {
    /// Watches `store`, counting into `counters`.
    pub fn new(store: Handle, counters: Arc<Counters>) -> Self {
        Self { store, counters }
    }
}

/// Counts a call, awaits it, and tells a trace subscriber about it.
async fn watch<T>(
    method: &'static str,
    backend: &'static str,
    count: &Method,
    outcome: impl FnOnce(&T) -> &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (begun, step) = (count.begin(), Step::begin(method, backend));
    let result = call.await;
    let outcome = match &result {
        Ok(value) => outcome(value),
        Err(error) => fault(error),
    };
    let took = begun.end(outcome);
    if let Some(step) = step {
        step.end(outcome, result.is_err());
    }
    if tracing::enabled!(tracing::Level::TRACE) {
        let latency_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tracing::trace!(method, backend, outcome, latency_us, "store call");
    }
    result
}

fn fault(error: &Error) -> &'static str {
    match error {
        Error::Unavailable(_) => "unavailable",
        Error::OutcomeUnknown(_) => "outcome_unknown",
        Error::Full(_) => "full",
        Error::Unusable(_) => "unusable",
        Error::Corrupt(_) => "corrupt",
        Error::Misuse(_) => "misuse",
    }
}

fn ok<T>(_: &T) -> &'static str {
    "ok"
}

fn tallied(tallied: &Tallied) -> &'static str {
    match tallied {
        Tallied::Added(_) => "added",
        Tallied::Duplicate => "duplicate",
        Tallied::Barred { .. } => "barred",
        Tallied::Exceeded { .. } => "refused",
    }
}

fn pinning(pinning: &Pinning) -> &'static str {
    match pinning {
        Pinning::Pinned(_) => "pinned",
        Pinning::Taken { .. } | Pinning::Gone => "refused",
    }
}

fn verdict(commit: &Commit) -> &'static str {
    match commit {
        Commit::Applied(_) => "applied",
        Commit::Refused(_) => "refused",
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Observed {
    async fn read(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        let call = self.store.read(space, generation, keys);
        watch("read", self.backend(), &self.counters.read, ok, call).await
    }

    async fn read_watched(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Watched> {
        let call = self.store.read_watched(space, generation, keys);
        watch("read", self.backend(), &self.counters.read, ok, call).await
    }

    async fn read_lingering(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        let call = self.store.read_lingering(space, generation, keys);
        watch("read", self.backend(), &self.counters.read, ok, call).await
    }

    async fn commit(&self, space: &Space, batch: Batch) -> Result<Commit> {
        let sent = Sent::now();
        let call = self.store.commit(space, batch);
        let result = watch(
            "commit",
            self.backend(),
            &self.counters.commit,
            verdict,
            call,
        )
        .await;
        // Where nothing was written, nothing is left open.
        if !matches!(
            result,
            Ok(Commit::Applied(_)) | Err(Error::OutcomeUnknown(_))
        ) {
            sent.back();
        }
        result
    }

    async fn list(&self, space: &Space, query: Query) -> Result<Page> {
        let call = self.store.list(space, query);
        watch("list", self.backend(), &self.counters.list, ok, call).await
    }

    async fn usage(&self, space: &Space) -> Result<Usage> {
        let call = self.store.usage(space);
        watch("usage", self.backend(), &self.counters.usage, ok, call).await
    }

    async fn meters(&self, space: &Space, unit: Unit) -> Result<Meters> {
        let call = self.store.meters(space, unit);
        watch("meters", self.backend(), &self.counters.meters, ok, call).await
    }

    async fn tally(&self, space: &Space, tally: Tally) -> Result<Tallied> {
        let sent = Sent::now();
        let call = self.store.tally(space, tally);
        let result = watch("tally", self.backend(), &self.counters.tally, tallied, call).await;
        if !matches!(
            result,
            Ok(Tallied::Added(_)) | Err(Error::OutcomeUnknown(_))
        ) {
            sent.back();
        }
        result
    }

    async fn rows(&self, space: &Space, names: &[Bytes]) -> Result<Vec<Row>> {
        let call = self.store.rows(space, names);
        watch("rows", self.backend(), &self.counters.rows, ok, call).await
    }

    async fn recall(&self, recall: Recall) -> Result<Recalled> {
        let call = self.store.recall(recall);
        watch("recall", self.backend(), &self.counters.recall, ok, call).await
    }

    /// A lease writes nothing that its caller asked for, so one that is on its way
    /// leaves nothing open.
    async fn lease(&self, space: &Space, lease: Lease) -> Result<Leased> {
        let call = self.store.lease(space, lease);
        watch("lease", self.backend(), &self.counters.lease, ok, call).await
    }

    async fn audit(&self, space: &Space) -> Result<Audit> {
        let call = self.store.audit(space);
        watch("audit", self.backend(), &self.counters.audit, ok, call).await
    }

    async fn reclaim(
        &self,
        space: &Space,
        what: Reclaim,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Reclaimed> {
        let call = self.store.reclaim(space, what, after, limit);
        watch("reclaim", self.backend(), &self.counters.reclaim, ok, call).await
    }

    async fn pin(&self, space: &Space, keep: Keep) -> Result<Pinning> {
        let call = self.store.pin(space, keep);
        watch("pin", self.backend(), &self.counters.pin, pinning, call).await
    }

    async fn pinned(
        &self,
        pins: &[Pin],
        tables: &[Table],
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<PinnedPage> {
        let call = self.store.pinned(pins, tables, after, limit);
        watch("pinned", self.backend(), &self.counters.pinned, ok, call).await
    }

    async fn unpin(&self, pin: &Pin) -> Result<()> {
        let call = self.store.unpin(pin);
        watch("unpin", self.backend(), &self.counters.unpin, ok, call).await
    }

    async fn changes(&self, position: Option<Position>) -> Result<Changes> {
        let call = self.store.changes(position);
        watch("changes", self.backend(), &self.counters.changes, ok, call).await
    }

    async fn notes(&self, space: &Space, after: Option<Position>, limit: usize) -> Result<Notes> {
        let call = self.store.notes(space, after, limit);
        watch("notes", self.backend(), &self.counters.notes, ok, call).await
    }

    async fn ping(&self) -> Result<Health> {
        watch(
            "ping",
            self.backend(),
            &self.counters.ping,
            ok,
            self.store.ping(),
        )
        .await
    }

    async fn gauges(&self) -> Result<Gauges> {
        let call = self.store.gauges();
        watch("gauges", self.backend(), &self.counters.ping, ok, call).await
    }

    fn ties(&self) -> Ties {
        self.store.ties()
    }

    fn now_ms(&self) -> u64 {
        self.store.now_ms()
    }

    fn backend(&self) -> &'static str {
        self.store.backend()
    }

    async fn close(&self) -> Result<()> {
        watch(
            "close",
            self.backend(),
            &self.counters.close,
            ok,
            self.store.close(),
        )
        .await
    }
}

tokio::task_local! {
    static CALL: Call;
}

/// What a call may take, and the commits it sent that may have written.
#[derive(Clone)]
struct Call {
    deadline: Instant,
    sent: Arc<AtomicUsize>,
}

/// A commit that was sent under a deadline.
struct Sent(Option<Call>);

impl Sent {
    fn now() -> Self {
        let call = CALL.try_with(Clone::clone).ok();
        if let Some(call) = &call {
            call.sent.fetch_add(1, Ordering::Relaxed);
        }
        Self(call)
    }

    /// It came back, and wrote nothing.
    fn back(self) {
        if let Some(call) = self.0 {
            call.sent.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The deadline was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed {
    /// Whether a commit was on its way or done by then, so that something may
    /// have been written.
    pub commit_in_flight: bool,
}

/// Awaits `future` until `deadline`, and no longer; knows of the commits that
/// went through an [`Observed`] in the same task.
pub async fn with_deadline<F: Future>(
    deadline: Instant,
    future: F,
) -> std::result::Result<F::Output, Elapsed> {
    if deadline <= moment::now().into() {
        return Err(Elapsed {
            commit_in_flight: false,
        });
    }
    let sent = Arc::new(AtomicUsize::new(0));
    let call = Call {
        deadline,
        sent: sent.clone(),
    };
    tokio::time::timeout_at(deadline, CALL.scope(call, future))
        .await
        .map_err(|_| Elapsed {
            commit_in_flight: sent.load(Ordering::Relaxed) > 0,
        })
}

/// The deadline of the call that runs in this task, where there is one.
pub fn deadline() -> Option<Instant> {
    CALL.try_with(|call| call.deadline).ok()
}
