//! What a replica remembers of tenants and API keys, shared by all its cores.
//! It does not know what may be done with them.
//!
//! Why a remembered record is never older than [`FRESH`]:
//! - The store's change feed drops what changed. A successful poll proves that
//!   everything committed before it began has been dropped; what is remembered
//!   is used for [`FRESH`] after the beginning of the last such poll, by a clock
//!   that also runs while the process is stopped, and looked up in the store
//!   after that, or after a fault of the feed, until the feed is back.
//! - A look-up takes a token before it reads and is remembered only if the token
//!   still stands; a drop changes the token. So a record read before a change
//!   cannot be remembered after it.

mod figures;
mod names;
mod outage;
mod span;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use quick_cache::sync::Cache;

use super::{
    Account, Accounts, Grant, Masters, Pepper, Terms, flush::Outbox, key_use::KeyUses, plan, quota,
    rate, record,
};
use crate::{
    config, moment,
    store::{Handle, Incarnation, Key, Position, Table, Unit},
};

/// How long after the feed last proved itself what is remembered may be used.
pub const FRESH: Duration = Duration::from_millis(800);

/// How long a key that does not exist is remembered at most.
const ABSENT: Duration = Duration::from_secs(1);

/// Tenants and keys remembered, each at most so many.
const CAPACITY: usize = 100_000;

/// How long the feed rests after a fault of the store.
const REST: Duration = Duration::from_millis(100);

/// What a replica remembers. See the module.
pub struct Directory {
    began: Instant,
    /// Milliseconds after `began` until which what is remembered may be used.
    fresh_until_ms: AtomicU64,
    /// How long a record is remembered, changed or not, in ms.
    ttl_ms: AtomicU64,
    /// How long it is remembered for what must go on without the store, in ms.
    outage_ttl_ms: AtomicU64,
    /// Milliseconds after `began` until which the store is not asked by what can
    /// go on without it.
    down_until_ms: AtomicU64,
    keys: Cache<Box<str>, (KnownKey, Instant)>,
    tenants: Cache<Box<str>, (Arc<KnownTenant>, Instant)>,
    stripes: [Mutex<u64>; 64],
    hasher: RandomState,
    pepper: ArcSwapOption<Pepper>,
    pub(super) uses: KeyUses,
    /// How many replicas worked on the store when that was last known.
    pub(super) replicas: AtomicU64,
    /// What is kept of tenants between calls; never forgotten with the rest.
    pub(super) accounts: Accounts,
    /// What of them is not known to be in the store.
    pub(super) outbox: Outbox,
}

/// What is known of an API key.
#[derive(Clone)]
pub(super) enum KnownKey {
    Present(Arc<Credential>),
    Absent,
}

/// An API key, ready to be compared.
pub(super) struct Credential {
    pub(super) grant: Arc<Grant>,
    pub(super) expire_ms: Option<u64>,
    pub(super) revoked: bool,
    pub(super) secrets: Vec<record::SecretMac>,
    /// When its use was last noted for [`KeyUses`], by the store's clock.
    pub(super) noted_ms: AtomicU64,
}

impl Credential {
    pub(super) fn of(key: &record::ApiKey) -> Self {
        Self {
            grant: Arc::new(key.grant()),
            expire_ms: key.expire_ms,
            revoked: key.revoke_ms.is_some(),
            secrets: key.secrets.clone(),
            noted_ms: AtomicU64::new(0),
        }
    }
}

/// A tenant, ready to admit.
pub(super) struct KnownTenant {
    pub(super) incarnation: Incarnation,
    pub(super) deleted: bool,
    pub(super) suspended: Option<record::SuspensionMode>,
    plan: String,
    quotas: plan::Quotas,
    /// The settings that `terms` were made under.
    settings: Arc<config::Tenant>,
    pub(super) terms: Arc<Terms>,
}

impl KnownTenant {
    pub(super) fn of(
        tenant: &record::Tenant,
        account: Arc<Account>,
        settings: &Arc<config::Tenant>,
        masters: &Arc<Masters>,
    ) -> Self {
        let ring = |encryption| Arc::new(masters.keyring(tenant.incarnation, encryption));
        let terms = Terms {
            space: tenant.space(),
            home: tenant.home(),
            sessions: tenant.session_space(),
            keyring: tenant.encryption.as_ref().map(ring),
            masters: masters.clone(),
            ..Terms::unlimited(&tenant.tenant_id, account)
        };
        let known = Self {
            incarnation: tenant.incarnation,
            deleted: tenant.delete_ms.is_some(),
            suspended: tenant.suspension.as_ref().map(|suspension| suspension.mode),
            plan: tenant.plan.clone(),
            quotas: tenant.quotas.clone(),
            settings: settings.clone(),
            terms: Arc::new(terms),
        };
        known.under(settings)
    }

    /// Whether the terms were made under these settings.
    pub(super) fn is_under(&self, settings: &Arc<config::Tenant>) -> bool {
        Arc::ptr_eq(&self.settings, settings)
    }

