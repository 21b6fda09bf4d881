//! What the replicas tell, put together: sums where sums say something, the worst
//! where they do not. It does not know how a replica is reached.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::figures::{Figures, Health, Line, Merged, OTHER, Tenant};

/// A replica as it is known now.
#[derive(Clone, Debug, Default)]
pub(super) struct Replica {
    /// Where it is asked.
    pub(super) address: String,
    /// The last answer, and how long ago it came.
    pub(super) told: Option<(Figures, Duration)>,
    /// Why the last question has no answer.
    pub(super) silent: Option<String>,
}

impl Replica {
    /// What it tells now.
    fn answer(&self) -> Option<&Figures> {
        match (&self.told, &self.silent) {
            (Some((figures, _)), None) => Some(figures),
            _ => None,
        }
    }
}

/// All replicas as one.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    /// What answers: how many of how many.
    pub(super) answering: usize,
    pub(super) replicas: usize,
    /// Those that do not, and why.
    pub(super) silent: Vec<(String, String)>,
    /// More than one where replicas differ.
    pub(super) versions: Vec<String>,
    pub(super) backends: Vec<String>,
    /// When the figures were told, and how long every replica is up, by its own clock.
    pub(super) time_ms: i64,
    pub(super) up_ms: Option<i64>,
    pub(super) step_ms: i64,
    pub(super) health: Vec<Health>,
    pub(super) series: BTreeMap<Line, Vec<Option<f64>>>,
    pub(super) tenants: Vec<Tenant>,
}

impl Fleet {
    pub(super) fn of(replicas: &[Replica]) -> Self {
        let answers: Vec<(&str, &Figures)> = replicas
            .iter()
            .filter_map(|replica| Some((replica.address.as_str(), replica.answer()?)))
            .collect();
        let distinct = |field: fn(&Figures) -> &String| {
            let texts = answers.iter().map(|(_, figures)| field(figures).clone());
            let texts: BTreeSet<_> = texts.filter(|text| !text.is_empty()).collect();
            texts.into_iter().collect::<Vec<_>>()
        };
        let up = answers.iter().filter_map(|(_, figures)| {
            let up_ms = figures.time_ms.saturating_sub(figures.start_time_ms?);
            Some(up_ms.max(0))
        });
        let silent = replicas.iter().filter_map(|replica| {
            let why = replica.silent.clone()?;
            Some((replica.address.clone(), why))
        });
        let step_ms = replicas
            .iter()
            .filter_map(|replica| Some(replica.told.as_ref()?.0.step_ms));
        let step_ms = step_ms.max().unwrap_or_default();
        Self {
            answering: answers.len(),
            replicas: replicas.len(),
            silent: silent.collect(),
            versions: distinct(|figures| &figures.version),
            backends: distinct(|figures| &figures.backend),
            time_ms: answers
                .iter()
                .map(|(_, figures)| figures.time_ms)
                .max()
                .unwrap_or_default(),
            up_ms: up.min(),
            step_ms,
            health: health(&answers),
            series: Line::ALL
                .into_iter()
                .map(|line| (line, points(line, replicas, step_ms)))
                .collect(),
            tenants: tenants(&answers),
        }
    }

    /// The points of a line, the newest last.
    pub(super) fn points(&self, line: Line) -> &[Option<f64>] {
        self.series.get(&line).map_or(&[], Vec::as_slice)
    }

    /// The newest value of a line.
    pub(super) fn now(&self, line: Line) -> Option<f64> {
        self.points(line).last().copied().flatten()
    }

