//! The port to the store: spaces, records, and commits that apply wholly or
//! not at all. It deliberately knows no domain rule: what a tenant or an entry
//! is, and who may touch it, is decided above; a backend only keeps its word.
//!
//! # The contract
//!
//! - A [`Space`] is an isolated set of records, one accounting domain, and (in
//!   Redis) one slot. Nothing reaches from one space into another.
//! - A space has a [`View`]: an epoch, which moves when whoever holds a snapshot
//!   of the space must look again, and the generation its entries live in. A
//!   space that was never written has the view `{0, 0}`; its first commit makes
//!   it epoch 1.
//! - [`Store::read`] sees one moment of the space: all records and the view.
//!   A record whose time is over is absent, to the millisecond.
//! - [`Store::commit`] is atomic and linearizable in its space. Checks and
//!   limits are decided in the same step as the writes. A refusal is a value
//!   ([`Commit::Refused`]), and then nothing was written; an `Err` is a fault,
//!   and only [`Error::OutcomeUnknown`] leaves open whether the commit happened.
//! - Versions grow with each write in a space, across deletes, flushes and
//!   restarts, and are never zero.
//! - [`Write::floor`] hides old records from a write: it is decided, in the same
//!   step, as if a record at or below that version were absent.
//! - Metered records (entries, tenants) are counted exactly: each counts
//!   [`charge`] bytes and one entry from the commit that wrote it until the
//!   commit that removed it, or until its expiry, rounded up to the end of its
//!   bucket ([`bucket_ms`]). [`Store::audit`] proves it.
//! - Time is the store's clock ([`Store::now_ms`]), never a replica's.
//! - Records of ordered tables are listed in the order of their paths' bytes,
//!   stable under concurrent writes. [`Table::Entry`] is listed in no order: a
//!   record that exists throughout is listed at least once.
//! - A commit that touches only [`Table::Entry`] is durable within a second, on
//!   a backend that is durable at all; every other commit is durable when it is
//!   acknowledged, as far as the backend's own settings allow (Redis: AOF).
//!
//! A new promise made here needs a new case in `tests/it/store/conformance.rs`.

pub mod embedded;
mod observed;
pub mod redis;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

pub use observed::{Calls, Counters, Elapsed, Observed, deadline, with_deadline};

/// A store as the rest of the service holds it.
pub type Handle = Arc<dyn Store>;

/// Result of a port call.
pub type Result<T> = std::result::Result<T, Error>;

/// The port. See the module for its contract.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The records under `keys`, in order, as of one moment, and the view then.
    /// Entries are looked for in `generation` (0 where no entry is asked for).
    async fn read(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read>;

    /// Applies `batch` or refuses it, in one atomic step.
    async fn commit(&self, space: &Space, batch: Batch) -> Result<Commit>;

    /// A page of a table. See the module for the order.
    async fn list(&self, space: &Space, query: Query) -> Result<Page>;

    /// What the space counts now. Exact unless it says otherwise.
    async fn usage(&self, space: &Space) -> Result<Usage>;

    /// Compares the counters with the sum over the records themselves. Walks the
    /// whole space; meant for tests and operators, on a space at rest.
    async fn audit(&self, space: &Space) -> Result<Audit>;

    /// Removes records that can no longer be reached, a bounded number a call
    /// (about `limit` are looked at); pass [`Reclaimed::next`] to go on. May be
    /// repeated and run by several replicas: a record is uncounted once.
    async fn reclaim(&self, space: &Space, what: Reclaim, after: Option<Cursor>, limit: usize) -> Result<Reclaimed>;

    /// Waits up to 250 ms for commits to announced tables after `position`, and
    /// returns them in order. [`Changes::lost`] means that some may be missing:
    /// drop everything that was derived from announced records. `None` asks for
    /// the position of now.
    async fn changes(&self, position: Option<Position>) -> Result<Changes>;

    /// Asks the store whether it is well. Bounded by a second.
    async fn ping(&self) -> Result<Health>;

    /// The store's clock, in milliseconds since 1970, without a round trip: exact
    /// to about a round trip's half. Before the first contact it is the machine's.
    fn now_ms(&self) -> u64;

    /// `redis` or `embedded`.
    fn backend(&self) -> &'static str;

    /// Makes everything acknowledged durable and lets go of the store. Calls
    /// after it fail with [`Error::Unavailable`].
    async fn close(&self) -> Result<()>;
}

