//! `--quota metric=limit` and `--quota-mode metric=mode`. It does not know what
//! a plan grants.

use crate::{
    config,
    proto::v1::{QuotaMode, Quotas},
};

/// A limit as it is typed.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    pub(super) metric: String,
    /// `None` gives the metric back to the plan.
    limit: Option<i64>,
}

/// What happens at a limit.
#[derive(Clone, Debug)]
pub(super) struct Mode {
    pub(super) metric: String,
    mode: QuotaMode,
}

/// Reads `memory_bytes=1GiB`, `cache_entries=-1`, `active_sessions=plan`.
pub(super) fn limit(text: &str) -> Result<Limit, String> {
    let (metric, limit) = pair(text, "a limit, such as memory_bytes=1GiB")?;
    let bytes = metric.ends_with("_bytes");
    let limit = match limit {
        "plan" => None,
        "-1" | "unlimited" => Some(-1),
        _ => {
            let read = if bytes {
                config::read_size(limit)
            } else {
                limit.parse().ok()
            };
            let read = read.and_then(|limit| i64::try_from(limit).ok());
            Some(read.ok_or(match bytes {
                true => "a size (bytes, 512KiB, 1GiB), -1 for unlimited, or `plan` is allowed",
                false => "a whole number, -1 for unlimited, or `plan` is allowed",
            })?)
        }
    };
    Ok(Limit {
        metric: metric.to_owned(),
        limit,
    })
}

/// Reads `cache_entries=warn`.
pub(super) fn mode(text: &str) -> Result<Mode, String> {
    let (metric, mode) = pair(text, "a mode, such as cache_entries=warn")?;
    let mode = match mode {
        "enforce" => QuotaMode::Enforce,
        "warn" => QuotaMode::Warn,
        "shadow" => QuotaMode::Shadow,
        _ => return Err("enforce, warn or shadow is allowed".to_owned()),
    };
    Ok(Mode {
        metric: metric.to_owned(),
        mode,
    })
}

fn pair<'a>(text: &'a str, expected: &str) -> Result<(&'a str, &'a str), String> {
    let (metric, value) = text
        .split_once('=')
        .ok_or_else(|| format!("expected {expected}"))?;
    match field(&mut Quotas::default(), metric) {
        Some(_) => Ok((metric, value)),
        None => Err(format!(
            "there is no metric {metric:?}; there are: {}",
            METRICS.join(", ")
        )),
    }
}

const METRICS: [&str; 6] = [
    "memory_bytes",
    "cache_entries",
    "storage_bytes",
    "operations_per_minute",
    "data_transfer_bytes",
    "active_sessions",
];

fn field<'a>(quotas: &'a mut Quotas, metric: &str) -> Option<&'a mut Option<i64>> {
    match metric {
        "memory_bytes" => Some(&mut quotas.memory_bytes),
        "cache_entries" => Some(&mut quotas.cache_entries),
        "storage_bytes" => Some(&mut quotas.storage_bytes),
        "operations_per_minute" => Some(&mut quotas.operations_per_minute),
        "data_transfer_bytes" => Some(&mut quotas.data_transfer_bytes),
        "active_sessions" => Some(&mut quotas.active_sessions),
        _ => None,
    }
}

/// The message; `None` where nothing is given.
pub(super) fn message(limits: &[Limit], modes: &[Mode]) -> Option<Quotas> {
    if limits.is_empty() && modes.is_empty() {
        return None;
    }
    let mut quotas = Quotas::default();
    for limit in limits {
        if let Some(field) = field(&mut quotas, &limit.metric) {
            *field = limit.limit;
        }
    }
    quotas.modes = modes
        .iter()
        .map(|mode| (mode.metric.clone(), mode.mode.into()))
        .collect();
    Some(quotas)
}
