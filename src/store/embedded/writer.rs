//! The one thread that writes: takes what is queued, applies it in one
//! transaction, and makes it durable when it has promised to. It does not know
//! what a batch means.

mod recovery;
mod transaction;

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use redb::Database;

use self::transaction::{Done, Failed, Written, set_durability};
use super::{
    super::{Error, Space},
    Shared,
    fault::{Result, contained},
    layout,
    ledger::Changed,
    opening::Opening,
    snapshot::Snapshot,
    work::{Answer, Request, Work, left_open},
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

/// Spaces looked at in one sweep.
const SWEEP_SPACES: usize = 256;

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
        self.shared.pins.clear();
        self.shared.watch.break_off();
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
                written,
            }) => {
                let mut lingering = None;
                if let Some(Written { durable, changed }) = written {
                    self.publish();
                    self.tell(&changed);
                    self.shared.history.announce(announced);
                    self.note(&group, &answers);
                    lingering = (!durable).then_some(now_ms);
                }
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
                    self.note(&group, &answers);
                    let works = group.iter().map(|request| &request.work);
                    works
                        .zip(answers)
                        .map(|(work, answer)| left_open(work, answer))
                        .collect()
                } else {
                    group.iter().map(|_| Err(error.clone())).collect()
                }
            }
        };
        self.settle(group, answers, None);
    }

    /// Appends what the commits of a group carry to the logs of their spaces.
    fn note(&self, group: &[Request], answers: &[std::result::Result<Answer, Error>]) {
        for (request, answer) in group.iter().zip(answers) {
            if let (Work::Commit(space, batch), Ok(Answer::Commit(commit))) =
                (&request.work, answer)
            {
                self.shared.logs.append(space, batch, commit);
            }
        }
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
                && answer
                    .as_ref()
                    .is_ok_and(|answer| request.work.wrote(answer))
            {
                self.tail_bytes += request.weight;
                self.tail.push((request.work, now_ms));
            }
            let _ = request.reply.send(answer);
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
            Ok(snapshot) => {
                self.shared.snapshot.store(Some(Arc::new(snapshot)));
                self.shared.watch.renew();
            }
            Err(fault) => {
                // Readers see what was before.
                self.shared.watch.break_off();
                let error = Error::from(fault);
                tracing::error!(%error, "the store cannot be read");
            }
        }
    }

    /// Tells the watcher of records that readers see changed already: whoever reads
    /// one from now on has what it is told of.
    fn tell(&self, changed: &[Changed]) {
        let Some(watcher) = self.shared.watcher.get() else {
            return;
        };
        for (space, suffix) in changed {
            if let Some((table, generation, path)) = layout::parse(suffix) {
                watcher.changed(space.name(), generation.unwrap_or(0), table, path);
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

    /// Deletes some of what is over.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        self.shared.pins.end(self.shared.clock.now_ms());
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
