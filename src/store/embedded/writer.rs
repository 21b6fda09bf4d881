//! The one thread that writes: takes what is queued, applies it in one
//! transaction, makes it durable when it has promised to, and gets up again
//! after the disk has failed. It does not know what a batch means.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use redb::{Database, Durability, WriteTransaction};
use tokio::sync::oneshot;

use super::{
    super::{Action, Batch, Commit, Cursor, Error, Key, Reclaim, Reclaimed, Space, Table, Write},
    Shared,
    fault::{Fault, Result, contained},
    layout::{META_CLOCK, META_COMMIT},
    ledger::Ledger,
    opening::{Disk, Opening},
    snapshot::Snapshot,
};

/// The most requests of one transaction.
const GROUP: usize = 512;

/// The most bytes of one transaction, about.
const GROUP_BYTES: usize = 32 << 20;

/// How long an acknowledged commit of entries may wait to become durable. The
/// promise is a second; the rest is for the disk.
const LINGER: Duration = Duration::from_millis(400);

/// The most bytes that may wait so; they are kept twice meanwhile.
const LINGER_BYTES: usize = 64 << 20;

/// How often records whose time is over are looked for.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// Spaces looked at in one sweep, and records deleted of each.
const SWEEP_SPACES: usize = 256;
const SWEEP_RECORDS: usize = 512;

/// How long a failed disk is left alone before the next attempt.
const REST: Duration = Duration::from_millis(500);

/// What is asked of the writer.
pub(super) enum Work {
    Commit(Space, Batch),
    Reclaim {
        space: Space,
        what: Reclaim,
        after: Option<Cursor>,
        limit: usize,
    },
    Close,
}

impl Work {
    /// Bytes it holds, about.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Commit(_, batch) => batch.writes.iter().map(weight).sum::<usize>() + 256,
            Self::Reclaim { .. } | Self::Close => 256,
        }
    }

    /// Whether it must be durable when it is acknowledged.
    fn strict(&self) -> bool {
        match self {
            Self::Commit(_, batch) => {
                batch.step.is_some()
                    || batch
                        .writes
                        .iter()
                        .any(|write| write.key.table != Table::Entry)
            }
            Self::Reclaim { .. } => false,
            Self::Close => true,
        }
    }
}

fn weight(write: &Write) -> usize {
    let value = match &write.action {
        Action::Put { value, .. } => value.len(),
        _ => 0,
    };
    64 + write.key.path.len() + value
}

/// What the writer answers.
#[derive(Debug)]
pub(super) enum Answer {
    Commit(Commit),
    Reclaimed(Reclaimed),
    Closed,
}

/// Something asked, and where to answer.
pub(super) struct Request {
    pub(super) work: Work,
    pub(super) weight: usize,
    pub(super) reply: oneshot::Sender<std::result::Result<Answer, Error>>,
}

/// The writing thread's own things.
pub(super) struct Writer {
    opening: Opening,
    database: Option<Database>,
    shared: Arc<Shared>,
    queue: Receiver<Request>,
    run: u64,
    /// The number of the last transaction that was committed.
    number: u64,
    /// What was acknowledged and is not durable yet, with its time.
    tail: Vec<(Work, u64)>,
    tail_bytes: usize,
    /// Since when something waits to become durable.
    dirty: Option<Instant>,
    /// Why the disk does not take writes at present, and since when.
    broken: Option<(Error, Instant)>,
    swept: Instant,
    sweep_after: Option<Space>,
}

impl Writer {
    pub(super) fn new(
        opening: Opening,
        database: Database,
        shared: Arc<Shared>,
        queue: Receiver<Request>,
        run: u64,
        number: u64,
    ) -> Self {
        Self {
            opening,
            database: Some(database),
            shared,
            queue,
            run,
            number,
            tail: Vec::new(),
            tail_bytes: 0,
            dirty: None,
            broken: None,
            swept: Instant::now(),
            sweep_after: None,
        }
    }

