//! Restores: tenants, or their data, as a checkpoint holds them. It does not know how
//! calls arrive, nor how a tenant is moved.
//!
//! A restore is a job in the registry, claimed by the replica that works on it and
//! renewed while it does; whoever finds a claim that is over takes the job and goes on
//! (`job`). Before anything changes, the plan is made (`plan`), every chunk that it
//! needs is read and compared with the manifest, and what is to be replaced goes into a
//! checkpoint of its own. Then one tenant after the other is filled into new spaces
//! (`fill`), counted, and moved there in one commit (see `tenant::restoration`). So a
//! tenant is wholly as it was or wholly as it is in the checkpoint, whatever ends the
//! work and when.

mod bills;
mod contents;
mod fill;
mod job;
pub mod plan;
mod tenant;
mod work;

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle as Runtime, sync::mpsc, task::JoinHandle};

pub(in crate::state) use self::contents::Contents;
use self::job::{Held, Job};
pub use self::{
    job::restoring,
    plan::{Action, Difference, Plan, Planned},
};
use super::{
    archive,
    checkpoint::{CheckpointId, Checkpoints, Component, Counts, component::merge},
};
use crate::{
    error::{Error, Result, Violations},
    store::Handle,
    tenant::{Once, Tenants},
};

/// How often a restore is looked for that nobody works on.
const EVERY: Duration = Duration::from_secs(2);

/// How often a restore is looked at that another replica works on.
const POLL: Duration = Duration::from_millis(200);

/// What waits to be listened to.
const TOLD: usize = 8;

/// Tenants that could not be restored, as the result tells them.
const FAILURES: usize = 100;

/// What becomes of a tenant that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conflict {
    /// The restore is refused.
    #[default]
    Fail,
    /// It is replaced.
    Replace,
    /// It stays.
    Skip,
}

/// What is asked of a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The checkpoint.
    pub checkpoint_id: String,
    /// The tenants; empty means all.
    pub tenant_ids: Vec<String>,
    /// What of them; empty means all that there is.
    pub components: BTreeSet<Component>,
    /// What becomes of those that are there.
    pub conflict: Conflict,
}

/// How far a restore is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tenants done.
    pub tenants_done: u64,
    /// Tenants in all.
    pub tenants: u64,
    /// Records done.
    pub records_done: u64,
    /// Records in all.
    pub records: u64,
    /// Bytes of paths and values done.
    pub bytes_done: u64,
    /// What is done now.
    pub phase: &'static str,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Tenants created.
    pub created: u64,
    /// Tenants replaced.
    pub replaced: u64,
    /// Tenants left as they were.
    pub skipped: u64,
    /// What was restored.
    pub counts: Counts,
    /// The checkpoint of what was replaced; empty where nothing was.
    #[serde(default)]
    pub safety: String,
    /// Tenants that could not be restored, the first of them.
    #[serde(default)]
    pub failures: Vec<Failure>,
}

impl Outcome {
    /// Notes a tenant that was restored.
    fn note(&mut self, created: bool, counts: &Counts) {
        if created {
            self.created += 1;
        } else {
            self.replaced += 1;
        }
        merge(&mut self.counts, counts);
    }
}

/// A tenant that could not be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which.
    pub tenant_id: String,
    /// Why, for people.
    pub why: String,
}

/// What whoever asked is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// What will be done.
    Plan(Plan),
    /// How far it is.
    Progress(Progress),
    /// What was done; nothing follows.
    Done(Outcome),
}

/// Where somebody listens, if anybody does.
#[derive(Clone, Debug)]
struct Listener(Option<mpsc::Sender<Result<Told>>>);

impl Listener {
    /// Nobody.
    const fn nobody() -> Self {
        Self(None)
    }

    async fn tell(&self, told: Result<Told>) {
        if let Some(to) = &self.0 {
            // Who has gone away is not waited for.
            let _ = to.send(told).await;
        }
    }

    /// Tells how far it is, if that is listened to right now.
    fn progress(&self, progress: &Progress) {
        if let Some(to) = &self.0 {
            let _ = to.try_send(Ok(Told::Progress(progress.clone())));
        }
    }
}

/// Restores. Cheap to clone. All the work is done in the runtime they were made in.
#[derive(Clone)]
pub struct Restores {
    checkpoints: Checkpoints,
    tenants: Tenants,
    runtime: Runtime,
}

impl std::fmt::Debug for Restores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restores").finish_non_exhaustive()
    }
}

impl Restores {
    /// Restores from these checkpoints. To be called in the runtime that is to do the
    /// work.
    pub fn new(checkpoints: Checkpoints) -> Self {
        Self {
            tenants: checkpoints.tenants().clone(),
            checkpoints,
            runtime: Runtime::current(),
        }
    }

    /// Sends a checkpoint as an archive, in pieces.
    pub fn send(&self, id: CheckpointId) -> mpsc::Receiver<Result<Bytes>> {
        let (to, pieces) = mpsc::channel(TOLD);
        let objects = self.checkpoints.objects().clone();
        self.runtime.spawn(async move {
            let sent = async {
                let mut sender = archive::Sender::begin(&objects, &id).await?;
                while let Some(piece) = sender.next().await? {
                    if to.send(Ok(piece)).await.is_err() {
                        break;
                    }
                }
                Ok(())
            };
            if let Err(error) = sent.await {
                let _ = to.send(Err(error)).await;
            }
        });
        pieces
    }

