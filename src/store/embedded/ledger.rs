//! The tables within one write transaction: applies what was decided and keeps
//! the counters true. It does not know about threads, durability or callers.

mod inherit;
mod keeping;
mod lease;
mod removal;
mod tally;

use std::collections::HashMap;

use bytes::Bytes;
use redb::{ReadableTable, Table as Rows, WriteTransaction};

use super::{
    super::{Applied, Batch, Commit, Key, Metered, Reading, Space, Step, charge},
    decision::{self, After, Change, Decision, Known},
    fault::{Fault, Result},
    layout::{self, BUCKETS, EXPIRIES, Head, META, OPENINGS, RECORDS, SPACES},
    metering,
    state::State,
};

type Bytewise<'t, V> = Rows<'t, &'static [u8], V>;

/// The tables of a write transaction.
pub(super) struct Ledger<'t> {
    records: Bytewise<'t, &'static [u8]>,
    spaces: Bytewise<'t, &'static [u8]>,
    buckets: Bytewise<'t, (u64, u64)>,
    expiries: Bytewise<'t, ()>,
    openings: Bytewise<'t, &'static [u8]>,
    meta: Rows<'t, &'static str, u64>,
    /// The spaces touched so far, as they are now.
    states: HashMap<Space, State>,
    /// The run of the store.
    run: u64,
    /// What was changed so far, by space and suffix; what only ended is not here.
    changed: Vec<Changed>,
}

/// A record that was changed, by its space and its suffix there.
pub(super) type Changed = (Space, Vec<u8>);

/// What came of a batch, and the announced keys it changed.
pub(super) type Verdict = (Commit, Vec<Key>);

