//! What a tenant holds, came to and may: gauges, totals of the present billing
//! period, quotas, and points over time. It does not know how anything was
//! counted.

mod range;
mod totals;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Account, Caller, Period, Tenancy, Tenant, Tenants, Terms,
    held::BothMeters,
    plan::{self, Mode},
    quota::OPERATIONS_PER_MINUTE,
    rate::Rule,
    rows,
};
use crate::{
    error::Result,
    store::{self, Row, Space, Unit},
};
pub use range::Range;
pub use totals::Totals;

/// Rows that the store is asked for at once.
const ROWS: usize = 1000;

/// What a tenant holds, came to and may.
#[derive(Clone, Debug)]
pub struct Usage {
    /// What its cache holds now.
    pub held: store::Usage,
    /// Its sessions, and their bytes.
    pub sessions: store::Usage,
    /// What it came to in the present billing period. Of a custom level, how it
    /// stands now.
    pub totals: Totals,
    /// What it may use of each metric, and does.
    pub quotas: BTreeMap<String, Standing>,
    /// What it came to in each unit of the range that was asked for, by the
    /// unit's start.
    pub points: Vec<(u64, Totals)>,
    /// The moment this is as of, by the store's clock.
    pub as_of_ms: u64,
}

/// How a tenant stands against a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The limit; `None` means unlimited.
    pub limit: Option<u64>,
    /// What counts against it.
    pub used: u64,
    /// When nothing of that will count any more; `None` where time does not help.
    pub reset_ms: Option<u64>,
    /// What happens at the limit.
    pub mode: Mode,
}

impl Standing {
    /// What is left; `None` where it is unlimited.
    pub fn remaining(&self) -> Option<u64> {
        Some(self.limit?.saturating_sub(self.used))
    }
}

/// What the store knows of a tenant's usage.
struct Known {
    held: store::Usage,
    sessions: store::Usage,
    /// By day: kept for longest.
    days: BothMeters,
    levels: Row,
    /// Bytes transferred in the present period, as the quota counts them.
    transfer: u64,
    /// The present period's rows, of all its segments.
    period: Vec<Row>,
}

impl Tenants {
    /// The usage of a tenant the caller may see, a deleted one included. What its
    /// calls at this replica came to is flushed first.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::error::Error::Invalid) for a range that makes no
    /// sense; those of [`Tenants::get`]; the store's.
    pub async fn usage(&self, caller: &Caller, tenant_id: &str, range: Range) -> Result<Usage> {
        let now_ms = self.store.now_ms();
        let units = range.units(now_ms)?;
        let tenant = self.get(caller, tenant_id).await?;
        let account = self.account(&tenant);
        self.flush_account(&account).await?;

        let now_ms = self.store.now_ms();
        let quotas = self.effective_quotas(&tenant);
        let period = Period::of(now_ms);
        let known = self.known(&tenant, &account, period).await?;
        let standings = self.standings(&tenant, &account, &quotas, &known).await?;
        let (start_ms, end_ms) = (period.start_ms(), period.end_ms());
        let mut totals = Totals::between(&known.days, start_ms, end_ms);
        known.period.iter().for_each(|row| totals.add(row));
        for (metric, quota) in &quotas.custom {
            let sum = totals.custom.entry(metric.clone()).or_default();
            if quota.window_ms.is_none() {
                *sum = level(&known.levels, metric);
            }
        }
        let points = match units {
            Some((unit, starts)) => self.points(&tenant, unit, starts, &known.days).await?,
            None => Vec::new(),
        };
        Ok(Usage {
            held: known.held,
            sessions: known.sessions,
            totals,
            quotas: standings,
            points,
            as_of_ms: known.days.entries.now_ms,
        })
    }

    /// What the store knows of this period.
    async fn known(&self, tenant: &Tenant, account: &Account, period: Period) -> Result<Known> {
        let incarnation = account.incarnation;
        let mut names = vec![
            rows::levels(incarnation),
            rows::transfer(incarnation, period),
        ];
        let segments = 0..=account.segment();
        names.extend(segments.map(|segment| rows::period(incarnation, period, segment)));
        let (space, sessions) = (tenant.space(), tenant.session_space());
        let meters = Space::meters(incarnation);
        let of_store = async |space| Ok::<_, crate::error::Error>(self.store.usage(space).await?);
        let (held, sessions, days, rows) = tokio::try_join!(
            of_store(&space),
            of_store(&sessions),
            self.meters(tenant, Unit::Day),
            async { Ok(self.rows(&meters, &names).await?) },
        )?;
        let mut rows = rows.into_iter();
        let levels = rows.next().unwrap_or_default();
        let transfer = rows.next().as_ref().map_or(0, rows::transfer_of);
        account.meter.learn_transfer(period, transfer);
        Ok(Known {
            held,
            sessions,
            days,
            levels,
            transfer,
            period: rows.collect(),
        })
    }

