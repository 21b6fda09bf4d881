//! Decides a batch: what it changes, or why it is refused. It writes nothing
//! itself and does not know where records lie.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{
    super::{
        Action, Batch, Check, Expiry, Key, Limits, MAX_EXPIRE_MS, MAX_NOTE_BYTES, Metric, Mode,
        Outcome, Record, Refusal, Renewal, Step, Table, Usage, View, Write, bucket_ms, charge,
        misuse, space::ERA_EPOCHS,
    },
    fault::{Fault, Result},
    layout::{self, Head},
    state::State,
};

/// What a record is before or after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) head: Head,
    pub(super) value_bytes: usize,
}

/// One record's change.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) table: Table,
    /// Where the record lies in its space.
    pub(super) suffix: Vec<u8>,
    /// What is stored before, alive or not.
    pub(super) before: Option<Known>,
    pub(super) after: After,
}

/// What a record becomes.
#[derive(Debug)]
pub(super) enum After {
    Put(Head, Bytes),
    Touched(Known),
    Absent,
}

/// A batch that can be applied.
pub(super) struct Plan {
    /// The space's state after it.
    pub(super) state: State,
    pub(super) changes: Vec<Change>,
    pub(super) outcomes: Vec<Outcome>,
    /// What the space counts after the changes and before the step.
    pub(super) usage: Usage,
    /// The announced keys that changed.
    pub(super) announced: Vec<Key>,
}

/// The decision on a batch.
pub(super) enum Decision {
    Apply(Box<Plan>),
    Refuse(Refusal),
}

/// Refuses a batch that breaks the port's contract, whatever is stored.
pub(super) fn examine(batch: &Batch) -> Result<()> {
    misuse::writes(batch).map_err(|error| Fault::Misuse(error.to_string()))?;
    if let Some(note) = &batch.note
        && note.len() > MAX_NOTE_BYTES
    {
        return Err(Fault::Misuse(format!(
            "a note of {} bytes; at most {MAX_NOTE_BYTES}",
            note.len()
        )));
    }
    if let Some(Step::Inherit(inheritance)) = &batch.step {
        misuse::inheritance(batch, inheritance)
            .map_err(|error| Fault::Misuse(error.to_string()))?;
    }
    let mut keys = HashSet::with_capacity(batch.writes.len());
    for write in &batch.writes {
        if write.key.path.is_empty() {
            return Err(Fault::Misuse("a path is empty".into()));
        }
        if matches!(write.action, Action::Renew | Action::Take) && batch.mode != Mode::Whole {
            return Err(Fault::Misuse(
                "a record is shown by a batch that is applied whole".into(),
            ));
        }
        let (Action::Put { expiry, .. } | Action::Touch(expiry)) = &write.action else {
            continue;
        };
        if let Some((0, _)) = expiry.spans_ms() {
            return Err(Fault::Misuse("an expiry is not at least 1 ms away".into()));
        }
    }
    if batch.mode == Mode::Whole
        && batch.writes.len() > 1
        && !batch
            .writes
            .iter()
            .all(|write| keys.insert((write.key.table, &write.key.path)))
    {
        return Err(Fault::Misuse(
            "a batch that is applied whole names a key twice".into(),
        ));
    }
    Ok(())
}

