//! What waits to be kept: a bounded queue between the calls and the one who writes to
//! the store. It does not know how what it holds is chained.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Notify, oneshot},
    time::timeout_at,
};

use super::{Event, Facts, Head, LOST, chain::Chain, fold::Folds};
use crate::config::{self, Live};

/// Events that wait while the store cannot be written; more are lost, and counted.
const ROOM: usize = 10_000;

/// Kinds of denied calls that are told apart at a time.
const DENIED: usize = 64;

/// Kinds of other calls, likewise; these are made with valid keys.
const ROUTINE: usize = 10_000;

/// The log of a replica. Cheap to clone.
#[derive(Clone)]
pub struct Log(pub(super) Arc<Inner>);

pub(super) struct Inner {
    settings: Live<config::Audit>,
    began: Instant,
    /// The store's clock when `began` was, in ms since 1970.
    base_ms: AtomicU64,
    waiting: Mutex<Waiting>,
    /// Told when there is something to write.
    pub(super) woken: Notify,
    kept: AtomicU64,
    lost: AtomicU64,
    /// Held by whoever writes.
    pub(super) chain: tokio::sync::Mutex<Chain>,
    /// Where the chain ends in the store, as it acknowledged.
    pub(super) head: Mutex<Option<Head>>,
}

struct Waiting {
    queue: VecDeque<Pending>,
    denied: Folds,
    routine: Folds,
    /// Events that there was no room for, and that are not told yet.
    lost: u64,
}

/// An event that is not in the store yet.
pub(super) struct Pending {
    pub(super) facts: Facts,
    /// Who waits until it is.
    pub(super) awaited: Option<oneshot::Sender<()>>,
}

/// How an event is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It is an event of its own.
    Each,
    /// Likewise, and somebody waits until it is kept.
    Awaited,
    /// It is folded with those like it: the call was denied, and whoever made it may
    /// make a million.
    Denied,
    /// It is folded with those like it: the call is one of many that may be made.
    Routine,
}

/// How many events became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// They are in the store.
    pub kept: u64,
    /// There was no room for them while the store could not be written.
    pub lost: u64,
}

/// Resolves when an event is kept.
#[derive(Debug)]
pub struct Kept(oneshot::Receiver<()>);

impl Kept {
    /// Waits until it is kept, at most until then; whether it is.
    pub async fn until(self, deadline: tokio::time::Instant) -> bool {
        matches!(timeout_at(deadline, self.0).await, Ok(Ok(())))
    }
}

impl Log {
    /// The log of the replica of this name.
    pub fn new(replica: &str, settings: Live<config::Audit>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        Self(Arc::new(Inner {
            settings,
            began: Instant::now(),
            base_ms: now_ms.into(),
            waiting: Mutex::new(Waiting {
                queue: VecDeque::new(),
                denied: Folds::new(DENIED),
                routine: Folds::new(ROUTINE),
                lost: 0,
            }),
            woken: Notify::new(),
            kept: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            chain: Chain::new(replica.to_owned()).into(),
            head: Mutex::new(None),
        }))
    }

    /// Takes an event in. Does not wait, and takes no trip; what it answers can be
    /// waited for, where that was asked for.
    pub fn append(&self, event: &Event<'_>, manner: Manner) -> Option<Kept> {
        if !self.settings().enabled {
            return None;
        }
        let facts = Facts {
            time_ms: self.now_ms(),
            actor: event.actor.to_owned(),
            rpc: event.rpc.to_owned(),
            tenant_id: event.tenant_id.to_owned(),
            outcome: event.outcome.to_owned(),
            request_id: event.request_id.to_owned(),
            peer: event.peer.map_or_else(String::new, |peer| peer.to_string()),
            count: 1,
        };
        let (mut awaited, mut kept) = (None, None);
        let mut waiting = lock(&self.0.waiting);
        let facts = match manner {
            Manner::Each => Some(facts),
            Manner::Awaited => {
                let (sender, receiver) = oneshot::channel();
                (awaited, kept) = (Some(sender), Some(Kept(receiver)));
                Some(facts)
            }
            Manner::Denied => waiting.denied.fold(facts),
            Manner::Routine => waiting.routine.fold(facts),
        };
        // Where it was folded, there is nothing to write until its span is over.
        let facts = facts?;
        self.push(&mut waiting, Pending { facts, awaited });
        drop(waiting);
        self.0.woken.notify_one();
        kept
    }

    fn push(&self, waiting: &mut Waiting, pending: Pending) {
        if waiting.queue.len() >= ROOM {
            waiting.lost += 1;
            let lost = self.0.lost.fetch_add(1, Ordering::Relaxed);
            if lost.is_power_of_two() || lost == 0 {
                tracing::error!(
                    lost = lost + 1,
                    "audit events lost: the store cannot be written"
                );
            }
            return;
        }
        waiting.queue.push_back(pending);
    }

