//! The store's own secret, from which everything that must be told apart from a
//! forgery gets a key of its own. It does not know where the secret is kept.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Keys derived from the store's secret, one a purpose.
pub struct Pepper {
    /// The version of the record it was read from.
    pub(super) version: u64,
    comparison: Hmac<Sha256>,
    derivation: Hmac<Sha256>,
    pages: Hmac<Sha256>,
}

impl Pepper {
    /// Bytes of the secret.
    pub const BYTES: usize = 32;

    /// The keys of this secret, read at this version.
    pub fn new(secret: &[u8], version: u64) -> Self {
        let purpose = |name: &[u8]| keyed(&tag(keyed(secret), &[name]));
        Self {
            version,
            comparison: purpose(b"api key comparison"),
            derivation: purpose(b"api key derivation"),
            pages: purpose(b"page tokens"),
        }
    }

    /// What an API key's secret is compared with.
    pub fn mac(&self, secret: &[u8; 32]) -> [u8; 32] {
        tag(self.comparison.clone(), &[secret])
    }

    /// Whether the secret is the one this MAC was made of; in constant time.
    pub fn verify(&self, secret: &[u8; 32], mac: &[u8; 32]) -> bool {
        self.mac(secret).ct_eq(mac).into()
    }

    /// The secret a request of this id gives to this key: the same at each
    /// replay, and stored nowhere.
    pub fn derive(&self, key_id: &str, request_id: &str) -> [u8; 32] {
        tag(
            self.derivation.clone(),
            &[key_id.as_bytes(), b"/", request_id.as_bytes()],
        )
    }

    /// The tag of a page token over these parts.
    pub(super) fn page_tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hmac = self.pages.clone();
        for part in parts {
            // With its length, no part can pass for the end of the one before.
            hmac.update(&(part.len() as u64).to_be_bytes());
            hmac.update(part);
        }
        hmac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pepper(version {})", self.version)
    }
}

#[allow(clippy::expect_used)]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn tag(mut hmac: Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_and_each_secret_has_its_own_key() {
        let (one, two) = (Pepper::new(&[1; 32], 1), Pepper::new(&[2; 32], 1));
        let secret = [7; 32];
        assert!(one.verify(&secret, &one.mac(&secret)));
        assert!(!one.verify(&[8; 32], &one.mac(&secret)));
        assert!(!two.verify(&secret, &one.mac(&secret)));
        assert_eq!(
            one.derive("k", "r"),
            Pepper::new(&[1; 32], 9).derive("k", "r")
        );
        assert_ne!(one.derive("k", "r"), one.derive("k", "s"));
        assert_ne!(one.page_tag(&[b"ab", b"c"]), one.page_tag(&[b"a", b"bc"]));
        assert!(!format!("{one:?}").contains("[1"));
    }
}
