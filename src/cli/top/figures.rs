//! What a replica tells of itself, read from its JSON. Nothing in it is trusted: what
//! is missing or makes no sense is absent, and no text can steer a terminal. It does
//! not know where the JSON comes from.

use std::collections::BTreeMap;

use serde_json::Value;

use super::number::Unit;
use crate::cli::output::clean;

/// Bounds of what is kept of an answer.
const POINTS: usize = 720;
const TENANTS: usize = 1000;
const QUOTAS: usize = 64;
const SERVICES: usize = 64;
const TEXT_CHARS: usize = 200;

/// The time between points, where none that makes sense is told.
const STEP_MS: i64 = 5000;

/// The tenant that stands for all who are not told of by name.
pub(super) const OTHER: &str = "other";

/// What one replica tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) replica: String,
    pub(super) version: String,
    pub(super) backend: String,
    /// When it told, and when it started, in Unix time.
    pub(super) time_ms: i64,
    pub(super) start_time_ms: Option<i64>,
    pub(super) step_ms: i64,
    pub(super) health: Vec<Health>,
    pub(super) series: BTreeMap<Line, Vec<Option<f64>>>,
    pub(super) tenants: Vec<Tenant>,
}

/// Whether a service or component serves, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) service: String,
    pub(super) serving: bool,
    pub(super) trouble: String,
}

/// What a tenant does, a second, and how full its quotas are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tenant {
    pub(super) tenant_id: String,
    pub(super) calls: f64,
    pub(super) errors: f64,
    pub(super) throttled: f64,
    pub(super) hit_ratio: Option<f64>,
    pub(super) received_bytes: f64,
    pub(super) sent_bytes: f64,
    pub(super) quotas: Vec<Quota>,
}

impl Tenant {
    /// Its quota of which the largest part is used.
    pub(super) fn fullest(&self) -> Option<(&Quota, f64)> {
        let parts = self
            .quotas
            .iter()
            .filter_map(|quota| Some((quota, quota.part()?)));
        parts.max_by(|(_, a), (_, b)| a.total_cmp(b))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quota {
    pub(super) metric: String,
    pub(super) used: f64,
    /// Below 0: none.
    pub(super) limit: f64,
}

impl Quota {
    /// The part of the limit that is used, where there is a limit.
    pub(super) fn part(&self) -> Option<f64> {
        match self.limit {
            limit if limit < 0.0 => None,
            0.0 => Some(1.0),
            limit => Some((self.used / limit).clamp(0.0, 999.0)),
        }
    }

    /// What of how much is used, in the unit that the metric's name tells.
    pub(super) fn text(&self) -> String {
        let unit = match self.metric.ends_with("_bytes") {
            true => Unit::Bytes,
            false => Unit::Count,
        };
        let used = unit.text(Some(self.used));
        match self.part() {
            None => format!("{used}, unlimited"),
            Some(part) => format!(
                "{used} of {} ({})",
                unit.text(Some(self.limit)),
                Unit::Ratio.text(Some(part))
            ),
        }
    }
}

/// What is told over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    Calls,
    Errors,
    HitRatio,
    NearHitRatio,
    P50,
    P99,
    StoreP99,
    InFlight,
    Connections,
    Rss,
    Near,
}

/// How the values of several replicas become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merged {
    Sum,
    /// By the calls of each.
    Mean,
    /// The worst of them: percentiles cannot be put together.
    Most,
}

impl Line {
    pub(super) const ALL: [Self; 11] = [
        Self::Calls,
        Self::Errors,
        Self::HitRatio,
        Self::NearHitRatio,
        Self::P50,
        Self::P99,
        Self::StoreP99,
        Self::InFlight,
        Self::Connections,
        Self::Rss,
        Self::Near,
    ];

