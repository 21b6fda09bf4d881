//! Periods are closed: once they are over and late usage has had its time, each
//! tenant's statement is put down for good. It does not know what a statement
//! says.
//!
//! The steps for one tenant, each of them safe to repeat, by whichever replica:
//! 1. the period is barred: from here nothing is added to its rows;
//! 2. what was consumed is read, and the statement drawn up: whoever does it comes
//!    to the same;
//! 3. the statement is put down, unless there is one.
//!
//! When every tenant has its statement, the period itself is noted as closed. A
//! tenant that is purged closes its own periods first.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::segment::{OPEN_PERIODS, periods_up_to};
use crate::{
    error::{Error, Result},
    random,
    store::{
        Action, Batch, Check, Commit, Expiry, Key, Outcome, Query, Refusal, Space, Table, Unit,
        Write,
    },
    tenant::{Period, Readings, Tenant, Tenants, record, rows},
};

/// How often periods that are over are looked for.
const EVERY: Duration = Duration::from_secs(60);

/// How often, while another replica is at it.
const BUSY: Duration = Duration::from_secs(5);

/// How long after a period could not be closed for every tenant.
const INCOMPLETE: Duration = Duration::from_secs(600);

/// How long a claim lasts.
const CLAIM_MS: u64 = 10_000;

/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(2);

/// Tenants read at a time.
const PAGE: usize = 100;

/// No tenant's record is greater.
const VALUE_BYTES: usize = 1 << 20;

/// A period is barred as long as its rows are kept; after that no usage is so late.
const BARRED_MS: u64 = 400 * Unit::Day.ms();

/// What came of looking for periods to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// All that can be closed are.
    Done,
    /// Another replica is closing one.
    Busy,
    /// Some statements could not be drawn up, or wait for a purge to end.
    Incomplete,
}

/// Says that every statement of a period is there.
#[derive(Serialize, Deserialize)]
pub(super) struct Closed {
    format: u32,
    close_ms: u64,
    /// How many.
    pub(super) statements: u64,
}

/// Who is closing a period.
#[derive(Serialize, Deserialize)]
struct Claim {
    format: u32,
    by: String,
    until_ms: u64,
}

/// Bars a period.
#[derive(Serialize)]
struct Barred {
    format: u32,
}

fn claim_key() -> Key {
    Key::new(Table::Meta, &b"closing"[..])
}

/// Where a period is noted as closed.
pub(super) fn closed_key(period: Period) -> Key {
    Key::new(Table::Meta, format!("closed:{period}").into_bytes())
}