/// An isolated set of records.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Space(Arc<str>);

impl Space {
    /// The space of what is shared: tenants, API keys, request ids, jobs.
    pub fn registry() -> Self {
        Self("registry".into())
    }

    /// The space of one tenant's cache. Only the tenant module calls this, for a
    /// caller it has admitted.
    pub fn tenant(incarnation: Incarnation) -> Self {
        Self(incarnation.to_string().into())
    }

    /// The space's name: ASCII letters and digits.
    pub fn name(&self) -> &str {
        &self.0
    }
}

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
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 8] = [
        Self::Entry,
        Self::Tenant,
        Self::ApiKey,
        Self::KeyUse,
        Self::Request,
        Self::Control,
        Self::Job,
        Self::Meta,
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
        }
    }

    /// Whether its records count in the space's usage.
    pub const fn metered(self) -> bool {
        matches!(self, Self::Entry | Self::Tenant)
    }

    /// Whether it can be listed in the order of its paths.
    pub const fn ordered(self) -> bool {
        matches!(self, Self::Tenant | Self::ApiKey | Self::Job)
    }

    /// Whether its commits are told by [`Store::changes`].
    pub const fn announced(self) -> bool {
        matches!(self, Self::Tenant | Self::ApiKey)
    }

    /// Whether its records live in a generation.
    pub const fn generational(self) -> bool {
        matches!(self, Self::Entry)
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
        Self { table, path: path.into() }
    }

    /// The key of a cache entry. A namespace has no colon, so the path is
    /// unambiguous whatever the user's key holds.
    pub fn entry(namespace: &str, user_key: &str) -> Self {
        let mut path = Vec::with_capacity(namespace.len() + 1 + user_key.len());
        path.extend_from_slice(namespace.as_bytes());
        path.push(b':');
        path.extend_from_slice(user_key.as_bytes());
        Self::new(Table::Entry, path)
    }
}

/// What a snapshot of a space was taken at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Moves when snapshots must be taken anew.
    pub epoch: u64,
    /// The generation that entries live in.
    pub generation: u64,
}

/// A stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The version its last write gave it; [`Action::Touch`] keeps it.
    pub version: u64,
    /// When it ends, by the store's clock; `None` means never.
    pub expire_ms: Option<u64>,
    /// Its bytes.
    pub value: Bytes,
}

/// What [`Store::read`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The view at that moment.
    pub view: View,
    /// One for each key, in order.
    pub records: Vec<Option<Record>>,
}

/// Writes that belong together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The view the writer relied on; refused as [`Refusal::Stale`] where the
    /// space has moved on. Needed where entries are written. `None` takes the
    /// space as it is.
    pub view: Option<View>,
    /// Whether the writes stand and fall together.
    pub mode: Mode,
    /// The writes, in order. In [`Mode::Whole`] their keys must differ.
    pub writes: Vec<Write>,
    /// Limits on the space's usage, decided before anything grows beyond them.
    pub limits: Limits,
    /// A step of the space itself, taken with the writes.
    pub step: Option<Step>,
}

impl Batch {
    /// A batch of these writes, all or nothing, whatever the view.
    pub fn of(writes: impl IntoIterator<Item = Write>) -> Self {
        Self { writes: writes.into_iter().collect(), ..Self::default() }
    }
}

/// Whether the writes of a batch stand and fall together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All are applied, or the first that is refused refuses the batch.
    #[default]
    Whole,
    /// Each is decided on its own, in order, and sees those before it.
    Each,
}

/// One write of a batch.
#[derive(Clone, Debug)]
pub struct Write {
    /// What is written.
    pub key: Key,
    /// What must hold of the record before.
    pub check: Check,
    /// What happens to it.
    pub action: Action,
    /// A record whose version is at most this is hidden from the write: its check,
    /// its touch and its outcome take it as absent. A put still replaces it and a
    /// delete still removes it, uncounted as ever. 0 hides nothing.
    pub floor: u64,
}

