//! Which events of the tenants that were taken are counted in their rows already, found
//! by one walk for all of them. It does not know how rows were read.

use std::collections::HashMap;

use super::{LOOSE_BYTES, Taking};
use crate::{
    error::Result,
    state::checkpoint::{Component, Missed, Owner, usage},
    store::Incarnation,
    tenant::event::counted::Walk,
};

impl Taking<'_> {
    /// Packs the events.
    pub(super) async fn events(&mut self) -> Result<()> {
        let life_of = |owner| match owner {
            Owner::Store => None,
            Owner::Tenant(life) => Some(life),
        };
        let mut places: HashMap<Incarnation, usize> = HashMap::new();
        for (at, taken) in self.taken.iter().enumerate() {
            if let Some(life) = life_of(taken.parcel.held.owner)
                && taken.events_before_ms.is_some()
            {
                places.insert(life, at);
            }
        }
        let mut walk = Walk::over(places.keys().copied());
        while let Some(page) = self.vault.tenants.counted(&mut walk).await? {
            let (mut records, mut bytes) = (0, 0);
            for event in page {
                let at = places.get(&event.incarnation);
                let Some(taken) = at.and_then(|at| self.taken.get_mut(*at)) else {
                    continue;
                };
                let before_ms = taken.events_before_ms.unwrap_or_default();
                if !event.is_before(before_ms) {
                    continue;
                }
                let record = usage::of_event(&event);
                records += 1;
                bytes += record.bytes();
                self.packer
                    .add(&mut taken.parcel, Component::Usage, &record)
                    .await?;
            }
            if records > 0 {
                let parcels = self.taken.iter_mut().map(|taken| &mut taken.parcel);
                self.packer.bound(parcels, LOOSE_BYTES).await?;
            }
            self.events += records;
            self.progress.send_modify(|progress| {
                progress.records_done += records;
                progress.bytes_done += bytes;
            });
        }
        for taken in &mut self.taken {
            self.packer.finish(&mut taken.parcel).await?;
        }
        // A tenant whose events may be missing would count some of them twice.
        for taken in std::mem::take(&mut self.taken) {
            let life = life_of(taken.parcel.held.owner);
            let lost =
                taken.events_before_ms.is_some() && life.is_some_and(|life| walk.has_lost(life));
            if !lost {
                self.taken.push(taken);
                continue;
            }
            self.drop_key(&taken.parcel).await?;
            let tenant_id = taken.parcel.held.tenant_id;
            tracing::warn!(tenant_id, "events of a tenant not taken into a checkpoint");
            self.missed.push(Missed {
                tenant_id,
                why: "the server of its events was replaced, each time".into(),
            });
        }
        Ok(())
    }
}
