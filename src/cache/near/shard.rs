//! A part of the near cache, under one lock: what is kept, what is worth keeping,
//! and what was told meanwhile. It does not know whether what it keeps is true.
//!
//! # What is worth keeping
//!
//! A key is kept in the place of others when it was asked for more often of late
//! than they were (TinyLFU). Who leaves is the least asked for of a few taken at
//! random. Measured on a Zipf load (exponent 1) over 100,000 keys with room for
//! 10,000: 0.98 of what keeping the 10,000 most frequent ones would answer.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;

use super::{Kept, Place, flight::Flight, sketch::Sketch};
use crate::store::Space;

/// The part of a shard's bytes that its sketch takes.
const SKETCH_PART: usize = 64;

/// The sketch is aged when so many uses were counted for each kept entry.
const AGE_AT: u64 = 32;

/// Entries that are looked at to find one that can leave.
const SAMPLE: usize = 5;

/// Entries that leave for one at most.
const MAX_VICTIMS: usize = 128;

/// Stripes of what was told.
const STRIPES: usize = 64;

/// Bytes that a kept entry takes beside its key and value: its slot, twice, since
/// a vector that grows has room for as many again, what it shares, and what an
/// allocator adds to five allocations.
const OVERHEAD_BYTES: usize = 2 * size_of::<Slot>() + size_of::<Kept>() + 5 * 16;

/// A kept entry, and whose it is.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) hash: u64,
    pub(super) space: Space,
    /// `<namespace>:<key>`
    pub(super) path: Bytes,
    pub(super) kept: Arc<Kept>,
    bytes: usize,
}

impl Slot {
    pub(super) fn new(hash: u64, space: Space, path: Bytes, kept: Kept) -> Self {
        let entry = &kept.entry;
        let tags = entry.tags.iter().map(|tag| tag.len() + 40);
        let bytes = path.len()
            + entry.value.len()
            + entry.content_type.len()
            + tags.sum::<usize>()
            + OVERHEAD_BYTES;
        Self {
            hash,
            space,
            path,
            kept: Arc::new(kept),
            bytes,
        }
    }
}

/// A part of the near cache.
#[derive(Debug)]
pub(super) struct Shard {
    /// Dense, so that one can be taken at random.
    slots: Vec<Slot>,
    /// Places in `slots`, by hash.
    index: HashTable<usize>,
    sketch: Sketch,
    /// How often something was told of a key, by a part of its hash.
    told: [u64; STRIPES],
    pub(super) flights: Vec<Flight>,
    flight_number: u64,
    /// Of all slots.
    bytes: usize,
    limit_bytes: usize,
    entry_limit_bytes: usize,
    /// Hashes of keys whose entry was too large when it was last read, by a part
    /// of the hash.
    too_large: [u64; STRIPES],
    random: u64,
}

impl Shard {
    /// An empty one that takes at most so many bytes; an entry of more than
    /// `entry_limit_bytes` is not kept.
    pub(super) fn new(limit_bytes: usize, entry_limit_bytes: usize, seed: u64) -> Self {
        let sketch = Sketch::of_bytes(limit_bytes / SKETCH_PART);
        Self {
            slots: Vec::new(),
            index: HashTable::new(),
            limit_bytes: limit_bytes.saturating_sub(sketch.bytes()),
            sketch,
            told: [0; STRIPES],
            flights: Vec::new(),
            flight_number: 0,
            bytes: 0,
            entry_limit_bytes,
            too_large: [0; STRIPES],
            random: seed | 1,
        }
    }

    /// Takes at most so many bytes from now on, as [`Shard::new`] says; what is too
    /// much is for [`Shard::shrink`]. What was asked for is forgotten where another
    /// sketch is needed, and entries stay.
    pub(super) fn limit(&mut self, limit_bytes: usize, entry_limit_bytes: usize) {
        let sketch = Sketch::of_bytes(limit_bytes / SKETCH_PART);
        if sketch.bytes() != self.sketch.bytes() {
            self.sketch = sketch;
        }
        self.limit_bytes = limit_bytes.saturating_sub(self.sketch.bytes());
        self.entry_limit_bytes = entry_limit_bytes;
        self.too_large = [0; STRIPES];
    }

