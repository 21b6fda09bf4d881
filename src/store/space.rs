//! Names: the spaces, the tables in them, the keys of records. They do not say
//! what a record holds.

use std::{fmt, sync::Arc};

use bytes::Bytes;

/// An isolated set of records.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Space(pub(super) Arc<str>);

impl Space {
    /// The space of what is shared: tenants, API keys, request ids, jobs.
    pub fn registry() -> Self {
        Self("registry".into())
    }

    /// The space of the audit log: what was done outlives whom it was done to.
    pub fn audit() -> Self {
        Self("audit".into())
    }

    /// The space of one tenant's cache. Only the tenant module calls this, for a
    /// caller it has admitted.
    pub fn tenant(incarnation: Incarnation) -> Self {
        Self(incarnation.to_string().into())
    }

    /// The space of one tenant's sessions; likewise.
    pub fn sessions(incarnation: Incarnation) -> Self {
        Self(format!("s{incarnation}").into())
    }

    /// The space of this name, where it is one of a tenant's.
    pub fn of_a_tenant(name: &str) -> Option<Self> {
        let sessions = |name| Incarnation::parse(name).map(Self::sessions);
        Incarnation::parse(name)
            .map(Self::tenant)
            .or_else(|| name.strip_prefix('s').and_then(sessions))
    }

    /// One of the [`METER_SPACES`] that usage and bills are kept in, outside the
    /// tenants' own: the one that this tenant's are in.
    pub fn meters(incarnation: Incarnation) -> Self {
        Self::meters_at(Self::meters_number(incarnation))
    }

    /// The number of that space: below [`METER_SPACES`].
    pub fn meters_number(incarnation: Incarnation) -> usize {
        let [first, ..] = incarnation.0;
        usize::from(first) % METER_SPACES
    }

    /// One of the [`METER_SPACES`], by its number.
    pub fn meters_at(number: usize) -> Self {
        Self(format!("meters{:02}", number % METER_SPACES).into())
    }

    /// The space's name: ASCII letters and digits.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// How many spaces usage and bills are spread over. Never changes.
pub const METER_SPACES: usize = 16;

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Space({})", self.0)
    }
}

/// One life of a tenant: 80 random bits, never used again. Reads as 16
/// characters of `a-v0-9` (base32hex, lower case).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation([u8; 10]);

impl Incarnation {
    /// A new one.
    pub fn random() -> Self {
        let mut bytes = [0; 10];
        crate::random::fill(&mut bytes);
        Self(bytes)
    }

    /// Its bits.
    pub fn as_bytes(&self) -> &[u8; 10] {
        &self.0
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = crate::random::BASE32.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::random::BASE32.encode(&self.0))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kinds of records, and what a backend must do for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Cache entries, `<namespace>:<user key>`. Metered; in no order; they live in
    /// a generation.
    Entry,
    /// Tenants by tenant_id. Metered (max_tenants); ordered; announced.
    Tenant,
    /// API keys by key_id. Ordered; announced.
    ApiKey,
    /// When an API key was last used, by key_id.
    KeyUse,
    /// Answers to requests, by request id. They expire.
    Request,
    /// A space's own control record, by name.
    Control,
    /// Background work that must survive a replica. Ordered.
    Job,
    /// Facts of the whole store, by name.
    Meta,
    /// Closed billing periods, by period and incarnation. Ordered.
    Statement,
    /// Leases of the refill of cache entries, by the paths of those; they live in
    /// the same generation, and expire.
    Refill,
    /// Sessions, by user and a random number. Metered; ordered; passing.
    Session,
    /// Audit events by time, by tenant and time, and the ends of their chains. Ordered;
    /// passing.
    Audit,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 12] = [
        Self::Entry,
        Self::Tenant,
        Self::ApiKey,
        Self::KeyUse,
        Self::Request,
        Self::Control,
        Self::Job,
        Self::Meta,
        Self::Statement,
        Self::Refill,
        Self::Session,
        Self::Audit,
    ];

    /// The table's mark in stored keys. Never changes.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Entry => "k",
            Self::Tenant => "t",
            Self::ApiKey => "a",
            Self::KeyUse => "l",
            Self::Request => "r",
            Self::Control => "c",
            Self::Job => "j",
            Self::Meta => "m",
            Self::Statement => "p",
            Self::Refill => "f",
            Self::Session => "u",
            Self::Audit => "g",
        }
    }

    /// Whether its records count in the space's usage.
    pub const fn metered(self) -> bool {
        matches!(self, Self::Entry | Self::Tenant | Self::Session)
    }

    /// Whether it can be listed in the order of its paths.
    pub const fn ordered(self) -> bool {
        matches!(
            self,
            Self::Tenant | Self::ApiKey | Self::Job | Self::Statement | Self::Session | Self::Audit
        )
    }

    /// Whether its records end in masses although they can be listed, so that what
    /// they are listed by must follow them although nobody looks.
    pub const fn passing(self) -> bool {
        matches!(self, Self::Session | Self::Audit)
    }

    /// Whether its commits are told by [`Store::changes`](super::Store::changes).
    pub const fn announced(self) -> bool {
        matches!(self, Self::Tenant | Self::ApiKey)
    }

    /// Whether its records live in a generation.
    pub const fn generational(self) -> bool {
        matches!(self, Self::Entry | Self::Refill)
    }

    /// Whether its commits are durable when they are acknowledged, and not within
    /// a second only.
    pub const fn lasting(self) -> bool {
        !matches!(self, Self::Entry | Self::Refill)
    }
}

/// Names a record in a space.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kind of record.
    pub table: Table,
    /// Its path: any bytes, not empty.
    pub path: Bytes,
}

impl Key {
    /// A key from a table and a path.
    pub fn new(table: Table, path: impl Into<Bytes>) -> Self {
        Self {
            table,
            path: path.into(),
        }
    }

    /// The key of a cache entry. A namespace has no colon, so the path is
    /// unambiguous whatever the user's key holds.
    pub fn entry(namespace: &str, user_key: &str) -> Self {
        Self::placed(Table::Entry, namespace, user_key)
    }

    /// The key of the lease of an entry's refill.
    pub fn refill(namespace: &str, user_key: &str) -> Self {
        Self::placed(Table::Refill, namespace, user_key)
    }

    fn placed(table: Table, namespace: &str, user_key: &str) -> Self {
        let mut path = Vec::with_capacity(namespace.len() + 1 + user_key.len());
        path.extend_from_slice(namespace.as_bytes());
        path.push(b':');
        path.extend_from_slice(user_key.as_bytes());
        Self::new(table, path)
    }
}

/// Epochs of an era. As many make the next one by themselves, which harms nobody.
pub(super) const ERA_EPOCHS: u64 = 1 << 20;

/// What a snapshot of a space was taken at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Moves when snapshots must be taken anew.
    pub epoch: u64,
    /// The generation that entries live in.
    pub generation: u64,
}

impl View {
    /// That of a space that was removed.
    pub const GONE: Self = Self {
        epoch: u64::MAX,
        generation: u64::MAX,
    };

    /// The era of its epoch; see [`Step::Era`](super::Step::Era).
    pub(super) const fn era(self) -> u64 {
        self.epoch / ERA_EPOCHS
    }
}
