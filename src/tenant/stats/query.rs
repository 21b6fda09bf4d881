//! Statistics as they are asked for: of a tenant, of one of its namespaces, of
//! the fleet. It does not know how they were counted.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;

use super::{
    Deeds, Latencies,
    sheet::{Subject, add_counters, add_latencies},
};
use crate::{
    error::Result,
    store::{self, Gauges, Health, METER_SPACES, Row, Space, Unit},
    tenant::{Account, Caller, Tenants},
};

/// What a cache holds and did, over all replicas.
#[derive(Clone, Debug, Default)]
pub struct CacheStats {
    /// What calls did, since the beginning; a row that nothing moved for 400 days
    /// begins anew.
    pub deeds: Deeds,
    /// How long reads took that were answered in the present hour, by the store's
    /// clock, and in the one before.
    pub reads: Latencies,
    /// How long writes took, likewise.
    pub writes: Latencies,
    /// What is held now. `None` for a namespace and for the fleet, whose entries
    /// are not counted apart.
    pub held: Option<store::Usage>,
}

impl CacheStats {
    /// Bytes of the values set by those that they took in the store; 1 where none
    /// were set.
    pub fn compression_ratio(&self) -> f64 {
        let Deeds {
            value_bytes,
            packed_bytes,
            ..
        } = self.deeds;
        if value_bytes == 0 || packed_bytes == 0 {
            return 1.0;
        }
        value_bytes as f64 / packed_bytes as f64
    }

    /// Bytes of the values held, as they were set: those that are held, in the
    /// proportion of all that was ever set. So it is exact as long as entries that
    /// leave pack as well as those that stay. `None` where it is not known what is
    /// held, or no set was counted.
    pub fn logical_bytes(&self) -> Option<u64> {
        let held = self.held?;
        if held.bytes == 0 {
            return Some(0);
        }
        let Deeds {
            value_bytes,
            charged_bytes,
            ..
        } = self.deeds;
        let all = u128::from(held.bytes) * u128::from(value_bytes);
        let charged = u128::from(charged_bytes);
        let rounded = (all + charged / 2).checked_div(charged)?;
        Some(u64::try_from(rounded).unwrap_or(u64::MAX))
    }

    /// Adds rows: one of counters, then those of latencies.
    fn add(&mut self, rows: &[Row]) {
        let mut rows = rows.iter();
        if let Some(row) = rows.next() {
            add_counters(row, &mut self.deeds);
        }
        for row in rows {
            add_latencies(row, &mut self.reads, &mut self.writes);
        }
    }
}

/// What all tenants' caches did, and how their store is.
#[derive(Clone, Debug)]
pub struct FleetStats {
    /// What all tenants' caches did, those of tenants that are gone included.
    pub cache: CacheStats,
    /// The store's backend.
    pub backend: &'static str,
    /// How the store is.
    pub health: Health,
    /// What it says of itself.
    pub gauges: Gauges,
}

/// The rows that tell of a subject: of counters, and of two hours' latencies.
fn rows(subject: &Subject<'_>, now_ms: u64) -> [Bytes; 3] {
    [
        subject.counters(),
        subject.latencies(now_ms),
        subject.latencies(now_ms.saturating_sub(Unit::Hour.ms())),
    ]
}

impl Tenants {
    /// The statistics of a tenant the caller may see, a deleted one included, or
    /// of one of its namespaces. What its calls at this replica came to is flushed
    /// first, so that the caller finds its own; those at others are as of a second
    /// ago, and their latencies as of 10 s ago.
    ///
    /// # Errors
    /// Those of [`Tenants::get`];
    /// [`Error::ScopeMissing`](crate::error::Error::ScopeMissing) for a namespace
    /// beyond those that the key is confined to; the store's.
    pub async fn cache_stats(
        &self,
        caller: &Caller,
        tenant_id: &str,
        namespace: Option<&str>,
    ) -> Result<CacheStats> {
        if let (Caller::Key(grant), Some(namespace)) = (caller, namespace) {
            grant.reach_namespace(namespace)?;
        }
        let tenant = self.get(caller, tenant_id).await?;
        let account: Arc<Account> = self.account(&tenant);
        self.flush_account_all(&account).await?;
        let incarnation = account.incarnation;
        let subject = match namespace {
            Some(namespace) => Subject::Namespace(incarnation, namespace),
            None => Subject::Tenant(incarnation),
        };
        let names = rows(&subject, self.store.now_ms());
        let (space, meters) = (tenant.space(), Space::meters(incarnation));
        let held = async {
            match namespace {
                Some(_) => Ok(None),
                None => self.store.usage(&space).await.map(Some),
            }
        };
        let (rows, held) = tokio::try_join!(self.store.rows(&meters, &names), held)?;
        let mut stats = CacheStats {
            held,
            ..CacheStats::default()
        };
        stats.add(&rows);
        Ok(stats)
    }

    /// What the caches of all tenants did, and how the store is; what calls at this
    /// replica came to is flushed first. Asks the store as often whatever tenants
    /// there are.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn fleet_stats(&self) -> Result<FleetStats> {
        self.flush_all().await?;
        let names = rows(&Subject::Fleet, self.store.now_ms());
        let spaces = (0..METER_SPACES).map(|number| {
            let (space, names) = (Space::meters_at(number), &names);
            async move { self.store.rows(&space, names).await }
        });
        let (rows, health, gauges) =
            tokio::try_join!(try_join_all(spaces), self.store.ping(), self.store.gauges())?;
        let mut cache = CacheStats::default();
        rows.iter().for_each(|rows| cache.add(rows));
        Ok(FleetStats {
            cache,
            backend: self.store.backend(),
            health,
            gauges,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(
        value_bytes: u64,
        packed_bytes: u64,
        charged_bytes: u64,
        held_bytes: u64,
    ) -> CacheStats {
        CacheStats {
            deeds: Deeds {
                value_bytes,
                packed_bytes,
                charged_bytes,
                ..Deeds::default()
            },
            held: Some(store::Usage {
                bytes: held_bytes,
                ..store::Usage::default()
            }),
            ..CacheStats::default()
        }
    }

    #[test]
    fn what_is_held_has_the_proportion_of_what_was_set() {
        // Sets of 1000 bytes in 100, that count 150: all, half, none of it held.
        for (held, logical) in [(150, 1000), (75, 500), (0, 0), (1, 7)] {
            let stats = stats(1000, 100, 150, held);
            assert_eq!(stats.logical_bytes(), Some(logical), "{held}");
            assert!((stats.compression_ratio() - 10.0).abs() < 1e-9);
        }
        assert_eq!(
            stats(u64::MAX, 1, u64::MAX, u64::MAX).logical_bytes(),
            Some(u64::MAX)
        );
        assert_eq!(stats(0, 0, 0, 7).logical_bytes(), None);
        assert_eq!(CacheStats::default().logical_bytes(), None);
        assert!((CacheStats::default().compression_ratio() - 1.0).abs() < 1e-9);
    }
}
