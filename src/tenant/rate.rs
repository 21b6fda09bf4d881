//! Rates: how many calls, or how much of a metric of the platform's own, in any
//! span of time. It does not know what is counted, nor what refusals look like.
//!
//! The store keeps each rate's window on its clock, and leases permits of it. A
//! replica holds a few ahead, for all its cores: a draw takes from them under a
//! short lock, and only the one that finds too few waits for the store. Permits
//! count in the window from the moment they are leased, so whatever replicas do
//! with them, no more than the limit is used in any span.

mod ledger;
mod pace;
mod permits;
mod recent;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use self::permits::Permits;
use super::{
    Account, Tenancy, Tenants,
    plan::Mode,
    quota::{OPERATIONS_PER_MINUTE, Warning},
};
use crate::{
    config::{self, WhenDown},
    error::{Error, Result},
};

/// A limit on what is used in any span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The metric's name in Quotas.
    pub metric: Arc<str>,
    /// At most so much in any span.
    pub limit: u64,
    /// The span: 1 s to 31 days.
    pub span_ms: u64,
    /// What happens at the limit.
    pub mode: Mode,
    /// What happens while the store cannot be asked.
    pub when_down: WhenDown,
}

impl Rule {
    /// The rule of a metric with this limit, in this window; `None` where it is
    /// unlimited.
    pub fn of(
        metric: &str,
        limit: Option<i64>,
        span_ms: u64,
        modes: &BTreeMap<String, Mode>,
        settings: &config::Tenant,
    ) -> Option<Self> {
        Some(Self {
            metric: metric.into(),
            // A negative limit is -1, which means unlimited.
            limit: u64::try_from(limit?).ok()?,
            span_ms,
            mode: modes.get(metric).copied().unwrap_or_default(),
            when_down: settings.when_store_is_down.of(metric),
        })
    }
}

/// What came of drawing on a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    /// The amount is used.
    Granted {
        /// What counts against the limit now, the amount included.
        used: u64,
    },
    /// It would pass the limit. Where the rule's mode lets it through, it is used
    /// all the same, and counts.
    Refused {
        /// What counts against the limit now.
        used: u64,
        /// The wait until so much can be drawn if nobody else draws; `None` where
        /// more than the limit was asked for.
        retry_after: Option<Duration>,
    },
}

impl Tenants {
    /// Takes one operation from the tenant's rate, for a call that was admitted.
    ///
    /// # Errors
    /// [`Error::RateLimited`]; those of [`Tenants::draw`].
    pub async fn charge(&self, tenancy: &Tenancy) -> Result<()> {
        let Some(rule) = &tenancy.operations else {
            return Ok(());
        };
        match self.draw(tenancy, rule, 1).await? {
            Drawn::Granted { .. } => Ok(()),
            Drawn::Refused { used, retry_after } => {
                let passed = Warning::new(OPERATIONS_PER_MINUTE, rule.limit, used);
                tenancy.passed(rule.mode, passed, |passed, scope| Error::RateLimited {
                    metric: passed.metric,
                    limit: passed.limit,
                    used: passed.used,
                    scope,
                    retry_after,
                })
            }
        }
    }

    /// Draws an amount, all of it or none. In memory, and without an allocation,
    /// as long as permits are at hand or a refusal is remembered.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] where the store cannot be asked and the rule
    /// denies then.
    pub async fn draw(&self, tenancy: &Tenancy, rule: &Rule, amount: u64) -> Result<Drawn> {
        let rates = &tenancy.account.rates;
        if *rule.metric == *OPERATIONS_PER_MINUTE {
            let permits = rates.operations(&tenancy.account, rule);
            permits.draw(self, rule, amount).await
        } else {
            let permits = rates.other(&tenancy.account, rule);
            permits.draw(self, rule, amount).await
        }
    }

    /// What counts against a rate now, at all replicas; permits that others hold
    /// ahead are included. One call of the store.
    ///
    /// # Errors
    /// As [`Tenants::draw`].
    pub async fn look(&self, tenancy: &Tenancy, rule: &Rule) -> Result<u64> {
        let rates = &tenancy.account.rates;
        let permits = if *rule.metric == *OPERATIONS_PER_MINUTE {
            rates.operations(&tenancy.account, rule).clone()
        } else {
            rates.other(&tenancy.account, rule)
        };
        permits.look(self, rule).await
    }
}

/// The permits of a tenant at this replica, by metric.
#[derive(Debug, Default)]
pub(super) struct Rates {
    operations: OnceLock<Arc<Permits>>,
    others: Mutex<HashMap<Arc<str>, Arc<Permits>>>,
}

impl Rates {
    fn operations(&self, account: &Account, rule: &Rule) -> &Arc<Permits> {
        let begin = || Arc::new(Permits::new(account.incarnation, rule));
        self.operations.get_or_init(begin)
    }

    fn other(&self, account: &Account, rule: &Rule) -> Arc<Permits> {
        // The map is whole whoever panicked while holding it.
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = others.get(&rule.metric) {
            return permits.clone();
        }
        let permits = Arc::new(Permits::new(account.incarnation, rule));
        others.insert(rule.metric.clone(), permits.clone());
        permits
    }
}
