//! Reading a tenant's log for all who watch it at this replica, for as long as
//! anybody does. It does not know who they are.

use std::time::{Duration, Instant};

use super::tail::{Piece, Tail};
use crate::{
    cache::{
        Cache,
        note::{Change, Note},
    },
    error::{Error, Result},
    store::{Notes, Position},
    tenant::Tenancy,
};

/// Notes that are read at once.
pub(super) const PIECE: usize = 256;

/// How long the store is left alone that did not answer.
pub(super) const REST: Duration = Duration::from_millis(100);

/// How long after a change the next is looked for, and at most; in between the
/// longer, the longer there was none.
const SOONEST: Duration = Duration::from_millis(10);
const LATEST: Duration = Duration::from_millis(50);

/// How often the interest is looked after, at least; more often where it is short.
const LOOKED_AFTER: Duration = Duration::from_secs(30);

impl Cache {
    /// Follows the tenant's log until nobody sits at the tail any more, or the tenant
    /// is gone.
    pub(super) async fn poll(&self, tenancy: Tenancy, tail: &Tail) {
        let mut looked = Instant::now();
        let mut pause = SOONEST;
        while let Some(head) = tail.head() {
            let look_after = LOOKED_AFTER.min(self.settings.load().watch.linger / 8);
            let step = async {
                if looked.elapsed() >= look_after {
                    self.take_interest(&tenancy).await?;
                    looked = Instant::now();
                }
                self.read_on(&tenancy, tail, head).await
            };
            pause = match step.await {
                Ok(0) => LATEST.min(pause + Duration::from_millis(1)),
                Ok(PIECE..) => Duration::ZERO,
                Ok(_) => SOONEST,
                Err(error @ (Error::NotFound { .. } | Error::RestoreInProgress)) => {
                    return tail.end(error);
                }
                Err(error) => {
                    tracing::debug!(tenant_id = &*tenancy.tenant_id, %error, "log not read");
                    REST
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads what is behind a place; how many notes it was.
    async fn read_on(&self, tenancy: &Tenancy, tail: &Tail, head: Position) -> Result<usize> {
        let read = self
            .store
            .notes(&tenancy.space, Some(head.clone()), PIECE)
            .await?;
        if read.lost {
            return self.begin_anew(tenancy, tail, head).await;
        }
        let count = read.notes.len();
        let mut ended = false;
        let mut notes = Vec::with_capacity(count);
        for noted in read.notes {
            let note = Note::decode(&noted.note);
            ended = match note {
                Note::Ended => true,
                Note::Begun => false,
                _ => ended,
            };
            notes.push((noted.position, note.change()));
        }
        if count > 0 {
            let position = read.position;
            tail.push(Piece { notes, position });
        }
        if ended {
            // Those who watch missed nothing yet: what comes without a note comes
            // before the next beginning, which the log will tell.
            self.take_interest(tenancy).await?;
        }
        if count < PIECE {
            tail.read_to_end();
        }
        Ok(count)
    }

    /// Goes on where the log does not reach back to this place: everything may have
    /// changed.
    async fn begin_anew(&self, tenancy: &Tenancy, tail: &Tail, head: Position) -> Result<usize> {
        let (position, gone) = match self.take_interest(tenancy).await {
            // Asked after interest stands, so that nothing is missed behind it.
            Ok(()) => {
                let Notes { position, .. } = self.store.notes(&tenancy.space, None, 1).await?;
                (position, None)
            }
            Err(error @ (Error::NotFound { .. } | Error::RestoreInProgress)) => (head, Some(error)),
            Err(error) => return Err(error),
        };
        tracing::info!(
            tenant_id = &*tenancy.tenant_id,
            "changes may have been missed"
        );
        let notes = vec![(position.clone(), Some(Change::Tenant))];
        tail.push(Piece { notes, position });
        gone.map_or(Ok(1), Err)
    }
}
