//! Being told of configurations, one after the other. It does not know who is told.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use super::{Configuration, InForce};

/// Reloads that wait for one who is told of them; the oldest are passed over where
/// more come.
const WAITING: usize = 64;

/// The channel that they are told by.
pub(super) fn channel() -> broadcast::Sender<Arc<InForce>> {
    broadcast::Sender::new(WAITING)
}

/// What is in force, and then every reload that is tried.
#[derive(Debug)]
pub struct Watch {
    first: Option<Arc<InForce>>,
    told: broadcast::Receiver<Arc<InForce>>,
    /// The tries up to the one that was told last.
    tried: u64,
}

impl Configuration {
    /// Watches it from now on.
    pub fn watch(&self) -> Watch {
        // In this order, so that none is missed between the two.
        let told = self.told.subscribe();
        let first = self.in_force();
        Watch {
            tried: first.tried,
            first: Some(first),
            told,
        }
    }
}

impl Watch {
    /// The next one; `None` where the configuration is gone. May be dropped at any
    /// time and called again.
    pub async fn next(&mut self) -> Option<Arc<InForce>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            match self.told.recv().await {
                Ok(next) if next.tried > self.tried => {
                    self.tried = next.tried;
                    return Some(next);
                }
                Ok(_) => {}
                // The ones that it has passed over; the versions tell.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
