//! Commits: a batch becomes the arguments of commit.lua. It does not know what
//! the script answers, which wire.rs reads, nor what travels with it.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};

use super::{
    Redis,
    fault::Fault,
    group::Asked,
    keys, log,
    state::State,
    wire::{self, Basis, Way},
};
use crate::store::{
    Action, Batch, Error, Key, MAX_NOTE_BYTES, Mode, Result, Space, Step, Table, Write, misuse,
};

impl Redis {
    /// Runs the commit script once.
    pub(super) async fn run(
        &self,
        space: &Space,
        batch: &Batch,
        basis: Basis,
        way: Way,
    ) -> std::result::Result<Bytes, Fault> {
        self.groups
            .run(space, asked(space, batch, basis, way))
            .await
    }

    /// Uncounts all that has ended, and tells the state then.
    pub(super) async fn reap(&self, space: &Space) -> Result<State> {
        loop {
            let answer = self
                .run(space, &Batch::default(), Basis::Any, Way::Reap)
                .await
                .map_err(Fault::of_read)?;
            let (state, more) = wire::reaped(&answer)?;
            if !more {
                return Ok(state);
            }
        }
    }
}

/// A batch, as the commit script takes it.
fn asked(space: &Space, batch: &Batch, basis: Basis, way: Way) -> Asked {
    let generation = basis.generation();
    let records = batch.writes.iter();
    let records = records.map(|write| keys::record(space, generation, &write.key));
    let mut all: Vec<Bytes> = records.collect();
    // Places among the keys are counted from the first counter.
    let add = |all: &mut Vec<Bytes>, key| {
        all.push(key);
        all.len() + keys::COUNTERS
    };
    let mut indexes = Table::ALL.map(|table| (table, 0));
    let mut changes = 0;
    let heard = *space == Space::registry();
    let mut options = BytesMut::with_capacity(wire::WRITE_BYTES * batch.writes.len());
    let mut puts = false;
    for write in &batch.writes {
        let table = write.key.table;
        let announced = heard && table.announced();
        if announced && changes == 0 {
            changes = add(&mut all, keys::changes());
        }
        let mut index = 0;
        if table.ordered()
            && let Some((_, known)) = indexes.iter_mut().find(|(indexed, _)| *indexed == table)
        {
            if *known == 0 {
                *known = add(&mut all, keys::index(space, table));
                if table.passing() {
                    all.push(keys::index_ends(space, table));
                }
            }
            index = *known;
        }
        puts |= matches!(write.action, Action::Put { .. });
        wire::write(&mut options, write, index, announced);
    }
    // A space that is removed takes its log with it.
    let logs = batch.note.is_some() || batch.step == Some(Step::Remove);
    let log = if logs {
        add(&mut all, keys::log(space))
    } else {
        0
    };
    let note = batch
        .note
        .as_ref()
        .map_or_else(Vec::new, |note| log::marked(note));
    let mut args = Vec::with_capacity(1 + 2 * batch.writes.len());
    args.push(wire::batch(batch, basis, way, (changes, log), &note));
    let mut options = options.freeze();
    for write in &batch.writes {
        args.push(options.split_to(wire::WRITE_BYTES));
        args.push(match &write.action {
            Action::Put { value, .. } => value.clone(),
            _ => Bytes::new(),
        });
    }
    Asked {
        keys: all,
        args,
        puts,
    }
}

/// Breaks of the port's contract that would break the counters.
pub(super) fn check(batch: &Batch) -> Result<()> {
    let misuse = |words: String| Err(Error::Misuse(words));
    misuse::writes(batch)?;
    if let Some(note) = &batch.note
        && note.len() > MAX_NOTE_BYTES
    {
        return misuse(format!(
            "a note of {} bytes; at most {MAX_NOTE_BYTES}",
            note.len()
        ));
    }
    if let Some(Step::Inherit(inheritance)) = &batch.step {
        misuse::inheritance(batch, inheritance)?;
    }
    let mut seen = HashSet::new();
    for Write {
        key: Key { table, path },
        action,
        ..
    } in &batch.writes
    {
        if let Action::Put { expiry, .. } | Action::Touch(expiry) = action
            && let Some((0, _)) = expiry.spans_ms()
        {
            return misuse("an expiry after no time; at least 1 ms".into());
        }
        if path.is_empty() {
            return misuse("a key without a path".into());
        }
        if matches!(action, Action::Renew | Action::Take) && batch.mode != Mode::Whole {
            return misuse("a record is shown by a batch that is applied whole".into());
        }
        if batch.mode == Mode::Whole && batch.writes.len() > 1 && !seen.insert((table, path)) {
            return misuse("a key is written twice in one batch".into());
        }
    }
    Ok(())
}
