//! The plans a tenant was on, one after the other, and how its meters stood when
//! each began. It does not know what a plan costs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    store::{Reading, Space},
    tenant::{Account, Period, Readings, Tenant, Tenants, rows},
};

/// Plans in one period at most: each is a part of every statement.
const MOST: usize = 100;

/// How many periods back one may still have to be closed: rows of older ones are
/// no longer kept.
pub(super) const OPEN_PERIODS: usize = 13;

/// A part of a tenant's life on one plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its number: 0, 1, 2... over the tenant's life.
    pub number: u32,
    /// The plan's name.
    pub plan: String,
    /// When it began, by the store's clock, in ms since 1970.
    pub start_ms: u64,
    /// The meters of the tenant's space then: as [`Reading::byte_ms`], which JSON
    /// has no number for.
    #[serde(with = "text")]
    pub byte_ms: u128,
    /// As [`Reading::operations`].
    pub operations: u64,
    /// As [`Reading::bytes`].
    pub bytes: u64,
    /// The same of the space of its sessions.
    #[serde(default)]
    pub sessions: SessionMeters,
}

/// How the meters of a tenant's sessions stood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionMeters {
    /// As [`Reading::byte_ms`].
    #[serde(with = "text")]
    pub byte_ms: u128,
    /// As [`Reading::operations`].
    pub operations: u64,
    /// As [`Reading::bytes`].
    pub bytes: u64,
}

impl Segment {
    fn of(number: u32, plan: &str, start_ms: u64, readings: Readings) -> Self {
        let Readings {
            entries: reading,
            sessions,
        } = readings;
        Self {
            number,
            plan: plan.to_owned(),
            start_ms,
            byte_ms: reading.byte_ms,
            operations: reading.operations,
            bytes: reading.bytes,
            sessions: SessionMeters {
                byte_ms: sessions.byte_ms,
                operations: sessions.operations,
                bytes: sessions.bytes,
            },
        }
    }

    /// What follows the last plan: none, from this moment.
    pub(in crate::tenant) fn last(readings: Readings) -> Self {
        Self::of(0, "", readings.at_ms(), readings)
    }

    /// How the meters stood when it began.
    pub(in crate::tenant) fn readings(&self) -> Readings {
        Readings {
            entries: Reading {
                at_ms: self.start_ms,
                byte_ms: self.byte_ms,
                operations: self.operations,
                bytes: self.bytes,
            },
            sessions: Reading {
                at_ms: self.start_ms,
                byte_ms: self.sessions.byte_ms,
                operations: self.sessions.operations,
                bytes: self.sessions.bytes,
            },
        }
    }
}

impl Tenant {
    /// Its segments, in the order of time: at least one. Those that only periods
    /// had which are closed may be missing.
    pub fn plans(&self) -> Vec<Segment> {
        if self.segments.is_empty() {
            vec![Segment::of(
                0,
                &self.plan,
                self.create_ms,
                Readings::default(),
            )]
        } else {
            self.segments.clone()
        }
    }

    /// Begins a segment with meters that begin anew: those before are lost.
    pub(in crate::tenant) fn bill_anew(&mut self, now_ms: u64) {
        let last = self.plans().last().map_or(0, |last| last.number);
        let number = last.saturating_add(1);
        self.segments = vec![Segment::of(number, &self.plan, now_ms, Readings::default())];
    }

    /// The number of the segment that a moment belongs to; of the first one kept,
    /// where it lies before.
    pub fn segment_at(&self, at_ms: u64) -> u32 {
        let plans = self.plans();
        let at = ended_by(&plans, at_ms);
        plans.get(at).map_or(0, |segment| segment.number)
    }
}

impl Tenants {
    /// What this replica keeps of a tenant, as of this record of it.
    pub(in crate::tenant) fn account(&self, tenant: &Tenant) -> Arc<Account> {
        let account = self.directory.accounts.of(tenant.incarnation);
        account.call(&tenant.tenant_id);
        account.begin_segment(tenant.segments.last().map_or(0, |last| last.number));
        account
    }

