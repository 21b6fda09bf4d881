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
//!   it epoch 1. Where it was removed, reads show [`View::GONE`] for at least an hour.
//! - A space that is fenced ([`Step::Fence`]) shows what it holds, and takes no write
//!   any more. One that inherits ([`Step::Inherit`]) goes on with the versions and the
//!   meters of another, so that nobody who follows them sees a step back.
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
//!   commit that removed it, or until its expiry, and for as long as it lingers
//!   ([`Expiry::Lingering`]), rounded up to the end of its bucket ([`bucket_ms`]).
//!   [`Store::audit`] proves it. A space holds metered records of one table.
//! - [`Batch::metered`] moves the space's meters in the same step as the writes,
//!   if the batch is applied; the integral of bytes held over time moves with the
//!   records. [`Store::meters`] tells them as they were at any border of a
//!   [`Unit`], exactly, also of a space that nobody looked at for long. Meters
//!   survive flushes, and end with their space.
//! - [`Store::tally`] adds all its amounts or none, and once: what was added is
//!   durable as a control record is. Counters are never negative, and never lose
//!   an amount. [`Store::recall`] tells which names of tallies are remembered.
//! - [`Store::lease`] never lets more permits be used in any span of a window than
//!   the limit it is asked with, as far as holders keep to their leases.
//! - What [`Store::read_watched`] saw is told of when it changes: whoever holds a
//!   [`Vouch`] knows of every change that was acknowledged [`STALENESS`] ago.
//!   Expiry is no change, and the view alone is not watched: whoever takes a step
//!   writes a record that those watch who must know of it.
//! - A space has a log of the notes that its commits carry ([`Batch::note`]), each
//!   appended in the same step as what it tells of, so that they stand in the order
//!   of the commits. The log is kept for [`LOG_KEPT`] after its last note, within a
//!   bound of its bytes, and ends with its space; where it does not reach back to a
//!   place any more, [`Store::notes`] says so.
//! - [`Action::Renew`] and [`Action::Take`] show the record in the commit that changes
//!   it, so that nobody must read it first. A renewed record ends when its own
//!   [`Renewal`] says, by the store's clock at the commit.
//! - A space can be pinned ([`Store::pin`]): what it held at that moment is read by
//!   [`Store::pinned`] while commits, flushes and reclaims go on. A record that was
//!   there and whose time is not over comes at least once, always with the value, the
//!   version and the expiry that it had; nothing comes that was put later. A pin that
//!   is not read for its time, whose copies pass their bound, whose space is removed,
//!   or whose server is replaced, is lost: the walk says so, and what it yielded of
//!   that pin is worth nothing. Rows, windows and logs are no records.
//! - Time is the store's clock ([`Store::now_ms`]), never a replica's.
//! - Records of ordered tables are listed in the order of their paths' bytes,
//!   stable under concurrent writes; what a listing costs does not depend on records
//!   whose time is over, where their table is [`Table::passing`], nor on those beside
//!   its prefix. [`Table::Entry`] is listed in no order: a record that exists
//!   throughout is listed at least once.
//! - A commit that touches no table that is [`Table::lasting`] is durable within a
//!   second, on a backend that is durable at all; every other commit is durable when
//!   it is acknowledged, as far as the backend's own settings allow (Redis: AOF).
//!
//! A new promise made here needs a new case in `tests/it/store/conformance.rs`.

pub mod embedded;
pub mod redis;

