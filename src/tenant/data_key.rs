//! The data keys that tenants' values are sealed with: drawn at random, wrapped by
//! a master key, kept in the tenant's record. It does not know what they seal.

mod rewrap;
mod rotation;
mod wrapping;

use std::{fmt, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use rewrap::{Lost, Rewrapped};
pub use wrapping::{NotUnwrapped, Wrapped};

use super::{Tenancy, audit, record};
use crate::{
    codec::seal::{self, KEY_BYTES, Key, Keyring, NONCE_BYTES},
    config,
    error::{Error, Result},
    store::{Handle, Incarnation, Space},
};

/// Data keys that a tenant can have: one that seals, and those before it.
pub const MAX_DATA_KEYS: usize = 1000;

/// Under this name an entry that cannot be opened is told once a minute; no metric
/// is named so.
const NOT_OPENED: &str = "(entries not opened)";

/// How a tenant's values are encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// Its data keys, the newest first: that one seals, all open. They stay until
    /// the tenant is purged.
    pub data_keys: Vec<DataKey>,
}

/// A data key of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataKey {
    /// Its number among the tenant's, from 1.
    pub id: u32,
    /// The master key that wraps it, by its id.
    pub master_key: String,
    /// When it was made, by the store's clock, in ms since 1970.
    pub create_ms: u64,
    /// The key as its master key sealed it, in base64; empty in an answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    wrapped: String,
}

impl Encryption {
    /// The encryption of a new tenant, with its first data key.
    ///
    /// # Errors
    /// [`Error::ConditionNotMet`] where there is no master key.
    pub(super) fn begin(masters: &Masters, incarnation: Incarnation, now_ms: u64) -> Result<Self> {
        let mut encryption = Self::default();
        encryption.draw(masters, incarnation, now_ms)?;
        Ok(encryption)
    }

    /// Draws a data key, which seals from now on.
    fn draw(&mut self, masters: &Masters, incarnation: Incarnation, now_ms: u64) -> Result<()> {
        let last = self.data_keys.first().map_or(0, |key| key.id);
        let key = Zeroizing::new(crate::random::bytes());
        let drawn = masters.wrap(incarnation, last.saturating_add(1), now_ms, &key)?;
        self.data_keys.insert(0, drawn);
        Ok(())
    }

    /// The data keys without the keys.
    pub(super) fn bare(&self) -> Self {
        let bare = |key: &DataKey| DataKey {
            wrapped: String::new(),
            ..key.clone()
        };
        Self {
            data_keys: self.data_keys.iter().map(bare).collect(),
        }
    }
}

/// The master keys. They do not print, and are wiped when they are dropped.
#[derive(Default)]
pub struct Masters(ArcSwap<Vec<(String, Key)>>);

impl Masters {
    /// These master keys; the first one wraps, all unwrap.
    pub fn new(keys: &[config::MasterKey]) -> Self {
        let masters = Self::default();
        masters.replace(keys);
        masters
    }

    /// These from now on. What was unwrapped before stays so in keyrings.
    pub fn replace(&self, keys: &[config::MasterKey]) {
        let keys = keys.iter();
        let keys = keys.map(|given| (given.id.clone(), Key::new(&given.key)));
        self.0.store(Arc::new(keys.collect()));
    }

    /// The id of the one that wraps.
    pub fn writing(&self) -> Option<String> {
        self.0.load().first().map(|(id, _)| id.clone())
    }

    fn wrap(
        &self,
        incarnation: Incarnation,
        id: u32,
        create_ms: u64,
        key: &[u8; KEY_BYTES],
    ) -> Result<DataKey> {
        let masters = self.0.load();
        let (master_key, master) = masters.first().ok_or_else(no_master)?;
        let mut wrapped = Vec::with_capacity(seal::OVERHEAD_BYTES + KEY_BYTES);
        wrapped.extend_from_slice(&[0; NONCE_BYTES]);
        wrapped.extend_from_slice(key);
        master.seal(&bound(incarnation, id, master_key), &mut wrapped, 0)?;
        Ok(DataKey {
            id,
            master_key: master_key.clone(),
            create_ms,
            wrapped: BASE64.encode(&wrapped),
        })
    }

    /// The key in a data key; why not, where it cannot be had.
    fn unwrap(
        &self,
        incarnation: Incarnation,
        key: &DataKey,
    ) -> std::result::Result<Zeroizing<[u8; KEY_BYTES]>, String> {
        let (id, named) = (key.id, &key.master_key);
        let masters = self.0.load();
        let master = masters.iter().find(|(known, _)| known == named);
        let (_, master) = master.ok_or_else(|| {
            format!(
                "data key {id} is wrapped by the master key {named}, which is not in encryption.master_keys"
            )
        })?;
        let opened = BASE64.decode(key.wrapped.as_bytes()).ok();
        let opened = opened
            .and_then(|wrapped| master.open(&bound(incarnation, id, named), &wrapped))
            .map(Zeroizing::new);
        opened
            .and_then(|key| key.as_slice().try_into().ok().map(Zeroizing::new))
            .ok_or_else(|| {
                format!(
                    "data key {id} does not open by the master key {named}: it is damaged, or another key has that id now"
                )
            })
    }

