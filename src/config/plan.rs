//! Plans: what a tenant gets that has nothing of its own. It does not know which
//! tenants are on which.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    Prices, unit,
    validate::{Note, span},
};

/// The metrics this service itself counts, as the contract names them.
pub const METRICS: [&str; 6] = [
    "memory_bytes",
    "cache_entries",
    "storage_bytes",
    "operations_per_minute",
    "data_transfer_bytes",
    "active_sessions",
];

/// Metrics of the platform's own that a plan, or a tenant, may have.
pub const CUSTOM_METRICS: usize = 32;

/// The shortest window of a rate.
pub const MIN_WINDOW: Duration = Duration::from_secs(1);

/// The longest window of a rate.
pub const MAX_WINDOW: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The limits of a tenant on it.
    pub quotas: Quotas,
    /// How long entries live that are set without a time; `None` means for ever.
    #[serde(deserialize_with = "unit::optional_duration")]
    pub default_ttl: Option<Duration>,
    /// What it costs; nothing where that is not said.
    #[serde(default)]
    pub prices: Prices,
}

/// A plan's limits; -1 means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Bytes of cache entries.
    #[serde(deserialize_with = "unit::size_limit")]
    pub memory_bytes: i64,
    /// Cache entries.
    #[serde(deserialize_with = "unit::limit")]
    pub cache_entries: i64,
    /// Bytes of sessions.
    #[serde(deserialize_with = "unit::size_limit")]
    pub storage_bytes: i64,
    /// Calls in any minute.
    #[serde(deserialize_with = "unit::limit")]
    pub operations_per_minute: i64,
    /// Bytes in and out in a billing period.
    #[serde(deserialize_with = "unit::size_limit")]
    pub data_transfer_bytes: i64,
    /// Sessions alive.
    #[serde(deserialize_with = "unit::limit")]
    pub active_sessions: i64,
    /// Metrics of the platform's own, by name.
    #[serde(default)]
    pub custom: BTreeMap<String, CustomQuota>,
    /// What happens at a limit, by metric; a metric that is absent is enforced.
    #[serde(default)]
    pub modes: BTreeMap<String, QuotaMode>,
}

/// A limit on a metric of the platform's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomQuota {
    /// The limit; -1 means unlimited.
    #[serde(deserialize_with = "unit::limit")]
    pub limit: i64,
    /// The window the limit counts in; `None` means a level.
    #[serde(default, deserialize_with = "unit::optional_duration")]
    pub window: Option<Duration>,
}

/// What happens at a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QuotaMode {
    /// Refused.
    #[default]
    Enforce,
    /// Let through and told.
    Warn,
    /// Let through and only counted.
    Shadow,
}

impl<'de> Deserialize<'de> for QuotaMode {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        unit::choose(
            value,
            &[
                ("enforce", Self::Enforce),
                ("warn", Self::Warn),
                ("shadow", Self::Shadow),
                ("", Self::default()),
            ],
        )
    }
}

/// Whether a metric of the platform's own may have this name:
/// `^[a-z][a-z0-9_]{0,62}$`, and not one of [`METRICS`].
pub fn is_custom_metric(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(word)
        && !METRICS.contains(&name)
}

/// Checks a plan; `at` is its path.
pub(super) fn check(at: &str, plan: &Plan, max_ttl: Duration, note: Note<'_>) {
    if let Some(ttl) = plan.default_ttl {
        let path = format!("{at}.default_ttl");
        span(note, &path, ttl, Duration::from_millis(1), max_ttl);
    }
    let Quotas { custom, modes, .. } = &plan.quotas;
    let at = format!("{at}.quotas");
    if custom.len() > CUSTOM_METRICS {
        let given = custom.len();
        note(
            &format!("{at}.custom"),
            format!("{given} metrics; at most {CUSTOM_METRICS} are allowed"),
        );
    }
    for (metric, quota) in custom {
        if !is_custom_metric(metric) {
            let allowed = "is not a metric's name: ^[a-z][a-z0-9_]{0,62}$ is allowed, and none of \
                           the service's own metrics";
            note(&format!("{at}.custom.{metric}"), allowed.to_owned());
        }
        if let Some(window) = quota.window {
            let path = format!("{at}.custom.{metric}.window");
            span(note, &path, window, MIN_WINDOW, MAX_WINDOW);
        }
    }
    for metric in modes.keys() {
        if !METRICS.contains(&metric.as_str()) && !custom.contains_key(metric) {
            let known: Vec<&str> = METRICS
                .into_iter()
                .chain(custom.keys().map(String::as_str))
                .collect();
            note(
                &format!("{at}.modes.{metric}"),
                format!(
                    "is not a metric of this plan, which has: {}",
                    known.join(", ")
                ),
            );
        }
    }
}
