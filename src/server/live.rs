//! The parts of the configuration that calls look at, and how another configuration
//! takes their place: the one list of who must be told. It does not know what any of
//! them does with it.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::tls;
use crate::{
    cache::Memory,
    config::{self, Config, Identity, Live},
    grpc::Health,
    state::{InForce, Outcome},
    store::redis::Connector,
    telemetry,
    tenant::{Directory, Masters},
    trace::Tracer,
};

/// What is shared with those who use it.
pub(super) struct Parts {
    pub(super) plans: Arc<ArcSwap<config::Tenant>>,
    pub(super) billing: Arc<ArcSwap<config::Billing>>,
    pub(super) cache: Live<config::Cache>,
    pub(super) session: Live<config::Session>,
    pub(super) audit: Live<config::Audit>,
    /// Whether every new tenant is encrypted.
    pub(super) encrypts_all: Live<bool>,
    /// What connections begin with.
    pub(super) offer: Live<tls::Offer>,
    /// The same on the admin listener.
    pub(super) admin_offer: Live<tls::Offer>,
    /// Whose certificates are admins'.
    pub(super) admins: Live<Vec<Identity>>,
    /// What is counted of TLS.
    pub(super) tls: Arc<tls::Figures>,
}

impl Parts {
    pub(super) fn of(config: &Config) -> Self {
        let tls = Arc::new(tls::Figures::default());
        tls.shows(&config.server.tls);
        Self {
            plans: Arc::new(ArcSwap::from_pointee(config.tenant.clone())),
            billing: Arc::new(ArcSwap::from_pointee(config.billing.clone())),
            cache: config.cache.clone().into(),
            session: config.session.clone().into(),
            audit: config.audit.clone().into(),
            encrypts_all: config.encryption.enabled.into(),
            offer: tls::offer(&config.server.tls).into(),
            admin_offer: tls::admin_offer(&config.server).into(),
            admins: config.server.tls.admins.clone().into(),
            tls,
        }
    }

    fn replace(&self, config: &Config) {
        self.plans.store(Arc::new(config.tenant.clone()));
        self.billing.store(Arc::new(config.billing.clone()));
        self.cache.store(config.cache.clone());
        self.session.store(config.session.clone());
        self.audit.store(config.audit.clone());
        self.encrypts_all.store(config.encryption.enabled);
        self.offer.store(tls::offer(&config.server.tls));
        self.admin_offer.store(tls::admin_offer(&config.server));
        self.admins.store(config.server.tls.admins.clone());
        self.tls.shows(&config.server.tls);
    }

    /// How a connection begins now.
    pub(super) fn handshake(&self) -> tls::Handshake {
        self.beginning(&self.offer)
    }

    /// The same on the admin listener.
    pub(super) fn admin_handshake(&self) -> tls::Handshake {
        self.beginning(&self.admin_offer)
    }

    fn beginning(&self, offer: &Live<tls::Offer>) -> tls::Handshake {
        tls::Handshake {
            offer: tls::Offer::clone(&offer.load()),
            figures: self.tls.clone(),
        }
    }
}

/// Those who are told of a reload.
pub(super) struct Told {
    pub(super) tracer: Option<Arc<Tracer>>,
    pub(super) parts: Arc<Parts>,
    pub(super) directory: Arc<Directory>,
    pub(super) masters: Arc<Masters>,
    pub(super) memory: Arc<Memory>,
    pub(super) health: Arc<Health>,
    /// How connections to Redis begin in TLS.
    pub(super) redis_tls: Option<Connector>,
}

impl Told {
    /// Puts a configuration in force, where the reload was applied, and lets the
    /// health of `config` follow.
    pub(super) fn tell(&self, in_force: &InForce) {
        let Some(reload) = &in_force.last_reload else {
            return;
        };
        self.health.report_config(match reload.outcome {
            Outcome::Applied | Outcome::Unchanged => Ok(()),
            Outcome::Rejected => Err("the last reload was rejected".to_owned()),
        });
        if reload.outcome != Outcome::Applied {
            return;
        }
        let config = &in_force.loaded.config;
        self.parts.replace(config);
        let config::Auth {
            key_cache_ttl,
            remembered_ttl,
            ..
        } = config.auth;
        self.directory.remember_for(key_cache_ttl, remembered_ttl);
        let master_keys = "encryption.master_keys";
        if reload
            .changes
            .iter()
            .any(|change| change.path == master_keys)
        {
            self.masters.replace(&config.encryption.keys());
            tracing::info!(known = ?self.masters, "master keys read");
            // What is remembered of tenants was unwrapped by those before.
            self.directory.drop_all();
        }
        if let Some(redis_tls) = &self.redis_tls
            && let Err(error) = redis_tls.renew(&config.redis.tls)
        {
            tracing::error!(%error, "redis.tls not changed");
        }
        self.directory.traffic().tell(config.metrics.tenants);
        if let Some(tracer) = &self.tracer {
            tracer.sample(config.trace.sample_ratio);
        }
        if let Some(near) = self.memory.near() {
            near.resize(config.cache.near.max_bytes);
        }
        if let Err(error) = telemetry::filter(&config.log) {
            tracing::error!(%error, "log.filter not changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_replaced() {
        let mut config = Config::defaults();
        let parts = Parts::of(&config);
        let shown = |parts: &Parts| {
            let Parts {
                plans,
                billing,
                cache,
                session,
                audit,
                encrypts_all,
                offer: _,
                admin_offer: _,
                admins,
                tls: _,
            } = parts;
            [
                format!("{:?}", plans.load()),
                format!("{:?}", billing.load()),
                format!("{cache:?}"),
                format!("{session:?}"),
                format!("{audit:?}"),
                format!("{encrypts_all:?}"),
                format!("{admins:?}"),
            ]
        };
        let before = shown(&parts);
        config.tenant.max_tenants = 7;
        config.billing.close_after = std::time::Duration::from_secs(7);
        config.cache.watch.linger = std::time::Duration::from_secs(7);
        config.session.max_data_bytes = 7_000;
        config.audit.enabled = false;
        config.encryption.enabled = true;
        config.server.tls.admins = vec![Identity::CommonName("ops".to_owned())];
        parts.replace(&config);
        let after = shown(&parts);
        for (before, after) in before.iter().zip(&after) {
            assert_ne!(before, after);
        }
        assert_eq!(after, shown(&Parts::of(&config)));
    }
}
