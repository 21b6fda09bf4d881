//! The near cache: entries that are asked for often, opened, in this process. One
//! for all cores and tenants, bounded by bytes. It does not know when an entry may
//! be answered; it keeps with each what is needed to tell.
//!
//! # Never older than it may be
//!
//! Whoever reads an entry to have it kept takes a token before the read and hands it
//! in with the entry. Whatever is told of a key, by the store's [`Watcher`] or by a
//! write of this replica, first makes the tokens of its stripe worthless and then
//! removes what is kept, under one lock. So what was read before a change is not kept
//! after it. What was not told of is what the entry's [`Vouch`] is for.
//!
//! [`Watcher`]: crate::store::Watcher

mod flight;
mod hottest;
mod shard;
mod sketch;

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;

pub(super) use self::flight::Turn;
pub use self::hottest::Hot;
pub use self::shard::Left;
use self::shard::{Shard, Slot};
use super::Entry;
use crate::store::{Space, Vouch, Write};

/// The most shards there are, and the least bytes of one.
const MAX_SHARDS: usize = 64;
const SHARD_BYTES: usize = 4 << 20;

/// The part of all bytes that one entry may take.
const ENTRY_PART: usize = 64;

/// Entries kept in this process.
pub struct Near {
    /// A power of two.
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

/// A kept entry, whose it is, and what tells whether it may be answered. There are as
/// many as fit, so what most entries do not have takes no room.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) value: Bytes,
    /// `None` where it has neither.
    labels: Option<Box<Labels>>,
    pub(super) version: u64,
    create_ms: u64,
    pub(super) expire_ms: Option<u64>,
    stored_bytes: u64,
    space: Space,
    /// `<namespace>:<key>`
    path: Box<[u8]>,
    /// The generation it was read in.
    pub(super) generation: u64,
    /// The promise that changes of it are told.
    pub(super) vouch: Vouch,
    /// When it began to be read.
    pub(super) read: Instant,
}

/// What an entry may have beside its value.
#[derive(Debug)]
struct Labels {
    content_type: String,
    tags: Vec<String>,
}

impl Kept {
    /// To be kept. What was read may share the memory of much more, so it is copied.
    pub(super) fn new(
        entry: &Entry,
        (space, path): (&Space, &[u8]),
        generation: u64,
        vouch: Vouch,
        read: Instant,
    ) -> Self {
        let labels = !entry.content_type.is_empty() || !entry.tags.is_empty();
        Self {
            value: Bytes::copy_from_slice(&entry.value),
            labels: labels.then(|| {
                Box::new(Labels {
                    content_type: entry.content_type.clone(),
                    tags: entry.tags.clone(),
                })
            }),
            version: entry.version,
            create_ms: entry.create_ms,
            expire_ms: entry.expire_ms,
            stored_bytes: entry.stored_bytes,
            space: space.clone(),
            path: path.into(),
            generation,
            vouch,
            read,
        }
    }

    /// The entry.
    pub(super) fn entry(&self) -> Entry {
        let labels = self.labels.as_ref();
        Entry {
            value: self.value.clone(),
            content_type: labels.map_or_else(String::new, |it| it.content_type.clone()),
            tags: self.tags().to_vec(),
            version: self.version,
            create_ms: self.create_ms,
            expire_ms: self.expire_ms,
            stored_bytes: self.stored_bytes,
        }
    }

    /// Its tags.
    pub(super) fn tags(&self) -> &[String] {
        self.labels.as_ref().map_or(&[], |labels| &labels.tags)
    }
}

/// Whose an entry is, and where it is kept.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    space: &'a str,
    namespace: &'a [u8],
    key: &'a [u8],
    hash: u64,
}

impl Place<'_> {
    fn is(&self, space: &Space, path: &[u8]) -> bool {
        path.len() == self.namespace.len() + 1 + self.key.len()
            && path.starts_with(self.namespace)
            && path.ends_with(self.key)
            && space.name() == self.space
    }
}

/// What is kept under a key.
pub(super) enum Found {
    /// This.
    Kept(Arc<Kept>),
    /// Nothing, and whether it is worth keeping what will be read.
    Nothing {
        /// Whether it is.
        worth: bool,
    },
}

impl Near {
    /// An empty one that takes at most so many bytes. How many shards it has stays as
    /// it is, whatever it may take later.
    pub fn new(max_bytes: usize) -> Self {
        let shards = (max_bytes / SHARD_BYTES).clamp(1, MAX_SHARDS);
        let shards = 1_usize << shards.ilog2();
        let shard = |seed| {
            let seed = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            Mutex::new(Shard::new(max_bytes / shards, max_bytes / ENTRY_PART, seed))
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The place of a key.
    pub(super) fn place<'a>(
        &self,
        space: &'a Space,
        namespace: &'a str,
        key: &'a str,
    ) -> Place<'a> {
        self.place_of(space.name(), namespace.as_bytes(), key.as_bytes())
    }

