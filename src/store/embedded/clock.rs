//! The store's clock: the machine's, but never back. It does not know what is
//! timed by it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::moment;

/// A clock that does not go back, not even over a restart.
pub(super) struct Clock {
    machine: Box<dyn Fn() -> u64 + Send + Sync>,
    last_ms: AtomicU64,
}

impl Clock {
    /// A clock over another one, in milliseconds since 1970.
    pub(super) fn over(machine: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            machine: Box::new(machine),
            last_ms: AtomicU64::new(0),
        }
    }

    /// Now.
    pub(super) fn now_ms(&self) -> u64 {
        let (machine, last) = ((self.machine)(), self.last_ms.load(Ordering::Relaxed));
        // Mostly they are one, and then no core takes the other's cache line away.
        if machine <= last {
            return last;
        }
        self.last_ms
            .fetch_max(machine, Ordering::Relaxed)
            .max(machine)
    }

    /// It was at least that late before.
    pub(super) fn not_before(&self, ms: u64) {
        self.last_ms.fetch_max(ms, Ordering::Relaxed);
    }
}

/// The machine's clock, in milliseconds since 1970.
pub(super) fn machine_ms() -> u64 {
    u64::try_from(moment::unix().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn never_goes_back() {
        let machine = Arc::new(AtomicU64::new(10));
        let clock = Clock::over({
            let machine = machine.clone();
            move || machine.load(Ordering::Relaxed)
        });
        assert_eq!(clock.now_ms(), 10);
        machine.store(5, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 10);
        machine.store(11, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), 11);
        clock.not_before(20);
        assert_eq!(clock.now_ms(), 20);
    }
}
