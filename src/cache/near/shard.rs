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

use hashbrown::HashTable;

use super::{Kept, Labels, Place, flight::Flight, sketch::Sketch};

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

/// The part of the slots that there is room for beside them.
const SLACK_PART: usize = 8;

/// Bytes that a kept entry takes beside its key, value and labels: its slot and the
/// room for more of them, its place in the index, which is half full at least, what it
/// shares, with two counts, the handle of a value that was answered, and what an
/// allocator adds to four allocations.
const OVERHEAD_BYTES: usize = size_of::<Slot>() * (SLACK_PART + 1) / SLACK_PART
    + 2 * (size_of::<u32>() + 1)
    + (size_of::<Kept>() + 16)
    + 24
    + 4 * 8;

/// A kept entry, and whose it is.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) hash: u64,
    pub(super) kept: Arc<Kept>,
    bytes: usize,
}

impl Slot {
    pub(super) fn new(hash: u64, kept: Kept) -> Self {
        let labels = kept.labels.as_ref().map_or(0, |labels| {
            let tags = labels.tags.iter().map(|tag| tag.len() + 40);
            size_of::<Labels>() + labels.content_type.len() + tags.sum::<usize>()
        });
        let bytes = kept.path.len() + kept.value.len() + labels + OVERHEAD_BYTES;
        Self {
            hash,
            kept: Arc::new(kept),
            bytes,
        }
    }
}

/// How many entries have left, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// For want of room.
    pub evicted: u64,
    /// As they were changed, or may have been.
    pub told: u64,
}

/// A part of the near cache.
#[derive(Debug)]
pub(super) struct Shard {
    /// Dense, so that one can be taken at random.
    slots: Vec<Slot>,
    /// Places in `slots`, by hash.
    index: HashTable<u32>,
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
    pub(super) left: Left,
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
            left: Left::default(),
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
                Some((at, _)) => self.evict(at),
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

    /// Notes that a key was asked for so often of late.
    pub(super) fn remember(&mut self, hash: u64, uses: u8) {
        self.sketch.raise(hash, uses);
    }

    /// What is kept under a key.
    pub(super) fn find(&self, place: &Place<'_>) -> Option<&Slot> {
        let is_it = |at: &u32| {
            let slot = self.slots.get(*at as usize);
            slot.is_some_and(|slot| {
                let kept = &slot.kept;
                slot.hash == place.hash && place.is(&kept.space, &kept.path)
            })
        };
        let at = self.index.find(place.hash, is_it)?;
        self.slots.get(*at as usize)
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
            let (other, kept) = (&other.kept, &slot.kept);
            other.path == kept.path && other.space == kept.space
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
        let Ok(at) = u32::try_from(self.slots.len()) else {
            return false;
        };
        self.bytes += slot.bytes;
        let slots = &mut self.slots;
        if slots.len() == slots.capacity() {
            slots.reserve_exact((slots.len() / SLACK_PART).max(16));
        }
        slots.push(slot);
        let hash_of = |at: &u32| slots.get(*at as usize).map_or(0, |slot| slot.hash);
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
                self.evict(at);
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
            self.evict(at);
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
        self.left.told += self.remove(hash, gone);
    }

    /// Removes what is kept under a hash where `gone` says so; how many there were.
    pub(super) fn remove(&mut self, hash: u64, gone: impl Fn(&Slot) -> bool) -> u64 {
        let mut removed = 0;
        loop {
            let is_it = |at: &u32| {
                let slot = self.slots.get(*at as usize);
                slot.is_some_and(|slot| slot.hash == hash && gone(slot))
            };
            let Some(at) = self.index.find(hash, is_it).copied() else {
                return removed;
            };
            self.take(at as usize);
            removed += 1;
        }
    }

    /// Takes out the slot at this place, for want of room.
    fn evict(&mut self, at: usize) {
        self.take(at);
        self.left.evicted += 1;
    }

