//! What a tenant owes for a period: lines and their sum, from what it consumed
//! under which plans. All on integers; it reads no store and no clock.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    price::{BASE_FEE, Metric, Tariff},
    proration::{Need, half_up, pooled, shares},
};
use crate::tenant::{Period, record};

/// What a tenant consumed, by metric.
pub type Quantities = BTreeMap<Metric, u128>;

/// The part of a period that a tenant was on one plan.
#[derive(Clone, Debug)]
pub struct Part {
    /// The plan's name.
    pub plan: String,
    /// What it costs.
    pub tariff: Tariff,
    /// When it began.
    pub start_ms: u64,
    /// When it ended, or will if nothing changes.
    pub end_ms: u64,
    /// What was consumed in it so far.
    pub quantities: Quantities,
}

impl Part {
    fn ms(&self) -> u64 {
        self.end_ms.saturating_sub(self.start_ms)
    }

    /// Whether there is anything to say of a metric.
    fn tells(&self, metric: &Metric) -> bool {
        let price = self.tariff.price(metric);
        price.unit_price_micros > 0 || price.included > 0 || quantity(self, metric) > 0
    }
}

/// What a tenant owes for a period, as it is stored once it is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// See [`record::FORMAT`].
    pub format: u32,
    /// The tenant.
    pub tenant_id: String,
    /// The period.
    pub period: Period,
    /// When the tenant's part of the period began.
    pub start_ms: u64,
    /// When it ends.
    pub end_ms: u64,
    /// What is owed for what.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total_micros: i64,
    /// The total to be expected at the end.
    pub projected_total_micros: i64,
    /// The currency.
    pub currency: String,
    /// When it was closed; `None` while it is not.
    pub close_ms: Option<u64>,
}

/// A line of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The plan.
    pub plan: String,
    /// What is charged; [`BASE_FEE`] or a [`Metric`]'s name.
    pub metric: String,
    /// What was consumed; of a base fee, the milliseconds it is owed for.
    pub quantity: i64,
    /// How much of it costs nothing.
    pub included: i64,
    /// The price of a unit.
    pub unit_price_micros: i64,
    /// The quantity that it is for.
    pub unit: i64,
    /// What the line comes to.
    pub amount_micros: i64,
    /// Since when the tenant was on the plan, in this period.
    pub start_ms: u64,
    /// Until when, or until now.
    pub end_ms: u64,
}

/// A figure of a statement is beyond 2^63 - 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is more than a statement can say, 2^63 - 1")]
pub struct Overflow(pub String);

/// The statement of a tenant's parts of a period, in their order, with what was
/// consumed and is owed until this moment. At the end of the last part the
/// projection is the total.
///
/// # Errors
/// [`Overflow`] where a figure does not fit; a projection stops at the greatest.
pub fn draw_up(
    tenant_id: &str,
    currency: &str,
    period: Period,
    parts: &[Part],
    until_ms: u64,
) -> Result<Statement, Overflow> {
    let lines = lines(period, parts, until_ms)?;
    let mut total = 0_i64;
    for line in &lines {
        total = total
            .checked_add(line.amount_micros)
            .ok_or_else(|| Overflow("total_micros".to_owned()))?;
    }
    let start_ms = parts.first().map_or(until_ms, |part| part.start_ms);
    let end_ms = parts.last().map_or(until_ms, |part| part.end_ms);
    let projected = if until_ms < end_ms {
        projected(period, parts, start_ms, until_ms, end_ms)
    } else {
        total
    };
    Ok(Statement {
        format: record::FORMAT,
        tenant_id: tenant_id.to_owned(),
        period,
        start_ms,
        end_ms,
        lines,
        total_micros: total,
        projected_total_micros: projected,
        currency: currency.to_owned(),
        close_ms: None,
    })
}

/// A line before it is known to fit.
struct Wide<'a> {
    part: &'a Part,
    metric: Option<&'a Metric>,
    quantity: i128,
    included: i128,
    unit_price: i128,
    unit: i128,
    amount: i128,
}

