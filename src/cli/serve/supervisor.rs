//! Telling systemd how the process is, where it started it and asks to be told (unit
//! files of `Type=notify`). It does not know what makes it so.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{task::spawn_blocking, time::sleep};

use crate::server::Signs;

/// Tells that it serves, and how.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells that it reads its settings anew; [`ready`] tells when that is over.
pub(super) fn reloading() {
    // Both in one message, as a reload is told apart from the one before by its time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd not told of a reload"),
    }
}

/// Tells that it goes away.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Tells that it lives, as often as the unit's `WatchdogSec` wants, for as long as all its
/// threads do.
pub(super) async fn live(signs: Arc<Signs>) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    // Half of what is asked for, so that one that is late costs nothing.
    let every = (patience / 2).max(Duration::from_millis(1));
    loop {
        if signs.all_live() {
            // Who is slow to listen holds up nothing else.
            let _ = spawn_blocking(|| tell(&[NotifyState::Watchdog])).await;
        } else {
            tracing::error!("a thread of the server is stuck; systemd is not told that it lives");
        }
        sleep(every).await;
    }
}

/// Nothing where nobody asks to be told.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd not told");
    }
}