impl Tenants {
    /// Closes periods as they become due, for as long as it is polled. Every
    /// replica runs one.
    pub(in crate::tenant) async fn close_periods(&self) {
        loop {
            let rest = match self.close_pass().await {
                Ok(Closing::Done) => EVERY,
                Ok(Closing::Busy) => BUSY,
                Ok(Closing::Incomplete) => INCOMPLETE,
                Err(error) => {
                    tracing::debug!(%error, "closing of billing periods interrupted");
                    BUSY
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// Closes the periods that are due now, the oldest first.
    ///
    /// # Errors
    /// Those of the store; what was not done is left for the next pass.
    pub async fn close_pass(&self) -> Result<Closing> {
        let due = self.due_periods().await?;
        if due.is_empty() {
            return Ok(Closing::Done);
        }
        let Some(mut claim) = self.claim_closing().await? else {
            return Ok(Closing::Busy);
        };
        let mut outcome = Closing::Done;
        for period in due {
            match self.close_period(period, &mut claim).await? {
                Closing::Done => {}
                Closing::Busy => return Ok(Closing::Busy),
                Closing::Incomplete => outcome = Closing::Incomplete,
            }
        }
        self.release_closing(&claim).await?;
        Ok(outcome)
    }

    /// Periods that are over for long enough and not closed, the oldest first.
    async fn due_periods(&self) -> Result<Vec<Period>> {
        let close_after = self.billing.load().close_after;
        let close_after_ms = u64::try_from(close_after.as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.store.now_ms();
        let mut period = Period::of(now_ms);
        let mut over = Vec::new();
        for _ in 0..OPEN_PERIODS {
            period = period.previous();
            if period.end_ms().saturating_add(close_after_ms) <= now_ms {
                over.push(period);
            }
        }
        over.reverse();
        let keys: Vec<_> = over.iter().map(|period| closed_key(*period)).collect();
        let read = self.store.read(&Space::registry(), 0, &keys).await?;
        let open = over.into_iter().zip(read.records);
        Ok(open
            .filter(|(_, closed)| closed.is_none())
            .map(|(period, _)| period)
            .collect())
    }

    /// Closes a period of all tenants, and notes that it is.
    async fn close_period(&self, period: Period, claim: &mut Claimed) -> Result<Closing> {
        let registry = Space::registry();
        let mut query = Query {
            table: Table::Tenant,
            generation: 0,
            prefix: "".into(),
            after: None,
            limit: PAGE,
            value_bytes: VALUE_BYTES,
        };
        let mut complete = true;
        loop {
            let page = self.store.list(&registry, query.clone()).await?;
            for item in page.items {
                let began = Instant::now();
                if !self.keep_claim(claim).await? {
                    return Ok(Closing::Busy);
                }
                let tenant: Tenant = record::decode(&item.record.value)?;
                if tenant.create_ms >= period.end_ms() {
                    continue;
                }
                match self.close(&tenant, period).await {
                    Ok(closed) => complete &= closed,
                    Err(error @ (Error::StoreUnavailable | Error::OutcomeUnknown)) => {
                        return Err(error);
                    }
                    // What is wrong with one tenant does not keep the others.
                    Err(error) => {
                        complete = false;
                        let tenant_id = &tenant.tenant_id;
                        tracing::warn!(?error, tenant_id, %period, "statement not closed");
                    }
                }
                // At most half of the store's time goes to work that can wait.
                let rest = began.elapsed();
                tokio::time::sleep(rest.clamp(Duration::from_millis(1), Duration::from_millis(50)))
                    .await;
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        if !complete {
            return Ok(Closing::Incomplete);
        }
        let closed = Closed {
            format: record::FORMAT,
            close_ms: self.store.now_ms(),
            statements: self.count_statements(period).await?,
        };
        let write = Write::put(closed_key(period), record::encode(&closed)?).when(Check::Absent);
        if let Commit::Applied(_) = self.store.commit(&registry, Batch::of([write])).await? {
            // A new store closes a year of periods in which there was nobody.
            match closed.statements {
                0 => tracing::debug!(%period, "closed a billing period without statements"),
                statements => tracing::info!(%period, statements, "closed a billing period"),
            }
        }
        Ok(Closing::Done)
    }

    /// Closes a period of one tenant; false where that is left to the purge that is
    /// under way.
    async fn close(&self, tenant: &Tenant, period: Period) -> Result<bool> {
        if self.is_closed(tenant, period).await? {
            return Ok(true);
        }
        if tenant.purging {
            return Ok(false);
        }
        self.put_statement(tenant, period, None).await?;
        Ok(true)
    }

    /// Closes all periods of a tenant that leaves, the last with what its space was
    /// left with. To be called before the space is removed.
    ///
    /// # Errors
    /// Those of the store; [`Error::ConditionNotMet`] where a figure is beyond what
    /// a statement can say.
    pub(in crate::tenant) async fn close_for_good(
        &self,
        tenant: &Tenant,
        left_with: Readings,
    ) -> Result<()> {
        for period in periods_up_to(tenant, Period::of(left_with.at_ms())) {
            if !self.is_closed(tenant, period).await? {
                self.put_statement(tenant, period, Some(left_with)).await?;
            }
        }
        Ok(())
    }

    async fn is_closed(&self, tenant: &Tenant, period: Period) -> Result<bool> {
        let key = rows::statement(tenant.incarnation, period);
        let space = Space::meters(tenant.incarnation);
        let read = self.store.read(&space, 0, &[key]).await?;
        Ok(read.records.iter().any(Option::is_some))
    }

    async fn put_statement(
        &self,
        tenant: &Tenant,
        period: Period,
        left_with: Option<Readings>,
    ) -> Result<()> {
        let space = Space::meters(tenant.incarnation);
        let barred = Barred {
            format: record::FORMAT,
        };
        let bar = Write::new(
            rows::closing(tenant.incarnation, period),
            Check::Absent,
            Action::Put {
                value: record::encode(&barred)?,
                expiry: Expiry::AfterMs(BARRED_MS),
            },
        );
        self.unless_there(&space, bar).await?;
        let mut statement = self.statement(tenant, period, left_with).await?;
        statement.close_ms = Some(self.store.now_ms());
        let key = rows::statement(tenant.incarnation, period);
        let write = Write::put(key, record::encode(&statement)?).when(Check::Absent);
        self.unless_there(&space, write).await
    }

    /// Writes what must be absent; that another was faster is as good.
    async fn unless_there(&self, space: &Space, write: Write) -> Result<()> {
        match self.store.commit(space, Batch::of([write])).await? {
            Commit::Applied(_) | Commit::Refused(Refusal::Conflict { .. }) => Ok(()),
            Commit::Refused(refusal) => Err(crate::tenant::unexpected(&refusal)),
        }
    }
}

/// The claim of this replica.
struct Claimed {
    me: String,
    version: u64,
    renewed: Instant,
}

impl Tenants {
    /// Claims the closing of periods; `None` where another replica is at it.
    async fn claim_closing(&self) -> Result<Option<Claimed>> {
        let read = self
            .store
            .read(&Space::registry(), 0, &[claim_key()])
            .await?;
        let check = match read.records.into_iter().next().flatten() {
            Some(found) => {
                let claim: Claim = record::decode(&found.value)?;
                if self.store.now_ms() < claim.until_ms {
                    return Ok(None);
                }
                Check::Version(found.version)
            }
            None => Check::Absent,
        };
        let mut claimed = Claimed {
            me: random::BASE32.encode(&random::bytes::<10>()),
            version: 0,
            renewed: Instant::now(),
        };
        let until_ms = self.store.now_ms().saturating_add(CLAIM_MS);
        let is_mine = self.put_claim(&mut claimed, until_ms, check).await?;
        Ok(is_mine.then_some(claimed))
    }

    /// Renews the claim where it is time to; false where another has taken it.
    async fn keep_claim(&self, claimed: &mut Claimed) -> Result<bool> {
        if claimed.renewed.elapsed() < RENEW {
            return Ok(true);
        }
        let until_ms = self.store.now_ms().saturating_add(CLAIM_MS);
        let check = Check::Version(claimed.version);
        self.put_claim(claimed, until_ms, check).await
    }

    async fn put_claim(&self, claimed: &mut Claimed, until_ms: u64, check: Check) -> Result<bool> {
        let claim = Claim {
            format: record::FORMAT,
            by: claimed.me.clone(),
            until_ms,
        };
        let write = Write::put(claim_key(), record::encode(&claim)?).when(check);
        match self
            .store
            .commit(&Space::registry(), Batch::of([write]))
            .await?
        {
            Commit::Applied(applied) => {
                if let Some(Outcome::Done { version, .. }) = applied.outcomes.first() {
                    claimed.version = *version;
                }
                claimed.renewed = Instant::now();
                Ok(true)
            }
            Commit::Refused(Refusal::Conflict { .. }) => Ok(false),
            Commit::Refused(refusal) => Err(crate::tenant::unexpected(&refusal)),
        }
    }

    async fn release_closing(&self, claimed: &Claimed) -> Result<()> {
        let write = Write::delete(claim_key()).when(Check::Version(claimed.version));
        self.unless_there(&Space::registry(), write).await
    }
}
