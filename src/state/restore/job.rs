//! The job of a restore: what was asked, how far it is, and who works on it. One at a
//! time in a store. Its version is the fencing token: whatever is saved is refused where
//! another has taken the job since. It does not know how the work is done.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Asked, Outcome};
use crate::{
    error::{Error, Result},
    store::{Batch, Check, Commit, Handle, Incarnation, Key, Refusal, Space, Table, Write},
    tenant::{Homes, Once, record},
};

/// How long a claim lasts.
const CLAIM_MS: u64 = 10_000;

/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(2);

/// A restore under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    format: u32,
    by: String,
    until_ms: u64,
    pub(super) once: Option<Once>,
    pub(super) asked: Asked,
    pub(super) outcome: Outcome,
    /// The last tenant that is done with.
    #[serde(default)]
    pub(super) after: Option<String>,
    /// The tenant that is being worked on.
    #[serde(default)]
    pub(super) at: Option<At>,
}

/// How far a tenant is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct At {
    pub(super) tenant_id: String,
    #[serde(with = "record::incarnation")]
    pub(super) incarnation: Incarnation,
    /// The spaces that are filled for it.
    pub(super) homes: Homes,
    /// Whether its usage comes back too.
    #[serde(default)]
    pub(super) usage: bool,
    pub(super) phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Its new spaces are being filled: whoever comes after begins it anew.
    Filling,
    /// They are whole, and it is being moved there.
    Moving,
    /// It is moved, and these spaces are to be removed.
    Leaving(Vec<String>),
}

impl Job {
    pub(super) fn new(asked: Asked, once: Option<Once>) -> Self {
        Self {
            format: record::RESTORED_FORMAT,
            by: crate::random::BASE32.encode(&crate::random::bytes::<10>()),
            until_ms: 0,
            once,
            asked,
            outcome: Outcome::default(),
            after: None,
            at: None,
        }
    }
}

fn key() -> Key {
    Key::new(Table::Job, &b"x:restore"[..])
}

/// The restore there is, and the version of its record.
pub(super) async fn find(store: &Handle) -> Result<Option<(Job, u64)>> {
    let read = store.read(&Space::registry(), 0, &[key()]).await?;
    match read.records.into_iter().next().flatten() {
        Some(found) => Ok(Some((record::decode(&found.value)?, found.version))),
        None => Ok(None),
    }
}

/// The checkpoint that is being restored, if one is.
///
/// # Errors
/// The store's.
pub async fn restoring(store: &Handle) -> Result<Option<String>> {
    let found = find(store).await?;
    Ok(found.map(|(job, _)| job.asked.checkpoint_id))
}

/// A job in the hands of this replica.
pub(super) struct Held {
    store: Handle,
    pub(super) job: Job,
    version: u64,
    renewed: Instant,
}

impl Held {
    /// Begins a restore.
    pub(super) async fn begin(store: &Handle, job: Job) -> Result<Self> {
        let mut held = Self {
            store: store.clone(),
            job,
            version: 0,
            renewed: Instant::now(),
        };
        held.put(Check::Absent).await?;
        Ok(held)
    }

    /// Takes a restore whose claim is over; `None` where it is not, or another was faster.
    pub(super) async fn take_over(store: &Handle, job: Job, version: u64) -> Result<Option<Self>> {
        if store.now_ms() < job.until_ms {
            return Ok(None);
        }
        let mut held = Self {
            store: store.clone(),
            job: Job {
                by: crate::random::BASE32.encode(&crate::random::bytes::<10>()),
                ..job
            },
            version,
            renewed: Instant::now(),
        };
        match held.save().await {
            Ok(()) => Ok(Some(held)),
            Err(Error::RestoreInProgress) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The write that keeps what is in the job and the claim on it.
    pub(super) fn write(&mut self) -> Result<Write> {
        self.job.until_ms = self.store.now_ms().saturating_add(CLAIM_MS);
        let check = Check::Version(self.version);
        Ok(Write::put(key(), record::encode(&self.job)?).when(check))
    }

    /// Notes that such a write was applied.
    pub(super) fn wrote(&mut self, version: u64) {
        self.version = version;
        self.renewed = Instant::now();
    }

    /// Keeps what is in the job, and the claim on it.
    ///
    /// # Errors
    /// [`Error::RestoreInProgress`] where another has taken it.
    pub(super) async fn save(&mut self) -> Result<()> {
        self.put(Check::Version(self.version)).await
    }

    /// Renews the claim where it is time to.
    ///
    /// # Errors
    /// As [`Held::save`].
    pub(super) async fn keep(&mut self) -> Result<()> {
        if self.renewed.elapsed() < RENEW {
            return Ok(());
        }
        self.save().await
    }

    /// Awaits something, and renews the claim meanwhile.
    ///
    /// # Errors
    /// Those of what is awaited, and as [`Held::save`].
    pub(super) async fn during<T>(
        &mut self,
        awaited: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut awaited = std::pin::pin!(awaited);
        loop {
            tokio::select! {
                done = &mut awaited => return done,
                () = tokio::time::sleep(RENEW) => self.save().await?,
            }
        }
    }

    /// Ends the restore, with its answer for the request that asked for it.
    pub(super) async fn end(self) -> Result<Outcome> {
        let Job { once, outcome, .. } = self.job;
        let gone = Write::delete(key()).when(Check::Version(self.version));
        let answer = once.map(|once| once.write(&outcome)).transpose()?;
        let batch = Batch::of([gone].into_iter().chain(answer));
        match self.store.commit(&Space::registry(), batch).await? {
            Commit::Applied(_) => Ok(outcome),
            Commit::Refused(_) => Err(Error::RestoreInProgress),
        }
    }

    /// Ends a restore that came to nothing: whoever asks again begins another.
    pub(super) async fn give_up(self) -> Result<()> {
        let gone = Write::delete(key()).when(Check::Version(self.version));
        self.store
            .commit(&Space::registry(), Batch::of([gone]))
            .await?;
        Ok(())
    }

    async fn put(&mut self, check: Check) -> Result<()> {
        self.job.until_ms = self.store.now_ms().saturating_add(CLAIM_MS);
        let write = Write::put(key(), record::encode(&self.job)?).when(check);
        match self
            .store
            .commit(&Space::registry(), Batch::of([write]))
            .await?
        {
            Commit::Applied(applied) => {
                if let Some(crate::store::Outcome::Done { version, .. }) = applied.outcomes.first()
                {
                    self.wrote(*version);
                }
                Ok(())
            }
            Commit::Refused(Refusal::Conflict { .. }) => Err(Error::RestoreInProgress),
            Commit::Refused(refusal) => Err(Error::Internal(format!(
                "the store refused a commit of the registry: {refusal:?}"
            ))),
        }
    }
}