impl<'t> Ledger<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction, run: u64) -> Result<Self> {
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            spaces: transaction.open_table(SPACES)?,
            buckets: transaction.open_table(BUCKETS)?,
            expiries: transaction.open_table(EXPIRIES)?,
            openings: transaction.open_table(OPENINGS)?,
            meta: transaction.open_table(META)?,
            states: HashMap::new(),
            run,
            changed: Vec::new(),
        })
    }

    /// A fact of the file; 0 where it was never set.
    pub(super) fn fact(&self, name: &'static str) -> Result<u64> {
        Ok(self.meta.get(name)?.map_or(0, |value| value.value()))
    }

    /// Sets a fact of the file.
    pub(super) fn set_fact(&mut self, name: &'static str, value: u64) -> Result<()> {
        self.meta.insert(name, value)?;
        Ok(())
    }

    /// Writes the states of all spaces that were touched. Tells what was changed.
    pub(super) fn finish(mut self) -> Result<Vec<Changed>> {
        for (space, state) in self.states.drain() {
            if state != State::default() {
                self.spaces
                    .insert(space.name().as_bytes(), state.encode().as_slice())?;
            }
        }
        Ok(self.changed)
    }

    /// Decides a batch and applies it. [`Fault::Disk`] spoils the transaction;
    /// after any other fault, here and below, nothing was written.
    pub(super) fn commit(&mut self, space: &Space, batch: &Batch, now_ms: u64) -> Result<Verdict> {
        decision::examine(batch)?;
        let prefix = layout::prefix(space);
        let mut state = self.state(space)?;
        if self.reap(&prefix, &mut state, now_ms)? {
            self.states.insert(space.clone(), state);
        }
        self.begin_run(&mut state);
        let mut plan = match decision::decide(
            state,
            batch,
            now_ms,
            |suffix| self.known(&prefix, suffix),
            |suffix| self.value(&prefix, suffix),
        )? {
            Decision::Apply(plan) => plan,
            Decision::Refuse(refusal) => return Ok((Commit::Refused(refusal), Vec::new())),
        };
        for change in &plan.changes {
            self.apply(&prefix, &state, change)?;
        }
        self.meter(&prefix, &mut plan.state, batch, state.bytes, now_ms)?;
        if let Some(Step::Inherit(inheritance)) = &batch.step
            && let Some(heritage) = &inheritance.meters
        {
            self.take_over(&prefix, &mut plan.state, heritage, now_ms)?;
        }
        self.states.insert(space.clone(), plan.state);
        let changed = plan.changes.into_iter().map(|change| change.suffix);
        self.changed
            .extend(changed.map(|suffix| (space.clone(), suffix)));
        let applied = Applied {
            view: plan.state.view(),
            outcomes: plan.outcomes,
            usage: plan.usage,
        };
        Ok((Commit::Applied(applied), plan.announced))
    }

    /// Moves the meters with a batch, before which so many bytes were held.
    fn meter(
        &mut self,
        prefix: &[u8],
        state: &mut State,
        batch: &Batch,
        held_bytes: u64,
        now_ms: u64,
    ) -> Result<()> {
        if state.gone_ms > 0 {
            state.reading = Reading::default();
        } else if state.bytes != held_bytes || batch.metered != Metered::default() {
            record_move(&mut self.openings, prefix, state, held_bytes, now_ms)?;
            let Metered { operations, bytes } = batch.metered;
            state.reading.operations = state.reading.operations.saturating_add(operations);
            state.reading.bytes = state.reading.bytes.saturating_add(bytes);
        }
        Ok(())
    }

    fn state(&self, space: &Space) -> Result<State> {
        if let Some(state) = self.states.get(space) {
            return Ok(*state);
        }
        read_state(&self.spaces, space)
    }

    /// Uncounts the buckets whose time is over. Tells whether there were any.
    fn reap(&mut self, prefix: &[u8], state: &mut State, now_ms: u64) -> Result<bool> {
        if state.gone_ms > 0 || state.due == 0 || state.due >= now_ms {
            return Ok(false);
        }
        let from = layout::bucket(prefix, state.generation, 0);
        let to = layout::bucket(prefix, state.generation, now_ms);
        for row in self
            .buckets
            .extract_from_if(from.as_slice()..to.as_slice(), |_, _| true)?
        {
            let (key, counted) = row?;
            let (entries, bytes) = counted.value();
            let ended_ms = layout::bucket_end(key.value());
            record_move(&mut self.openings, prefix, state, state.bytes, ended_ms)?;
            state.entries = state.entries.saturating_sub(entries);
            state.bytes = state.bytes.saturating_sub(bytes);
            state.expired = state.expired.saturating_add(entries);
        }
        state.watermark = now_ms - 1;
        let end = layout::bucket(prefix, state.generation, u64::MAX);
        state.due = match self.buckets.range(to.as_slice()..end.as_slice())?.next() {
            Some(row) => layout::bucket_end(row?.0.value()),
            None => 0,
        };
        Ok(true)
    }

    /// What is stored at a suffix.
    fn known(&self, prefix: &[u8], suffix: &[u8]) -> Result<Option<Known>> {
        let stored = self.records.get(layout::join(prefix, suffix).as_slice())?;
        stored.map(|stored| known(stored.value())).transpose()
    }

    /// The value of what is stored at a suffix.
    fn value(&self, prefix: &[u8], suffix: &[u8]) -> Result<Bytes> {
        let stored = self.records.get(layout::join(prefix, suffix).as_slice())?;
        let stored = stored.ok_or_else(|| spoiled("a record went while it was decided on"))?;
        split(stored.value()).map(|(_, value)| Bytes::copy_from_slice(value))
    }

    /// Applies a change. `state` is the space's before the batch.
    fn apply(&mut self, prefix: &[u8], state: &State, change: &Change) -> Result<()> {
        let key = layout::join(prefix, &change.suffix);
        if let Some(before) = change.before {
            self.unschedule(prefix, state, &change.suffix, before)?;
        }
        let after = match &change.after {
            After::Put(head, value) => {
                let mut place = self
                    .records
                    .insert_reserve(key.as_slice(), Head::BYTES + value.len())?;
                fill(place.as_mut(), *head, value);
                Some(Known {
                    head: *head,
                    value_bytes: value.len(),
                })
            }
            After::Touched(known) => {
                let value = match self.records.get(key.as_slice())? {
                    Some(stored) => stored
                        .value()
                        .get(Head::BYTES..)
                        .unwrap_or_default()
                        .to_vec(),
                    None => return Err(spoiled("a record went while it was touched")),
                };
                let mut place = self
                    .records
                    .insert_reserve(key.as_slice(), Head::BYTES + value.len())?;
                fill(place.as_mut(), known.head, &value);
                Some(*known)
            }
            After::Absent => {
                self.records.remove(key.as_slice())?;
                None
            }
        };
        let Some(Known { head, value_bytes }) = after.filter(|after| after.head.end_ms > 0) else {
            return Ok(());
        };
        self.expiries.insert(
            layout::expiry(prefix, head.end_ms, &change.suffix).as_slice(),
            (),
        )?;
        if change.table.metered() {
            let path = layout::parse(&change.suffix).map_or(&[][..], |(_, _, path)| path);
            self.adjust(prefix, state.generation, head.end_ms, |entries, bytes| {
                (entries + 1, bytes + charge(path, value_bytes))
            })?;
        }
        Ok(())
    }

    /// Takes a record out of its bucket and its expiry away.
    fn unschedule(
        &mut self,
        prefix: &[u8],
        state: &State,
        suffix: &[u8],
        before: Known,
    ) -> Result<()> {
        let end_ms = before.head.end_ms;
        if end_ms == 0 {
            return Ok(());
        }
        self.expiries
            .remove(layout::expiry(prefix, end_ms, suffix).as_slice())?;
        let Some((table, generation, path)) = layout::parse(suffix) else {
            return Ok(());
        };
        if state.counts(table, end_ms) && !state.past(generation) {
            let cost = charge(path, before.value_bytes);
            self.adjust(prefix, state.generation, end_ms, |entries, bytes| {
                (entries.saturating_sub(1), bytes.saturating_sub(cost))
            })?;
        }
        Ok(())
    }

    fn adjust(
        &mut self,
        prefix: &[u8],
        generation: u64,
        end_ms: u64,
        change: impl FnOnce(u64, u64) -> (u64, u64),
    ) -> Result<()> {
        let key = layout::bucket(prefix, generation, end_ms);
        let (entries, bytes) = self
            .buckets
            .get(key.as_slice())?
            .map_or((0, 0), |row| row.value());
        let (entries, bytes) = change(entries, bytes);
        if entries == 0 {
            self.buckets.remove(key.as_slice())?;
        } else {
            self.buckets.insert(key.as_slice(), (entries, bytes))?;
        }
        Ok(())
    }
}

