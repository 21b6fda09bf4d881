//! When API keys were last used: noted in memory, kept in the store about once a
//! minute. It does not know what a key was used for.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{Tenants, directory::Credential, record};
use crate::{
    error::Result,
    store::{Batch, Key, Mode, Space, Write},
};

/// A key's use is noted at most so often.
const EVERY_MS: u64 = 60_000;

/// How often what was noted is kept.
const FLUSH: Duration = Duration::from_secs(5);

/// Keys in one commit.
const CHUNK: usize = 100;

/// Uses that the store does not know of yet, by key id: ms since 1970.
#[derive(Default)]
pub(super) struct KeyUses(Mutex<HashMap<String, u64>>);

impl KeyUses {
    /// Notes that a key was used. Mostly a load and a comparison.
    pub(super) fn note(&self, key: &Credential, now_ms: u64) {
        let noted = key.noted_ms.load(Ordering::Relaxed);
        if now_ms >= noted.saturating_add(EVERY_MS)
            && key
                .noted_ms
                .compare_exchange(noted, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.merge([(key.grant.key_id.clone(), now_ms)]);
        }
    }

    /// The use of a key that waits to be kept.
    pub(super) fn waiting(&self, key_id: &str) -> Option<u64> {
        self.lock().get(key_id).copied()
    }

    fn take(&self) -> Vec<(String, u64)> {
        self.lock().drain().collect()
    }

    fn merge(&self, uses: impl IntoIterator<Item = (String, u64)>) {
        let mut waiting = self.lock();
        for (key_id, ms) in uses {
            let kept = waiting.entry(key_id).or_insert(ms);
            *kept = ms.max(*kept);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        // The map is whole whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenants {
    /// Keeps what was noted, every few seconds, for as long as it is polled.
    pub(super) async fn keep_uses(&self) {
        loop {
            tokio::time::sleep(FLUSH).await;
            if let Err(error) = self.flush_uses().await {
                tracing::debug!(%error, "uses of api keys not kept yet");
            }
        }
    }

    /// Keeps the uses noted so far; at drain, the last ones.
    ///
    /// # Errors
    /// Those of the store; what could not be kept waits for the next time.
    pub async fn flush_uses(&self) -> Result<()> {
        let uses = self.directory.uses.take();
        let mut chunks = uses.chunks(CHUNK);
        while let Some(chunk) = chunks.next() {
            if let Err(error) = self.keep(chunk).await {
                self.directory
                    .uses
                    .merge(chunk.iter().chain(chunks.flatten()).cloned());
                return Err(error);
            }
        }
        Ok(())
    }

    async fn keep(&self, uses: &[(String, u64)]) -> Result<()> {
        let registry = Space::registry();
        let keys: Vec<Key> = uses
            .iter()
            .map(|(key_id, _)| record::api_key_key(key_id))
            .collect();
        // A key that was purged meanwhile must not leave a use behind.
        let found = self.store.read(&registry, 0, &keys).await?.records;
        let mut batch = Batch::of(
            uses.iter()
                .zip(found)
                .filter(|(_, found)| found.is_some())
                .map(|((key_id, ms), _)| Write::put(record::key_use_key(key_id), ms.to_string())),
        );
        if !batch.writes.is_empty() {
            batch.mode = Mode::Each;
            self.store.commit(&registry, batch).await?;
        }
        Ok(())
    }

    /// Fills in when keys were last used.
    pub(super) async fn with_uses(
        &self,
        mut keys: Vec<record::ApiKey>,
    ) -> Result<Vec<record::ApiKey>> {
        let paths: Vec<Key> = keys
            .iter()
            .map(|key| record::key_use_key(&key.key_id))
            .collect();
        if paths.is_empty() {
            return Ok(keys);
        }
        let kept = self
            .store
            .read(&Space::registry(), 0, &paths)
            .await?
            .records;
        for (key, kept) in keys.iter_mut().zip(kept) {
            let kept =
                kept.and_then(|record| std::str::from_utf8(&record.value).ok()?.parse().ok());
            key.last_used_ms = kept.max(self.directory.uses.waiting(&key.key_id));
        }
        Ok(keys)
    }
}
