//! The token of a lease, as a caller holds it: a format byte, the version of the
//! lease (8 bytes), what it is a lease of (8) and a CRC-32 of all that, as base64url
//! without padding. It is no secret: whoever may set the entry may do so without
//! one, so it only has to be taken for no other. It does not know whether the lease
//! still holds.

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

use super::lapsed;
use crate::{error::Result, store::Incarnation, tenant::Tenancy};

const FORMAT: u8 = 1;
/// Bytes before the checksum.
const CHECKED_BYTES: usize = 17;

/// A lease's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) struct Token {
    version: u64,
    place: [u8; 8],
}

impl Token {
    /// The token of the lease of this version of an entry of a tenant.
    pub(super) fn new(incarnation: Incarnation, namespace: &str, key: &str, version: u64) -> Self {
        let mut hash = Sha256::new();
        // A namespace has no colon, and an incarnation always the same length.
        hash.update(format!("{incarnation}:{namespace}:"));
        hash.update(key);
        hash.update(version.to_be_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        Self {
            version,
            place: hash.first_chunk().copied().unwrap_or_default(),
        }
    }

    /// As a caller holds it.
    pub(super) fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(CHECKED_BYTES + 4);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&self.place);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// Reads what a caller holds; `None` where that is no token.
    pub(in crate::cache) fn decode(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (checked, checksum) = bytes.split_at_checked(CHECKED_BYTES)?;
        if checksum != crc32fast::hash(checked).to_be_bytes() {
            return None;
        }
        let (version, place) = checked.strip_prefix(&[FORMAT])?.split_first_chunk()?;
        Some(Self {
            version: u64::from_be_bytes(*version),
            place: place.try_into().ok()?,
        })
    }

    /// The version of the lease that it is of.
    ///
    /// # Errors
    /// [`Error::ConditionNotMet`] where that is no lease of this entry.
    pub(in crate::cache) fn of(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        key: &str,
    ) -> Result<u64> {
        if Self::new(tenancy.incarnation, namespace, key, self.version) == *self {
            Ok(self.version)
        } else {
            Err(lapsed("it is the token of another entry's lease"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_one_lease_of_one_entry() {
        let (acme, other) = (Incarnation::random(), Incarnation::random());
        let token = Token::new(acme, "n", "a:b", 7).encode();
        let read = Token::decode(&token).unwrap();
        assert_eq!(read, Token::new(acme, "n", "a:b", 7));
        for (incarnation, namespace, key) in [
            (other, "n", "a:b"),
            (acme, "m", "a:b"),
            (acme, "n", "a:c"),
            (acme, "n.a", "b"),
        ] {
            assert_ne!(read, Token::new(incarnation, namespace, key, 7));
        }
        assert_ne!(read, Token::new(acme, "n", "a:b", 8));
    }

    #[test]
    fn what_is_no_token_is_not_read() {
        let token = Token::new(Incarnation::random(), "n", "k", u64::MAX).encode();
        assert!(Token::decode(&token).is_some());
        for cut in 0..token.len() {
            assert_eq!(Token::decode(&token[..cut]), None, "cut at {cut}");
            let mut flipped = token.clone().into_bytes();
            flipped[cut] = if flipped[cut] == b'A' { b'B' } else { b'A' };
            let flipped = String::from_utf8(flipped).unwrap();
            assert_eq!(Token::decode(&flipped), None, "flipped at {cut}");
        }
        for bad in ["", "=", "token", &format!("{token}A"), &format!("{token}=")] {
            assert_eq!(Token::decode(bad), None, "{bad:?}");
        }
    }
}
