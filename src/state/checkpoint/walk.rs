//! Points in time of tenants' spaces, walked page by page while writes go on. It does
//! not know what is done with what they held.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

use super::{Component, Kind, Record};
use crate::{
    error::{Error, Result},
    store::{self, Handle, Keep, Key, Pin, PinnedRecord, Pinning, Space, Table},
};

/// How long a point in time is kept without being read, and at what cost. One whose
/// replica is killed is gone soon.
const KEEP: Keep = Keep {
    for_ms: 30_000,
    copies_bytes: 256 << 20,
};

/// Records on a page.
const PAGE: usize = 1000;

/// How often floors are read anew that were raised while a space was pinned.
const ATTEMPTS: usize = 20;

/// What invalidations hide of a cache: known to whoever writes entries.
pub trait Hidden: Send + Sync + 'static {
    /// The control record of a space that tells what is hidden.
    fn key(&self) -> Key;

    /// What that record hides.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn read(&self, record: Option<&store::Record>) -> Result<Box<dyn Hiding>>;
}

/// What is hidden of a space.
pub trait Hiding: Send + Sync {
    /// Whether an entry is.
    fn hides(&self, path: &[u8], record: &store::Record) -> bool;
}

/// A space that is pinned.
pub(super) struct Pinned {
    /// Whose it is, by its place among those that are taken together.
    pub(super) seat: usize,
    pub(super) component: Component,
    pub(super) pin: Pin,
    hiding: Option<Box<dyn Hiding>>,
}

/// What became of pinning a space.
pub(super) enum Begun {
    Pinned(Pinned),
    /// Another point in time of it is kept.
    Busy,
    /// It was removed.
    Gone,
}

/// Pins a space; what is hidden of it is that of the same moment.
pub(super) async fn pin(
    store: &Handle,
    space: &Space,
    (seat, component): (usize, Component),
    hidden: Option<&dyn Hidden>,
) -> Result<Begun> {
    for _ in 0..ATTEMPTS {
        let before = floors(store, space, hidden).await?;
        let pin = match store.pin(space, KEEP).await? {
            Pinning::Pinned(pin) => pin,
            Pinning::Taken { .. } => return Ok(Begun::Busy),
            Pinning::Gone => return Ok(Begun::Gone),
        };
        // As it stood before and stands after, it stood when the space was pinned.
        if floors(store, space, hidden).await? == before {
            let read = |hidden: &dyn Hidden| hidden.read(before.as_ref());
            let hiding = hidden.map(read).transpose()?;
            return Ok(Begun::Pinned(Pinned {
                seat,
                component,
                pin,
                hiding,
            }));
        }
        store.unpin(&pin).await?;
    }
    Err(Error::RequestInProgress)
}

async fn floors(
    store: &Handle,
    space: &Space,
    hidden: Option<&dyn Hidden>,
) -> Result<Option<store::Record>> {
    let Some(hidden) = hidden else {
        return Ok(None);
    };
    let read = store.read(space, 0, &[hidden.key()]).await?;
    Ok(read.records.into_iter().next().flatten())
}

/// A walk over the pinned spaces of one component.
pub(super) struct Walk<'a> {
    store: &'a Handle,
    pinned: Vec<&'a Pinned>,
    pins: Vec<Pin>,
    table: Table,
    after: Option<store::Cursor>,
    begun: bool,
    seen: Seen,
    lost: HashSet<usize>,
}

/// A record that was found: of which of the pinned, by its place.
pub(super) struct Found<'a> {
    pub(super) of: &'a Pinned,
    pub(super) record: Record,
}

impl<'a> Walk<'a> {
    pub(super) fn new(store: &'a Handle, pinned: Vec<&'a Pinned>, table: Table) -> Self {
        Self {
            store,
            pins: pinned.iter().map(|pinned| pinned.pin.clone()).collect(),
            pinned,
            table,
            after: None,
            begun: false,
            seen: Seen::default(),
            lost: HashSet::new(),
        }
    }

    /// The next page of what was there, each record once; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Found<'a>>>> {
        if self.pins.is_empty() || (self.begun && self.after.is_none()) {
            return Ok(None);
        }
        self.begun = true;
        let page = self
            .store
            .pinned(&self.pins, &[self.table], self.after.take(), PAGE)
            .await?;
        self.after = page.next;
        self.lost.extend(page.lost);
        let mut found = Vec::with_capacity(page.items.len());
        for item in page.items {
            let Some(of) = self.pinned.get(item.pin).copied() else {
                continue;
            };
            if !self.lost.contains(&item.pin) && is_there(of, &item) && self.seen.first(&item) {
                let record = record(item);
                found.push(Found { of, record });
            }
        }
        Ok(Some(found))
    }

    /// The seats whose point in time was lost: what was found of them is not whole.
    pub(super) fn lost(&self) -> HashSet<usize> {
        let lost = self.lost.iter().filter_map(|at| self.pinned.get(*at));
        lost.map(|pinned| pinned.seat).collect()
    }
}

/// Whether anybody could read it at that moment.
fn is_there(of: &Pinned, item: &PinnedRecord) -> bool {
    let over = item.record.expire_ms.is_some_and(|ms| ms <= of.pin.at_ms);
    let hidden = |hiding: &dyn Hiding| hiding.hides(&item.key.path, &item.record);
    !over && !of.hiding.as_deref().is_some_and(hidden)
}

fn record(item: PinnedRecord) -> Record {
    Record {
        kind: Kind::Table(item.key.table),
        path: item.key.path,
        version: item.record.version,
        expire_ms: item.record.expire_ms,
        value: item.record.value,
    }
}

/// Records that were seen, by 128 bits of a hash with keys of its own: that two of
/// 2^32 records are taken for one is less likely than one in 2^64.
#[derive(Default)]
struct Seen {
    hashers: (RandomState, RandomState),
    hashes: HashSet<(u64, u64), BuildFirst>,
}

impl Seen {
    /// Whether it was not seen before.
    fn first(&mut self, item: &PinnedRecord) -> bool {
        let name = (item.pin, &item.key);
        let (one, other) = &self.hashers;
        self.hashes
            .insert((one.hash_one(name), other.hash_one(name)))
    }
}

/// What is a hash already needs no other.
#[derive(Clone, Copy, Default)]
struct BuildFirst;

struct First(u64);

impl BuildHasher for BuildFirst {
    type Hasher = First;

    fn build_hasher(&self) -> First {
        First(0)
    }
}

impl std::hash::Hasher for First {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        // Of the two the last.
        self.0 = hash;
    }
}
