//! Removes what is over or can no longer be reached, and uncounts it. It does
//! not know who asks for it, or when.

use redb::ReadableTable;

use super::{
    super::{
        super::{Cursor, Reclaim, Reclaimed, Space, Table, charge},
        decision::Known,
        fault::Result,
        layout::{self, Head},
        state::State,
    },
    Ledger, known, record_move,
};

/// Openings that go with a forgotten space in one step.
const FORGOTTEN: usize = 512;

impl Ledger<'_> {
    /// Removes what is unreachable; see [`Reclaim`].
    pub(in super::super) fn reclaim(
        &mut self,
        space: &Space,
        what: &Reclaim,
        after: Option<&Cursor>,
        limit: usize,
        now_ms: u64,
    ) -> Result<Reclaimed> {
        let prefix = layout::prefix(space);
        let mut state = self.state(space)?;
        self.reap(&prefix, &mut state, now_ms)?;
        let gone = state.gone_ms > 0;
        let (first, end) = match what {
            Reclaim::Orphans { .. } if gone => (Vec::new(), Vec::new()),
            Reclaim::Orphans { below } => (
                layout::beginning(Table::Entry, 0),
                layout::beginning(Table::Entry, state.generation.min(*below)),
            ),
            Reclaim::Below { prefix: paths, .. } => {
                let first = layout::join(&layout::beginning(Table::Entry, state.generation), paths);
                let end = layout::beyond(&first);
                (first, end)
            }
        };
        if gone && matches!(what, Reclaim::Below { .. }) {
            self.states.insert(space.clone(), state);
            return Ok(Reclaimed::default());
        }
        let from = after.map_or(first, |cursor| layout::join(&cursor.0, &[0]));
        let to = if end.is_empty() {
            layout::beyond(&prefix)
        } else {
            layout::join(&prefix, &end)
        };
        let (found, more) = self.page(&prefix, &layout::join(&prefix, &from), &to, limit)?;

        let mut reclaimed = Reclaimed::default();
        let last = found.last().map(|(suffix, _)| suffix.clone());
        let held_bytes = state.bytes;
        for (suffix, known) in found {
            if matches!(what, Reclaim::Below { version, .. } if known.head.version > *version) {
                continue;
            }
            if let Some(bytes) = self.erase(&prefix, &mut state, &suffix, known, now_ms)? {
                reclaimed.entries += 1;
                reclaimed.bytes += bytes;
            }
            self.changed.push((space.clone(), suffix));
        }
        self.moved(&prefix, &mut state, held_bytes, now_ms)?;
        let mut swept = !more;
        if !more && let Reclaim::Orphans { below } = what {
            let generations = if gone {
                u64::MAX
            } else {
                state.generation.min(*below)
            };
            swept = self.forget_buckets(&prefix, generations, limit)?
                && (!gone || self.forget_openings(&prefix, limit)?);
            if swept && generations >= state.generation {
                state.orphaned = 0;
            }
        }
        self.states.insert(space.clone(), state);
        if !swept {
            let place = last.or_else(|| after.map(|cursor| cursor.0.to_vec()));
            reclaimed.next = Some(Cursor(place.unwrap_or_default().into()));
        }
        Ok(reclaimed)
    }

    /// Deletes records of a space whose time is over, at most so many. Tells how
    /// many there were.
    pub(in super::super) fn sweep(
        &mut self,
        space: &Space,
        limit: usize,
        now_ms: u64,
    ) -> Result<usize> {
        let prefix = layout::prefix(space);
        let mut state = self.state(space)?;
        self.reap(&prefix, &mut state, now_ms)?;
        let to = layout::join(&prefix, &now_ms.to_be_bytes());
        let mut due = Vec::new();
        for row in self
            .expiries
            .range(prefix.as_slice()..to.as_slice())?
            .take(limit)
        {
            let (key, ()) = row.map(|(key, value)| (key.value().to_vec(), value.value()))?;
            due.push(key);
        }
        let swept = due.len();
        let held_bytes = state.bytes;
        for key in due {
            let suffix = key.get(prefix.len() + 8..).unwrap_or_default();
            let stored = self.records.get(layout::join(&prefix, suffix).as_slice())?;
            let stored = stored.map(|stored| remains(stored.value()));
            if let Some(known) = stored.filter(|known| known.head.end_ms < now_ms) {
                self.erase(&prefix, &mut state, suffix, known, now_ms)?;
            }
            self.expiries.remove(key.as_slice())?;
        }
        self.moved(&prefix, &mut state, held_bytes, now_ms)?;
        self.states.insert(space.clone(), state);
        Ok(swept)
    }

    /// Forgets a space that has long been removed and holds nothing any more.
    pub(in super::super) fn forget(&mut self, space: &Space, now_ms: u64) -> Result<()> {
        let prefix = layout::prefix(space);
        let state = self.state(space)?;
        let rest = self.page(&prefix, &prefix, &layout::beyond(&prefix), 1)?.0;
        if state.forgettable(now_ms)
            && rest.is_empty()
            && self.forget_openings(&prefix, FORGOTTEN)?
        {
            self.states.remove(space);
            self.spaces.remove(space.name().as_bytes())?;
        }
        Ok(())
    }

    /// Records of a range of keys, and whether there are more.
    #[allow(clippy::type_complexity)]
    fn page(
        &self,
        prefix: &[u8],
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<(Vec<(Vec<u8>, Known)>, bool)> {
        let mut found = Vec::new();
        if from >= to {
            return Ok((found, false));
        }
        for row in self.records.range(from..to)? {
            let (key, stored) = row?;
            if found.len() == limit {
                return Ok((found, true));
            }
            let suffix = key.value().get(prefix.len()..).unwrap_or_default().to_vec();
            found.push((suffix, remains(stored.value())));
        }
        Ok((found, false))
    }

    /// Deletes a record and uncounts it where it still counts. The bytes it was
    /// charged, where it was a metered one whose time is not over.
    fn erase(
        &mut self,
        prefix: &[u8],
        state: &mut State,
        suffix: &[u8],
        known: Known,
        now_ms: u64,
    ) -> Result<Option<u64>> {
        self.unschedule(prefix, state, suffix, known)?;
        self.records
            .remove(layout::join(prefix, suffix).as_slice())?;
        let Some((table, generation, path)) = layout::parse(suffix) else {
            return Ok(None);
        };
        let end_ms = known.head.end_ms;
        let cost = charge(path, known.value_bytes);
        if !table.metered() {
            return Ok(None);
        }
        if state.past(generation) {
            // One that is no longer orphaned at most makes the figure too high;
            // it is put right when the last orphan has gone.
            if end_ms == 0 || end_ms > state.orphans_watermark {
                state.orphaned = state.orphaned.saturating_sub(cost);
            }
        } else if state.counts(table, end_ms) {
            state.entries = state.entries.saturating_sub(1);
            state.bytes = state.bytes.saturating_sub(cost);
        }
        Ok((end_ms == 0 || end_ms >= now_ms).then_some(cost))
    }

    /// Moves the meters, if what is held has changed.
    fn moved(
        &mut self,
        prefix: &[u8],
        state: &mut State,
        held_bytes: u64,
        now_ms: u64,
    ) -> Result<()> {
        if state.bytes == held_bytes {
            return Ok(());
        }
        record_move(&mut self.openings, prefix, state, held_bytes, now_ms)
    }

    /// Forgets the openings of a space. Tells whether all are gone.
    fn forget_openings(&mut self, prefix: &[u8], limit: usize) -> Result<bool> {
        let to = layout::beyond(prefix);
        let rows = self.openings.range(prefix..to.as_slice())?.take(limit + 1);
        let keys = rows
            .map(|row| Ok(row?.0.value().to_vec()))
            .collect::<Result<Vec<_>>>()?;
        for key in keys.iter().take(limit) {
            self.openings.remove(key.as_slice())?;
        }
        Ok(keys.len() <= limit)
    }

    /// Forgets buckets of past generations. Tells whether all are gone.
    fn forget_buckets(&mut self, prefix: &[u8], below: u64, limit: usize) -> Result<bool> {
        let to = layout::bucket(prefix, below, 0);
        let rows = self.buckets.range(prefix..to.as_slice())?.take(limit + 1);
        let keys = rows
            .map(|row| Ok(row?.0.value().to_vec()))
            .collect::<Result<Vec<_>>>()?;
        for key in keys.iter().take(limit) {
            self.buckets.remove(key.as_slice())?;
        }
        Ok(keys.len() <= limit)
    }
}

/// What is to be removed, readable or not.
fn remains(stored: &[u8]) -> Known {
    known(stored).unwrap_or(Known {
        head: Head {
            version: 0,
            expire_ms: 0,
            end_ms: 0,
        },
        value_bytes: stored.len().saturating_sub(Head::BYTES),
    })
}
