//! A restore worked off, tenant by tenant, by whoever has its job. It does not know how
//! a tenant is restored.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, stream};

use super::{
    Conflict, FAILURES, Failure, Listener, Outcome, Progress, Restores,
    contents::Contents,
    job::Held,
    plan::{Action, Plan},
    tenant::Work,
};
use crate::{
    error::{Error, Result, Violations},
    state::checkpoint::{Cause, CheckpointId, Component, Created, Reader, Wanted},
};

/// How often, and after what time, it is tried to have the turn of taking a checkpoint.
const TURNS: u32 = 600;
const TURN: Duration = Duration::from_millis(500);

/// Chunks that are verified at once.
const AT_ONCE: usize = 4;

impl Restores {
    /// Does what is left of a restore; what it came to.
    pub(super) async fn work(&self, mut held: Held, listener: &Listener) -> Result<Outcome> {
        match self.work_on(&mut held, listener).await {
            Ok(()) => held.end().await,
            // Another has it, or the store will be back: the job stays.
            Err(error @ (Error::RestoreInProgress | Error::StoreUnavailable)) => Err(error),
            Err(error @ (Error::OutcomeUnknown | Error::ObjectsUnavailable(_)))
                if held.job.after.is_some() || held.job.at.is_some() =>
            {
                Err(error)
            }
            // Nothing was changed but what the outcome tells of.
            Err(error) => {
                let error = self.abandon(&mut held, error).await;
                held.give_up().await?;
                Err(error)
            }
        }
    }

    async fn work_on(&self, held: &mut Held, listener: &Listener) -> Result<()> {
        self.clear(held).await?;
        let asked = held.job.asked.clone();
        let id = CheckpointId::parse(&asked.checkpoint_id);
        let id = id.map_err(|_| Error::no_checkpoint(&*asked.checkpoint_id))?;
        let reader = self.checkpoints.open(&id).await?;
        let mut plan = self.plan_of(&reader, &asked).await?;
        let begins = held.job.after.is_none() && held.job.at.is_none();
        if begins {
            plan.check(asked.conflict)?;
        }
        let done = held.job.after.clone();
        plan.steps
            .retain(|step| done.as_ref().is_none_or(|done| step.tenant_id > *done));

        let counted = |step: &super::Planned| {
            let spaces = [Component::Cache, Component::Sessions];
            let counts = spaces.iter().filter_map(|c| step.counts.get(c));
            counts.map(|count| count.records).sum::<u64>()
        };
        let todo = plan.steps.iter().filter(|s| s.action != Action::Skip);
        let mut progress = Progress {
            tenants: plan.steps.len() as u64,
            records: todo.map(counted).sum(),
            phase: "verifying",
            ..Progress::default()
        };
        listener.progress(&progress);
        self.verify_chunks(&reader, &plan, held).await?;
        if begins {
            self.take_safety(&plan, &id, held, (listener, &mut progress))
                .await?;
        }

        let contents = Contents::of(&reader);
        if plan.keys_work
            && plan.components.contains(&Component::Tenants)
            && let Some(secret) = contents.secret().await?
        {
            plan.keys_work = self.tenants.restore_secret(&secret, false).await?;
        }
        for step in &plan.steps {
            if step.action == Action::Skip && !is_at(held, &step.tenant_id) {
                held.job.outcome.skipped += 1;
                held.job.after = Some(step.tenant_id.clone());
            } else {
                let work = Work {
                    contents: &contents,
                    step,
                    components: &plan.components,
                    keys_work: plan.keys_work,
                };
                let restored = self.restore_tenant(&work, held, (listener, &mut progress));
                match restored.await {
                    Ok(()) => {}
                    // What is wrong with one tenant does not keep the others; what is
                    // wrong with a store does.
                    Err(
                        error @ (Error::RestoreInProgress
                        | Error::StoreUnavailable
                        | Error::ObjectsUnavailable(_)
                        | Error::OutcomeUnknown),
                    ) => return Err(error),
                    Err(error) => {
                        tracing::warn!(tenant_id = step.tenant_id, ?error, "not restored");
                        if held.job.outcome.failures.len() < FAILURES {
                            held.job.outcome.failures.push(Failure {
                                tenant_id: step.tenant_id.clone(),
                                why: error.to_string(),
                            });
                        }
                        held.job.after = Some(step.tenant_id.clone());
                    }
                }
            }
            progress.tenants_done += 1;
            listener.progress(&progress);
            held.keep().await?;
        }
        Ok(())
    }

    /// Whether every chunk that is needed is as it was written.
    async fn verify_chunks(&self, reader: &Reader, plan: &Plan, held: &mut Held) -> Result<()> {
        let chunks = plan.chunks();
        let verify = async {
            let mut verified = stream::iter(chunks)
                .map(|number| async move { reader.chunk(number).await.map(drop) })
                .buffer_unordered(AT_ONCE);
            while let Some(chunk) = verified.next().await {
                chunk?;
            }
            Ok(())
        };
        held.during(verify).await
    }

    /// Keeps what is about to be replaced.
    async fn take_safety(
        &self,
        plan: &Plan,
        id: &CheckpointId,
        held: &mut Held,
        (listener, progress): (&Listener, &mut Progress),
    ) -> Result<()> {
        let replaced = plan.replaced();
        if replaced.is_empty() || !held.job.outcome.safety.is_empty() {
            return Ok(());
        }
        debug_assert_eq!(held.job.asked.conflict, Conflict::Replace);
        progress.phase = "keeping what is there";
        listener.progress(progress);
        let components: BTreeSet<Component> = plan
            .components
            .iter()
            .copied()
            .filter(|component| *component != Component::Config)
            .chain([Component::Tenants])
            .collect();
        let description = format!("before the restore of {id}");
        let wanted = Wanted {
            tenant_ids: replaced,
            components,
            description,
            cause: Cause::Safety,
        };
        let taken = held.during(self.keep_safe(wanted)).await?;
        held.job.outcome.safety = taken.to_string();
        held.save().await
    }
}

impl Restores {
    /// Takes a checkpoint, once it is its turn; its id.
    async fn keep_safe(&self, wanted: Wanted) -> Result<CheckpointId> {
        for _ in 0..TURNS {
            let none = Violations::default();
            match self.checkpoints.create(wanted.clone(), "", none).await {
                Ok(Created::Before(before)) => return Ok(before.id),
                Ok(Created::Begun(begun)) => {
                    let taken = begun.outcome.await.map_err(|error| {
                        Error::Internal(format!("a checkpoint was cut off: {error}"))
                    })?;
                    return taken.map(|taken| taken.id);
                }
                // Another one is being taken.
                Err(Error::RequestInProgress) => tokio::time::sleep(TURN).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::RequestInProgress)
    }
}

/// Whether a tenant was about to be moved by whoever was here before.
fn is_at(held: &Held, tenant_id: &str) -> bool {
    let at = held.job.at.as_ref();
    at.is_some_and(|at| at.tenant_id == tenant_id)
}
