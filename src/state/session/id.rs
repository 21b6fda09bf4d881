//! Ids of sessions: whose one is, so that a user's lie together, and what nobody can
//! guess. It does not know who a user is.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    random::{self, BASE32},
    store::Incarnation,
};

/// Bytes of what tells whose it is.
const USER_BYTES: usize = 16;
/// Bytes of an id: those, and as many random ones.
const BYTES: usize = 2 * USER_BYTES;
/// Characters of an id.
pub(super) const TEXT_BYTES: usize = 52;

/// The id of a session: 52 characters of `a-v0-9`. Whoever has it may use the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; BYTES]);

impl SessionId {
    /// A new one of this user.
    pub(super) fn random(incarnation: Incarnation, user_id: &str) -> Self {
        let mut bytes = random::bytes();
        let user = user(incarnation, user_id);
        bytes.iter_mut().zip(user).for_each(|(byte, of)| *byte = of);
        Self(bytes)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != TEXT_BYTES {
            return None;
        }
        let bytes = BASE32.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The id of the session at this path.
    pub(super) fn at(path: &[u8]) -> Option<Self> {
        path.try_into().ok().map(Self)
    }

    /// Where the session is.
    pub(super) fn path(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// Whether it can be a session of this user.
    pub(super) fn is_of(self, incarnation: Incarnation, user_id: &str) -> bool {
        self.0.starts_with(&user(incarnation, user_id))
    }
}

/// What the paths of all sessions of a user begin with. Other tenants' users of the same
/// name have another.
pub(super) fn user(incarnation: Incarnation, user_id: &str) -> [u8; USER_BYTES] {
    let digest = Sha256::new()
        .chain_update(b"session user ")
        .chain_update(incarnation.as_bytes())
        .chain_update(user_id.as_bytes())
        .finalize();
    let mut user = [0; USER_BYTES];
    user.iter_mut()
        .zip(digest)
        .for_each(|(byte, of)| *byte = of);
    user
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32.encode(&self.0))
    }
}

/// It does not print where nobody means it to: it is a credential.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_tells_its_user_alone() {
        let (life, other) = (Incarnation::random(), Incarnation::random());
        let id = SessionId::random(life, "ann");
        let text = id.to_string();
        assert_eq!(text.len(), TEXT_BYTES);
        assert_eq!(SessionId::parse(&text), Some(id));
        assert_eq!(SessionId::at(&id.path()), Some(id));
        assert!(id.is_of(life, "ann"));
        assert!(!id.is_of(life, "bob") && !id.is_of(other, "ann"));
        assert_ne!(SessionId::random(life, "ann"), id);
        assert_eq!(format!("{id:?}"), "SessionId(..)");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let text = SessionId::random(Incarnation::random(), "ann").to_string();
        let last = text.strip_suffix(|_| true).unwrap();
        for wrong in [
            String::new(),
            last.to_owned(),
            format!("{text}0"),
            text.to_uppercase(),
            format!("{last}w"),
            // The last character holds no more than a bit.
            format!("{last}1"),
            "../".repeat(17) + "x",
            "\u{e9}".repeat(26),
        ] {
            assert_eq!(SessionId::parse(&wrong), None, "{wrong}");
        }
    }
}
