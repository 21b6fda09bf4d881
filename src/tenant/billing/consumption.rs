//! What a tenant consumed in the parts of a period: rows of what was counted and
//! reported, and the meters of its space at the parts' borders. It does not know
//! what any of it costs but by the tariff of the plan.

use bytes::Bytes;

use super::{
    price::{Metric, Tariff},
    segment::Segment,
    statement::{Part, Quantities},
};
use crate::{
    error::Result,
    store::{Row, Space, Unit},
    tenant::{Period, Readings, Tenant, Tenants, held::BothMeters, plan, rows},
};

/// The parts of a period, and the moment they are as of.
pub(super) struct Consumption {
    pub(super) parts: Vec<Part>,
    pub(super) until_ms: u64,
}

impl Tenants {
    /// What a tenant consumed in a period until now, or until the reading that its
    /// space was left with.
    pub(super) async fn consumption(
        &self,
        tenant: &Tenant,
        period: Period,
        left_with: Option<Readings>,
    ) -> Result<Consumption> {
        // A space that was never written has no moment of its own.
        let now_ms = self.store.now_ms();
        let meters = self.meters(tenant, Unit::Day).await?;
        let spans = spans(&tenant.plans(), &meters, period, left_with);
        let settings = self.settings.load();
        let mut parts: Vec<Part> = spans
            .iter()
            .map(|span| Part {
                plan: span.plan.clone(),
                tariff: Tariff::configured(&plan::named(&settings, &span.plan).prices),
                start_ms: span.start_ms,
                end_ms: span.end_ms,
                quantities: Quantities::new(),
            })
            .collect();
        if let (Some(first), Some(last)) = (spans.first(), spans.last()) {
            // One more on either side: a replica may count for a plan that began a
            // moment ago, or has just ended.
            let numbers = first.number.saturating_sub(1)..=last.number.saturating_add(1);
            let names: Vec<Bytes> = numbers
                .clone()
                .map(|number| rows::period(tenant.incarnation, period, number))
                .collect();
            let meter_space = Space::meters(tenant.incarnation);
            let found = self.store.rows(&meter_space, &names).await?;
            for (number, row) in numbers.zip(&found) {
                let at = spans
                    .iter()
                    .rposition(|span| span.number <= number)
                    .unwrap_or(0);
                if let Some(part) = parts.get_mut(at) {
                    counted(row, &mut part.quantities);
                }
            }
            for (part, span) in parts.iter_mut().zip(&spans) {
                metered(span, &mut part.quantities);
            }
        }
        let until_ms = match (left_with, meters.entries.now_ms) {
            (Some(readings), _) => readings.at_ms(),
            (None, 0) => now_ms,
            (None, at_ms) => at_ms,
        };
        Ok(Consumption { parts, until_ms })
    }
}

/// A part of a period on one plan, and the meters at its borders.
struct Span {
    number: u32,
    plan: String,
    start_ms: u64,
    from: Readings,
    to: Readings,
    /// When it ended, or will.
    end_ms: u64,
}

fn spans(
    segments: &[Segment],
    meters: &BothMeters,
    period: Period,
    left_with: Option<Readings>,
) -> Vec<Span> {
    let now = left_with.unwrap_or_else(|| meters.now());
    let at_border = |border_ms: u64| {
        if border_ms < now.at_ms() {
            meters.at(border_ms)
        } else {
            now
        }
    };
    // Where the tenant leaves within the period, it ends there.
    let end_ms = match left_with {
        Some(readings) => period.end_ms().min(readings.at_ms()),
        None => period.end_ms(),
    };
    let nexts = segments.iter().skip(1).map(Some).chain([None]);
    let spans = segments.iter().zip(nexts).filter_map(|(segment, next)| {
        let begins = segment.start_ms >= period.start_ms();
        let next = next.filter(|next| next.start_ms < end_ms);
        let gone = next.is_some_and(|next| next.start_ms <= period.start_ms());
        if segment.start_ms >= end_ms || (gone && !begins) {
            return None;
        }
        Some(Span {
            number: segment.number,
            plan: segment.plan.clone(),
            start_ms: segment.start_ms.max(period.start_ms()),
            from: if begins {
                segment.readings()
            } else {
                at_border(period.start_ms())
            },
            to: next.map_or_else(|| at_border(end_ms), Segment::readings),
            end_ms: next.map_or(end_ms, |next| next.start_ms),
        })
    });
    spans.collect()
}

/// Adds what was counted in memory or reported.
fn counted(row: &Row, quantities: &mut Quantities) {
    for (name, count) in row {
        let metric = match std::str::from_utf8(name) {
            Ok(rows::OPERATIONS) => Metric::Operations,
            Ok(rows::BYTES_IN | rows::BYTES_OUT | rows::REPORTED_BYTES) => {
                Metric::DataTransferBytes
            }
            Ok(rows::COMPUTE_MS) => Metric::ComputeMs,
            _ => match rows::custom_of(name) {
                Some(custom) => Metric::Custom(custom.to_owned()),
                None => continue,
            },
        };
        add(quantities, metric, (*count).into());
    }
}

/// Adds what commits metered, and what was held.
fn metered(span: &Span, quantities: &mut Quantities) {
    let Span { from, to, .. } = span;
    let byte_seconds = Readings::memory_byte_seconds;
    let held = byte_seconds(to).saturating_sub(byte_seconds(from));
    let byte_seconds = Readings::storage_byte_seconds;
    let stored = byte_seconds(to).saturating_sub(byte_seconds(from));
    let operations = to.operations().saturating_sub(from.operations());
    let bytes = to.bytes().saturating_sub(from.bytes());
    add(quantities, Metric::MemoryByteSeconds, held);
    add(quantities, Metric::StorageByteSeconds, stored);
    add(quantities, Metric::Operations, operations.into());
    add(quantities, Metric::DataTransferBytes, bytes.into());
}

fn add(quantities: &mut Quantities, metric: Metric, amount: u128) {
    if amount > 0 {
        let sum = quantities.entry(metric).or_default();
        *sum = sum.saturating_add(amount);
    }
}
