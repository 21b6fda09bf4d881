//! What a replica remembers of all tenants' caches, for all its cores. It does not
//! know how the store comes to tell of changes.

use std::sync::Arc;

use super::{
    doings::{AllDoings, Group},
    floors::Floors,
    near::{Leaving, Near},
    snapshot::Snapshots,
    watching::Watches,
};
use crate::{
    config,
    store::{Space, Table, Watcher, Write},
};

/// What a replica remembers of its tenants' caches. One for all cores; a store that
/// tells it of changes makes [`Near`] worth having.
#[derive(Debug, Default)]
pub struct Memory {
    pub(super) snapshots: Snapshots,
    /// `None` where it is switched off.
    pub(super) near: Option<Near>,
    /// Those who are told of changes.
    pub(super) watches: Arc<Watches>,
    /// What was done to them.
    pub(super) doings: AllDoings,
}

impl Memory {
    /// An empty memory with these settings of the near cache. The default has none.
    pub fn new(settings: &config::Near) -> Self {
        Self {
            snapshots: Snapshots::default(),
            near: settings.enabled.then(|| Near::new(settings.max_bytes)),
            watches: Arc::default(),
            doings: AllDoings::default(),
        }
    }

    /// The entries kept near; `None` where that is switched off.
    pub fn near(&self) -> Option<&Near> {
        self.near.as_ref()
    }

    /// How many watch a tenant's changes.
    pub fn watchers(&self) -> usize {
        self.watches.watchers()
    }

    /// What was done to caches that no account tells of: its group, its name in it, and
    /// how often.
    pub fn doings(&self) -> Vec<(Group, &'static str, u64)> {
        self.doings.sums()
    }

    /// To be held by whoever commits these writes; see [`Near::leaving`].
    pub(super) fn leaving(&self, space: &Space, writes: &[Write]) -> Option<Leaving<'_>> {
        let near = self.near.as_ref()?;
        Some(near.leaving(space, writes))
    }
}

impl Watcher for Memory {
    fn changed(&self, space: &str, generation: u64, table: Table, path: &[u8]) {
        match table {
            Table::Entry => {
                if let Some(near) = &self.near {
                    near.changed(space, generation, path);
                }
            }
            Table::Control if path == Floors::NAME => self.snapshots.changed(space),
            _ => {}
        }
    }
}
