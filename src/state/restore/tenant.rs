//! One tenant restored: filled, and moved. Each step can be repeated by whoever comes
//! after a crash. It does not know which tenants there are.

use std::collections::BTreeSet;

use super::{
    Listener, Progress, Restores,
    bills::Bills,
    contents::{Contents, Registered},
    fill::Filling,
    job::{self, At, Phase},
    plan::{Action, Planned, life},
};
use crate::{
    error::{Error, Result},
    state::checkpoint::{ChunkKey, Component, Count, Counts},
    store::{Incarnation, Space},
    tenant::{
        Homes, Tenant,
        restoration::{Settled, Settlement},
    },
};

/// How often a tenant's record is put anew because it changed meanwhile.
const ATTEMPTS: usize = 50;

/// A tenant to be restored.
pub(super) struct Work<'a> {
    pub(super) contents: &'a Contents<'a>,
    pub(super) step: &'a Planned,
    pub(super) components: &'a BTreeSet<Component>,
    pub(super) keys_work: bool,
}

impl Work<'_> {
    fn wants(&self, component: Component) -> bool {
        self.components.contains(&component)
    }

    /// Whether it gets a new space for this component. One that comes back gets both.
    fn fills(&self, component: Component) -> bool {
        self.step.action == Action::Create || self.wants(component)
    }
}

/// The spaces that were made for a restore.
fn made(at: &At) -> Vec<Space> {
    at.homes.spaces().into_iter().flatten().collect()
}

impl Restores {
    /// Restores a tenant, and notes so in the job.
    pub(super) async fn restore_tenant(
        &self,
        work: &Work<'_>,
        held: &mut job::Held,
        (listener, progress): (&Listener, &mut Progress),
    ) -> Result<()> {
        let of = &work.step.held;
        let Some(incarnation) = life(of) else {
            return Err(Error::no_tenant(&*work.step.tenant_id));
        };
        let key = work.contents.reader.key(self.tenants.masters(), of).await?;
        let key = key.ok_or_else(|| Error::no_tenant(&*work.step.tenant_id))?;
        let registered = work.contents.registered(of, &key).await?;
        let moving = held
            .job
            .at
            .as_ref()
            .is_some_and(|at| at.phase == Phase::Moving);
        let mut counts = Counts::new();
        if moving {
            // Filled and counted by whoever was here before.
            for component in [Component::Cache, Component::Sessions] {
                if work.wants(component)
                    && let Some(count) = of.counts.get(&component)
                {
                    counts.insert(component, *count);
                }
            }
            for space in held.job.at.as_ref().map(made).unwrap_or_default() {
                self.tenants.overtake(&space).await?;
            }
        } else {
            let filled = self
                .fill_tenant(work, &key, incarnation, held, (listener, progress))
                .await;
            match filled {
                Ok(filled) => counts = filled,
                Err(error) => return Err(self.abandon(held, error).await),
            }
        }
        progress.phase = "moving";
        listener.progress(progress);
        match self
            .move_tenant(work, &key, registered.as_ref(), held, &mut counts)
            .await
        {
            Ok(()) => Ok(()),
            Err(error) => Err(self.abandon(held, error).await),
        }
    }