    /// Takes an archive in; the checkpoint that is there then.
    pub fn receive(&self, mut pieces: archive::Receiver) -> JoinHandle<Result<CheckpointId>> {
        let (objects, tenants) = (self.checkpoints.objects().clone(), self.tenants.clone());
        self.runtime
            .spawn(async move { archive::receive(&objects, tenants.masters(), &mut pieces).await })
    }

    /// Begins a restore, and tells here as it goes: a plan, or why there is none, comes
    /// first. It goes on when nobody listens any more.
    pub fn begin(
        &self,
        asked: Asked,
        request_id: String,
        validate_only: bool,
    ) -> mpsc::Receiver<Result<Told>> {
        let (to, told) = mpsc::channel(TOLD);
        let this = self.clone();
        self.runtime.spawn(async move {
            let listener = Listener(Some(to));
            let restored = this.restore(asked, &request_id, validate_only, &listener);
            if let Err(error) = restored.await {
                listener.tell(Err(error)).await;
            }
        });
        told
    }

    fn store(&self) -> &Handle {
        self.tenants.store()
    }

    /// Restores what is asked for, and tells as it goes; the answer comes once the plan
    /// has been told, or why there is none. With `validate_only` that is all.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`] for a checkpoint, or a tenant that is not
    /// in it; [`Error::CheckpointCorrupt`], [`Error::CheckpointIncompatible`];
    /// [`Error::TenantExists`]; [`Error::RestoreInProgress`];
    /// [`Error::RequestIdReused`]; those of both stores.
    async fn restore(
        &self,
        asked: Asked,
        request_id: &str,
        validate_only: bool,
        listener: &Listener,
    ) -> Result<()> {
        let mut violations = Violations::default();
        let once = Once::of("RestoreCheckpoint", request_id, &asked, &mut violations)?;
        let id = CheckpointId::parse(&asked.checkpoint_id);
        if let Err(why) = &id {
            violations.add("checkpoint_id", why.to_string());
        }
        violations.check()?;
        let Ok(id) = id else {
            return Err(Error::no_checkpoint(asked.checkpoint_id));
        };
        if let Some(once) = &once
            && let Some(outcome) = self.answered(once).await?
        {
            listener.tell(Ok(Told::Done(outcome))).await;
            return Ok(());
        }
        let running = job::find(self.store()).await?;
        if let Some((running, _)) = &running
            && once.is_some()
            && running.once == once
        {
            return self.follow(once, listener).await;
        }
        let plan = self.plan(&asked, &id).await?;
        if !validate_only {
            plan.check(asked.conflict)?;
            if running.is_some() {
                return Err(Error::RestoreInProgress);
            }
        }
        listener.tell(Ok(Told::Plan(plan))).await;
        if validate_only {
            return Ok(());
        }
        let job = Job::new(asked, once);
        let held = Held::begin(self.store(), job).await?;
        self.carry_out(held, listener).await;
        Ok(())
    }

    /// Works a claimed restore off, and tells what became of it.
    async fn carry_out(&self, held: Held, listener: &Listener) {
        let told = self.work(held, listener).await.map(Told::Done);
        match &told {
            // Another replica has it.
            Err(Error::RestoreInProgress) => {}
            Ok(Told::Done(outcome)) => {
                let tally = self.checkpoints.tally();
                tally.restore(outcome.failures.is_empty());
            }
            _ => self.checkpoints.tally().restore(false),
        }
        if let Err(error) = &told {
            tracing::warn!(%error, "restore ended");
        }
        listener.tell(told).await;
    }

    /// Goes on with a restore of the same request: tells what comes of it, or takes it
    /// where nobody works on it.
    async fn follow(&self, once: Option<Once>, listener: &Listener) -> Result<()> {
        loop {
            let Some((job, version)) = job::find(self.store()).await? else {
                let outcome = match &once {
                    Some(once) => self.answered(once).await?,
                    None => None,
                };
                // It may have failed; then it is to be asked for anew.
                let told = outcome.map(Told::Done).ok_or(Error::RequestInProgress);
                listener.tell(told).await;
                return Ok(());
            };
            if job.once != once {
                return Err(Error::RequestInProgress);
            }
            if let Some(held) = Held::take_over(self.store(), job, version).await? {
                self.carry_out(held, listener).await;
                return Ok(());
            }
            listener.progress(&Progress {
                phase: "waiting for the replica that works on it",
                ..Progress::default()
            });
            tokio::time::sleep(POLL).await;
        }
    }

    async fn answered(&self, once: &Once) -> Result<Option<Outcome>> {
        self.tenants.answered(once).await
    }

    /// Goes on with restores that nobody works on any more, for as long as it is polled.
    /// Every replica runs one.
    pub async fn keep_going(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            let taken = async {
                let Some((job, version)) = job::find(self.store()).await? else {
                    return Ok(None);
                };
                Held::take_over(self.store(), job, version).await
            };
            match taken.await {
                Ok(Some(held)) => {
                    tracing::info!("going on with a restore that was cut off");
                    self.carry_out(held, &Listener::nobody()).await;
                }
                Ok(None) => {}
                Err(error) => {
                    let error: Error = error;
                    tracing::debug!(%error, "restores not looked for");
                }
            }
        }
    }
}
