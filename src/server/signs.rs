//! Signs of life of the threads that serve: when each gave its last one. It does not know
//! who is told where one is silent.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A thread gives a sign every second or two, whatever its store does; one that was silent
/// for so long does not come back to its work.
const SILENCE: Duration = Duration::from_secs(10);

/// When each thread gave its last sign.
#[derive(Debug)]
pub struct Signs {
    began: Instant,
    /// Milliseconds from the beginning to the last sign of each. Who has not started is
    /// taken to have given one at the beginning.
    last_ms: Vec<AtomicU64>,
}

impl Signs {
    /// Of so many threads.
    pub(super) fn new(threads: usize) -> Self {
        Self {
            began: Instant::now(),
            last_ms: (0..threads).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Of so many threads, none of which gave one for longer than it may.
    #[cfg(test)]
    pub(crate) fn of_stuck(threads: usize) -> Self {
        let mut signs = Self::new(threads);
        let silence = SILENCE + Duration::from_secs(1);
        // A machine that was started a moment ago knows no time before.
        signs.began = signs.began.checked_sub(silence).unwrap_or(signs.began);
        signs
    }

    /// A thread lives.
    pub(crate) fn give(&self, thread: usize) {
        if let Some(last) = self.last_ms.get(thread) {
            last.store(self.since_ms(Instant::now()), Ordering::Relaxed);
        }
    }

    /// Whether every thread gave a sign lately.
    pub fn all_live(&self) -> bool {
        self.all_live_at(Instant::now())
    }

    fn all_live_at(&self, now: Instant) -> bool {
        let now_ms = self.since_ms(now);
        let lives = |last: &AtomicU64| {
            let silent_ms = now_ms.saturating_sub(last.load(Ordering::Relaxed));
            u128::from(silent_ms) < SILENCE.as_millis()
        };
        self.last_ms.iter().all(lives)
    }

    fn since_ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silent_thread_is_enough() {
        let signs = Signs::new(3);
        assert!(signs.all_live(), "nobody has had time to be silent");
        let late = signs.began + SILENCE + Duration::from_secs(1);
        assert!(!signs.all_live_at(late), "nobody ever gave a sign");
        let at = |thread: usize, last: Duration| {
            let ms = u64::try_from(last.as_millis()).unwrap_or(u64::MAX);
            signs.last_ms[thread].store(ms, Ordering::Relaxed);
        };
        for thread in 0..3 {
            at(thread, SILENCE);
        }
        assert!(signs.all_live_at(late));
        at(1, Duration::ZERO);
        assert!(!signs.all_live_at(late));
        signs.give(7);
    }
}