    /// Works until it is told to close, or nobody is left to tell it.
    pub(super) fn run(mut self) {
        let closing = loop {
            match self.queue.recv_timeout(self.pause()) {
                Ok(request) => {
                    let (group, closing) = self.gather(request);
                    self.handle(group);
                    if closing.is_some() {
                        break closing;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            if self.broken.is_some() {
                let _ = self.mend();
            } else if self.dirty.is_some_and(|since| since.elapsed() >= LINGER)
                || self.tail_bytes > LINGER_BYTES
            {
                self.flush();
            }
            if self.swept.elapsed() >= SWEEP_EVERY {
                self.sweep();
            }
        };
        if self.dirty.is_some() {
            self.flush();
        }
        self.shared.closed.store(true, Ordering::Release);
        self.shared.snapshot.store(None);
        let result = self.close();
        self.shared.history.wake();
        if let Some(request) = closing {
            let _ = request.reply.send(result.map(|()| Answer::Closed));
        }
    }

    fn pause(&self) -> Duration {
        let sweep = SWEEP_EVERY.saturating_sub(self.swept.elapsed());
        match self.dirty {
            Some(since) if self.broken.is_none() => {
                sweep.min(LINGER.saturating_sub(since.elapsed()))
            }
            _ => sweep,
        }
    }

    /// What is queued with a request, up to a request to close.
    fn gather(&mut self, first: Request) -> (Vec<Request>, Option<Request>) {
        let mut group = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            self.shared
                .queued_bytes
                .fetch_sub(request.weight, Ordering::Relaxed);
            bytes += request.weight;
            if matches!(request.work, Work::Close) {
                return (group, Some(request));
            }
            group.push(request);
            next = if group.len() < GROUP && bytes < GROUP_BYTES {
                self.queue.try_recv().ok()
            } else {
                None
            };
        }
        (group, None)
    }

    fn handle(&mut self, group: Vec<Request>) {
        if group.is_empty() {
            return;
        }
        if let Err(error) = self.mend() {
            for request in group {
                let _ = request.reply.send(Err(error.clone()));
            }
            return;
        }
        let now_ms = self.shared.clock.now_ms();
        let works: Vec<(&Work, u64)> = group
            .iter()
            .map(|request| (&request.work, now_ms))
            .collect();
        let outcome = self.attempt(&works, None);
        drop(works);
        let answers = match outcome {
            Ok(Done {
                answers,
                announced,
                wrote,
                durable,
            }) => {
                if wrote {
                    self.publish();
                    self.shared.history.announce(announced);
                }
                let lingering = (wrote && !durable).then_some(now_ms);
                self.settle(group, answers, lingering);
                return;
            }
            Err(failed) => {
                let Failed {
                    fault,
                    number,
                    answers,
                    announced,
                } = *failed;
                let error = Error::from(fault);
                tracing::error!(%error, "the store's disk failed");
                let on_disk = self.get_up(error.clone());
                if number > 0 && on_disk.is_some_and(|on_disk| on_disk >= number) {
                    // It reached the file after all, but whether it stays there
                    // the disk did not say.
                    self.shared.history.announce(announced);
                    answers.into_iter().map(left_open).collect()
                } else {
                    group.iter().map(|_| Err(error.clone())).collect()
                }
            }
        };
        self.settle(group, answers, None);
    }

    /// Answers a group. What is not durable yet is remembered first.
    fn settle(
        &mut self,
        group: Vec<Request>,
        answers: Vec<std::result::Result<Answer, Error>>,
        lingering: Option<u64>,
    ) {
        for (request, answer) in group.into_iter().zip(answers) {
            if let Some(now_ms) = lingering
                && matches!(
                    answer,
                    Ok(Answer::Commit(Commit::Applied(_)) | Answer::Reclaimed(_))
                )
            {
                self.tail_bytes += request.weight;
                self.tail.push((request.work, now_ms));
            }
            let _ = request.reply.send(answer);
        }
    }

    /// Applies work in one transaction, at times of its own; `sweep` deletes what
    /// is over in these spaces too.
    fn attempt(
        &mut self,
        works: &[(&Work, u64)],
        sweep: Option<&[Space]>,
    ) -> std::result::Result<Done, Box<Failed>> {
        let mut number = 0;
        let mut answers = Vec::with_capacity(works.len());
        let mut announced = Vec::new();
        let result =
            contained(|| self.transact(works, sweep, &mut number, &mut answers, &mut announced));
        match result {
            Ok((wrote, durable)) => Ok(Done {
                answers,
                announced,
                wrote,
                durable,
            }),
            Err(fault) => Err(Box::new(Failed {
                fault,
                number,
                answers,
                announced,
            })),
        }
    }

    fn transact(
        &mut self,
        works: &[(&Work, u64)],
        sweep: Option<&[Space]>,
        number: &mut u64,
        answers: &mut Vec<std::result::Result<Answer, Error>>,
        announced: &mut Vec<Key>,
    ) -> Result<(bool, bool)> {
        let mut transaction = self.begin()?;
        let mut ledger = Ledger::open(&transaction, self.run)?;
        let mut strict = false;
        let mut wrote = false;
        for (work, now_ms) in works {
            let answer = match work {
                Work::Commit(space, batch) => {
                    ledger.commit(space, batch, *now_ms).map(|(commit, keys)| {
                        announced.extend(keys);
                        Answer::Commit(commit)
                    })
                }
                Work::Reclaim {
                    space,
                    what,
                    after,
                    limit,
                } => ledger
                    .reclaim(space, what, after.as_ref(), *limit, *now_ms)
                    .map(Answer::Reclaimed),
                Work::Close => Ok(Answer::Closed),
            };
            if matches!(
                answer,
                Ok(Answer::Commit(Commit::Applied(_)) | Answer::Reclaimed(_))
            ) {
                wrote = true;
                strict |= work.strict();
            }
            match answer {
                Err(fault @ Fault::Disk(_)) => return Err(fault),
                answer => answers.push(answer.map_err(Error::from)),
            }
        }
        let now_ms = self.shared.clock.now_ms();
        for space in sweep.unwrap_or_default() {
            wrote = true;
            match ledger.sweep(space, SWEEP_RECORDS, now_ms) {
                Ok(0) => ledger.forget(space, now_ms)?,
                Err(fault @ Fault::Disk(_)) => return Err(fault),
                Ok(_) | Err(_) => {}
            }
        }
        if !wrote {
            drop(ledger);
            transaction.abort()?;
            return Ok((false, false));
        }
        *number = self.number + 1;
        ledger.set_fact(META_COMMIT, *number)?;
        ledger.set_fact(META_CLOCK, now_ms)?;
        ledger.finish()?;
        set_durability(&mut transaction, strict)?;
        transaction.commit()?;
        self.number = *number;
        if strict {
            self.clean();
        } else {
            self.dirty.get_or_insert_with(Instant::now);
        }
        Ok((true, strict))
    }

    fn begin(&self) -> Result<WriteTransaction> {
        match &self.database {
            Some(database) => Ok(database.begin_write()?),
            None => Err(Fault::Disk(redb::Error::DatabaseClosed)),
        }
    }

    /// Everything acknowledged is durable.
    fn clean(&mut self) {
        self.dirty = None;
        self.tail.clear();
        self.tail_bytes = 0;
    }

    /// Shows readers the present moment.
    fn publish(&self) {
        let Some(database) = &self.database else {
            return;
        };
        match contained(|| Snapshot::take(database)) {
            Ok(snapshot) => self.shared.snapshot.store(Some(Arc::new(snapshot))),
            Err(fault) => {
                let error = Error::from(fault);
                tracing::error!(%error, "the store cannot be read");
            }
        }
    }

    /// Makes everything acknowledged durable.
    fn flush(&mut self) {
        if self.mend().is_err() || self.dirty.is_none() {
            return;
        }
        if let Err(fault) = contained(|| self.sync()) {
            let error = Error::from(fault);
            tracing::error!(%error, "the store's disk failed");
            self.get_up(error);
        }
    }

    fn sync(&mut self) -> Result<()> {
        let mut transaction = self.begin()?;
        set_durability(&mut transaction, true)?;
        transaction.commit()?;
        self.clean();
        Ok(())
    }

    /// Takes shelter after the disk has failed: reads go on from the file as it
    /// is and from what was acknowledged, and writes are refused with `error`.
    /// Tells the number of the last commit that the file holds.
    fn get_up(&mut self, error: Error) -> Option<u64> {
        self.broken = Some((error, Instant::now()));
        self.database = None;
        let number = match self.reopen(Disk::Sheltered) {
            Ok(number) => Some(number),
            Err(fault) => {
                self.database = None;
                let error = Error::from(fault);
                tracing::error!(%error, "the store's file cannot be read");
                None
            }
        };
        self.publish();
        number
    }

    /// Opens the file again, and applies once more what was acknowledged and is
    /// not in it. Tells the number of the last commit that it holds.
    fn reopen(&mut self, disk: Disk) -> Result<u64> {
        let (database, number) = contained(|| self.opening.again(disk))?;
        self.database = Some(database);
        if number >= self.number {
            // The disk had taken all.
            self.number = number;
            self.clean();
            return Ok(number);
        }
        let tail = std::mem::take(&mut self.tail);
        let works: Vec<(&Work, u64)> = tail.iter().map(|(work, now_ms)| (work, *now_ms)).collect();
        let result = self.attempt(&works, None);
        drop(works);
        self.tail = tail;
        self.dirty.get_or_insert_with(Instant::now);
        result.map(|_| number).map_err(|failed| failed.fault)
    }

    /// Finds out whether a failed disk works again.
    fn mend(&mut self) -> std::result::Result<(), Error> {
        let Some((error, since)) = self.broken.clone() else {
            return Ok(());
        };
        if since.elapsed() < REST {
            return Err(error);
        }
        self.database = None;
        match self
            .reopen(Disk::Written)
            .and_then(|_| contained(|| self.sync()))
        {
            Ok(()) => {
                tracing::info!("the store's disk works again");
                self.broken = None;
                self.publish();
                Ok(())
            }
            Err(fault) => {
                let error = Error::from(fault);
                self.get_up(error.clone());
                Err(error)
            }
        }
    }

    /// Deletes some of what is over.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        if self.broken.is_some() {
            return;
        }
        let Some(snapshot) = self.shared.snapshot.load_full() else {
            return;
        };
        let after = self.sweep_after.take();
        let now_ms = self.shared.clock.now_ms();
        let after = after.as_ref().map(Space::name);
        let Ok((spaces, next)) = contained(|| snapshot.overdue(after, SWEEP_SPACES, now_ms)) else {
            return;
        };
        self.sweep_after = next;
        if spaces.is_empty() {
            return;
        }
        match self.attempt(&[], Some(&spaces)) {
            Ok(_) => self.publish(),
            Err(failed) => {
                let error = Error::from(failed.fault);
                tracing::error!(%error, "the store's disk failed");
                self.get_up(error);
            }
        }
    }

