//! A check whose metric is known, and the answers to it. It does not know where
//! the figures come from.

use std::time::Duration;

use super::{Checked, Deed};
use crate::{
    store::{Add, Count},
    tenant::{
        CACHE_ENTRIES, DATA_TRANSFER_BYTES, MEMORY_BYTES, Quotas, Tenancy,
        plan::{METRICS, Mode},
        quota::{OPERATIONS_PER_MINUTE, Warning},
        rate::Rule,
        rows,
    },
};

/// What a metric is, as far as a check goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the space of entries counts.
    Held,
    /// What that of sessions counts.
    Sessions,
    /// What was transferred in the billing period.
    Transfer,
    /// Calls in any minute.
    Operations,
    /// A rate of the platform's own.
    Rate,
    /// A level of the platform's own.
    Level,
}

impl Kind {
    /// What a metric in force is, and its limit.
    pub(super) fn of(quotas: &Quotas, metric: &str) -> Option<(Self, i64)> {
        if let Some(quota) = quotas.custom.get(metric) {
            let kind = quota.window_ms.map_or(Self::Level, |_| Self::Rate);
            return Some((kind, quota.limit));
        }
        let mut own = quotas.limits().into_iter();
        let limit = own.find_map(|(name, limit)| (name == metric).then_some(limit))?;
        let kind = match metric {
            MEMORY_BYTES | CACHE_ENTRIES => Self::Held,
            DATA_TRANSFER_BYTES => Self::Transfer,
            OPERATIONS_PER_MINUTE => Self::Operations,
            _ => Self::Sessions,
        };
        Some((kind, limit.unwrap_or(-1)))
    }

    /// Why a deed is not for it.
    pub(super) fn forbids(self, deed: Deed) -> Option<&'static str> {
        match (deed, self) {
            (Deed::Peek, _)
            | (Deed::Consume, Self::Operations | Self::Rate | Self::Level)
            | (Deed::Release, Self::Level) => None,
            (Deed::Consume, _) => Some(
                "measured by the service itself; CONSUME is for operations_per_minute and \
                 custom metrics, PEEK for all",
            ),
            (Deed::Release, _) => Some("not a custom level; RELEASE is for those alone"),
        }
    }
}

/// A check whose metric is known.
pub(super) struct Asked<'a> {
    pub(super) tenancy: &'a Tenancy,
    pub(super) metric: &'a str,
    pub(super) amount: u64,
    pub(super) limit: i64,
    pub(super) mode: Mode,
}

impl Asked<'_> {
    /// The limit, where there is one.
    pub(super) fn bound(&self) -> Option<u64> {
        // A negative limit is -1, which means unlimited.
        u64::try_from(self.limit).ok()
    }

    pub(super) fn rule(&self, kind: Kind) -> Option<&Rule> {
        match kind {
            Kind::Operations => self.tenancy.operations.as_ref(),
            _ => {
                let mut rates = self.tenancy.rates.iter();
                rates.find(|rule| *rule.metric == *self.metric)
            }
        }
    }

    pub(super) fn level(&self, counts: [Count; 1]) -> Add {
        Add {
            row: rows::levels(self.tenancy.incarnation),
            keep_ms: None,
            counts: counts.into(),
        }
    }

    pub(super) fn allowed(&self, used: u64) -> Checked {
        Checked {
            allowed: true,
            limit: self.limit,
            used,
            retry_after: None,
            mode: self.mode,
        }
    }

    /// What a look says, where so much is used already.
    pub(super) fn look(&self, used: u64, retry_after: Option<Duration>) -> Checked {
        let fits = self
            .bound()
            .is_none_or(|limit| used.saturating_add(self.amount) <= limit);
        let allowed = fits || self.mode != Mode::Enforce;
        Checked {
            allowed,
            retry_after: retry_after.filter(|_| !allowed),
            ..self.allowed(used)
        }
    }

    /// What consuming comes to where nothing was consumed, whatever the mode.
    pub(super) fn refused(&self, used: u64) -> Checked {
        let enforced = Asked {
            mode: Mode::Enforce,
            ..*self
        };
        Checked {
            mode: self.mode,
            ..enforced.passed(used, None)
        }
    }

    /// What consuming comes to that passes the limit.
    pub(super) fn passed(&self, used: u64, retry_after: Option<Duration>) -> Checked {
        let limit = self.bound().unwrap_or(u64::MAX);
        let passed = Warning::new(self.metric.to_owned(), limit, used);
        self.tenancy.note(self.mode, &passed);
        let allowed = self.mode != Mode::Enforce;
        Checked {
            allowed,
            retry_after: retry_after.filter(|_| !allowed),
            ..self.allowed(used)
        }
    }
}

/// That there is no such metric, and which there are.
pub(super) fn unknown(quotas: &Quotas) -> String {
    let known = METRICS.into_iter();
    let known = known.chain(quotas.custom.keys().map(String::as_str));
    let known: Vec<&str> = known.collect();
    format!("no such metric; the tenant has {}", known.join(", "))
}