    /// The same tenant under other settings.
    pub(super) fn under(&self, settings: &Arc<config::Tenant>) -> Self {
        let plan = plan::named(settings, &self.plan);
        let quotas = plan::effective(&plan, &self.quotas);
        let operations = rate::Rule::of(
            quota::OPERATIONS_PER_MINUTE,
            quotas.operations_per_minute,
            Unit::Minute.ms(),
            &quotas.modes,
            settings,
        );
        let rate = |(metric, quota): (&String, &plan::CustomQuota)| {
            let limit = Some(quota.limit);
            rate::Rule::of(metric, limit, quota.window_ms?, &quotas.modes, settings)
        };
        let terms = Terms {
            limits: quotas.enforced(),
            watched: quotas.watched(),
            session_limits: quotas.enforced_on_sessions(),
            session_watched: quotas.watched_of_sessions(),
            operations,
            rates: quotas.custom.iter().filter_map(rate).collect(),
            transfer: quotas.transfer(),
            warns: quotas.modes.values().any(|mode| *mode == plan::Mode::Warn),
            default_ttl_ms: plan
                .default_ttl
                .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            quotas,
            ..Terms::clone(&self.terms)
        };
        Self {
            incarnation: self.incarnation,
            deleted: self.deleted,
            suspended: self.suspended,
            plan: self.plan.clone(),
            quotas: self.quotas.clone(),
            settings: settings.clone(),
            terms: Arc::new(terms),
        }
    }
}

/// Allows one look-up to be remembered, unless something is dropped meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Token {
    stripe: usize,
    count: u64,
}

impl Directory {
    /// An empty one, which remembers a record for at most so long.
    pub fn new(ttl: Duration) -> Self {
        Self {
            began: Instant::now(),
            fresh_until_ms: AtomicU64::new(0),
            ttl_ms: span::ms(ttl).into(),
            outage_ttl_ms: AtomicU64::new(0),
            down_until_ms: AtomicU64::new(0),
            keys: Cache::new(CAPACITY),
            tenants: Cache::new(CAPACITY),
            stripes: std::array::from_fn(|_| Mutex::new(0)),
            hasher: RandomState::new(),
            pepper: ArcSwapOption::empty(),
            uses: KeyUses::default(),
            replicas: AtomicU64::new(1),
            accounts: Accounts::default(),
            outbox: Outbox::default(),
        }
    }

    /// What this replica keeps of a life of a tenant; begun where there is none yet.
    pub fn account(&self, incarnation: Incarnation) -> Arc<Account> {
        self.accounts.of(incarnation)
    }

    /// Follows the store's change feed, for as long as it is polled. One replica
    /// needs one follower; without it everything is looked up in the store.
    pub async fn follow(&self, store: Handle) {
        let mut position = None;
        loop {
            if let Err(error) = self.poll(&store, &mut position).await {
                // It may come back as another store, with other tenants or none:
                // until the feed has told, nothing remembered is used.
                self.fresh_until_ms.store(0, Ordering::Release);
                tracing::debug!(%error, "change feed interrupted");
                tokio::time::sleep(REST).await;
            }
        }
    }

    /// One poll of the change feed.
    async fn poll(
        &self,
        store: &Handle,
        position: &mut Option<Position>,
    ) -> crate::store::Result<()> {
        let began_ms = self.elapsed_ms();
        let changes = store.changes(position.clone()).await?;
        if position.is_none() || changes.lost {
            self.drop_all();
        } else {
            for key in &changes.keys {
                self.drop_key(key);
            }
        }
        let fresh = u64::try_from(FRESH.as_millis()).unwrap_or(u64::MAX);
        self.fresh_until_ms
            .fetch_max(began_ms.saturating_add(fresh), Ordering::Release);
        *position = Some(changes.position);
        Ok(())
    }

