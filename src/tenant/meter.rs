//! What a tenant's calls come to, counted in memory until it is flushed. It does
//! not know what is billed, nor when a flush comes.
//!
//! A call adds to the stripe of its thread: neither a lock nor memory is taken,
//! and no two cores write the same line. The first count after a flush puts the
//! account into the queue of those to be flushed, so that idle ones are never
//! looked at.

use std::{
    cell::Cell,
    sync::{
        LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    Period,
    account::{Account, Queue},
};

/// What one call came to. A write's operation and bytes are not here: its commit
/// meters them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// 1 for a call that read and was answered.
    pub operations: u64,
    /// Keys read and found.
    pub hits: u64,
    /// Those of them that this replica's own memory answered. Statistics tell them;
    /// they are metered as any hit.
    pub near_hits: u64,
    /// Keys read and not found.
    pub misses: u64,
    /// 1 for a call that was refused for a quota or a rate.
    pub throttled: u64,
    /// Bytes of keys and values the caller of a read sent.
    pub bytes_in: u64,
    /// Bytes of keys and values the caller was sent.
    pub bytes_out: u64,
    /// Bytes of keys and values the caller of a write sent. Its commit meters
    /// them; here they only count towards the quota of transfer.
    pub written: u64,
    /// Operations of a call that wrote. Its commit meters them; here they only count
    /// towards what is told of this replica.
    pub writes: u64,
}

impl Counts {
    /// Bytes carried in either direction, by reads and writes.
    pub fn transfer(&self) -> u64 {
        self.bytes_in
            .saturating_add(self.bytes_out)
            .saturating_add(self.written)
    }
}

/// The most stripes an account has: memory that an idle one takes, too.
const MAX_STRIPES: usize = 8;

/// As many stripes as cores, and a power of two.
static STRIPES: LazyLock<usize> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.next_power_of_two().min(MAX_STRIPES)
});

/// As many stripes as all accounts have.
pub(super) fn stripes() -> usize {
    *STRIPES
}

/// The counts of the threads that share a stripe: one line of a cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe {
    operations: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    throttled: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    written: AtomicU64,
    writes: AtomicU64,
}

impl Stripe {
    fn counters(&self) -> [&AtomicU64; 8] {
        [
            &self.operations,
            &self.hits,
            &self.misses,
            &self.throttled,
            &self.bytes_in,
            &self.bytes_out,
            &self.written,
            &self.writes,
        ]
    }
}

/// Amounts of the platform's own metrics, by name; those of one stripe.
type Consumed = Mutex<Vec<(Box<str>, u64)>>;

/// Names whose place is kept from one flush to the next.
const KEPT_NAMES: usize = 64;

/// What was counted since the last time it was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) counts: Counts,
    /// Amounts of the platform's own metrics; none is 0.
    pub(super) consumed: Vec<(Box<str>, u64)>,
}

impl Taken {
    pub(super) fn is_empty(&self) -> bool {
        self.counts == Counts::default() && self.consumed.is_empty()
    }
}

/// The counts of one tenant at one replica since the last flush.
#[derive(Debug)]
pub struct Meter {
    stripes: Box<[Stripe]>,
    /// Made at the first use: few tenants have metrics of their own.
    consumed: OnceLock<Box<[Consumed]>>,
    /// Whether it waits in the queue.
    queued: AtomicBool,
    account: Weak<Account>,
    queue: Weak<Queue>,
    transfer: Transfer,
}

impl Meter {
    /// The meter of an account, which puts itself into this queue when it counts.
    pub(super) fn new(account: Weak<Account>, queue: Weak<Queue>) -> Self {
        Self {
            stripes: (0..*STRIPES).map(|_| Stripe::default()).collect(),
            consumed: OnceLock::new(),
            queued: AtomicBool::new(false),
            account,
            queue,
            transfer: Transfer::default(),
        }
    }

    /// Counts a call. Takes neither a lock nor memory, but once a flush.
    pub fn count(&self, counts: Counts) {
        let Some(stripe) = self.stripes.get(place() & (self.stripes.len() - 1)) else {
            return;
        };
        let amounts = [
            counts.operations,
            counts.hits,
            counts.misses,
            counts.throttled,
            counts.bytes_in,
            counts.bytes_out,
            counts.written,
            counts.writes,
        ];
        for (counter, amount) in stripe.counters().into_iter().zip(amounts) {
            if amount > 0 {
                counter.fetch_add(amount, Ordering::SeqCst);
            }
        }
        self.enqueue();
    }

    /// Counts an amount of one of the platform's own metrics. Locks the stripe of
    /// this thread, which nobody else does but a flush; takes memory the first
    /// time that it sees the name.
    pub fn consume(&self, metric: &str, amount: u64) {
        if amount == 0 {
            return;
        }
        let stripes = self
            .consumed
            .get_or_init(|| (0..*STRIPES).map(|_| Consumed::default()).collect());
        let Some(stripe) = stripes.get(place() & (stripes.len() - 1)) else {
            return;
        };
        let mut consumed = lock(stripe);
        match consumed.iter_mut().find(|(name, _)| **name == *metric) {
            Some((_, sum)) => *sum = sum.saturating_add(amount),
            None => consumed.push((metric.into(), amount)),
        }
        drop(consumed);
        self.enqueue();
    }

