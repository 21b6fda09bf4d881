//! The events that are kept, page by page, in the order of time. It does not know what
//! a page token looks like, and judges no chain: who asks can.

use super::{
    Entry, Head,
    entry::{self, EVENTS, HEADS, moment},
};
use crate::{
    error::Result,
    store::{Cursor, Page, Query, Space, Table},
    tenant::{Tenants, page::Listing, record},
};

/// Bytes of events in a page at most, so that an answer stays within what a client
/// takes by default (4 MiB).
const PAGE_BYTES: u64 = 2 * 1024 * 1024;

/// No event is greater: all that callers can choose of it is bounded.
const VALUE_BYTES: usize = 64 * 1024;

/// Chains that are told, at most.
const CHAINS: usize = 10_000;

/// Chains that are read at a time.
const STRIDE: usize = 1000;

/// Which events are listed.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// Those of calls about this tenant; empty means all.
    pub tenant_id: String,
    /// Those from this time on, in ms since 1970.
    pub start_ms: Option<u64>,
    /// Those before this time.
    pub end_ms: Option<u64>,
}

/// A page of events.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The events, the oldest first.
    pub events: Vec<Entry>,
    /// The token of the next page; empty at the end.
    pub next_page_token: String,
    /// On the first page of all tenants' events: where the chains end, as of before
    /// any event was listed.
    pub chains: Vec<Head>,
}

impl Tenants {
    /// The audit log of this replica.
    pub fn audit(&self) -> &super::Log {
        self.directory.audit()
    }

    /// A page of at most `size` events. One that is kept throughout is listed once,
    /// whatever is written meanwhile.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`](crate::error::Error::InvalidPageToken); those of the
    /// store.
    pub async fn list_audit_events(
        &self,
        span: &Span,
        size: usize,
        page_token: &str,
    ) -> Result<Listed> {
        let bound = |ms: Option<u64>| ms.map_or_else(String::new, moment);
        let (start, end) = (bound(span.start_ms), bound(span.end_ms));
        let listing = Listing {
            name: "ListAuditEvents",
            filter: &[span.tenant_id.as_bytes(), start.as_bytes(), end.as_bytes()],
        };
        let beginning = match span.tenant_id.is_empty() {
            true => EVENTS.to_owned(),
            false => entry::of_tenant(&span.tenant_id),
        };
        let after = self.open_page(&listing, page_token).await?;
        let mut listed = Listed::default();
        if after.is_none() && span.tenant_id.is_empty() {
            listed.chains = self.audit_chains().await?;
        }
        // Nothing lies at a time itself, only behind it.
        let from = Cursor(format!("{beginning}{start}").into_bytes().into());
        let mut query = Query {
            table: Table::Audit,
            generation: 0,
            prefix: beginning.clone().into_bytes().into(),
            after: after.or(Some(from).filter(|_| !start.is_empty())),
            limit: size,
            value_bytes: VALUE_BYTES,
        };
        let (mut bytes, mut last) = (0, None);
        'full: while listed.events.len() < size {
            query.limit = size - listed.events.len();
            let page = self.store.list(&Space::audit(), query.clone()).await?;
            query.after.clone_from(&page.next);
            for (path, entry, entry_bytes) in self.events(&beginning, page).await? {
                if !end.is_empty() && moment(entry.facts.time_ms) >= end {
                    last = None;
                    break 'full;
                }
                if bytes + entry_bytes > PAGE_BYTES && !listed.events.is_empty() {
                    break 'full;
                }
                bytes += entry_bytes;
                last = Some(path);
                listed.events.push(entry);
            }
            last.clone_from(&query.after);
            if query.after.is_none() {
                break;
            }
        }
        listed.next_page_token = self.next_page(&listing, last.as_ref()).await?;
        Ok(listed)
    }

    /// The events of a page, with where they were found and their bytes.
    async fn events(&self, beginning: &str, page: Page) -> Result<Vec<(Cursor, Entry, u64)>> {
        let mut found = Vec::with_capacity(page.items.len());
        for item in page.items {
            let place = item.path.get(beginning.len()..).unwrap_or_default();
            let place = String::from_utf8_lossy(place).into_owned();
            found.push((Cursor(item.path), place, item.record.value));
        }
        if beginning != EVENTS && !found.is_empty() {
            // What was found only leads to the events.
            let key = |(_, place, _): &(_, String, _)| entry::key(EVENTS, place);
            let keys: Vec<_> = found.iter().map(key).collect();
            let read = self.store.read(&Space::audit(), 0, &keys).await?;
            for (found, record) in found.iter_mut().zip(read.records) {
                // One that has just come to its end reads as none.
                found.2 = record.map_or_else(Default::default, |record| record.value);
            }
            found.retain(|(_, _, value)| !value.is_empty());
        }
        let read = |(path, place, value): (Cursor, String, bytes::Bytes)| {
            (path, Entry::read(&place, &value), value.len() as u64)
        };
        Ok(found.into_iter().map(read).collect())
    }

    /// Where the chains end. Of its own this replica knows it without the store.
    async fn audit_chains(&self) -> Result<Vec<Head>> {
        let own = self.audit().head();
        let mut query = Query {
            table: Table::Audit,
            generation: 0,
            prefix: HEADS.into(),
            after: None,
            limit: STRIDE,
            value_bytes: VALUE_BYTES,
        };
        let mut chains: Vec<Head> = Vec::new();
        loop {
            let page = self.store.list(&Space::audit(), query.clone()).await?;
            for item in page.items {
                let replica = item.path.get(HEADS.len()..).unwrap_or_default();
                let replica = String::from_utf8_lossy(replica).into_owned();
                let head = record::decode::<Head>(&item.record.value).ok();
                // One that cannot be read has no event, which no chain has.
                chains.push(head.filter(|head| head.replica == replica).unwrap_or(Head {
                    replica,
                    ..Head::default()
                }));
            }
            query.after = page.next;
            if query.after.is_none() || chains.len() >= CHAINS {
                break;
            }
        }
        if let Some(own) = own {
            chains.retain(|head| head.replica != own.replica);
            // Its last event may have ended, and then nothing is missing.
            chains.extend(Some(own).filter(|own| own.expire_ms > self.store.now_ms()));
        }
        Ok(chains)
    }
}