    /// Takes out a few entries that are too much, the least asked for; whether there
    /// are more.
    pub(super) fn shrink(&mut self) -> bool {
        for _ in 0..MAX_VICTIMS {
            if self.bytes <= self.limit_bytes {
                break;
            }
            match self.weakest(&[]) {
                Some((at, _)) => self.take(at),
                None => break,
            }
        }
        if self.bytes > self.limit_bytes {
            return !self.slots.is_empty();
        }
        // Room for what was there before is given back.
        if self.slots.capacity() > 4 * self.slots.len().max(64) {
            self.slots.shrink_to(2 * self.slots.len());
        }
        false
    }

    /// Counts that a key was asked for.
    pub(super) fn count(&mut self, hash: u64) {
        let kept = self.slots.len().max(256) as u64;
        self.sketch.count(hash, kept * AGE_AT);
    }

    /// What is kept under a key.
    pub(super) fn find(&self, place: &Place<'_>) -> Option<&Slot> {
        let is_it = |at: &usize| {
            let slot = self.slots.get(*at);
            slot.is_some_and(|slot| slot.hash == place.hash && place.is(&slot.space, &slot.path))
        };
        let at = self.index.find(place.hash, is_it)?;
        self.slots.get(*at)
    }

    /// Whether an entry that is about to be read is worth keeping. How large it
    /// is, is not known yet.
    pub(super) fn worth(&mut self, hash: u64) -> bool {
        if self.too_large.get(stripe(hash)) == Some(&hash) {
            return false;
        }
        let mean_bytes = self.bytes.checked_div(self.slots.len()).unwrap_or_default();
        if self.bytes + mean_bytes <= self.limit_bytes {
            return true;
        }
        let frequency = self.sketch.frequency(hash);
        let weakest = self.weakest(&[]);
        weakest.is_some_and(|(_, weakest)| frequency > weakest)
    }

    /// What was told of the stripe of a key; to be taken before it is read.
    pub(super) fn token(&self, hash: u64) -> u64 {
        self.told.get(stripe(hash)).copied().unwrap_or_default()
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.flight_number += 1;
        self.flight_number
    }

    /// Keeps an entry, if nothing was told since the token was taken and it is
    /// worth what leaves for it; whatever leaves, where it is `wanted`.
    pub(super) fn keep(&mut self, slot: Slot, token: u64, wanted: bool) -> bool {
        let hash = slot.hash;
        if self.token(hash) != token {
            return false;
        }
        self.remove(hash, |other| {
            other.path == slot.path && other.space == slot.space
        });
        if slot.bytes > self.entry_limit_bytes {
            if let Some(last) = self.too_large.get_mut(stripe(hash)) {
                *last = hash;
            }
            return false;
        }
        if !self.make_room(&slot, wanted) {
            return false;
        }
        self.bytes += slot.bytes;
        let at = self.slots.len();
        let slots = &mut self.slots;
        slots.push(slot);
        let hash_of = |at: &usize| slots.get(*at).map_or(0, |slot| slot.hash);
        self.index.insert_unique(hash, at, hash_of);
        true
    }

    fn make_room(&mut self, slot: &Slot, wanted: bool) -> bool {
        let lacking = (self.bytes + slot.bytes).saturating_sub(self.limit_bytes);
        let frequency = u32::from(self.sketch.frequency(slot.hash));
        let (mut victims, mut freed, mut lost) = (Vec::new(), 0, 0);
        while freed < lacking {
            let Some((at, weakest)) = self.weakest(&victims) else {
                return false;
            };
            if wanted {
                self.take(at);
                return self.make_room(slot, wanted);
            }
            lost += u32::from(weakest);
            victims.push(at);
            if lost >= frequency || victims.len() > MAX_VICTIMS {
                return false;
            }
            freed += self.slots.get(at).map_or(0, |victim| victim.bytes);
        }
        // The last ones first: whoever is last moves into the place of one taken.
        victims.sort_unstable();
        for at in victims.into_iter().rev() {
            self.take(at);
        }
        true
    }

    /// The least asked for of a few entries but these, and how often it was.
    fn weakest(&mut self, but: &[usize]) -> Option<(usize, u8)> {
        let mut weakest: Option<(usize, u8)> = None;
        for _ in 0..SAMPLE {
            let at = self.any()?;
            if but.contains(&at) {
                continue;
            }
            let frequency = self.sketch.frequency(self.slots.get(at)?.hash);
            if weakest.is_none_or(|(_, least)| frequency < least) {
                weakest = Some((at, frequency));
            }
        }
        weakest
    }

    /// A slot at random (xorshift).
    fn any(&mut self) -> Option<usize> {
        let mut random = self.random;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random = random;
        let slots = self.slots.len() as u64;
        usize::try_from(random.checked_rem(slots)?).ok()
    }