    /// Fills new spaces.
    async fn fill_tenant(
        &self,
        work: &Work<'_>,
        key: &ChunkKey,
        incarnation: Incarnation,
        held: &mut job::Held,
        (listener, progress): (&Listener, &mut Progress),
    ) -> Result<Counts> {
        let step = work.step;
        let live = self.tenants.stored(&step.tenant_id).await?;
        let fresh = |component| work.fills(component).then(Incarnation::random);
        let homes = Homes {
            cache: fresh(Component::Cache),
            sessions: fresh(Component::Sessions),
        };
        let usage = live.is_none()
            && work.wants(Component::Usage)
            && self.may_bring_usage(work.contents, &step.held, key).await?;
        // Known before there is anything in them, so that nothing is left of them.
        held.job.at = Some(At {
            tenant_id: step.tenant_id.clone(),
            incarnation,
            homes,
            usage,
            phase: Phase::Filling,
        });
        held.save().await?;
        progress.phase = "writing";
        listener.progress(progress);
        let mut counts = Counts::new();
        let components = [Component::Cache, Component::Sessions];
        for (component, home) in components.into_iter().zip(homes.spaces()) {
            let Some(space) = home else { continue };
            let known = step.held.versions.get(&component).copied().unwrap_or(0);
            let before = match &live {
                Some((live, _)) if component == Component::Cache => {
                    self.tenants.last_version(&live.space()).await?
                }
                Some((live, _)) => self.tenants.last_version(&live.session_space()).await?,
                None => 0,
            };
            self.tenants.found(&space, known.max(before)).await?;
            if !work.wants(component) {
                continue;
            }
            let filling = Filling {
                contents: work.contents,
                of: &step.held,
                component,
                key,
                space,
            };
            let count = self.fill(&filling, held, (listener, progress)).await?;
            counts.insert(component, count);
        }
        if let Some(at) = &mut held.job.at {
            at.phase = Phase::Moving;
        }
        held.save().await?;
        Ok(counts)
    }

    /// Moves a tenant to spaces that are whole.
    async fn move_tenant(
        &self,
        work: &Work<'_>,
        key: &ChunkKey,
        registered: Option<&Registered>,
        held: &mut job::Held,
        counts: &mut Counts,
    ) -> Result<()> {
        let at = held.job.at.clone();
        let at = at.ok_or_else(|| Error::Internal("a restore is at no tenant".into()))?;
        let bills = if at.usage {
            let bills = Bills::of(work.contents, &work.step.held, key).await?;
            let of = (&work.step.held, key);
            let bring = bills.bring(&self.tenants, work.contents, of, at.incarnation);
            held.during(bring).await?;
            Some(bills)
        } else {
            None
        };
        if let Some(bills) = &bills {
            counts.insert(Component::Usage, bills.count);
        }
        if work.wants(Component::Tenants)
            && let Some(registered) = registered
        {
            let mut count = Count {
                records: 1,
                bytes: 0,
            };
            if work.keys_work {
                count.records += self.tenants.put_missing(&registered.records).await?;
            }
            counts.insert(Component::Tenants, count);
        }
        for _ in 0..ATTEMPTS {
            let live = self.tenants.stored(&at.tenant_id).await?;
            let (tenant, leaves) = match &live {
                Some((live, _)) if live.incarnation != at.incarnation || live.purging => {
                    return Err(Error::TenantExists(at.tenant_id));
                }
                Some((live, _)) if moved(live, &at.homes) => {
                    // Its record says so already, and what it left was never known.
                    return self.left(held, Vec::new()).await;
                }
                Some((live, _)) => {
                    let homes = Homes {
                        cache: at.homes.cache.or(live.homes.cache),
                        sessions: at.homes.sessions.or(live.homes.sessions),
                    };
                    let copy = registered.map(|registered| &registered.tenant);
                    let settings = work.wants(Component::Tenants);
                    // What may be refused comes before what cannot be taken back.
                    let tenant = self.tenants.replaced(live, copy, settings, homes).await?;
                    let leaves = self.give_up_spaces(live, &at, held).await?;
                    (tenant, leaves)
                }
                None => {
                    let Some(registered) = registered else {
                        return Err(Error::no_tenant(at.tenant_id));
                    };
                    if let Some(bills) = &bills {
                        self.bring_meters(bills, &at, held).await?;
                    }
                    let metered = bills.is_some();
                    let tenant = self.tenants.created(&registered.tenant, at.homes, metered);
                    (tenant, Vec::new())
                }
            };
            let before = held.job.clone();
            held.job.outcome.note(live.is_none(), counts);
            held.job.after = Some(at.tenant_id.clone());
            if let Some(at) = &mut held.job.at {
                at.phase = Phase::Leaving(leaves.iter().map(|s| s.name().to_owned()).collect());
            }
            let settlement = Settlement {
                tenant,
                before: live,
                with: held.write()?,
            };
            let settled = self.tenants.settle(&settlement).await;
            if let Ok(Settled::Done(version)) = settled {
                held.wrote(version);
                return self.left(held, leaves).await;
            }
            held.job = before;
            if settled? == Settled::Overtaken {
                return Err(Error::RestoreInProgress);
            }
        }
        Err(Error::RequestInProgress)
    }