    /// Whether the feed has proved itself lately.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh_at(Instant::now())
    }

    fn is_fresh_at(&self, now: Instant) -> bool {
        self.ms_at(now) < self.fresh_until_ms.load(Ordering::Acquire)
    }

    fn elapsed_ms(&self) -> u64 {
        self.ms_at(Instant::now())
    }

    fn ms_at(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.began);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    /// What is remembered of an API key.
    pub(super) fn key(&self, key_id: &str) -> Option<KnownKey> {
        let (known, since) = self.keys.get(key_id)?;
        let ttl = match known {
            KnownKey::Present(_) => self.ttl(),
            KnownKey::Absent => self.ttl().min(ABSENT),
        };
        self.holds(since, ttl).then_some(known)
    }

    /// What is remembered of a tenant.
    pub(super) fn tenant(&self, tenant_id: &str) -> Option<Arc<KnownTenant>> {
        let (known, since) = self.tenants.get(tenant_id)?;
        self.holds(since, self.ttl()).then_some(known)
    }

    /// Whether what was looked up then may be used.
    fn holds(&self, since: Instant, ttl: Duration) -> bool {
        let now = moment::now();
        self.is_fresh_at(now) && now.saturating_duration_since(since) < ttl
    }

    /// Begins a look-up; take it before the store is read.
    pub(super) fn token(&self, table: Table, id: &str) -> Token {
        let stripe = self.stripe(table, id.as_bytes());
        let count = self.stripes.get(stripe).map_or(0, |count| *lock(count));
        Token { stripe, count }
    }

    pub(super) fn remember_key(&self, token: Token, key_id: &str, known: KnownKey) {
        self.remember(token, || {
            self.keys.insert(key_id.into(), (known, Instant::now()));
        });
    }

    pub(super) fn remember_tenant(&self, token: Token, tenant_id: &str, known: Arc<KnownTenant>) {
        self.remember(token, || {
            self.tenants
                .insert(tenant_id.into(), (known, Instant::now()));
        });
    }

    /// Puts what was made from a remembered tenant in its place, unless the
    /// tenant changed since. A token is only as good as the record it was taken
    /// before, so the record must still be the one remembered.
    pub(super) fn renew_tenant(&self, token: Token, from: &Arc<KnownTenant>, to: Arc<KnownTenant>) {
        let tenant_id = to.terms.tenant_id.clone();
        self.remember(token, || {
            if let Some((known, since)) = self.tenants.peek(&*tenant_id)
                && Arc::ptr_eq(&known, from)
            {
                self.tenants.insert((&*tenant_id).into(), (to, since));
            }
        });
    }

    fn remember(&self, token: Token, insert: impl FnOnce()) {
        if let Some(count) = self.stripes.get(token.stripe) {
            let count = lock(count);
            if *count == token.count {
                insert();
            }
        }
    }

    /// Forgets a tenant or an API key, and whatever is being looked up of it.
    pub(super) fn drop_key(&self, key: &Key) {
        let Ok(id) = std::str::from_utf8(&key.path) else {
            return;
        };
        if let Some(count) = self.stripes.get(self.stripe(key.table, &key.path)) {
            let mut count = lock(count);
            *count += 1;
            match key.table {
                Table::ApiKey => drop(self.keys.remove(id)),
                Table::Tenant => drop(self.tenants.remove(id)),
                _ => {}
            }
        }
    }

    /// Forgets everything: the store may be another one, or the master keys are.
    pub fn drop_all(&self) {
        for count in &self.stripes {
            *lock(count) += 1;
        }
        self.keys.clear();
        self.tenants.clear();
        self.pepper.store(None);
    }

    pub(super) fn pepper(&self) -> Option<Arc<Pepper>> {
        self.pepper.load_full()
    }

    pub(super) fn remember_pepper(&self, token: Token, pepper: Arc<Pepper>) {
        self.remember(token, || self.pepper.store(Some(pepper)));
    }

    /// Forgets the store's secret: a commit found another in its place.
    pub(super) fn drop_pepper(&self) {
        self.pepper.store(None);
    }

    fn stripe(&self, table: Table, id: &[u8]) -> usize {
        let stripes = self.stripes.len() as u64;
        usize::try_from(self.hasher.hash_one((table, id)) % stripes).unwrap_or(0)
    }
}

fn lock(count: &Mutex<u64>) -> std::sync::MutexGuard<'_, u64> {
    // A counter is whole whoever panicked while holding it.
    count.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Directory {
        let directory = Directory::new(Duration::from_secs(60));
        directory.fresh_until_ms.store(u64::MAX, Ordering::Release);
        directory
    }

    #[test]
    fn what_was_read_before_a_drop_is_not_remembered_after_it() {
        let directory = fresh();
        let token = directory.token(Table::ApiKey, "k");
        directory.drop_key(&record::api_key_key("k"));
        directory.remember_key(token, "k", KnownKey::Absent);
        assert!(directory.key("k").is_none());

        let token = directory.token(Table::ApiKey, "k");
        directory.remember_key(token, "k", KnownKey::Absent);
        assert!(directory.key("k").is_some());

        let token = directory.token(Table::ApiKey, "l");
        directory.drop_all();
        directory.remember_key(token, "l", KnownKey::Absent);
        assert!(directory.key("k").is_none());
        assert!(directory.key("l").is_none());
    }

    #[test]
    fn how_long_is_remembered_can_change() {
        let directory = fresh().remembering(Duration::from_secs(60));
        let token = directory.token(Table::ApiKey, "k");
        directory.remember_key(token, "k", KnownKey::Absent);
        assert!(directory.key("k").is_some() && directory.key_of_old("k").is_some());
        directory.remember_for(Duration::ZERO, Duration::from_secs(60));
        assert!(directory.key("k").is_none() && directory.key_of_old("k").is_some());
        directory.remember_for(Duration::from_secs(60), Duration::ZERO);
        assert!(directory.key("k").is_some() && directory.key_of_old("k").is_none());
    }

    #[test]
    fn what_changed_is_in_force_within_a_second() {
        assert!(
            FRESH < Duration::from_secs(1),
            "the contract promises a second"
        );
    }

    #[test]
    fn nothing_is_remembered_while_the_feed_is_not_proven() {
        let directory = Directory::new(Duration::from_secs(60));
        let token = directory.token(Table::ApiKey, "k");
        directory.remember_key(token, "k", KnownKey::Absent);
        assert!(!directory.is_fresh());
        assert!(directory.key("k").is_none());
        directory.fresh_until_ms.store(u64::MAX, Ordering::Release);
        assert!(directory.key("k").is_some());
    }
}