    /// In the form of a replica's own figures, and which replicas are in it.
    pub(super) fn json(&self) -> Value {
        let silent = self
            .silent
            .iter()
            .map(|(address, why)| json!({ "address": address, "trouble": why }));
        let health = self.health.iter().map(|health| {
            json!({ "service": health.service, "serving": health.serving, "trouble": health.trouble })
        });
        let mut series: Map<String, Value> = self
            .series
            .iter()
            .map(|(line, points)| (line.name().to_owned(), json!(points)))
            .collect();
        // The times that the points stand for, as the clock of the replicas has them.
        let length = self.series.values().map(Vec::len).max().unwrap_or_default();
        let length = i64::try_from(length).unwrap_or_default();
        let times = (0..length).rev().map(|ago| {
            self.time_ms
                .saturating_sub(ago.saturating_mul(self.step_ms))
        });
        series.insert("time_ms".to_owned(), times.collect());
        let tenants = self.tenants.iter().map(|tenant| {
            let quotas = tenant.quotas.iter().map(
                |quota| json!({ "metric": quota.metric, "used": quota.used, "limit": quota.limit }),
            );
            json!({
                "tenant_id": tenant.tenant_id,
                "calls_per_second": tenant.calls,
                "errors_per_second": tenant.errors,
                "throttled_per_second": tenant.throttled,
                "hit_ratio": tenant.hit_ratio,
                "received_bytes_per_second": tenant.received_bytes,
                "sent_bytes_per_second": tenant.sent_bytes,
                "quotas": quotas.collect::<Vec<_>>(),
            })
        });
        json!({
            "replicas": { "answering": self.answering, "asked": self.replicas,
                          "silent": silent.collect::<Vec<_>>() },
            "versions": self.versions,
            "backends": self.backends,
            "time_ms": self.time_ms,
            "up_ms": self.up_ms,
            "step_ms": self.step_ms,
            "health": health.collect::<Vec<_>>(),
            "series": series,
            "tenants": tenants.collect::<Vec<_>>(),
        })
    }
}

/// What serves at every replica that tells of it, and where not, the trouble with the
/// replica that has it.
fn health(answers: &[(&str, &Figures)]) -> Vec<Health> {
    let mut merged: Vec<Health> = Vec::new();
    for (address, figures) in answers {
        for told in &figures.health {
            let trouble = match (told.serving, told.trouble.as_str(), answers.len()) {
                (true, ..) => String::new(),
                (false, trouble, 1) => trouble.to_owned(),
                (false, "", _) => format!("at {address}"),
                (false, trouble, _) => format!("at {address}: {trouble}"),
            };
            let known = merged
                .iter_mut()
                .find(|health| health.service == told.service);
            match known {
                None => merged.push(Health {
                    service: told.service.clone(),
                    serving: told.serving,
                    trouble,
                }),
                Some(health) => {
                    health.serving &= told.serving;
                    if !health.trouble.is_empty() && !trouble.is_empty() {
                        health.trouble.push_str("; ");
                    }
                    health.trouble.push_str(&trouble);
                }
            }
        }
    }
    merged
}

/// The points of a line over all replicas, the newest of each as one moment: their
/// clocks need not agree. A replica that is silent counts for the time when it was not.
fn points(line: Line, replicas: &[Replica], step_ms: i64) -> Vec<Option<f64>> {
    let told: Vec<(&Figures, usize)> = replicas
        .iter()
        .filter_map(|replica| {
            let (figures, age) = replica.told.as_ref()?;
            let age_ms = match replica.silent {
                None => 0,
                Some(_) => age.as_millis(),
            };
            let steps = age_ms / u128::from(step_ms.max(1).unsigned_abs());
            Some((figures, usize::try_from(steps).unwrap_or(usize::MAX)))
        })
        .collect();
    let of = |figures: &Figures, line: Line, ago: usize| {
        let points = figures.series.get(&line)?;
        let at = points.len().checked_sub(ago.checked_add(1)?)?;
        points.get(at).copied().flatten()
    };
    let length = told.iter().map(|(figures, _)| figures.series.get(&line));
    let length = length.flatten().map(Vec::len).max().unwrap_or_default();
    let merged = (0..length).rev().map(|ago| {
        let values = told.iter().filter_map(|(figures, age)| {
            let ago = ago.checked_sub(*age)?;
            Some((of(figures, line, ago)?, of(figures, Line::Calls, ago)))
        });
        match line.merged() {
            Merged::Sum => sum(values.map(|(value, _)| value)),
            Merged::Most => values.map(|(value, _)| value).max_by(f64::total_cmp),
            Merged::Mean => mean(values.map(|(value, calls)| (value, calls.unwrap_or_default()))),
        }
    });
    merged.collect()
}

/// `None` of none. Never more than the largest number there is.
fn sum(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(|sum, value| (sum + value).min(f64::MAX))
}

