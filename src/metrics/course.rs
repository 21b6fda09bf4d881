//! How a replica went over the last hour, in steps of five seconds: what plots are drawn
//! of. It does not know where the sums come from.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;

use crate::{
    histogram::Taken,
    tenant::{
        stats::Deeds,
        traffic::{OTHER, Sums, Told},
    },
};

/// Steps that are kept: an hour.
const STEPS: usize = 720;

/// What has been counted up to one time, and what is there then.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) time_ms: u64,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) deeds: Deeds,
    /// Of calls that are no streams of answers.
    pub(super) took: Taken,
    pub(super) store_took: Taken,
    pub(super) in_flight: u64,
    pub(super) connections: u64,
    pub(super) rss_bytes: Option<u64>,
    pub(super) near_bytes: u64,
    pub(super) told: Told,
}

/// The steps, one value each in every list, the oldest first. `None`: nothing happened in
/// the step that could be told of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Series {
    time_ms: VecDeque<u64>,
    calls_per_second: VecDeque<f64>,
    errors_per_second: VecDeque<f64>,
    hit_ratio: VecDeque<Option<f64>>,
    near_hit_ratio: VecDeque<Option<f64>>,
    p50_ms: VecDeque<Option<f64>>,
    p99_ms: VecDeque<Option<f64>>,
    store_p99_ms: VecDeque<Option<f64>>,
    in_flight: VecDeque<u64>,
    connections: VecDeque<u64>,
    rss_bytes: VecDeque<Option<u64>>,
    near_bytes: VecDeque<u64>,
}

/// What a tenant did in the last step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Tenant {
    pub(super) tenant_id: String,
    calls_per_second: f64,
    errors_per_second: f64,
    throttled_per_second: f64,
    hit_ratio: Option<f64>,
    received_bytes_per_second: f64,
    sent_bytes_per_second: f64,
}

/// The last hour.
#[derive(Debug, Default)]
pub(super) struct Course {
    last: Option<Sample>,
    series: Series,
    tenants: Vec<Tenant>,
}

impl Course {
    /// Goes on by a step.
    pub(super) fn add(&mut self, now: Sample) {
        if let Some(last) = &self.last {
            let seconds = now.time_ms.saturating_sub(last.time_ms).max(1) as f64 / 1e3;
            self.series.add(last, &now, seconds);
            self.tenants = tenants(&last.told, &now.told, seconds);
        }
        self.last = Some(now);
    }

    pub(super) fn series(&self) -> Series {
        self.series.clone()
    }

    /// What tenants did in the last step: who called most first, all others last.
    pub(super) fn tenants(&self) -> Vec<Tenant> {
        self.tenants.clone()
    }
}

impl Series {
    fn add(&mut self, last: &Sample, now: &Sample, seconds: f64) {
        let rate = |last: u64, now: u64| now.saturating_sub(last) as f64 / seconds;
        let hits = now.deeds.hits.saturating_sub(last.deeds.hits);
        let near = now.deeds.near_hits.saturating_sub(last.deeds.near_hits);
        let misses = now.deeds.misses.saturating_sub(last.deeds.misses);
        let took = now.took.since(&last.took);
        let store_took = now.store_took.since(&last.store_took);
        let ms = |taken: &Taken, part| Some(taken.quantile(part)? * 1e3);
        push(&mut self.time_ms, now.time_ms);
        push(&mut self.calls_per_second, rate(last.calls, now.calls));
        push(&mut self.errors_per_second, rate(last.errors, now.errors));
        push(&mut self.hit_ratio, ratio(hits, hits + misses));
        push(&mut self.near_hit_ratio, ratio(near, hits + misses));
        push(&mut self.p50_ms, ms(&took, 0.5));
        push(&mut self.p99_ms, ms(&took, 0.99));
        push(&mut self.store_p99_ms, ms(&store_took, 0.99));
        push(&mut self.in_flight, now.in_flight);
        push(&mut self.connections, now.connections);
        push(&mut self.rss_bytes, now.rss_bytes);
        push(&mut self.near_bytes, now.near_bytes);
    }
}