impl Write {
    /// Puts a record that never expires, whatever was there.
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self::new(key, Check::Any, Action::Put { value: value.into(), expiry: Expiry::Never })
    }

    /// Removes a record, if it is there.
    pub fn delete(key: Key) -> Self {
        Self::new(key, Check::Any, Action::Delete)
    }

    /// Only checks.
    pub fn check(key: Key, check: Check) -> Self {
        Self::new(key, check, Action::Nothing)
    }

    /// A write that hides nothing.
    pub fn new(key: Key, check: Check, action: Action) -> Self {
        Self { key, check, action, floor: 0 }
    }

    /// The same write under a condition.
    #[must_use]
    pub fn when(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    /// The same write with the records up to this version hidden from it.
    #[must_use]
    pub fn above(mut self, floor: u64) -> Self {
        self.floor = floor;
        self
    }

    /// The same put with an expiry.
    #[must_use]
    pub fn expiring(mut self, after: Expiry) -> Self {
        if let Action::Put { expiry, .. } = &mut self.action {
            *expiry = after;
        }
        self
    }
}

/// What must hold of a record before it is written. A record whose time is over
/// is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// Nothing.
    #[default]
    Any,
    /// It is absent.
    Absent,
    /// It is there.
    Present,
    /// It is there, at this version.
    Version(u64),
}

/// What happens to a record.
#[derive(Clone, Debug)]
pub enum Action {
    /// It is put, with a new version.
    Put {
        /// Its bytes.
        value: Bytes,
        /// When it ends.
        expiry: Expiry,
    },
    /// It gets a new expiry and keeps its version; nothing happens where it is
    /// absent.
    Touch(Expiry),
    /// It is removed.
    Delete,
    /// Nothing; the check alone counts.
    Nothing,
}

/// When a record ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    #[default]
    Never,
    /// So many milliseconds after the commit, by the store's clock. At least 1.
    AfterMs(u64),
}

/// Limits on what a space counts after the commit. A commit that does not grow
/// a figure is never refused for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// At most so many metered records.
    pub entries: Option<u64>,
    /// At most so many bytes of them. Bytes of flushed generations that still
    /// await reclaim may add half as much again.
    pub bytes: Option<u64>,
}

/// A step of the space itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Snapshots must be taken anew: epoch + 1.
    Epoch,
    /// Every entry disappears: generation + 1, epoch + 1; what was counted is
    /// orphaned until [`Reclaim::Orphans`] has been through.
    Generation,
    /// The space is gone, and stays gone: every later commit is refused with
    /// [`Refusal::Gone`] for at least an hour, every read finds nothing. Its
    /// records are left to [`Reclaim::Orphans`].
    Remove,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It was applied (in [`Mode::Each`]: as far as its outcomes say).
    Applied(Applied),
    /// Nothing was written.
    Refused(Refusal),
}

/// An applied batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The view after it.
    pub view: View,
    /// One for each write, in order.
    pub outcomes: Vec<Outcome>,
    /// What the space counts after it; with [`Step::Generation`] and
    /// [`Step::Remove`], what it counted before it.
    pub usage: Usage,
}

/// What became of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done {
        /// Whether there was a record before.
        existed: bool,
        /// The record's version now; for one that is absent now, 0.
        version: u64,
        /// When the record ends now.
        expire_ms: Option<u64>,
    },
    /// It was refused, in [`Mode::Each`].
    Refused(Refusal),
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A check did not hold.
    Conflict {
        /// The write, by its place in the batch.
        write: usize,
        /// The version of the record that was found; `None` where it is absent.
        found: Option<u64>,
    },
    /// A limit would be passed.
    Exceeded {
        /// Which.
        metric: Metric,
        /// The limit.
        limit: u64,
        /// What is counted already.
        used: u64,
    },
    /// The view the writer relied on has passed; this is the present one.
    Stale(View),
    /// The space was removed.
    Gone,
}

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Records.
    Entries,
    /// Bytes.
    Bytes,
}

/// What a space counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Metered records.
    pub entries: u64,
    /// Their bytes, each counted as [`charge`].
    pub bytes: u64,
    /// Bytes of flushed generations that still await reclaim, at most.
    pub orphaned_bytes: u64,
    /// Whether the figures are exact: false while the store may evict on its own.
    pub exact: bool,
}

/// What the counters say, and what the records say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// By the counters.
    pub counted: Usage,
    /// By the records; its `orphaned_bytes` are those found of other generations.
    pub found: Usage,
}

