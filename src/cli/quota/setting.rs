//! Quotas as they are typed: `memory_bytes=2GiB:warn`, `pages_rendered=1000/1h`.
//! It does not know what a plan grants, nor what the server allows.

use crate::{
    cli::client,
    config,
    proto::v1::{CustomQuota, QuotaMode, Quotas},
};

/// The metrics the service itself counts, as the contract names them.
pub(in crate::cli) const METRICS: [&str; 6] = [
    "memory_bytes",
    "cache_entries",
    "storage_bytes",
    "operations_per_minute",
    "data_transfer_bytes",
    "active_sessions",
];

/// A limit as it is typed.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Limit {
    metric: String,
    /// `None` gives the metric back to the plan.
    limit: Option<CustomQuota>,
}

/// What happens at a limit, as it is typed.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Mode {
    metric: String,
    /// `None` gives it back to the plan.
    mode: Option<QuotaMode>,
}

/// A limit, what happens at it, or both.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Setting {
    pub(super) metric: String,
    pub(super) limit: Option<Limit>,
    pub(super) mode: Option<Mode>,
}

/// Reads `memory_bytes=1GiB`, `cache_entries=-1`, `active_sessions=default`,
/// `pages_rendered=1000/1h`.
pub(in crate::cli) fn limit(text: &str) -> Result<Limit, String> {
    let (metric, limit) = pair(text, "a limit, such as memory_bytes=1GiB")?;
    read_limit(metric, limit)
}

/// Reads `cache_entries=warn`.
pub(in crate::cli) fn mode(text: &str) -> Result<Mode, String> {
    let (metric, mode) = pair(text, "a mode, such as cache_entries=warn")?;
    read_mode(metric, mode)
}

/// Reads a limit, with `:mode` behind it or instead of it.
pub(super) fn setting(text: &str) -> Result<Setting, String> {
    let (metric, value) = pair(text, "a quota, such as memory_bytes=1GiB:warn")?;
    let (limit, mode) = match value.split_once(':') {
        Some((limit, mode)) => (limit, Some(read_mode(metric, mode)?)),
        None => (value, None),
    };
    let limit = match (limit, &mode) {
        ("", Some(_)) => None,
        _ => Some(read_limit(metric, limit)?),
    };
    // Back to the plan is back with all of it.
    let mode = mode.or_else(|| {
        let whole = limit.as_ref().is_some_and(|limit| limit.limit.is_none());
        whole.then(|| Mode {
            metric: metric.to_owned(),
            mode: None,
        })
    });
    Ok(Setting {
        metric: metric.to_owned(),
        limit,
        mode,
    })
}

fn read_limit(metric: &str, text: &str) -> Result<Limit, String> {
    let limit = match text {
        "default" | "plan" => None,
        _ => Some(read_quota(metric, text)?),
    };
    Ok(Limit {
        metric: metric.to_owned(),
        limit,
    })
}

fn read_quota(metric: &str, text: &str) -> Result<CustomQuota, String> {
    let (limit, window) = match text.split_once('/') {
        Some((_, _)) if METRICS.contains(&metric) => {
            return Err(format!(
                "{metric} has a window of its own; only the platform's own metrics are given one"
            ));
        }
        Some((limit, window)) => (limit, Some(read_window(window)?)),
        None => (text, None),
    };
    let bytes = metric.ends_with("_bytes");
    let limit = match limit {
        "-1" | "unlimited" => Some(-1),
        _ if bytes => config::read_size(limit).and_then(|bytes| i64::try_from(bytes).ok()),
        _ => limit.parse().ok().filter(|limit: &i64| *limit >= 0),
    };
    let limit = limit.ok_or(match bytes {
        true => "a size (bytes, 512KiB, 1GiB), -1 for unlimited, or `default` is allowed",
        false => "a whole number, -1 for unlimited, or `default` is allowed",
    })?;
    Ok(CustomQuota { limit, window })
}

fn read_window(text: &str) -> Result<prost_types::Duration, String> {
    let window = client::duration(text).map_err(|allowed| format!("window: {allowed}"))?;
    window.try_into().map_err(|_| "window: too long".to_owned())
}

fn read_mode(metric: &str, text: &str) -> Result<Mode, String> {
    let mode = match text {
        "enforce" => Some(QuotaMode::Enforce),
        "warn" => Some(QuotaMode::Warn),
        "shadow" => Some(QuotaMode::Shadow),
        "default" | "plan" => None,
        _ => return Err("enforce, warn, shadow or `default` is allowed".to_owned()),
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
    metric_name(metric).map(|metric| (metric, value))
}

/// Reads a metric's name. Any may be one of the platform's own, but not one that
/// is a service's metric typed wrongly: a limit on it would limit nothing.
fn metric_name(metric: &str) -> Result<&str, String> {
    if METRICS.contains(&metric) {
        return Ok(metric);
    }
    let mut letters = metric.chars();
    let named = letters
        .next()
        .is_some_and(|first| first.is_ascii_lowercase())
        && letters
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        && metric.len() <= 63;
    if !named {
        return Err(format!(
            "there is no metric {metric:?}; there are: {}, and the platform's own, \
             ^[a-z][a-z0-9_]{{0,62}}$",
            METRICS.join(", ")
        ));
    }
    let alike = METRICS.iter().find(|known| {
        let begins = known
            .strip_prefix(metric)
            .is_some_and(|rest| rest.starts_with('_'));
        begins || strsim::levenshtein(known, metric) <= known.len() / 4
    });
    match alike {
        Some(known) => Err(format!(
            "there is no metric {metric:?}: is {known} meant? One of the platform's own needs a \
             name that is less like it"
        )),
        None => Ok(metric),
    }
}

/// The paths of an update mask for what is typed.
pub(in crate::cli) fn paths<'a>(
    limits: impl IntoIterator<Item = &'a Limit>,
    modes: impl IntoIterator<Item = &'a Mode>,
) -> Vec<String> {
    let limits =
        limits.into_iter().map(
            |Limit { metric, .. }| match METRICS.contains(&metric.as_str()) {
                true => format!("quotas.{metric}"),
                false => format!("quotas.custom.{metric}"),
            },
        );
    let modes = modes
        .into_iter()
        .map(|mode| format!("quotas.modes.{}", mode.metric));
    limits.chain(modes).collect()
}