fn lines(period: Period, parts: &[Part], until_ms: u64) -> Result<Vec<Line>, Overflow> {
    for part in parts {
        for (metric, quantity) in &part.quantities {
            if i64::try_from(*quantity).is_err() {
                return Err(Overflow(metric.name().into_owned()));
            }
        }
    }
    let wide = wide(period, parts, until_ms).into_iter().map(|line| {
        let metric = line.metric.map_or(BASE_FEE.into(), Metric::name);
        let fit = |figure: i128| {
            i64::try_from(figure)
                .map_err(|_| Overflow(format!("{metric} of plan {}", line.part.plan)))
        };
        Ok(Line {
            plan: line.part.plan.clone(),
            quantity: fit(line.quantity)?,
            included: fit(line.included)?,
            unit_price_micros: fit(line.unit_price)?,
            unit: fit(line.unit)?,
            amount_micros: fit(line.amount)?,
            start_ms: line.part.start_ms,
            end_ms: line.part.end_ms.min(until_ms).max(line.part.start_ms),
            metric: metric.into_owned(),
        })
    });
    wide.collect()
}

/// The lines of all parts. Quantities beyond 2^63 - 1 are cut to it; no
/// intermediate figure can overflow then: amounts stay below 2^63 * 10^12.
fn wide(period: Period, parts: &[Part], until_ms: u64) -> Vec<Wide<'_>> {
    let owed_ms = |part: &Part| part.end_ms.min(until_ms).saturating_sub(part.start_ms);
    let fees = parts
        .iter()
        .map(|part| (part.tariff.base_fee_micros, owed_ms(part)));
    let fees = shares(period.ms(), fees);
    let mut of_parts: Vec<Vec<Wide<'_>>> = parts
        .iter()
        .zip(fees)
        .map(|(part, fee)| {
            let base = Wide {
                part,
                metric: None,
                quantity: owed_ms(part).into(),
                included: 0,
                unit_price: part.tariff.base_fee_micros.into(),
                unit: period.ms().into(),
                amount: fee,
            };
            // A plan that was left as soon as it was taken.
            (part.ms() > 0).then_some(base).into_iter().collect()
        })
        .collect();
    let metrics: BTreeSet<&Metric> = parts
        .iter()
        .flat_map(|part| part.tariff.metrics().chain(part.quantities.keys()))
        .collect();
    for metric in metrics {
        let included = parts
            .iter()
            .map(|part| (part.tariff.price(metric).included, part.ms()));
        let needs: Vec<Need> = parts
            .iter()
            .zip(shares(period.ms(), included))
            .map(|(part, own)| Need {
                quantity: quantity(part, metric),
                own,
                pools: part.tariff.price(metric).unit_price_micros > 0,
            })
            .collect();
        let included = pooled(&needs);
        for (((part, need), included), lines) in
            parts.iter().zip(needs).zip(included).zip(&mut of_parts)
        {
            let price = part.tariff.price(metric);
            let unit = i128::from(price.unit.max(1));
            let charged = (need.quantity - included).max(0);
            let line = Wide {
                part,
                metric: Some(metric),
                quantity: need.quantity,
                included,
                unit_price: price.unit_price_micros.into(),
                unit,
                amount: half_up(charged * i128::from(price.unit_price_micros), unit),
            };
            if part.tells(metric) {
                lines.push(line);
            }
        }
    }
    of_parts.into_iter().flatten().collect()
}

fn quantity(part: &Part, metric: &Metric) -> i128 {
    let consumed = part.quantities.get(metric).copied().unwrap_or(0);
    i64::try_from(consumed).unwrap_or(i64::MAX).into()
}

/// The total at the end, if the tenant goes on as it did so far, on the plan it
/// is on.
fn projected(period: Period, parts: &[Part], start_ms: u64, until_ms: u64, end_ms: u64) -> i64 {
    let elapsed = u128::from(until_ms.saturating_sub(start_ms));
    let ahead = u128::from(end_ms.saturating_sub(until_ms));
    let mut so_far = Quantities::new();
    for part in parts {
        for (metric, quantity) in &part.quantities {
            let sum = so_far.entry(metric.clone()).or_default();
            *sum = sum.saturating_add(*quantity);
        }
    }
    let mut parts = parts.to_vec();
    if let Some(present) = parts.last_mut() {
        for (metric, quantity) in so_far {
            let more = quantity
                .saturating_mul(ahead)
                .checked_div(elapsed)
                .unwrap_or(0);
            let consumed = present.quantities.entry(metric).or_default();
            *consumed = consumed.saturating_add(more);
        }
    }
    let total: i128 = wide(period, &parts, end_ms)
        .iter()
        .map(|line| line.amount)
        .sum();
    i64::try_from(total).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
