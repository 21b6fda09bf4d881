//! The closed statements of a period, page by page: meter space by meter space,
//! and in each in the order of the tenants' lives. It does not know what a page
//! token looks like.

use super::{
    Statement,
    bill::RULE,
    closing::{Closed, closed_key},
};
use crate::{
    error::{Error, Result, Violations},
    store::{Cursor, METER_SPACES, Page, Query, Space, Table},
    tenant::{
        Period, Tenants,
        page::{self, Listing},
        record,
    },
};

/// Bytes of statements in a page at most, so that an answer stays within what a
/// client takes by default (4 MiB).
const PAGE_BYTES: u64 = 2 * 1024 * 1024;

/// No statement's record is greater.
const VALUE_BYTES: usize = 1 << 20;

/// A page of statements.
#[derive(Debug)]
pub struct Statements {
    /// The statements.
    pub statements: Vec<Statement>,
    /// The token of the next page; empty at the end.
    pub next_page_token: String,
    /// Whether every statement of the period is closed.
    pub complete: bool,
    /// How many are closed so far.
    pub total: u64,
}

/// A place in the listing: a meter space, and a place in it.
struct Place {
    space: usize,
    after: Option<Cursor>,
}

impl Place {
    fn of(cursor: Option<Cursor>) -> Result<Self> {
        let Some(Cursor(bytes)) = cursor else {
            return Ok(Self {
                space: 0,
                after: None,
            });
        };
        let (space, rest) = bytes.split_first().ok_or(Error::InvalidPageToken)?;
        Ok(Self {
            space: usize::from(*space),
            after: (!rest.is_empty()).then(|| Cursor(rest.to_vec().into())),
        })
    }

    fn cursor(&self) -> Option<Cursor> {
        let space = u8::try_from(self.space).ok();
        let space = space.filter(|_| self.space < METER_SPACES)?;
        let after = self.after.iter().flat_map(|after| after.0.iter().copied());
        Some(Cursor([space].into_iter().chain(after).collect()))
    }

    /// The place after a page of the store.
    fn follow(&mut self, next: Option<Cursor>) {
        if next.is_none() {
            self.space += 1;
        }
        self.after = next;
    }
}

impl Tenants {
    /// A page of the closed statements of a period that is over.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no period or not over yet;
    /// [`Error::InvalidPageToken`]; those of the store.
    pub async fn list_statements(
        &self,
        period: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<Statements> {
        let mut violations = Violations::default();
        let size = page::size(page_size, &mut violations);
        let current = Period::of(self.store.now_ms());
        let parsed = Period::parse(period);
        match parsed {
            None => violations.add("period", RULE),
            Some(asked) if asked >= current => violations.add(
                "period",
                format!(
                    "not over yet: {} and those before it are",
                    current.previous()
                ),
            ),
            Some(_) => {}
        }
        violations.check()?;
        let period = parsed.ok_or_else(|| Error::invalid("period", RULE))?;
        let name = period.to_string();
        let listing = Listing {
            name: "ListStatements",
            filter: &[name.as_bytes()],
        };
        let mut place = Place::of(self.open_page(&listing, page_token).await?)?;
        // Before the statements: what is complete now is listed whole.
        let closed = self.closed(period).await?;
        let (mut statements, mut bytes) = (Vec::new(), 0);
        'full: while place.space < METER_SPACES && statements.len() < size {
            let wanted = size - statements.len();
            let page = self.page(period, &place, wanted, VALUE_BYTES).await?;
            for item in page.items {
                if bytes + item.value_bytes > PAGE_BYTES && !statements.is_empty() {
                    break 'full;
                }
                bytes += item.value_bytes;
                statements.push(record::decode::<Statement>(&item.record.value)?);
                place.after = Some(Cursor(item.path));
            }
            place.follow(page.next);
        }
        let next_page_token = self.next_page(&listing, place.cursor().as_ref()).await?;
        let total = match &closed {
            Some(closed) => closed.statements,
            None => self.count_statements(period).await?,
        };
        Ok(Statements {
            statements,
            next_page_token,
            complete: closed.is_some(),
            total,
        })
    }

    /// What is noted of a period that is closed for all tenants.
    async fn closed(&self, period: Period) -> Result<Option<Closed>> {
        let key = closed_key(period);
        let read = self.store.read(&Space::registry(), 0, &[key]).await?;
        let found = read.records.into_iter().next().flatten();
        found.map(|found| record::decode(&found.value)).transpose()
    }

    /// How many statements of a period are closed.
    pub(super) async fn count_statements(&self, period: Period) -> Result<u64> {
        let mut place = Place::of(None)?;
        let mut count = 0;
        while place.space < METER_SPACES {
            let page = self.page(period, &place, page::MAX_SIZE, 0).await?;
            count += page.items.len() as u64;
            place.follow(page.next);
        }
        Ok(count)
    }

    async fn page(
        &self,
        period: Period,
        place: &Place,
        limit: usize,
        value_bytes: usize,
    ) -> Result<Page> {
        let query = Query {
            table: Table::Statement,
            generation: 0,
            prefix: format!("{period}:").into_bytes().into(),
            after: place.after.clone(),
            limit,
            value_bytes,
        };
        Ok(self
            .store
            .list(&Space::meters_at(place.space), query)
            .await?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_place_goes_through_a_cursor_and_back() {
        for (space, after) in [(0, None), (15, None), (3, Some(Cursor("2026-11:x".into())))] {
            let place = Place { space, after };
            let back = Place::of(place.cursor()).unwrap();
            assert_eq!((back.space, back.after), (place.space, place.after));
        }
        let end = Place {
            space: METER_SPACES,
            after: None,
        };
        assert!(end.cursor().is_none());
    }
}
