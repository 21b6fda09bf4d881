//! Which kept entries are asked for most. It does not know what for.

use std::{cmp::Reverse, sync::Arc};

use super::{Kept, Near, lock};
use crate::store::Incarnation;

/// Entries looked at under one lock.
const STEP: usize = 1024;

/// A kept entry that is asked for often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hot {
    /// The home of the tenant's cache.
    pub home: Incarnation,
    /// The namespace.
    pub namespace: String,
    /// The key.
    pub key: String,
    /// About how often it was asked for of late, 255 at most.
    pub uses: u8,
}

/// How often an entry was asked for, and the entry.
type Candidate = (u8, Arc<Kept>);

impl Near {
    /// The kept entries that are asked for most, at most so many, in that order.
    /// Holds on to twice as many meanwhile. One that is kept or leaves meanwhile may be
    /// missing.
    pub fn hottest(&self, most: usize) -> Vec<Hot> {
        let mut hottest: Vec<Candidate> = Vec::new();
        for shard in &self.shards {
            let mut from = 0;
            loop {
                let shard = lock(shard);
                let slots = shard.slots(from, STEP);
                hottest.extend(slots.map(|(slot, uses)| (uses, slot.kept.clone())));
                from += STEP;
                if from >= shard.size().0 {
                    break;
                }
                drop(shard);
                if hottest.len() > most.saturating_mul(2) {
                    leave(&mut hottest, most);
                }
            }
        }
        leave(&mut hottest, most);
        hottest.into_iter().filter_map(hot).collect()
    }
}

fn leave(hottest: &mut Vec<Candidate>, most: usize) {
    hottest.sort_by_key(|(uses, ..)| Reverse(*uses));
    hottest.truncate(most);
}

fn hot((uses, kept): Candidate) -> Option<Hot> {
    let (namespace, key) = std::str::from_utf8(&kept.path).ok()?.split_once(':')?;
    Some(Hot {
        home: Incarnation::parse(kept.space.name())?,
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        uses,
    })
}
