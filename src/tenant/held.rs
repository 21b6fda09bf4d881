//! What both spaces of a tenant have metered: that of its entries, and that of its
//! sessions. It does not know what any of it costs.

use super::{Tenant, Tenants};
use crate::{
    error::Result,
    store::{Meters, Reading, Unit},
};

/// How both meters stand at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Of entries. Its moment is that of both.
    pub entries: Reading,
    /// Of sessions.
    pub sessions: Reading,
}

impl Readings {
    /// The moment.
    pub fn at_ms(&self) -> u64 {
        self.entries.at_ms
    }

    /// Operations of both.
    pub fn operations(&self) -> u64 {
        let Self { entries, sessions } = self;
        entries.operations.saturating_add(sessions.operations)
    }

    /// Bytes that both carried.
    pub fn bytes(&self) -> u64 {
        let Self { entries, sessions } = self;
        entries.bytes.saturating_add(sessions.bytes)
    }

    /// Bytes of entries held, times the whole seconds they were held, since the tenant's
    /// beginning: so that those of spans that adjoin add up.
    pub fn memory_byte_seconds(&self) -> u128 {
        self.entries.byte_ms / 1000
    }

    /// The same of sessions.
    pub fn storage_byte_seconds(&self) -> u128 {
        self.sessions.byte_ms / 1000
    }
}

/// Both meters, now and at the borders of a unit.
#[derive(Clone, Debug, Default)]
pub(super) struct BothMeters {
    pub(super) entries: Meters,
    pub(super) sessions: Meters,
}

impl BothMeters {
    /// As [`Meters::now`].
    pub(super) fn now(&self) -> Readings {
        Readings {
            entries: self.entries.now(),
            sessions: self.sessions.now(),
        }
    }

    /// As [`Meters::at`].
    pub(super) fn at(&self, border_ms: u64) -> Readings {
        Readings {
            entries: self.entries.at(border_ms),
            sessions: self.sessions.at(border_ms),
        }
    }
}

impl Tenants {
    /// The meters of both spaces of a tenant, wherever a restore has put them since this
    /// record of it was read: with a space go the meters that its new one has taken over.
    pub(super) async fn meters(&self, tenant: &Tenant, unit: Unit) -> Result<BothMeters> {
        let meters = self.meters_in(tenant, unit).await?;
        if meters.entries.last.at_ms > 0 && meters.sessions.last.at_ms > 0 {
            return Ok(meters);
        }
        // One of them is gone, or was never written.
        match self.find_tenant(&tenant.tenant_id).await? {
            Some((now, _))
                if now.incarnation == tenant.incarnation && now.homes != tenant.homes =>
            {
                self.meters_in(&now, unit).await
            }
            _ => Ok(meters),
        }
    }

    async fn meters_in(&self, tenant: &Tenant, unit: Unit) -> Result<BothMeters> {
        let (space, sessions) = (tenant.space(), tenant.session_space());
        let (entries, sessions) = tokio::try_join!(
            self.store.meters(&space, unit),
            self.store.meters(&sessions, unit),
        )?;
        Ok(BothMeters { entries, sessions })
    }

    /// How they stand now.
    pub(super) async fn readings(&self, tenant: &Tenant) -> Result<Readings> {
        // A space that was never written has no moment of its own.
        let now_ms = self.store.now_ms();
        let mut readings = self.meters(tenant, Unit::Day).await?.now();
        if readings.entries.at_ms == 0 {
            readings.entries.at_ms = now_ms;
        }
        Ok(readings)
    }
}
