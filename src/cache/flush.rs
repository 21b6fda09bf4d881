//! Making entries disappear at once: keys one by one, a namespace or a whole
//! tenant in constant time. It does not remove what a flush hid; a job that is
//! left before the flush does, in the background.
//!
//! A namespace is flushed by raising its floor: the version up to which its
//! entries are gone. A tenant is flushed by a new generation.

use super::{
    Cache,
    refusal::{RECLAIM, refused},
    rules,
    rules::At,
    snapshot::{ATTEMPTS, Floors},
    write::{GROWS, operation},
};
use crate::{
    error::{Error, Result, Violations},
    store::{Batch, Check, Commit, Key, Mode, Outcome, Refusal, Step, Table, Write},
    tenant::{
        Tenancy,
        reclaim::{self, JobId, Work},
    },
};

/// Namespaces of a tenant that may await reclaim; beyond it a flush is refused,
/// since every snapshot holds all floors.
const MAX_FLOORS: usize = 1000;

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Entries that disappeared; 0 for a namespace, whose entries are not counted
    /// apart.
    pub invalidated: u64,
    /// The generation of the tenant's entries now.
    pub generation: u64,
}

impl Cache {
    /// Removes entries of a namespace; none where a key breaks a rule.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::BatchTooLarge`], [`Error::ScopeMissing`], and
    /// the store's.
    pub async fn invalidate_keys(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        keys: &[String],
    ) -> Result<Flushed> {
        const FIELD: &str = "keys.keys";
        rules::batch(FIELD, keys.len(), &self.settings)?;
        let mut violations = Violations::default();
        let namespace = rules::namespace(namespace, &mut violations);
        for (index, key) in keys.iter().enumerate() {
            rules::key(key, At::Value(FIELD, index), &mut violations);
        }
        violations.check()?;
        for key in keys {
            tenancy.reach_key(namespace, key)?;
        }

        let delete = |floor| {
            let delete = |key: &String| Write::delete(Key::entry(namespace, key)).above(floor);
            Ok(keys.iter().map(delete).collect())
        };
        let bytes = keys.iter().map(|key| key.len() as u64).sum();
        let applied = self
            .commit(tenancy, namespace, Mode::Each, !GROWS, bytes, delete)
            .await?;
        let existed = |outcome: &&Outcome| matches!(outcome, Outcome::Done { existed: true, .. });
        Ok(Flushed {
            invalidated: applied.outcomes.iter().filter(existed).count() as u64,
            generation: applied.view.generation,
        })
    }

    /// Makes all entries of a namespace disappear, at the same price however many
    /// there are.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::ScopeMissing`] for a key that does not reach
    /// the whole namespace, [`Error::QuotaExceeded`] while very many flushed
    /// namespaces await reclaim, and the store's.
    pub async fn flush_namespace(&self, tenancy: &Tenancy, namespace: &str) -> Result<Flushed> {
        let namespace = rules::only_namespace(namespace)?;
        tenancy.reach_whole_namespace(namespace)?;
        let mut marked = None;
        for _ in 0..ATTEMPTS {
            let (_, version, mut floors) = self.floors(&tenancy.space).await?;
            self.drop_reclaimed(tenancy, &mut floors).await?;
            let room = floors.floors.len() < MAX_FLOORS || floors.floors.contains_key(namespace);
            let floor = match marked {
                Some(floor) => floor,
                None if room => self.mark(tenancy, namespace).await?,
                None => return Err(too_many_floors(tenancy, floors.floors.len())),
            };
            marked = Some(floor);

            let raised = floors.floors.entry(namespace.into()).or_default();
            *raised = floor.max(*raised);
            let write = Write::put(Floors::key(), floors.encode()?)
                .when(version.map_or(Check::Absent, Check::Version));
            let batch = Batch {
                step: Some(Step::Epoch),
                // This commit is the flush; those that prepare it are not the caller's.
                metered: operation(0),
                ..Batch::of([write])
            };
            match self.store.commit(&tenancy.space, batch).await? {
                Commit::Applied(applied) => {
                    self.keep(tenancy, applied.view, floors.into());
                    return Ok(Flushed {
                        invalidated: 0,
                        generation: applied.view.generation,
                    });
                }
                // Another flush came between.
                Commit::Refused(Refusal::Conflict { .. }) => {}
                Commit::Refused(refusal) => return Err(gone_or(tenancy, &refusal)),
            }
        }
        Err(Error::RequestInProgress)
    }