    /// Its field in the JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls_per_second",
            Self::Errors => "errors_per_second",
            Self::HitRatio => "hit_ratio",
            Self::NearHitRatio => "near_hit_ratio",
            Self::P50 => "p50_ms",
            Self::P99 => "p99_ms",
            Self::StoreP99 => "store_p99_ms",
            Self::InFlight => "in_flight",
            Self::Connections => "connections",
            Self::Rss => "rss_bytes",
            Self::Near => "near_bytes",
        }
    }

    /// What a plot of it is headed with.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Calls => "calls/s",
            Self::Errors => "errors/s",
            Self::HitRatio => "hit ratio",
            Self::NearHitRatio => "near hits",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::StoreP99 => "store p99",
            Self::InFlight => "in flight",
            Self::Connections => "connections",
            Self::Rss => "memory",
            Self::Near => "near cache",
        }
    }

    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Calls | Self::Errors | Self::InFlight | Self::Connections => Unit::Count,
            Self::HitRatio | Self::NearHitRatio => Unit::Ratio,
            Self::P50 | Self::P99 | Self::StoreP99 => Unit::Ms,
            Self::Rss | Self::Near => Unit::Bytes,
        }
    }

    pub(super) fn merged(self) -> Merged {
        match self {
            Self::HitRatio | Self::NearHitRatio => Merged::Mean,
            Self::P50 | Self::P99 | Self::StoreP99 => Merged::Most,
            _ => Merged::Sum,
        }
    }
}

impl Figures {
    /// Reads an answer; `None` where it is no figures at all.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        let json: Value = serde_json::from_slice(json).ok()?;
        // Any answer of figures has these two; another service's JSON has not.
        json.get("series")?.as_object()?;
        json.get("tenants")?.as_array()?;
        let time = |field: &str| json.get(field).and_then(Value::as_i64).filter(|at| *at > 0);
        let step = json.get("step_ms").and_then(Value::as_i64);
        let health = rows(&json, "health", SERVICES).map(|row| Health {
            service: text(row, "service"),
            serving: row.get("serving").and_then(Value::as_bool) == Some(true),
            trouble: text(row, "trouble"),
        });
        Some(Self {
            replica: text(&json, "replica"),
            version: text(&json, "version"),
            backend: text(&json, "backend"),
            time_ms: time("time_ms").unwrap_or_default(),
            start_time_ms: time("start_time_ms"),
            step_ms: step
                .filter(|step| (1..=3_600_000).contains(step))
                .unwrap_or(STEP_MS),
            health: health.collect(),
            series: json.get("series").map(series).unwrap_or_default(),
            tenants: rows(&json, "tenants", TENANTS).map(tenant).collect(),
        })
    }
}

fn rows<'a>(json: &'a Value, field: &str, most: usize) -> impl Iterator<Item = &'a Value> {
    let rows = json.get(field).and_then(Value::as_array);
    rows.into_iter().flatten().take(most)
}

/// The points of every line that is told; the last ones where there are too many.
fn series(json: &Value) -> BTreeMap<Line, Vec<Option<f64>>> {
    let points = |line: Line| {
        let told = json.get(line.name())?.as_array()?;
        let last = told.get(told.len().saturating_sub(POINTS)..)?;
        Some((line, last.iter().map(number).collect()))
    };
    Line::ALL.into_iter().filter_map(points).collect()
}

fn tenant(json: &Value) -> Tenant {
    let rate = |field| json.get(field).and_then(number).unwrap_or_default();
    let quota = |json: &Value| {
        // A limit may be below 0, which says that there is none.
        let limit = json
            .get("limit")?
            .as_f64()
            .filter(|limit| limit.is_finite());
        Some(Quota {
            metric: text(json, "metric"),
            used: json.get("used").and_then(number)?,
            limit: limit?,
        })
    };
    Tenant {
        tenant_id: text(json, "tenant_id"),
        calls: rate("calls_per_second"),
        errors: rate("errors_per_second"),
        throttled: rate("throttled_per_second"),
        hit_ratio: json.get("hit_ratio").and_then(number),
        received_bytes: rate("received_bytes_per_second"),
        sent_bytes: rate("sent_bytes_per_second"),
        quotas: rows(json, "quotas", QUOTAS).filter_map(quota).collect(),
    }
}

/// A number that makes sense: nothing here can be less than nothing.
fn number(json: &Value) -> Option<f64> {
    json.as_f64()
        .filter(|number| number.is_finite() && *number >= 0.0)
}

