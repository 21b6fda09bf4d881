//! The history of announced commits in this process. It does not know what a
//! record means to whoever asks.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::super::{Changes, Key, Position};

/// How many keys are kept. Whoever asks ten times a second is behind by more
/// only after a burst; then it is told that some are lost.
const KEPT: usize = 16_384;

/// The most keys that one answer holds.
const ANSWERED: usize = 1_024;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

/// The history.
pub(super) struct History {
    /// Tells this history's positions from another store's.
    id: String,
    log: Mutex<Log>,
    grown: Notify,
}

#[derive(Default)]
struct Log {
    /// How many keys were announced before the first one kept.
    dropped: u64,
    keys: VecDeque<Key>,
}

impl History {
    pub(super) fn new() -> Self {
        let id = crate::random::BASE32.encode(&crate::random::bytes::<10>());
        Self {
            id,
            log: Mutex::default(),
            grown: Notify::new(),
        }
    }

    /// Appends the keys of a commit.
    pub(super) fn announce(&self, keys: impl IntoIterator<Item = Key>) {
        let mut log = self.log();
        let before = log.keys.len();
        log.keys.extend(keys);
        let grew = log.keys.len() > before;
        while log.keys.len() > KEPT {
            log.keys.pop_front();
            log.dropped += 1;
        }
        drop(log);
        if grew {
            self.grown.notify_waiters();
        }
    }

    /// Wakes everyone who waits.
    pub(super) fn wake(&self) {
        self.grown.notify_waiters();
    }

    /// Waits for keys after `position` and answers them.
    pub(super) async fn after(&self, position: Option<Position>) -> Changes {
        let Some(position) = position else {
            return self.now(false);
        };
        let mut grown = std::pin::pin!(self.grown.notified());
        grown.as_mut().enable();
        let first = self.since(&position);
        if first.lost || !first.keys.is_empty() {
            return first;
        }
        match tokio::time::timeout(PATIENCE, grown).await {
            Ok(()) => self.since(&position),
            Err(_) => first,
        }
    }

    fn since(&self, position: &Position) -> Changes {
        let log = self.log();
        let newest = log.dropped + log.keys.len() as u64;
        let from = self
            .read(position)
            .filter(|from| (log.dropped..=newest).contains(from));
        let Some(from) = from else {
            drop(log);
            return self.now(true);
        };
        let skipped = usize::try_from(from - log.dropped).unwrap_or(usize::MAX);
        let keys: Vec<Key> = log
            .keys
            .iter()
            .skip(skipped)
            .take(ANSWERED)
            .cloned()
            .collect();
        Changes {
            position: self.write(from + keys.len() as u64),
            keys,
            lost: false,
        }
    }

    fn now(&self, lost: bool) -> Changes {
        let log = self.log();
        Changes {
            position: self.write(log.dropped + log.keys.len() as u64),
            keys: Vec::new(),
            lost,
        }
    }

    fn write(&self, place: u64) -> Position {
        Position(format!("{}-{place}", self.id).into())
    }

    fn read(&self, position: &Position) -> Option<u64> {
        let (id, place) = position.0.split_once('-')?;
        (id == self.id).then(|| place.parse().ok())?
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::Table;

    fn key(number: usize) -> Key {
        Key::new(Table::Tenant, number.to_string())
    }

    #[tokio::test]
    async fn a_history_that_was_cut_says_so() {
        let history = History::new();
        let start = history.after(None).await.position;
        history.announce((0..KEPT + 1).map(key));
        let changes = history.after(Some(start)).await;
        assert!(changes.lost);
        assert!(changes.keys.is_empty());
        history.announce([key(1)]);
        let changes = history.after(Some(changes.position)).await;
        assert_eq!((changes.lost, changes.keys), (false, vec![key(1)]));
    }

    #[tokio::test]
    async fn many_changes_come_in_several_answers() {
        let history = History::new();
        let mut position = history.after(None).await.position;
        history.announce((0..3000).map(key));
        let mut seen = Vec::new();
        while seen.len() < 3000 {
            let changes = history.after(Some(position)).await;
            assert!(!changes.lost);
            seen.extend(changes.keys);
            position = changes.position;
        }
        assert_eq!(seen, (0..3000).map(key).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn another_stores_position_is_lost() {
        let position = History::new().after(None).await.position;
        assert!(History::new().after(Some(position)).await.lost);
    }
}
