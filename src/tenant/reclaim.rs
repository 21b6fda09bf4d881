//! Background work that gives back the bytes of records nobody can reach any
//! more. It does not know why they became unreachable.
//!
//! Whoever is about to make records unreachable leaves a job first, so that the
//! bytes come back even if the replica dies in between. Every replica looks for
//! jobs; one claims a job for `CLAIM_MS` and renews the claim while it works,
//! and when it dies another begins the job anew: what was removed stays removed.
//! A cursor is not kept with the job, as a place in a scan means nothing to
//! another server after a failover.

mod claimed;

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::claimed::Claimed;
use super::{
    Tenancy,
    record::{self, incarnation},
};
use crate::{
    error::{Error, Result},
    random,
    store::{Batch, Check, Handle, Incarnation, Key, Query, Space, Table, Write},
};

/// How often jobs are looked for.
const EVERY: Duration = Duration::from_secs(1);

/// A job whose step did not follow in this time was left by a replica that died
/// before it.
const ABANDONED_MS: u64 = 60_000;

/// How long after its job was left the step may be on its way that hides entries.
/// Then the sweep sees to it that it does not come any more.
const SETTLED_MS: u64 = 10_000;

const PREFIX: &str = "r:";

/// What has become unreachable in a tenant's space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Entries of generations below this one, which the space must have reached:
    /// before it has, the job waits, and is dropped if it never does.
    Orphans {
        /// The generation after the step.
        below: u64,
    },
    /// Entries of the present generation whose path begins so (`<namespace>:`)
    /// and whose version is at most this. Leaving the job is the decision that
    /// they go: it is carried out whatever becomes of the step that follows.
    Below {
        /// The beginning of their paths.
        prefix: String,
        /// The last version that is unreachable.
        version: u64,
    },
    /// Entries of the present generation that are hidden, by what the space itself
    /// tells: for a [`Sweep`] to remove.
    Hidden,
    /// Every record: the space was removed.
    Removed,
}

/// Removes entries that only whoever knows what an entry is can tell to be hidden.
pub trait Sweep: Send + Sync + 'static {
    /// A walk over a space.
    type Walk: Send;

    /// Begins a walk; `None` where nothing is hidden.
    fn begin(
        &self,
        store: &Handle,
        site: &Site,
    ) -> impl Future<Output = Result<Option<Self::Walk>>> + Send;

    /// Goes on with it, over a bounded number of entries. False at the end, when what
    /// was hidden as it began is removed, and no longer noted as hidden.
    fn step(
        &self,
        store: &Handle,
        site: &Site,
        walk: &mut Self::Walk,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Makes sure that nothing is hidden from now on by a step that relies on a job
    /// that was left before. False where something is hidden.
    fn bar(&self, store: &Handle, site: &Site) -> impl Future<Output = Result<bool>> + Send;
}

impl Work {
    /// Whether there is nothing left to do for the other once this is done.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Removed, _) => true,
            (Self::Orphans { below }, Self::Orphans { below: other }) => other <= below,
            (
                Self::Below { prefix, version },
                Self::Below {
                    prefix: other_prefix,
                    version: other,
                },
            ) => prefix == other_prefix && other <= version,
            _ => false,
        }
    }

    /// Sorts whatever covers another before it.
    fn narrowness(&self) -> (u8, Reverse<u64>) {
        match self {
            Self::Removed => (0, Reverse(0)),
            Self::Orphans { below } => (1, Reverse(*below)),
            Self::Below { version, .. } => (2, Reverse(*version)),
            Self::Hidden => (3, Reverse(0)),
        }
    }
}

/// Names a job that was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobId(Bytes);

/// Where there is work: a space, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// The tenant's life.
    pub incarnation: Incarnation,
    /// One of its spaces.
    pub space: Space,
}

impl From<Incarnation> for Site {
    /// The first space of a tenant's cache.
    fn from(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            space: Space::tenant(incarnation),
        }
    }
}

