//! Whose write of a tenant's floors goes first. They lie in one record that is read
//! before it is written, and whoever comes too late reads again, which takes a trip
//! more than the other's next write: a replica that writes without a pause would
//! keep all others from it. So who was late twice asks the others to wait. It does
//! not know what floors are.

use std::time::Duration;

use crate::{
    error::Result,
    store::{Batch, Check, Commit, Expiry, Handle, Key, Outcome, Space, Table, Write},
};

/// How often a writer may be late before it asks for precedence.
const LATE: u32 = 2;

/// How long precedence lasts where whoever has it is gone.
const LASTS_MS: u64 = 250;

/// A write of floors that is tried until it is in time.
pub(super) struct Precedence<'a> {
    store: &'a Handle,
    space: &'a Space,
    late: u32,
    /// The version of the record that says so, where this writer goes first.
    held: Option<u64>,
}

impl<'a> Precedence<'a> {
    pub(super) fn new(store: &'a Handle, space: &'a Space) -> Self {
        Self {
            store,
            space,
            late: 0,
            held: None,
        }
    }

    fn key() -> Key {
        Key::new(Table::Control, &b"floors-next"[..])
    }

    /// The write beside that of the floors, and behind it: nobody else goes first; or
    /// this writer does, and is done with it.
    pub(super) fn write(&self) -> Write {
        match self.held {
            None => Write::check(Self::key(), Check::Absent),
            Some(version) => Write::delete(Self::key()).when(Check::Version(version)),
        }
    }

    /// After a conflict at the write of this number: of the floors, or that behind it.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn late(&mut self, write: usize) -> Result<()> {
        self.late += 1;
        if write > 0 {
            // Another goes first; or this one did, for too long.
            self.held = None;
            tokio::time::sleep(Duration::from_millis(1 << self.late.min(4))).await;
        } else if self.held.is_none() && self.late >= LATE {
            let write = Write::put(Self::key(), &b""[..])
                .when(Check::Absent)
                .expiring(Expiry::AfterMs(LASTS_MS));
            if let Commit::Applied(applied) =
                self.store.commit(self.space, Batch::of([write])).await?
                && let Some(Outcome::Done { version, .. }) = applied.outcomes.first()
            {
                self.held = Some(*version);
            }
        }
        Ok(())
    }
}
