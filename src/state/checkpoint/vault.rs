//! The checkpoints of a service: who asks for one, and how it begins and ends. It does
//! not know what the parts of a checkpoint look like, nor which others there are.

use std::{fmt, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle as Runtime, sync::watch, task::JoinHandle};
use tokio_util::task::TaskTracker;

use super::{
    Cause, Checkpoint, CheckpointId, Component, Hidden, Part, Progress, Tally, Wanted,
    taking::Taking,
    turn::{self, Turn, Work},
};
use crate::{
    error::{Error, Result, Violations},
    state::{Configuration, objects::Objects},
    store::{Check, Handle, Space, Write},
    tenant::{Once, Tenants, id},
};

/// Bytes of a description.
const MAX_DESCRIPTION_BYTES: usize = 1024;

/// Tenants that a checkpoint can be asked for by name.
const MAX_TENANTS: usize = 10_000;

/// How long what was written of one that failed may take to go, before its caller is told.
const REMOVED: std::time::Duration = std::time::Duration::from_secs(5);

/// What checkpoints are taken with; see [`Checkpoints`].
pub(super) struct Vault {
    pub(super) objects: Objects,
    pub(super) store: Handle,
    pub(super) tenants: Tenants,
    pub(super) hidden: Arc<dyn Hidden>,
    pub(super) configuration: Arc<Configuration>,
    /// This replica, in claims.
    pub(super) me: String,
    pub(super) tally: Arc<Tally>,
}

/// The checkpoints of a service. Cheap to clone. All its work is done in the runtime it
/// was made in, away from whoever calls: a checkpoint goes on when its caller leaves.
#[derive(Clone)]
pub struct Checkpoints {
    pub(super) vault: Arc<Vault>,
    runtime: Runtime,
    /// Those that are being taken here.
    taking: TaskTracker,
}

/// A checkpoint that was asked for.
#[derive(Debug)]
pub enum Created {
    /// It is being taken.
    Begun(Begun),
    /// It was taken before, for the same request.
    Before(Box<Checkpoint>),
}

/// A checkpoint that is being taken; it goes on when this is dropped.
#[derive(Debug)]
pub struct Begun {
    /// Its id.
    pub id: CheckpointId,
    /// How far it is.
    pub progress: watch::Receiver<Progress>,
    /// What it came to.
    pub outcome: JoinHandle<Result<Checkpoint>>,
}

/// The answer to a request, as it is kept: which checkpoint it began.
#[derive(Serialize, Deserialize)]
struct Answer {
    checkpoint_id: String,
}

impl Checkpoints {
    /// The checkpoints in this object store, of what is in this store; how they end is
    /// counted there. To be called in the runtime that is to do the work.
    pub fn new(
        objects: Objects,
        tenants: Tenants,
        hidden: Arc<dyn Hidden>,
        configuration: Arc<Configuration>,
        tally: Arc<Tally>,
    ) -> Self {
        let vault = Vault {
            objects,
            store: tenants.store().clone(),
            tenants,
            hidden,
            configuration,
            me: crate::random::BASE32.encode(&crate::random::bytes::<10>()),
            tally,
        };
        Self {
            vault: Arc::new(vault),
            runtime: Runtime::current(),
            taking: TaskTracker::new(),
        }
    }

