//! Keys that seal, the keys of a tenant, and the place that what is sealed is bound
//! to. It does not know where keys come from, nor what a frame looks like.

use std::{fmt, sync::OnceLock};

use super::xaes::{self, Xaes};
use crate::{
    error::{Error, Result},
    store::Incarnation,
};

pub use super::xaes::{KEY_BYTES, NONCE_BYTES};

/// Bytes that sealing adds to what it seals: the nonce before it, the tag after it.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + xaes::TAG_BYTES;

/// A key, ready for use. It does not print, and is wiped when it is dropped.
pub struct Key(Xaes);

impl Key {
    /// The key of these bytes, which the caller wipes.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Xaes::new(bytes))
    }

    /// Seals the end of `text`, bound to `bound`: at `at` is room for a nonce, what
    /// comes after it is sealed, and a tag is appended.
    ///
    /// # Errors
    /// [`Error::Internal`] where there is no room for the nonce, or more to be
    /// sealed than 64 GiB.
    pub fn seal(&self, bound: &[u8], text: &mut Vec<u8>, at: usize) -> Result<()> {
        let room = text.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
        if let Some(nonce) = room {
            *nonce = crate::random::bytes();
            let nonce = *nonce;
            if self.0.seal(&nonce, bound, text, at + nonce.len()) {
                return Ok(());
            }
        }
        Err(Error::Internal("more than can be sealed".into()))
    }

    /// What [`Key::seal`] sealed; `None` where it was not sealed by this key, with
    /// this bound, or not left as it was.
    pub fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk()?;
        let mut text = sealed.to_vec();
        self.0.open(nonce, bound, &mut text).then_some(text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A tenant's data key: its number, and the key or why there is none.
#[derive(Debug)]
pub struct DataKey {
    /// Its number among the tenant's, from 1.
    pub id: u32,
    /// The key, or why it cannot be had.
    pub key: std::result::Result<Key, String>,
}

/// The data keys of one life of a tenant: the newest seals, and all open what they
/// sealed.
#[derive(Debug)]
pub struct Keyring {
    /// The newest first.
    keys: Vec<DataKey>,
    /// The same ring as it was found later, after a rotation.
    later: OnceLock<Box<Keyring>>,
}

impl Keyring {
    /// The ring of these keys, in any order.
    pub fn new(mut keys: Vec<DataKey>) -> Self {
        keys.sort_by_key(|key| std::cmp::Reverse(key.id));
        Self {
            keys,
            later: OnceLock::new(),
        }
    }

    /// The number of the newest key; 0 where there is none.
    pub fn newest(&self) -> u32 {
        self.latest().keys.first().map_or(0, |key| key.id)
    }

    /// Takes the ring as it is now for whoever holds this one, if it has a newer
    /// key.
    pub fn renew(&self, ring: Self) {
        let latest = self.latest();
        if ring.newest() > latest.newest() {
            // Where another was faster, what it found is as good.
            let _ = latest.later.set(Box::new(ring));
        }
    }

    fn latest(&self) -> &Self {
        let mut ring = self;
        while let Some(later) = ring.later.get() {
            ring = later;
        }
        ring
    }

    /// The key that seals.
    ///
    /// # Errors
    /// [`Error::ConditionNotMet`] where it cannot be had: nothing is written in the
    /// clear instead, nor by an older key.
    pub fn sealing(&self) -> Result<(u32, &Key)> {
        let none = |why: &str| Error::ConditionNotMet {
            subject: "data key".into(),
            description: why.to_owned(),
        };
        let newest = self.latest().keys.first();
        let newest = newest.ok_or_else(|| none("there is none"))?;
        match &newest.key {
            Ok(key) => Ok((newest.id, key)),
            Err(why) => Err(none(why)),
        }
    }

    /// The key that opens what this one sealed.
    ///
    /// # Errors
    /// [`Error::EntryCorrupt`] where it cannot be had.
    pub(super) fn opening(&self, id: u32) -> Result<&Key> {
        match self.latest().keys.iter().find(|key| key.id == id) {
            Some(DataKey { key: Ok(key), .. }) => Ok(key),
            Some(DataKey { key: Err(why), .. }) => Err(Error::EntryCorrupt(why.clone())),
            None => Err(Error::EntryCorrupt(format!(
                "it is sealed by a data key {id}, which its tenant does not have"
            ))),
        }
    }
}

/// Where an entry lives: what is sealed there opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The life of its tenant.
    pub incarnation: Incarnation,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its key.
    pub key: &'a str,
    /// The tenant's data keys; `None` where nothing of it is sealed.
    pub keyring: Option<&'a Keyring>,
}

