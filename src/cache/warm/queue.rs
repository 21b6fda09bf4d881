//! Items that wait for the store, and how they are cut into pieces. It does not
//! know what is done with a piece.

use std::{
    collections::{HashSet, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
};

use super::{NewEntry, Part};
use crate::tenant::Tenancy;

/// Items of a piece. A commit of as many puts takes Redis about half a millisecond;
/// more in one would hold up others for longer than they save.
const PIECE_ITEMS: usize = 100;

/// Keys of a piece: their values come back whole, however large they are.
const PIECE_KEYS: usize = 25;

/// Bytes of a piece, the last item aside.
const PIECE_BYTES: u64 = 256 << 10;

/// Pieces at the store at once: enough that it never waits for the next.
const FLYING: usize = 6;

/// Bytes of the pieces at the store at which no other follows.
const FLYING_BYTES: u64 = 512 << 10;

/// Items that wait, and what is known of the pieces on their way.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Item>,
    bytes: u64,
    /// The call as it was last admitted.
    tenancy: Option<Tenancy>,
    /// Pieces on their way.
    flying: usize,
    /// Their bytes.
    flying_bytes: u64,
    /// Hashes of the keys in them.
    keys: HashSet<u64>,
    hasher: RandomState,
}

struct Item {
    what: One,
    /// Where it stood in its part.
    place: usize,
    /// The operations that are counted with it: its part's, with the first.
    operations: u64,
    hash: u64,
    bytes: u64,
}

enum One {
    Entry(NewEntry),
    Key(String),
}

/// Items that go to the store together.
pub(super) struct Piece {
    pub(super) tenancy: Tenancy,
    pub(super) what: What,
    /// Where each item stood in its part.
    pub(super) places: Vec<usize>,
    /// How many parts begin with an item of it.
    pub(super) operations: u64,
    hashes: Vec<u64>,
    bytes: u64,
}

/// The items of a piece, which are of one kind.
pub(super) enum What {
    Entries(Vec<NewEntry>),
    Keys(Vec<String>),
}

impl What {
    /// The keys of the items.
    pub(super) fn into_keys(self) -> Box<dyn Iterator<Item = String> + Send> {
        match self {
            Self::Entries(entries) => Box::new(entries.into_iter().map(|entry| entry.key)),
            Self::Keys(keys) => Box::new(keys.into_iter()),
        }
    }
}

impl Queue {
    /// Whether a part may be taken: less than a piece waits, which can leave.
    pub(super) fn has_room(&self) -> bool {
        self.is_free() && self.waiting.len() < PIECE_ITEMS && self.bytes < PIECE_BYTES
    }

    /// Whether another piece may leave.
    fn is_free(&self) -> bool {
        self.flying < FLYING && self.flying_bytes < FLYING_BYTES
    }

    /// Lets the items of a part wait.
    pub(super) fn push(&mut self, part: Part) {
        self.tenancy = Some(part.tenancy);
        let mut operations = 1;
        let entries = part.entries.into_iter().map(One::Entry);
        let keys = part.keys.into_iter().map(One::Key);
        for (place, what) in entries.enumerate().chain(keys.enumerate()) {
            let (key, bytes) = match &what {
                One::Entry(entry) => (&entry.key, entry.bytes()),
                One::Key(key) => (key, key.len() as u64),
            };
            let hash = self.hasher.hash_one(key);
            self.bytes += bytes;
            self.waiting.push_back(Item {
                what,
                place,
                operations,
                hash,
                bytes,
            });
            operations = 0;
        }
    }

    /// The next piece, if it may leave: a whole one, or with `any` what there is. It
    /// ends before an item whose key is on its way, and waits where that is its first.
    pub(super) fn cut(&mut self, any: bool) -> Option<Piece> {
        let most = match self.waiting.front()?.what {
            One::Entry(_) => PIECE_ITEMS,
            One::Key(_) => PIECE_KEYS,
        };
        let whole = self.waiting.len() >= most || self.bytes >= PIECE_BYTES;
        if !self.is_free() || !(whole || any) {
            return None;
        }
        let mut piece = Piece {
            tenancy: self.tenancy.clone()?,
            what: match self.waiting.front()?.what {
                One::Entry(_) => What::Entries(Vec::new()),
                One::Key(_) => What::Keys(Vec::new()),
            },
            places: Vec::new(),
            operations: 0,
            hashes: Vec::new(),
            bytes: 0,
        };
        while let Some(item) = self.waiting.pop_front() {
            let full = piece.places.len() >= most || piece.bytes >= PIECE_BYTES;
            if full || self.keys.contains(&item.hash) {
                self.waiting.push_front(item);
                break;
            }
            match (&mut piece.what, item.what) {
                (What::Entries(entries), One::Entry(entry)) => entries.push(entry),
                (What::Keys(keys), One::Key(key)) => keys.push(key),
                (_, what) => {
                    self.waiting.push_front(Item { what, ..item });
                    break;
                }
            }
            piece.bytes += item.bytes;
            piece.places.push(item.place);
            piece.operations += item.operations;
            piece.hashes.push(item.hash);
        }
        if piece.places.is_empty() {
            return None;
        }
        self.bytes -= piece.bytes;
        self.flying += 1;
        self.flying_bytes += piece.bytes;
        self.keys.extend(&piece.hashes);
        Some(piece)
    }

