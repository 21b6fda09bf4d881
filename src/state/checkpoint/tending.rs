//! What becomes of checkpoints by itself: they are taken by schedule and at a drain,
//! old ones go, and what they hold of purged tenants is made unreadable. It does not
//! know how a checkpoint is taken.

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Cause, Checkpoint, CheckpointId, Checkpoints, Component, Owner, Part,
    turn::{self, Work},
    vault::interrupted,
};
use crate::{
    config,
    error::{Error, Result},
    store::{Check, Incarnation, Key, Space, Table, Write},
    tenant::{elsewhere, record},
};

/// How often it is looked whether something is to be done.
const EVERY: Duration = Duration::from_secs(1);

/// How often old checkpoints are looked for beside those that a new one replaces.
const SWEEP: Duration = Duration::from_secs(600);

/// After so long one that was never finished is removed.
const UNFINISHED_MS: u64 = 24 * 60 * 60 * 1000;

/// How long a purge that could not be carried out here waits for its next try.
const AGAIN: Duration = Duration::from_secs(10);

/// When the schedule was last followed, by whichever replica.
#[derive(Serialize, Deserialize)]
struct Followed {
    format: u32,
    last_ms: u64,
}

fn key() -> Key {
    Key::new(Table::Meta, &b"checkpoint-schedule"[..])
}

impl Checkpoints {
    /// Does what is to be done, for as long as it is polled. Every replica runs one.
    pub async fn tend(&self) {
        tokio::join!(self.follow_schedule(), self.sweep(), self.forget_purged());
    }

    fn settings(&self) -> config::Checkpoint {
        self.vault.configuration.config().checkpoint.clone()
    }

