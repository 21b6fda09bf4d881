//! The ways into the store: a request to the writer, and a look at the latest moment.
//! It does not know what is asked for.

use std::{
    sync::{
        PoisonError,
        atomic::Ordering,
        mpsc::{SyncSender, TrySendError},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    super::{Error, Result},
    Embedded,
    fault::{self, Fault, contained},
    snapshot::Snapshot,
    work::{Answer, Request, Work},
};

/// Bytes that may wait for the writer.
const QUEUE_BYTES: usize = 256 << 20;

/// How long a read waits while the file is opened again after a fault.
const PATIENCE: Duration = Duration::from_millis(500);

impl Embedded {
    fn queue(&self) -> Option<SyncSender<Request>> {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) async fn ask(&self, work: Work) -> Result<Answer> {
        let queue = self.queue().ok_or_else(closed)?;
        let weight = work.weight();
        if self
            .shared
            .queued_bytes
            .fetch_add(weight, Ordering::Relaxed)
            > QUEUE_BYTES
        {
            self.shared
                .queued_bytes
                .fetch_sub(weight, Ordering::Relaxed);
            return Err(busy());
        }
        let (reply, answer) = oneshot::channel();
        if let Err(error) = queue.try_send(Request {
            work,
            weight,
            reply,
        }) {
            self.shared
                .queued_bytes
                .fetch_sub(weight, Ordering::Relaxed);
            return Err(match error {
                TrySendError::Full(_) => busy(),
                TrySendError::Disconnected(_) => closed(),
            });
        }
        drop(queue);
        match answer.await {
            Ok(answer) => answer,
            // A request that is dropped unanswered was never begun: the writer
            // had closed before it came to it.
            Err(_) if self.shared.closed.load(Ordering::Acquire) => Err(closed()),
            Err(_) => Err(Error::OutcomeUnknown("the writer has stopped".into())),
        }
    }

    /// Reads from the latest moment. While the file is being opened again after
    /// a fault, waits a little.
    pub(super) async fn look<T>(
        &self,
        read: impl Fn(&Snapshot, u64) -> fault::Result<T>,
    ) -> Result<T> {
        let began = Instant::now();
        loop {
            let Some(snapshot) = self.shared.snapshot.load_full() else {
                return Err(closed());
            };
            match contained(|| read(&snapshot, self.shared.clock.now_ms())) {
                Err(Fault::Disk(_)) if began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                result => return Ok(result?),
            }
        }
    }
}

pub(super) fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

fn busy() -> Error {
    Error::Unavailable("too many writes are waiting".into())
}

pub(super) fn unexpected(answer: &Answer) -> Error {
    Error::OutcomeUnknown(format!("the writer answered something else: {answer:?}"))
}
