//! The plans a tenant was on, one after the other, and how its meters stood when
//! each began. It does not know what a plan costs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    store::{Meters, Reading, Space, Unit},
    tenant::{Account, Period, Tenant, Tenants, rows},
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
}

impl Segment {
    fn of(number: u32, plan: &str, start_ms: u64, reading: Reading) -> Self {
        Self {
            number,
            plan: plan.to_owned(),
            start_ms,
            byte_ms: reading.byte_ms,
            operations: reading.operations,
            bytes: reading.bytes,
        }
    }

    /// What follows the last plan: none, from this moment.
    pub(in crate::tenant) fn last(reading: Reading) -> Self {
        Self::of(0, "", reading.at_ms, reading)
    }

    /// How the meters stood when it began.
    pub(in crate::tenant) fn reading(&self) -> Reading {
        Reading {
            at_ms: self.start_ms,
            byte_ms: self.byte_ms,
            operations: self.operations,
            bytes: self.bytes,
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
                Reading::default(),
            )]
        } else {
            self.segments.clone()
        }
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
        let reading = self.reading(before).await?;
        let start_ms = reading.at_ms.max(last.start_ms);
        let begun = Segment::of(
            last.number.saturating_add(1),
            &after.plan,
            start_ms,
            reading,
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

    /// The meters of a tenant's space now.
    pub(in crate::tenant) async fn reading(&self, tenant: &Tenant) -> Result<Reading> {
        // A space that was never written has no moment of its own.
        let now_ms = self.store.now_ms();
        let reading = self.meters(tenant, Unit::Day).await?.now();
        Ok(match reading.at_ms {
            0 => Reading {
                at_ms: now_ms,
                ..reading
            },
            _ => reading,
        })
    }

    /// The meters of a tenant's space, wherever a restore has put it since this record
    /// of it was read: with its space go the meters that its new one has taken over.
    pub(in crate::tenant) async fn meters(&self, tenant: &Tenant, unit: Unit) -> Result<Meters> {
        let meters = self.store.meters(&tenant.space(), unit).await?;
        if meters.last.at_ms > 0 {
            return Ok(meters);
        }
        match self.find_tenant(&tenant.tenant_id).await? {
            Some((now, _))
                if now.incarnation == tenant.incarnation && now.home() != tenant.home() =>
            {
                Ok(self.store.meters(&now.space(), unit).await?)
            }
            _ => Ok(meters),
        }
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
        let segment = Segment::of(3, "basic", 5, reading);
        let stored = serde_json::to_string(&segment).unwrap();
        let read: Segment = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, segment);
        assert_eq!(read.reading(), reading);
    }

    #[test]
    fn segments_end_where_the_next_begins() {
        let segments =
            [10, 20, 20, 30].map(|start_ms| Segment::of(0, "p", start_ms, Reading::default()));
        for (at_ms, ended) in [(0, 0), (10, 0), (19, 0), (20, 2), (29, 2), (30, 3), (99, 3)] {
            assert_eq!(ended_by(&segments, at_ms), ended, "{at_ms}");
        }
        assert_eq!(ended_by(&[], 5), 0);
    }
}
