//! What a replica keeps of one tenant between calls, shared by all its cores. It
//! does not know who calls.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::meter::Meter;
use crate::store::Incarnation;

/// What a replica keeps of one life of a tenant between its calls.
#[derive(Debug)]
pub struct Account {
    /// The tenant's life.
    pub incarnation: Incarnation,
    /// What its calls came to.
    pub meter: Meter,
    /// The number of the plan's segment that is billed now.
    segment: AtomicU32,
}

impl Account {
    /// The number of the segment of its period that is billed now.
    pub fn segment(&self) -> u32 {
        self.segment.load(Ordering::Relaxed)
    }

    /// Notes that this segment has begun; an older one changes nothing.
    pub fn begin_segment(&self, number: u32) {
        self.segment.fetch_max(number, Ordering::Relaxed);
    }
}

/// The accounts of all tenants that call.
#[derive(Debug, Default)]
pub struct Accounts {
    by_incarnation: Mutex<HashMap<Incarnation, Arc<Account>>>,
}

impl Accounts {
    /// The account of this life of a tenant; begun where there is none yet.
    pub fn of(&self, incarnation: Incarnation) -> Arc<Account> {
        let mut accounts = self
            .by_incarnation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            Arc::new(Account {
                incarnation,
                meter: Meter::default(),
                segment: AtomicU32::new(0),
            })
        };
        accounts.entry(incarnation).or_insert_with(begin).clone()
    }
}
