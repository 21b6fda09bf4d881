//! The quotas in force: a plan's, overlaid with the tenant's own. It does not
//! know what is used of them.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{config, store::Limits};

/// Limits of a tenant: `None` means the plan's, -1 unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quotas {
    /// Bytes of cache entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<i64>,
    /// Cache entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_entries: Option<i64>,
    /// Bytes of sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<i64>,
    /// Calls in any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations_per_minute: Option<i64>,
    /// Bytes in and out in a billing period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_transfer_bytes: Option<i64>,
    /// Sessions alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_sessions: Option<i64>,
    /// The platform's own metrics, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom: BTreeMap<String, CustomQuota>,
    /// What happens at a limit, by metric; a metric that is absent is enforced.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub modes: BTreeMap<String, Mode>,
}

/// A limit on a metric of the platform's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomQuota {
    /// The limit; -1 means unlimited.
    pub limit: i64,
    /// The window the limit counts in, in milliseconds; `None` means a level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u64>,
}

pub use crate::config::{METRICS, QuotaMode as Mode};

impl Quotas {
    /// The limit of a metric of [`METRICS`], to be read or set; `None` for any
    /// other name.
    pub fn limit_mut(&mut self, metric: &str) -> Option<&mut Option<i64>> {
        match metric {
            "memory_bytes" => Some(&mut self.memory_bytes),
            "cache_entries" => Some(&mut self.cache_entries),
            "storage_bytes" => Some(&mut self.storage_bytes),
            "operations_per_minute" => Some(&mut self.operations_per_minute),
            "data_transfer_bytes" => Some(&mut self.data_transfer_bytes),
            "active_sessions" => Some(&mut self.active_sessions),
            _ => None,
        }
    }

