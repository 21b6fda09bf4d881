//! What the store keeps of a tenant beside its entries, as it is stored: for whoever
//! keeps a copy of it elsewhere. It does not know where.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    Masters, Period, Tenant, Tenants,
    admission::pepper_key,
    event::AHEAD_MS,
    record::{self, api_key_key, key_use_key, tenant_key},
    rows,
};
use crate::{
    error::{Error, Result},
    store::{Incarnation, Key, Meters, Query, Record, Row, Space, Table, Unit},
};

/// API keys listed at once.
const KEYS: usize = 200;

/// No record of the registry is greater.
const VALUE_BYTES: usize = 1 << 20;

/// Periods back that rows are kept of, the present one included.
const PERIODS: usize = 14;

/// How often rows are read anew that events came to meanwhile.
const ATTEMPTS: usize = 3;

/// How long a period's rows are kept.
const PERIOD_KEPT_MS: u64 = 400 * Unit::Day.ms();

/// A tenant and its API keys, as they are stored.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The tenant.
    pub tenant: Tenant,
    /// Its record, those of its API keys, and of their last uses.
    pub records: Vec<(Key, Record)>,
}

/// What is kept of a tenant's usage.
#[derive(Clone, Debug, Default)]
pub struct KeptUsage {
    /// The meters of its spaces, by all units.
    pub meters: Vec<KeptMeters>,
    /// Its rows of counters that are not empty.
    pub rows: Vec<KeptRow>,
    /// Its closed statements, and what bars its closed periods.
    pub records: Vec<(Key, Record)>,
    /// The events that were counted before this moment are in its rows, and no others;
    /// see [`Counted::is_before`](super::event::counted::Counted::is_before).
    pub events_before_ms: u64,
}

/// The meters of a space.
#[derive(Clone, Debug)]
pub struct KeptMeters {
    /// The space.
    pub space: Space,
    /// Their unit.
    pub unit: Unit,
    /// The meters.
    pub meters: Meters,
    /// As [`Usage::expired`](crate::store::Usage::expired) of the space.
    pub expired: u64,
}

/// A row of counters.
#[derive(Clone, Debug)]
pub struct KeptRow {
    /// Its name in the meter space.
    pub name: Bytes,
    /// Its counters.
    pub row: Row,
    /// Until when it is kept; `None` means for ever.
    pub until_ms: Option<u64>,
}

impl Tenants {
    /// The master keys that this replica knows.
    pub fn masters(&self) -> &std::sync::Arc<Masters> {
        &self.masters
    }

    /// The secret that API keys are compared by, as it is stored.
    ///
    /// # Errors
    /// The store's.
    pub async fn stored_secret(&self) -> Result<Option<(Key, Record)>> {
        // Made where there is none yet, so that what is copied is what will be used.
        self.pepper().await?;
        let key = pepper_key();
        let read = self
            .store
            .read(&Space::registry(), 0, std::slice::from_ref(&key))
            .await?;
        Ok(read.records.into_iter().next().flatten().map(|r| (key, r)))
    }

