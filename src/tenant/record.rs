//! The shapes in which tenants and API keys are stored: JSON with a format
//! number, so that fields can be added while replicas of two versions run. It
//! does not know when a record may change.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Grant, Quotas, Scope, billing::Segment, data_key::Encryption};
use crate::{
    error::{Error, Result},
    store::{Incarnation, Key, Space, Table},
};

/// The format written. A reader refuses a greater one; a change that an older
/// reader may ignore (a new optional field) keeps the number.
pub const FORMAT: u32 = 1;

/// The format of an encrypted tenant's record. A reader that does not know it must
/// refuse it: it would write values in the clear, and drop the data keys with the
/// next change.
pub const ENCRYPTED_FORMAT: u32 = 2;

/// The format of what tells of a home that a restore has made, encrypted or not. A
/// reader that does not know it must refuse it: it would look for the tenant's data in
/// the spaces of its incarnation, which are gone.
pub const RESTORED_FORMAT: u32 = 3;

/// A tenant as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// See [`FORMAT`].
    pub format: u32,
    /// The name callers use.
    pub tenant_id: String,
    /// This life of the tenant.
    #[serde(with = "incarnation")]
    pub incarnation: Incarnation,
    /// A name for people.
    #[serde(default)]
    pub display_name: String,
    /// The plan's name.
    pub plan: String,
    /// The plans it was on, as far as they are not billed yet, and the present one
    /// last; empty where it was never on another. See [`Tenant::plans`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Owner,
    /// Labels for selection.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Settings of the platform's own.
    #[serde(default)]
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// The tenant's own quotas.
    #[serde(default)]
    pub quotas: Quotas,
    /// How its values are encrypted; `None` where they are not. Fixed at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Where its data live, where a restore has put them. See [`Tenant::space`].
    #[serde(default, skip_serializing_if = "Homes::are_first")]
    pub homes: Homes,
    /// Whether deletion is refused.
    #[serde(default)]
    pub delete_protection: bool,
    /// Set while it is suspended.
    #[serde(default)]
    pub suspension: Option<Suspension>,
    /// When it was created, by the store's clock, in ms since 1970.
    pub create_ms: u64,
    /// When it last changed.
    pub update_ms: u64,
    /// When it was deleted.
    #[serde(default)]
    pub delete_ms: Option<u64>,
    /// When it will be purged by itself.
    #[serde(default)]
    pub purge_ms: Option<u64>,
    /// Whether a purge has begun; then nothing brings it back.
    #[serde(default)]
    pub purging: bool,
    /// Random, new with every write. It is kept in the record, and not made from
    /// the store's version, so that the answer to a replayed request can be told
    /// before the commit that makes it.
    pub etag: String,
}

/// Names of the spaces that a tenant's data live in, each as random as an incarnation
/// and never used again; `None` means that of the incarnation itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Homes {
    /// Of its cache.
    #[serde(with = "home", skip_serializing_if = "Option::is_none")]
    pub cache: Option<Incarnation>,
    /// Of its sessions.
    #[serde(with = "home", skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Incarnation>,
}

impl Homes {
    /// Whether no restore has made any of them.
    fn are_first(&self) -> bool {
        *self == Self::default()
    }

    /// The spaces of the cache and of the sessions, where a restore has made them.
    pub fn spaces(&self) -> [Option<Space>; 2] {
        [
            self.cache.map(Space::tenant),
            self.sessions.map(Space::sessions),
        ]
    }
}

/// Who answers for a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// The owner's id at the platform.
    pub id: String,
    /// The owner's name.
    pub name: String,
    /// The owner's e-mail address.
    pub email: String,
    /// The owner's organisation.
    pub organization: String,
}

/// Why and how a tenant is suspended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// What still works.
    pub mode: SuspensionMode,
    /// A reason for people.
    pub reason: String,
    /// Since when, by the store's clock, in ms since 1970.
    pub time_ms: u64,
}

/// What a suspended tenant may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuspensionMode {
    /// Reads work.
    ReadOnly,
    /// Nothing works.
    Blocked,
}

/// Where a tenant is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In service.
    Active,
    /// Read-only or blocked.
    Suspended,
    /// Deleted, and not yet purged.
    Deleted,
}