    /// The limits of the service's own metrics, in the order of [`METRICS`].
    pub fn limits(&self) -> [(&'static str, Option<i64>); 6] {
        let [memory, entries, storage, operations, transfer, sessions] = METRICS;
        [
            (memory, self.memory_bytes),
            (entries, self.cache_entries),
            (storage, self.storage_bytes),
            (operations, self.operations_per_minute),
            (transfer, self.data_transfer_bytes),
            (sessions, self.active_sessions),
        ]
    }

    /// What happens at the limit of a metric.
    pub fn mode(&self, metric: &str) -> Mode {
        self.modes.get(metric).copied().unwrap_or_default()
    }

    /// What the store has to enforce on entries: only metrics whose mode says so.
    pub fn enforced(&self) -> Limits {
        Limits {
            entries: self.bound("cache_entries", self.cache_entries),
            bytes: self.bound("memory_bytes", self.memory_bytes),
        }
    }

    /// What the store has to enforce on sessions; likewise.
    pub fn enforced_on_sessions(&self) -> Limits {
        Limits {
            entries: self.bound("active_sessions", self.active_sessions),
            bytes: self.bound("storage_bytes", self.storage_bytes),
        }
    }

    fn bound(&self, metric: &str, limit: Option<i64>) -> Option<u64> {
        // A negative limit is -1, which means unlimited.
        limit
            .filter(|_| self.mode(metric) == Mode::Enforce)
            .and_then(|limit| u64::try_from(limit).ok())
    }
}

/// The plan's quotas, overlaid with the tenant's own.
pub fn effective(plan: &config::Plan, own: &Quotas) -> Quotas {
    Quotas {
        memory_bytes: own.memory_bytes.or(Some(plan.quotas.memory_bytes)),
        cache_entries: own.cache_entries.or(Some(plan.quotas.cache_entries)),
        storage_bytes: own.storage_bytes.or(Some(plan.quotas.storage_bytes)),
        operations_per_minute: own
            .operations_per_minute
            .or(Some(plan.quotas.operations_per_minute)),
        data_transfer_bytes: own
            .data_transfer_bytes
            .or(Some(plan.quotas.data_transfer_bytes)),
        active_sessions: own.active_sessions.or(Some(plan.quotas.active_sessions)),
        custom: over(plan.quotas.custom.iter().map(custom), &own.custom),
        modes: over(
            plan.quotas
                .modes
                .iter()
                .map(|(metric, mode)| (metric.clone(), *mode)),
            &own.modes,
        ),
    }
}

fn custom((metric, quota): (&String, &config::CustomQuota)) -> (String, CustomQuota) {
    let ms = |window: Duration| u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let quota = CustomQuota {
        limit: quota.limit,
        window_ms: quota.window.map(ms),
    };
    (metric.clone(), quota)
}

/// The plan's, by name, with the tenant's own in the place of those it names too.
fn over<T: Copy>(
    plan: impl Iterator<Item = (String, T)>,
    own: &BTreeMap<String, T>,
) -> BTreeMap<String, T> {
    let own = own.iter().map(|(metric, own)| (metric.clone(), *own));
    plan.chain(own).collect()
}

/// The plan of this name; where the configuration no longer has it, the default
/// plan, so that a removed plan does not free its tenants of every limit.
pub fn named<'a>(settings: &'a config::Tenant, name: &str) -> Cow<'a, config::Plan> {
    match settings
        .plans
        .get(name)
        .or_else(|| settings.plans.get(&settings.default_plan))
    {
        Some(plan) => Cow::Borrowed(plan),
        None => Cow::Owned(config::Plan::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> config::Plan {
        config::Plan {
            quotas: config::Quotas {
                memory_bytes: 1000,
                cache_entries: 10,
                storage_bytes: -1,
                operations_per_minute: 60,
                data_transfer_bytes: 1,
                active_sessions: 2,
                ..config::Quotas::default()
            },
            default_ttl: None,
            prices: config::Prices::default(),
        }
    }

    #[test]
    fn a_tenants_own_quota_wins_over_its_plan() {
        let own = Quotas {
            memory_bytes: Some(5),
            active_sessions: Some(-1),
            ..Quotas::default()
        };
        let effective = effective(&plan(), &own);
        assert_eq!(
            effective.limits().map(|(_, limit)| limit),
            [Some(5), Some(10), Some(-1), Some(60), Some(1), Some(-1)]
        );
    }

    #[test]
    fn a_tenants_own_metric_or_mode_takes_the_place_of_its_plans() {
        let rate = |limit, window_ms| CustomQuota { limit, window_ms };
        let mut plan = plan();
        let hour = Some(Duration::from_secs(3600));
        for (metric, window) in [("pages", hour), ("seats", None)] {
            let quota = config::CustomQuota { limit: 5, window };
            plan.quotas.custom.insert(metric.to_owned(), quota);
            plan.quotas.modes.insert(metric.to_owned(), Mode::Warn);
        }
        let own = Quotas {
            custom: [
                ("pages".to_owned(), rate(9, None)),
                ("mails".to_owned(), rate(-1, Some(1000))),
            ]
            .into(),
            modes: [
                ("pages".to_owned(), Mode::Enforce),
                ("mails".to_owned(), Mode::Shadow),
            ]
            .into(),
            ..Quotas::default()
        };
        let effective = effective(&plan, &own);
        let wanted = [
            ("mails", rate(-1, Some(1000)), Mode::Shadow),
            ("pages", rate(9, None), Mode::Enforce),
            ("seats", rate(5, None), Mode::Warn),
        ];
        for (metric, quota, mode) in wanted {
            assert_eq!(effective.custom.get(metric), Some(&quota), "{metric}");
            assert_eq!(effective.mode(metric), mode, "{metric}");
        }
        assert_eq!(effective.custom.len(), wanted.len());
        assert_eq!(effective.mode("memory_bytes"), Mode::Enforce);

        let none = super::effective(&plan, &Quotas::default());
        assert_eq!(none.custom.get("pages"), Some(&rate(5, Some(3_600_000))));
    }

    #[test]
    fn only_enforced_limits_reach_the_store() {
        for (memory, entries, mode, expected) in [
            (None, None, None, (Some(10), Some(1000))),
            (Some(-1), Some(0), None, (Some(0), None)),
            (None, None, Some(Mode::Warn), (Some(10), None)),
            (None, None, Some(Mode::Shadow), (Some(10), None)),
            (None, None, Some(Mode::Enforce), (Some(10), Some(1000))),
        ] {
            let mut own = Quotas {
                memory_bytes: memory,
                cache_entries: entries,
                ..Quotas::default()
            };
            own.modes
                .extend(mode.map(|mode| ("memory_bytes".to_owned(), mode)));
            let limits = effective(&plan(), &own).enforced();
            assert_eq!(
                (limits.entries, limits.bytes),
                expected,
                "{memory:?} {entries:?} {mode:?}"
            );
        }
    }

    #[test]
    fn a_removed_plan_falls_back_to_the_default_one() {
        let settings = config::Tenant {
            default_plan: "free".into(),
            max_tenants: -1,
            delete_grace: std::time::Duration::ZERO,
            plans: [("free".to_owned(), plan())].into(),
            ..config::Tenant::default()
        };
        assert_eq!(*named(&settings, "gone"), plan());
    }
}
