//! A job in the hands of one replica: its claim, and the work at a pace that leaves
//! the store to its callers. It does not know how jobs are found.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Claim, Job, SETTLED_MS, Site, Sweep, Work, remove};
use crate::{
    error::Result,
    store::{
        Batch, Check, Commit, Cursor, Handle, Key, Outcome, Reclaim, Refusal, Space, Table, Write,
    },
    tenant::{record, unexpected},
};

/// How long a claim on a job lasts.
const CLAIM_MS: u64 = 10_000;

/// How often a claim is renewed.
const RENEW: Duration = Duration::from_secs(2);

/// Records looked at in one call: few, as the embedded store's one writer does nothing
/// else meanwhile, and an invalidation of a tenant of a million waits for it.
const STEP: usize = 64;

/// The longest rest between two steps.
const MAX_REST: Duration = Duration::from_millis(50);

/// No generation is greater (2^53 - 1, so that every store can compare it).
const EVERY_GENERATION: u64 = 9_007_199_254_740_991;

/// A job that this worker is about to claim, or has claimed.
pub(super) struct Claimed {
    path: Bytes,
    version: u64,
    job: Job,
    site: Site,
    me: String,
    /// When it was claimed last.
    claimed: Instant,
}

impl Claimed {
    /// A job that was found at this version.
    pub(super) fn new(path: Bytes, version: u64, job: Job, site: Site, me: &str) -> Self {
        Self {
            path,
            version,
            job,
            site,
            me: me.to_owned(),
            claimed: Instant::now(),
        }
    }

    /// Does the work, until it is done or the time is over. False where there is
    /// work left, or another took the job.
    pub(super) async fn work_off(mut self, store: &Handle, until: Option<Instant>) -> Result<bool> {
        let what = match &self.job.work {
            // A sweep's.
            Work::Hidden => return Ok(false),
            Work::Orphans { below } => Reclaim::Orphans { below: *below },
            Work::Below { prefix, version } => Reclaim::Below {
                prefix: prefix.clone().into_bytes().into(),
                version: *version,
            },
            Work::Removed => Reclaim::Orphans {
                below: EVERY_GENERATION,
            },
        };
        if !self.claim(store).await? {
            return Ok(false);
        }
        let mut after: Option<Cursor> = None;
        let (mut entries, mut bytes) = (0, 0);
        loop {
            let began = Instant::now();
            let reclaimed = store
                .reclaim(&self.site.space, what.clone(), after, STEP)
                .await?;
            entries += reclaimed.entries;
            bytes += reclaimed.bytes;
            after = reclaimed.next;
            if after.is_none() {
                remove(store, self.path.clone(), self.version).await?;
                tracing::debug!(incarnation = %self.job.incarnation, entries, bytes, "reclaimed");
                return Ok(true);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                self.release(store).await?;
                return Ok(false);
            }
            if !self.keep(store).await? {
                return Ok(false);
            }
            pace(began).await;
        }
    }

    /// Removes what is hidden in the space, until nothing is. False where there is
    /// work left, or another took the job.
    pub(super) async fn sweep(mut self, store: &Handle, sweep: &impl Sweep) -> Result<bool> {
        let site = self.site.clone();
        let Some(mut walk) = sweep.begin(store, &site).await? else {
            // What the job was left for is removed, or still on its way.
            let settled = self.job.create_ms.saturating_add(SETTLED_MS) < store.now_ms();
            if settled && sweep.bar(store, &site).await? {
                remove(store, self.path, self.version).await?;
            }
            return Ok(false);
        };
        if !self.claim(store).await? {
            return Ok(false);
        }
        loop {
            let began = Instant::now();
            if !sweep.step(store, &site, &mut walk).await? {
                // More may have been hidden meanwhile. Where nothing is, a step that
                // was on its way when this job was left has been taken or overtaken.
                match sweep.begin(store, &site).await? {
                    Some(another) => walk = another,
                    None => break,
                }
            }
            if !self.keep(store).await? {
                return Ok(false);
            }
            pace(began).await;
        }
        remove(store, self.path, self.version).await?;
        Ok(true)
    }

    /// Renews the claim where it is time; false where another has it.
    async fn keep(&mut self, store: &Handle) -> Result<bool> {
        Ok(self.claimed.elapsed() <= RENEW || self.claim(store).await?)
    }

    /// Claims the job, or renews the claim; false where another was faster.
    async fn claim(&mut self, store: &Handle) -> Result<bool> {
        let until_ms = store.now_ms().saturating_add(CLAIM_MS);
        self.job.claim = Some(Claim {
            by: self.me.clone(),
            until_ms,
        });
        self.claimed = Instant::now();
        self.save(store).await
    }

    /// Gives the claim up, so that the background need not wait for its end.
    async fn release(&mut self, store: &Handle) -> Result<()> {
        self.job.claim = None;
        self.save(store).await?;
        Ok(())
    }

    async fn save(&mut self, store: &Handle) -> Result<bool> {
        let key = Key::new(Table::Job, self.path.clone());
        let write = Write::put(key, record::encode(&self.job)?).when(Check::Version(self.version));
        match store.commit(&Space::registry(), Batch::of([write])).await? {
            Commit::Applied(applied) => {
                if let Some(Outcome::Done { version, .. }) = applied.outcomes.first() {
                    self.version = *version;
                }
                Ok(true)
            }
            Commit::Refused(Refusal::Conflict { .. }) => Ok(false),
            Commit::Refused(refusal) => Err(unexpected(&refusal)),
        }
    }
}

/// At most half of the store's time goes to work that can wait.
async fn pace(began: Instant) {
    let rest = began.elapsed().clamp(Duration::from_millis(1), MAX_REST);
    tokio::time::sleep(rest).await;
}
