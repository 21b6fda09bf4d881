//! What happens at a limit: the call is refused, let through and told, or let
//! through and counted. It does not know how anything is counted.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Counts, Tenancy, level, plan::Mode};
use crate::error::{Error, Result};

/// Calls, in any minute.
pub const OPERATIONS_PER_MINUTE: &str = "operations_per_minute";

/// A warning about one metric of a tenant is logged at most so often.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Metrics whose last warning is remembered; beyond it, all are forgotten.
const REMEMBERED: usize = 256;

/// A limit that was passed, and what is used against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The metric's name in Quotas.
    pub metric: Cow<'static, str>,
    /// Its limit.
    pub limit: i64,
    /// What counts against it.
    pub used: i64,
}

impl Warning {
    /// A passed limit, with figures as the store counts them.
    pub fn new(metric: impl Into<Cow<'static, str>>, limit: u64, used: u64) -> Self {
        let signed = |figure| i64::try_from(figure).unwrap_or(i64::MAX);
        Self {
            metric: metric.into(),
            limit: signed(limit),
            used: signed(used),
        }
    }
}

/// What a call's answer will tell beside its result: the limits that it passed
/// in a mode that warns. Those of a tenant without such a mode hold nothing.
#[derive(Clone, Debug, Default)]
pub struct Notes(Option<Arc<Mutex<Vec<Warning>>>>);

impl Notes {
    /// Notes that are kept, for a tenant that is to be warned.
    pub fn kept() -> Self {
        Self(Some(Arc::default()))
    }

    /// Adds a warning, unless the metric is warned of already.
    pub fn add(&self, warning: Warning) {
        if let Some(warnings) = &self.0 {
            let mut warnings = lock(warnings);
            if !warnings.iter().any(|known| known.metric == warning.metric) {
                warnings.push(warning);
            }
        }
    }

    /// The warnings so far, in the order they were added.
    pub fn warnings(&self) -> Vec<Warning> {
        let warnings = self.0.as_ref();
        warnings.map_or_else(Vec::new, |warnings| lock(warnings).clone())
    }

    /// Whether anything is kept.
    pub fn are_kept(&self) -> bool {
        self.0.is_some()
    }
}

/// When each metric of a tenant was last warned of in the log.
#[derive(Debug, Default)]
pub(super) struct Warned(Mutex<HashMap<String, Instant>>);

impl Warned {
    /// Whether a warning is to be logged now; then the next is a minute away.
    pub(super) fn is_due(&self, metric: &str, now: Instant) -> bool {
        let mut warned = lock(&self.0);
        let recent = warned
            .get(metric)
            .is_some_and(|last| now.saturating_duration_since(*last) < LOG_EVERY);
        if !recent {
            if warned.len() >= REMEMBERED {
                warned.clear();
            }
            warned.insert(metric.to_owned(), now);
        }
        !recent
    }
}

impl Tenancy {
    /// Whose quotas they are, as refusals say it.
    pub fn scope(&self) -> String {
        format!("tenant:{}", self.tenant_id)
    }

    /// What becomes of a call that passes a limit, which is counted as throttled
    /// in every mode: in ENFORCE it is refused; in WARN it goes on, and is told in
    /// its answer and, once a minute, in the log; in SHADOW it goes on.
    ///
    /// # Errors
    /// In ENFORCE, what `refusal` makes of the passed limit and its scope.
    pub fn passed(
        &self,
        mode: Mode,
        passed: Warning,
        refusal: impl FnOnce(Warning, String) -> Error,
    ) -> Result<()> {
        self.note(mode, &passed);
        match mode {
            Mode::Enforce => Err(refusal(passed, self.scope())),
            Mode::Warn | Mode::Shadow => Ok(()),
        }
    }

    /// What the store refused for a quota, as the caller learns of it; counted.
    pub fn exceeded(
        &self,
        metric: &'static str,
        limit: u64,
        used: u64,
        retry_after: Option<Duration>,
    ) -> Error {
        self.account.traffic.passed(metric, true);
        level::exceeded(Warning::new(metric, limit, used), self.scope(), retry_after)
    }

    /// The same for whoever says himself what becomes of the call.
    pub(super) fn note(&self, mode: Mode, passed: &Warning) {
        self.account.meter.count(Counts {
            throttled: 1,
            ..Counts::default()
        });
        match mode {
            Mode::Enforce => self.account.traffic.passed(&passed.metric, true),
            Mode::Warn => self.account.traffic.passed(&passed.metric, false),
            Mode::Shadow => {}
        }
        if mode != Mode::Warn {
            return;
        }
        if self.account.warned.is_due(&passed.metric, Instant::now()) {
            let Warning {
                metric,
                limit,
                used,
            } = passed;
            let tenant = &*self.tenant_id;
            tracing::warn!(tenant, %metric, limit, used, "quota passed");
        }
        self.notes.add(passed.clone());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole whoever panicked while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_noted_once_and_only_where_notes_are_kept() {
        for (notes, expected) in [(Notes::default(), 0), (Notes::kept(), 2)] {
            for metric in ["a", "b", "a"] {
                notes.add(Warning::new(metric, 1, u64::MAX));
            }
            let warnings = notes.warnings();
            assert_eq!(warnings.len(), expected);
            assert!(warnings.iter().all(|warning| warning.used == i64::MAX));
        }
    }

    #[test]
    fn a_warning_is_logged_once_a_minute_a_metric() {
        let (warned, now) = (Warned::default(), Instant::now());
        let due = |metric: &'static str, seconds| {
            warned.is_due(metric, now + Duration::from_secs(seconds))
        };
        assert_eq!(
            [due("a", 0), due("a", 59), due("b", 59), due("a", 60)],
            [true, false, true, true]
        );
    }
}
