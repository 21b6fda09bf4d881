//! When a warm start happens: before the server serves, within its time. What the
//! next one needs is kept while the server runs, and as it goes. It does not know
//! what is hot.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Parts;
use crate::{cache::WarmStart, grpc::Health, store, tenant::Tenants};

/// How often what is hot is kept.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// How long that may take as the server goes.
const KEEP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long before a store is asked again that did not answer.
const AGAIN: Duration = Duration::from_millis(50);

/// The warm start of a server: its health is held until it is done.
pub(super) struct Warming {
    start: WarmStart,
    timeout: Duration,
    health: Arc<Health>,
    held: usize,
}

impl Warming {
    /// That of this server, if it has one. To be called before whoever holds this
    /// store reports on it, so that the health does not come before it.
    pub(super) fn of(parts: &Parts, store: store::Handle, tenants: Tenants) -> Option<Arc<Self>> {
        let settings = &parts.config.cache.warm_start;
        if !settings.enabled || parts.memory.near().is_none() {
            return None;
        }
        Some(Arc::new(Self {
            start: WarmStart::new(parts.cache(store), tenants, settings.keys),
            timeout: settings.timeout,
            health: parts.health.clone(),
            held: parts.health.hold("hot entries are being pulled near"),
        }))
    }

    /// Pulls near what was hot, lets the server serve, and then keeps what is hot
    /// every so often, for ever.
    pub(super) async fn run(&self) {
        let begun = async {
            loop {
                match self.start.begin().await {
                    Ok(began) => break began,
                    Err(error) => tracing::debug!(%error, "warm start not done yet"),
                }
                sleep(AGAIN).await;
            }
        };
        match timeout(self.timeout, begun).await {
            Ok(began) if began.entries > 0 => {
                let (tenants, entries) = (began.tenants, began.entries);
                tracing::info!(tenants, entries, "warm start done");
            }
            Ok(_) => {}
            Err(_) => tracing::warn!("warm start cut: cache.warm_start.timeout is over"),
        }
        self.health.let_go(self.held);
        let mut every = interval(KEEP_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is at once, when there is nothing new yet.
        every.tick().await;
        loop {
            every.tick().await;
            if let Err(error) = self.start.keep().await {
                tracing::debug!(%error, "what is hot not kept");
            }
        }
    }

    /// Keeps what is hot for the last time.
    pub(super) async fn keep_last(&self) {
        match timeout(KEEP_TIMEOUT, self.start.keep()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what is hot not kept"),
            Err(_) => tracing::warn!("what is hot not kept in time"),
        }
    }
}