    /// Rows, however many.
    pub(super) async fn rows(&self, space: &Space, names: &[Bytes]) -> store::Result<Vec<Row>> {
        let mut rows = Vec::with_capacity(names.len());
        for names in names.chunks(ROWS) {
            rows.extend(self.store.rows(space, names).await?);
        }
        Ok(rows)
    }

    /// What it came to in each of these units; `days` where the unit is a day.
    async fn points(
        &self,
        tenant: &Tenant,
        unit: Unit,
        starts: Vec<u64>,
        days: &BothMeters,
    ) -> Result<Vec<(u64, Totals)>> {
        let incarnation = tenant.incarnation;
        let names: Vec<_> = starts
            .iter()
            .map(|start| rows::point(incarnation, unit, *start))
            .collect();
        let meters = async {
            match unit {
                Unit::Day => Ok(days.clone()),
                unit => self.meters(tenant, unit).await,
            }
        };
        let space = Space::meters(incarnation);
        let rows = async { Ok(self.rows(&space, &names).await?) };
        let (meters, rows) = tokio::try_join!(meters, rows)?;
        let point = |(start_ms, row): (u64, Row)| {
            let mut totals = Totals::between(&meters, start_ms, start_ms + unit.ms());
            totals.add(&row);
            (start_ms, totals)
        };
        Ok(starts.into_iter().zip(rows).map(point).collect())
    }

    /// How the tenant stands against each of its quotas.
    async fn standings(
        &self,
        tenant: &Tenant,
        account: &std::sync::Arc<Account>,
        quotas: &plan::Quotas,
        known: &Known,
    ) -> Result<BTreeMap<String, Standing>> {
        let now_ms = known.days.entries.now_ms;
        let terms = Terms::unlimited(&tenant.tenant_id, account.clone());
        let tenancy = Tenancy::on(std::sync::Arc::new(terms));
        let mut standings = BTreeMap::new();
        let mut stand = |metric: &str, limit: Option<i64>, used, reset_ms| {
            let standing = Standing {
                // A negative limit is -1, which means unlimited.
                limit: limit.and_then(|limit| u64::try_from(limit).ok()),
                used,
                reset_ms,
                mode: quotas.modes.get(metric).copied().unwrap_or_default(),
            };
            standings.insert(metric.to_owned(), standing);
        };
        for (metric, limit) in quotas.limits() {
            match metric {
                "memory_bytes" => stand(metric, limit, known.held.bytes, None),
                "cache_entries" => stand(metric, limit, known.held.entries, None),
                "data_transfer_bytes" => {
                    let end_ms = Period::of(now_ms).end_ms();
                    stand(metric, limit, known.transfer, Some(end_ms));
                }
                OPERATIONS_PER_MINUTE => {
                    let span_ms = Unit::Minute.ms();
                    let used = self.drawn(&tenancy, quotas, metric, limit, span_ms).await?;
                    stand(metric, limit, used, Some(now_ms.saturating_add(span_ms)));
                }
                "storage_bytes" => stand(metric, limit, known.sessions.bytes, None),
                metric => stand(metric, limit, known.sessions.entries, None),
            }
        }
        for (metric, quota) in &quotas.custom {
            let limit = Some(quota.limit);
            match quota.window_ms {
                None => stand(metric, limit, level(&known.levels, metric), None),
                Some(span_ms) => {
                    let used = self.drawn(&tenancy, quotas, metric, limit, span_ms).await?;
                    stand(metric, limit, used, Some(now_ms.saturating_add(span_ms)));
                }
            }
        }
        Ok(standings)
    }

    /// What counts against a rate; nothing does where it has no limit.
    async fn drawn(
        &self,
        tenancy: &Tenancy,
        quotas: &plan::Quotas,
        metric: &str,
        limit: Option<i64>,
        span_ms: u64,
    ) -> Result<u64> {
        let settings = self.settings.load_full();
        match Rule::of(metric, limit, span_ms, &quotas.modes, &settings) {
            Some(rule) => self.look(tenancy, &rule).await,
            None => Ok(0),
        }
    }
}

/// How a level of the platform's own stands.
fn level(levels: &Row, metric: &str) -> u64 {
    let name = rows::custom(metric);
    let counter = levels.iter().find(|(counter, _)| *counter == name);
    counter.map_or(0, |(_, level)| *level)
}
