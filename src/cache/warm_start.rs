//! Warm start: what was asked for most before a replica went away is in its memory
//! before it serves again. It does not know when that is, nor how long it may take.
//!
//! The hottest keys of each tenant lie in the tenant's own space, so that they end
//! with it, and the hottest tenants in the registry. Every replica adds what it
//! holds to what is there. Tenants are admitted as for any read: one that is gone,
//! deleted or blocked is passed over, and so is an entry that cannot be opened.
//! Nothing is metered, billed, or counted against a rate.

mod heat;

use std::{cmp::Reverse, collections::HashMap, fmt, pin::pin, time::Duration};

use futures::{StreamExt, stream};
use tokio::time::sleep;

use self::heat::Heat;
use super::{Cache, Pulled};
use crate::{
    error::{Error, Result},
    store::{Batch, Check, Commit, Expiry, Incarnation, Key, Refusal, Space, Table, Write},
    tenant::{Access, Caller, Tenancy, Tenants},
};

/// The name of the records.
const NAME: &[u8] = b"hot";

/// Tenants that are kept.
const MOST_TENANTS: usize = 1000;

/// How long it is kept where no replica renews it.
const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Keys of a read, and reads at once.
const PIECE: usize = 64;
const AT_ONCE: usize = 4;

/// How long before a store is asked again that cannot tell of changes yet.
const AGAIN: Duration = Duration::from_millis(20);

/// A namespace and a key.
type Name = (String, String);

/// Keeps what is hot, and pulls it near.
#[derive(Clone)]
pub struct WarmStart {
    cache: Cache,
    tenants: Tenants,
    keys: usize,
}

impl fmt::Debug for WarmStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WarmStart")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// What a warm start came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Began {
    /// Tenants whose keys were pulled.
    pub tenants: usize,
    /// Entries that are near.
    pub entries: usize,
}

impl WarmStart {
    /// For the memory of this cache, and at most so many keys of all tenants.
    pub fn new(cache: Cache, tenants: Tenants, keys: usize) -> Self {
        Self {
            cache,
            tenants,
            keys,
        }
    }

    /// Pulls near what was hot, the hottest first. Waits for a store that cannot yet
    /// tell of changes: until then nothing can be kept.
    ///
    /// # Errors
    /// The store's.
    pub async fn begin(&self) -> Result<Began> {
        if self.cache.memory.near().is_none() {
            return Ok(Began::default());
        }
        let tenants = self.hot_tenants().await?;
        let mut found = pin!(
            stream::iter(tenants.hot)
                .map(|(tenant_id, _)| self.hot_keys(tenant_id))
                .buffer_unordered(AT_ONCE)
        );
        let mut hot = Vec::new();
        let hottest = |hot: &mut Vec<(u32, Tenancy, Name)>| {
            hot.sort_by_key(|(uses, ..)| Reverse(*uses));
            hot.truncate(self.keys);
        };
        while let Some(found) = found.next().await {
            let Some((tenancy, keys)) = found else {
                continue;
            };
            hot.extend(
                keys.into_iter()
                    .map(|(name, uses)| (uses, tenancy.clone(), name)),
            );
            // All of all tenants may be far more.
            if hot.len() > self.keys.saturating_mul(2) {
                hottest(&mut hot);
            }
        }
        hottest(&mut hot);
        self.remember(&hot);
        let pieces = pieces(hot.into_iter().map(|(_, tenancy, name)| (tenancy, name)));
        let pulled = stream::iter(pieces)
            .map(|piece| self.pull(piece))
            .buffered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        let mut near: HashMap<Incarnation, usize> = HashMap::new();
        for pulled in pulled {
            let (incarnation, entries) = pulled?;
            *near.entry(incarnation).or_default() += entries;
        }
        Ok(Began {
            tenants: near.values().filter(|entries| **entries > 0).count(),
            entries: near.values().sum(),
        })
    }

    /// Tells memory how often these were asked for: else whatever is asked for twice
    /// after the start would take the place of what is asked for most.
    fn remember(&self, hot: &[(u32, Tenancy, Name)]) {
        let Some(near) = self.cache.memory.near() else {
            return;
        };
        for (uses, tenancy, (namespace, key)) in hot {
            let place = near.place(&tenancy.space, namespace, key);
            near.remember(&place, u8::try_from(*uses).unwrap_or(u8::MAX));
        }
    }

    /// The hottest tenants, as soon as what is read can be kept.
    async fn hot_tenants(&self) -> Result<Heat<String>> {
        loop {
            let store = &self.cache.store;
            let seen = store
                .read_watched(&Space::registry(), 0, &[tenants_key()])
                .await?;
            let tenants = Heat::decode(seen.read.records.first().and_then(Option::as_ref));
            if tenants.hot.is_empty() || seen.vouch.is_some() {
                return Ok(tenants);
            }
            sleep(AGAIN).await;
        }
    }

    /// The hottest keys of a tenant; `None` where it may not be read.
    async fn hot_keys(&self, tenant_id: String) -> Option<(Tenancy, Vec<(Name, u32)>)> {
        let admitted = self
            .tenants
            .admit(&Caller::Admin, &tenant_id, Access::Read)
            .await;
        let kept = match admitted {
            Ok(tenancy) => self.kept(&tenancy).await.map(|(_, heat)| (tenancy, heat)),
            Err(error) => Err(error),
        };
        match kept {
            Ok((tenancy, heat)) => Some((tenancy, heat.hot)),
            Err(error) => {
                tracing::debug!(tenant_id, %error, "tenant not warmed");
                None
            }
        }
    }

