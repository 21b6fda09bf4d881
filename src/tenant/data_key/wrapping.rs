//! Keys of other kinds than data keys, wrapped by the master keys for a purpose. It
//! does not know what they seal.

use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Masters;
use crate::{
    codec::seal::{self, KEY_BYTES, NONCE_BYTES},
    error::Result,
};

/// A key that a master key has wrapped, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped {
    /// The master key, by its id.
    pub master_key: String,
    /// The key as its master key sealed it, in base64.
    pub wrapped: String,
}

/// Why a wrapped key does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotUnwrapped {
    /// The master key of this id is not configured.
    Unknown(String),
    /// It is, and does not open it: it was changed, or another key has that id now.
    Refused(String),
}

impl fmt::Display for NotUnwrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(id) => write!(
                f,
                "it is wrapped by the master key {id}, which is not in encryption.master_keys"
            ),
            Self::Refused(id) => write!(
                f,
                "it does not open by the master key {id}: another key has that id now"
            ),
        }
    }
}

impl Masters {
    /// Wraps a key for a purpose, for which alone it can be unwrapped; `None` where
    /// there is no master key.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::error::Error::Internal), which no key of this length
    /// meets.
    pub fn wrap_for(&self, purpose: &[u8], key: &[u8; KEY_BYTES]) -> Result<Option<Wrapped>> {
        let masters = self.0.load();
        let Some((id, master)) = masters.first() else {
            return Ok(None);
        };
        let mut wrapped = Vec::with_capacity(seal::OVERHEAD_BYTES + KEY_BYTES);
        wrapped.extend_from_slice(&[0; NONCE_BYTES]);
        wrapped.extend_from_slice(key);
        master.seal(&bound(purpose, id), &mut wrapped, 0)?;
        Ok(Some(Wrapped {
            master_key: id.clone(),
            wrapped: BASE64.encode(&wrapped),
        }))
    }

    /// The key that was wrapped for this purpose.
    ///
    /// # Errors
    /// [`NotUnwrapped`].
    pub fn unwrap_for(
        &self,
        purpose: &[u8],
        wrapped: &Wrapped,
    ) -> std::result::Result<Zeroizing<[u8; KEY_BYTES]>, NotUnwrapped> {
        let id = &wrapped.master_key;
        let masters = self.0.load();
        let master = masters.iter().find(|(known, _)| known == id);
        let (_, master) = master.ok_or_else(|| NotUnwrapped::Unknown(id.clone()))?;
        let sealed = BASE64.decode(wrapped.wrapped.as_bytes()).ok();
        let opened = sealed.and_then(|sealed| master.open(&bound(purpose, id), &sealed));
        opened
            .map(Zeroizing::new)
            .and_then(|key| key.as_slice().try_into().ok().map(Zeroizing::new))
            .ok_or_else(|| NotUnwrapped::Refused(id.clone()))
    }
}

fn bound(purpose: &[u8], id: &str) -> Vec<u8> {
    let parts: [&[u8]; 3] = [purpose, b" by ", id.as_bytes()];
    parts.concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config;

    fn masters(id: &str, byte: u8) -> Masters {
        Masters::new(&[config::MasterKey {
            id: id.to_owned(),
            key: Zeroizing::new([byte; KEY_BYTES]),
        }])
    }

    #[test]
    fn a_key_unwraps_by_its_master_for_its_purpose_alone() {
        let made = masters("m", 1);
        let wrapped = made.wrap_for(b"chunks", &[7; KEY_BYTES]).unwrap().unwrap();
        assert_eq!(
            *made.unwrap_for(b"chunks", &wrapped).unwrap(),
            [7; KEY_BYTES]
        );
        let refused = NotUnwrapped::Refused("m".into());
        for (by, purpose, why) in [
            (&made, &b"others"[..], &refused),
            (&masters("m", 2), b"chunks", &refused),
            (
                &masters("n", 1),
                b"chunks",
                &NotUnwrapped::Unknown("m".into()),
            ),
        ] {
            assert_eq!(&by.unwrap_for(purpose, &wrapped).unwrap_err(), why);
        }
        assert_eq!(
            Masters::default().wrap_for(b"chunks", &[7; KEY_BYTES]),
            Ok(None)
        );
    }
}
