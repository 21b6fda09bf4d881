//! What a restore will do, tenant by tenant, before it does any of it. It does not know
//! how it is done.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asked, Conflict, Restores, contents::Contents};
use crate::{
    error::{Error, Result},
    state::checkpoint::{CheckpointId, Component, Counts, Held, Owner, Reader},
    store::Incarnation,
    tenant::id,
};

/// What is done with a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is not there, and comes back.
    Create,
    /// What is asked for of it is replaced.
    Replace,
    /// It is left as it is.
    Skip,
}

/// What is done with one tenant.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The tenant.
    pub tenant_id: String,
    /// What is done.
    pub action: Action,
    /// Why it is skipped, or what else is to be known.
    pub why: String,
    /// What of it is restored.
    pub counts: Counts,
    /// What the checkpoint holds of it.
    pub(super) held: Held,
}

/// A setting that is another one in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path.
    pub path: String,
    /// In the checkpoint.
    pub there: String,
    /// Here.
    pub here: String,
}

/// What a restore will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By tenant_id.
    pub steps: Vec<Planned>,
    /// Settings that differ; none is changed.
    pub differences: Vec<Difference>,
    /// What is restored of each tenant.
    pub(super) components: BTreeSet<Component>,
    /// Whether API keys of the checkpoint work here.
    pub(super) keys_work: bool,
}

impl Plan {
    /// How many tenants that is done with.
    pub fn count(&self, action: Action) -> u64 {
        let same = self.steps.iter().filter(|step| step.action == action);
        same.count() as u64
    }

    /// Whether it may be carried out.
    ///
    /// # Errors
    /// [`Error::TenantExists`] where a tenant is in the way.
    pub(super) fn check(&self, conflict: Conflict) -> Result<()> {
        let in_the_way = |step: &&Planned| step.why == EXISTS || step.why == OTHER_LIFE;
        match self.steps.iter().find(in_the_way) {
            Some(step) if conflict == Conflict::Fail => {
                Err(Error::TenantExists(step.tenant_id.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The tenants that are replaced.
    pub(super) fn replaced(&self) -> Vec<String> {
        let replaced = self
            .steps
            .iter()
            .filter(|step| step.action == Action::Replace);
        replaced.map(|step| step.tenant_id.clone()).collect()
    }

    /// The chunks that it needs.
    pub(super) fn chunks(&self) -> BTreeSet<u32> {
        let steps = self.steps.iter();
        let needed = steps.filter(|step| step.action != Action::Skip);
        let mut asked = self.components.clone();
        asked.insert(Component::Tenants);
        needed
            .flat_map(|step| step.held.chunks_of(&asked))
            .collect()
    }
}

const EXISTS: &str = "exists";
const OTHER_LIFE: &str = "other incarnation";
const PURGED: &str = "purged";
const PURGING: &str = "it is being purged";
const NO_TENANT: &str = "it does not exist, and the component TENANTS is not restored";
const OTHER_SECRET: &str =
    "its API keys were made on another store and do not come back: make new ones";

impl Restores {
    /// What a restore will do, by what is there now.
    pub(super) async fn plan(&self, asked: &Asked, id: &CheckpointId) -> Result<Plan> {
        let reader = self.checkpoints.open(id).await?;
        self.plan_of(&reader, asked).await
    }

    pub(super) async fn plan_of(&self, reader: &Reader, asked: &Asked) -> Result<Plan> {
        let there = &reader.manifest().components;
        let components: BTreeSet<Component> = if asked.components.is_empty() {
            there.clone()
        } else {
            asked.components.intersection(there).copied().collect()
        };
        let missing: Vec<_> = asked.components.difference(there).collect();
        if let Some(component) = missing.first() {
            return Err(Error::invalid(
                "components",
                format!("the checkpoint does not hold {}", component.name()),
            ));
        }
        let mut index: BTreeMap<String, Held> = BTreeMap::new();
        for held in reader.index().await? {
            index.insert(held.tenant_id.clone(), held);
        }
        if !asked.tenant_ids.is_empty() {
            for tenant_id in &asked.tenant_ids {
                if !index.contains_key(tenant_id) {
                    return Err(Error::no_tenant(tenant_id));
                }
            }
            index.retain(|tenant_id, _| asked.tenant_ids.contains(tenant_id));
        }
        let contents = Contents::of(reader);
        let secret = contents.secret().await?;
        let keys_work = match &secret {
            Some(secret) => self.tenants.restore_secret(secret, true).await?,
            None => true,
        };
        let mut steps = Vec::with_capacity(index.len());
        for (tenant_id, held) in index {
            let (action, why) = self
                .action(reader, &tenant_id, &held, asked.conflict, &components)
                .await?;
            let why = match action {
                Action::Create if !keys_work && why.is_empty() => OTHER_SECRET.to_owned(),
                _ => why.to_owned(),
            };
            let counts = held
                .counts
                .iter()
                .filter(|(component, _)| components.contains(component));
            steps.push(Planned {
                tenant_id,
                action,
                why,
                counts: counts
                    .map(|(component, count)| (*component, *count))
                    .collect(),
                held,
            });
        }
        let differences = if components.contains(&Component::Config) {
            self.differences(&contents).await?
        } else {
            Vec::new()
        };
        Ok(Plan {
            steps,
            differences,
            components,
            keys_work,
        })
    }

    async fn action(
        &self,
        reader: &Reader,
        tenant_id: &str,
        held: &Held,
        conflict: Conflict,
        components: &BTreeSet<Component>,
    ) -> Result<(Action, &'static str)> {
        if !id::is_valid(tenant_id) {
            return Ok((Action::Skip, "its id is none"));
        }
        if reader.key(self.tenants.masters(), held).await?.is_none() {
            return Ok((Action::Skip, PURGED));
        }
        let live = self.tenants.stored(tenant_id).await?;
        Ok(match live {
            None if components.contains(&Component::Tenants) => (Action::Create, ""),
            None => (Action::Skip, NO_TENANT),
            Some((tenant, _)) if Some(tenant.incarnation) != life(held) => {
                (Action::Skip, OTHER_LIFE)
            }
            Some((tenant, _)) if tenant.purging => (Action::Skip, PURGING),
            Some(_) if conflict == Conflict::Replace => (Action::Replace, ""),
            Some(_) => (Action::Skip, EXISTS),
        })
    }

    async fn differences(&self, contents: &Contents<'_>) -> Result<Vec<Difference>> {
        let here = self.checkpoints.shown_settings();
        let there = contents.settings().await?;
        let differs = |(path, there): (String, String)| {
            let here = here.get(&path).cloned().unwrap_or_default();
            (here != there).then_some(Difference { path, there, here })
        };
        Ok(there.into_iter().filter_map(differs).collect())
    }
}

/// The tenant's life that something of a checkpoint is of.
pub(super) fn life(held: &Held) -> Option<Incarnation> {
    match held.owner {
        Owner::Tenant(incarnation) => Some(incarnation),
        Owner::Store => None,
    }
}