    /// Takes the oldest of what waits, at most so many.
    pub(super) fn take(&self, most: usize) -> Vec<Pending> {
        let now_ms = self.now_ms();
        let mut waiting = lock(&self.0.waiting);
        let mut due = waiting.denied.due(now_ms);
        due.extend(waiting.routine.due(now_ms));
        self.extend(&mut waiting, due);
        let taken = waiting.queue.len().min(most);
        let mut taken: Vec<_> = waiting.queue.drain(..taken).collect();
        if waiting.queue.is_empty() && waiting.lost > 0 {
            let facts = Facts {
                time_ms: now_ms,
                outcome: LOST.to_owned(),
                count: std::mem::take(&mut waiting.lost),
                ..Facts::default()
            };
            let awaited = None;
            taken.push(Pending { facts, awaited });
        }
        taken
    }

    fn extend(&self, waiting: &mut Waiting, facts: Vec<Facts>) {
        for facts in facts {
            let awaited = None;
            self.push(waiting, Pending { facts, awaited });
        }
    }

    /// Lets what is being folded be written now.
    pub(super) fn unfold(&self) {
        let mut waiting = lock(&self.0.waiting);
        let mut due = waiting.denied.due(u64::MAX);
        due.extend(waiting.routine.due(u64::MAX));
        self.extend(&mut waiting, due);
    }

    /// Whether something is being folded.
    pub(super) fn folds(&self) -> bool {
        let waiting = lock(&self.0.waiting);
        waiting.denied.is_open() || waiting.routine.is_open()
    }

    /// How many events became what.
    pub fn counts(&self) -> Counts {
        Counts {
            kept: self.0.kept.load(Ordering::Relaxed),
            lost: self.0.lost.load(Ordering::Relaxed),
        }
    }

    pub(super) fn count_kept(&self, events: usize) {
        self.0.kept.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// Gives up what still waits; how many events that were.
    pub(super) fn give_up(&self) -> usize {
        let taken = self.take(usize::MAX).len();
        self.0.lost.fetch_add(taken as u64, Ordering::Relaxed);
        taken
    }

    /// How it is set up now.
    pub(super) fn settings(&self) -> Arc<config::Audit> {
        self.0.settings.load_full()
    }

    /// The store's clock, as it was last told.
    pub(super) fn now_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0
            .base_ms
            .load(Ordering::Relaxed)
            .saturating_add(elapsed)
    }

    /// Tells it the store's clock.
    pub(super) fn set_clock(&self, now_ms: u64) {
        let elapsed = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let base_ms = now_ms.saturating_sub(elapsed);
        self.0.base_ms.store(base_ms, Ordering::Relaxed);
    }

    /// Where its chain ends in the store; `None` where it has not begun.
    pub(super) fn head(&self) -> Option<Head> {
        lock(&self.0.head).clone()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Queues are whole whoever panicked while holding them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(enabled: bool) -> Log {
        let settings = config::Audit {
            enabled,
            ..config::Audit::OFF
        };
        Log::new("r", settings.into())
    }

    const EVENT: Event<'static> = Event {
        actor: "admin",
        rpc: "CreateTenant",
        tenant_id: "acme",
        outcome: "OK",
        request_id: "id",
        peer: None,
    };

    #[test]
    fn what_there_is_no_room_for_is_told_as_one_event_behind_the_rest() {
        let log = log(true);
        for _ in 0..ROOM + 7 {
            assert!(log.append(&EVENT, Manner::Each).is_none());
        }
        assert_eq!(log.counts(), Counts { kept: 0, lost: 7 });
        let taken = log.take(ROOM - 1);
        assert!(taken.iter().all(|pending| pending.facts.rpc == EVENT.rpc));
        let rest = log.take(60);
        let told: Vec<_> = rest
            .iter()
            .map(|pending| (&*pending.facts.outcome, pending.facts.count))
            .collect();
        assert_eq!(told, [("OK", 1), (LOST, 7)]);
        assert!(log.take(60).is_empty());
    }

    #[test]
    fn folded_calls_wait_for_the_end_of_their_span() {
        let log = log(true);
        for _ in 0..9 {
            log.append(&EVENT, Manner::Denied);
        }
        assert_eq!(log.take(60).len(), 1);
        assert!(log.folds());
        log.unfold();
        let rest = log.take(60);
        assert_eq!(rest.len(), 1);
        assert!(rest.iter().all(|pending| pending.facts.count == 8));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_log_that_is_off() {
        assert!(log(false).append(&EVENT, Manner::Awaited).is_none());
        let kept = log(true).append(&EVENT, Manner::Awaited);
        // The log is gone, and with it whoever would keep it.
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        assert!(!kept.unwrap().until(deadline).await);
    }
}