    /// Notes that something was told of a key, and removes what is kept of it
    /// where `gone` says so.
    pub(super) fn tell(&mut self, hash: u64, gone: impl Fn(&Slot) -> bool) {
        if let Some(told) = self.told.get_mut(stripe(hash)) {
            *told += 1;
        }
        if let Some(last) = self.too_large.get_mut(stripe(hash)).filter(|l| **l == hash) {
            *last = 0;
        }
        self.remove(hash, gone);
    }

    /// Removes what is kept under a hash where `gone` says so.
    pub(super) fn remove(&mut self, hash: u64, gone: impl Fn(&Slot) -> bool) {
        loop {
            let is_it = |at: &usize| {
                let slot = self.slots.get(*at);
                slot.is_some_and(|slot| slot.hash == hash && gone(slot))
            };
            let Some(at) = self.index.find(hash, is_it).copied() else {
                return;
            };
            self.take(at);
        }
    }

    /// Takes out the slot at this place; the last one moves there.
    fn take(&mut self, at: usize) {
        let Some(hash) = self.slots.get(at).map(|slot| slot.hash) else {
            return;
        };
        if let Ok(place) = self.index.find_entry(hash, |other| *other == at) {
            place.remove();
        }
        let slot = self.slots.swap_remove(at);
        self.bytes = self.bytes.saturating_sub(slot.bytes);
        let moved = self.slots.len();
        if let Some(hash) = self.slots.get(at).map(|slot| slot.hash)
            && let Some(place) = self.index.find_mut(hash, |other| *other == moved)
        {
            *place = at;
        }
    }

    /// Entries kept, and the bytes they take.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.slots.len(), self.bytes)
    }

    /// The slots from one on, at most so many, each with how often it was asked
    /// for of late.
    pub(super) fn slots(&self, from: usize, most: usize) -> impl Iterator<Item = (&Slot, u8)> {
        let slots = self.slots.iter().skip(from).take(most);
        slots.map(|slot| (slot, self.sketch.frequency(slot.hash)))
    }
}

