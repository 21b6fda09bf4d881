//! Interest in the changes of a tenant: begun and kept up by whoever watches,
//! ended by a writer that finds its time over. It does not know who watches.

use std::sync::Arc;

use crate::{
    cache::{
        Cache,
        floors::Floors,
        note::Note,
        precedence::Precedence,
        snapshot::{ATTEMPTS, Snapshot},
    },
    error::{Error, Result},
    store::{Batch, Commit, Refusal, Step, Write},
    tenant::Tenancy,
};

impl Cache {
    /// Sees to it that every change of the tenant is noted from now on, for as long
    /// as is set. Where it was not until now, the log tells so.
    pub(super) async fn take_interest(&self, tenancy: &Tenancy) -> Result<()> {
        let linger = self.settings.load().watch.linger;
        let linger_ms = u64::try_from(linger.as_millis()).unwrap_or(u64::MAX);
        let _turn = self.memory.snapshots.turn(tenancy.home).await;
        let mut precedence = Precedence::new(&self.store, &tenancy.space);
        for _ in 0..ATTEMPTS {
            // As of now; whether the tenant itself is lost is found out with it.
            let mut floors = Floors::clone(&self.reload(tenancy).await?.floors);
            let now_ms = self.store.now_ms();
            let before = floors.watched_until_ms;
            if before.is_some_and(|until_ms| until_ms >= now_ms.saturating_add(linger_ms / 2)) {
                return Ok(());
            }
            floors.watched_until_ms = Some(now_ms.saturating_add(linger_ms));
            let (step, note) = match before {
                None => (Some(Step::Era), Note::Begun),
                Some(_) => (None, Note::Stands),
            };
            let batch = interest(floors, &precedence, step, note)?;
            match self.store.commit(&tenancy.space, batch).await? {
                Commit::Applied(_) => return Ok(()),
                Commit::Refused(Refusal::Conflict { write, .. }) => precedence.late(write).await?,
                Commit::Refused(Refusal::Gone) => {
                    return Err(tenancy.departed(&self.store).await);
                }
                Commit::Refused(Refusal::Fenced) => return Err(Error::RestoreInProgress),
                Commit::Refused(_) => {}
            }
        }
        Err(Error::RequestInProgress)
    }

    /// The snapshot that a write may rely on. Where nobody has kept up the interest
    /// in the tenant, it is ended first.
    pub(in crate::cache) async fn snapshot_to_write(
        &self,
        tenancy: &Tenancy,
    ) -> Result<Arc<Snapshot>> {
        let snapshot = self.snapshot(tenancy).await?;
        if !self.is_over(&snapshot.floors) {
            return Ok(snapshot);
        }
        // It may have been kept up since.
        let snapshot = self.reload(tenancy).await?;
        if !self.is_over(&snapshot.floors) {
            return Ok(snapshot);
        }
        let mut floors = Floors::clone(&snapshot.floors);
        floors.watched_until_ms = None;
        let precedence = Precedence::new(&self.store, &tenancy.space);
        let batch = interest(floors, &precedence, Some(Step::Era), Note::Ended)?;
        if let Err(error) = self.store.commit(&tenancy.space, batch).await {
            // Then changes are noted, though nobody may read it.
            tracing::debug!(%error, "interest not ended");
            return Ok(snapshot);
        }
        self.reload(tenancy).await
    }

    fn is_over(&self, floors: &Floors) -> bool {
        floors
            .watched_until_ms
            .is_some_and(|until_ms| until_ms <= self.store.now_ms())
    }
}

/// A write of the record over the one that was read, and a note of it.
fn interest(
    floors: Floors,
    precedence: &Precedence<'_>,
    step: Option<Step>,
    note: Note,
) -> Result<Batch> {
    let write = Write::put(Floors::key(), floors.encode()?).when(floors.unchanged());
    Ok(Batch {
        step,
        note: Some(note.encode()),
        ..Batch::of([write, precedence.write()])
    })
}
