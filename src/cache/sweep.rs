//! Removing what floors hide: one walk over a tenant's entries for all its floors,
//! after which they are dropped. It does not know who sweeps, nor how fast.
//!
//! An entry is removed only at the version it was seen at, so one that was written
//! anew stays. Which tags an entry has cannot be told where it is damaged or of a
//! later format: such a one goes where a tag's floor is above it, since the floor
//! will not be there any more to hide it.

use std::{collections::HashMap, sync::Arc};

use super::{
    floors::Floors,
    hidden::{Looked, TAGGED_BYTES},
    precedence::Precedence,
    snapshot::{ATTEMPTS, floors},
};
use crate::{
    error::{Error, Result},
    store::{
        Batch, Check, Commit, Cursor, Handle, Incarnation, Key, Mode, Outcome, Query, Refusal,
        Space, Step, Table, View, Write,
    },
    tenant::{
        Directory,
        reclaim::{Site, Sweep},
        stats::Deeds,
    },
};

/// Entries listed at once.
const PAGE: usize = 256;

/// Entries removed in one commit: some hundred microseconds of Redis.
const REMOVED: usize = 64;

/// Removes entries that floors hide, and counts them as invalidated.
#[derive(Clone)]
pub struct Sweeper(Arc<Directory>);

impl Sweeper {
    /// One that counts on the accounts of this directory.
    pub fn new(directory: Arc<Directory>) -> Self {
        Self(directory)
    }

    /// Counts those of these writes that removed an entry.
    fn count(&self, incarnation: Incarnation, writes: &[Write], outcomes: &[Outcome]) {
        let mut removed: HashMap<&str, u64> = HashMap::new();
        for (write, outcome) in writes.iter().zip(outcomes) {
            if matches!(outcome, Outcome::Done { existed: true, .. })
                && let Some(namespace) = namespace_of(&write.key)
            {
                *removed.entry(namespace).or_default() += 1;
            }
        }
        let account = self.0.account(incarnation);
        for (namespace, invalidated) in removed {
            let deeds = Deeds {
                invalidated,
                ..Deeds::default()
            };
            account.count(namespace, &deeds);
        }
    }

    /// Removes entries of the present generation; false where that has passed.
    async fn remove(
        &self,
        store: &Handle,
        site: &Site,
        view: View,
        writes: &[Write],
    ) -> Result<bool> {
        let batch = Batch {
            view: Some(view),
            // A floor that was raised is no reason to keep what lower ones hide.
            later: true,
            mode: Mode::Each,
            writes: writes.to_vec(),
            ..Batch::default()
        };
        match store.commit(&site.space, batch).await? {
            Commit::Applied(applied) => {
                self.count(site.incarnation, writes, &applied.outcomes);
                Ok(true)
            }
            Commit::Refused(_) => Ok(false),
        }
    }
}

/// The namespace of an entry.
fn namespace_of(key: &Key) -> Option<&str> {
    let path = std::str::from_utf8(&key.path).ok()?;
    path.split_once(':').map(|(namespace, _)| namespace)
}

/// A walk over a tenant's entries, for the floors there were when it began.
pub struct Walk {
    floors: Floors,
    generation: u64,
    after: Option<Cursor>,
}

impl Sweep for Sweeper {
    type Walk = Walk;

    async fn begin(&self, store: &Handle, site: &Site) -> Result<Option<Walk>> {
        let (view, floors) = floors(store, &site.space).await?;
        let walk = Walk {
            floors,
            generation: view.generation,
            after: None,
        };
        Ok((!walk.floors.is_empty()).then_some(walk))
    }

    async fn step(&self, store: &Handle, site: &Site, walk: &mut Walk) -> Result<bool> {
        let space = &site.space;
        let query = Query {
            table: Table::Entry,
            generation: walk.generation,
            prefix: walk.floors.beginning().into_bytes().into(),
            after: walk.after.take(),
            limit: PAGE,
            value_bytes: TAGGED_BYTES,
        };
        let page = store.list(space, query).await?;
        if page.view.generation != walk.generation {
            // The tenant was flushed: all that was seen is left to that job.
            return Ok(false);
        }
        let looked = Looked {
            store,
            space,
            generation: walk.generation,
            floors: &walk.floors,
        };
        let mut removed = Vec::new();
        for listed in page.items {
            if looked.hidden(&listed).await? != Ok(Some(false)) {
                let key = Key::new(Table::Entry, listed.path);
                removed.push(Write::delete(key).when(Check::Version(listed.record.version)));
            }
        }
        for writes in removed.chunks(REMOVED) {
            if !self.remove(store, site, page.view, writes).await? {
                return Ok(false);
            }
        }
        walk.after = page.next;
        if walk.after.is_none() {
            drop_floors(store, space, walk.floors.version()).await?;
        }
        Ok(walk.after.is_some())
    }

    async fn bar(&self, store: &Handle, site: &Site) -> Result<bool> {
        let space = &site.space;
        let (view, floors) = floors(store, space).await?;
        if !floors.is_empty() {
            return Ok(false);
        }
        if view.epoch == 0 {
            // Never written, or gone: it is not to come into being for this.
            return Ok(true);
        }
        // Whoever is about to raise a floor relies on the record as it was.
        let write = Write::put(Floors::key(), floors.encode()?).when(floors.unchanged());
        match store.commit(space, Batch::of([write])).await? {
            Commit::Applied(_) | Commit::Refused(Refusal::Gone | Refusal::Fenced) => Ok(true),
            Commit::Refused(_) => Ok(false),
        }
    }
}

/// Drops the floors that hide nothing above this version: all beneath is removed.
async fn drop_floors(store: &Handle, space: &Space, version: u64) -> Result<()> {
    let mut precedence = Precedence::new(store, space);
    for _ in 0..ATTEMPTS {
        let (_, mut floors) = floors(store, space).await?;
        let unchanged = floors.unchanged();
        if floors.is_empty() {
            return Ok(());
        }
        floors.drop_through(version, store.now_ms());
        let write = Write::put(Floors::key(), floors.encode()?).when(unchanged);
        let batch = Batch {
            // Snapshots shrink with it.
            step: Some(Step::Epoch),
            ..Batch::of([write, precedence.write()])
        };
        match store.commit(space, batch).await? {
            Commit::Refused(Refusal::Conflict { write, .. }) => precedence.late(write).await?,
            Commit::Applied(_) | Commit::Refused(_) => return Ok(()),
        }
    }
    Err(Error::RequestInProgress)
}