    /// Notes that a piece is back.
    pub(super) fn land(&mut self, piece: &Piece) {
        self.flying -= 1;
        self.flying_bytes -= piece.bytes;
        for hash in &piece.hashes {
            self.keys.remove(hash);
        }
    }
}

impl NewEntry {
    fn bytes(&self) -> u64 {
        let tags: usize = self.tags.iter().map(String::len).sum();
        (self.key.len() + self.value.len() + self.content_type.len() + tags) as u64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        cache::Condition,
        store::Incarnation,
        tenant::{Accounts, Terms},
    };

    fn part(entries: &[(&str, usize)], keys: &[&str]) -> Part {
        let account = Accounts::default().of(Incarnation::random());
        let entry = |&(key, bytes): &(&str, usize)| NewEntry {
            key: key.to_owned(),
            value: vec![0; bytes].into(),
            ttl_ms: None,
            content_type: String::new(),
            tags: Vec::new(),
            condition: Some(Condition::None),
            if_version: 0,
        };
        Part {
            tenancy: Tenancy::on(Arc::new(Terms::unlimited("acme", account))),
            entries: entries.iter().map(entry).collect(),
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
        }
    }

    /// The items of a piece by their places, and its operations.
    fn cut(queue: &mut Queue, any: bool) -> Option<(Piece, Vec<usize>, u64)> {
        let piece = queue.cut(any)?;
        let (places, operations) = (piece.places.clone(), piece.operations);
        Some((piece, places, operations))
    }

    #[test]
    fn parts_are_gathered_and_cut_where_the_kind_changes() {
        let mut queue = Queue::default();
        queue.push(part(&[("a", 1)], &[]));
        queue.push(part(&[("b", 1), ("c", 1)], &["d", "e"]));
        assert!(queue.cut(false).is_none(), "too little to leave by itself");
        let (first, places, operations) = cut(&mut queue, true).unwrap();
        assert_eq!((places, operations), (vec![0, 0, 1], 2));
        assert_eq!(first.what.into_keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        let (second, places, operations) = cut(&mut queue, true).unwrap();
        assert_eq!((places, operations), (vec![0, 1], 0));
        assert_eq!(second.what.into_keys().collect::<Vec<_>>(), ["d", "e"]);
        assert!(queue.cut(true).is_none() && queue.bytes == 0);
    }

    #[test]
    fn an_item_waits_for_another_of_its_key() {
        let mut queue = Queue::default();
        queue.push(part(&[("a", 1), ("b", 1), ("a", 1)], &["b"]));
        // The same key twice is no matter within a piece.
        let (first, places, _) = cut(&mut queue, true).unwrap();
        assert_eq!(places, [0, 1, 2]);
        assert!(queue.cut(true).is_none(), "b is on its way");
        queue.land(&first);
        assert_eq!(cut(&mut queue, true).unwrap().1, [0]);
    }

    #[test]
    fn pieces_are_bounded_in_items_bytes_and_number() {
        let mut queue = Queue::default();
        let names: Vec<_> = (0..(FLYING + 1) * PIECE_ITEMS)
            .map(|n| n.to_string())
            .collect();
        let small: Vec<_> = names.iter().map(|name| (&**name, 1)).collect();
        queue.push(part(&small, &[]));
        assert!(!queue.has_room());
        let mut pieces: Vec<_> = std::iter::from_fn(|| queue.cut(false)).collect();
        assert_eq!(pieces.len(), FLYING);
        assert!(pieces.iter().all(|piece| piece.places.len() == PIECE_ITEMS));
        assert!(!queue.has_room());
        queue.land(&pieces.pop().unwrap());
        assert!(queue.cut(true).is_some() && queue.waiting.is_empty());

        let mut queue = Queue::default();
        let large = usize::try_from(PIECE_BYTES).unwrap() / 2;
        queue.push(part(&[("a", large), ("b", large), ("c", large)], &[]));
        queue.push(part(&[("d", 2 * large), ("e", 1)], &[]));
        assert_eq!(cut(&mut queue, false).unwrap().1, [0, 1]);
        let (second, places, _) = cut(&mut queue, false).unwrap();
        assert_eq!(places, [2, 0]);
        assert!(
            !queue.has_room() && queue.cut(true).is_none(),
            "bytes enough"
        );
        queue.land(&second);
        assert!(queue.has_room() && queue.cut(false).is_none());
        assert_eq!(cut(&mut queue, true).unwrap().1, [1]);
    }
}