    /// Bytes transferred in a period by all replicas, as far as this one knows:
    /// what the last flush learnt, and what was counted here since. `None` where
    /// nothing is known of the period yet.
    pub fn transferred(&self, period: Period) -> Option<u64> {
        let known = self.transfer.of(period)?;
        let waiting = self.stripes.iter().map(|stripe| {
            let [_, _, _, _, bytes_in, bytes_out, written, _] = stripe.counters();
            [bytes_in, bytes_out, written]
                .map(|counter| counter.load(Ordering::Relaxed))
                .into_iter()
                .fold(0, u64::saturating_add)
        });
        Some(waiting.fold(known, u64::saturating_add))
    }

    /// Notes what the store says was transferred in a period; a smaller figure is
    /// an older one.
    pub(super) fn learn_transfer(&self, period: Period, bytes: u64) {
        self.transfer.learn(period, bytes);
    }

    /// Whether something waits to be flushed.
    pub(super) fn is_queued(&self) -> bool {
        self.queued.load(Ordering::SeqCst)
    }

    /// Takes what was counted, for a flush that adds it to this period. What is
    /// counted from now on queues the account anew.
    pub(super) fn take(&self, period: Period) -> Taken {
        // Before the counters are read: a count that is missed finds this false,
        // since both sides are in one order (SeqCst).
        self.queued.store(false, Ordering::SeqCst);
        let mut sums = [0_u64; 8];
        for stripe in &self.stripes {
            for (sum, counter) in sums.iter_mut().zip(stripe.counters()) {
                if counter.load(Ordering::SeqCst) > 0 {
                    *sum = sum.saturating_add(counter.swap(0, Ordering::SeqCst));
                }
            }
        }
        let [
            operations,
            hits,
            misses,
            throttled,
            bytes_in,
            bytes_out,
            written,
            writes,
        ] = sums;
        let counts = Counts {
            operations,
            hits,
            near_hits: 0,
            misses,
            throttled,
            bytes_in,
            bytes_out,
            written,
            writes,
        };
        // Known as soon as it leaves the counters; the flush's answer has it, too.
        self.transfer.add(period, counts.transfer());
        Taken {
            counts,
            consumed: self.take_consumed(),
        }
    }

    fn take_consumed(&self) -> Vec<(Box<str>, u64)> {
        let mut sums: Vec<(Box<str>, u64)> = Vec::new();
        for stripe in self.consumed.get().into_iter().flatten() {
            let mut consumed = lock(stripe);
            for (name, amount) in consumed.iter_mut().filter(|(_, amount)| *amount > 0) {
                match sums.iter_mut().find(|(known, _)| known == name) {
                    Some((_, sum)) => *sum = sum.saturating_add(*amount),
                    None => sums.push((name.clone(), *amount)),
                }
                *amount = 0;
            }
            if consumed.len() > KEPT_NAMES {
                consumed.clear();
            }
        }
        sums
    }

    /// Sees to it that the next flush looks at the account.
    pub(super) fn enqueue(&self) {
        if self.queued.load(Ordering::SeqCst) || self.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        if let (Some(queue), Some(account)) = (self.queue.upgrade(), self.account.upgrade()) {
            queue.push(account);
        }
    }
}

/// What is known of a period's transfer. Read by every call, without a lock.
#[derive(Debug, Default)]
struct Transfer {
    /// [`Period::number`]; 0 while nothing is known.
    period: AtomicU32,
    bytes: AtomicU64,
    /// Held by whoever writes.
    writing: Mutex<()>,
}

impl Transfer {
    fn of(&self, period: Period) -> Option<u64> {
        let number = period.number();
        // Between two sights of the same period the figure is the period's: they
        // only go forward, and pass through 0 as they do.
        let before = self.period.load(Ordering::SeqCst);
        let bytes = self.bytes.load(Ordering::SeqCst);
        let after = self.period.load(Ordering::SeqCst);
        (before == number && after == number).then_some(bytes)
    }

    fn learn(&self, period: Period, bytes: u64) {
        let _writing = lock(&self.writing);
        let known = self.period.load(Ordering::SeqCst);
        if known == period.number() {
            self.bytes.fetch_max(bytes, Ordering::SeqCst);
        } else if known < period.number() {
            self.period.store(0, Ordering::SeqCst);
            self.bytes.store(bytes, Ordering::SeqCst);
            self.period.store(period.number(), Ordering::SeqCst);
        }
    }

    fn add(&self, period: Period, bytes: u64) {
        let _writing = lock(&self.writing);
        if self.period.load(Ordering::SeqCst) == period.number() {
            self.bytes.fetch_add(bytes, Ordering::SeqCst);
        }
    }
}