    async fn follow_schedule(&self) {
        loop {
            let schedule = self.settings().schedule;
            let rest = match schedule.interval {
                Some(interval) => {
                    if let Err(error) = self.scheduled(&schedule, interval).await {
                        tracing::warn!(%error, "scheduled checkpoint not taken");
                    }
                    EVERY.min(interval / 4)
                }
                None => EVERY,
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// Takes one if it is due. Whoever notes that it is takes it: the note and the turn
    /// are one commit, so that of all replicas one does.
    async fn scheduled(&self, schedule: &config::Schedule, interval: Duration) -> Result<()> {
        let store = &self.vault.store;
        let read = store.read(&Space::registry(), 0, &[key()]).await?;
        let found = read.records.into_iter().next().flatten();
        let now_ms = store.now_ms();
        let note = |check| -> Result<Write> {
            let followed = Followed {
                format: record::FORMAT,
                last_ms: now_ms,
            };
            Ok(Write::put(key(), record::encode(&followed)?).when(check))
        };
        let Some(found) = found else {
            // The first is due an interval after the schedule was first seen.
            let batch = crate::store::Batch::of([note(Check::Absent)?]);
            store.commit(&Space::registry(), batch).await?;
            return Ok(());
        };
        let followed: Followed = record::decode(&found.value)?;
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        if now_ms < followed.last_ms.saturating_add(interval_ms) {
            return Ok(());
        }
        let mut wanted = Self::components(named(schedule));
        wanted.cause = Cause::Scheduled;
        let writes = vec![note(Check::Version(found.version))?];
        let id = CheckpointId::new(now_ms);
        match self.start(wanted, id, now_ms, writes).await {
            Ok(begun) => {
                let taken = begun.outcome.await;
                taken.unwrap_or_else(|error| Err(interrupted(&error)))?;
                self.retain().await
            }
            // Another was faster, or one is being taken: the schedule is looked at again.
            Err(Error::RequestInProgress) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes one because the server leaves, where that is asked for. Where another is
    /// being taken, there is one already.
    pub async fn at_shutdown(&self) {
        let settings = self.settings();
        if !settings.at_shutdown {
            return;
        }
        let mut wanted = Self::components(named(&settings.schedule));
        wanted.cause = Cause::Shutdown;
        let now_ms = self.vault.store.now_ms();
        let id = CheckpointId::new(now_ms);
        let taken = match self.start(wanted, id, now_ms, Vec::new()).await {
            Ok(begun) => begun
                .outcome
                .await
                .unwrap_or_else(|error| Err(interrupted(&error))),
            Err(error) => Err(error),
        };
        let kept = match taken {
            Ok(_) => self.retain().await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "no checkpoint at shutdown");
        }
    }

    async fn sweep(&self) {
        loop {
            if let Err(error) = self.retain().await {
                tracing::debug!(%error, "old checkpoints not looked for");
            }
            tokio::time::sleep(SWEEP).await;
        }
    }

    /// Removes the oldest of those that were taken by schedule or at a drain, beyond
    /// `checkpoint.schedule.keep`, and what is left of those that were never finished.
    ///
    /// # Errors
    /// Those of both stores.
    pub async fn retain(&self) -> Result<()> {
        let keep = self.settings().schedule.keep;
        let mut busy = Vec::new();
        for work in [Work::Taking, Work::Rewrapping] {
            let (running, _) = turn::now(&self.vault.store, work).await?;
            busy.extend(running.map(|running| running.checkpoint_id));
        }
        let now_ms = self.vault.store.now_ms();
        let oldest = CheckpointId::new(now_ms.saturating_sub(UNFINISHED_MS));
        let mut kept = 0;
        for id in self.vault.objects.checkpoints().await? {
            if busy.iter().any(|busy| busy == id.as_str()) {
                continue;
            }
            let Some(found) = self.find(&id).await? else {
                continue;
            };
            let goes = match &found {
                Checkpoint {
                    complete: false, ..
                } => id < oldest,
                Checkpoint {
                    manifest: Some(manifest),
                    ..
                } if matches!(manifest.cause, Cause::Scheduled | Cause::Shutdown) => {
                    kept += 1;
                    kept > keep
                }
                _ => false,
            };
            if goes {
                self.vault.objects.remove_all(&id).await?;
                tracing::info!(checkpoint = %id, complete = found.complete, "old checkpoint removed");
            }
        }
        Ok(())
    }

    async fn forget_purged(&self) {
        // What could not be done, and when it is tried again.
        let mut waiting: BTreeMap<Incarnation, tokio::time::Instant> = BTreeMap::new();
        loop {
            match elsewhere::forgotten(&self.vault.store, None).await {
                Ok(jobs) => {
                    let now = tokio::time::Instant::now();
                    waiting.retain(|_, again| *again > now);
                    for job in jobs {
                        let life = job.incarnation;
                        if waiting.contains_key(&life) {
                            continue;
                        }
                        if !self.forget_one(life).await {
                            waiting.insert(life, now + AGAIN);
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "purges not looked for"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn forget_one(&self, life: Incarnation) -> bool {
        let done = async {
            if !self.make_unreadable(life).await? {
                return Ok(false);
            }
            elsewhere::done(&self.vault.store, life).await?;
            Ok::<_, Error>(true)
        };
        done.await.unwrap_or_else(|error| {
            tracing::debug!(%error, %life, "purged tenant not yet forgotten by checkpoints");
            false
        })
    }

    /// Removes a tenant's key from every checkpoint, and notes that it was purged, for
    /// copies that come back. False while there is one that is not whole: whoever takes
    /// it may be about to put a key there; and while keys are wrapped anew: whoever does
    /// may be about to put back one that was removed here.
    async fn make_unreadable(&self, life: Incarnation) -> Result<bool> {
        let mut last = true;
        let objects = &self.vault.objects;
        // First, so that whoever uploads a key looks after putting it.
        objects.note_purged(life).await?;
        for id in objects.checkpoints().await? {
            objects.remove(&id, Part::Key(Owner::Tenant(life))).await?;
            last &= objects.get(&id, Part::Manifest).await?.is_some();
        }
        // Who takes the turn after this finds the key gone.
        let (rewrapping, _) = turn::now(&self.vault.store, Work::Rewrapping).await?;
        Ok(last && rewrapping.is_none())
    }
}

/// What the schedule's checkpoints hold.
fn named(schedule: &config::Schedule) -> impl Iterator<Item = Component> {
    let names = schedule.components.iter();
    names.filter_map(|name| Component::named(name))
}

impl elsewhere::Forget for Checkpoints {
    fn forget<'a>(
        &'a self,
        life: Incarnation,
    ) -> Pin<Box<dyn Future<Output = Result<bool>> + Send + 'a>> {
        let this = self.clone();
        Box::pin(self.away(async move {
            let done = this.make_unreadable(life).await?;
            if done {
                elsewhere::done(&this.vault.store, life).await?;
            }
            Ok(done)
        }))
    }
}
