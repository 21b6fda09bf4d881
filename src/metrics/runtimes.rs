//! The runtimes of a process, by name: how many tasks live on each, and how busy it is. It
//! does not know what they do.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Handle, RuntimeMetrics};

/// The runtimes that are told of.
#[derive(Debug, Default)]
pub struct Runtimes(Mutex<Vec<(String, RuntimeMetrics)>>);

/// What a runtime does.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) name: String,
    pub(super) tasks: usize,
    pub(super) busy_seconds: f64,
}

impl Runtimes {
    /// Tells of the runtime that this is called in.
    pub fn add(&self, name: impl Into<String>) {
        let runtime = (name.into(), Handle::current().metrics());
        self.known().push(runtime);
    }

    /// What they do now.
    pub(super) fn now(&self) -> Vec<Runtime> {
        let now = |(name, metrics): &(String, RuntimeMetrics)| {
            let workers = 0..metrics.num_workers();
            let busy = workers.map(|worker| metrics.worker_total_busy_duration(worker));
            Runtime {
                name: name.clone(),
                tasks: metrics.num_alive_tasks(),
                busy_seconds: busy.map(|busy| busy.as_secs_f64()).sum(),
            }
        };
        self.known().iter().map(now).collect()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<(String, RuntimeMetrics)>> {
        // A list is whole whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
