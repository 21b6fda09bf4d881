//! Asks the server for its time, its settings, and whether it still answers. It does
//! not know what it is used for.

use std::{sync::Arc, time::Duration};

use fred::types::ClusterHash;

use super::{
    fault::Fault,
    pool::Pool,
    reply,
    server::{Server, Shared},
};

/// How often the server is asked for its time.
const TICK: Duration = Duration::from_secs(1);
/// How often a server that has stopped answering is asked again.
const PROBE: Duration = Duration::from_millis(100);
/// Unanswered probes in a row after which a connection is given up. The driver's
/// own check counts from the last write, and probes are writes.
const SILENCE: u32 = 3;
/// How often the server is asked for its settings, in ticks.
const SETTINGS_TICKS: u32 = 30;

/// Follows the server's clock and settings, and asks one that has stopped
/// answering until it answers.
pub(super) async fn pulse(pool: Arc<Pool>, shared: Arc<Shared>, patience: Duration) {
    let mut ticks = 0;
    let (mut pause, mut silence) = (TICK, 0u32);
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Asked at once: it may have been this process that stood still.
            () = shared.breaker.opened.notified() => {}
        }
        pause = TICK;
        match pool.time(patience).await {
            Ok(()) => {
                silence = 0;
                shared.breaker.answered();
            }
            Err(Fault::Timeout) => {
                shared.breaker.timed_out();
                pause = PROBE;
                silence += 1;
                if silence % SILENCE == 0 {
                    pool.renew();
                }
                continue;
            }
            Err(_) => continue,
        }
        ticks += 1;
        if ticks % SETTINGS_TICKS == 0
            && let Ok(info) = pool.command("INFO", ClusterHash::Random, &[]).await
            && let Ok(server) = Server::read(&reply::text(&info).unwrap_or_default(), true)
        {
            shared.met(&server);
        }
    }
}
