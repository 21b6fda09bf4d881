//! What calls came to leaves memory: once a second, and at drain, for as many
//! tenants as counted anything. It does not know what was counted.
//!
//! # Once
//!
//! A tally carries the counts of many tenants of one meter space, stamped with
//! this replica and a number. Until its answer is known it is sent again as it
//! was, so that it counts once whatever became of it; meanwhile new counts wait
//! behind it, merged by tenant and minute.
//!
//! # When
//!
//! Counts belong to the minute they leave memory in, by the store's clock: at
//! most a second after the call, unless a flush asks sooner. They are added to
//! that minute's rows also where the store is away for long. Only counts of a
//! billing period that was closed meanwhile go to the present one.
//!
//! What the caches did goes in the same tallies; latencies among it every
//! [`LATENCIES_EVERY_MS`], or when somebody asks for them, since they have many
//! counters and no bill depends on them.

mod waiting;

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::Mutex;

use self::waiting::Waiting;
use super::{Account, Accounts, Period, Tenants, rows};
use crate::{
    error::Result,
    store::{self, Handle, METER_SPACES, Space},
};

/// How often what was counted is flushed.
const EVERY: Duration = Duration::from_secs(1);

/// How often latencies are flushed.
const LATENCIES_EVERY_MS: u64 = 10_000;

/// How soon a drain tries again.
const AGAIN: Duration = Duration::from_millis(50);

/// What a flush sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Counts, and latencies where they are due.
    Due,
    /// Counts and latencies.
    All,
}

/// What has left the meters of this replica, and is not known to be in the store.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    spaces: [Mutex<Waiting>; METER_SPACES],
    /// Whether the last flush failed; told once until it is over.
    failing: AtomicBool,
    /// Flushes that sent all there was, and that did not.
    counts: [AtomicU64; 2],
    /// When the last one began that sent all there was.
    last_good: std::sync::Mutex<Option<Instant>>,
}

/// What the flushes of a replica came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flushes {
    /// Those after which nothing waited.
    pub good: u64,
    /// Those that failed.
    pub failed: u64,
    /// How long ago the last good one began; what was counted before has left. `None`
    /// before the first.
    pub since_good: Option<Duration>,
}

impl Outbox {
    /// Sends what the accounts of a meter space counted, and what waits for it.
    async fn flush(
        &self,
        space: usize,
        accounts: &Accounts,
        what: What,
        store: &Handle,
    ) -> store::Result<()> {
        let Some(waiting) = self.spaces.get(space) else {
            return Ok(());
        };
        let mut waiting = waiting.lock().await;
        let now_ms = store.now_ms();
        for account in accounts.take_queue(space) {
            if !waiting.take(&account, now_ms) {
                accounts.put_back(account);
            }
        }
        waiting.send(space, accounts.replica(), what, store).await
    }

    /// The same for one account, queued or not.
    async fn flush_account(
        &self,
        account: &Arc<Account>,
        replica: &Bytes,
        what: What,
        store: &Handle,
    ) -> store::Result<()> {
        let space = Space::meters_number(account.incarnation);
        let Some(waiting) = self.spaces.get(space) else {
            return Ok(());
        };
        let mut waiting = waiting.lock().await;
        // Where there is no room, it is still queued.
        waiting.take(account, store.now_ms());
        waiting.send(space, replica, what, store).await
    }

    /// What flushes came to so far.
    pub(super) fn flushes(&self) -> Flushes {
        let [good, failed] = self.counts.each_ref();
        let last_good = *self.last_good();
        Flushes {
            good: good.load(Ordering::Relaxed),
            failed: failed.load(Ordering::Relaxed),
            since_good: last_good.map(|last| last.elapsed()),
        }
    }

    fn last_good(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // A time is whole whoever panicked while holding it.
        self.last_good
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a flush of all that began then, and tells of a failure once, and once that
    /// it is over.
    fn note(&self, began: Instant, result: &store::Result<()>) {
        let [good, failed] = &self.counts;
        let count = if result.is_ok() { good } else { failed };
        count.fetch_add(1, Ordering::Relaxed);
        if result.is_ok() {
            *self.last_good() = Some(began);
        }
        match result {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("usage is flushed again");
                }
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "usage not flushed; it waits in memory");
                }
            }
        }
    }
}

