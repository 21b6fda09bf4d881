//! Limits on a figure that is known when it is compared: what a tenant holds, and
//! what it transferred. It does not know how the figure comes about.

use std::time::Duration;

use super::{Period, Quotas, Tenancy, Tenants, plan::Mode, quota::Warning};
use crate::{
    error::{Error, Result},
    store::Usage,
};

/// Bytes of cache entries.
pub const MEMORY_BYTES: &str = "memory_bytes";
/// Cache entries.
pub const CACHE_ENTRIES: &str = "cache_entries";
/// Bytes of sessions.
pub const STORAGE_BYTES: &str = "storage_bytes";
/// Sessions alive.
pub const ACTIVE_SESSIONS: &str = "active_sessions";
/// Bytes in and out in a billing period.
pub const DATA_TRANSFER_BYTES: &str = "data_transfer_bytes";

/// A limit on such a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The metric's name in Quotas.
    pub metric: &'static str,
    /// The limit.
    pub limit: u64,
    /// What happens at the limit.
    pub mode: Mode,
}

impl Quotas {
    fn level(&self, metric: &'static str, limit: Option<i64>) -> Option<Level> {
        Some(Level {
            metric,
            // A negative limit is -1, which means unlimited.
            limit: u64::try_from(limit?).ok()?,
            mode: self.mode(metric),
        })
    }

    /// The limits on entries that let through; a commit enforces the others.
    pub(super) fn watched(&self) -> Vec<Level> {
        lenient([
            self.level(MEMORY_BYTES, self.memory_bytes),
            self.level(CACHE_ENTRIES, self.cache_entries),
        ])
    }

    /// The limits on sessions that let through; likewise.
    pub(super) fn watched_of_sessions(&self) -> Vec<Level> {
        lenient([
            self.level(STORAGE_BYTES, self.storage_bytes),
            self.level(ACTIVE_SESSIONS, self.active_sessions),
        ])
    }

    /// The limit on transfer.
    pub(super) fn transfer(&self) -> Option<Level> {
        self.level(DATA_TRANSFER_BYTES, self.data_transfer_bytes)
    }
}

fn lenient(levels: [Option<Level>; 2]) -> Vec<Level> {
    let lenient = |level: &Level| level.mode != Mode::Enforce;
    levels.into_iter().flatten().filter(lenient).collect()
}

impl Tenancy {
    /// Looks at what the tenant's cache holds after a commit that may have grown it: a
    /// limit that lets through is told of where it is passed.
    pub fn watch(&self, usage: &Usage) {
        self.look_at(&self.watched, usage);
    }

    /// The same of its sessions.
    pub fn watch_sessions(&self, usage: &Usage) {
        self.look_at(&self.session_watched, usage);
    }

    fn look_at(&self, levels: &[Level], usage: &Usage) {
        for level in levels {
            let used = match level.metric {
                MEMORY_BYTES | STORAGE_BYTES => usage.bytes,
                _ => usage.entries,
            };
            if used > level.limit {
                let passed = Warning::new(level.metric, level.limit, used);
                // It lets through.
                let _ = self.passed(level.mode, passed, |passed, scope| {
                    exceeded(passed, scope, None)
                });
            }
        }
    }
}

impl Tenants {
    /// Whether a call may still transfer anything in this billing period, as far
    /// as this replica knows. Asks the store only where it knows nothing; where it
    /// cannot be asked then, the call goes on.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`], until the period's end.
    pub async fn admit_transfer(&self, tenancy: &Tenancy) -> Result<()> {
        let Some(level) = &tenancy.transfer else {
            return Ok(());
        };
        let now_ms = self.store.now_ms();
        let period = Period::of(now_ms);
        let used = match tenancy.account.meter.transferred(period) {
            Some(used) => used,
            None => match self.transferred(&tenancy.account, period).await {
                Ok(used) => used,
                Err(error) => {
                    tracing::debug!(%error, "transfer not known");
                    return Ok(());
                }
            },
        };
        if used < level.limit {
            return Ok(());
        }
        let passed = Warning::new(level.metric, level.limit, used);
        tenancy.passed(level.mode, passed, |passed, scope| {
            exceeded(passed, scope, Some(until_next_period(now_ms)))
        })
    }
}

/// How long a billing period still lasts.
pub(super) fn until_next_period(now_ms: u64) -> Duration {
    Duration::from_millis(Period::of(now_ms).end_ms().saturating_sub(now_ms))
}

/// A refusal for a quota.
pub(super) fn exceeded(passed: Warning, scope: String, retry_after: Option<Duration>) -> Error {
    Error::QuotaExceeded {
        metric: passed.metric,
        limit: passed.limit,
        used: passed.used,
        scope,
        retry_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::{Accounts, tenancy::Terms};

    #[test]
    fn limits_that_let_through_are_watched_and_the_others_enforced() {
        for (mode, memory, watched, enforced) in [
            (Mode::Enforce, 5, None, Some(5)),
            (Mode::Warn, 5, Some(5), None),
            (Mode::Shadow, 0, Some(0), None),
            (Mode::Warn, -1, None, None),
        ] {
            let quotas = Quotas {
                memory_bytes: Some(memory),
                modes: [(MEMORY_BYTES.to_owned(), mode)].into(),
                ..Quotas::default()
            };
            let levels = quotas.watched();
            assert_eq!(levels.first().map(|level| level.limit), watched, "{mode:?}");
            assert_eq!(quotas.enforced().bytes, enforced, "{mode:?}");
        }
    }

    #[test]
    fn what_passes_a_watched_limit_is_counted_and_a_warning_told() {
        for (mode, used, throttled, warned) in [
            (Mode::Warn, 10, 0, 0),
            (Mode::Warn, 11, 1, 1),
            (Mode::Shadow, 11, 1, 0),
        ] {
            let account = Accounts::default().of(crate::store::Incarnation::random());
            let mut terms = Terms::unlimited("acme", account);
            terms.warns = true;
            let metric = CACHE_ENTRIES;
            terms.watched = vec![Level {
                metric,
                limit: 10,
                mode,
            }];
            let tenancy = Tenancy::on(terms.into());
            tenancy.watch(&Usage {
                entries: used,
                ..Usage::default()
            });
            let period = Period::of(0);
            let counted = tenancy.account.meter.take(period).counts.throttled;
            assert_eq!(
                (counted, tenancy.notes.warnings().len()),
                (throttled, warned)
            );
        }
    }

    #[test]
    fn a_period_lasts_to_the_end_of_its_month() {
        let november = Period::of(1_793_491_200_000);
        for (now_ms, left_ms) in [
            (november.start_ms(), november.ms()),
            (november.end_ms() - 1, 1),
            (november.end_ms(), november.next().ms()),
        ] {
            assert_eq!(until_next_period(now_ms), Duration::from_millis(left_ms));
        }
    }
}
