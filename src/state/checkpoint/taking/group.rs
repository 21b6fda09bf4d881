//! Tenants that are taken together. It does not know which others there are.

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};

use super::{LOOSE_BYTES, Taken, Taking, stored};
use crate::{
    error::Result,
    state::checkpoint::{
        Component, Missed, Owner, Part,
        packing::Parcel,
        usage::{self, Metered},
        walk::{self, Begun, Pinned, Walk},
    },
    store::Table,
    tenant::{KeptUsage, Registered},
};

/// How often a tenant is taken at most, where a point in time of it is lost.
const TAKES: u8 = 3;

/// How long a point in time is waited for that another keeps: longer than one of a
/// replica that was killed is.
const BUSY: Duration = Duration::from_secs(60);

/// Tenants that the store is asked about at once.
const ASKED: usize = 8;

/// A tenant that is being taken.
struct Seat {
    registered: Registered,
    parcel: Parcel,
    events_before_ms: Option<u64>,
    state: State,
}

enum State {
    /// It was taken whole.
    Whole,
    /// It has to be taken anew, for this reason.
    Lost(&'static str),
    /// It was purged.
    Gone,
}

impl Taking<'_> {
    /// Takes these tenants.
    pub(super) async fn group(&mut self, ids: &[String]) -> Result<()> {
        let tenants = &self.vault.tenants;
        let asked: Vec<_> = ids.iter().map(|id| tenants.registered(id)).collect();
        let found: Vec<Option<Registered>> =
            stream::iter(asked).buffered(ASKED).try_collect().await?;
        let mut seats = Vec::with_capacity(found.len());
        for (id, registered) in ids.iter().zip(found) {
            let Some(registered) = registered else {
                self.gone(id);
                continue;
            };
            let owner = Owner::Tenant(registered.tenant.incarnation);
            seats.push(Seat {
                registered,
                parcel: self.parcel(id, owner).await?,
                events_before_ms: None,
                state: State::Lost("it was not begun"),
            });
        }
        self.take(&mut seats).await?;
        for seat in &mut seats {
            let one = std::slice::from_mut(seat);
            let (mut waited, mut takes) = (Duration::ZERO, 1);
            while let [
                Seat {
                    state: State::Lost(why),
                    parcel,
                    ..
                },
            ] = &mut *one
            {
                let busy = *why == PINNED;
                if (busy && waited > BUSY) || (!busy && takes >= TAKES) {
                    break;
                }
                if busy {
                    let pause = Duration::from_secs(1);
                    tokio::time::sleep(pause).await;
                    waited += pause;
                }
                if !busy {
                    takes += 1;
                }
                parcel.begin_anew();
                self.take(one).await?;
            }
        }
        for seat in seats {
            self.end(seat).await?;
        }
        Ok(())
    }

    /// Notes what became of a tenant.
    async fn end(&mut self, mut seat: Seat) -> Result<()> {
        let id = seat.registered.tenant.tenant_id.clone();
        match seat.state {
            State::Whole => {
                self.packer.finish(&mut seat.parcel).await?;
                self.taken.push(Taken {
                    parcel: seat.parcel,
                    events_before_ms: seat.events_before_ms,
                });
            }
            State::Lost(why) => {
                self.drop_key(&seat.parcel).await?;
                tracing::warn!(tenant_id = id, why, "tenant not taken into a checkpoint");
                self.missed.push(Missed {
                    tenant_id: id,
                    why: why.to_owned(),
                });
            }
            State::Gone => {
                self.drop_key(&seat.parcel).await?;
                self.gone(&id);
            }
        }
        self.progress
            .send_modify(|progress| progress.tenants_done += 1);
        Ok(())
    }

    /// What was written of a tenant that is not in the checkpoint opens no more.
    pub(super) async fn drop_key(&self, parcel: &Parcel) -> Result<()> {
        let part = Part::Key(parcel.held.owner);
        Ok(self.vault.objects.remove(self.id, part).await?)
    }

    /// A tenant that is not there any more is missed only where it was asked for.
    fn gone(&mut self, id: &str) {
        if !self.wanted.tenant_ids.is_empty() {
            self.missed.push(Missed {
                tenant_id: id.to_owned(),
                why: "it was purged while the checkpoint was taken".into(),
            });
        }
    }

    /// Takes tenants once.
    async fn take(&mut self, seats: &mut [Seat]) -> Result<()> {
        let mut pinned = Vec::new();
        let taken = self.take_pinned(seats, &mut pinned).await;
        // What is not freed by now is when its time is over.
        for Pinned { pin, .. } in &pinned {
            if let Err(error) = self.vault.store.unpin(pin).await {
                tracing::debug!(%error, "point in time not freed");
            }
        }
        taken
    }