    /// A tenant and its API keys as they are stored; `None` where it does not exist, or
    /// is being purged.
    ///
    /// # Errors
    /// The store's, and where a record cannot be read.
    pub async fn registered(&self, tenant_id: &str) -> Result<Option<Registered>> {
        let key = tenant_key(tenant_id);
        let registry = Space::registry();
        let read = self
            .store
            .read(&registry, 0, std::slice::from_ref(&key))
            .await?;
        let Some(found) = read.records.into_iter().next().flatten() else {
            return Ok(None);
        };
        let tenant: Tenant = record::decode(&found.value)?;
        if tenant.purging {
            return Ok(None);
        }
        let mut records = vec![(key, found)];
        let mut query = Query {
            table: Table::ApiKey,
            generation: 0,
            prefix: tenant.incarnation.to_string().into_bytes().into(),
            after: None,
            limit: KEYS,
            value_bytes: VALUE_BYTES,
        };
        loop {
            let page = self.store.list(&registry, query.clone()).await?;
            let ids: Vec<String> = page
                .items
                .iter()
                .filter_map(|item| String::from_utf8(item.path.to_vec()).ok())
                .collect();
            let uses: Vec<Key> = ids.iter().map(|id| key_use_key(id)).collect();
            let read = self.store.read(&registry, 0, &uses).await?;
            let listed = page.items.into_iter().zip(&ids);
            records.extend(listed.map(|(item, id)| (api_key_key(id), item.record)));
            let uses = uses.into_iter().zip(read.records);
            records.extend(uses.filter_map(|(key, found)| Some((key, found?))));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(Some(Registered { tenant, records })),
            }
        }
    }

    /// Which of these lives of tenants are still there, and not being purged.
    ///
    /// # Errors
    /// The store's, and where a record cannot be read.
    pub async fn alive<'a>(
        &self,
        lives: impl Iterator<Item = (&'a str, Incarnation)>,
    ) -> Result<BTreeSet<Incarnation>> {
        let mut alive = BTreeSet::new();
        let lives: Vec<_> = lives.collect();
        for lives in lives.chunks(KEYS) {
            let keys: Vec<Key> = lives.iter().map(|(id, _)| tenant_key(id)).collect();
            let read = self.store.read(&Space::registry(), 0, &keys).await?;
            for ((_, incarnation), found) in lives.iter().zip(read.records) {
                let Some(found) = found else { continue };
                let tenant: Tenant = record::decode(&found.value)?;
                if tenant.incarnation == *incarnation && !tenant.purging {
                    alive.insert(*incarnation);
                }
            }
        }
        Ok(alive)
    }

    /// What is kept of a tenant's usage: each row, and the meters of each unit, as of the
    /// moment it is read, while no event is counted. What its calls at this replica came
    /// to is flushed first.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] where that takes too long; the store's.
    pub async fn kept_usage(&self, tenant: &Tenant) -> Result<KeptUsage> {
        let account = self.account(tenant);
        self.flush_account(&account).await?;
        let mut kept = KeptUsage::default();
        for space in [tenant.space(), tenant.session_space()] {
            let usage = self.store.usage(&space).await?;
            for unit in Unit::ALL {
                kept.meters.push(KeptMeters {
                    space: space.clone(),
                    unit,
                    meters: self.store.meters(&space, unit).await?,
                    expired: usage.expired,
                });
            }
        }
        let now_ms = self.store.now_ms();
        (kept.rows, kept.events_before_ms) = self.rows_between_events(tenant, now_ms).await?;
        let keys: Vec<Key> = periods(tenant, now_ms)
            .into_iter()
            .flat_map(|period| {
                [rows::statement, rows::closing].map(|key| key(tenant.incarnation, period))
            })
            .collect();
        let space = Space::meters(tenant.incarnation);
        for keys in keys.chunks(KEYS) {
            let read = self.store.read(&space, 0, keys).await?;
            let found = keys.iter().cloned().zip(read.records);
            kept.records
                .extend(found.filter_map(|(key, found)| Some((key, found?))));
        }
        Ok(kept)
    }

    /// A tenant's rows, and the moment until which events are in them.
    async fn rows_between_events(
        &self,
        tenant: &Tenant,
        now_ms: u64,
    ) -> Result<(Vec<KeptRow>, u64)> {
        for _ in 0..ATTEMPTS {
            let hold = self.hold_events(tenant.incarnation).await?;
            let kept = self.kept_rows(tenant, now_ms).await;
            let before_ms = self.let_go_of_events(hold).await?;
            let kept = kept?;
            if let Some(before_ms) = before_ms {
                return Ok((kept, before_ms));
            }
        }
        Err(Error::StoreUnavailable)
    }

    /// A tenant's rows. Whatever is added to a minute is added to its hour and its day
    /// too, so that where a day has no row, nothing in it has.
    async fn kept_rows(&self, tenant: &Tenant, now_ms: u64) -> Result<Vec<KeptRow>> {
        let life = tenant.incarnation;
        let space = Space::meters(life);
        let mut kept = Vec::new();
        // Some events come from callers whose clocks are ahead.
        let last_ms = now_ms.saturating_add(AHEAD_MS);
        let mut spans = vec![(0, last_ms)];
        for unit in [Unit::Day, Unit::Hour, Unit::Minute] {
            // As many as it is kept, and the one that is not over.
            let oldest_ms = unit.start_ms(now_ms.saturating_sub((unit.kept() + 1) * unit.ms()));
            let oldest_ms = oldest_ms.max(unit.start_ms(tenant.create_ms));
            let starts: Vec<u64> = spans
                .iter()
                .flat_map(|(from, to)| {
                    let from = unit.start_ms((*from).max(oldest_ms));
                    (from..=(*to).min(last_ms)).step_by(usize::try_from(unit.ms()).unwrap_or(1))
                })
                .collect();
            let names: Vec<_> = starts.iter().map(|s| rows::point(life, unit, *s)).collect();
            spans.clear();
            let found = self.rows(&space, &names).await?;
            for ((start_ms, name), row) in starts.into_iter().zip(names).zip(found) {
                if row.is_empty() {
                    continue;
                }
                spans.push((start_ms, start_ms + unit.ms() - 1));
                kept.push(KeptRow {
                    name,
                    row,
                    until_ms: Some(start_ms + (unit.kept() + 2) * unit.ms()),
                });
            }
        }
        let last = tenant.segments.last().map_or(0, |segment| segment.number);
        let mut named = vec![(rows::levels(life), None)];
        for period in periods(tenant, last_ms).into_iter().rev().take(PERIODS) {
            let transfer_until_ms = period.end_ms() + Unit::Day.ms();
            named.push((rows::transfer(life, period), Some(transfer_until_ms)));
            let until_ms = Some(period.end_ms() + PERIOD_KEPT_MS);
            named.extend((0..=last).map(|s| (rows::period(life, period, s), until_ms)));
        }
        let names: Vec<_> = named.iter().map(|(name, _)| name.clone()).collect();
        let found = self.rows(&space, &names).await?;
        for ((name, until_ms), row) in named.into_iter().zip(found) {
            if !row.is_empty() {
                kept.push(KeptRow {
                    name,
                    row,
                    until_ms,
                });
            }
        }
        Ok(kept)
    }
}

/// The periods of a tenant's life, the oldest first.
fn periods(tenant: &Tenant, now_ms: u64) -> Vec<Period> {
    let first = Period::of(tenant.create_ms);
    let mut periods = vec![Period::of(now_ms)];
    while let Some(last) = periods.last().filter(|last| **last > first) {
        periods.push(last.previous());
    }
    periods.reverse();
    periods
}