impl Audit {
    /// Whether entries and bytes agree.
    pub fn agrees(&self) -> bool {
        (self.counted.entries, self.counted.bytes) == (self.found.entries, self.found.bytes)
    }
}

/// Asks for a page of a table.
#[derive(Clone, Debug)]
pub struct Query {
    /// The table: an ordered one, or [`Table::Entry`].
    pub table: Table,
    /// The generation, for entries.
    pub generation: u64,
    /// Only paths that begin so.
    pub prefix: Bytes,
    /// Where the page before ended; `None` begins.
    pub after: Option<Cursor>,
    /// At most so many records; 1 to 1000.
    pub limit: usize,
    /// At most so many bytes of each value.
    pub value_bytes: usize,
}

/// A page of a table.
#[derive(Clone, Debug)]
pub struct Page {
    /// The space's view.
    pub view: View,
    /// The records. Fewer than asked for, even none, does not mean the end.
    pub items: Vec<Listed>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// A listed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path.
    pub path: Bytes,
    /// The record; its value is cut to [`Query::value_bytes`].
    pub record: Record,
    /// Bytes of its whole value.
    pub value_bytes: u64,
}

/// A place in a listing, opaque above the store. For ordered tables it is the
/// last path listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub Bytes);

/// What can no longer be reached.
#[derive(Clone, Debug)]
pub enum Reclaim {
    /// Entries of generations below this one; in a removed space, every record.
    /// Entries of the present generation stay, whatever `below` says: a flush
    /// leaves its job behind before it is committed.
    Orphans {
        /// The generation that was current when the work began.
        below: u64,
    },
    /// Entries of the present generation whose path begins so and whose version
    /// is at most this.
    Below {
        /// The beginning of their paths.
        prefix: Bytes,
        /// The last version that is unreachable.
        version: u64,
    },
}

/// What a call to [`Store::reclaim`] removed.
#[derive(Clone, Debug, Default)]
pub struct Reclaimed {
    /// Metered records removed.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where to go on; `None` when all is done.
    pub next: Option<Cursor>,
}

/// A place in the history of announced commits, opaque above the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub Arc<str>);

/// Commits to announced tables.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Ask with this next time.
    pub position: Position,
    /// The records that changed, oldest first.
    pub keys: Vec<Key>,
    /// Some may be missing: the history was cut, or this is another store's.
    pub lost: bool,
}

/// How the store is.
#[derive(Clone, Debug)]
pub struct Health {
    /// Round trip, in microseconds.
    pub latency_us: u64,
    /// Whether usage is exact: false while the store may evict on its own.
    pub exact: bool,
    /// What it is, such as `redis 7.0.15`.
    pub version: String,
}

/// A fault of the store. What a refusal is, is no fault.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or said that it cannot serve; nothing was written.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A commit was on its way, and its answer never came.
    #[error("the store did not answer a commit: {0}")]
    OutcomeUnknown(String),
    /// It has no room; nothing was written.
    #[error("the store is full: {0}")]
    Full(String),
    /// It is no store this service can work on: a wrong password, another
    /// protocol, too old a version.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
    /// A stored record cannot be read.
    #[error("a stored record is damaged: {0}")]
    Corrupt(String),
    /// The caller broke the port's contract.
    #[error("the store was asked wrongly: {0}")]
    Misuse(String),
}

/// Bytes of header each record carries in the store.
pub const HEAD_BYTES: u64 = 20;

/// What a record of this path and value counts: both, and its header.
pub fn charge(path: &[u8], value_bytes: usize) -> u64 {
    HEAD_BYTES + path.len() as u64 + value_bytes as u64
}

/// The width of the bucket that an expiry so far away is rounded up in: 50 ms
/// below a minute, 1 s below an hour, 15 s above. A record counts until the
/// end of its bucket.
pub const fn bucket_ms(ttl_ms: u64) -> u64 {
    match ttl_ms {
        0..60_000 => 50,
        60_000..3_600_000 => 1_000,
        _ => 15_000,
    }
}

/// Expiries beyond this (the year 5138) are cut to it: 2^53 is far away, and so
/// is every script's arithmetic.
pub const MAX_EXPIRE_MS: u64 = 100_000_000_000_000;