/// The mean of values with their weights; the plain one where none has any.
fn mean(values: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (mut weighed, mut weights, mut plain, mut count) = (0.0, 0.0, 0.0, 0.0);
    for (value, weight) in values {
        weighed += value * weight;
        weights += weight;
        plain += value;
        count += 1.0;
    }
    let mean = match weights > 0.0 {
        true => weighed / weights,
        false => plain / count,
    };
    mean.is_finite().then_some(mean)
}

/// The tenants of all replicas, each once. What is used of a quota is the same at every
/// replica, and known a little later at one than at another: the largest holds.
fn tenants(answers: &[(&str, &Figures)]) -> Vec<Tenant> {
    let mut merged: BTreeMap<&str, Vec<&Tenant>> = BTreeMap::new();
    for (_, figures) in answers {
        for tenant in &figures.tenants {
            match merged.entry(&tenant.tenant_id) {
                Entry::Vacant(place) => {
                    place.insert(vec![tenant]);
                }
                Entry::Occupied(mut place) => place.get_mut().push(tenant),
            }
        }
    }
    let merged = merged.into_iter().map(|(tenant_id, told)| {
        let total = |rate: fn(&Tenant) -> f64| {
            sum(told.iter().map(|tenant| rate(tenant))).unwrap_or_default()
        };
        let hits = told
            .iter()
            .filter_map(|tenant| Some((tenant.hit_ratio?, tenant.calls)));
        let mut one = Tenant {
            tenant_id: tenant_id.to_owned(),
            calls: total(|tenant| tenant.calls),
            errors: total(|tenant| tenant.errors),
            throttled: total(|tenant| tenant.throttled),
            hit_ratio: mean(hits),
            received_bytes: total(|tenant| tenant.received_bytes),
            sent_bytes: total(|tenant| tenant.sent_bytes),
            quotas: Vec::new(),
        };
        // The sum of the rest has no quotas of its own.
        let quotas = told.iter().flat_map(|tenant| &tenant.quotas);
        for quota in quotas.filter(|_| tenant_id != OTHER) {
            let known = one
                .quotas
                .iter_mut()
                .find(|known| known.metric == quota.metric);
            match known {
                Some(known) if known.used >= quota.used => {}
                Some(known) => *known = quota.clone(),
                None => one.quotas.push(quota.clone()),
            }
        }
        one
    });
    merged.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn figures(json: Value) -> Figures {
        Figures::read(&serde_json::to_vec(&json).unwrap()).unwrap()
    }

    fn answers(address: &str, json: Value) -> Replica {
        Replica {
            address: address.into(),
            told: Some((figures(json), Duration::ZERO)),
            silent: None,
        }
    }

    fn first() -> Value {
        json!({
            "version": "0.1.0", "backend": "redis", "time_ms": 1_000_000, "start_time_ms": 400_000, "step_ms": 5000,
            "health": [{"service": "store", "serving": true, "trouble": ""}],
            "series": {"calls_per_second": [10, 20, 30], "hit_ratio": [null, 0.5, 0.5], "p99_ms": [1, 2, 3]},
            "tenants": [
                {"tenant_id": "acme", "calls_per_second": 30, "hit_ratio": 0.5, "quotas": [{"metric": "m", "used": 5, "limit": 10}]},
                {"tenant_id": "other", "calls_per_second": 1, "quotas": [{"metric": "m", "used": 5, "limit": 10}]},
            ],
        })
    }

    fn second() -> Value {
        json!({
            "version": "0.2.0", "backend": "redis", "time_ms": 9_000_000, "start_time_ms": 8_900_000, "step_ms": 5000,
            "health": [{"service": "store", "serving": false, "trouble": "refused"}],
            "series": {"calls_per_second": [10, 10], "hit_ratio": [0.8, 0.9], "p99_ms": [9, 1]},
            "tenants": [
                {"tenant_id": "acme", "calls_per_second": 10, "hit_ratio": 0.9, "errors_per_second": 2,
                 "quotas": [{"metric": "m", "used": 6, "limit": 10}]},
                {"tenant_id": "globex", "calls_per_second": 4},
            ],
        })
    }

    #[test]
    fn replicas_are_summed_and_the_worst_percentile_shown() {
        let fleet = Fleet::of(&[answers("a:1", first()), answers("b:1", second())]);
        assert_eq!((fleet.answering, fleet.replicas), (2, 2));
        assert_eq!(fleet.versions, ["0.1.0", "0.2.0"]);
        assert_eq!(fleet.backends, ["redis"]);
        assert_eq!(fleet.up_ms, Some(100_000));
        assert_eq!(
            fleet.points(Line::Calls),
            [Some(10.0), Some(30.0), Some(40.0)]
        );
        assert_eq!(fleet.points(Line::P99), [Some(1.0), Some(9.0), Some(3.0)]);
        // By calls: (30 * 0.5 + 10 * 0.9) / 40.
        assert_eq!(fleet.now(Line::HitRatio), Some(0.6));
        assert_eq!(fleet.points(Line::HitRatio).first(), Some(&None));
        let store = fleet.health.first().unwrap();
        assert!(!store.serving);
        assert_eq!(store.trouble, "at b:1: refused");

        let ids: Vec<_> = fleet.tenants.iter().map(|t| t.tenant_id.as_str()).collect();
        assert_eq!(ids, ["acme", "globex", "other"]);
        let acme = fleet.tenants.first().unwrap();
        assert_eq!(
            (acme.calls, acme.errors, acme.hit_ratio),
            (40.0, 2.0, Some(0.6))
        );
        assert_eq!(acme.quotas.len(), 1);
        assert_eq!(acme.quotas.first().unwrap().used, 6.0);
        assert!(fleet.tenants.last().unwrap().quotas.is_empty());
    }

    #[test]
    fn a_silent_replica_counts_for_the_time_it_spoke() {
        let mut gone = answers("b:1", second());
        gone.silent = Some("connection refused".into());
        if let Some((_, age)) = &mut gone.told {
            *age = Duration::from_millis(5500);
        }
        let never = Replica {
            address: "c:1".into(),
            told: None,
            silent: Some("no answer in time".into()),
        };
        let fleet = Fleet::of(&[answers("a:1", first()), gone, never]);
        assert_eq!((fleet.answering, fleet.replicas), (1, 3));
        // Its 10 and 10 lie one step back, where they were.
        assert_eq!(
            fleet.points(Line::Calls),
            [Some(20.0), Some(30.0), Some(30.0)]
        );
        assert_eq!(fleet.silent.len(), 2);
        let silent = fleet.silent.first().unwrap();
        assert_eq!(
            (silent.0.as_str(), silent.1.as_str()),
            ("b:1", "connection refused")
        );
        assert!(!fleet.tenants.iter().any(|t| t.tenant_id == "globex"));
        assert!(fleet.health.iter().all(|health| health.serving));
    }

    #[test]
    fn nobody_is_an_empty_fleet() {
        let fleet = Fleet::of(&[]);
        assert_eq!((fleet.answering, fleet.now(Line::Calls)), (0, None));
        assert!(fleet.tenants.is_empty());
    }

    #[test]
    fn what_is_merged_has_the_form_of_what_was_told() {
        let fleet = Fleet::of(&[answers("a:1", first()), answers("b:1", second())]);
        let again = figures(fleet.json());
        assert_eq!(again.tenants, fleet.tenants);
        assert_eq!(again.health, fleet.health);
        assert_eq!(again.series, fleet.series);
        let json = fleet.json();
        assert_eq!(
            json["series"]["time_ms"],
            json!([8_990_000, 8_995_000, 9_000_000])
        );
        assert_eq!(json["replicas"]["answering"], 2);
    }

    #[test]
    fn sums_of_the_hugest_numbers_are_numbers() {
        let huge = json!({"series": {"calls_per_second": [f64::MAX], "hit_ratio": [f64::MAX]},
            "tenants": [{"tenant_id": "a", "calls_per_second": f64::MAX, "hit_ratio": f64::MAX}]});
        let fleet = Fleet::of(&[answers("a:1", huge.clone()), answers("b:1", huge)]);
        assert_eq!(fleet.now(Line::Calls), Some(f64::MAX));
        assert_eq!(fleet.now(Line::HitRatio), None);
        assert_eq!(fleet.tenants.first().unwrap().hit_ratio, None);
    }
}
