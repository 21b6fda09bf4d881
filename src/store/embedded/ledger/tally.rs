//! Adds to rows of counters. It does not know what is counted, or for whom.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    super::{
        super::{Space, Tallied, Tally, Unit},
        counts::Counts,
        fault::{Fault, Result},
        layout::{self, Kind},
        state::State,
    },
    Ledger,
};

/// How long the last tally of a source is remembered.
const STAMP_KEPT_MS: u64 = 2 * Unit::Day.ms();

impl Ledger<'_> {
    /// Adds all of a tally or nothing; see [`Tally`].
    pub(in super::super) fn tally(
        &mut self,
        space: &Space,
        tally: &Tally,
        now_ms: u64,
    ) -> Result<Tallied> {
        let prefix = layout::prefix(space);
        let state = self.living(space)?;
        if self.told_before(&prefix, tally, now_ms)? {
            return Ok(Tallied::Duplicate);
        }
        if let Some(key) = self.barred(&prefix, &state, tally, now_ms)? {
            return Ok(Tallied::Barred { key });
        }
        let mut rows: BTreeMap<&Bytes, (Counts, Option<u64>)> = BTreeMap::new();
        let mut added = Vec::with_capacity(tally.adds.len());
        for (place, add) in tally.adds.iter().enumerate() {
            if add.counts.is_empty() {
                added.push(Vec::new());
                continue;
            }
            if !rows.contains_key(&add.row) {
                let suffix = Kind::Row.suffix(&add.row);
                let stored = self.kept(&prefix, &suffix, now_ms)?;
                let counts = stored.map_or(Some(Counts::default()), |row| Counts::decode(&row));
                let counts = counts.ok_or_else(|| Fault::Damaged("a row of counters".into()))?;
                rows.insert(&add.row, (counts, None));
            }
            let Some((counts, keep_ms)) = rows.get_mut(&add.row) else {
                continue;
            };
            *keep_ms = add.keep_ms;
            let mut shows = Vec::with_capacity(add.counts.len());
            for (count, amount) in add.counts.iter().enumerate() {
                match counts.add(amount) {
                    Ok(now) => shows.push(now),
                    Err((limit, used)) => {
                        return Ok(Tallied::Exceeded {
                            add: place,
                            count,
                            limit,
                            used,
                        });
                    }
                }
            }
            added.push(shows);
        }
        for (row, (counts, keep_ms)) in rows {
            let suffix = Kind::Row.suffix(row);
            self.keep(&prefix, &suffix, &counts.encode(), keep_ms, now_ms)?;
        }
        if let Some(stamp) = &tally.stamp {
            let suffix = Kind::Stamp.suffix(&stamp.source);
            let number = stamp.sequence.to_le_bytes();
            self.keep(&prefix, &suffix, &number, Some(STAMP_KEPT_MS), now_ms)?;
        }
        if let Some(once) = &tally.once {
            let suffix = Kind::Once.suffix(&once.name);
            self.keep(&prefix, &suffix, &[], Some(once.keep_ms), now_ms)?;
        }
        self.enter(space, state);
        Ok(Tallied::Added(added))
    }

    fn told_before(&self, prefix: &[u8], tally: &Tally, now_ms: u64) -> Result<bool> {
        if let Some(stamp) = &tally.stamp {
            let suffix = Kind::Stamp.suffix(&stamp.source);
            let last = self.kept(prefix, &suffix, now_ms)?;
            let last = last.map(|number| number.try_into().map(u64::from_le_bytes));
            match last {
                Some(Ok(last)) if stamp.sequence <= last => return Ok(true),
                Some(Err(_)) => return Err(Fault::Damaged("the stamp of a tally".into())),
                _ => {}
            }
        }
        match &tally.once {
            Some(once) => {
                let suffix = Kind::Once.suffix(&once.name);
                Ok(self.kept(prefix, &suffix, now_ms)?.is_some())
            }
            None => Ok(false),
        }
    }

    /// The first record that must be absent and is there.
    fn barred(
        &self,
        prefix: &[u8],
        state: &State,
        tally: &Tally,
        now_ms: u64,
    ) -> Result<Option<usize>> {
        for (place, key) in tally.absent.iter().enumerate() {
            let suffix = layout::suffix(key, state.generation);
            let stored = self.known(prefix, &suffix)?;
            if stored.is_some_and(|known| known.head.alive(now_ms)) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}