impl Tenants {
    /// Flushes what was counted, every second, for as long as it is polled.
    pub(super) async fn keep_meters(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            // Told of in the log; what failed waits for the next time.
            let _ = self.flush_meters().await;
        }
    }

    /// Flushes what all tenants' calls at this replica came to so far. Asks the
    /// store nothing where nothing was counted.
    ///
    /// # Errors
    /// Those of the store; what could not be flushed waits.
    pub async fn flush_meters(&self) -> Result<()> {
        self.flush(What::Due).await
    }

    /// The same with all latencies.
    pub(super) async fn flush_all(&self) -> Result<()> {
        self.flush(What::All).await
    }

    async fn flush(&self, what: What) -> Result<()> {
        let began = Instant::now();
        let (outbox, accounts) = (&self.directory.outbox, &self.directory.accounts);
        let spaces =
            (0..METER_SPACES).map(|space| outbox.flush(space, accounts, what, &self.store));
        let results = join_all(spaces).await;
        let result = results.into_iter().collect::<store::Result<()>>();
        outbox.note(began, &result);
        Ok(result?)
    }

    /// The same at the end of this replica, again and again until it succeeds.
    pub async fn flush_last_meters(&self) {
        while self.flush_all().await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Flushes what this tenant's calls at this replica came to so far.
    ///
    /// # Errors
    /// Those of the store; what could not be flushed waits.
    pub(super) async fn flush_account(&self, account: &Arc<Account>) -> Result<()> {
        self.flush_one(account, What::Due).await
    }

    /// The same with its latencies, and those that wait beside them.
    pub(super) async fn flush_account_all(&self, account: &Arc<Account>) -> Result<()> {
        self.flush_one(account, What::All).await
    }

    async fn flush_one(&self, account: &Arc<Account>, what: What) -> Result<()> {
        let (outbox, accounts) = (&self.directory.outbox, &self.directory.accounts);
        let result = outbox
            .flush_account(account, accounts.replica(), what, &self.store)
            .await;
        Ok(result?)
    }

    /// Bytes transferred in a period by all replicas, as far as this one knows;
    /// asks the store only where it knows nothing.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn transferred(&self, account: &Account, period: Period) -> Result<u64> {
        if let Some(bytes) = account.meter.transferred(period) {
            return Ok(bytes);
        }
        let incarnation = account.incarnation;
        let row = rows::transfer(incarnation, period);
        let rows = self.store.rows(&Space::meters(incarnation), &[row]).await?;
        let bytes = rows.first().map_or(0, rows::transfer_of);
        account.meter.learn_transfer(period, bytes);
        Ok(account.meter.transferred(period).unwrap_or(bytes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arc_swap::ArcSwap;
    use secrecy::SecretString;

    use super::*;
    use crate::{
        config,
        store::{Calls, Counters, Incarnation, Observed, embedded::Embedded},
        tenant::{Counts, Directory},
    };

    #[tokio::test]
    async fn ten_thousand_known_tenants_that_are_idle_cost_nothing() {
        const KNOWN: u64 = 10_000;
        let counters = Arc::new(Counters::default());
        let store = Arc::new(Embedded::in_memory().unwrap());
        let directory = Arc::new(Directory::new(Duration::from_secs(60)));
        let settings = ArcSwap::from_pointee(config::Tenant::default());
        let tenants = Tenants::new(
            Arc::new(Observed::new(store, counters.clone())),
            directory.clone(),
            Arc::new(settings),
            SecretString::from(""),
        );
        let known: Vec<_> = (0..KNOWN)
            .map(|_| directory.accounts.of(Incarnation::random()))
            .collect();
        let one = Counts {
            operations: 1,
            ..Counts::default()
        };
        let flush = async || {
            let before = counters.calls();
            tenants.flush_meters().await.unwrap();
            counters.calls().since(before)
        };
        assert_eq!(flush().await, Calls::default());
        known.iter().for_each(|account| account.meter.count(one));
        // One counter in four rows each: 64 tenants go into a tally.
        let tallies = flush().await.tally;
        let least = KNOWN.div_ceil(64);
        let most = least + METER_SPACES as u64;
        assert!((least..=most).contains(&tallies), "{tallies}");

        assert_eq!(flush().await, Calls::default());
        known.first().unwrap().meter.count(one);
        let tally = Calls {
            tally: 1,
            ..Calls::default()
        };
        assert_eq!(flush().await, tally);
        assert_eq!(flush().await, Calls::default());
    }
}
