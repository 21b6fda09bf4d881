//! Takes what a tracked connection pushes, tells it, and lets its watch promise what
//! the canary has proven. It does not know how the connection was made.

use std::time::Instant;

use fred::types::client::Invalidation;
use tokio::{
    sync::broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
    time,
};

use super::{canary::Canary, line::Armed};
use crate::store::{
    Error, Result, STALENESS, Watcher,
    redis::{fault, keys},
};

/// Takes what was pushed, and tells it.
pub(super) struct Teller<'a> {
    watcher: &'a dyn Watcher,
    canary: Canary,
    pushes: Receiver<Invalidation>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(
        watcher: &'a dyn Watcher,
        canary: Canary,
        pushes: Receiver<Invalidation>,
    ) -> Self {
        Self {
            watcher,
            canary,
            pushes,
        }
    }

    /// Proves that all changes acknowledged before this call have been told when it
    /// returns. See the argument in tracking.rs.
    pub(super) async fn prove(&mut self, armed: &Armed) -> Result<()> {
        let sent = Instant::now();
        let mut heard = false;
        let Self {
            watcher,
            canary,
            pushes,
        } = self;
        {
            let song = canary.sing(&armed.wire, armed.slots.as_ref());
            let mut song = std::pin::pin!(time::timeout(STALENESS, song));
            loop {
                tokio::select! {
                    sung = &mut song => {
                        sung.map_err(|_| late())??;
                        break;
                    }
                    push = pushes.recv() => heard |= tell(*watcher, canary, &push.map_err(lost)?),
                }
            }
        }
        loop {
            match pushes.try_recv() {
                Ok(push) => heard |= tell(*watcher, canary, &push),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Lagged(count)) => return Err(lost(RecvError::Lagged(count))),
                Err(TryRecvError::Closed) => return Err(lost(RecvError::Closed)),
            }
        }
        if !heard {
            return Err(fault::unavailable("it tells of no changes"));
        }
        // A server that stood still for so long may have been replaced meanwhile, and
        // would go on as if it had not.
        if sent.elapsed() >= STALENESS {
            return Err(late());
        }
        armed.watch.prove(sent);
        Ok(())
    }

    /// Tells what is pushed until then.
    pub(super) async fn tell_until(&mut self, until: time::Instant) -> Result<()> {
        let mut over = std::pin::pin!(time::sleep_until(until));
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                push = self.pushes.recv() => {
                    tell(self.watcher, &self.canary, &push.map_err(lost)?);
                }
            }
        }
    }
}

/// Tells of the records that a push names; whether the canary was among them.
fn tell(watcher: &dyn Watcher, canary: &Canary, push: &Invalidation) -> bool {
    let mut heard = false;
    for key in &push.keys {
        let name = key.as_bytes();
        if canary.is(name) {
            heard = true;
        } else if let Some((space, generation, table, path)) = keys::told(name) {
            watcher.changed(space, generation, table, path);
        }
    }
    heard
}

fn late() -> Error {
    fault::unavailable("it has stopped answering")
}

fn lost(error: RecvError) -> Error {
    match error {
        RecvError::Lagged(count) => fault::unavailable(format!(
            "{count} changes came faster than they were taken in"
        )),
        RecvError::Closed => fault::unavailable("the connection was closed"),
    }
}
