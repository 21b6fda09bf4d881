//! What a replica keeps of one tenant between calls, shared by all its cores. It
//! does not know who calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
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
            })
        };
        accounts.entry(incarnation).or_insert_with(begin).clone()
    }
}
