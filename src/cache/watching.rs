//! Watching a tenant: every change of its entries, in order, from any replica, or
//! from a place on where a watcher was before. It does not know how watchers are
//! reached, nor how they are told where they are.
//!
//! # Exactly
//!
//! Changes are noted in the log of the tenant's space while somebody is interested,
//! and cost nothing else. Interest stands in the record of the floors, which every
//! writer holds a copy of: it is begun in a commit that begins an era, so that a write
//! that relies on a copy without it is refused and made anew; and it is ended likewise, by a writer that finds its time over. Both are noted in the log. So
//! between a beginning and an end every change has a note, whatever the clocks say;
//! and who resumes across an end, or from a place that the log does not reach back
//! to, meets a beginning, or is told so, and learns that everything may have changed.

mod interest;
mod poll;
mod reach;
mod tail;

use std::time::Duration;

use tokio::sync::watch;

pub use self::reach::Reach;
pub(super) use self::tail::Watches;
use self::{
    poll::{PIECE, REST},
    tail::{Found, Seat},
};
use super::{
    Cache,
    note::{Change, Note},
};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::Result,
    store::{self, Position},
    tenant::{Counts, Tenancy},
};

/// What a watcher is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// What changed, oldest first.
    pub changes: Vec<Change>,
    /// Where to go on.
    pub position: Position,
}

/// One who watches a tenant.
pub struct Watcher {
    cache: Cache,
    tenancy: Tenancy,
    reach: Reach,
    seat: Seat,
    moved: watch::Receiver<()>,
    at: Position,
    place: Place,
}

/// Where a watcher reads.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The log in the store: what it wants is not in memory.
    Store,
    /// This piece of what this replica has read of the log, after so many notes.
    Tail { number: u64, skip: usize },
}

impl Cache {
    /// Watches what `reach` names of a tenant, from a place on, or from now.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`] where the tenant has as many watchers at this replica
    /// as it may; those of the store.
    pub async fn watch(
        &self,
        tenancy: &Tenancy,
        reach: Reach,
        from: Option<Position>,
    ) -> Result<Watcher> {
        self.take_interest(tenancy).await?;
        // Taken after interest stands: whatever is written after the answer is noted.
        let now = self.store.notes(&tenancy.space, None, 1).await?.position;
        let (seat, first) = self
            .memory
            .watches
            .sit(tenancy, &self.settings, now.clone())?;
        if let Some(tail) = first {
            let (cache, tenancy) = (self.clone(), tenancy.clone());
            tokio::spawn(async move { cache.poll(tenancy, &tail).await });
        }
        tenancy.account.meter.count(Counts {
            operations: 1,
            ..Counts::default()
        });
        Ok(Watcher {
            cache: self.clone(),
            tenancy: tenancy.clone(),
            reach,
            moved: seat.moved(),
            seat,
            at: from.unwrap_or(now),
            place: Place::Store,
        })
    }
}

impl Watcher {
    /// Waits for what changes next. May be dropped at any time and called again.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`] for a watcher that fell too far behind;
    /// [`Error::NotFound`] where the tenant is gone, [`Error::RestoreInProgress`] where
    /// its data are, or will be, elsewhere: see [`Watcher::go_on`].
    pub async fn next(&mut self) -> Result<Told> {
        loop {
            self.moved.borrow_and_update();
            let told = match self.place {
                Place::Store => self.read_store().await?,
                Place::Tail { number, skip } => match self.seat.piece(number)? {
                    Found::Piece(piece) => {
                        let notes = piece.notes.iter().skip(skip);
                        let changes = notes.filter_map(|(_, change)| change.as_ref());
                        let changes = changes.flat_map(|change| self.reach.visible(change));
                        let changes = changes.collect();
                        self.at = piece.position.clone();
                        let number = number + 1;
                        self.place = Place::Tail { number, skip: 0 };
                        self.seat.needs(Some(number));
                        Some(changes)
                    }
                    Found::NotYet => None,
                },
            };
            match told {
                Some(changes) if changes.is_empty() => {}
                Some(changes) => return Ok(self.tell(changes)),
                // It cannot fail: the seat holds what it waits for.
                None => drop(self.moved.changed().await),
            }
        }
    }

