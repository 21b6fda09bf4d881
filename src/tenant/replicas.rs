//! How many replicas work on a store: each notes every few seconds that it lives.
//! It does not know what depends on their number.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use tokio::time::sleep;

use super::Tenants;
use crate::{
    error::{Error, Result},
    store::{Batch, Check, Commit, Key, Space, Table, Write},
};

/// How often a replica says that it lives.
const EVERY: Duration = Duration::from_secs(2);

/// How soon it says so again where it could not.
const SOON: Duration = Duration::from_millis(250);

/// One that has not said so for so long does not.
const ALIVE_MS: u64 = 6_000;

/// How often it is tried while others write, before it waits for the next time.
const ATTEMPTS: usize = 20;

impl Tenants {
    /// Says that this replica lives, and learns how many do, for as long as it is
    /// polled.
    pub(super) async fn keep_alive(&self) {
        loop {
            let again = match self.note_alive().await {
                Ok(replicas) => {
                    self.directory.replicas.store(replicas, Ordering::Relaxed);
                    EVERY
                }
                Err(error) => {
                    // The last known number stands.
                    tracing::debug!(%error, "replicas not counted");
                    SOON
                }
            };
            sleep(again).await;
        }
    }

    /// Says that this replica lives; how many do.
    async fn note_alive(&self) -> Result<u64> {
        let registry = Space::registry();
        let replica = String::from_utf8_lossy(self.directory.accounts.replica()).into_owned();
        for _ in 0..ATTEMPTS {
            let read = self.store.read(&registry, 0, &[key()]).await?;
            let found = read.records.into_iter().next().flatten();
            let now_ms = self.store.now_ms();
            // What cannot be read is written anew: everyone will be back soon.
            let mut alive: BTreeMap<String, u64> = found
                .as_ref()
                .and_then(|found| serde_json::from_slice(&found.value).ok())
                .unwrap_or_default();
            alive.retain(|_, at_ms| now_ms.saturating_sub(*at_ms) < ALIVE_MS);
            alive.insert(replica.clone(), now_ms);
            let value = serde_json::to_vec(&alive)
                .map_err(|error| Error::Internal(format!("replicas not written: {error}")))?;
            let check = found.map_or(Check::Absent, |found| Check::Version(found.version));
            let write = Write::put(key(), value).when(check);
            if let Commit::Applied(_) = self.store.commit(&registry, Batch::of([write])).await? {
                return Ok(alive.len() as u64);
            }
        }
        Err(Error::RequestInProgress)
    }
}

/// Where replicas say that they live: when each last did, in milliseconds since
/// 1970, by their names.
fn key() -> Key {
    Key::new(Table::Meta, &b"replicas"[..])
}
