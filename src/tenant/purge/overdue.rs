//! Purges that nobody asks for: of tenants whose grace is over, and those a
//! replica left half done. It does not know the steps of a purge.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{DUE, Due, PURGE, Purge, PurgeReport};
use crate::{
    error::{Error, Result},
    store::{Batch, Handle, Key, Query, Space, Table, Write},
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
            self.purge_due(key, &due.tenant_id, now_ms).await?;
        }
        for (key, purge) in first_jobs::<Purge>(&self.store, PURGE).await? {
            if now_ms > purge.create_ms.saturating_add(ABANDONED_MS) {
                match self.finish(&purge.tenant_id).await {
                    Ok(report) => told(&purge.tenant_id, &report),
                    Err(Error::RequestInProgress) => {}
                    Err(Error::NotFound { .. }) => self.forget(key).await?,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn purge_due(&self, note: Key, tenant_id: &str, now_ms: u64) -> Result<()> {
        let found = self.find_tenant(tenant_id).await?;
        let overdue = |tenant: &Tenant| tenant.purge_ms.is_some_and(|purge_ms| purge_ms <= now_ms);
        if !found.is_some_and(|(tenant, _)| overdue(&tenant)) {
            return self.forget(note).await;
        }
        match self.purge(tenant_id, Change::default()).await {
            Ok(report) => {
                told(tenant_id, &report);
                Ok(())
            }
            // Another replica is at it, or the tenant was brought back just now.
            Err(
                Error::RequestInProgress | Error::NotFound { .. } | Error::ConditionNotMet { .. },
            ) => Ok(()),
            Err(error) => Err(error),
        }
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
    page.items
        .into_iter()
        .map(|item| {
            Ok((
                Key::new(Table::Job, item.path),
                record::decode(&item.record.value)?,
            ))
        })
        .collect()
}
