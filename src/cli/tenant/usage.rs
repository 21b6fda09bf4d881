//! `tenant usage`: what a tenant holds and did, what it may, and how that came
//! about. It does not know how it is measured.

mod course;

use std::{fmt, time::Duration};

use clap::{Args, ValueEnum};
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use super::Target;
use crate::{
    cli::{
        amount,
        client::{self, Client, Global},
        failure::Failure,
        json,
        output::{self, show},
        plot::Canvas,
        quota::setting::METRICS,
    },
    proto::v1::{GetTenantUsageRequest, GetTenantUsageResponse, QuotaUsage, UsageGranularity},
};

#[derive(Args, Debug)]
pub(in crate::cli) struct Usage {
    #[command(flatten)]
    target: Target,
    /// The unit of time of the points: minutes are kept for 2 days, hours for 60
    /// days, days for 2 years [default: as the span asks for].
    #[arg(long, value_enum)]
    by: Option<Unit>,
    /// How far the points go back, such as 2h [default: 60 units].
    #[arg(long, value_name = "TIME", value_parser = client::duration, conflicts_with = "from")]
    since: Option<Duration>,
    /// The first point is of this time: 2026-11-24 or 2026-11-24T10:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = client::moment)]
    from: Option<Timestamp>,
    /// The last point is before this time [default: now].
    #[arg(long, value_name = "TIME", value_parser = client::moment, conflicts_with = "since")]
    to: Option<Timestamp>,
}

/// The unit of time of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Unit {
    Minute,
    Hour,
    Day,
}

impl Unit {
    /// The finest in which a span of so many seconds is a plot that can be read.
    fn of(seconds: i64) -> Self {
        match seconds {
            ..=10_800 => Self::Minute,
            10_801..=604_800 => Self::Hour,
            _ => Self::Day,
        }
    }

    fn granularity(self) -> UsageGranularity {
        match self {
            Self::Minute => UsageGranularity::Minute,
            Self::Hour => UsageGranularity::Hour,
            Self::Day => UsageGranularity::Day,
        }
    }

    pub(super) fn ms(self) -> i128 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        })
    }
}

impl Usage {
    pub(in crate::cli) async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let mut request = GetTenantUsageRequest {
            tenant_id: self.target.id(global),
            granularity: UsageGranularity::Unspecified.into(),
            start_time: self.from,
            end_time: self.to,
        };
        let ask = async |request: &GetTenantUsageRequest| {
            let mut tenants = client.tenants();
            let answer = tenants.get_tenant_usage(client.request(request.clone()));
            Ok::<_, Failure>(answer.await?.into_inner())
        };
        // What is now is for the server to say: clocks differ.
        let now = match self.since.is_some() || (self.from.is_some() && self.to.is_none()) {
            true => {
                let bare = GetTenantUsageRequest {
                    start_time: None,
                    ..request.clone()
                };
                ask(&bare).await?.as_of
            }
            false => self.to,
        };
        if let (Some(since), Some(now)) = (self.since, now) {
            let since = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            request.start_time = Some(Timestamp {
                seconds: now.seconds.saturating_sub(since),
                nanos: now.nanos,
            });
        }
        let by = self.by.unwrap_or(match (request.start_time, now) {
            (Some(start), Some(end)) => Unit::of(end.seconds.saturating_sub(start.seconds)),
            _ => Unit::Minute,
        });
        request.granularity = by.granularity().into();
        let answer = ask(&request).await?;
        let result = json!({
            "usage": answer.usage.as_ref().map(json::usage),
            "quotas": quotas(&answer).map(|(metric, quota)| (metric.clone(), json::quota_usage(quota))).collect::<Map<_, _>>(),
            "granularity": by.to_string().to_uppercase(),
            "points": answer.points.iter().map(json::usage_point).collect::<Value>(),
            "as_of": json::time(answer.as_of),
        });
        show(global.output, &result, || {
            let course = course::lines(&answer, by, &Canvas::of_process());
            [limits(&answer), totals(&answer), course].join("\n\n")
        })
    }
}

/// The service's own metrics as the contract has them, then the platform's.
fn quotas(answer: &GetTenantUsageResponse) -> impl Iterator<Item = (&String, &QuotaUsage)> {
    let place = |metric: &str| {
        let known = METRICS.iter().position(|known| *known == metric);
        (known.unwrap_or(METRICS.len()), metric.to_owned())
    };
    let mut quotas: Vec<_> = answer.quotas.iter().collect();
    quotas.sort_by_cached_key(|(metric, _)| place(metric));
    quotas.into_iter()
}

fn limits(answer: &GetTenantUsageResponse) -> String {
    let rows = quotas(answer).map(|(metric, quota)| {
        let reset = json::time(quota.reset_time);
        let mode = json::quota_mode(quota.mode);
        vec![
            metric.clone(),
            amount::quantity(metric, quota.used),
            amount::limit(metric, quota.limit),
            match quota.limit {
                -1 => String::new(),
                _ => amount::quantity(metric, quota.remaining),
            },
            amount::percent(quota.used, quota.limit),
            reset.as_str().unwrap_or_default().to_owned(),
            mode.as_str().unwrap_or_default().to_owned(),
        ]
    });
    let header = ["quota", "used", "limit", "remaining", "%", "resets", "mode"];
    output::grid(&header, &[1, 2, 3, 4], rows)
}

fn totals(answer: &GetTenantUsageResponse) -> String {
    let usage = answer.usage.clone().unwrap_or_default();
    let mut custom: Vec<_> = usage.custom.iter().collect();
    custom.sort();
    let own = [
        ("operations", usage.operations),
        ("hits", usage.hits),
        ("misses", usage.misses),
        ("throttled", usage.throttled),
        ("bytes_in", usage.bytes_in),
        ("bytes_out", usage.bytes_out),
        ("data_transfer_bytes", usage.data_transfer_bytes),
        ("compute_ms", usage.compute_ms),
        ("memory_byte_seconds", usage.memory_byte_seconds),
        ("storage_byte_seconds", usage.storage_byte_seconds),
    ];
    let custom = custom
        .iter()
        .map(|(metric, used)| (metric.as_str(), **used));
    let rows = own.into_iter().chain(custom).map(|(metric, used)| {
        vec![
            metric.to_owned(),
            amount::quantity(metric, used),
            amount::count(used),
        ]
    });
    let totals = output::grid(&["this period", "used", "exactly"], &[1, 2], rows);
    match usage.exact {
        true => totals,
        false => {
            totals
                + "\n\nThe store may evict entries on its own: memory_bytes and cache_entries are estimates."
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_or_has_its_zone() {
        for (text, seconds, nanos) in [
            ("1970-01-02", 86_400, 0),
            ("2026-11-24T10:00:00Z", 1_795_514_400, 0),
            ("2026-11-24T12:00:00.5+02:00", 1_795_514_400, 500_000_000),
        ] {
            let read = client::moment(text).unwrap();
            assert_eq!((read.seconds, read.nanos), (seconds, nanos), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-11-24T10:00:00",
            "2026-13-01",
            "12:00",
        ] {
            assert!(client::moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_span_chooses_the_unit() {
        let units = [60, 10_800, 10_801, 604_800, 604_801, i64::MAX].map(Unit::of);
        use Unit::{Day, Hour, Minute};
        assert_eq!(units, [Minute, Minute, Hour, Hour, Day, Day]);
    }
}
