//! The data keys of all tenants are wrapped anew by the master key that writes,
//! page by page. It does not know why the master key changed.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Encryption, Masters, no_master};
use crate::{
    error::{Error, Result},
    store::{Batch, Check, Commit, Incarnation, Key, Query, Refusal, Space, Table, Write},
    tenant::{Tenant, Tenants, lifecycle::ATTEMPTS, page::Listing, record, unexpected},
};

/// Tenants whose keys are wrapped at the same time.
const AT_ONCE: usize = 16;

/// What became of a page of tenants.
#[derive(Debug, Default)]
pub struct Rewrapped {
    /// The id of the master key that writes.
    pub master_key: String,
    /// Tenants looked at, deleted ones that are not purged included.
    pub tenants: u64,
    /// Data keys that were wrapped anew; in a rehearsal, that would be.
    pub rewrapped: u64,
    /// How many data keys each master key wraps now, by its id; in a rehearsal, as
    /// it is.
    pub data_keys: BTreeMap<String, u64>,
    /// Data keys that cannot be unwrapped, and are as they were.
    pub lost: Vec<Lost>,
    /// The token of the next page; empty at the end.
    pub next_page_token: String,
}

/// A data key that cannot be unwrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its tenant.
    pub tenant_id: String,
    /// Its number.
    pub data_key: u32,
    /// The master key it names.
    pub master_key: String,
    /// Why it cannot be unwrapped.
    pub why: String,
}

/// What became of one tenant's keys.
#[derive(Default)]
struct Outcome {
    rewrapped: u64,
    lost: Vec<Lost>,
    /// By master key.
    data_keys: BTreeMap<String, u64>,
}

impl Tenants {
    /// Wraps the data keys of a page of at most `size` tenants by the master key
    /// that writes, where another wraps them. Each tenant is one commit; whatever
    /// of it is repeated changes nothing. `rehearse` tells what would be done.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`]; [`Error::ConditionNotMet`] where there is no
    /// master key; [`Error::RequestInProgress`] where others keep writing a tenant;
    /// those of the store.
    pub async fn rewrap_data_keys(
        &self,
        size: usize,
        page_token: &str,
        rehearse: bool,
    ) -> Result<Rewrapped> {
        let master_key = self.masters.writing().ok_or_else(no_master)?;
        let listing = Listing {
            name: "RewrapDataKeys",
            filter: &[],
        };
        let query = Query {
            table: Table::Tenant,
            generation: 0,
            prefix: Bytes::new(),
            after: self.open_page(&listing, page_token).await?,
            limit: size,
            value_bytes: 0,
        };
        let page = self.store.list(&Space::registry(), query).await?;
        let mut report = Rewrapped {
            master_key,
            tenants: page.items.len() as u64,
            next_page_token: self.next_page(&listing, page.next.as_ref()).await?,
            ..Rewrapped::default()
        };
        let mut outcomes = stream::iter(page.items)
            .map(|item| self.rewrap(item.path, rehearse))
            .buffered(AT_ONCE);
        while let Some(outcome) = outcomes.try_next().await? {
            report.rewrapped += outcome.rewrapped;
            for (master_key, count) in outcome.data_keys {
                *report.data_keys.entry(master_key).or_default() += count;
            }
            report.lost.extend(outcome.lost);
        }
        Ok(report)
    }

    /// One tenant's. Its etag stays: nothing changes that a caller sees of it.
    async fn rewrap(&self, tenant_id: Bytes, rehearse: bool) -> Result<Outcome> {
        let key = Key::new(Table::Tenant, tenant_id);
        for _ in 0..ATTEMPTS {
            let Some((mut tenant, version)) = self.find::<Tenant>(key.clone()).await? else {
                return Ok(Outcome::default());
            };
            let before = tenant.encryption.clone();
            let Some(encryption) = &mut tenant.encryption else {
                return Ok(Outcome::default());
            };
            let (rewrapped, lost) =
                self.masters
                    .rewrap(&tenant.tenant_id, tenant.incarnation, encryption)?;
            let outcome = |encryption: &Encryption| Outcome {
                rewrapped,
                lost: lost.clone(),
                data_keys: encryption.by_master_key(),
            };
            if rehearse || rewrapped == 0 {
                return Ok(before.as_ref().map(outcome).unwrap_or_default());
            }
            let outcome = outcome(encryption);
            let write = Write::put(key.clone(), record::encode(&tenant)?);
            let batch = Batch::of([write.when(Check::Version(version))]);
            match self.store.commit(&Space::registry(), batch).await? {
                Commit::Applied(_) => {
                    self.directory.drop_key(&key);
                    return Ok(outcome);
                }
                Commit::Refused(Refusal::Conflict { .. }) => {}
                Commit::Refused(refusal) => return Err(unexpected(&refusal)),
            }
        }
        Err(Error::RequestInProgress)
    }
}

impl Masters {
    /// Wraps by the first master key what another wraps; how many, and what cannot
    /// be unwrapped and stays as it is.
    pub(crate) fn rewrap(
        &self,
        tenant_id: &str,
        incarnation: Incarnation,
        encryption: &mut Encryption,
    ) -> Result<(u64, Vec<Lost>)> {
        let (mut rewrapped, mut lost) = (0, Vec::new());
        for data_key in &mut encryption.data_keys {
            match self.unwrap(incarnation, data_key) {
                Ok(_) if self.writing().as_ref() == Some(&data_key.master_key) => {}
                Ok(key) => {
                    *data_key = self.wrap(incarnation, data_key.id, data_key.create_ms, &key)?;
                    rewrapped += 1;
                }
                Err(why) => lost.push(Lost {
                    tenant_id: tenant_id.to_owned(),
                    data_key: data_key.id,
                    master_key: data_key.master_key.clone(),
                    why,
                }),
            }
        }
        Ok((rewrapped, lost))
    }
}

impl Encryption {
    /// How many data keys each master key wraps.
    pub(crate) fn by_master_key(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for key in &self.data_keys {
            *counts.entry(key.master_key.clone()).or_default() += 1;
        }
        counts
    }
}