    async fn take_pinned(&mut self, seats: &mut [Seat], pinned: &mut Vec<Pinned>) -> Result<()> {
        for (at, seat) in seats.iter_mut().enumerate() {
            seat.state = State::Whole;
            self.pin(at, seat, pinned).await?;
        }
        self.records(seats).await?;
        for (component, table) in [
            (Component::Cache, Table::Entry),
            (Component::Sessions, Table::Session),
        ] {
            let of: Vec<&Pinned> = pinned
                .iter()
                .filter(|pinned| pinned.component == component)
                // What holds nothing need not be looked for.
                .filter(|pinned| pinned.pin.usage.entries > 0)
                .collect();
            let lost = self.walk(seats, of, table).await?;
            for at in lost {
                if let Some(seat) = seats.get_mut(at)
                    && matches!(seat.state, State::Whole)
                {
                    seat.state = State::Lost("its point in time was lost, each time");
                }
            }
        }
        Ok(())
    }

    /// Pins the spaces of a tenant.
    async fn pin(&self, at: usize, seat: &mut Seat, pinned: &mut Vec<Pinned>) -> Result<()> {
        let tenant = &seat.registered.tenant;
        let store = &self.vault.store;
        for (component, space) in [
            (Component::Cache, tenant.space()),
            (Component::Sessions, tenant.session_space()),
        ] {
            if !self.wanted.components.contains(&component) {
                continue;
            }
            let hidden = (component == Component::Cache).then_some(&*self.vault.hidden);
            match walk::pin(store, &space, (at, component), hidden).await? {
                Begun::Pinned(begun) => {
                    let held = &mut seat.parcel.held;
                    held.at_ms = begun.pin.at_ms;
                    held.versions.insert(component, begun.pin.version);
                    pinned.push(begun);
                }
                Begun::Busy => seat.state = State::Lost(PINNED),
                // Removed by a purge, or by a restore that has put it elsewhere.
                Begun::Gone => match self.vault.tenants.registered(&tenant.tenant_id).await? {
                    Some(now) if now.tenant.incarnation == tenant.incarnation => {
                        seat.registered = now;
                        seat.state = State::Lost("its space was replaced");
                        return Ok(());
                    }
                    _ => {
                        seat.state = State::Gone;
                        return Ok(());
                    }
                },
            }
        }
        Ok(())
    }

    /// Packs what is kept of tenants beside their entries and sessions.
    async fn records(&mut self, seats: &mut [Seat]) -> Result<()> {
        let usage = self.usage(seats).await?;
        for (seat, usage) in seats.iter_mut().zip(usage) {
            if !matches!(seat.state, State::Whole) {
                continue;
            }
            if self.wanted.components.contains(&Component::Tenants) {
                for (key, found) in seat.registered.records.clone() {
                    let record = stored(key, found);
                    self.packer
                        .add(&mut seat.parcel, Component::Tenants, &record)
                        .await?;
                }
            }
            let Some(usage) = usage else { continue };
            seat.events_before_ms = Some(usage.events_before_ms);
            let cache = seat.registered.tenant.space();
            let mut records = Vec::new();
            for kept in &usage.meters {
                let space = if kept.space == cache {
                    Metered::Cache
                } else {
                    Metered::Sessions
                };
                records.push(usage::of_meters(space, kept)?);
            }
            for kept in &usage.rows {
                records.push(usage::of_row(kept)?);
            }
            let kept = usage.records.into_iter();
            records.extend(kept.map(|(key, found)| stored(key, found)));
            for record in &records {
                self.packer
                    .add(&mut seat.parcel, Component::Usage, record)
                    .await?;
            }
        }
        Ok(())
    }

    /// What is kept of the usage of tenants, where it is asked for.
    async fn usage(&self, seats: &[Seat]) -> Result<Vec<Option<KeptUsage>>> {
        let wanted = self.wanted.components.contains(&Component::Usage);
        let asked: Vec<_> = seats
            .iter()
            .map(|seat| self.usage_of(seat, wanted))
            .collect();
        stream::iter(asked).buffered(ASKED).try_collect().await
    }

    async fn usage_of(&self, seat: &Seat, wanted: bool) -> Result<Option<KeptUsage>> {
        if !wanted || !matches!(seat.state, State::Whole) {
            return Ok(None);
        }
        let tenant = &seat.registered.tenant;
        Ok(Some(self.vault.tenants.kept_usage(tenant).await?))
    }

    /// Packs what pinned spaces held; which seats were lost.
    async fn walk(
        &mut self,
        seats: &mut [Seat],
        pinned: Vec<&Pinned>,
        table: Table,
    ) -> Result<HashSet<usize>> {
        let store = self.vault.store.clone();
        let mut walk = Walk::new(&store, pinned, table);
        while let Some(page) = walk.next().await? {
            let (mut records, mut bytes) = (0, 0);
            for found in page {
                let Some(seat) = seats.get_mut(found.of.seat) else {
                    continue;
                };
                records += 1;
                bytes += found.record.bytes();
                self.packer
                    .add(&mut seat.parcel, found.of.component, &found.record)
                    .await?;
            }
            let parcels = seats.iter_mut().map(|seat| &mut seat.parcel);
            self.packer.bound(parcels, LOOSE_BYTES).await?;
            self.progress.send_modify(|progress| {
                progress.records_done += records;
                progress.bytes_done += bytes;
            });
        }
        Ok(walk.lost())
    }
}

/// Why a tenant waits.
const PINNED: &str = "another point in time of it is kept";