fn text(json: &Value, field: &str) -> String {
    let text = json.get(field).and_then(Value::as_str).unwrap_or_default();
    let steers = |c: &char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    // What reverses or hides letters would let one tenant pass for another.
    let seen = text
        .chars()
        .take(TEXT_CHARS)
        .flat_map(|c| match steers(&c) {
            true => c.escape_unicode().collect::<Vec<_>>(),
            false => vec![c],
        });
    clean(&seen.collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_makes_no_sense_is_absent() {
        let hostile = json!({
            "time_ms": "now", "start_time_ms": -5, "step_ms": 0,
            "health": [{"service": 7}, "store", {"service": "store", "serving": "yes"}],
            "series": {
                "calls_per_second": [1, null, "NaN", -3, 1e308, {}],
                "p99_ms": "fast",
                "unknown": [1],
            },
            "tenants": [
                {},
                17,
                {"tenant_id": "acme", "calls_per_second": "many", "hit_ratio": -1,
                 "quotas": [{"metric": "memory_bytes", "used": 1e300, "limit": 0.5}, {"metric": "x"},
                            {"metric": "free", "used": 5, "limit": -1}, {"metric": "none", "used": 0, "limit": 0}]},
            ],
        });
        let figures = Figures::read(&serde_json::to_vec(&hostile).unwrap()).unwrap();
        assert_eq!((figures.time_ms, figures.start_time_ms), (0, None));
        assert_eq!(figures.step_ms, 5000);
        assert!(figures.health.iter().all(|health| !health.serving));
        assert_eq!(
            figures.series,
            BTreeMap::from([(
                Line::Calls,
                vec![Some(1.0), None, None, None, Some(1e308), None]
            )])
        );
        let acme = figures.tenants.last().unwrap();
        assert_eq!((acme.calls, acme.hit_ratio), (0.0, None));
        let parts: Vec<_> = acme.quotas.iter().map(Quota::part).collect();
        assert_eq!(parts, [Some(999.0), None, Some(1.0)]);
        let (fullest, part) = acme.fullest().unwrap();
        assert_eq!((fullest.metric.as_str(), part), ("memory_bytes", 999.0));
    }

    #[test]
    fn what_is_no_figures_is_none() {
        let huge = br#"{"series": {"p99_ms": [1e999]}, "tenants": []}"#;
        let nan = br#"{"series": {"p99_ms": [NaN]}, "tenants": []}"#;
        let others: [&[u8]; 7] = [
            b"",
            b"<html>",
            b"{}",
            b"[]",
            br#"{"series": [], "tenants": {}}"#,
            huge,
            nan,
        ];
        for other in others {
            assert_eq!(Figures::read(other), None);
        }
        let deep = "[".repeat(100_000);
        assert_eq!(Figures::read(deep.as_bytes()), None);
    }

    #[test]
    fn no_text_steers_a_terminal() {
        let text = "a\u{1b}[2J\u{9b}31mb\r\n\u{7}\u{202e}live\u{200b}";
        let json = json!({
            "replica": text, "version": text, "backend": text,
            "health": [{"service": text, "trouble": text}],
            "series": {},
            "tenants": [{"tenant_id": text, "quotas": [{"metric": text, "used": 1, "limit": 1}]}],
        });
        let figures = Figures::read(&serde_json::to_vec(&json).unwrap()).unwrap();
        let told = "a\\u{1b}[2J\\u{9b}31mb\\r\\n\\u{7}\\u{202e}live\\u{200b}";
        let tenant = figures.tenants.first().unwrap();
        let health = figures.health.first().unwrap();
        for shown in [
            &figures.replica,
            &figures.version,
            &figures.backend,
            &health.service,
            &health.trouble,
            &tenant.tenant_id,
            &tenant.quotas.first().unwrap().metric,
        ] {
            assert_eq!(shown, told);
        }
        let long = json!({"replica": "x".repeat(10_000), "series": {}, "tenants": []});
        let figures = Figures::read(&serde_json::to_vec(&long).unwrap()).unwrap();
        assert_eq!(figures.replica.len(), 200);
    }

    #[test]
    fn of_too_many_points_the_last_are_kept() {
        let points: Vec<_> = (0..1000).collect();
        let json = json!({"series": {"in_flight": points}, "tenants": []});
        let figures = Figures::read(&serde_json::to_vec(&json).unwrap()).unwrap();
        let kept = figures.series.get(&Line::InFlight).unwrap();
        assert_eq!(
            (kept.len(), kept.first(), kept.last()),
            (720, Some(&Some(280.0)), Some(&Some(999.0)))
        );
    }
}
