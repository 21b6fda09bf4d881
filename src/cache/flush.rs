//! Making entries disappear at once: keys one by one; a namespace, a prefix, tags
//! or a whole tenant in constant time. It does not remove what was hidden; a job
//! that is left first does, in the background.
//!
//! All but keys and the tenant are invalidated by raising a floor: the version up
//! to which entries are gone. A tenant is flushed by a new generation.

use super::{
    Cache,
    doings::Doing,
    floors::{Floors, MAX_FLOORS, Target},
    note,
    precedence::Precedence,
    refusal::{RECLAIM, refused},
    rules,
    rules::At,
    snapshot::{ATTEMPTS, Snapshot},
    write::{GROWS, operation},
};
use crate::{
    error::{Error, Result, Violations},
    store::{Applied, Batch, Commit, Key, Mode, Outcome, Refusal, Step, Write},
    tenant::{
        Tenancy,
        reclaim::{self, JobId, Work},
        stats::{Deeds, EVERY},
    },
};

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Entries that disappeared; 0 for a namespace, a prefix and tags, whose entries
    /// are not counted apart.
    pub invalidated: u64,
    /// The generation of the tenant's entries now.
    pub generation: u64,
}

/// What is to disappear, as a request names it.
#[derive(Clone, Copy, Debug)]
pub enum Invalidation<'a> {
    /// These keys of the namespace.
    Keys(&'a [String]),
    /// Keys of the namespace that begin so.
    Prefix(&'a str),
    /// Entries of the namespace that have any of these tags.
    Tags(&'a [String]),
    /// The whole namespace; only true makes sense.
    Namespace(bool),
    /// All namespaces, likewise.
    Tenant(bool),
}

impl Cache {
    /// Makes disappear what a request names; `None` where it names nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`], and those of the calls for each.
    pub async fn invalidate(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        target: Option<Invalidation<'_>>,
    ) -> Result<Flushed> {
        let untrue = "must be true where it is set";
        let (field, allowed) = match target {
            Some(Invalidation::Keys(keys)) => {
                return self.invalidate_keys(tenancy, namespace, keys).await;
            }
            Some(Invalidation::Prefix(prefix)) => {
                return self.invalidate_prefix(tenancy, namespace, prefix).await;
            }
            Some(Invalidation::Tags(tags)) => {
                return self.invalidate_tags(tenancy, namespace, tags).await;
            }
            Some(Invalidation::Namespace(true)) => {
                return self.flush_namespace(tenancy, namespace).await;
            }
            Some(Invalidation::Tenant(true)) => return self.flush_tenant(tenancy).await,
            Some(Invalidation::Namespace(false)) => ("whole_namespace", untrue),
            Some(Invalidation::Tenant(false)) => ("whole_tenant", untrue),
            None => (
                "target",
                "one of keys, prefix, tags, whole_namespace and whole_tenant must be set",
            ),
        };
        let mut violations = Violations::default();
        rules::namespace(namespace, &mut violations);
        violations.add(field, allowed);
        violations.check()?;
        Err(Error::invalid(field, allowed))
    }

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
        rules::batch(FIELD, keys.len(), &self.settings.load())?;
        let mut violations = Violations::default();
        let namespace = rules::namespace(namespace, &mut violations);
        for (index, key) in keys.iter().enumerate() {
            rules::key(key, At::Value(FIELD, index), &mut violations);
        }
        violations.check()?;
        for key in keys {
            tenancy.reach_key(namespace, key)?;
        }

        let delete = |_: &Snapshot| {
            let delete = |key: &String| Write::delete(Key::entry(namespace, key));
            Ok(keys.iter().map(delete).collect())
        };
        let bytes = keys.iter().map(|key| key.len() as u64).sum();
        let applied = self
            .commit(tenancy, namespace, Mode::Each, !GROWS, bytes, delete)
            .await?;
        let existed = |outcome: &&Outcome| matches!(outcome, Outcome::Done { existed: true, .. });
        let invalidated = applied.outcomes.iter().filter(existed).count() as u64;
        tenancy.count_written(namespace, &invalidates(invalidated));
        self.doings.count(Doing::KeysInvalidated);
        Ok(Flushed {
            invalidated,
            generation: applied.view.generation,
        })
    }

    /// Makes the entries of a namespace disappear whose keys begin so, at the same
    /// price however many there are.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::ScopeMissing`] for a key that does not reach all
    /// of them, and those of [`Cache::flush_namespace`].
    pub async fn invalidate_prefix(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        prefix: &str,
    ) -> Result<Flushed> {
        let mut violations = Violations::default();
        let namespace = rules::namespace(namespace, &mut violations);
        rules::prefix(prefix, &mut violations);
        violations.check()?;
        tenancy.reach_prefix(namespace, prefix)?;
        self.raise(tenancy, namespace, Target::Prefix(prefix)).await
    }

    /// Makes the entries of a namespace disappear that have any of these tags, at
    /// the same price however many there are.
    ///
    /// # Errors
    /// As [`Cache::flush_namespace`].
    pub async fn invalidate_tags(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        tags: &[String],
    ) -> Result<Flushed> {
        let mut violations = Violations::default();
        let namespace = rules::namespace(namespace, &mut violations);
        rules::invalidated_tags(tags, &self.settings.load(), &mut violations);
        violations.check()?;
        tenancy.reach_whole_namespace(namespace)?;
        self.raise(tenancy, namespace, Target::Tags(tags)).await
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
        self.raise(tenancy, namespace, Target::All).await
    }

    /// Raises a floor: one commit, where a job is there already that removes what
    /// floors hide.
    async fn raise(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        target: Target<'_>,
    ) -> Result<Flushed> {
        let _turn = self.memory.snapshots.turn(tenancy.home).await;
        let _passing = self.memory.snapshots.passing(tenancy.home);
        let mut snapshot = self.snapshot(tenancy).await?;
        let mut precedence = Precedence::new(&self.store, &tenancy.space);
        let mut left: Option<JobId> = None;
        for _ in 0..ATTEMPTS {
            let mut floors = Floors::clone(&snapshot.floors);
            if !floors.raise(namespace, target) {
                self.withdraw(left).await?;
                return Err(too_many_floors(tenancy));
            }
            let now_ms = self.store.now_ms();
            if !snapshot.floors.have_job(now_ms) {
                let work = Work::Hidden;
                left = Some(reclaim::enqueue(&self.store, tenancy, work).await?);
                floors.left_job(now_ms);
            }
            let write = Write::put(Floors::key(), floors.encode()?);
            let write = write.when(snapshot.floors.unchanged());
            let batch = Batch {
                step: Some(Step::Epoch),
                metered: operation(0),
                note: floors.note(|| target.note(namespace)),
                ..Batch::of([write, precedence.write()])
            };
            match self.store.commit(&tenancy.space, batch).await? {
                Commit::Applied(applied) => {
                    floors.settle(version(&applied)?);
                    self.keep(tenancy, applied.view, floors.into());
                    // Its entries are counted as they are reclaimed.
                    tenancy.count_written(namespace, &invalidates(0));
                    self.doings.count(match target {
                        Target::Prefix(_) => Doing::PrefixInvalidated,
                        Target::Tags(_) => Doing::TagsInvalidated,
                        Target::All => Doing::NamespaceInvalidated,
                    });
                    return Ok(Flushed {
                        invalidated: 0,
                        generation: applied.view.generation,
                    });
                }
                // Another flush came between, or all that was hidden is removed: then
                // the job may be gone with it, that was left for this.
                Commit::Refused(Refusal::Conflict { write, .. }) => {
                    self.withdraw(left.take()).await?;
                    precedence.late(write).await?;
                    snapshot = self.reload(tenancy).await?;
                }
                Commit::Refused(refusal) => {
                    self.withdraw(left).await?;
                    return Err(self.gone_or(tenancy, &refusal).await);
                }
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
        let _passing = self.memory.snapshots.passing(tenancy.home);
        let mut snapshot = self.snapshot(tenancy).await?;
        let mut left: Option<JobId> = None;
        let mut left_below = 0;
        let mut refusal = Refusal::Stale(snapshot.view);
        for _ in 0..ATTEMPTS {
            let below = snapshot.view.generation + 1;
            if left.is_none() || left_below != below {
                self.withdraw(left.take()).await?;
                let work = Work::Orphans { below };
                left = Some(reclaim::enqueue(&self.store, tenancy, work).await?);
                left_below = below;
            }
            let mut floors = snapshot.floors.emptied();
            let batch = Batch {
                view: Some(snapshot.view),
                step: Some(Step::Generation),
                metered: operation(0),
                note: floors.note(note::tenant),
                // What they hid goes with the generation. The record is written and not
                // removed, so that whoever watches it is told.
                ..Batch::of([Write::put(Floors::key(), floors.encode()?)])
            };
            match self.store.commit(&tenancy.space, batch).await? {
                Commit::Applied(applied) => {
                    floors.settle(version(&applied)?);
                    self.keep(tenancy, applied.view, floors.into());
                    tenancy.count_written(EVERY, &invalidates(applied.usage.entries));
                    self.doings.count(Doing::TenantInvalidated);
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
        Err(self.gone_or(tenancy, &refusal).await)
    }

    async fn gone_or(&self, tenancy: &Tenancy, refusal: &Refusal) -> Error {
        match refusal {
            Refusal::Gone => tenancy.departed(&self.store).await,
            refusal => refused(tenancy, refusal),
        }
    }

    async fn withdraw(&self, left: Option<JobId>) -> Result<()> {
        match left {
            Some(job) => reclaim::withdraw(&self.store, &job).await,
            None => Ok(()),
        }
    }
}

/// The version that the first write of a batch was given.
fn version(applied: &Applied) -> Result<u64> {
    match applied.outcomes.first() {
        Some(Outcome::Done { version, .. }) => Ok(*version),
        _ => Err(Error::Internal("the store did not tell a version".into())),
    }
}

/// Entries that were there and were invalidated.
fn invalidates(invalidated: u64) -> Deeds {
    Deeds {
        invalidated,
        ..Deeds::default()
    }
}

fn too_many_floors(tenancy: &Tenancy) -> Error {
    Error::QuotaExceeded {
        metric: "flushed_namespaces".into(),
        limit: MAX_FLOORS as i64,
        used: MAX_FLOORS as i64,
        scope: tenancy.scope(),
        retry_after: Some(RECLAIM),
    }
}