impl Tenant {
    /// Where the tenant is in its life.
    pub fn state(&self) -> State {
        match (self.delete_ms, &self.suspension) {
            (Some(_), _) => State::Deleted,
            (None, Some(_)) => State::Suspended,
            (None, None) => State::Active,
        }
    }

    /// The name of the space that its cache entries live in.
    pub fn home(&self) -> Incarnation {
        self.homes.cache.unwrap_or(self.incarnation)
    }

    /// The space that its cache entries live in; with its meters.
    pub fn space(&self) -> Space {
        Space::tenant(self.home())
    }

    /// The space that its sessions live in.
    pub fn session_space(&self) -> Space {
        Space::sessions(self.homes.sessions.unwrap_or(self.incarnation))
    }

    /// The tenant as an answer keeps it: without what its data keys could be had
    /// from, so that they are nowhere but in its record.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self {
            encryption: self.encryption.as_ref().map(Encryption::bare),
            ..self.clone()
        }
    }

    /// Marks a change at this time: a new etag and update time.
    pub fn changed(&mut self, now_ms: u64) {
        self.update_ms = now_ms;
        self.etag = new_etag();
    }
}

/// A fresh etag.
pub fn new_etag() -> String {
    crate::random::BASE32.encode(&crate::random::bytes::<10>())
}

/// An API key as it is stored, without anything its secret could be had from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiKey {
    /// See [`FORMAT`].
    pub format: u32,
    /// The public half.
    pub key_id: String,
    /// The tenant it belongs to.
    pub tenant_id: String,
    /// The life of the tenant it belongs to.
    #[serde(with = "incarnation")]
    pub incarnation: Incarnation,
    /// A name for people.
    #[serde(default)]
    pub display_name: String,
    /// What it may do, by the scopes' names. A name this version does not know
    /// grants nothing and is kept.
    pub scopes: Vec<String>,
    /// The namespaces it is confined to; empty means all.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// The key prefixes it is confined to; empty means all.
    #[serde(default)]
    pub key_prefixes: Vec<String>,
    /// When it was created, by the store's clock, in ms since 1970.
    pub create_ms: u64,
    /// When it stops working.
    #[serde(default)]
    pub expire_ms: Option<u64>,
    /// When it was revoked.
    #[serde(default)]
    pub revoke_ms: Option<u64>,
    /// What its secrets are compared with, the newest first.
    #[serde(default)]
    pub secrets: Vec<SecretMac>,
    /// When it was last used; kept in a record of its own.
    #[serde(skip)]
    pub last_used_ms: Option<u64>,
}

/// What a secret is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretMac {
    /// HMAC-SHA-256 of the secret, in hex.
    #[serde(with = "mac")]
    pub mac: [u8; 32],
    /// When the secret stops working; `None` for the newest.
    #[serde(default)]
    pub until_ms: Option<u64>,
}

impl ApiKey {
    /// What the key grants.
    pub fn grant(&self) -> Grant {
        Grant {
            key_id: self.key_id.clone(),
            tenant_id: self.tenant_id.clone(),
            incarnation: self.incarnation,
            scopes: self
                .scopes
                .iter()
                .filter_map(|name| Scope::parse(name))
                .collect(),
            namespaces: self.namespaces.clone(),
            key_prefixes: self.key_prefixes.clone(),
        }
    }

    /// The key as an answer keeps it: without what secrets are compared with.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self {
            secrets: Vec::new(),
            ..self.clone()
        }
    }
}

/// Where a tenant's record is.
pub fn tenant_key(tenant_id: &str) -> Key {
    Key::new(Table::Tenant, tenant_id.as_bytes().to_vec())
}

/// Where an API key's record is.
pub fn api_key_key(key_id: &str) -> Key {
    Key::new(Table::ApiKey, key_id.as_bytes().to_vec())
}

/// Where an API key's last use is.
pub fn key_use_key(key_id: &str) -> Key {
    Key::new(Table::KeyUse, key_id.as_bytes().to_vec())
}

