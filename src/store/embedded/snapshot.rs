//! One moment of the store, to read from. It does not know how it came about,
//! and cannot write.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use redb::{Database, Range, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata};

use super::{
    super::{
        Audit, Cursor, Gauges, Key, Listed, Meters, Page, Query, Read, Record, Row, Space, Table,
        Unit, Usage, charge,
    },
    counts::Counts,
    fault::{Fault, Result},
    layout::{self, BUCKETS, EXPIRIES, Head, Kind, OPENINGS, RECORDS, SPACES},
    ledger::{read_state, split},
    metering,
    state::State,
};

/// The most bytes of values that one page lists.
const PAGE_BYTES: usize = 4 << 20;

/// One moment of the store.
pub(super) struct Snapshot {
    records: ReadOnlyTable<&'static [u8], &'static [u8]>,
    spaces: ReadOnlyTable<&'static [u8], &'static [u8]>,
    buckets: ReadOnlyTable<&'static [u8], (u64, u64)>,
    expiries: ReadOnlyTable<&'static [u8], ()>,
    openings: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Snapshot {
    /// The present moment.
    pub(super) fn take(database: &Database) -> Result<Self> {
        let transaction = database.begin_read()?;
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            spaces: transaction.open_table(SPACES)?,
            buckets: transaction.open_table(BUCKETS)?,
            expiries: transaction.open_table(EXPIRIES)?,
            openings: transaction.open_table(OPENINGS)?,
        })
    }

    /// What is kept of a space.
    pub(super) fn state(&self, space: &Space) -> Result<State> {
        read_state(&self.spaces, space)
    }

    /// What is stored from one key to before another.
    pub(super) fn records(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Range<'static, &'static [u8], &'static [u8]>> {
        Ok(self.records.range(from..to)?)
    }

    /// Rows of records and of spaces.
    #[cfg(test)]
    pub(super) fn rows(&self) -> Result<(u64, u64)> {
        Ok((self.records.len()?, self.spaces.len()?))
    }

    /// Openings in the file.
    #[cfg(test)]
    pub(super) fn openings(&self) -> Result<u64> {
        Ok(self.openings.len()?)
    }

    /// The records under `keys` that are `there` by their heads.
    pub(super) fn read(
        &self,
        space: &Space,
        generation: u64,
        keys: &[Key],
        there: impl Fn(Head) -> bool,
    ) -> Result<Read> {
        let state = read_state(&self.spaces, space)?;
        let prefix = layout::prefix(space);
        let records = keys
            .iter()
            .map(|key| self.record(&state, &prefix, generation, key, &there));
        Ok(Read {
            view: state.seen(),
            records: records.collect::<Result<_>>()?,
        })
    }

    fn record(
        &self,
        state: &State,
        prefix: &[u8],
        generation: u64,
        key: &Key,
        there: impl Fn(Head) -> bool,
    ) -> Result<Option<Record>> {
        if state.past(key.table.generational().then_some(generation)) {
            return Ok(None);
        }
        let stored = layout::join(prefix, &layout::suffix(key, generation));
        let Some(stored) = self.records.get(stored.as_slice())? else {
            return Ok(None);
        };
        let (head, value) = split(stored.value())?;
        Ok(there(head).then(|| Record {
            version: head.version,
            expire_ms: head.expires(),
            value: Bytes::copy_from_slice(value),
        }))
    }

    pub(super) fn list(&self, space: &Space, query: &Query, now_ms: u64) -> Result<Page> {
        if !query.table.ordered() && query.table != Table::Entry {
            return Err(Fault::Misuse(format!(
                "table {:?} is not listed",
                query.table
            )));
        }
        if !(1..=1000).contains(&query.limit) {
            return Err(Fault::Misuse("a page has 1 to 1000 records".into()));
        }
        let state = read_state(&self.spaces, space)?;
        let mut page = Page {
            view: state.seen(),
            items: Vec::new(),
            next: None,
        };
        if state.past(query.table.generational().then_some(query.generation)) {
            return Ok(page);
        }
        let table = layout::join(
            &layout::prefix(space),
            &layout::beginning(query.table, query.generation),
        );
        let first = layout::join(&table, &query.prefix);
        let end = layout::beyond(&first);
        let from = match &query.after {
            Some(cursor) => layout::join(&layout::join(&table, &cursor.0), &[0]).max(first),
            None => first,
        };
        if from >= end {
            return Ok(page);
        }
        let mut bytes = 0;
        let mut last = None;
        for (looked_at, row) in self
            .records
            .range(from.as_slice()..end.as_slice())?
            .enumerate()
        {
            if page.items.len() == query.limit
                || looked_at == query.limit * 4
                || bytes >= PAGE_BYTES
            {
                page.next = last.map(Cursor);
                break;
            }
            let (key, stored) = row?;
            let path = Bytes::copy_from_slice(key.value().get(table.len()..).unwrap_or_default());
            let (head, value) = split(stored.value())?;
            if head.alive(now_ms) {
                let cut = value.get(..query.value_bytes).unwrap_or(value);
                bytes += cut.len();
                page.items.push(Listed {
                    path: path.clone(),
                    record: Record {
                        version: head.version,
                        expire_ms: head.expires(),
                        value: Bytes::copy_from_slice(cut),
                    },
                    value_bytes: value.len() as u64,
                });
            }
            last = Some(path);
        }
        Ok(page)
    }

    pub(super) fn usage(&self, space: &Space, now_ms: u64) -> Result<Usage> {
        let state = read_state(&self.spaces, space)?;
        if state.gone_ms > 0 {
            return Ok(Usage {
                exact: true,
                ..Usage::default()
            });
        }
        let mut usage = state.usage();
        if state.due == 0 || state.due >= now_ms {
            return Ok(usage);
        }
        let prefix = layout::prefix(space);
        let from = layout::bucket(&prefix, state.generation, 0);
        let to = layout::bucket(&prefix, state.generation, now_ms);
        for row in self.buckets.range(from.as_slice()..to.as_slice())? {
            let (entries, bytes) = row?.1.value();
            usage.entries = usage.entries.saturating_sub(entries);
            usage.bytes = usage.bytes.saturating_sub(bytes);
            usage.expired = usage.expired.saturating_add(entries);
        }
        Ok(usage)
    }

    /// What the store holds, in this file or in memory.
    pub(super) fn gauges(&self, file: Option<&Path>) -> Result<Gauges> {
        Ok(Gauges {
            used_bytes: file.and_then(|file| Some(file.metadata().ok()?.len())),
            records: Some(self.records.len()?),
            evicted: Some(0),
            ..Gauges::default()
        })
    }

    /// The meters, as if the buckets that are due had been reaped.
    pub(super) fn meters(&self, space: &Space, unit: Unit, now_ms: u64) -> Result<Meters> {
        let mut state = read_state(&self.spaces, space)?;
        let mut meters = Meters {
            now_ms: now_ms.max(state.reading.at_ms),
            ..Meters::default()
        };
        if state.gone_ms > 0 {
            return Ok(meters);
        }
        let prefix = layout::prefix(space);
        let mut openings = BTreeMap::new();
        let first = metering::ring(&prefix, unit);
        let end = layout::beyond(&first);
        for row in self.openings.range(first.as_slice()..end.as_slice())? {
            let opening = metering::decode_opening(row?.1.value())
                .ok_or_else(|| Fault::Damaged("an opening of meters".into()))?;
            openings.insert(opening.start_ms, opening);
        }
        if state.due > 0 && state.due < now_ms {
            let from = layout::bucket(&prefix, state.generation, 0);
            let to = layout::bucket(&prefix, state.generation, now_ms);
            for row in self.buckets.range(from.as_slice()..to.as_slice())? {
                let (key, counted) = row?;
                let opened = state.advance(state.bytes, layout::bucket_end(key.value()));
                openings.extend(
                    opened
                        .filter(|(of, _)| *of == unit)
                        .map(|(_, opening)| (opening.start_ms, opening)),
                );
                state.bytes = state.bytes.saturating_sub(counted.value().1);
            }
        }
        if state.reading.at_ms == 0 && state.bytes > 0 {
            // They were held before there were meters.
            state.reading.at_ms = now_ms;
        }
        meters.last = state.reading;
        meters.held_bytes = state.bytes;
        meters.openings = openings
            .into_values()
            .filter(|opening| metering::kept(unit, opening.start_ms, now_ms))
            .collect();
        Ok(meters)
    }

    /// Rows of counters, by name.
    pub(super) fn counts(&self, space: &Space, names: &[Bytes], now_ms: u64) -> Result<Vec<Row>> {
        let state = read_state(&self.spaces, space)?;
        let prefix = layout::prefix(space);
        let row = |name: &Bytes| {
            let key = layout::join(&prefix, &Kind::Row.suffix(name));
            let Some(stored) = self.records.get(key.as_slice())? else {
                return Ok(Row::new());
            };
            let (head, value) = split(stored.value())?;
            if !head.alive(now_ms) || state.gone_ms > 0 {
                return Ok(Row::new());
            }
            Counts::decode(value)
                .map(Counts::row)
                .ok_or_else(|| Fault::Damaged("a row of counters".into()))
        };
        names.iter().map(row).collect()
    }

    pub(super) fn audit(&self, space: &Space, now_ms: u64) -> Result<Audit> {
        let state = read_state(&self.spaces, space)?;
        let counted = self.usage(space, now_ms)?;
        let mut found = Usage {
            exact: true,
            ..Usage::default()
        };
        let prefix = layout::prefix(space);
        let end = layout::beyond(&prefix);
        for row in self.records.range(prefix.as_slice()..end.as_slice())? {
            let (key, stored) = row?;
            let suffix = key.value().get(prefix.len()..).unwrap_or_default();
            if Kind::owns(suffix) {
                continue;
            }
            let (table, generation, path) = layout::parse(suffix)
                .ok_or_else(|| Fault::Damaged("the key of a record".into()))?;
            let (head, value) = split(stored.value())?;
            if !table.metered() || (head.end_ms > 0 && head.end_ms < now_ms) {
                continue;
            }
            let cost = charge(path, value.len());
            if state.past(generation) {
                found.orphaned_bytes += cost;
            } else {
                found.entries += 1;
                found.bytes += cost;
            }
        }
        Ok(Audit { counted, found })
    }

    /// Spaces after this one by name, at most so many, of which something is
    /// over, and where to go on.
    pub(super) fn overdue(
        &self,
        after: Option<&str>,
        limit: usize,
        now_ms: u64,
    ) -> Result<(Vec<Space>, Option<Space>)> {
        let mut due = Vec::new();
        let mut last = None;
        let from = after.map_or(Vec::new(), |after| layout::join(after.as_bytes(), &[0]));
        for (number, row) in self.spaces.range(from.as_slice()..)?.enumerate() {
            if number == limit {
                return Ok((due, last));
            }
            let (name, stored) = row?;
            let Ok(name) = std::str::from_utf8(name.value()) else {
                continue;
            };
            let space = Space(name.into());
            let prefix = layout::prefix(&space);
            let to = layout::join(&prefix, &now_ms.to_be_bytes());
            let over = self
                .expiries
                .range(prefix.as_slice()..to.as_slice())?
                .next()
                .is_some();
            let forgettable = State::decode(stored.value())
                .is_some_and(|state| state.forgettable(now_ms))
                && self
                    .records
                    .range(prefix.as_slice()..layout::beyond(&prefix).as_slice())?
                    .next()
                    .is_none();
            if over || forgettable {
                due.push(space.clone());
            }
            last = Some(space);
        }
        Ok((due, None))
    }
}
