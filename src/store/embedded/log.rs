//! The logs of spaces, in this process. It does not know what the notes tell.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;

use super::super::{
    Batch, Commit, Error, LOG_BYTES, LOG_KEPT, LOG_NOTES, Noted, Notes, Position, Result, Space,
    Step,
};

/// Bytes of all logs, about; beyond it whole logs go, the one that was longest
/// without a note first.
const ALL_BYTES: usize = 8 * LOG_BYTES;

/// What a note takes beside its own bytes, about.
const NOTE_BYTES: usize = 64;

/// The logs.
#[derive(Default)]
pub(super) struct Logs(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    logs: HashMap<Space, Log>,
    bytes: usize,
}

/// One space's.
struct Log {
    /// Tells places of this log from those of one before.
    id: String,
    /// How many notes came before the first one kept.
    dropped: u64,
    notes: VecDeque<Bytes>,
    bytes: usize,
    last: Instant,
}

impl Log {
    fn new(now: Instant) -> Self {
        Self {
            id: crate::random::BASE32.encode(&crate::random::bytes::<10>()),
            dropped: 0,
            notes: VecDeque::new(),
            bytes: 0,
            last: now,
        }
    }

    fn position(&self, place: u64) -> Position {
        Position(format!("{}-{place}", self.id).into())
    }

    fn end(&self, lost: bool) -> Notes {
        Notes {
            position: self.position(self.dropped + self.notes.len() as u64),
            notes: Vec::new(),
            lost,
        }
    }

    /// The place in the log, where it reaches back to it.
    fn find(&self, position: &Position) -> Option<u64> {
        let (id, place) = position.0.split_once('-')?;
        let place = (id == self.id).then(|| place.parse().ok())??;
        (self.dropped..=self.dropped + self.notes.len() as u64)
            .contains(&place)
            .then_some(place)
    }

    fn drop_first(&mut self) -> usize {
        let freed = self
            .notes
            .pop_front()
            .map_or(0, |note| note.len() + NOTE_BYTES);
        self.dropped += 1;
        self.bytes -= freed;
        freed
    }
}

impl Logs {
    /// Appends what a commit carried, if it changed anything. Called in the order of
    /// the commits, once readers see them.
    pub(super) fn append(&self, space: &Space, batch: &Batch, commit: &Commit) {
        let Commit::Applied(applied) = commit else {
            return;
        };
        if batch.step == Some(Step::Remove) {
            self.kept().remove(space);
            return;
        }
        if let Some(note) = &batch.note
            && batch.changed(applied)
        {
            self.kept().append(space, note.clone(), Instant::now());
        }
    }

    /// See [`Store::notes`](super::super::Store::notes).
    pub(super) fn after(
        &self,
        space: &Space,
        position: Option<&Position>,
        limit: usize,
    ) -> Result<Notes> {
        if !(1..=1000).contains(&limit) {
            return Err(Error::Misuse("a piece of a log has 1 to 1000 notes".into()));
        }
        let mut kept = self.kept();
        let now = Instant::now();
        kept.expire(now);
        let log = kept
            .logs
            .entry(space.clone())
            .or_insert_with(|| Log::new(now));
        let Some(position) = position else {
            return Ok(log.end(false));
        };
        let Some(place) = log.find(position) else {
            return Ok(log.end(true));
        };
        let skipped = usize::try_from(place - log.dropped).unwrap_or(usize::MAX);
        let notes: Vec<Noted> = log
            .notes
            .iter()
            .skip(skipped)
            .take(limit)
            .zip(place + 1..)
            .map(|(note, place)| Noted {
                position: log.position(place),
                note: note.clone(),
            })
            .collect();
        Ok(Notes {
            position: notes
                .last()
                .map_or_else(|| position.clone(), |noted| noted.position.clone()),
            notes,
            lost: false,
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn append(&mut self, space: &Space, note: Bytes, now: Instant) {
        self.expire(now);
        let log = self
            .logs
            .entry(space.clone())
            .or_insert_with(|| Log::new(now));
        let bytes = note.len() + NOTE_BYTES;
        // A copy, so that it does not keep the whole message it came with.
        log.notes.push_back(Bytes::copy_from_slice(&note));
        log.bytes += bytes;
        log.last = now;
        self.bytes += bytes;
        if log.bytes > LOG_BYTES || log.notes.len() > LOG_NOTES {
            for _ in 0..log.notes.len() / 2 {
                self.bytes -= log.drop_first();
            }
        }
        while self.bytes > ALL_BYTES {
            let Some(oldest) = self.oldest() else { return };
            self.remove(&oldest);
        }
    }

    /// Drops the logs that had no note for long. There are few: those of tenants
    /// that are watched.
    fn expire(&mut self, now: Instant) {
        let old = |log: &Log| now.saturating_duration_since(log.last) > LOG_KEPT;
        let mut freed = 0;
        self.logs.retain(|_, log| {
            if old(log) {
                freed += log.bytes;
            }
            !old(log)
        });
        self.bytes -= freed;
    }

    fn oldest(&self) -> Option<Space> {
        let oldest = self.logs.iter().min_by_key(|(_, log)| log.last);
        oldest.map(|(space, _)| space.clone())
    }

    fn remove(&mut self, space: &Space) {
        if let Some(log) = self.logs.remove(space) {
            self.bytes -= log.bytes;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::Incarnation;

    fn space() -> Space {
        Space::tenant(Incarnation::random())
    }

    #[test]
    fn a_log_ends_an_hour_after_its_last_note() {
        let (mut kept, space, began) = (Kept::default(), space(), Instant::now());
        kept.append(&space, "a".into(), began);
        let id = |kept: &Kept| kept.logs.get(&space).map(|log| log.id.clone());
        let first = id(&kept);
        kept.expire(began + LOG_KEPT);
        assert_eq!(id(&kept), first);
        kept.append(&space, "b".into(), began + LOG_KEPT);
        kept.expire(began + LOG_KEPT * 2);
        assert_eq!(id(&kept), first);
        kept.expire(began + LOG_KEPT * 3);
        assert_eq!((id(&kept), kept.bytes), (None, 0));
    }

    #[test]
    fn all_logs_together_are_bounded_and_the_stalest_goes() {
        let mut kept = Kept::default();
        let (stale, busy) = (space(), space());
        let began = Instant::now();
        let note = Bytes::from(vec![b'n'; 4096]);
        kept.append(&stale, note.clone(), began);
        let enough = (3 * ALL_BYTES / note.len()) as u64;
        for number in 0..enough {
            let other = if number % 2 == 0 {
                busy.clone()
            } else {
                space()
            };
            kept.append(
                &other,
                note.clone(),
                began + std::time::Duration::from_micros(number + 1),
            );
            assert!(kept.bytes <= ALL_BYTES);
        }
        assert!(!kept.logs.contains_key(&stale));
        assert!(kept.logs.contains_key(&busy));
        let counted: usize = kept.logs.values().map(|log| log.bytes).sum();
        assert_eq!(counted, kept.bytes);
        assert!(kept.logs.values().all(|log| log.bytes <= LOG_BYTES));
    }
}
