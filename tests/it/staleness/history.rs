//! What was acknowledged of each key and when, and how old a read is by that. It
//! does not know who wrote, or how it is read.

use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, Instant},
};

/// What a read may not be older than.
pub const STALENESS: Duration = Duration::from_millis(500);
/// How long what was replaced is remembered: longer than a read may take.
const REMEMBERED: Duration = Duration::from_secs(15);

/// What the one writer of a key did, and what came of it.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// It has this version, since this was acknowledged.
    Set(i64, Instant),
    /// It is gone with all versions until this one: begun, and acknowledged then.
    Gone(i64, Option<Instant>),
}

/// The deeds of a key's writer, oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<Deed>);

impl History {
    /// It was given this version.
    pub fn set(&mut self, version: i64, acknowledged: Instant) {
        self.0.push_back(Deed::Set(version, acknowledged));
        let old = |deed: &Deed| match deed {
            Deed::Set(_, at) | Deed::Gone(_, Some(at)) => at.elapsed() > REMEMBERED,
            Deed::Gone(_, None) => false,
        };
        // The first to be remembered is what was true then.
        while self.0.get(1).is_some_and(old) {
            self.0.pop_front();
        }
    }

    /// It is about to go, whatever version it has.
    pub fn goes(&mut self) {
        self.0.push_back(Deed::Gone(i64::MAX, None));
    }

    /// What was about to go is gone. Whatever is set from now on is newer than any
    /// version it had.
    pub fn gone(&mut self, acknowledged: Instant) {
        let last = self.0.iter().rev().find_map(|deed| match deed {
            Deed::Set(version, _) => Some(*version),
            Deed::Gone(..) => None,
        });
        if let Some(gone @ Deed::Gone(_, None)) = self.0.back_mut() {
            *gone = Deed::Gone(last.unwrap_or(0), Some(acknowledged));
        }
    }

    /// How long before a read began it was acknowledged that what it saw is no more:
    /// nothing where it was the newest.
    pub fn age(&self, seen: Option<i64>, began: Instant) -> Duration {
        let mut since = None;
        for deed in self.0.iter().rev() {
            match (seen, deed) {
                (Some(seen), Deed::Set(version, at)) if *version > seen => since = Some(*at),
                (Some(seen), Deed::Gone(until, Some(at))) if *until >= seen => since = Some(*at),
                // It may be, or be not.
                (Some(_), Deed::Gone(_, None)) => {}
                (None, Deed::Set(_, at)) => since = Some(*at),
                _ => break,
            }
        }
        since.map_or(Duration::ZERO, |since| {
            began.saturating_duration_since(since)
        })
    }
}

/// A namespace: its keys, and what was done to each.
pub struct Namespace {
    pub name: String,
    pub keys: Vec<String>,
    histories: Vec<Mutex<History>>,
    written: Mutex<bool>,
    /// Until when all of it may go at any moment, by a flush that nobody answered.
    doomed: Mutex<Option<Instant>>,
}

impl Namespace {
    pub fn new(number: usize, keys: usize) -> Self {
        Self {
            name: format!("n{number}"),
            keys: (0..keys)
                .map(|key| format!("p{}/{key:03}", key % 5))
                .collect(),
            histories: (0..keys).map(|_| Mutex::default()).collect(),
            written: Mutex::new(true),
            doomed: Mutex::new(None),
        }
    }

    pub fn history<T>(&self, key: usize, with: impl FnOnce(&mut History) -> T) -> T {
        with(&mut self.histories[key].lock().unwrap())
    }

    pub fn each(&self, with: impl Fn(&mut History)) {
        for history in &self.histories {
            with(&mut history.lock().unwrap());
        }
    }

    /// Whether its writer is still there.
    pub fn is_written(&self) -> bool {
        *self.written.lock().unwrap()
    }

    pub fn leave(&self) {
        *self.written.lock().unwrap() = false;
    }

    pub fn doom(&self) {
        *self.doomed.lock().unwrap() = Some(Instant::now() + REMEMBERED);
    }

    pub fn is_doomed(&self) -> bool {
        let doomed = *self.doomed.lock().unwrap();
        doomed.is_some_and(|until| Instant::now() < until)
    }
}

#[test]
fn a_read_that_is_too_old_is_noticed() {
    let ms = Duration::from_millis;
    let start = Instant::now();
    let at = |after| start + ms(after);
    let mut history = History::default();
    assert_eq!(history.age(None, at(900)), ms(0), "nothing was written");
    history.set(5, at(0));
    history.set(7, at(100));
    assert_eq!(history.age(Some(7), at(900)), ms(0));
    assert_eq!(history.age(Some(9), at(900)), ms(0), "not acknowledged yet");
    assert_eq!(history.age(Some(5), at(900)), ms(800));
    assert_eq!(history.age(Some(5), at(50)), ms(0), "it began before");
    assert_eq!(history.age(None, at(900)), ms(900), "it was there since");
    history.goes();
    assert_eq!(history.age(None, at(900)), ms(0), "it may be gone");
    assert_eq!(history.age(Some(7), at(900)), ms(0), "it may be there");
    history.gone(at(200));
    assert_eq!(history.age(None, at(900)), ms(0));
    assert_eq!(history.age(Some(7), at(900)), ms(700));
    assert_eq!(history.age(Some(5), at(900)), ms(800));
    history.set(8, at(300));
    assert_eq!(history.age(Some(8), at(900)), ms(0));
    assert_eq!(history.age(None, at(900)), ms(600));
    assert_eq!(history.age(Some(7), at(900)), ms(700));
}
