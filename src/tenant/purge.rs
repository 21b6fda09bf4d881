//! A deleted tenant leaves for good: its entries, its sessions, its API keys, itself. It does
//! not know how bytes leave the store; that is `reclaim`'s work.
//!
//! The steps are ordered so that whoever finds a purge half done can finish it:
//! 1. the tenant is marked and loses its data keys, and a job is left with how its
//!    meters stand, in one commit; from here nothing brings the tenant back;
//! 2. its billing periods are closed, the last as the meters stood then;
//! 3. its spaces are removed: no entry and no session can be read or written any more,
//!    and its meters are gone;
//! 4. its API keys go, page by page, each page in one commit with the job's count;
//! 5. the tenant and the job go, and jobs take their place, in one commit: one to reclaim
//!    the bytes, one to make unreadable what is kept of it elsewhere.

mod api_keys;
pub mod elsewhere;
mod overdue;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Change, Tenant, Tenants,
    billing::Segment,
    id,
    once::Once,
    reclaim,
    record::{self, State, incarnation},
};
use crate::{
    error::{Error, Result},
    store::{
        Applied, Batch, Check, Commit, Incarnation, Key, Refusal, Space, Step, Table, Usage, Write,
    },
};

/// How long a purge waits for the bytes to leave before it answers PENDING.
const AT_ONCE: Duration = Duration::from_secs(1);

const DUE: &str = "d:";
const PURGE: &str = "p:";

/// What a purge removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeReport {
    /// Cache entries held when the tenant was purged.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sessions held then.
    #[serde(default)]
    pub sessions: u64,
    /// Their bytes.
    #[serde(default)]
    pub session_bytes: u64,
    /// API keys removed.
    pub api_keys: u64,
    /// Whether there were data keys, which are gone.
    #[serde(default)]
    pub data_keys: bool,
    /// Whether the bytes have left the store already.
    pub reclaimed: bool,
    /// Whether what checkpoints hold of it is unreadable already.
    #[serde(default)]
    pub forgotten: bool,
}

/// A tenant to be purged when its time has come.
#[derive(Serialize, Deserialize)]
struct Due {
    format: u32,
    tenant_id: String,
}

/// A purge under way.
#[derive(Clone, Serialize, Deserialize)]
struct Purge {
    format: u32,
    tenant_id: String,
    #[serde(with = "incarnation")]
    incarnation: Incarnation,
    create_ms: u64,
    /// What the space held when the purge began, for whoever finishes it after
    /// another removed the space.
    entries: u64,
    bytes: u64,
    /// The same of that of its sessions.
    #[serde(default)]
    sessions: u64,
    #[serde(default)]
    session_bytes: u64,
    /// API keys removed so far.
    api_keys: u64,
    /// The request that began it: whoever finishes it records the answer.
    #[serde(default)]
    once: Option<Once>,
    /// Whether it had data keys.
    #[serde(default)]
    data_keys: bool,
    /// What its bill ends with; a job of an older version has none.
    #[serde(default)]
    end: Option<Segment>,
}

/// Notes that a tenant is to be purged at this time.
pub(super) fn due(tenant_id: &str, purge_ms: u64) -> Result<Write> {
    let due = Due {
        format: record::FORMAT,
        tenant_id: tenant_id.to_owned(),
    };
    Ok(Write::put(
        due_key(tenant_id, purge_ms),
        record::encode(&due)?,
    ))
}

/// Where it is noted. Listed in the order of time.
pub(super) fn due_key(tenant_id: &str, purge_ms: u64) -> Key {
    Key::new(
        Table::Job,
        format!("{DUE}{purge_ms:020}:{tenant_id}").into_bytes(),
    )
}

fn purge_key(tenant_id: &str) -> Key {
    Key::new(Table::Job, format!("{PURGE}{tenant_id}").into_bytes())
}

