//! Purges that nobody asks for: of tenants whose grace is over, and those a
//! replica left half done. It does not know the steps of a purge.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{DUE, Due, PURGE, Purge, PurgeReport};
use crate::{
    error::{Error, Result},
    store::{Batch, Handle, Key, Listed, Query, Space, Table, Write},
    tenant::{Change, Tenant, Tenants, applied, record},
};

/// How often overdue tenants and abandoned purges are looked for.
const EVERY: Duration = Duration::from_secs(5);

/// A purge that began so long ago was left by a replica that died.
const ABANDONED_MS: u64 = 30_000;

impl Tenants {
    /// Purges tenants whose time has come and finishes purges that were left half
    /// done, for as long as it is polled. Every replica runs one.
    pub(in crate::tenant) async fn purge_overdue(&self) {
        loop {
            if let Err(error) = self.purge_pass().await {
                tracing::debug!(%error, "purge of overdue tenants interrupted");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Purges what is overdue now.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn purge_pass(&self) -> Result<()> {
        let now_ms = self.store.now_ms();
        for (key, due) in first_jobs::<Due>(&self.store, DUE).await? {
            if key.path.as_ref() > format!("{DUE}{now_ms:020}:~").as_bytes() {
                break;
            }
            let purged = self.purge_due(key, &due.tenant_id, now_ms).await;
            go_on(&due.tenant_id, purged)?;
        }
        for (key, purge) in first_jobs::<Purge>(&self.store, PURGE).await? {
            if now_ms > purge.create_ms.saturating_add(ABANDONED_MS) {
                let finished = match self.finish(&purge.tenant_id, None).await {
                    Err(Error::NotFound { .. }) => self.forget(key).await,
                    finished => finished.map(|report| told(&purge.tenant_id, &report)),
                };
                go_on(&purge.tenant_id, finished)?;
            }
        }
        Ok(())
    }

    async fn purge_due(&self, note: Key, tenant_id: &str, now_ms: u64) -> Result<()> {
        let found = self.find_tenant(tenant_id).await?;
        let overdue = |tenant: &Tenant| tenant.purge_ms.is_some_and(|purge_ms| purge_ms <= now_ms);
        let Some((tenant, _)) = found.filter(|(tenant, _)| overdue(tenant)) else {
            return self.forget(note).await;
        };
        // Only as it was found: it may be brought back, and deleted anew with a
        // grace of its own, at this very moment.
        let change = Change {
            etag: tenant.etag,
            ..Change::default()
        };
        let report = self.purge(tenant_id, change).await?;
        told(tenant_id, &report);
        Ok(())
    }

    async fn forget(&self, job: Key) -> Result<()> {
        applied(
            self.store
                .commit(&Space::registry(), Batch::of([Write::delete(job)]))
                .await?,
        )?;
        Ok(())
    }
}

fn told(tenant_id: &str, report: &PurgeReport) {
    let PurgeReport {
        entries,
        bytes,
        api_keys,
        ..
    } = report;
    tracing::info!(
        tenant_id,
        entries,
        bytes,
        api_keys,
        "purged a tenant whose grace was over"
    );
}

/// Ends a pass where the store is lost; what is wrong with one tenant does not
/// keep the others.
fn go_on(tenant_id: &str, result: Result<()>) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error @ (Error::StoreUnavailable | Error::OutcomeUnknown)) => Err(error),
        // Another replica is at it, or it was brought back just now.
        Err(
            Error::RequestInProgress
            | Error::EtagMismatch
            | Error::NotFound { .. }
            | Error::ConditionNotMet { .. },
        ) => Ok(()),
        Err(Error::Internal(cause)) => {
            tracing::warn!(tenant_id, cause, "tenant not purged");
            Ok(())
        }
        Err(error) => {
            tracing::warn!(tenant_id, %error, "tenant not purged");
            Ok(())
        }
    }
}

/// The first jobs of a kind; the next pass finds those behind them.
async fn first_jobs<T: DeserializeOwned>(
    store: &Handle,
    prefix: &'static str,
) -> Result<Vec<(Key, T)>> {
    let query = Query {
        table: Table::Job,
        generation: 0,
        prefix: Bytes::from_static(prefix.as_bytes()),
        after: None,
        limit: 100,
        value_bytes: 64 * 1024,
    };
    let page = store.list(&Space::registry(), query).await?;
    Ok(page.items.into_iter().filter_map(known).collect())
}

/// A job that this version understands; one of a later version is left to it.
fn known<T: DeserializeOwned>(item: Listed) -> Option<(Key, T)> {
    match record::decode(&item.record.value) {
        Ok(job) => Some((Key::new(Table::Job, item.path), job)),
        Err(error) => {
            tracing::warn!(%error, "purge job not understood");
            None
        }
    }
}