    /// Makes all entries of a tenant disappear, at the same price however many
    /// there are.
    ///
    /// # Errors
    /// [`Error::ScopeMissing`] for a key that is confined, and the store's.
    pub async fn flush_tenant(&self, tenancy: &Tenancy) -> Result<Flushed> {
        tenancy.reach_whole_tenant()?;
        let mut snapshot = self.snapshot(tenancy).await?;
        let mut left: Option<(u64, JobId)> = None;
        let mut refusal = Refusal::Stale(snapshot.view);
        for _ in 0..ATTEMPTS {
            let below = snapshot.view.generation + 1;
            if left.as_ref().is_none_or(|(until, _)| *until != below) {
                self.withdraw(left.take()).await?;
                let work = Work::Orphans { below };
                let job = reclaim::enqueue(&self.store, tenancy.incarnation, work).await?;
                left = Some((below, job));
            }
            let batch = Batch {
                view: Some(snapshot.view),
                step: Some(Step::Generation),
                metered: operation(0),
                // What they hid goes with the generation.
                ..Batch::of([Write::delete(Floors::key())])
            };
            match self.store.commit(&tenancy.space, batch).await? {
                Commit::Applied(applied) => {
                    self.keep(tenancy, applied.view, Floors::default().into());
                    return Ok(Flushed {
                        invalidated: applied.usage.entries,
                        generation: applied.view.generation,
                    });
                }
                Commit::Refused(Refusal::Stale(_)) => snapshot = self.reload(tenancy).await?,
                Commit::Refused(other) => {
                    refusal = other;
                    break;
                }
            }
        }
        self.withdraw(left).await?;
        Err(gone_or(tenancy, &refusal))
    }

    async fn withdraw(&self, left: Option<(u64, JobId)>) -> Result<()> {
        match left {
            Some((_, job)) => reclaim::withdraw(&self.store, &job).await,
            None => Ok(()),
        }
    }

    /// Fixes the version up to which a namespace is to be flushed, and leaves the
    /// job that will remove what it held.
    async fn mark(&self, tenancy: &Tenancy, namespace: &str) -> Result<u64> {
        // Whatever is written, its version is above all that was written before.
        let write = Write::put(Key::new(Table::Control, &b"mark"[..]), &b""[..]);
        let commit = self
            .store
            .commit(&tenancy.space, Batch::of([write]))
            .await?;
        let floor = match commit {
            Commit::Applied(applied) => match applied.outcomes.first() {
                Some(Outcome::Done { version, .. }) => *version,
                _ => return Err(Error::Internal("the store did not tell a version".into())),
            },
            Commit::Refused(refusal) => return Err(gone_or(tenancy, &refusal)),
        };
        let work = Work::Below {
            prefix: format!("{namespace}:"),
            version: floor,
        };
        reclaim::enqueue(&self.store, tenancy.incarnation, work).await?;
        Ok(floor)
    }

    /// Drops the floors below which nothing is left. A floor's job is left before
    /// the floor is set and removed when it is done, so a floor without one hides
    /// nothing any more.
    async fn drop_reclaimed(&self, tenancy: &Tenancy, floors: &mut Floors) -> Result<()> {
        if floors.floors.is_empty() {
            return Ok(());
        }
        let pending = reclaim::pending(&self.store, tenancy.incarnation).await?;
        floors.floors.retain(|namespace, _| {
            pending.iter().any(|work| match work {
                Work::Below { prefix, .. } => prefix.strip_suffix(':') == Some(namespace),
                Work::Orphans { .. } | Work::Removed => false,
            })
        });
        Ok(())
    }
}

fn gone_or(tenancy: &Tenancy, refusal: &Refusal) -> Error {
    match refusal {
        Refusal::Gone => Error::no_tenant(&*tenancy.tenant_id),
        refusal => refused(tenancy, refusal),
    }
}

fn too_many_floors(tenancy: &Tenancy, used: usize) -> Error {
    Error::QuotaExceeded {
        metric: "flushed_namespaces".into(),
        limit: MAX_FLOORS as i64,
        used: i64::try_from(used).unwrap_or(i64::MAX),
        scope: tenancy.scope(),
        retry_after: Some(RECLAIM),
    }
}