    fn place_of<'a>(&self, space: &'a str, namespace: &'a [u8], key: &'a [u8]) -> Place<'a> {
        let mut hasher = self.hasher.build_hasher();
        for part in [space.as_bytes(), namespace, key] {
            hasher.write(part);
            hasher.write_u8(b':');
        }
        Place {
            space,
            namespace,
            key,
            hash: hasher.finish(),
        }
    }

    /// The place of the entry with this path.
    fn place_at<'a>(&self, space: &'a str, path: &'a [u8]) -> Place<'a> {
        // A namespace has no colon.
        let mut parts = path.splitn(2, |&byte| byte == b':');
        let namespace = parts.next().unwrap_or_default();
        self.place_of(space, namespace, parts.next().unwrap_or_default())
    }

    /// What is kept under a key. Counts that it was asked for.
    pub(super) fn find(&self, place: &Place<'_>) -> Found {
        let mut shard = self.shard(place.hash);
        shard.count(place.hash);
        match shard.find(place) {
            Some(slot) => Found::Kept(slot.kept.clone()),
            None => Found::Nothing {
                worth: shard.worth(place.hash),
            },
        }
    }

    /// What is told of a key until now; see [`Near::keep`].
    pub(super) fn token(&self, place: &Place<'_>) -> u64 {
        self.shard(place.hash).token(place.hash)
    }

    /// Keeps an entry that was read after this token was taken, if that is in order
    /// and worth it; whatever leaves for it, where it is `wanted`.
    pub(super) fn keep(&self, place: &Place<'_>, token: u64, kept: Kept, wanted: bool) -> bool {
        let slot = Slot::new(place.hash, kept);
        self.shard(place.hash).keep(slot, token, wanted)
    }

    /// Notes that a key was asked for so often of late, as was found out before this
    /// process began.
    pub(super) fn remember(&self, place: &Place<'_>, uses: u8) {
        self.shard(place.hash).remember(place.hash, uses);
    }

    /// Removes an entry that cannot be answered any more.
    pub(super) fn forget(&self, place: &Place<'_>, gone: &Arc<Kept>) {
        let mut shard = self.shard(place.hash);
        shard.remove(place.hash, |slot| Arc::ptr_eq(&slot.kept, gone));
    }

    /// An entry was changed, or may have been.
    pub(super) fn changed(&self, space: &str, generation: u64, path: &[u8]) {
        let place = self.place_at(space, path);
        self.shard(place.hash).tell(place.hash, |slot| {
            let kept = &slot.kept;
            kept.generation <= generation && place.is(&kept.space, &kept.path)
        });
    }

    /// To be held by whoever commits these writes, until it is answered or given
    /// up: when it ends, nothing is kept of what they write.
    pub(super) fn leaving(&self, space: &Space, writes: &[Write]) -> Leaving<'_> {
        let hash = |write: &Write| self.place_at(space.name(), &write.key.path).hash;
        Leaving {
            near: self,
            hashes: writes.iter().map(hash).collect(),
        }
    }

    /// Takes at most so many bytes from now on. What is too much leaves before it
    /// returns, in steps that hold nobody up.
    pub fn resize(&self, max_bytes: usize) {
        let shard_bytes = max_bytes / self.shards.len();
        for shard in &self.shards {
            lock(shard).limit(shard_bytes, max_bytes / ENTRY_PART);
            while lock(shard).shrink() {}
        }
    }

    /// How many entries are kept, and the bytes they take.
    pub fn size(&self) -> (u64, u64) {
        self.shards.iter().map(lock).fold((0, 0), |sum, shard| {
            let (entries, bytes) = shard.size();
            (sum.0 + entries as u64, sum.1 + bytes as u64)
        })
    }

    /// How many entries have left since it was made, by why. Those that were at their
    /// end, or hidden by a floor, are not among them.
    pub fn left(&self) -> Left {
        let each = self.shards.iter().map(|shard| lock(shard).left);
        each.fold(Left::default(), |sum, shard| Left {
            evicted: sum.evicted + shard.evicted,
            told: sum.told + shard.told,
        })
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The number of shards is a power of two; the sketch takes the low bits.
        let at = usize::try_from(hash >> 58).unwrap_or_default() & (self.shards.len() - 1);
        #[expect(clippy::indexing_slicing, reason = "masked by the length")]
        lock(&self.shards[at])
    }
}

/// Keys that this replica is writing. When it ends, however it does, what is kept of
/// them leaves.
pub(super) struct Leaving<'a> {
    near: &'a Near,
    hashes: Vec<u64>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        for &hash in &self.hashes {
            self.near.shard(hash).tell(hash, |_| true);
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A shard is whole whoever panicked while holding it.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, bytes) = self.size();
        f.debug_struct("Near")
            .field("entries", &entries)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}