    /// Takes out the slot at this place; the last one moves there.
    fn take(&mut self, at: usize) {
        let Some(hash) = self.slots.get(at).map(|slot| slot.hash) else {
            return;
        };
        let is = |at: usize| move |other: &u32| *other as usize == at;
        if let Ok(place) = self.index.find_entry(hash, is(at)) {
            place.remove();
        }
        let slot = self.slots.swap_remove(at);
        self.bytes = self.bytes.saturating_sub(slot.bytes);
        let moved = self.slots.len();
        if let Some(hash) = self.slots.get(at).map(|slot| slot.hash)
            && let Some(place) = self.index.find_mut(hash, is(moved))
        {
            // It is below the number of slots, which is one.
            *place = u32::try_from(at).unwrap_or(u32::MAX);
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
    use std::{collections::HashMap, time::Instant};

    use bytes::Bytes;

    use super::*;
    use crate::{
        cache::Entry,
        store::{Incarnation, Space, Watch},
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

    fn entry(bytes: usize) -> Entry {
        Entry {
            value: Bytes::from_static(&VALUE[..bytes]),
            content_type: String::new(),
            tags: Vec::new(),
            version: 1,
            create_ms: 1,
            expire_ms: None,
            stored_bytes: 1,
        }
    }

    /// Numbers by Zipf's law (exponent 1).
    struct Zipf {
        below: Vec<f64>,
        sum: f64,
    }

    impl Zipf {
        fn new(keys: usize) -> Self {
            let (mut below, mut sum) = (Vec::with_capacity(keys), 0.0);
            for rank in 1..=keys {
                sum += 1.0 / rank as f64;
                below.push(sum);
            }
            Self { below, sum }
        }

        /// The part of all draws that the first so many get.
        fn part_of(&self, keys: usize) -> f64 {
            self.below[keys - 1] / self.sum
        }

        fn draw(&self, random: &mut Random) -> usize {
            let part = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
            self.below.partition_point(|below| *below < part * self.sum)
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
            let whose = (&self.space, &*self.paths[key]);
            let vouch = Arc::new(Watch::always()).vouch().unwrap();
            let kept = Kept::new(&entry(bytes), whose, 0, vouch, Instant::now());
            Slot::new(self.hashes[key], kept)
        }
    }

    /// Shards, and keys that are asked for by Zipf's law.
    struct Load {
        keys: Keys,
        zipf: Zipf,
        random: Random,
        shards: Vec<Shard>,
    }

    impl Load {
        const KEYS: usize = 100_000;
        const VALUE_BYTES: usize = 1024;
        const SHARDS: usize = 2;
        /// A tenth of all values.
        const ROOM: usize = Self::KEYS * Self::VALUE_BYTES / 10;

        fn new() -> Self {
            Self {
                keys: Keys::new(Self::KEYS, 7),
                zipf: Zipf::new(Self::KEYS),
                random: Random(42),
                shards: Self::shards(),
            }
        }

        fn shards() -> Vec<Shard> {
            let shard = |n| Shard::new(Self::ROOM / Self::SHARDS, Self::ROOM / 64, n + 1);
            (0..Self::SHARDS as u64).map(shard).collect()
        }

        fn at(&self, key: usize) -> usize {
            (self.keys.hashes[key] >> 58) as usize % Self::SHARDS
        }

        /// The part of so many calls that is answered.
        fn ask(&mut self, calls: usize) -> f64 {
            let mut hits = 0;
            for _ in 0..calls {
                let key = self.zipf.draw(&mut self.random);
                let at = self.at(key);
                let asked = self.keys.ask(&mut self.shards[at], key, Self::VALUE_BYTES);
                hits += usize::from(asked);
            }
            hits as f64 / calls as f64
        }

        /// The most that can be answered: what fits, of the most frequent.
        fn best(&self) -> f64 {
            let sketches: usize = self.shards.iter().map(|shard| shard.sketch.bytes()).sum();
            let fit = (Self::ROOM - sketches) / self.keys.slot(0, Self::VALUE_BYTES).bytes;
            self.zipf.part_of(fit)
        }

        /// A process after this one, which begins with what was hot.
        fn restart(&mut self) {
            let old = std::mem::replace(&mut self.shards, Self::shards());
            let hot = old.iter().flat_map(|shard| shard.slots(0, usize::MAX));
            let hot: HashMap<_, _> = hot.map(|(slot, uses)| (slot.hash, uses)).collect();
            for key in 0..Self::KEYS {
                if let Some(&uses) = hot.get(&self.keys.hashes[key]) {
                    let at = self.at(key);
                    let (slot, shard) =
                        (self.keys.slot(key, Self::VALUE_BYTES), &mut self.shards[at]);
                    shard.remember(slot.hash, uses);
                    let token = shard.token(slot.hash);
                    assert!(shard.keep(slot, token, true));
                }
            }
        }
    }

    #[test]
    fn what_is_asked_for_most_is_kept() {
        let mut load = Load::new();
        let best = load.best();
        assert!(best > 0.78, "so much could be answered: {best}");
        let part = |rate: f64| rate / best;
        let rates = [200_000, 100_000, 100_000].map(|calls| part(load.ask(calls)));
        // From the beginning, and when it has learnt.
        assert!(rates[0] > 0.88 && rates[2] > 0.97, "{rates:?} of {best}");
        load.restart();
        // At once, and later: what comes then does not drive out what is hot.
        let rates = [10_000, 40_000, 50_000, 50_000].map(|calls| part(load.ask(calls)));
        assert!(rates.iter().all(|rate| *rate > 0.97), "{rates:?} of {best}");
        // It is full.
        let bytes: usize = load.shards.iter().map(|shard| shard.size().1).sum();
        let sketches: usize = load.shards.iter().map(|shard| shard.sketch.bytes()).sum();
        assert!(bytes + sketches <= Load::ROOM && bytes > Load::ROOM * 96 / 100);
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
            let kept = slots
                .filter(|slot| *slot.kept.path == *keys.paths[key])
                .count();
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
