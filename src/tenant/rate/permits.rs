//! The permits of a rate as callers share them: who finds too few asks the store
//! for all who wait, on the core it runs on. It does not know how many are worth
//! asking for.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    time::{sleep_until, timeout},
};

use super::{
    Drawn, Rule,
    ledger::{Ask, Attempt, Ledger},
};
use crate::{
    config::WhenDown,
    error::{Error, Result},
    moment,
    store::{self, Incarnation, Lease, Space},
    tenant::{Tenants, rows},
};

/// How long the store may take to answer, unless it answers others: after that it
/// counts as down.
const WAIT: Duration = Duration::from_millis(250);

/// The permits of one rate of one tenant at this replica.
pub(super) struct Permits {
    space: Space,
    window: bytes::Bytes,
    ledger: Mutex<Ledger>,
    /// Tells those who wait that the store was asked.
    turned: Notify,
}

impl Permits {
    pub(super) fn new(incarnation: Incarnation, rule: &Rule) -> Self {
        Self {
            space: Space::meters(incarnation),
            window: rows::window(incarnation, &rule.metric),
            ledger: Mutex::new(Ledger::new(rule, Instant::now())),
            turned: Notify::new(),
        }
    }

    /// Draws an amount, all of it or none.
    pub(super) async fn draw(
        self: &Arc<Self>,
        tenants: &Tenants,
        rule: &Rule,
        amount: u64,
    ) -> Result<Drawn> {
        match self.attempt(tenants, rule, amount) {
            Attempt::Decided(drawn) => Ok(drawn),
            Attempt::Denied => Err(Error::StoreUnavailable),
            // Boxed, so that the usual path does not carry its room.
            Attempt::Short(_) => Box::pin(self.wait(tenants, rule, amount)).await,
        }
    }

    /// Draws where that can be decided at once; has the store asked where permits
    /// run low.
    fn attempt(self: &Arc<Self>, tenants: &Tenants, rule: &Rule, amount: u64) -> Attempt {
        let (replicas, now) = (tenants.replicas(), moment::now());
        let mut ledger = self.lock();
        let attempt = ledger.draw(rule, amount, replicas, now);
        if ledger.runs_low(now) {
            if let Some(ask) = ledger.ask(1, replicas, now) {
                self.spawn(tenants, Some(ask));
            }
        } else if ledger.is_untold() {
            ledger.kept = true;
            self.spawn(tenants, None);
        }
        attempt
    }

    /// Draws after the store was asked, as often as others were faster.
    async fn wait(self: &Arc<Self>, tenants: &Tenants, rule: &Rule, amount: u64) -> Result<Drawn> {
        let _waiting = Waiting::begin(self, amount);
        loop {
            let mut turned = pin!(self.turned.notified());
            // From here on no turn is missed.
            turned.as_mut().enable();
            match self.attempt(tenants, rule, amount) {
                Attempt::Decided(drawn) => return Ok(drawn),
                Attempt::Denied => return Err(Error::StoreUnavailable),
                Attempt::Short(short) => {
                    let ask = self.lock().ask(short, tenants.replicas(), Instant::now());
                    if let Some(ask) = ask {
                        self.spawn(tenants, Some(ask));
                    }
                }
            }
            turned.await;
        }
    }

    /// What counts now, at all replicas.
    pub(super) async fn look(&self, tenants: &Tenants, rule: &Rule) -> Result<u64> {
        let lease = Lease {
            limit: rule.limit,
            span_ms: rule.span_ms,
            hold_ms: 1,
            share: 1,
            ..Lease::default()
        };
        let leased = self.lease(tenants, lease).await;
        let mut ledger = self.lock();
        match leased {
            Ok(leased) => {
                ledger.learn(rule, leased.counted);
                Ok(ledger.used())
            }
            Err(_) if rule.when_down != WhenDown::Deny => Ok(ledger.recent(Instant::now())),
            Err(_) => Err(Error::StoreUnavailable),
        }
    }

    async fn lease(&self, tenants: &Tenants, lease: Lease) -> store::Result<store::Leased> {
        let window = self.window.clone();
        let mut call = pin!(tenants.store.lease(&self.space, Lease { window, ..lease }));
        loop {
            match timeout(WAIT, &mut call).await {
                Ok(answer) => return answer,
                // The store answers others, so it is only busy, and to count without
                // it would pass the limit.
                Err(_) if tenants.directory.is_fresh() => {}
                Err(_) => {
                    let late = "it did not answer for permits in time".to_owned();
                    return Err(store::Error::OutcomeUnknown(late));
                }
            }
        }
    }

    /// Asks the store, on this core and whatever becomes of the caller, and then
    /// gives back what nobody used.
    fn spawn(self: &Arc<Self>, tenants: &Tenants, ask: Option<Ask>) {
        let (permits, tenants) = (self.clone(), tenants.clone());
        // Made here, so that they end even where the task never begins.
        let turn = ask.map(|ask| (ask, Turn(self.clone())));
        let keeper = turn.is_none().then(|| Keeper::of(self));
        tokio::spawn(async move {
            if let Some((ask, turn)) = turn {
                permits.ask(&tenants, ask, turn).await;
                if std::mem::replace(&mut permits.lock().kept, true) {
                    return;
                }
            }
            let keeper = keeper.unwrap_or_else(|| Keeper::of(&permits));
            permits.keep(&tenants, keeper).await;
        });
    }

    async fn ask(&self, tenants: &Tenants, ask: Ask, turn: Turn) {
        let answer = self.lease(tenants, ask.lease.clone()).await;
        let (mut ledger, now) = (self.lock(), Instant::now());
        match answer {
            Ok(leased) => ledger.heard(&ask, leased, now),
            Err(error) => {
                tracing::debug!(%error, "permits not leased");
                let unsent = matches!(error, store::Error::Unavailable(_));
                ledger.failed(&ask, !unsent, now);
            }
        }
        drop(ledger);
        drop(turn);
    }

    /// Tells the store what was not used, until nothing is held any more.
    async fn keep(self: &Arc<Self>, tenants: &Tenants, keeper: Keeper) {
        loop {
            let again = self.lock().look_again(Instant::now());
            let Some(again) = again else {
                // Another may have begun already.
                return keeper.retire();
            };
            sleep_until(again.into()).await;
            let ask = self.lock().tell(Instant::now());
            if let Some(ask) = ask {
                self.ask(tenants, ask, Turn(self.clone())).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // The figures are whole whoever panicked while holding them.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permits")
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

/// The store is being asked, until this is dropped.
struct Turn(Arc<Permits>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().asked();
        self.0.turned.notify_waiters();
    }
}

/// Somebody sees to it that permits are given back, until this is dropped.
struct Keeper {
    permits: Arc<Permits>,
    retired: bool,
}

impl Keeper {
    fn of(permits: &Arc<Permits>) -> Self {
        Self {
            permits: permits.clone(),
            retired: false,
        }
    }

    /// There is nothing to see to any more.
    fn retire(mut self) {
        self.retired = true;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.retired {
            self.permits.lock().kept = false;
        }
    }
}

/// A caller waits for so many permits, until this is dropped.
struct Waiting<'a> {
    permits: &'a Permits,
    amount: u64,
}

impl<'a> Waiting<'a> {
    fn begin(permits: &'a Permits, amount: u64) -> Self {
        let mut ledger = permits.lock();
        ledger.waiting = ledger.waiting.saturating_add(amount);
        Self { permits, amount }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut ledger = self.permits.lock();
        ledger.waiting = ledger.waiting.saturating_sub(self.amount);
    }
}