/// The stripe of a hash, by bits that choose neither shard nor block.
fn stripe(hash: u64) -> usize {
    usize::try_from((hash >> 32) % STRIPES as u64).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        cache::Entry,
        store::{Incarnation, Watch},
    };

    static VALUE: [u8; 20_000] = [0; 20_000];

    /// Random numbers (splitmix64).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        }
    }

    fn kept(bytes: usize) -> Kept {
        Kept {
            entry: Entry {
                value: Bytes::from_static(&VALUE[..bytes]),
                content_type: String::new(),
                tags: Vec::new(),
                version: 1,
                create_ms: 1,
                expire_ms: None,
                stored_bytes: 1,
            },
            generation: 0,
            vouch: Arc::new(Watch::always()).vouch().unwrap(),
            read: Instant::now(),
        }
    }

    /// Keys of one tenant, their hashes drawn from a seed.
    struct Keys {
        space: Space,
        paths: Vec<Bytes>,
        hashes: Vec<u64>,
    }

    impl Keys {
        fn new(keys: usize, seed: u64) -> Self {
            let mut random = Random(seed);
            Self {
                space: Space::tenant(Incarnation::random()),
                paths: (0..keys)
                    .map(|key| format!("default:{key}").into())
                    .collect(),
                hashes: (0..keys).map(|_| random.next()).collect(),
            }
        }

        fn place(&self, key: usize) -> Place<'_> {
            let (namespace, key_bytes) = self.paths[key].split_at(7);
            Place {
                space: self.space.name(),
                namespace,
                key: &key_bytes[1..],
                hash: self.hashes[key],
            }
        }

        /// Asks for a key as a call does; whether it was kept.
        fn ask(&self, shard: &mut Shard, key: usize, bytes: usize) -> bool {
            let place = self.place(key);
            shard.count(place.hash);
            if shard.find(&place).is_some() {
                return true;
            }
            if shard.worth(place.hash) {
                let token = shard.token(place.hash);
                shard.keep(self.slot(key, bytes), token, false);
            }
            false
        }

        fn slot(&self, key: usize, bytes: usize) -> Slot {
            let path = self.paths[key].clone();
            Slot::new(self.hashes[key], self.space.clone(), path, kept(bytes))
        }
    }

    /// A Zipf load (exponent 1) over 100,000 keys of which a tenth has room.
    #[test]
    fn what_is_asked_for_most_is_kept() {
        const KEYS: usize = 100_000;
        const VALUE_BYTES: usize = 1000;
        const SHARDS: usize = 16;
        let keys = Keys::new(KEYS, 7);
        let room = KEYS / 10 * keys.slot(0, VALUE_BYTES).bytes;
        let mut shards: Vec<_> = (0..SHARDS as u64)
            .map(|seed| Shard::new(room / SHARDS, room / 64, seed + 1))
            .collect();
        let mut below = Vec::with_capacity(KEYS);
        let mut sum = 0.0;
        for rank in 1..=KEYS {
            sum += 1.0 / rank as f64;
            below.push(sum);
        }
        let best = below[KEYS / 10 - 1] / sum;
        assert!((0.80..0.82).contains(&best), "{best}");

        let mut random = Random(42);
        let mut rates = Vec::new();
        for _ in 0..2 {
            const CALLS: usize = 200_000;
            let mut hits = 0;
            for _ in 0..CALLS {
                let part = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
                let key = below.partition_point(|below| *below < part * sum);
                let shard = &mut shards[(keys.hashes[key] >> 60) as usize];
                hits += usize::from(keys.ask(shard, key, VALUE_BYTES));
            }
            rates.push(hits as f64 / CALLS as f64 / best);
        }
        // From the beginning, and when it has learnt.
        assert!(rates[0] > 0.88 && rates[1] > 0.97, "{rates:?} of {best}");
        let (entries, bytes) = shards.iter().fold((0, 0), |sum, shard| {
            (sum.0 + shard.size().0, sum.1 + shard.size().1)
        });
        assert!(bytes <= room && entries > KEYS / 10 * 97 / 100);
    }

    #[test]
    fn the_bound_is_kept_whatever_comes_and_goes() {
        let keys = Keys::new(3_000, 3);
        let mut shard = Shard::new(1 << 20, 1 << 14, 1);
        let mut random = Random(5);
        let mut most = 0;
        for _ in 0..60_000 {
            let key = (random.next() % 3_000) as usize;
            let bytes = (random.next() % 20_000) as usize;
            match random.next() % 8 {
                0 => shard.tell(keys.hashes[key], |_| true),
                1 => {
                    let token = shard.token(keys.hashes[key]);
                    let slot = keys.slot(key, bytes);
                    let small = slot.bytes <= 1 << 14;
                    assert_eq!(shard.keep(slot, token, true), small, "wanted");
                }
                _ => {
                    keys.ask(&mut shard, key, bytes);
                }
            }
            let (entries, bytes) = shard.size();
            most = most.max(bytes);
            assert!(bytes + shard.sketch.bytes() <= 1 << 20);
            assert_eq!(shard.index.len(), entries);
        }
        assert!(most > 1 << 19, "it was not full: {most}");
        // What is found is what was kept: no place was mixed up.
        for key in 0..3_000 {
            let place = keys.place(key);
            let slots = shard.slots.iter();
            let kept = slots.filter(|slot| slot.path == keys.paths[key]).count();
            assert_eq!(shard.find(&place).map_or(0, |_| 1), kept);
        }
        let bytes = shard.slots.iter().map(|slot| slot.bytes).sum::<usize>();
        assert_eq!(bytes, shard.bytes);
    }

    #[test]
    fn what_was_told_of_meanwhile_is_not_kept() {
        let keys = Keys::new(2, 1);
        let mut shard = Shard::new(1 << 20, 1 << 14, 1);
        let token = shard.token(keys.hashes[0]);
        shard.tell(keys.hashes[0], |_| true);
        assert!(!shard.keep(keys.slot(0, 10), token, true));
        let token = shard.token(keys.hashes[0]);
        assert!(shard.keep(keys.slot(0, 10), token, false));
        assert!(shard.find(&keys.place(0)).is_some());
        // Even where what is told is of another generation, and stays.
        shard.tell(keys.hashes[0], |_| false);
        assert!(shard.find(&keys.place(0)).is_some());
        assert!(!shard.keep(keys.slot(0, 20), token, true));
    }

    #[test]
    fn what_is_too_large_is_remembered_until_it_is_told_of() {
        let keys = Keys::new(1, 1);
        let (hash, mut shard) = (keys.hashes[0], Shard::new(1 << 20, 1 << 14, 1));
        assert!(shard.worth(hash));
        assert!(!shard.keep(keys.slot(0, 20_000), shard.token(hash), true));
        assert!(!shard.worth(hash));
        shard.tell(hash, |_| true);
        assert!(shard.worth(hash));
    }
}