impl Tenants {
    /// Removes a deleted tenant for good. A purge that was interrupted is
    /// finished by asking again, and by the background.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::ConditionNotMet`] where it is not deleted,
    /// [`Error::EtagMismatch`], [`Error::RequestIdReused`],
    /// [`Error::RequestInProgress`] where another purges it right now; those of
    /// the store.
    pub async fn purge(&self, tenant_id: &str, mut change: Change) -> Result<PurgeReport> {
        let once = Once::of(
            "PurgeTenant",
            &change.request_id,
            &(tenant_id, &change.etag),
            &mut change.violations,
        )?;
        change
            .violations
            .require(!tenant_id.is_empty(), "tenant_id", "empty: name the tenant");
        change.violations.check()?;
        if !id::is_valid(tenant_id) {
            return Err(Error::no_tenant(tenant_id));
        }
        let key = record::tenant_key(tenant_id);
        let (found, answered) = self.find_or_replay(key.clone(), once.as_ref()).await?;
        if let Some(report) = answered {
            return Ok(report);
        }
        let found = found.ok_or_else(|| Error::no_tenant(tenant_id))?;
        let tenant: Tenant = record::decode(&found.value)?;
        // A purge that has begun changed the etag: whoever began it may finish it.
        let begun = tenant.purging && self.begun_by(tenant_id, once.as_ref()).await?;
        if !begun && !change.etag.is_empty() && change.etag != tenant.etag {
            return Err(Error::EtagMismatch);
        }
        if tenant.state() != State::Deleted {
            return Err(Error::ConditionNotMet {
                subject: format!("tenant {tenant_id}"),
                description: "it is not deleted: delete it first".into(),
            });
        }
        if change.validate_only {
            let (held, sessions) = self.held(&tenant).await?;
            let api_keys = self.count_api_keys(tenant.incarnation).await?;
            return Ok(PurgeReport {
                entries: held.entries,
                bytes: held.bytes,
                sessions: sessions.entries,
                session_bytes: sessions.bytes,
                api_keys,
                data_keys: tenant.encryption.is_some(),
                reclaimed: false,
                forgotten: false,
            });
        }
        if !tenant.purging {
            self.begin(tenant, found.version, once.clone()).await?;
        }
        match self.finish(tenant_id, once.as_ref()).await {
            // Another finished it, and left the answer where this was its request.
            Err(error @ Error::NotFound { .. }) => {
                let (_, answered) = self.find_or_replay(key, once.as_ref()).await?;
                answered.ok_or(error)
            }
            finished => finished,
        }
    }

    /// Whether it is this request that began a purge.
    async fn begun_by(&self, tenant_id: &str, once: Option<&Once>) -> Result<bool> {
        if once.is_none() {
            return Ok(false);
        }
        let read = self
            .store
            .read(&Space::registry(), 0, &[purge_key(tenant_id)])
            .await?;
        let Some(job) = read.records.into_iter().next().flatten() else {
            return Ok(false);
        };
        let purge: Purge = record::decode(&job.value)?;
        Ok(purge.once.as_ref() == once)
    }

    /// Step 1.
    async fn begin(&self, mut tenant: Tenant, version: u64, once: Option<Once>) -> Result<()> {
        let (held, sessions) = self.held(&tenant).await?;
        let end = self.readings(&tenant).await?;
        let now_ms = self.store.now_ms();
        tenant.purging = true;
        // With them goes whatever anybody may still have of its values.
        let data_keys = tenant.encryption.as_mut().map(|e| e.data_keys.clear());
        tenant.changed(now_ms);
        let purge = Purge {
            format: record::FORMAT,
            tenant_id: tenant.tenant_id.clone(),
            incarnation: tenant.incarnation,
            create_ms: now_ms,
            entries: held.entries,
            bytes: held.bytes,
            sessions: sessions.entries,
            session_bytes: sessions.bytes,
            api_keys: 0,
            once,
            data_keys: data_keys.is_some(),
            end: Some(Segment::last(end)),
        };
        let due = tenant
            .purge_ms
            .map(|ms| Write::delete(due_key(&tenant.tenant_id, ms)));
        let key = record::tenant_key(&tenant.tenant_id);
        let writes = [
            Write::put(key.clone(), record::encode(&tenant)?).when(Check::Version(version)),
            Write::put(purge_key(&tenant.tenant_id), record::encode(&purge)?),
        ];
        match self
            .store
            .commit(&Space::registry(), Batch::of(writes.into_iter().chain(due)))
            .await?
        {
            Commit::Applied(_) => {
                self.directory.drop_key(&key);
                Ok(())
            }
            Commit::Refused(Refusal::Conflict { .. }) => Err(Error::RequestInProgress),
            Commit::Refused(refusal) => Err(super::unexpected(&refusal)),
        }
    }

