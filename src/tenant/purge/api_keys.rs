//! The API keys of a tenant that leaves. It does not know what else goes, nor
//! when.

use bytes::Bytes;

use super::{Purge, purge_key};
use crate::{
    error::{Error, Result},
    store::{Batch, Check, Commit, Incarnation, Key, Outcome, Query, Refusal, Space, Table, Write},
    tenant::{Tenants, record, unexpected},
};

/// API keys removed in one commit.
const KEYS: usize = 50;

impl Tenants {
    /// Step 4 of a purge; the job's version after it.
    pub(super) async fn remove_api_keys(&self, purge: &mut Purge, mut version: u64) -> Result<u64> {
        let registry = Space::registry();
        let mut query = keys_of(purge.incarnation, KEYS);
        loop {
            let page = self.store.list(&registry, query.clone()).await?;
            let ids: Vec<Bytes> = page.items.into_iter().map(|item| item.path).collect();
            if !ids.is_empty() {
                purge.api_keys += ids.len() as u64;
                let job = Write::put(purge_key(&purge.tenant_id), record::encode(purge)?)
                    .when(Check::Version(version));
                let gone = ids.iter().flat_map(|id| {
                    [Table::ApiKey, Table::KeyUse]
                        .map(|table| Write::delete(Key::new(table, id.clone())))
                });
                match self
                    .store
                    .commit(&registry, Batch::of([job].into_iter().chain(gone)))
                    .await?
                {
                    Commit::Applied(applied) => {
                        if let Some(Outcome::Done { version: now, .. }) = applied.outcomes.first() {
                            version = *now;
                        }
                    }
                    Commit::Refused(Refusal::Conflict { .. }) => {
                        return Err(Error::RequestInProgress);
                    }
                    Commit::Refused(refusal) => return Err(unexpected(&refusal)),
                }
                for id in ids {
                    self.directory.drop_key(&Key::new(Table::ApiKey, id));
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(version),
            }
        }
    }

    pub(super) async fn count_api_keys(&self, incarnation: Incarnation) -> Result<u64> {
        let mut query = Query {
            value_bytes: 0,
            ..keys_of(incarnation, 1000)
        };
        let mut count = 0;
        loop {
            let page = self.store.list(&Space::registry(), query.clone()).await?;
            count += page.items.len() as u64;
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(count),
            }
        }
    }
}

fn keys_of(incarnation: Incarnation, limit: usize) -> Query {
    Query {
        table: Table::ApiKey,
        generation: 0,
        prefix: incarnation.to_string().into_bytes().into(),
        after: None,
        limit,
        value_bytes: 0,
    }
}