    fn close(&mut self) -> std::result::Result<(), Error> {
        let failed = self.dirty.is_some().then(|| self.broken.take()).flatten();
        let closed = match self.database.take() {
            Some(database) => contained(|| Ok(database.close()?)).map_err(Error::from),
            None => Ok(()),
        };
        match failed {
            Some((error, _)) => Err(error),
            None => closed,
        }
    }
}

/// What is said of a request whose transaction may or may not last.
fn left_open(answer: std::result::Result<Answer, Error>) -> std::result::Result<Answer, Error> {
    match answer {
        Ok(Answer::Commit(Commit::Applied(_)) | Answer::Reclaimed(_)) => Err(
            Error::OutcomeUnknown("the disk failed while it was written".into()),
        ),
        answer => answer,
    }
}

fn set_durability(transaction: &mut WriteTransaction, strict: bool) -> Result<()> {
    if strict {
        transaction.set_durability(Durability::Immediate)?;
        // Opening after a crash must not have to walk the whole file.
        transaction.set_quick_repair(true);
    } else {
        transaction.set_durability(Durability::None)?;
    }
    Ok(())
}

/// A transaction that was committed, or had nothing to write.
struct Done {
    answers: Vec<std::result::Result<Answer, Error>>,
    announced: Vec<Key>,
    wrote: bool,
    durable: bool,
}

/// A transaction that failed. Its number is 0 where it never came to a commit.
struct Failed {
    fault: Fault,
    number: u64,
    answers: Vec<std::result::Result<Answer, Error>>,
    announced: Vec<Key>,
}