    /// Steps 2 to 5, as far as they are still to be done.
    async fn finish(&self, tenant_id: &str, once: Option<&Once>) -> Result<PurgeReport> {
        let registry = Space::registry();
        let keys = [record::tenant_key(tenant_id), purge_key(tenant_id)];
        let mut found = self
            .store
            .read(&registry, 0, &keys)
            .await?
            .records
            .into_iter();
        let (Some(tenant), Some(job)) = (found.next().flatten(), found.next().flatten()) else {
            // Another finished it a moment ago.
            return Err(Error::no_tenant(tenant_id));
        };
        let mut purge: Purge = record::decode(&job.value)?;

        let leaving: Tenant = record::decode(&tenant.value)?;
        let end = match &purge.end {
            Some(end) => end.readings(),
            None => self.readings(&leaving).await?,
        };
        self.close_for_good(&leaving, end).await?;

        if let Some(removed) = self.remove(&leaving.space()).await? {
            (purge.entries, purge.bytes) = (removed.usage.entries, removed.usage.bytes);
        }
        let sessions = self.remove(&leaving.session_space()).await?;
        // Its removal was the first that a space without sessions heard of.
        let never = |removed: &Applied| removed.view.epoch <= 1;
        let had_sessions = !sessions.as_ref().is_some_and(never);
        if let Some(removed) = sessions {
            (purge.sessions, purge.session_bytes) = (removed.usage.entries, removed.usage.bytes);
        }

        let version = self.remove_api_keys(&mut purge, job.version).await?;

        let mut writes = vec![
            Write::delete(keys[0].clone()).when(Check::Version(tenant.version)),
            Write::delete(purge_key(tenant_id)).when(Check::Version(version)),
        ];
        let mut jobs = Vec::new();
        let spaces = [
            Some(leaving.space()),
            had_sessions.then(|| leaving.session_space()),
        ];
        for space in spaces.into_iter().flatten() {
            let incarnation = leaving.incarnation;
            let site = reclaim::Site { incarnation, space };
            let (id, job) = reclaim::job(&self.store, site, reclaim::Work::Removed)?;
            jobs.push(id);
            writes.push(job);
        }
        if self.forgetting.is_some() {
            writes.push(elsewhere::job(tenant_id, purge.incarnation)?);
        }
        let mut report = PurgeReport {
            entries: purge.entries,
            bytes: purge.bytes,
            sessions: purge.sessions,
            session_bytes: purge.session_bytes,
            api_keys: purge.api_keys,
            data_keys: purge.data_keys,
            reclaimed: false,
            forgotten: false,
        };
        // Of who began it, and of who finishes it.
        let mut requests: Vec<&Once> = purge.once.iter().chain(once).collect();
        requests.dedup();
        self.end(&writes, &mut requests, &report).await?;
        self.directory.drop_key(&record::tenant_key(tenant_id));
        // The purge is done; that its bytes cannot go right now is no failure of it.
        let reclaimed = async {
            report.forgotten = self.forget_elsewhere(purge.incarnation, AT_ONCE).await;
            let mut reclaimed = true;
            for id in &jobs {
                reclaimed &= reclaim::at_once(&self.store, id, AT_ONCE).await?;
            }
            if (reclaimed || report.forgotten) && !requests.is_empty() {
                // A replay must not tell less than the first answer.
                report.reclaimed = reclaimed;
                let again = requests.iter().map(|once| once.rewrite(&report));
                let again = Batch::of(again.collect::<Result<Vec<_>>>()?);
                super::applied(self.store.commit(&registry, again).await?)?;
            }
            Ok::<_, Error>(reclaimed)
        };
        report.reclaimed = match reclaimed.await {
            Ok(reclaimed) => reclaimed,
            Err(error) => {
                tracing::debug!(%error, "purged, and left to be reclaimed");
                false
            }
        };
        Ok(report)
    }

    /// Step 5, with the answer for the requests that asked for it.
    async fn end(
        &self,
        writes: &[Write],
        requests: &mut Vec<&Once>,
        report: &PurgeReport,
    ) -> Result<()> {
        loop {
            let records = requests.iter().map(|once| once.write(report));
            let records = records.collect::<Result<Vec<_>>>()?;
            let batch = Batch::of(writes.iter().cloned().chain(records));
            match self.store.commit(&Space::registry(), batch).await? {
                Commit::Applied(_) => return Ok(()),
                Commit::Refused(Refusal::Conflict { write, .. }) => {
                    match write.checked_sub(writes.len()) {
                        // An id that was used for something else meanwhile; the
                        // purge cannot wait for it.
                        Some(at) if at < requests.len() => drop(requests.remove(at)),
                        _ => return Err(Error::RequestInProgress),
                    }
                }
                Commit::Refused(refusal) => return Err(super::unexpected(&refusal)),
            }
        }
    }

    /// What its cache holds, and what its sessions.
    async fn held(&self, tenant: &Tenant) -> Result<(Usage, Usage)> {
        let cache = self.store.usage(&tenant.space()).await?;
        Ok((cache, self.store.usage(&tenant.session_space()).await?))
    }

    /// Removes a space; `None` where it was removed before.
    async fn remove(&self, space: &Space) -> Result<Option<Applied>> {
        let remove = Batch {
            step: Some(Step::Remove),
            ..Batch::default()
        };
        match self.store.commit(space, remove).await? {
            Commit::Applied(applied) => Ok(Some(applied)),
            Commit::Refused(Refusal::Gone) => Ok(None),
            Commit::Refused(refusal) => Err(super::unexpected(&refusal)),
        }
    }
}