    /// Pulls keys of one namespace; how many are near.
    async fn pull(&self, piece: Piece) -> Result<(Incarnation, usize)> {
        let Piece {
            tenancy,
            namespace,
            keys,
        } = piece;
        let near = match self.cache.pull(&tenancy, &namespace, &keys).await {
            Ok(pulled) => pulled
                .iter()
                .filter(|pulled| matches!(pulled, Ok(Pulled::Near)))
                .count(),
            Err(error @ (Error::StoreUnavailable | Error::DeadlineExceeded)) => return Err(error),
            Err(error) => {
                let tenant_id = &*tenancy.tenant_id;
                tracing::debug!(tenant_id, %error, "entries not warmed");
                0
            }
        };
        Ok((tenancy.incarnation, near))
    }

    /// Keeps what is hot in this replica's memory, beside what others keep.
    ///
    /// # Errors
    /// The store's.
    pub async fn keep(&self) -> Result<()> {
        let Some(near) = self.cache.memory.near() else {
            return Ok(());
        };
        let mut by_tenant: HashMap<Incarnation, (u32, Vec<(Name, u32)>)> = HashMap::new();
        for hot in near.hottest(self.keys) {
            let (all, keys) = by_tenant.entry(hot.home).or_default();
            let uses = u32::from(hot.uses);
            *all = all.saturating_add(uses);
            keys.push(((hot.namespace, hot.key), uses));
        }
        let mut hottest: Vec<_> = by_tenant.into_iter().collect();
        hottest.sort_by_key(|(_, (uses, _))| Reverse(*uses));
        hottest.truncate(MOST_TENANTS);
        let names = self.tenants.names();
        let mut kept = Vec::new();
        for (home, (uses, keys)) in hottest {
            let Some(tenant_id) = names.get(&home) else {
                continue;
            };
            let read = Access::Read;
            match self.tenants.admit(&Caller::Admin, tenant_id, read).await {
                Ok(tenancy) if tenancy.home == home => {
                    self.keep_keys(&tenancy, keys).await?;
                    kept.push((tenant_id.to_string(), uses));
                }
                // Another home of the tenant, or none: what it held is gone.
                Ok(_) => {}
                Err(Error::StoreUnavailable) => return Err(Error::StoreUnavailable),
                Err(_) => {}
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        let (registry, key) = (Space::registry(), tenants_key());
        let keys = std::slice::from_ref(&key);
        let read = self.cache.store.read(&registry, 0, keys).await?;
        let record = read.records.into_iter().next().flatten();
        let heat = Heat::decode(record.as_ref()).seen(kept, MOST_TENANTS);
        let version = record.map(|record| record.version);
        self.put(&registry, key, version, heat.encode()?).await
    }

    async fn keep_keys(&self, tenancy: &Tenancy, keys: Vec<(Name, u32)>) -> Result<()> {
        let (version, heat) = self.kept(tenancy).await?;
        let heat = heat.seen(keys, self.keys).encode()?;
        self.put(&tenancy.space, keys_key(), version, heat).await
    }

    /// What is kept of a tenant, and the version of that.
    async fn kept(&self, tenancy: &Tenancy) -> Result<(Option<u64>, Heat<Name>)> {
        let read = self
            .cache
            .store
            .read(&tenancy.space, 0, &[keys_key()])
            .await?;
        let record = read.records.into_iter().next().flatten();
        let heat = Heat::decode(record.as_ref());
        Ok((record.map(|record| record.version), heat))
    }

    async fn put(
        &self,
        space: &Space,
        key: Key,
        version: Option<u64>,
        value: Vec<u8>,
    ) -> Result<()> {
        let write = Write::put(key, value)
            .when(version.map_or(Check::Absent, Check::Version))
            .expiring(Expiry::AfterMs(KEPT_MS));
        match self.cache.store.commit(space, Batch::of([write])).await? {
            // Another replica came between, and keeps about the same; or the tenant
            // is gone.
            Commit::Applied(_)
            | Commit::Refused(Refusal::Conflict { .. } | Refusal::Gone | Refusal::Fenced) => Ok(()),
            Commit::Refused(refusal) => Err(Error::Internal(format!(
                "the store refused what is hot: {refusal:?}"
            ))),
        }
    }
}

/// Keys of a namespace that are read at once.
struct Piece {
    tenancy: Tenancy,
    namespace: String,
    keys: Vec<String>,
}

/// Keys by tenant and namespace, about in their order.
fn pieces(hot: impl Iterator<Item = (Tenancy, Name)>) -> Vec<Piece> {
    let mut open: HashMap<(Incarnation, String), Piece> = HashMap::new();
    let mut pieces = Vec::new();
    for (tenancy, (namespace, key)) in hot {
        let at = (tenancy.incarnation, namespace.clone());
        let piece = open.entry(at.clone()).or_insert_with(|| Piece {
            tenancy,
            namespace,
            keys: Vec::new(),
        });
        piece.keys.push(key);
        if piece.keys.len() == PIECE {
            pieces.extend(open.remove(&at));
        }
    }
    pieces.extend(open.into_values());
    pieces
}

fn tenants_key() -> Key {
    Key::new(Table::Meta, NAME)
}

fn keys_key() -> Key {
    Key::new(Table::Control, NAME)
}