/// Decides a batch on a space whose due buckets are reaped. `stored` tells what
/// is stored at a suffix, and `value` its value.
pub(super) fn decide(
    state: State,
    batch: &Batch,
    now_ms: u64,
    stored: impl Fn(&[u8]) -> Result<Option<Known>>,
    value: impl Fn(&[u8]) -> Result<Bytes>,
) -> Result<Decision> {
    if state.gone_ms > 0 {
        return Ok(Decision::Refuse(Refusal::Gone));
    }
    if state.fenced_ms > 0 && batch.step != Some(Step::Remove) {
        return Ok(Decision::Refuse(Refusal::Fenced));
    }
    let now = state.view();
    let passed = |view: View| {
        view.generation != now.generation
            || view.epoch > now.epoch
            || (view.epoch < now.epoch && !(batch.later && view.era() == now.era()))
    };
    if batch.view.is_some_and(passed) {
        return Ok(Decision::Refuse(Refusal::Stale(state.view())));
    }
    let mut attempt = Attempt {
        state,
        now_ms,
        changes: Vec::new(),
        announced: Vec::new(),
        written: HashMap::new(),
    };
    let mut outcomes = Vec::with_capacity(batch.writes.len());
    for (place, write) in batch.writes.iter().enumerate() {
        let limits = (batch.mode == Mode::Each).then_some(&batch.limits);
        let outcome = attempt.write(place, write, limits, &stored, &value)?;
        match outcome {
            Outcome::Refused(refusal) if batch.mode == Mode::Whole => {
                return Ok(Decision::Refuse(refusal));
            }
            outcome => outcomes.push(outcome),
        }
    }
    if batch.mode == Mode::Whole
        && let Some(refusal) = exceeded(&state, &attempt.state, &batch.limits)
    {
        return Ok(Decision::Refuse(refusal));
    }
    let Attempt {
        mut state,
        changes,
        announced,
        ..
    } = attempt;
    let usage = state.usage();
    if let Some(step) = &batch.step {
        take(&mut state, step, now_ms);
    }
    state.epoch = state.epoch.max(1);
    let usage = if batch.step.is_some() {
        usage
    } else {
        state.usage()
    };
    Ok(Decision::Apply(Box::new(Plan {
        state,
        changes,
        outcomes,
        usage,
        announced,
    })))
}

fn take(state: &mut State, step: &Step, now_ms: u64) {
    match step {
        Step::Fence => {
            state.fenced_ms = now_ms.max(1);
            return;
        }
        Step::Inherit(inheritance) => {
            state.sequence = state.sequence.max(inheritance.version);
            return;
        }
        Step::Epoch => {
            state.epoch += 1;
            return;
        }
        Step::Era => {
            state.epoch += 1;
            state.epoch = state.epoch.next_multiple_of(ERA_EPOCHS);
            return;
        }
        Step::Generation | Step::Remove => {}
    }
    state.epoch += 1;
    state.generation += 1;
    state.orphaned += state.bytes;
    state.orphans_watermark = state.watermark;
    state.entries = 0;
    state.bytes = 0;
    state.due = 0;
    if *step == Step::Remove {
        state.gone_ms = now_ms.max(1);
    }
}

/// Whether going from one state to the other passes a limit.
fn exceeded(before: &State, after: &State, limits: &Limits) -> Option<Refusal> {
    if let Some(limit) = limits.entries
        && after.entries > before.entries
        && after.entries > limit
    {
        return Some(Refusal::Exceeded {
            metric: Metric::Entries,
            limit,
            used: before.entries,
        });
    }
    if let Some(limit) = limits.bytes
        && after.bytes > before.bytes
    {
        let all = after.bytes.saturating_add(after.orphaned);
        let metric = if after.bytes > limit {
            Metric::Bytes
        } else if all > limit.saturating_add(limit / 2) {
            Metric::Flushed
        } else {
            return None;
        };
        return Some(Refusal::Exceeded {
            metric,
            limit,
            used: before.bytes,
        });
    }
    None
}

/// A batch as far as it is decided.
struct Attempt {
    state: State,
    now_ms: u64,
    changes: Vec<Change>,
    announced: Vec<Key>,
    /// What was written before in the same batch, by suffix.
    written: HashMap<Vec<u8>, Option<Known>>,
}

