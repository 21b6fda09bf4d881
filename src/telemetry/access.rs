//! Which calls are told of, one line each: `log.access` and `log.access_sample` as they
//! are in force. It does not know what a line says.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::config::{Access, Log};

/// The target of the events, for filters.
pub const TARGET: &str = "access";

/// One in so many calls that fail, and that go well; 0 means none. Those of the process,
/// as its lines have one way out; until it starts to log, as the defaults have it.
static FAILED: AtomicU32 = AtomicU32::new(1);
static ANSWERED: AtomicU32 = AtomicU32::new(0);

/// Puts the settings in force.
pub(super) fn set(log: &Log) {
    let (failed, answered) = match log.access {
        Access::Off => (0, 0),
        Access::Errors => (1, 0),
        Access::All => (1, u32::try_from(log.access_sample).unwrap_or(u32::MAX)),
    };
    FAILED.store(failed, Ordering::Relaxed);
    ANSWERED.store(answered, Ordering::Relaxed);
}

/// Whether this call is told of, by how it ended.
pub fn is_told(well: bool) -> bool {
    thread_local! {
        static COUNT: Cell<u32> = const { Cell::new(0) };
    }
    let setting = if well { &ANSWERED } else { &FAILED };
    match setting.load(Ordering::Relaxed) {
        0 => false,
        1 => true,
        sample => {
            let count = COUNT.get().wrapping_add(1);
            COUNT.set(count);
            count.is_multiple_of(sample)
        }
    }
}