impl Place<'_> {
    /// What an entry with this head and these attributes is bound to here. Each
    /// part has a known length, so that no two places read the same.
    pub(super) fn bound(&self, head: &[u8], attributes: &[u8]) -> Vec<u8> {
        let parts = [self.namespace.as_bytes(), self.key.as_bytes(), head];
        let bytes: usize = parts.iter().map(|part| 8 + part.len()).sum();
        let mut bound = Vec::with_capacity(16 + bytes + attributes.len());
        bound.extend_from_slice(b"entry ");
        bound.extend_from_slice(self.incarnation.as_bytes());
        for part in parts {
            bound.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bound.extend_from_slice(part);
        }
        bound.extend_from_slice(attributes);
        bound
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::new(&[byte; KEY_BYTES])
    }

    #[test]
    fn seals_the_end_and_opens_it_again() {
        let mut text = [b"head ".as_slice(), &[0; NONCE_BYTES], b"and text"].concat();
        key(1).seal(b"bound", &mut text, 5).unwrap();
        assert_eq!(text.len(), 13 + OVERHEAD_BYTES);
        assert!(text.starts_with(b"head "));
        let (_, sealed) = text.split_at(5);
        assert_eq!(key(1).open(b"bound", sealed).unwrap(), b"and text");
        for refused in [
            key(2).open(b"bound", sealed),
            key(1).open(b"elsewhere", sealed),
            key(1).open(b"bound", b"short"),
            key(1).open(b"bound", b""),
        ] {
            assert_eq!(refused, None);
        }
    }

    #[test]
    fn nothing_is_sealed_the_same_twice() {
        let sealed = || {
            let mut text = [[0; NONCE_BYTES].as_slice(), b"text"].concat();
            key(1).seal(b"", &mut text, 0).unwrap();
            text
        };
        let (one, other) = (sealed(), sealed());
        assert_ne!(one, other);
        assert_eq!(key(1).open(b"", &one), key(1).open(b"", &other));
    }

    #[test]
    fn the_newest_seals_or_nothing_does() {
        let lost = |id| DataKey {
            id,
            key: Err(format!("lost {id}")),
        };
        let had = |id| DataKey {
            id,
            key: Ok(key(1)),
        };
        let ring = Keyring::new(vec![lost(1), had(2)]);
        assert_eq!((ring.newest(), ring.sealing().unwrap().0), (2, 2));
        assert!(ring.opening(2).is_ok());
        for (id, why) in [(1, "lost 1"), (3, "data key 3")] {
            match ring.opening(id) {
                Err(Error::EntryCorrupt(what)) => assert!(what.contains(why), "{what}"),
                other => unreachable!("{other:?}"),
            }
        }
        for ring in [Keyring::new(vec![had(1), lost(2)]), Keyring::new(vec![])] {
            assert!(matches!(ring.sealing(), Err(Error::ConditionNotMet { .. })));
        }
    }

    #[test]
    fn a_ring_that_is_held_learns_of_newer_keys() {
        let ring = |newest| {
            let had = |id| DataKey {
                id,
                key: Ok(key(1)),
            };
            Keyring::new((1..=newest).map(had).collect())
        };
        let held = ring(1);
        assert!(held.opening(3).is_err());
        for (found, newest) in [(1, 1), (3, 3), (2, 3), (4, 4)] {
            held.renew(ring(found));
            assert_eq!(held.newest(), newest);
            assert_eq!(held.sealing().unwrap().0, newest);
            assert!(held.opening(newest).is_ok() && held.opening(1).is_ok());
        }
    }

    #[test]
    fn places_that_only_join_alike_differ() {
        let incarnation = Incarnation::random();
        let bound = |namespace, key, head: &[u8], attributes: &[u8]| {
            let place = Place {
                incarnation,
                namespace,
                key,
                keyring: None,
            };
            place.bound(head, attributes)
        };
        let one = bound("a", "bc", b"d", b"e");
        for other in [
            bound("ab", "c", b"d", b"e"),
            bound("a", "b", b"cd", b"e"),
            bound("a", "bc", b"de", b""),
            bound("a", "bc", b"", b"de"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_key_does_not_print() {
        let ring = Keyring::new(vec![DataKey {
            id: 7,
            key: Ok(key(0xab)),
        }]);
        let printed = format!("{ring:?}").to_lowercase();
        assert!(printed.contains('7'));
        assert!(
            !printed.contains("ab") && !printed.contains("171"),
            "{printed}"
        );
    }
}