    /// Does this work where checkpoints are worked on.
    pub(super) async fn away<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let done = self.runtime.spawn(work).await;
        done.unwrap_or_else(|error| Err(interrupted(&error)))
    }

    /// Waits until what is being taken here is done.
    pub async fn finish(&self) {
        self.taking.close();
        self.taking.wait().await;
    }

    /// How checkpoints and restores ended here.
    pub fn tally(&self) -> &Tally {
        &self.vault.tally
    }

    /// The object store.
    pub fn objects(&self) -> &Objects {
        &self.vault.objects
    }

    /// Begins a checkpoint.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`] for a tenant that does not exist,
    /// [`Error::RequestIdReused`], [`Error::RequestInProgress`] while another one is
    /// taken; those of both stores.
    pub async fn create(
        &self,
        wanted: Wanted,
        request_id: &str,
        mut violations: Violations,
    ) -> Result<Created> {
        let content = (&wanted.tenant_ids, &wanted.components, &wanted.description);
        let once = Once::of("CreateCheckpoint", request_id, &content, &mut violations)?;
        violations.require(
            wanted.description.len() <= MAX_DESCRIPTION_BYTES,
            "description",
            "longer than 1024 bytes",
        );
        violations.require(
            wanted.tenant_ids.len() <= MAX_TENANTS,
            "tenant_ids",
            "more than 10000: leave them empty to take all",
        );
        for (at, tenant_id) in wanted.tenant_ids.iter().enumerate() {
            if !id::is_valid(tenant_id) {
                violations.add(format!("tenant_ids[{at}]"), "not the id of a tenant");
            }
        }
        violations.check()?;
        let this = self.clone();
        self.away(async move { this.begin(wanted, once).await })
            .await
    }

    async fn begin(&self, wanted: Wanted, once: Option<Once>) -> Result<Created> {
        let vault = &self.vault;
        let mut writes = Vec::new();
        if let Some(once) = &once {
            let read = vault
                .store
                .read(&Space::registry(), 0, &[once.key()])
                .await?;
            let found = read.records.into_iter().next().flatten();
            if let Some(found) = &found {
                let answer: Answer = once.replay(found)?;
                if let Some(before) = self.begun_before(&answer).await? {
                    return Ok(Created::Before(Box::new(before)));
                }
                // Whoever took it died before it was whole.
                let check = Check::Version(found.version);
                writes.push((check, once));
            } else {
                writes.push((Check::Absent, once));
            }
        }
        for tenant_id in &wanted.tenant_ids {
            if vault.tenants.registered(tenant_id).await?.is_none() {
                return Err(Error::no_tenant(tenant_id));
            }
        }
        let create_ms = vault.store.now_ms();
        let id = CheckpointId::new(create_ms);
        let answer = Answer {
            checkpoint_id: id.to_string(),
        };
        let writes: Result<Vec<Write>> = writes
            .into_iter()
            .map(|(check, once)| Ok(once.rewrite(&answer)?.when(check)))
            .collect();
        let begun = self.start(wanted, id, create_ms, writes?).await?;
        Ok(Created::Begun(begun))
    }

    /// The checkpoint that a request began, if it is whole.
    async fn begun_before(&self, answer: &Answer) -> Result<Option<Checkpoint>> {
        let Ok(id) = CheckpointId::parse(&answer.checkpoint_id) else {
            return Err(Error::Internal("a request kept no id".into()));
        };
        match self.find(&id).await? {
            Some(found) if found.complete => Ok(Some(found)),
            _ if self.is_running(&id).await? => Err(Error::RequestInProgress),
            _ => Ok(None),
        }
    }

    /// Takes the turn, with these writes in the same commit, and begins.
    pub(super) async fn start(
        &self,
        wanted: Wanted,
        id: CheckpointId,
        create_ms: u64,
        writes: Vec<Write>,
    ) -> Result<Begun> {
        let vault = self.vault.clone();
        let turn = Turn::take(&vault.store, Work::Taking, &id, &vault.me, writes).await?;
        let (progress, told) = watch::channel(Progress::default());
        let this = self.clone();
        let of = id.clone();
        let work = self.taking.track_future(async move {
            let taken = this.take(turn, &wanted, &of, create_ms, &progress).await;
            if let Err(error) = &taken {
                tracing::warn!(checkpoint = %of, ?error, "checkpoint not taken");
            }
            taken
        });
        let outcome = self.runtime.spawn(work);
        Ok(Begun {
            id,
            progress: told,
            outcome,
        })
    }

    /// Takes a checkpoint in this turn. Where it cannot be, what was written goes.
    async fn take(
        &self,
        mut turn: Turn,
        wanted: &Wanted,
        id: &CheckpointId,
        create_ms: u64,
        progress: &watch::Sender<Progress>,
    ) -> Result<Checkpoint> {
        let vault = &self.vault;
        let began = Instant::now();
        let taking = Taking::new(vault, id, wanted, create_ms, progress);
        let written = tokio::select! {
            written = taking.run() => written,
            lost = turn.keep() => Err(lost),
        };
        let finished = async {
            let manifest = written?;
            // Nobody else has had a turn since it began.
            turn.renew().await?;
            if !vault.objects.create(id, Part::Manifest, manifest).await? {
                return Err(Error::Internal(format!("{id} has a manifest already")));
            }
            let found = self.find(id).await?;
            found.ok_or_else(|| Error::no_checkpoint(id.as_str()))
        };
        let finished = finished.await;
        if finished.is_err() {
            let removed = tokio::time::timeout(REMOVED, vault.objects.remove_all(id)).await;
            if !matches!(removed, Ok(Ok(()))) {
                tracing::warn!(checkpoint = %id, ?removed, "an unfinished checkpoint stays");
            }
        }
        turn.end().await;
        vault
            .tally
            .checkpoint(wanted.cause, began.elapsed(), finished.as_ref().ok());
        if let Ok(taken) = &finished {
            let tenants = taken
                .manifest
                .as_ref()
                .map_or(0, |manifest| manifest.tenants);
            let (cause, bytes) = (wanted.cause, taken.size_bytes);
            tracing::info!(checkpoint = %id, ?cause, tenants, bytes, "checkpoint taken");
        }
        finished
    }

    /// Whether a checkpoint is being taken.
    pub(super) async fn is_running(&self, id: &CheckpointId) -> Result<bool> {
        self.is_in_turn(Work::Taking, id).await
    }

    /// Whether this is being done to a checkpoint.
    pub(super) async fn is_in_turn(&self, work: Work, id: &CheckpointId) -> Result<bool> {
        let (running, _) = turn::now(&self.vault.store, work).await?;
        Ok(running.is_some_and(|running| running.checkpoint_id == id.as_str()))
    }

    /// The components of a request: those that are taken where none is named, where it
    /// names none.
    pub fn components(named: impl IntoIterator<Item = Component>) -> Wanted {
        let mut components: std::collections::BTreeSet<_> = named.into_iter().collect();
        if components.is_empty() {
            components.extend(Component::DEFAULT);
        }
        Wanted {
            tenant_ids: Vec::new(),
            components,
            description: String::new(),
            cause: Cause::Manual,
        }
    }
}

pub(super) fn interrupted(error: &tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        Error::Draining
    } else {
        Error::Internal(format!("work on checkpoints ended: {error}"))
    }
}

impl fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Checkpoints")
            .field(&self.vault.objects)
            .finish()
    }
}