fn push<T>(list: &mut VecDeque<T>, value: T) {
    if list.len() == STEPS {
        list.pop_front();
    }
    list.push_back(value);
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn tenants(last: &Told, now: &Told, seconds: f64) -> Vec<Tenant> {
    let before: HashMap<_, _> = last
        .tenants
        .iter()
        .map(|(name, sums)| (name, sums))
        .collect();
    let mut tenants: Vec<_> = now
        .tenants
        .iter()
        .map(|(name, sums)| {
            // One that left and came back has begun anew.
            let before = before.get(name).copied().copied().unwrap_or_default();
            let is_same = before.operations <= sums.operations;
            let before = if is_same { before } else { Sums::default() };
            tenant(name, &before, sums, seconds)
        })
        .collect();
    tenants.sort_by(|one, other| other.calls_per_second.total_cmp(&one.calls_per_second));
    tenants.push(tenant(OTHER, &last.others, &now.others, seconds));
    tenants
}

fn tenant(name: &str, last: &Sums, now: &Sums, seconds: f64) -> Tenant {
    let rate = |last: u64, now: u64| now.saturating_sub(last) as f64 / seconds;
    let hits = now.hits.saturating_sub(last.hits);
    let misses = now.misses.saturating_sub(last.misses);
    Tenant {
        tenant_id: name.to_owned(),
        calls_per_second: rate(last.operations, now.operations),
        errors_per_second: rate(last.errors, now.errors),
        throttled_per_second: rate(last.throttled, now.throttled),
        hit_ratio: ratio(hits, hits + misses),
        received_bytes_per_second: rate(last.received_bytes, now.received_bytes),
        sent_bytes_per_second: rate(last.sent_bytes, now.sent_bytes),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::histogram::Histogram;

    fn sums(operations: u64) -> Sums {
        Sums {
            operations,
            hits: operations / 2,
            misses: operations / 2,
            ..Sums::default()
        }
    }

    fn told(tenants: &[(&str, u64)], others: u64) -> Told {
        let tenants = tenants.iter();
        Told {
            tenants: tenants
                .map(|(name, of)| ((*name).into(), sums(*of)))
                .collect(),
            others: sums(others),
        }
    }

    #[test]
    fn a_step_is_the_difference_of_two_samples() {
        let took = Histogram::default();
        let mut course = Course::default();
        let first = Sample {
            time_ms: 10_000,
            calls: 100,
            took: took.taken(),
            told: told(&[("a", 10), ("b", 10)], 100),
            ..Sample::default()
        };
        course.add(first.clone());
        assert_eq!(course.series(), Series::default());
        took.add(Duration::from_millis(3));
        course.add(Sample {
            time_ms: 15_000,
            calls: 150,
            errors: 5,
            deeds: Deeds {
                hits: 30,
                near_hits: 20,
                misses: 10,
                ..Deeds::default()
            },
            took: took.taken(),
            in_flight: 3,
            told: told(&[("a", 20), ("c", 50)], 110),
            ..first
        });
        let series = course.series();
        assert_eq!(series.time_ms, [15_000]);
        assert_eq!(series.calls_per_second, [10.0]);
        assert_eq!(series.errors_per_second, [1.0]);
        assert_eq!(series.hit_ratio, [Some(0.75)]);
        assert_eq!(series.near_hit_ratio, [Some(0.5)]);
        assert_eq!(series.store_p99_ms, [None]);
        assert!(series.p99_ms[0].is_some_and(|ms| (2.0..=5.0).contains(&ms)));
        assert_eq!(series.in_flight, [3]);
        let rates: Vec<_> = course
            .tenants()
            .into_iter()
            .map(|tenant| (tenant.tenant_id, tenant.calls_per_second))
            .collect();
        let expected = [("c".into(), 10.0), ("a".into(), 2.0), (OTHER.into(), 2.0)];
        assert_eq!(rates, expected);
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut course = Course::default();
        for step in 0..2 * STEPS as u64 {
            course.add(Sample {
                time_ms: step * 5_000,
                ..Sample::default()
            });
        }
        let series = course.series();
        assert_eq!(series.time_ms.len(), STEPS);
        assert_eq!(series.near_bytes.len(), STEPS);
        assert_eq!(
            series.time_ms.back(),
            Some(&((2 * STEPS as u64 - 1) * 5_000))
        );
    }
}