impl From<&Tenancy> for Site {
    fn from(tenancy: &Tenancy) -> Self {
        Self {
            incarnation: tenancy.incarnation,
            space: tenancy.space.clone(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    format: u32,
    #[serde(with = "incarnation")]
    incarnation: Incarnation,
    /// The space, where it is another than the first of the tenant's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    space: Option<String>,
    work: Work,
    create_ms: u64,
    #[serde(default)]
    claim: Option<Claim>,
}

impl Job {
    /// Where the work is; `None` where that is no place of a tenant.
    fn site(&self) -> Option<Site> {
        let space = match &self.space {
            Some(name) => Space::of_a_tenant(name)?,
            None => Space::tenant(self.incarnation),
        };
        Some(Site {
            incarnation: self.incarnation,
            space,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Claim {
    by: String,
    until_ms: u64,
}

/// Leaves a job for the background. Call it before the step that makes the
/// records unreachable.
///
/// # Errors
/// Those of the store; then the step must not be taken.
pub async fn enqueue(store: &Handle, site: impl Into<Site>, work: Work) -> Result<JobId> {
    let (id, write) = job(store, site, work)?;
    super::applied(store.commit(&Space::registry(), Batch::of([write])).await?)?;
    Ok(id)
}

/// A job as a write, for a commit in the registry that does more.
pub(super) fn job(store: &Handle, site: impl Into<Site>, work: Work) -> Result<(JobId, Write)> {
    let Site { incarnation, space } = site.into();
    let name = random::BASE32.encode(&random::bytes::<10>());
    let path = Bytes::from(format!("{PREFIX}{}:{name}", space.name()));
    let is_first = space == Space::tenant(incarnation);
    let job = Job {
        // One that a release would do elsewhere that knows no other space.
        format: if is_first {
            record::FORMAT
        } else {
            record::RESTORED_FORMAT
        },
        incarnation,
        space: (!is_first).then(|| space.name().to_owned()),
        work,
        create_ms: store.now_ms(),
        claim: None,
    };
    let write = Write::put(Key::new(Table::Job, path.clone()), record::encode(&job)?);
    Ok((JobId(path), write))
}

/// Takes a job back whose step was not taken.
///
/// # Errors
/// Those of the store.
pub async fn withdraw(store: &Handle, id: &JobId) -> Result<()> {
    let write = Write::delete(Key::new(Table::Job, id.0.clone()));
    super::applied(store.commit(&Space::registry(), Batch::of([write])).await?)?;
    Ok(())
}

/// The work that waits or is being done in a tenant's space.
///
/// # Errors
/// Those of the store.
pub async fn pending(store: &Handle, site: impl Into<Site>) -> Result<Vec<Work>> {
    let space = site.into().space;
    let jobs = list(store, &format!("{PREFIX}{}:", space.name())).await?;
    Ok(jobs.into_iter().map(|(_, _, job, _)| job.work).collect())
}

/// Works jobs off, for as long as it is polled. Every replica runs one.
pub async fn run(store: Handle, sweep: impl Sweep) {
    let me = random::BASE32.encode(&random::bytes::<10>());
    loop {
        if let Err(error) = pass(&store, &sweep, &me).await {
            tracing::debug!(%error, "reclaim interrupted");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Works off every job that is ready and not claimed by another.
///
/// # Errors
/// Those of the store; what was not done is left for the next pass.
async fn pass(store: &Handle, sweep: &impl Sweep, me: &str) -> Result<()> {
    let mut jobs = list(store, PREFIX).await?;
    // The widest first, as it does the work of the others: a tenant that is
    // flushed over and over is scanned once.
    jobs.sort_by_key(|(_, _, job, _)| job.work.narrowness());
    let now_ms = store.now_ms();
    let claimed_by_another = |job: &Job| {
        let held = |claim: &Claim| claim.by != me && now_ms < claim.until_ms;
        job.claim.as_ref().is_some_and(held)
    };
    let mut swept: HashSet<Site> = jobs
        .iter()
        .filter(|(_, _, job, _)| job.work == Work::Hidden && claimed_by_another(job))
        .map(|(_, _, _, site)| site.clone())
        .collect();
    let mut done: HashMap<Site, Vec<Work>> = HashMap::new();
    for (path, version, job, site) in jobs {
        // One sweep removes all that is hidden in a space.
        let sweeps = job.work == Work::Hidden;
        if claimed_by_another(&job) || sweeps && !swept.insert(site.clone()) {
            continue;
        }
        let done = done.entry(site.clone()).or_default();
        let abandoned = store.now_ms() > job.create_ms.saturating_add(ABANDONED_MS);
        if done.iter().any(|work| work.covers(&job.work)) {
            remove(store, path, version).await?;
        } else if is_ready(store, &site.space, &job.work).await? {
            let (work, incarnation) = (job.work.clone(), job.incarnation);
            let claimed = Claimed::new(path, version, job, site, me);
            let worked = if sweeps {
                claimed.sweep(store, sweep).await
            } else {
                claimed.work_off(store, None).await
            };
            match worked {
                Ok(true) => done.push(work),
                Ok(false) => {}
                Err(error @ (Error::StoreUnavailable | Error::OutcomeUnknown)) => {
                    return Err(error);
                }
                // What is wrong with one job does not keep the others.
                Err(error) => tracing::warn!(?error, %incarnation, "reclaim job failed"),
            }
        } else if abandoned {
            remove(store, path, version).await?;
        }
    }
    Ok(())
}

/// Removes a job, unless another has claimed it meanwhile; that one will.
async fn remove(store: &Handle, path: Bytes, version: u64) -> Result<()> {
    let write = Write::delete(Key::new(Table::Job, path)).when(Check::Version(version));
    store.commit(&Space::registry(), Batch::of([write])).await?;
    Ok(())
}

/// Works one job off right away, for at most so long; whether it is done. What
/// is left stays with the background.
pub(super) async fn at_once(store: &Handle, id: &JobId, within: Duration) -> Result<bool> {
    let key = Key::new(Table::Job, id.0.clone());
    let read = store.read(&Space::registry(), 0, &[key]).await?;
    let Some(found) = read.records.into_iter().next().flatten() else {
        return Ok(true);
    };
    let job: Job = record::decode(&found.value)?;
    let site = job.site().ok_or_else(nowhere)?;
    let me = random::BASE32.encode(&random::bytes::<10>());
    let claimed = Claimed::new(id.0.clone(), found.version, job, site, &me);
    claimed.work_off(store, Some(Instant::now() + within)).await
}

async fn is_ready(store: &Handle, space: &Space, work: &Work) -> Result<bool> {
    match work {
        Work::Below { .. } | Work::Hidden | Work::Removed => Ok(true),
        Work::Orphans { below } => {
            let any = Key::new(Table::Control, &b"floors"[..]);
            Ok(store.read(space, 0, &[any]).await?.view.generation >= *below)
        }
    }
}

fn nowhere() -> Error {
    Error::Internal("a reclaim job is for no space of a tenant".into())
}

async fn list(store: &Handle, prefix: &str) -> Result<Vec<(Bytes, u64, Job, Site)>> {
    let mut jobs = Vec::new();
    let mut query = Query {
        table: Table::Job,
        generation: 0,
        prefix: Bytes::copy_from_slice(prefix.as_bytes()),
        after: None,
        limit: 100,
        value_bytes: 64 * 1024,
    };
    loop {
        let page = store.list(&Space::registry(), query.clone()).await?;
        for item in page.items {
            let job = record::decode(&item.record.value)
                .and_then(|job: Job| Ok((job.site().ok_or_else(nowhere)?, job)));
            match job {
                Ok((site, job)) => jobs.push((item.path, item.record.version, job, site)),
                // One of a later version of this service is left to it.
                Err(error) => tracing::warn!(%error, "reclaim job not understood"),
            }
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(jobs),
        }
    }
}
