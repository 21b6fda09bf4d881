//! Rates: how many calls, or how much of a metric of the platform's own, in any
//! span of time. It does not know what is counted, nor what refusals look like.

use std::{collections::BTreeMap, sync::Arc};

use super::{Tenancy, Tenants, plan::Mode, rows};
use crate::{
    config::{self, WhenDown},
    error::Result,
    store::{Lease, Space},
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
        retry_after: Option<std::time::Duration>,
    },
}

impl Tenants {
    /// Draws an amount, all of it or none.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`](crate::error::Error::StoreUnavailable) where
    /// the store cannot be asked and the rule denies then.
    pub async fn draw(&self, tenancy: &Tenancy, rule: &Rule, amount: u64) -> Result<Drawn> {
        let lease = Lease {
            window: rows::window(tenancy.incarnation, &rule.metric),
            limit: rule.limit,
            span_ms: rule.span_ms,
            want: amount,
            least: amount,
            share: 1,
            hold_ms: 1,
            ..Lease::default()
        };
        let space = Space::meters(tenancy.incarnation);
        let leased = self.store.lease(&space, lease).await?;
        let used = leased.counted;
        if leased.granted >= amount {
            return Ok(Drawn::Granted { used });
        }
        Ok(Drawn::Refused {
            used,
            retry_after: leased.retry_after_ms.map(std::time::Duration::from_millis),
        })
    }

    /// What counts against a rate now.
    ///
    /// # Errors
    /// As [`Tenants::draw`].
    pub async fn look(&self, tenancy: &Tenancy, rule: &Rule) -> Result<u64> {
        let lease = Lease {
            window: rows::window(tenancy.incarnation, &rule.metric),
            limit: rule.limit,
            span_ms: rule.span_ms,
            share: 1,
            hold_ms: 1,
            ..Lease::default()
        };
        let space = Space::meters(tenancy.incarnation);
        Ok(self.store.lease(&space, lease).await?.counted)
    }
}