/// The stripe of this thread, in any account: threads take turns.
pub(super) fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    PLACE.with(|place| {
        if place.get() == usize::MAX {
            place.set(NEXT.fetch_add(1, Ordering::Relaxed) & (MAX_STRIPES - 1));
        }
        place.get()
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Sums are whole whoever panicked while holding them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{store::Incarnation, tenant::Accounts};

    fn period() -> Period {
        Period::parse("2026-11").unwrap()
    }

    fn read(bytes: u64) -> Counts {
        Counts {
            operations: 1,
            hits: 1,
            bytes_out: bytes,
            ..Counts::default()
        }
    }

    /// As a flush does: only those that are in the queue.
    fn queued(accounts: &Accounts) -> Vec<Arc<Account>> {
        let spaces = 0..crate::store::METER_SPACES;
        spaces.flat_map(|at| accounts.take_queue(at)).collect()
    }

    #[test]
    fn what_many_threads_count_is_taken_once() {
        const THREADS: u64 = 8;
        const EACH: u64 = 5_000;
        let accounts = Accounts::default();
        let account = accounts.of(Incarnation::random());
        let over = AtomicBool::new(false);
        let mut taken = Taken::default();
        let mut custom = 0;
        std::thread::scope(|scope| {
            let counting: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..EACH {
                            account.meter.count(read(3));
                            account.meter.consume("pages", 2);
                        }
                    })
                })
                .collect();
            let taking = scope.spawn(|| {
                let mut sums = (0, 0, 0);
                loop {
                    let last = over.load(Ordering::SeqCst);
                    for queued in queued(&accounts) {
                        let taken = queued.meter.take(period());
                        sums.0 += taken.counts.operations;
                        sums.1 += taken.counts.bytes_out;
                        sums.2 += taken.consumed.iter().map(|(_, n)| n).sum::<u64>();
                    }
                    if last {
                        return sums;
                    }
                }
            });
            counting
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
            over.store(true, Ordering::SeqCst);
            (taken.counts.operations, taken.counts.bytes_out, custom) = taking.join().unwrap();
        });
        assert_eq!(taken.counts.operations, THREADS * EACH);
        assert_eq!(taken.counts.bytes_out, 3 * THREADS * EACH);
        assert_eq!(custom, 2 * THREADS * EACH);
        assert!(account.meter.take(period()).is_empty());
    }

    #[test]
    fn each_counter_is_taken_as_itself() {
        let account = Accounts::default().of(Incarnation::random());
        let counts = Counts {
            operations: 1,
            hits: 2,
            near_hits: 0,
            misses: 3,
            throttled: 4,
            bytes_in: 5,
            bytes_out: 6,
            written: 7,
            writes: 9,
        };
        account.meter.count(counts);
        account.meter.consume("pages", 8);
        account.meter.consume("pages", 0);
        let taken = account.meter.take(period());
        assert_eq!((taken.counts, counts.transfer()), (counts, 18));
        assert_eq!(taken.consumed, [("pages".into(), 8)]);
    }

    #[test]
    fn an_account_is_queued_once_a_flush_and_only_where_it_counts() {
        let accounts = Accounts::default();
        let (busy, idle) = (
            accounts.of(Incarnation::random()),
            accounts.of(Incarnation::random()),
        );
        for _ in 0..3 {
            busy.meter.count(read(1));
        }
        let queued = queued(&accounts);
        assert_eq!(queued.len(), 1);
        assert!(Arc::ptr_eq(queued.first().unwrap(), &busy));
        assert!(!idle.meter.is_queued());
        assert_eq!(busy.meter.take(period()).counts.operations, 3);
        assert!(self::queued(&accounts).is_empty());
        busy.meter.consume("pages", 1);
        assert_eq!(self::queued(&accounts).len(), 1);
    }

    #[test]
    fn transfer_is_what_is_known_and_what_was_counted_since() {
        let account = Accounts::default().of(Incarnation::random());
        let (meter, period) = (&account.meter, period());
        meter.count(read(10));
        assert_eq!(meter.transferred(period), None);
        meter.learn_transfer(period, 100);
        assert_eq!(meter.transferred(period), Some(110));
        assert_eq!(meter.take(period).counts.transfer(), 10);
        assert_eq!(meter.transferred(period), Some(110), "under way");
        meter.count(Counts {
            written: 5,
            ..Counts::default()
        });
        meter.learn_transfer(period, 130);
        assert_eq!(meter.transferred(period), Some(135));
        meter.learn_transfer(period, 120);
        assert_eq!(meter.transferred(period), Some(135), "an older answer");

        let next = period.next();
        assert_eq!(meter.transferred(next), None);
        assert_eq!(meter.take(next).counts.transfer(), 5);
        meter.learn_transfer(next, 5);
        assert_eq!(meter.transferred(next), Some(5));
        assert_eq!(meter.transferred(period), None);
        meter.learn_transfer(period, 1000);
        assert_eq!(meter.transferred(next), Some(5), "a past period");
    }
}