mod batch;
mod health;
mod meter;
mod misuse;
mod observed;
mod pin;
mod space;
mod ties;
mod usage;
mod watch;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub use batch::{
    Action, Applied, Batch, Check, Commit, Expiry, Heritage, Inheritance, Limits, MAX_NOTE_BYTES,
    MAX_WRITES, Metric, Mode, Outcome, Refusal, Renewal, Step, Write,
};
pub use health::{Gauges, Health};
pub use meter::{
    Add, Count, Lease, Leased, MAX_COUNT, Metered, Meters, Once, Opening, Reading, Recall,
    Recalled, Remembered, Row, Settle, Stamp, Tallied, Tally, Unit, slot_ms,
};
pub use observed::{Calls, Counters, Elapsed, Ended, Observed, deadline, with_deadline};
pub use pin::{Keep, MAX_PINS, PINNED_PAGE_BYTES, Pin, PinnedPage, PinnedRecord, Pinning};
pub use space::{Incarnation, Key, METER_SPACES, Space, Table, View};
pub use ties::{Connections, Handles, Ties};
pub use usage::{Audit, HEAD_BYTES, MAX_EXPIRE_MS, Usage, bucket_ms, charge};
pub use watch::{STALENESS, Vouch, Watch, Watched, Watcher};

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

    /// The same, with the promise to tell the store's [`Watcher`] of every later
    /// change of these records, where it has one and can keep the promise. Counts as a
    /// read; unless it is overridden, the promise is never made.
    async fn read_watched(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Watched> {
        Ok(Watched {
            read: self.read(space, generation, keys).await?,
            vouch: None,
        })
    }

    /// As [`Store::read`], with those that linger: their `expire_ms` has passed.
    async fn read_lingering(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read>;

    /// Applies `batch` or refuses it, in one atomic step.
    async fn commit(&self, space: &Space, batch: Batch) -> Result<Commit>;

    /// A page of a table. See the module for the order.
    async fn list(&self, space: &Space, query: Query) -> Result<Page>;

    /// What the space counts now. Exact unless it says otherwise.
    async fn usage(&self, space: &Space) -> Result<Usage>;

    /// Compares the counters with the sum over the records themselves. Walks the
    /// whole space; meant for tests and operators, on a space at rest.
    async fn audit(&self, space: &Space) -> Result<Audit>;

    /// The space's meters, now and at the borders of this unit as far back as they
    /// are kept; all 0 for a space that was never written or was removed.
    async fn meters(&self, space: &Space, unit: Unit) -> Result<Meters>;

    /// Adds to rows of counters, in one atomic step.
    async fn tally(&self, space: &Space, tally: Tally) -> Result<Tallied>;

    /// The rows of these names, in order, each as of one moment; at most 1000.
    /// Counters come in the order of their names' bytes.
    async fn rows(&self, space: &Space, names: &[Bytes]) -> Result<Vec<Row>>;

    /// A page of the names of tallies that are remembered; see [`Recall`].
    async fn recall(&self, recall: Recall) -> Result<Recalled>;

    /// Leases permits of a window, in one atomic step.
    async fn lease(&self, space: &Space, lease: Lease) -> Result<Leased>;

    /// Removes records that can no longer be reached, a bounded number a call
    /// (about `limit` are looked at); pass [`Reclaimed::next`] to go on. May be
    /// repeated and run by several replicas: a record is uncounted once.
    async fn reclaim(
        &self,
        space: &Space,
        what: Reclaim,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Reclaimed>;

    /// Begins a point in time of a space: this moment. One at a time.
    async fn pin(&self, space: &Space, keep: Keep) -> Result<Pinning>;

    /// A page of what these spaces held when they were pinned, of these tables and in no
    /// order; at most `limit` (1 to 1000) records, and about [`PINNED_PAGE_BYTES`]. One
    /// walk over several pins, at most [`MAX_PINS`], costs little more than one over the
    /// space that shares its server with the most. All calls of a walk are given the same
    /// pins and tables. A record may come twice, and then is the same both times. The
    /// walk is whole for the pins that are not [`PinnedPage::lost`] when it ends.
    async fn pinned(
        &self,
        pins: &[Pin],
        tables: &[Table],
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<PinnedPage>;

    /// Ends a pin and frees what was kept for it; nothing happens where it has ended.
    async fn unpin(&self, pin: &Pin) -> Result<()>;

    /// Waits up to 250 ms for commits to announced tables after `position`, and
    /// returns them in order. [`Changes::lost`] means that some may be missing:
    /// drop everything that was derived from announced records. `None` asks for
    /// the position of now.
    async fn changes(&self, position: Option<Position>) -> Result<Changes>;

    /// The notes of a space's log after a place, oldest first, at most `limit` (1 to
    /// 1000) of them. Does not wait. [`Notes::lost`] means that some may be missing.
    /// `None` asks for the place of now: whatever is committed after the answer comes
    /// after it.
    async fn notes(&self, space: &Space, after: Option<Position>, limit: usize) -> Result<Notes>;

    /// Asks the store whether it is well. Bounded by a second.
    async fn ping(&self) -> Result<Health>;

    /// What the store says of itself, summed over its primaries; counts as a ping.
    /// Bounded by a second.
    async fn gauges(&self) -> Result<Gauges>;

    /// How this handle is tied to the store at this moment; unless it is overridden, by
    /// nothing. Needs no trip.
    fn ties(&self) -> Ties {
        Ties::default()
    }

    /// The store's clock, in milliseconds since 1970, without a round trip: exact
    /// to about a round trip's half. Before the first contact it is the machine's.
    fn now_ms(&self) -> u64;

    /// `redis` or `embedded`.
    fn backend(&self) -> &'static str;

    /// Makes everything acknowledged durable and lets go of the store. Calls
    /// after it fail with [`Error::Unavailable`].
    async fn close(&self) -> Result<()>;
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

/// A place in the history of announced commits, or in the log of a space; opaque
/// above the store.
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

/// A piece of a space's log.
#[derive(Clone, Debug)]
pub struct Notes {
    /// Ask with this next time.
    pub position: Position,
    /// The notes, oldest first. Fewer than asked for means that there are no more.
    pub notes: Vec<Noted>,
    /// Some may be missing: the log was cut or has ended, or this is another store's.
    /// Then there are no notes, and the position is that of now.
    pub lost: bool,
}

/// A note, and the place behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Where to go on after it.
    pub position: Position,
    /// What its commit carried.
    pub note: Bytes,
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

/// How long the log of a space is kept after its last note.
pub const LOG_KEPT: Duration = Duration::from_secs(60 * 60);

/// Bytes of a space's log, about; beyond it the older half goes.
const LOG_BYTES: usize = 8 << 20;

/// Notes of a space's log; beyond it the oldest go.
const LOG_NOTES: usize = 100_000;
