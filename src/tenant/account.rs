//! What a replica keeps of one tenant between calls, shared by all its cores. It
//! does not know who calls.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;

use super::{
    Counts, audit, meter::Meter, quota::Warned, rate::Rates, stats::Stats, traffic::Traffic,
};
use crate::{
    config,
    store::{Incarnation, METER_SPACES, Space},
};

/// Accounts below which none is looked for that can leave.
const ROOM: usize = 1024;

/// What a replica keeps of one life of a tenant between its calls.
#[derive(Debug)]
pub struct Account {
    /// The tenant's life.
    pub incarnation: Incarnation,
    /// What its calls came to.
    pub meter: Meter,
    /// What they did to its cache.
    pub(super) stats: Stats,
    /// What it may draw of its rates.
    pub(super) rates: Rates,
    /// What it was warned of in the log.
    pub(super) warned: Warned,
    /// What is told of all tenants of this replica.
    pub(super) traffic: Arc<Traffic>,
    /// The tenant's name, once it is known.
    name: OnceLock<Arc<str>>,
    /// Where what matters is told.
    pub(super) audit: audit::Log,
    /// The number of the plan's segment that is billed now.
    segment: AtomicU32,
}

impl Account {
    /// Notes whose it is.
    pub(super) fn call(&self, tenant_id: &str) {
        self.name.get_or_init(|| tenant_id.into());
    }

    /// Adds to what is told of the tenant what its calls came to.
    pub(super) fn told(&self, counts: &Counts) {
        self.traffic.count(self.name.get(), counts);
    }

    /// The number of the segment of its period that is billed now.
    pub fn segment(&self) -> u32 {
        self.segment.load(Ordering::Relaxed)
    }

    /// Notes that this segment has begun; an older one changes nothing.
    pub fn begin_segment(&self, number: u32) {
        self.segment.fetch_max(number, Ordering::Relaxed);
    }
}

/// Accounts that counted something since they were last flushed, by the meter
/// space they are flushed to.
#[derive(Debug, Default)]
pub(super) struct Queue([Mutex<Vec<Arc<Account>>>; METER_SPACES]);

impl Queue {
    pub(super) fn push(&self, account: Arc<Account>) {
        if let Some(queue) = self.0.get(Space::meters_number(account.incarnation)) {
            lock(queue).push(account);
        }
    }
}

/// The accounts of all tenants that call.
#[derive(Debug)]
pub struct Accounts {
    replica: Bytes,
    /// Where what matters is told.
    pub(super) audit: audit::Log,
    by_incarnation: Mutex<Known>,
    queue: Arc<Queue>,
    traffic: Arc<Traffic>,
}

#[derive(Debug)]
struct Known {
    accounts: HashMap<Incarnation, Arc<Account>>,
    /// How many there may be before some are to leave.
    room: usize,
}

impl Default for Accounts {
    fn default() -> Self {
        let replica = crate::random::BASE32.encode(&crate::random::bytes::<10>());
        Self {
            audit: audit::Log::new(&replica, config::Audit::OFF.into()),
            replica: replica.into(),
            by_incarnation: Mutex::new(Known {
                accounts: HashMap::new(),
                room: ROOM,
            }),
            queue: Arc::default(),
            traffic: Arc::default(),
        }
    }
}

impl Accounts {
    /// What is told of the tenants that call.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// This process among all that ever work on the store: 16 characters of
    /// `a-v0-9`, random.
    pub fn replica(&self) -> &Bytes {
        &self.replica
    }

    /// The account of this life of a tenant; begun where there is none yet.
    pub fn of(&self, incarnation: Incarnation) -> Arc<Account> {
        let mut known = lock(&self.by_incarnation);
        if let Some(account) = known.accounts.get(&incarnation) {
            return account.clone();
        }
        if known.accounts.len() >= known.room {
            known.dismiss();
        }
        let account = Arc::new_cyclic(|account| Account {
            incarnation,
            meter: Meter::new(account.clone(), Arc::downgrade(&self.queue)),
            stats: Stats::default(),
            rates: Rates::default(),
            warned: Warned::default(),
            traffic: self.traffic.clone(),
            name: OnceLock::new(),
            audit: self.audit.clone(),
            segment: AtomicU32::new(0),
        });
        known.accounts.insert(incarnation, account.clone());
        account
    }

    /// The accounts of a meter space that counted something, each to be asked for
    /// it or put back.
    pub(super) fn take_queue(&self, space: usize) -> Vec<Arc<Account>> {
        let Some(queue) = self.queue.0.get(space) else {
            return Vec::new();
        };
        let mut queue = lock(queue);
        // Room for as many again, so that counting seldom takes memory.
        let room = Vec::with_capacity(queue.len());
        std::mem::replace(&mut *queue, room)
    }

    /// Puts back what was taken from the queue, and not asked.
    pub(super) fn put_back(&self, account: Arc<Account>) {
        self.queue.push(account);
    }
}

impl Known {
    /// Lets those go that nobody holds and that have nothing to be flushed. Done
    /// when their number has doubled, so that each costs the same however many
    /// there are.
    fn dismiss(&mut self) {
        // Whoever counts holds it, and so does the queue until it is flushed.
        self.accounts
            .retain(|_, account| Arc::strong_count(account) > 1 || account.meter.is_queued());
        self.room = ROOM.max(self.accounts.len().saturating_mul(2));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps and queues are whole whoever panicked while holding them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Counts;

    #[test]
    fn accounts_nobody_needs_leave_and_others_stay() {
        let accounts = Accounts::default();
        let held = accounts.of(Incarnation::random());
        let counted = Incarnation::random();
        accounts.of(counted).meter.count(Counts {
            operations: 1,
            ..Counts::default()
        });
        for _ in 0..10 * ROOM {
            accounts.of(Incarnation::random());
        }
        let known = lock(&accounts.by_incarnation).accounts.len();
        assert!(known <= ROOM, "{known} are kept");
        assert!(Arc::ptr_eq(&held, &accounts.of(held.incarnation)));
        assert!(accounts.of(counted).meter.is_queued());
    }

    #[test]
    fn many_accounts_that_are_held_all_stay() {
        let accounts = Accounts::default();
        let held: Vec<_> = (0..10_000)
            .map(|_| accounts.of(Incarnation::random()))
            .collect();
        for account in held {
            assert!(Arc::ptr_eq(&account, &accounts.of(account.incarnation)));
        }
    }

    #[test]
    fn replicas_have_names_of_their_own() {
        let (one, other) = (Accounts::default(), Accounts::default());
        assert_eq!(one.replica().len(), 16);
        assert_ne!(one.replica(), other.replica());
    }
}