    /// Fences the spaces that a tenant leaves, and lets the new ones go on with their
    /// meters.
    async fn give_up_spaces(
        &self,
        live: &Tenant,
        at: &At,
        held: &mut job::Held,
    ) -> Result<Vec<Space>> {
        let mut leaves = Vec::new();
        let old = [live.space(), live.session_space()];
        for (new, old) in at.homes.spaces().into_iter().zip(old) {
            let Some(new) = new else { continue };
            self.tenants.fence(&old).await?;
            let seen = self.tenants.view(&new).await?;
            let heritage = self.tenants.heritage(&old).await?;
            // If this replica stood still until another took the job, it ends here.
            held.save().await?;
            if !self.tenants.inherit(&new, seen, heritage).await? {
                return Err(Error::RestoreInProgress);
            }
            leaves.push(old);
        }
        Ok(leaves)
    }

    /// Lets the spaces of a tenant that comes back go on with its meters.
    async fn bring_meters(&self, bills: &Bills, at: &At, held: &mut job::Held) -> Result<()> {
        let heritages = [&bills.cache, &bills.sessions];
        for (space, heritage) in at.homes.spaces().into_iter().zip(heritages) {
            let (Some(space), Some(heritage)) = (space, heritage) else {
                continue;
            };
            let seen = self.tenants.view(&space).await?;
            held.save().await?;
            if !self.tenants.inherit(&space, seen, heritage.clone()).await? {
                return Err(Error::RestoreInProgress);
            }
        }
        Ok(())
    }

    /// Removes the spaces that a tenant has left, and goes on to the next.
    pub(super) async fn left(&self, held: &mut job::Held, leaves: Vec<Space>) -> Result<()> {
        if let Some(at) = &held.job.at {
            for space in &leaves {
                self.tenants.leave(at.incarnation, space).await?;
            }
        }
        held.job.at = None;
        Ok(())
    }

    /// Removes what was filled of a tenant that is not moved, where this replica still
    /// has the job.
    pub(super) async fn abandon(&self, held: &mut job::Held, error: Error) -> Error {
        let Some(at) = held.job.at.clone() else {
            return error;
        };
        if error == Error::RestoreInProgress {
            return error;
        }
        let abandoned = async {
            held.save().await?;
            let live = self.tenants.stored(&at.tenant_id).await?;
            if live.is_some_and(|(live, _)| moved(&live, &at.homes)) {
                return Ok(());
            }
            for space in made(&at) {
                self.tenants.leave(at.incarnation, &space).await?;
            }
            held.job.at = None;
            held.save().await
        };
        match abandoned.await {
            Ok(()) => error,
            // Whoever takes the job does it.
            Err(worse) => worse,
        }
    }

    /// Ends what a replica that died has left of the tenant it was at: one that was
    /// moved leaves its old spaces; what was being filled is removed. One that was about
    /// to be moved is left to be moved.
    pub(super) async fn clear(&self, held: &mut job::Held) -> Result<()> {
        let Some(at) = held.job.at.clone() else {
            return Ok(());
        };
        match &at.phase {
            Phase::Filling => {
                for space in made(&at) {
                    self.tenants.leave(at.incarnation, &space).await?;
                }
                held.job.at = None;
            }
            Phase::Moving => {}
            Phase::Leaving(names) => {
                let spaces = names.iter().filter_map(|name| Space::of_a_tenant(name));
                self.left(held, spaces.collect()).await?;
            }
        }
        held.save().await
    }
}

/// Whether a tenant lives in these spaces.
fn moved(live: &Tenant, homes: &Homes) -> bool {
    let is = |home: Option<Incarnation>, of| home.is_none() || home == of;
    *homes != Homes::default()
        && is(homes.cache, live.homes.cache)
        && is(homes.sessions, live.homes.sessions)
}
