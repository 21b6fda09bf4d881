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
    while_all_live(&signs, every, || tell(&[NotifyState::Watchdog])).await;
}

/// Tells every so often that all live, and not where one does not.
async fn while_all_live(signs: &Signs, every: Duration, tell: impl Fn() + Copy + Send + 'static) {
    loop {
        if signs.all_live() {
            // Who is slow to listen holds up nothing else.
            let _ = spawn_blocking(tell).await;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn nobody_is_told_that_it_lives_while_a_thread_is_stuck() {
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        let signs = Signs::of_stuck(2);
        signs.give(0);
        let every = Duration::from_millis(1);
        let telling = while_all_live(&signs, every, || {
            TOLD.fetch_add(1, Ordering::Relaxed);
        });
        tokio::pin!(telling);
        for _ in 0..20 {
            let _ = tokio::time::timeout(every, &mut telling).await;
        }
        assert_eq!(TOLD.load(Ordering::Relaxed), 0);
        // It has come back to its work.
        signs.give(1);
        while TOLD.load(Ordering::Relaxed) < 3 {
            let _ = tokio::time::timeout(every, &mut telling).await;
        }
    }
}
