//! What is kept of a purged tenant elsewhere: a job stays until whoever keeps it has
//! made it unreadable. It does not know what is kept, nor where.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    store::{Batch, Cursor, Handle, Incarnation, Key, Query, Space, Table, Write},
    tenant::{
        Tenants,
        record::{self, incarnation},
    },
};

const PREFIX: &str = "f:";

/// Makes what is kept elsewhere of purged tenants unreadable.
pub trait Forget: Send + Sync + 'static {
    /// Makes what is kept of this life of a tenant unreadable; false where something
    /// may still come, so that it must be done again.
    fn forget<'a>(
        &'a self,
        life: Incarnation,
    ) -> Pin<Box<dyn Future<Output = Result<bool>> + Send + 'a>>;
}

/// Whoever forgets, once there is one.
pub type Forgetting = Arc<std::sync::OnceLock<Arc<dyn Forget>>>;

/// A life of a tenant that is to be forgotten.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Forgotten {
    format: u32,
    /// The tenant as it was called.
    pub tenant_id: String,
    /// The life.
    #[serde(with = "incarnation")]
    pub incarnation: Incarnation,
}

fn key(life: Incarnation) -> Key {
    Key::new(Table::Job, format!("{PREFIX}{life}").into_bytes())
}

impl Tenants {
    /// Makes what is kept elsewhere unreadable right away, where that can be done in this
    /// time; else the job does. Where nothing is kept, nothing is to be done.
    pub(super) async fn forget_elsewhere(&self, life: Incarnation, within: Duration) -> bool {
        let Some(forgetting) = &self.forgetting else {
            return true;
        };
        let Some(forget) = forgetting.get() else {
            return false;
        };
        match tokio::time::timeout(within, forget.forget(life)).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                tracing::debug!(%error, "purged, and left to be forgotten");
                false
            }
            Err(_) => false,
        }
    }
}

/// The job that a purge leaves.
pub(super) fn job(tenant_id: &str, life: Incarnation) -> Result<Write> {
    let forgotten = Forgotten {
        format: record::FORMAT,
        tenant_id: tenant_id.to_owned(),
        incarnation: life,
    };
    Ok(Write::put(key(life), record::encode(&forgotten)?))
}

/// The jobs there are, at most a page of them; those behind come with the next, once
/// these are done.
///
/// # Errors
/// The store's.
pub async fn forgotten(store: &Handle, after: Option<Cursor>) -> Result<Vec<Forgotten>> {
    let query = Query {
        table: Table::Job,
        generation: 0,
        prefix: Bytes::from_static(PREFIX.as_bytes()),
        after,
        limit: 100,
        value_bytes: 64 * 1024,
    };
    let page = store.list(&Space::registry(), query).await?;
    let jobs = page.items.into_iter().filter_map(|item| {
        record::decode(&item.record.value)
            .inspect_err(|error| tracing::warn!(%error, "job to forget not understood"))
            .ok()
    });
    Ok(jobs.collect())
}

/// Ends a job that is done.
///
/// # Errors
/// The store's.
pub async fn done(store: &Handle, life: Incarnation) -> Result<()> {
    let batch = Batch::of([Write::delete(key(life))]);
    crate::tenant::applied(store.commit(&Space::registry(), batch).await?)?;
    Ok(())
}