    /// The changes behind the place, by the log in the store; `None` at its end.
    async fn read_store(&mut self) -> Result<Option<Vec<Change>>> {
        if let Some((number, skip)) = self.seat.find(&self.at)? {
            self.place = Place::Tail { number, skip };
            return Ok(Some(Vec::new()));
        }
        let (space, at) = (&self.tenancy.space, self.at.clone());
        let notes = match self.cache.store.notes(space, Some(at), PIECE).await {
            Ok(notes) => notes,
            // It may come back; who waits for it decides for how long.
            Err(store::Error::Unavailable(_)) => {
                tokio::time::sleep(REST).await;
                return Ok(Some(Vec::new()));
            }
            Err(error) => return Err(error.into()),
        };
        self.at = notes.position;
        if notes.lost {
            return Ok(Some(vec![Change::Tenant]));
        }
        if notes.notes.is_empty() {
            return Ok(None);
        }
        let changes = notes.notes.iter();
        let changes = changes.filter_map(|noted| Note::decode(&noted.note).change());
        let changes = changes.flat_map(|change| self.reach.visible(&change).collect::<Vec<_>>());
        Ok(Some(changes.collect()))
    }

    fn tell(&self, changes: Vec<Change>) -> Told {
        self.tenancy.account.meter.count(Counts {
            bytes_out: changes.iter().map(Change::bytes).sum(),
            ..Counts::default()
        });
        Told {
            changes,
            position: self.at.clone(),
        }
    }

    /// Goes on where the tenant's data are now: everything may have changed.
    ///
    /// # Errors
    /// As [`Cache::watch`].
    pub async fn go_on(&mut self, tenancy: &Tenancy) -> Result<Told> {
        let (cache, reach) = (self.cache.clone(), self.reach.clone());
        *self = cache.watch(tenancy, reach, None).await?;
        // Told after interest stands there, so it covers all that came before.
        let changes = self.reach.visible(&Change::Tenant).collect();
        Ok(self.tell(changes))
    }

    /// That nothing has changed, but for what was told, until a moment ago; `None`
    /// where that is not known.
    pub fn idle(&self) -> Option<Told> {
        let caught_up = match self.place {
            Place::Store => false,
            Place::Tail { number, .. } => matches!(self.seat.piece(number), Ok(Found::NotYet)),
        };
        (caught_up && self.silence() < CURRENT).then(|| Told {
            changes: Vec::new(),
            position: self.at.clone(),
        })
    }

    /// Where it is, whatever is known of what comes next.
    pub fn position(&self) -> &Position {
        &self.at
    }

    /// How often a watcher is to be given a sign of life.
    pub fn heartbeat(&self) -> Duration {
        self.cache.settings.load().watch.heartbeat
    }

    /// For how long the store has not told how the log goes on.
    pub fn silence(&self) -> Duration {
        self.seat.read().elapsed()
    }
}

/// How long ago the log was read, at most, where it is said that nothing changed.
const CURRENT: Duration = Duration::from_secs(1);

impl Note {
    /// What a watcher learns of it.
    fn change(self) -> Option<Change> {
        match self {
            Self::Begun => Some(Change::Tenant),
            Self::Stands | Self::Ended => None,
            Self::Changed(change) => Some(change),
        }
    }
}

impl Change {
    /// Bytes of what it names.
    fn bytes(&self) -> u64 {
        let all =
            |of: &String, items: &[String]| of.len() + items.iter().map(String::len).sum::<usize>();
        let bytes = match self {
            Self::Tenant => 0,
            Self::Namespace(of) => of.len(),
            Self::Prefix(of, prefix) => of.len() + prefix.len(),
            Self::Tags(of, items) | Self::Keys(of, items) => all(of, items),
        };
        bytes as u64
    }
}