/// More versions of a space than a crash can have lost, which are a second's.
const LOST_VERSIONS: u64 = 1 << 20;

/// Moves the meters of a space on to a moment before which so many bytes were held.
fn record_move(
    openings: &mut Bytewise<'_, &'static [u8]>,
    prefix: &[u8],
    state: &mut State,
    held_bytes: u64,
    at_ms: u64,
) -> Result<()> {
    for (unit, opening) in state.advance(held_bytes, at_ms) {
        openings.insert(
            metering::place(prefix, unit, opening.start_ms).as_slice(),
            metering::encode_opening(&opening).as_slice(),
        )?;
    }
    Ok(())
}

/// A space's state; that of a space never written where there is none.
pub(super) fn read_state(
    spaces: &impl ReadableTable<&'static [u8], &'static [u8]>,
    space: &Space,
) -> Result<State> {
    match spaces.get(space.name().as_bytes())? {
        None => Ok(State::default()),
        Some(stored) => State::decode(stored.value())
            .ok_or_else(|| Fault::Damaged(format!("the state of space {}", space.name()))),
    }
}

/// The head and the value of what is stored.
pub(super) fn split(stored: &[u8]) -> Result<(Head, &[u8])> {
    Head::split(stored).ok_or_else(|| Fault::Damaged("the head of a record".into()))
}

fn known(stored: &[u8]) -> Result<Known> {
    let (head, value) = split(stored)?;
    Ok(Known {
        head,
        value_bytes: value.len(),
    })
}

fn spoiled(what: &str) -> Fault {
    Fault::Disk(redb::Error::Corrupted(what.into()))
}

fn fill(place: &mut [u8], head: Head, value: &[u8]) {
    if let Some((before, rest)) = place.split_at_mut_checked(Head::BYTES) {
        before.copy_from_slice(&head.encode());
        rest.copy_from_slice(value);
    }
}