/// The message; `None` where nothing is given.
pub(in crate::cli) fn message<'a>(
    limits: impl IntoIterator<Item = &'a Limit>,
    modes: impl IntoIterator<Item = &'a Mode>,
) -> Option<Quotas> {
    let mut quotas = Quotas::default();
    let mut given = false;
    for Limit { metric, limit } in limits {
        given = true;
        match (field(&mut quotas, metric), *limit) {
            (Some(field), limit) => *field = limit.map(|quota| quota.limit),
            (None, Some(quota)) => drop(quotas.custom.insert(metric.clone(), quota)),
            (None, None) => drop(quotas.custom.remove(metric)),
        }
    }
    for Mode { metric, mode } in modes {
        given = true;
        match mode {
            Some(mode) => drop(quotas.modes.insert(metric.clone(), (*mode).into())),
            None => drop(quotas.modes.remove(metric)),
        }
    }
    given.then_some(quotas)
}

/// The limit of one of the service's own metrics.
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

/// The limit of a metric, a platform's own or not.
pub(super) fn limit_of(quotas: &Quotas, metric: &str) -> Option<CustomQuota> {
    let mut own = quotas.clone();
    match field(&mut own, metric) {
        Some(limit) => limit.map(|limit| CustomQuota {
            limit,
            window: None,
        }),
        None => quotas.custom.get(metric).copied(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Vec<String>, Quotas) {
        let read = setting(text).unwrap();
        let quotas = message(&read.limit, &read.mode).unwrap();
        (paths(&read.limit, &read.mode), quotas)
    }

    #[test]
    fn a_quota_is_a_limit_a_mode_or_both() {
        for (text, mask, limit, mode) in [
            (
                "memory_bytes=2GiB",
                &["quotas.memory_bytes"][..],
                Some((2 << 30, 0)),
                None,
            ),
            (
                "data_transfer_bytes=512KiB:warn",
                &[
                    "quotas.data_transfer_bytes",
                    "quotas.modes.data_transfer_bytes",
                ],
                Some((512 << 10, 0)),
                Some(QuotaMode::Warn),
            ),
            (
                "cache_entries=-1",
                &["quotas.cache_entries"],
                Some((-1, 0)),
                None,
            ),
            (
                "cache_entries=:shadow",
                &["quotas.modes.cache_entries"],
                None,
                Some(QuotaMode::Shadow),
            ),
            (
                "cache_entries=default",
                &["quotas.cache_entries", "quotas.modes.cache_entries"],
                None,
                None,
            ),
            (
                "cache_entries=plan:enforce",
                &["quotas.cache_entries", "quotas.modes.cache_entries"],
                None,
                Some(QuotaMode::Enforce),
            ),
            (
                "pages_rendered=1000/1h",
                &["quotas.custom.pages_rendered"],
                Some((1000, 3600)),
                None,
            ),
            (
                "seats=5:enforce",
                &["quotas.custom.seats", "quotas.modes.seats"],
                Some((5, 0)),
                Some(QuotaMode::Enforce),
            ),
            (
                "upload_bytes=1MiB/1d",
                &["quotas.custom.upload_bytes"],
                Some((1 << 20, 86400)),
                None,
            ),
            (
                "seats=default",
                &["quotas.custom.seats", "quotas.modes.seats"],
                None,
                None,
            ),
        ] {
            let (paths, quotas) = parts(text);
            assert_eq!(paths, mask, "{text}");
            let metric = text.split('=').next().unwrap();
            let found = limit_of(&quotas, metric)
                .map(|quota| (quota.limit, quota.window.map_or(0, |window| window.seconds)));
            assert_eq!(found, limit, "{text}");
            let found = quotas.modes.get(metric).copied();
            assert_eq!(found, mode.map(i32::from), "{text}");
        }
    }

    #[test]
    fn what_is_no_quota_is_refused_with_what_is_allowed() {
        for (text, says) in [
            ("memory_bytes", "expected a quota"),
            ("=5", "there is no metric \"\""),
            ("Pages=5", "there is no metric \"Pages\""),
            ("pages-rendered=5", "^[a-z]"),
            ("memory_byte=5", "is memory_bytes meant?"),
            ("cache_entry=5", "is cache_entries meant?"),
            ("memory=5", "is memory_bytes meant?"),
            (
                "operations_per_minutes=5",
                "is operations_per_minute meant?",
            ),
            ("cache_entries=", "a whole number"),
            ("cache_entries=5:", "enforce, warn, shadow"),
            ("cache_entries=5:maybe", "enforce, warn, shadow"),
            ("cache_entries=-2", "a whole number"),
            ("cache_entries=1e3", "a whole number"),
            ("cache_entries=9223372036854775808", "a whole number"),
            ("memory_bytes=9223372036854775808", "a size"),
            ("memory_bytes=2 giga", "a size"),
            ("cache_entries=5/1h", "has a window of its own"),
            ("pages=5/1", "needs its unit"),
            ("pages=5/", "needs its unit"),
            ("pages=/1h", "a whole number"),
        ] {
            let refused = setting(text).unwrap_err();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }
}
