//! What a tenant that comes back had used: its meters, rows, statements, and the events
//! that are counted in rows, brought where there are none, and never added to what is
//! there. It does not know what any of it costs.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Restores, contents::Contents};
use crate::{
    error::{Error, Result},
    state::checkpoint::{
        ChunkKey, Component, Count, Damage, Held, Kind, Part, Record, Trouble,
        usage::{self, Metered},
    },
    store::{
        Add, Batch, Check, Commit, Expiry, Heritage, Incarnation, Key, MAX_COUNT, Once, Row, Space,
        Table, Tallied, Tally, Unit, Write,
    },
    tenant::Tenants,
};

/// Rows asked for at once.
const ROWS: usize = 500;

/// Counters of a row in one tally.
const COUNTERS: usize = 64;

/// For how long what was brought is not brought again.
const KEEP_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// What a tenant had used.
pub(super) struct Bills {
    pub(super) cache: Option<Heritage>,
    pub(super) sessions: Option<Heritage>,
    rows: Vec<(Bytes, Row, Option<u64>)>,
    records: Vec<(Key, Record)>,
    pub(super) count: Count,
}

impl Bills {
    pub(super) async fn of(contents: &Contents<'_>, held: &Held, key: &ChunkKey) -> Result<Self> {
        let mut bills = Self {
            cache: None,
            sessions: None,
            rows: Vec::new(),
            records: Vec::new(),
            count: Count::default(),
        };
        for number in chunks(held) {
            let records = contents.records(number, (held, Component::Usage), key);
            for record in records.await? {
                bills.count.add(&record);
                let taken = bills.take(record).map_err(Trouble::Damaged);
                taken.map_err(|trouble| trouble.of(contents.reader.id(), Part::Chunk(number)))?;
            }
        }
        Ok(bills)
    }

    fn take(&mut self, record: Record) -> std::result::Result<(), Damage> {
        match record.kind {
            Kind::Meters => {
                let of = usage::meters(&record)?;
                let heritage = match of.space {
                    Metered::Cache => &mut self.cache,
                    Metered::Sessions => &mut self.sessions,
                };
                let heritage = heritage.get_or_insert_default();
                heritage.expired = of.expired;
                match of.unit {
                    Unit::Minute => heritage.minutes = of.meters,
                    Unit::Hour => heritage.hours = of.meters,
                    Unit::Day => heritage.days = of.meters,
                }
            }
            Kind::Row => {
                let row = usage::row(&record)?;
                self.rows.push((record.path, row, record.expire_ms));
            }
            Kind::Table(table @ (Table::Statement | Table::Control)) => {
                let key = Key::new(table, record.path.clone());
                self.records.push((key, record));
            }
            // Events may be many, and are read when they are brought.
            _ => {}
        }
        Ok(())
    }

    /// Whether nothing of it is there.
    async fn is_absent(&self, tenants: &Tenants, space: &Space) -> Result<bool> {
        let store = tenants.store();
        let names: Vec<Bytes> = self.rows.iter().map(|(name, ..)| name.clone()).collect();
        for names in names.chunks(ROWS) {
            let rows = store.rows(space, names).await?;
            if rows.iter().any(|row| !row.is_empty()) {
                return Ok(false);
            }
        }
        for records in self.records.chunks(ROWS) {
            let keys: Vec<Key> = records.iter().map(|(key, _)| key.clone()).collect();
            let read = store.read(space, 0, &keys).await?;
            if read.records.iter().any(Option::is_some) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Brings events, then what they are counted in. May be repeated.
    pub(super) async fn bring(
        &self,
        tenants: &Tenants,
        contents: &Contents<'_>,
        (held, key): (&Held, &ChunkKey),
        incarnation: Incarnation,
    ) -> Result<()> {
        for number in chunks(held) {
            let mut events = Vec::new();
            let records = contents.records(number, (held, Component::Usage), key);
            for record in records.await? {
                if record.kind == Kind::Event {
                    let event = usage::event(record).map_err(Trouble::Damaged);
                    let part = Part::Chunk(number);
                    events.push(event.map_err(|trouble| trouble.of(contents.reader.id(), part))?);
                }
            }
            tenants
                .bring_counted(incarnation, events.into_iter())
                .await?;
        }
        self.bring_rows(tenants, contents, incarnation).await
    }

    /// Brings rows and statements.
    async fn bring_rows(
        &self,
        tenants: &Tenants,
        contents: &Contents<'_>,
        incarnation: Incarnation,
    ) -> Result<()> {
        let (store, space) = (tenants.store(), Space::meters(incarnation));
        let now_ms = store.now_ms();
        let left = |until_ms: Option<u64>| match until_ms {
            Some(until_ms) => Some(until_ms.saturating_sub(now_ms)).filter(|left| *left > 0),
            None => Some(0),
        };
        let id = contents.reader.id();
        for (name, row, until_ms) in &self.rows {
            let Some(keep_ms) = left(*until_ms) else {
                continue;
            };
            for (part, counters) in row.chunks(COUNTERS).enumerate() {
                let count = |(name, count): &(Bytes, u64)| crate::store::Count {
                    name: name.clone(),
                    amount: i64::try_from((*count).min(MAX_COUNT)).unwrap_or(i64::MAX),
                    limit: None,
                };
                // Its own hash, as a row's name may be as long as any.
                let told = crate::state::checkpoint::chunk::sha256(name);
                let tally = Tally {
                    once: Some(Once {
                        name: format!("restore {id} {told} {part}").into(),
                        keep_ms: KEEP_MS,
                    }),
                    adds: vec![Add {
                        row: name.clone(),
                        keep_ms: Some(keep_ms).filter(|keep_ms| *keep_ms > 0),
                        counts: counters.iter().map(count).collect(),
                    }],
                    ..Tally::default()
                };
                match store.tally(&space, tally).await? {
                    Tallied::Added(_) | Tallied::Duplicate => {}
                    refused => {
                        return Err(Error::Internal(format!("usage not restored: {refused:?}")));
                    }
                }
            }
        }
        for (key, record) in &self.records {
            let Some(after_ms) = left(record.expire_ms) else {
                continue;
            };
            let expiry = match after_ms {
                0 => Expiry::Never,
                after_ms => Expiry::AfterMs(after_ms),
            };
            let write = Write::put(key.clone(), record.value.clone())
                .when(Check::Absent)
                .expiring(expiry);
            match store.commit(&space, Batch::of([write])).await? {
                // One that is there stays as it is: what is closed never changes.
                Commit::Applied(_) | Commit::Refused(_) => {}
            }
        }
        Ok(())
    }
}

/// The chunks that have something of its usage.
fn chunks(held: &Held) -> BTreeSet<u32> {
    held.chunks_of(&BTreeSet::from([Component::Usage]))
}

impl Restores {
    /// Whether a tenant's usage can come back: only where nothing of it is there, so that
    /// nothing is counted twice.
    pub(super) async fn may_bring_usage(
        &self,
        contents: &Contents<'_>,
        held: &Held,
        key: &ChunkKey,
    ) -> Result<bool> {
        let Some(incarnation) = super::plan::life(held) else {
            return Ok(false);
        };
        let bills = Bills::of(contents, held, key).await?;
        bills
            .is_absent(&self.tenants, &Space::meters(incarnation))
            .await
    }
}