    /// The ring of a tenant's data keys, opened as far as they can be.
    pub(super) fn keyring(&self, incarnation: Incarnation, encryption: &Encryption) -> Keyring {
        let opened = |key: &DataKey| seal::DataKey {
            id: key.id,
            key: self.unwrap(incarnation, key).map(|key| Key::new(&key)),
        };
        Keyring::new(encryption.data_keys.iter().map(opened).collect())
    }
}

/// Nothing can be wrapped.
pub(crate) fn no_master() -> Error {
    Error::ConditionNotMet {
        subject: "encryption.master_keys".into(),
        description: format!("no master key is configured; {}", config::HOW_TO_MAKE),
    }
}

/// What a wrapped data key is bound to.
fn bound(incarnation: Incarnation, id: u32, master_key: &str) -> Vec<u8> {
    let parts: [&[u8]; 4] = [
        b"data key ",
        incarnation.as_bytes(),
        &id.to_le_bytes(),
        master_key.as_bytes(),
    ];
    parts.concat()
}

impl fmt::Debug for Masters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.load().iter().map(|(id, _)| id))
            .finish()
    }
}

impl Tenancy {
    /// Makes sure that the data key of this number is known, if there is one. It
    /// may have been made through another replica after this call was admitted;
    /// then the tenant's record is read once.
    ///
    /// # Errors
    /// The store's.
    pub async fn learn_data_key(&self, store: &Handle, id: u32) -> Result<()> {
        let Some(keyring) = self.keyring.as_ref().filter(|ring| ring.newest() < id) else {
            return Ok(());
        };
        let key = record::tenant_key(&self.tenant_id);
        let read = store.read(&Space::registry(), 0, &[key]).await?;
        if let Some(found) = read.records.into_iter().next().flatten() {
            let tenant: record::Tenant = record::decode(&found.value)?;
            if let Some(encryption) = tenant.encryption
                && tenant.incarnation == self.incarnation
            {
                keyring.renew(self.masters.keyring(self.incarnation, &encryption));
            }
        }
        Ok(())
    }

    /// Tells in the audit log, once a minute, that an entry could not be opened.
    pub fn tell_unopened(&self, why: &str) {
        if self.account.warned.is_due(NOT_OPENED, Instant::now()) {
            audit::tell_unopened(&self.account.audit, &self.tenant_id, why);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn masters(keys: &[(&str, u8)]) -> Masters {
        let key = |(id, byte): &(&str, u8)| config::MasterKey {
            id: (*id).to_owned(),
            key: Zeroizing::new([*byte; KEY_BYTES]),
        };
        Masters::new(&keys.iter().map(key).collect::<Vec<_>>())
    }

    #[test]
    fn a_data_key_opens_by_its_master_alone_and_in_its_place_alone() {
        let (life, other) = (Incarnation::random(), Incarnation::random());
        let made = masters(&[("new", 2), ("old", 1)]);
        let drawn = made.wrap(life, 3, 9, &[7; KEY_BYTES]).unwrap();
        assert_eq!((drawn.id, drawn.master_key.as_str()), (3, "new"));
        let later = masters(&[("newer", 3), ("new", 2)]);
        assert_eq!(*later.unwrap(life, &drawn).unwrap(), [7; KEY_BYTES]);

        let with = |change: &dyn Fn(&mut DataKey)| {
            let mut key = drawn.clone();
            change(&mut key);
            key
        };
        let flipped = with(&|key| {
            let mut bytes = BASE64.decode(key.wrapped.as_bytes()).unwrap();
            bytes[30] ^= 1;
            key.wrapped = BASE64.encode(&bytes);
        });
        for (by, life, key, why) in [
            (&later, other, drawn.clone(), "does not open"),
            (&later, life, with(&|key| key.id = 4), "does not open"),
            (
                &later,
                life,
                with(&|key| key.master_key = "newer".into()),
                "does not open",
            ),
            (&later, life, flipped, "does not open"),
            (
                &later,
                life,
                with(&|key| key.wrapped.clear()),
                "does not open",
            ),
            (
                &masters(&[("old", 1)]),
                life,
                drawn.clone(),
                "master key new, which is not in",
            ),
            (
                &masters(&[("new", 9)]),
                life,
                drawn.clone(),
                "another key has that id",
            ),
        ] {
            let told = by.unwrap(life, &key).err().unwrap();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_tenant_gets_its_first_key_only_by_a_master_key() {
        let life = Incarnation::random();
        let encryption = Encryption::begin(&masters(&[("a", 1)]), life, 5).unwrap();
        assert_eq!(encryption.data_keys[0].id, 1);
        assert!(!encryption.data_keys[0].wrapped.is_empty());
        assert_eq!(encryption.bare().data_keys[0].wrapped, "");
        let Err(Error::ConditionNotMet {
            subject,
            description,
        }) = Encryption::begin(&Masters::default(), life, 5)
        else {
            unreachable!()
        };
        assert_eq!(subject, "encryption.master_keys");
        assert!(description.contains("key generate-master"), "{description}");
    }

    #[test]
    fn what_is_printed_holds_no_key() {
        let masters = masters(&[("a", 0xab)]);
        assert_eq!(format!("{masters:?}"), "{\"a\"}");
    }
}
