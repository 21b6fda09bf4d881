//! Noticing that the file has changed: by what it says, looked at every so often.
//! Whoever is told by the system of changes misses those of a symbolic link far
//! away, as Kubernetes exchanges them, and must be told anew after each rename; and
//! looking costs next to nothing. It does not know what the file means.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

use super::{Asked, Configuration, Trigger};

/// How often it is looked. What is found must be found once more before it is read,
/// so that a file that is being written is left alone.
const LOOK: Duration = Duration::from_millis(200);

impl Configuration {
    /// Reads the configuration anew whenever a file of it has changed, for as long as
    /// it is polled and `reload.watch_file` is on.
    pub async fn follow_file(self: &Arc<Self>) {
        let mut last = None;
        loop {
            sleep(LOOK).await;
            if !self.config().reload.watch_file {
                continue;
            }
            let this = self.clone();
            let Ok(found) = spawn_blocking(move || this.look()).await else {
                continue;
            };
            let changed = found != self.fingerprint.load(Ordering::Acquire);
            if changed && last == Some(found) {
                // It expects no version, and there is no other error but a fault.
                if let Err(error) = self.reload(Trigger::File, Asked::default()).await {
                    tracing::error!(%error, "configuration not read anew");
                }
            }
            last = Some(found);
        }
    }

    fn look(&self) -> u64 {
        let more = self.in_force.load().loaded.files();
        self.sources_anew().fingerprint(&more)
    }
}
