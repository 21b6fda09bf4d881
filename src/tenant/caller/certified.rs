//! Admins by a certificate: whom a connection's peer has proved to be, and whether
//! such a one is an admin. It does not know how a certificate is read or verified.

use std::time::SystemTime;

use crate::config::{Identity, Live};

/// Whom the peer of a connection has proved to be, by a certificate that was verified
/// as the connection began.
#[derive(Debug)]
pub struct Peer {
    identities: Vec<Identity>,
    expire_time: SystemTime,
}

/// An admin by a certificate.
#[derive(Debug)]
pub struct Certified {
    key_id: String,
    identity: Identity,
    expire_time: SystemTime,
    admins: Live<Vec<Identity>>,
}

impl Peer {
    /// A peer that is all of these until then.
    pub fn new(identities: Vec<Identity>, expire_time: SystemTime) -> Self {
        Self {
            identities,
            expire_time,
        }
    }

    /// The admin that the peer is by this list; `None` where it is on it by no name, or
    /// its certificate has expired since the connection began.
    pub fn admin(&self, admins: &Live<Vec<Identity>>) -> Option<Certified> {
        let listed = admins.load();
        let identity = listed
            .iter()
            .find(|admin| self.identities.contains(admin))?;
        let certified = Certified {
            key_id: format!("cert:{identity}"),
            identity: identity.clone(),
            expire_time: self.expire_time,
            admins: admins.clone(),
        };
        certified.holds().then_some(certified)
    }
}

impl Certified {
    /// What stands for the certificate where an API key has its id: `cert:` and the
    /// identity that is on the list.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Whether the certificate has not expired, and the identity is on the list still.
    pub fn holds(&self) -> bool {
        SystemTime::now() < self.expire_time && self.admins.load().contains(&self.identity)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn list(texts: &[&str]) -> Vec<Identity> {
        let read = |text: &&str| Identity::parse(text).unwrap();
        texts.iter().map(read).collect()
    }

    #[test]
    fn a_peer_is_an_admin_by_any_of_its_names_while_it_is_listed_and_not_expired() {
        let soon = SystemTime::now() + Duration::from_secs(600);
        let peer = Peer::new(list(&["ops.example.org", "CN=ops"]), soon);
        let admins = Live::from(list(&["spiffe://a/b", "CN=ops"]));
        let admin = peer.admin(&admins).unwrap();
        assert_eq!(admin.key_id(), "cert:CN=ops");
        assert!(admin.holds());
        // A name of another kind is another name.
        admins.store(list(&["ops", "spiffe://a/b"]));
        assert!(!admin.holds() && peer.admin(&admins).is_none());
        admins.store(Vec::new());
        assert!(peer.admin(&admins).is_none());
        admins.store(list(&["Ops.Example.org"]));
        assert_eq!(
            peer.admin(&admins).unwrap().key_id(),
            "cert:ops.example.org"
        );
        let late = Peer::new(list(&["CN=ops", "ops.example.org"]), SystemTime::now());
        assert!(late.admin(&admins).is_none());
    }
}