    /// Begins a segment where a change has put a tenant on another plan. Written
    /// in the commit of the change, it begins at a moment shortly before.
    pub(in crate::tenant) async fn begin_segment(
        &self,
        before: &Tenant,
        after: &mut Tenant,
    ) -> Result<()> {
        let mut segments = before.plans();
        let Some(last) = segments.last().filter(|last| last.plan != after.plan) else {
            return Ok(());
        };
        let readings = self.readings(before).await?;
        let start_ms = readings.at_ms().max(last.start_ms);
        let begun = Segment::of(
            last.number.saturating_add(1),
            &after.plan,
            start_ms,
            readings,
        );
        segments.push(begun);
        let period = Period::of(start_ms);
        let needed_from = self.oldest_open(before, period).await?.start_ms();
        let unneeded = ended_by(&segments, needed_from);
        segments.drain(..unneeded);
        if segments.len() - ended_by(&segments, period.start_ms()) > MOST {
            return Err(Error::ConditionNotMet {
                subject: format!("tenant {}", before.tenant_id),
                description: format!(
                    "it was on {MOST} plans in the billing period {period} already; \
                     change its plan in the next one"
                ),
            });
        }
        after.segments = segments;
        Ok(())
    }

    /// The oldest period of a tenant up to this one that is not closed.
    async fn oldest_open(&self, tenant: &Tenant, present: Period) -> Result<Period> {
        let periods = periods_up_to(tenant, present);
        let keys: Vec<_> = periods
            .iter()
            .map(|period| rows::statement(tenant.incarnation, *period))
            .collect();
        let read = self
            .store
            .read(&Space::meters(tenant.incarnation), 0, &keys)
            .await?;
        let open = read.records.iter().position(Option::is_none);
        Ok(open
            .and_then(|at| periods.get(at).copied())
            .unwrap_or(present))
    }
}

/// The periods of a tenant up to this one that may be open, the oldest first.
pub(super) fn periods_up_to(tenant: &Tenant, last: Period) -> Vec<Period> {
    let first = Period::of(tenant.create_ms);
    let mut periods = vec![last];
    while periods.len() <= OPEN_PERIODS {
        match periods.last().map(|period| period.previous()) {
            Some(before) if before >= first => periods.push(before),
            _ => break,
        }
    }
    periods.reverse();
    periods
}

/// How many segments had ended by a moment: all before the one that it lies in,
/// or that begins with it.
fn ended_by(segments: &[Segment], at_ms: u64) -> usize {
    segments
        .partition_point(|segment| segment.start_ms <= at_ms)
        .saturating_sub(1)
}

/// A number as its text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_beyond_the_numbers_of_json_comes_back() {
        let reading = Reading {
            at_ms: 5,
            byte_ms: u128::MAX,
            operations: u64::MAX,
            bytes: 7,
        };
        let readings = Readings {
            entries: reading,
            sessions: Reading {
                bytes: 9,
                ..reading
            },
        };
        let segment = Segment::of(3, "basic", 5, readings);
        let stored = serde_json::to_string(&segment).unwrap();
        let read: Segment = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, segment);
        assert_eq!(read.readings(), readings);
        // One of a release that had no sessions.
        let mut older: serde_json::Value = serde_json::from_str(&stored).unwrap();
        older.as_object_mut().unwrap().remove("sessions");
        let older: Segment = serde_json::from_value(older).unwrap();
        assert_eq!(older.readings().entries, reading);
        assert_eq!(older.readings().sessions.byte_ms, 0);
    }

    #[test]
    fn segments_end_where_the_next_begins() {
        let segments =
            [10, 20, 20, 30].map(|start_ms| Segment::of(0, "p", start_ms, Readings::default()));
        for (at_ms, ended) in [(0, 0), (10, 0), (19, 0), (20, 2), (29, 2), (30, 3), (99, 3)] {
            assert_eq!(ended_by(&segments, at_ms), ended, "{at_ms}");
        }
        assert_eq!(ended_by(&[], 5), 0);
    }
}