impl Attempt {
    fn write(
        &mut self,
        place: usize,
        write: &Write,
        limits: Option<&Limits>,
        stored: impl Fn(&[u8]) -> Result<Option<Known>>,
        value: impl Fn(&[u8]) -> Result<Bytes>,
    ) -> Result<Outcome> {
        let table = write.key.table;
        let suffix = layout::suffix(&write.key, self.state.generation);
        let before = match self.written.get(&suffix) {
            Some(known) => *known,
            None => stored(&suffix)?,
        };
        let mut alive = before
            .filter(|known| known.head.alive(self.now_ms) && known.head.version > write.floor);
        let (mut shown, mut renewed) = (None, Expiry::Never);
        let shows = matches!(write.action, Action::Renew | Action::Take);
        if shows && alive.is_some() {
            let value = value(&suffix)?;
            if matches!(write.action, Action::Renew) {
                let renewal = Renewal::decode(&value);
                let renewal = renewal
                    .ok_or_else(|| Fault::Damaged("a record that is to be renewed".into()))?;
                match renewal.after_ms(self.now_ms) {
                    Some(after_ms) => renewed = Expiry::AfterMs(after_ms),
                    None => alive = None,
                }
            }
            shown = Some(value);
        }
        let found = alive.map(|known| known.head.version);
        let holds = match write.check {
            Check::Any => true,
            Check::Absent => found.is_none(),
            Check::Present => found.is_some(),
            Check::Version(version) => found == Some(version),
        };
        if !holds {
            return Ok(Outcome::Refused(Refusal::Conflict {
                write: place,
                found,
            }));
        }
        let existed = alive.is_some();
        let mut state = self.state;
        let (after, now) = match (&write.action, alive) {
            (Action::Put { value, expiry }, _) => {
                state.sequence += 1;
                let head = self.head(state.sequence, *expiry);
                (
                    After::Put(head, value.clone()),
                    Some(Known {
                        head,
                        value_bytes: value.len(),
                    }),
                )
            }
            (Action::Touch(expiry), Some(known)) => {
                touched(self.head(known.head.version, *expiry), known)
            }
            (Action::Renew, Some(known)) => touched(self.head(known.head.version, renewed), known),
            (Action::Delete | Action::Take, _) if before.is_some() => (After::Absent, None),
            _ if shows => return Ok(Outcome::Shown(None)),
            _ => return Ok(done(existed, alive)),
        };
        let cost = |known: &Known| charge(&write.key.path, known.value_bytes);
        if let Some(known) = &before
            && state.counts(table, known.head.end_ms)
        {
            state.entries = state.entries.saturating_sub(1);
            state.bytes = state.bytes.saturating_sub(cost(known));
            if !known.head.alive(self.now_ms) {
                state.expired = state.expired.saturating_add(1);
            }
        }
        if let Some(known) = &now
            && table.metered()
        {
            state.entries += 1;
            state.bytes += cost(known);
            state.falls_due(known.head.end_ms);
        }
        if let Some(limits) = limits
            && let Some(refusal) = exceeded(&self.state, &state, limits)
        {
            return Ok(Outcome::Refused(refusal));
        }
        self.state = state;
        if table.announced() {
            self.announced.push(write.key.clone());
        }
        self.written.insert(suffix.clone(), now);
        self.changes.push(Change {
            table,
            suffix,
            before,
            after,
        });
        Ok(match now.or(alive) {
            _ if !shows => done(existed, now),
            told => Outcome::Shown(told.zip(shown).map(|(known, value)| Record {
                version: known.head.version,
                expire_ms: known.head.expires(),
                value,
            })),
        })
    }

    fn head(&self, version: u64, expiry: Expiry) -> Head {
        let Some((ttl_ms, linger_ms)) = expiry.spans_ms() else {
            return Head {
                version,
                expire_ms: 0,
                end_ms: 0,
            };
        };
        let expire_ms = self.now_ms.saturating_add(ttl_ms).min(MAX_EXPIRE_MS);
        let kept_ms = ttl_ms.saturating_add(linger_ms);
        let leaves_ms = self.now_ms.saturating_add(kept_ms).min(MAX_EXPIRE_MS);
        let end_ms = leaves_ms.next_multiple_of(bucket_ms(kept_ms));
        Head {
            version,
            expire_ms,
            end_ms,
        }
    }
}

fn touched(head: Head, known: Known) -> (After, Option<Known>) {
    let touched = Known { head, ..known };
    (After::Touched(touched), Some(touched))
}

fn done(existed: bool, now: Option<Known>) -> Outcome {
    Outcome::Done {
        existed,
        version: now.map_or(0, |known| known.head.version),
        expire_ms: now.and_then(|known| known.head.expires()),
    }
}