/// Writes a record's value.
///
/// # Errors
/// [`Error::Internal`] where the value is no JSON, which no record's type allows.
pub fn encode(record: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(record)
        .map(Bytes::from)
        .map_err(|e| Error::Internal(format!("cannot encode a record: {e}")))
}

/// Reads a record's value.
///
/// # Errors
/// [`Error::Internal`] where it is damaged, or of a format of a later version.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let unreadable =
        |e: serde_json::Error| Error::Internal(format!("a stored control record is damaged: {e}"));
    let found: Format = serde_json::from_slice(value).map_err(unreadable)?;
    if found.format > RESTORED_FORMAT {
        return Err(Error::Internal(format!(
            "a stored control record has format {}, known is {RESTORED_FORMAT}",
            found.format
        )));
    }
    serde_json::from_slice(value).map_err(unreadable)
}

/// An incarnation as its text.
pub mod incarnation {
    use super::{Deserialize, Incarnation};
    use serde::{Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        incarnation: &Incarnation,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_str(incarnation)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Incarnation, D::Error> {
        let text = String::deserialize(d)?;
        Incarnation::parse(&text).ok_or_else(|| D::Error::custom("not an incarnation"))
    }
}

/// An incarnation that may be missing, likewise.
mod home {
    use super::{Deserialize, Incarnation};
    use serde::{Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        home: &Option<Incarnation>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match home {
            Some(home) => s.collect_str(home),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Incarnation>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        let home = text.map(|text| Incarnation::parse(&text).ok_or(text));
        home.transpose()
            .map_err(|_| D::Error::custom("not the name of a space"))
    }
}

/// A MAC as hexadecimal text.
mod mac {
    use super::Deserialize;
    use data_encoding::HEXLOWER;
    use serde::{Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(mac: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&HEXLOWER.encode(mac))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        let bytes = HEXLOWER
            .decode(String::deserialize(d)?.as_bytes())
            .map_err(D::Error::custom)?;
        bytes
            .try_into()
            .map_err(|_| D::Error::custom("not 32 bytes"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_of_version_1_stays_readable() {
        let stored = br#"{"format":1,"tenant_id":"acme","incarnation":"0123456789abcdef","plan":"free",
            "create_ms":1,"update_ms":2,"etag":"e","suspension":{"mode":"read_only","reason":"r","time_ms":3},
            "quotas":{"memory_bytes":5,"modes":{"memory_bytes":"warn"}},"field_of_tomorrow":true}"#;
        let tenant: Tenant = decode(stored).unwrap();
        assert_eq!(tenant.state(), State::Suspended);
        assert_eq!(tenant.quotas.memory_bytes, Some(5));
        assert_eq!(decode::<Tenant>(&encode(&tenant).unwrap()).unwrap(), tenant);
        assert_eq!(tenant.space(), Space::tenant(tenant.incarnation));
        let restored = Tenant {
            format: RESTORED_FORMAT,
            homes: Homes {
                cache: Some(Incarnation::random()),
                sessions: None,
            },
            ..tenant.clone()
        };
        assert_eq!(
            decode::<Tenant>(&encode(&restored).unwrap()).unwrap(),
            restored
        );
        assert_ne!(restored.space(), tenant.space());

        let stored = br#"{"format":1,"key_id":"k","tenant_id":"acme","incarnation":"0123456789abcdef",
            "scopes":["cache.read","scope.of.tomorrow"],"create_ms":1,
            "secrets":[{"mac":"0000000000000000000000000000000000000000000000000000000000000000"}]}"#;
        let key: ApiKey = decode(stored).unwrap();
        assert_eq!(
            key.grant().scopes.iter().collect::<Vec<_>>(),
            [Scope::CacheRead]
        );
        assert_eq!(decode::<ApiKey>(&encode(&key).unwrap()).unwrap(), key);
        assert!(key.bare().secrets.is_empty());
    }

    #[test]
    fn a_later_format_and_damage_are_told_apart_from_a_record() {
        for stored in [
            &b"{\"format\":4}"[..],
            b"{}",
            b"",
            b"\xff",
            b"{\"format\":1}",
        ] {
            assert!(
                matches!(decode::<Tenant>(stored), Err(Error::Internal(_))),
                "{stored:?}"
            );
        }
    }
}
