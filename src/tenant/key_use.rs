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

/// When keys were used, by key id: ms since 1970.
#[derive(Default)]
pub(super) struct KeyUses(Mutex<Uses>);

#[derive(Default)]
struct Uses {
    /// What the store does not know of yet.
    waiting: HashMap<String, u64>,
    /// What was noted in the last minute, for keys that were forgotten and
    /// looked up again meanwhile.
    noted: HashMap<String, u64>,
}

impl KeyUses {
    /// Notes that a key was used. Mostly a load and a comparison.
    pub(super) fn note(&self, key: &Credential, now_ms: u64) {
        if !is_due(key.noted_ms.load(Ordering::Relaxed), now_ms) {
            return;
        }
        let mut uses = self.lock();
        let key_id = key.grant.key_id.as_str();
        let noted_ms = uses
            .noted
            .get(key_id)
            .copied()
            .filter(|noted| !is_due(*noted, now_ms));
        if noted_ms.is_none() {
            uses.waiting.insert(key_id.to_owned(), now_ms);
            uses.noted.insert(key_id.to_owned(), now_ms);
        }
        key.noted_ms
            .store(noted_ms.unwrap_or(now_ms), Ordering::Relaxed);
    }

    /// The use of a key that waits to be kept.
    pub(super) fn waiting(&self, key_id: &str) -> Option<u64> {
        self.lock().waiting.get(key_id).copied()
    }

    fn take(&self, now_ms: u64) -> Vec<(String, u64)> {
        let mut uses = self.lock();
        uses.noted.retain(|_, noted| !is_due(*noted, now_ms));
        uses.waiting.drain().collect()
    }

    fn put_back(&self, unkept: impl Iterator<Item = (String, u64)>) {
        let mut uses = self.lock();
        for (key_id, ms) in unkept {
            let waiting = uses.waiting.entry(key_id).or_insert(ms);
            *waiting = ms.max(*waiting);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Uses> {
        // The maps are whole whoever panicked while holding them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a use is to be noted after one that was noted then.
fn is_due(noted_ms: u64, now_ms: u64) -> bool {
    now_ms >= noted_ms.saturating_add(EVERY_MS)
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
        let uses = self.directory.uses.take(self.store.now_ms());
        let mut chunks = uses.chunks(CHUNK);
        while let Some(chunk) = chunks.next() {
            if let Err(error) = self.keep(chunk).await {
                let unkept = chunk.iter().chain(chunks.flatten()).cloned();
                self.directory.uses.put_back(unkept);
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
