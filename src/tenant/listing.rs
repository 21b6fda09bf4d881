//! Tenants, page by page, in the order of their ids. It does not know what a
//! page token looks like.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    Tenant, Tenants, id,
    page::Listing,
    record::{self, State},
};
use crate::{
    error::Result,
    store::{Cursor, Query, Space, Table},
};

/// Records looked at for one page at most; a page may then be short.
const LOOKED_AT: usize = 5000;

/// Records read at a time under a filter.
const STRIDE: usize = 500;

/// Bytes of records in a page at most, so that an answer stays within what a
/// client takes by default (4 MiB).
const PAGE_BYTES: u64 = 2 * 1024 * 1024;

/// No tenant's record is greater.
const VALUE_BYTES: usize = 1 << 20;

/// Selects tenants; all conditions must hold.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Filter {
    /// In one of these states; empty means all that `show_deleted` lets through.
    pub states: BTreeSet<State>,
    /// On this plan; empty means any.
    pub plan: String,
    /// With all these labels.
    pub labels: BTreeMap<String, String>,
    /// With an id that begins so.
    pub name_prefix: String,
    /// Whether deleted tenants are listed where no state is named.
    pub show_deleted: bool,
}

/// A page of tenants.
#[derive(Debug)]
pub struct Listed {
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// The token of the next page; empty at the end.
    pub next_page_token: String,
}

impl Filter {
    fn selects(&self, tenant: &Tenant) -> bool {
        let state = tenant.state();
        let in_state = if self.states.is_empty() {
            self.show_deleted || state != State::Deleted
        } else {
            self.states.contains(&state)
        };
        in_state
            && (self.plan.is_empty() || self.plan == tenant.plan)
            && self
                .labels
                .iter()
                .all(|(key, value)| tenant.labels.get(key) == Some(value))
    }

    /// Whether most records can be expected to pass.
    fn is_wide(&self) -> bool {
        self.states.is_empty() && self.plan.is_empty() && self.labels.is_empty()
    }
}

impl Tenants {
    /// A page of at most `size` tenants. A tenant that exists throughout is
    /// listed once, whatever else is written meanwhile.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`](crate::error::Error::InvalidPageToken); those of the store.
    pub async fn list(&self, filter: &Filter, size: usize, page_token: &str) -> Result<Listed> {
        if filter.name_prefix.len() > id::MAX_BYTES {
            return Ok(Listed {
                tenants: Vec::new(),
                next_page_token: String::new(),
            });
        }
        let selected = record::encode(filter)?;
        let listing = Listing {
            name: "ListTenants",
            filter: &[&selected],
        };
        let mut query = Query {
            table: Table::Tenant,
            generation: 0,
            prefix: filter.name_prefix.clone().into_bytes().into(),
            after: self.open_page(&listing, page_token).await?,
            limit: size,
            value_bytes: VALUE_BYTES,
        };
        let mut tenants = Vec::new();
        let (mut looked_at, mut bytes) = (0, 0);
        loop {
            let wanted = size.saturating_sub(tenants.len());
            query.limit = if filter.is_wide() { wanted } else { STRIDE };
            let page = self.store.list(&Space::registry(), query.clone()).await?;
            query.after = page.next;
            looked_at += query.limit;
            for item in page.items {
                let tenant: Tenant = record::decode(&item.record.value)?;
                if !filter.selects(&tenant) {
                    continue;
                }
                if tenants.len() == size
                    || (bytes + item.value_bytes > PAGE_BYTES && !tenants.is_empty())
                {
                    // The page is full in the middle of what was read: the next
                    // one begins after the last tenant of this one.
                    let last = tenants
                        .last()
                        .map(|tenant: &Tenant| Cursor(tenant.tenant_id.clone().into()));
                    let next_page_token = self.next_page(&listing, last.as_ref()).await?;
                    return Ok(Listed {
                        tenants,
                        next_page_token,
                    });
                }
                bytes += item.value_bytes;
                tenants.push(tenant);
            }
            if query.after.is_none() || tenants.len() == size || looked_at >= LOOKED_AT {
                let next_page_token = self.next_page(&listing, query.after.as_ref()).await?;
                return Ok(Listed {
                    tenants,
                    next_page_token,
                });
            }
        }
    }
}
