//! The text of an API key: `rtp_<key id>_<secret and checksum>`. It does not
//! know which keys exist.
//!
//! The key id is public: 16 characters of the tenant's incarnation and 12
//! random ones. Then come 32 secret bytes and a CRC-32 of both, as base64url:
//! a mistyped key is turned away before anything is looked up.

use data_encoding::BASE64URL_NOPAD;

use crate::{random, store::Incarnation};

const PREFIX: &str = "rtp_";
const INCARNATION_CHARS: usize = 16;
const KEY_ID_CHARS: usize = INCARNATION_CHARS + 12;
const SECRET_BYTES: usize = 32;
const CRC_BYTES: usize = 4;
/// Base64 of 36 bytes.
const TAIL_CHARS: usize = 48;
const TEXT_CHARS: usize = PREFIX.len() + KEY_ID_CHARS + 1 + TAIL_CHARS;

/// What a well-formed key's text says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a> {
    /// The public half.
    pub key_id: &'a str,
    /// The secret half.
    pub secret: [u8; SECRET_BYTES],
}

/// A new key's public half.
pub fn generate_id(incarnation: Incarnation) -> String {
    // 8 bytes are 13 characters, of which the last has a single bit.
    let mut id = incarnation.to_string();
    id.push_str(&random::BASE32.encode(&random::bytes::<8>()));
    id.truncate(KEY_ID_CHARS);
    id
}

/// Whether this can be the public half of a key.
pub fn is_id(key_id: &str) -> bool {
    key_id.len() == KEY_ID_CHARS
        && key_id
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'))
}

/// The tenant's life a key id belongs to.
pub fn incarnation_of(key_id: &str) -> Option<Incarnation> {
    key_id.get(..INCARNATION_CHARS).and_then(Incarnation::parse)
}

/// The whole text of a key.
pub fn format(key_id: &str, secret: &[u8; SECRET_BYTES]) -> String {
    let mut tail = [0; SECRET_BYTES + CRC_BYTES];
    let (secret_part, crc_part) = tail.split_at_mut(SECRET_BYTES);
    secret_part.copy_from_slice(secret);
    crc_part.copy_from_slice(&checksum(key_id, secret));
    format!("{PREFIX}{key_id}_{}", BASE64URL_NOPAD.encode(&tail))
}

/// Reads the text of a key; `None` for whatever [`format()`] cannot have written.
/// Takes the same short time for every text, and allocates nothing.
pub fn parse(text: &str) -> Option<Credential<'_>> {
    if text.len() != TEXT_CHARS {
        return None;
    }
    let (key_id, tail) = text.strip_prefix(PREFIX)?.split_at_checked(KEY_ID_CHARS)?;
    let tail = tail.strip_prefix('_')?;
    let mut bytes = [0; SECRET_BYTES + CRC_BYTES];
    if !is_id(key_id)
        || BASE64URL_NOPAD
            .decode_mut(tail.as_bytes(), &mut bytes)
            .ok()?
            != bytes.len()
    {
        return None;
    }
    let (secret, crc) = bytes.split_first_chunk::<SECRET_BYTES>()?;
    (crc == checksum(key_id, secret)).then_some(Credential {
        key_id,
        secret: *secret,
    })
}

fn checksum(key_id: &str, secret: &[u8; SECRET_BYTES]) -> [u8; CRC_BYTES] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key_id.as_bytes());
    crc.update(secret);
    crc.finalize().to_be_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_names_its_tenants_life() {
        let incarnation = Incarnation::random();
        let id = generate_id(incarnation);
        let secret = random::bytes();
        let text = format(&id, &secret);
        assert_eq!(text.len(), TEXT_CHARS);
        let read = parse(&text).unwrap();
        assert_eq!((read.key_id, read.secret), (id.as_str(), secret));
        assert_eq!(incarnation_of(&id), Some(incarnation));
        assert_ne!(generate_id(incarnation), id);
    }

    #[test]
    fn one_wrong_character_anywhere_is_no_key() {
        let text = format(&generate_id(Incarnation::random()), &random::bytes());
        for at in 0..text.len() {
            for wrong in ["0", "a", "A", "_", "=", "\u{0}"] {
                let mut other = text.clone();
                other.replace_range(at..=at, wrong);
                assert!(other == text || parse(&other).is_none(), "{at} {wrong:?}");
            }
        }
        for broken in [
            "",
            "rtp_",
            "Bearer x",
            &text[1..],
            &format!("{text} "),
            &"ä".repeat(TEXT_CHARS / 2),
        ] {
            assert!(parse(broken).is_none(), "{broken:?}");
        }
    }
}
