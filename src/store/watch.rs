//! Telling of later changes of records that were read, and for how long the
//! absence of news may be taken for news. It does not know what is kept of them.

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Read, Table};

/// How old a record may be that a [`Vouch`] is held for: whatever was
/// acknowledged longer ago has been told.
pub const STALENESS: Duration = Duration::from_millis(500);

/// Whoever keeps records that were read with
/// [`Store::read_watched`](super::Store::read_watched).
pub trait Watcher: Send + Sync + 'static {
    /// This record was changed or removed, or may have been. Told also of records
    /// that nobody read, and by any thread; must neither block nor fail.
    fn changed(&self, space: &str, generation: u64, table: Table, path: &[u8]);
}

/// What [`Store::read_watched`](super::Store::read_watched) saw.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The records, and the view.
    pub read: Read,
    /// The promise to tell of every later change of these records; `None` where
    /// the store cannot make it now. The view alone is not watched.
    pub vouch: Option<Vouch>,
}

/// Where changes are told, as its teller keeps it: one for each connection that
/// tells of them.
#[derive(Debug, Default)]
pub struct Watch {
    /// Grows when what was promised until now is not kept any more.
    term: AtomicU64,
    /// Microseconds after [`BEGINNING`] until which every change that was
    /// acknowledged [`STALENESS`] ago has been told.
    until_us: AtomicU64,
}

/// By a clock that goes on while the process is stopped.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Watch {
    /// A promise on what is read from now on; `None` while none can be made.
    pub fn vouch(self: &Arc<Self>) -> Option<Vouch> {
        let vouch = Vouch {
            term: self.term.load(Ordering::SeqCst),
            watch: self.clone(),
        };
        vouch.holds(Instant::now()).then_some(vouch)
    }

    /// Notes that all that was acknowledged before `proven` has been told.
    pub fn prove(&self, proven: Instant) {
        let until = proven + STALENESS;
        self.until_us.store(micros(until), Ordering::SeqCst);
    }

    /// Takes back every promise: something may not have been told.
    pub fn break_off(&self) {
        self.term.fetch_add(1, Ordering::SeqCst);
        self.until_us.store(0, Ordering::SeqCst);
    }

    /// Promises without end: changes are told before they are acknowledged.
    pub fn always() -> Self {
        let watch = Self::default();
        watch.renew();
        watch
    }

    /// Promises without end again, on what is read from now on.
    pub fn renew(&self) {
        self.until_us.store(u64::MAX, Ordering::SeqCst);
    }
}

fn micros(moment: Instant) -> u64 {
    let since = moment.saturating_duration_since(*BEGINNING);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A promise that changes of what was read are told.
#[derive(Clone)]
pub struct Vouch {
    watch: Arc<Watch>,
    term: u64,
}

impl Vouch {
    /// Whether what was read is, at this moment, at most [`STALENESS`] behind what
    /// was acknowledged, but for what its watcher was told.
    pub fn holds(&self, now: Instant) -> bool {
        self.holds_within(now, STALENESS)
    }

    /// The same, for whoever wants to be no further behind than this; no more than
    /// [`STALENESS`] is allowed.
    pub fn holds_within(&self, now: Instant, behind: Duration) -> bool {
        // What is proven until now holds for STALENESS from when it was.
        let proven = now + STALENESS.saturating_sub(behind);
        // The term is read last: what broke it off has taken the time back, too.
        micros(proven) < self.watch.until_us.load(Ordering::SeqCst)
            && self.term == self.watch.term.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Vouch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vouch")
            .field("term", &self.term)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_holds_while_it_is_proven_and_not_taken_back() {
        let watch = Arc::new(Watch::default());
        assert!(watch.vouch().is_none());
        let now = Instant::now();
        watch.prove(now);
        let vouch = watch.vouch().unwrap();
        assert!(vouch.holds(now));
        assert!(!vouch.holds(now + STALENESS));
        watch.prove(now + STALENESS);
        assert!(vouch.holds(now + STALENESS));
        watch.break_off();
        assert!(!vouch.holds(now) && watch.vouch().is_none());
        watch.prove(Instant::now());
        assert!(!vouch.holds(now));
        assert!(watch.vouch().unwrap().holds(now));
    }

    #[test]
    fn a_promise_without_end_can_be_taken_back() {
        let watch = Arc::new(Watch::always());
        let vouch = watch.vouch().unwrap();
        assert!(vouch.holds(Instant::now() + Duration::from_secs(1 << 20)));
        watch.break_off();
        assert!(!vouch.holds(Instant::now()) && watch.vouch().is_none());
        watch.renew();
        assert!(!vouch.holds(Instant::now()), "what was taken back stays so");
        assert!(watch.vouch().unwrap().holds(Instant::now()));
    }

    #[test]
    fn a_promise_is_as_old_as_its_proof() {
        let ms = Duration::from_millis;
        let watch = Arc::new(Watch::default());
        let proven = Instant::now();
        watch.prove(proven);
        let vouch = watch.vouch().unwrap();
        let later = proven + ms(100);
        assert!(vouch.holds_within(later, ms(101)) && !vouch.holds_within(later, ms(99)));
        let told = Arc::new(Watch::always()).vouch().unwrap();
        assert!(told.holds_within(later, Duration::ZERO), "told in time");
    }
}
