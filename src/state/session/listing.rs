//! Listing a user's sessions: one list of the store a page, of the user's records
//! alone. It does not know how a page's token looks.

use bytes::Bytes;

use super::{Session, SessionId, Sessions, id, reach, record::LISTED_BYTES, record::Stored, rules};
use crate::{
    error::{Result, Violations},
    store::{Cursor, Query, Table},
    tenant::{Counts, Tenancy, page},
};

/// Sessions looked at at a time where all of a user are to end.
pub(super) const PAGE: usize = 100;

/// Bytes of a page after which no more come.
const PAGE_BYTES: u64 = 1 << 20;

/// A page of a user's sessions, in no particular order.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The sessions, without their data.
    pub sessions: Vec<Session>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// Whose sessions are listed, and how many at once.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// Whose.
    pub user_id: &'a str,
    limit: usize,
}

impl<'a> Range<'a> {
    /// The range that a request asks for.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::error::Error::Invalid).
    pub fn new(user_id: &'a str, page_size: i32) -> Result<Self> {
        let mut violations = Violations::default();
        rules::user_id(user_id, &mut violations);
        let limit = page::size(page_size, &mut violations);
        violations.check()?;
        Ok(Self { user_id, limit })
    }
}

/// What was found at a place that belongs to a user.
pub(super) struct Item {
    pub(super) session_id: SessionId,
    /// `None` where it is damaged.
    pub(super) session: Option<Session>,
}

pub(super) struct Page {
    pub(super) items: Vec<Item>,
    pub(super) next: Option<Cursor>,
}

impl Sessions {
    /// A page of the sessions of a user. One that is damaged is left out, and told in the
    /// audit log.
    ///
    /// # Errors
    /// [`Error::ScopeMissing`](crate::error::Error::ScopeMissing); the store's.
    pub async fn list(
        &self,
        tenancy: &Tenancy,
        range: &Range<'_>,
        after: Option<Cursor>,
    ) -> Result<Listing> {
        reach(tenancy)?;
        let page = self
            .page(tenancy, range.user_id, range.limit, after)
            .await?;
        let now_ms = self.store.now_ms();
        let mut listing = Listing {
            sessions: Vec::with_capacity(page.items.len()),
            next: page.next,
        };
        let mut bytes = 0;
        for Item {
            session_id,
            session,
        } in page.items
        {
            let shows =
                |session: &Session| session.user_id == range.user_id && session.expire_ms > now_ms;
            if let Some(session) = session.filter(shows) {
                bytes += session.carried_bytes();
                listing.sessions.push(session);
                if bytes >= PAGE_BYTES {
                    listing.next = Some(Cursor(session_id.path()));
                    break;
                }
            }
        }
        tenancy.account.meter.count(Counts {
            operations: 1,
            bytes_in: range.user_id.len() as u64,
            bytes_out: bytes,
            ..Counts::default()
        });
        Ok(listing)
    }

    /// What lies at the places of a user.
    pub(super) async fn page(
        &self,
        tenancy: &Tenancy,
        user_id: &str,
        limit: usize,
        after: Option<Cursor>,
    ) -> Result<Page> {
        let query = Query {
            table: Table::Session,
            generation: 0,
            prefix: Bytes::copy_from_slice(&id::user(tenancy.incarnation, user_id)),
            after,
            limit,
            value_bytes: LISTED_BYTES,
        };
        let page = self.store.list(&tenancy.sessions, query).await?;
        self.confirm(tenancy, page.view).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for listed in page.items {
            let Some(session_id) = SessionId::at(&listed.path) else {
                continue;
            };
            self.learn_data_key(tenancy, &listed.record).await?;
            let session = Stored::of(tenancy, session_id).open_card(&listed.record);
            items.push(Item {
                session_id,
                session: session.ok(),
            });
        }
        Ok(Page {
            items,
            next: page.next,
        })
    }
}
