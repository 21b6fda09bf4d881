//! Writing entries: one commit of the store, however many keys. Conditions and
//! limits are decided in the commit; it does not know how.

use super::{
    Cache, Set, Written,
    hidden::is_free,
    lease, note,
    refusal::{is_quota, refused, unasked},
    rules,
    rules::At,
    snapshot::{ATTEMPTS, Snapshot},
};
use crate::{
    codec::frame,
    error::{Error, Result, Violations},
    store::{Applied, Batch, Commit, Key, Limits, Metered, Mode, Outcome, Refusal, Write, charge},
    tenant::{Counts, Tenancy, stats::Deeds},
};

impl Cache {
    /// Writes an entry; where it is a refill, ends its lease.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::EntryTooLarge`], [`Error::ScopeMissing`],
    /// [`Error::ConditionNotMet`], also of a lease that holds no more,
    /// [`Error::QuotaExceeded`], and the store's.
    pub async fn set(&self, tenancy: &Tenancy, namespace: &str, set: &Set<'_>) -> Result<Written> {
        let mut violations = Violations::default();
        let namespace = rules::namespace(namespace, &mut violations);
        let settings = self.settings.load();
        let allowed = rules::set(set, At::Request, tenancy, &settings, violations)?;
        drop(settings);
        tenancy.reach_key(namespace, set.key)?;
        let lease = allowed.lease;
        let refilled = lease.map(|token| token.of(tenancy, namespace, set.key));
        let refilled = refilled.transpose()?;

        let mut deeds = Deeds::default();
        let put = |snapshot: &Snapshot| {
            let (write, done) = self.put(tenancy, namespace, set, &allowed)?;
            deeds = done;
            Ok(match refilled {
                Some(version) => {
                    let floors = &snapshot.floors;
                    let void = floors.void(namespace, set.key.as_bytes(), set.tags);
                    lease::refill(write, version, void)
                }
                None => vec![write],
            })
        };
        let bytes = carried(set);
        let done = self
            .attempt(
                tenancy,
                namespace,
                Mode::Whole,
                GROWS,
                operation(bytes),
                put,
            )
            .await?;
        let applied = match (done, refilled) {
            (Ok(applied), _) => applied,
            (Err(refusal), None) => return Err(refused(tenancy, &refusal)),
            (Err(refusal), Some(version)) => {
                let (key, refusal) = (set.key, &refusal);
                return Err(self.lapsed(tenancy, namespace, key, version, refusal).await);
            }
        };
        let written = written(tenancy, only(applied)?, deeds.packed_bytes)?;
        tenancy.count_written(namespace, &deeds);
        Ok(written)
    }

    /// Writes entries in order, each on its own; one result each, in order.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::BatchTooLarge`], [`Error::ScopeMissing`] for
    /// the namespace, and the store's; for an entry as [`Cache::set`].
    pub async fn batch_set(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        sets: &[Set<'_>],
    ) -> Result<Vec<Result<Written>>> {
        let settings = self.settings.load_full();
        rules::batch("entries", sets.len(), &settings)?;
        let namespace = rules::only_namespace(namespace)?;
        tenancy.reach_namespace(namespace)?;

        let check = |(index, set): (usize, &Set<'_>)| {
            let at = At::Item("entries", index);
            let allowed = rules::set(set, at, tenancy, &settings, Violations::default())?;
            tenancy.reach_key(namespace, set.key)?;
            Ok(allowed)
        };
        let checked: Vec<Result<rules::Allowed>> = sets.iter().enumerate().map(check).collect();
        self.set_each(tenancy, namespace, sets, checked, 1).await
    }

    /// Writes those entries in order that passed their checks, as so many operations;
    /// one result each.
    pub(super) async fn set_each(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        sets: &[Set<'_>],
        checked: Vec<Result<rules::Allowed>>,
        operations: u64,
    ) -> Result<Vec<Result<Written>>> {
        let mut puts = Vec::with_capacity(sets.len());
        let put = |_: &Snapshot| {
            puts.clear();
            let mut writes = Vec::with_capacity(sets.len());
            for (set, allowed) in sets.iter().zip(&checked) {
                if let Ok(allowed) = allowed {
                    let (write, done) = self.put(tenancy, namespace, set, allowed)?;
                    writes.push(write);
                    puts.push(done);
                }
            }
            Ok(writes)
        };
        let bytes = sets.iter().map(carried);
        let items = (&*checked, bytes, operations);
        let outcomes = self
            .commit_each(tenancy, namespace, items, GROWS, put)
            .await?;
        let mut done = outcomes.into_iter().zip(puts);
        let mut deeds = Deeds::default();
        let result = |allowed: Result<_>| {
            allowed?;
            let (outcome, put) = done.next().ok_or_else(short)?;
            let written = written(tenancy, outcome, put.packed_bytes)?;
            deeds += put;
            Ok(written)
        };
        let results = checked.into_iter().map(result).collect();
        tenancy.count_written(namespace, &deeds);
        Ok(results)
    }

    /// The write of an entry, and what it does once it is applied.
    fn put(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        set: &Set<'_>,
        allowed: &rules::Allowed,
    ) -> Result<(Write, Deeds)> {
        let entry = frame::Entry {
            value: set.value,
            content_type: set.content_type,
            tags: set.tags,
            create_ms: self.store.now_ms(),
        };
        let place = tenancy.place(namespace, set.key);
        let encoded = entry.encode(&self.settings.load().compression, &place)?;
        let key = Key::entry(namespace, set.key);
        let deeds = Deeds {
            sets: 1,
            value_bytes: set.value.len() as u64,
            packed_bytes: encoded.stored_bytes,
            charged_bytes: charge(&key.path, encoded.bytes.len()),
            ..Deeds::default()
        };
        let write = Write::put(key, encoded.bytes)
            .when(allowed.check)
            .expiring(allowed.expiry);
        Ok((write, deeds))
    }

    /// Commits those writes of a batch that passed their checks, each beside the
    /// bytes that it carries, as so many operations; nothing is asked of the store
    /// where none did.
    pub(super) async fn commit_each<T>(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        (checked, bytes, operations): (&[Result<T>], impl Iterator<Item = u64>, u64),
        grows: bool,
        writes: impl FnMut(&Snapshot) -> Result<Vec<Write>>,
    ) -> Result<Vec<Outcome>> {
        if checked.iter().all(Result::is_err) {
            return Ok(Vec::new());
        }
        let allowed = checked.iter().zip(bytes).filter(|(item, _)| item.is_ok());
        let metered = Metered {
            operations,
            bytes: allowed.map(|(_, bytes)| bytes).sum(),
        };
        let applied = self
            .attempt(tenancy, namespace, Mode::Each, grows, metered, writes)
            .await?
            .map_err(|refusal| refused(tenancy, &refusal))?;
        Ok(applied.outcomes)
    }

    /// Commits writes to a namespace, as one operation that carries these bytes of
    /// keys and values.
    pub(super) async fn commit(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        mode: Mode,
        grows: bool,
        bytes: u64,
        writes: impl FnMut(&Snapshot) -> Result<Vec<Write>>,
    ) -> Result<Applied> {
        self.attempt(tenancy, namespace, mode, grows, operation(bytes), writes)
            .await?
            .map_err(|refusal| refused(tenancy, &refusal))
    }

    /// The same, where a refusal may be an answer. The writes are made anew where
    /// the space has moved on since the snapshot was taken; the one commit that is
    /// applied meters the operation. When it ends, nothing is kept near of what was
    /// written: also where nobody knows whether it was.
    pub(super) async fn attempt(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        mode: Mode,
        grows: bool,
        metered: Metered,
        mut writes: impl FnMut(&Snapshot) -> Result<Vec<Write>>,
    ) -> Result<std::result::Result<Applied, Refusal>> {
        let limits = if grows {
            tenancy.limits
        } else {
            Limits::default()
        };
        let mut snapshot = self.snapshot_to_write(tenancy).await?;
        let mut leaving = None;
        for _ in 0..ATTEMPTS {
            let mut writes = writes(&snapshot)?;
            leaving.get_or_insert_with(|| self.memory.leaving(&tenancy.space, &writes));
            let asked = writes.len();
            let free = writes.iter().all(is_free);
            if !lease::is_refill(&writes) {
                snapshot = self.hide(tenancy, namespace, snapshot, &mut writes).await?;
                lease::forget_leases(&mut writes);
            }
            let note = snapshot.floors.note(|| note::entries(namespace, &writes));
            let batch = Batch {
                view: Some(snapshot.view),
                later: snapshot.view.epoch > 0 && free,
                mode,
                writes,
                limits,
                step: None,
                metered,
                note: note.flatten(),
            };
            match self.store.commit(&tenancy.space, batch).await? {
                Commit::Applied(mut applied) => {
                    applied.outcomes.truncate(asked);
                    if snapshot.view.epoch == 0 {
                        // The first commit begins the first epoch; nothing came between.
                        self.keep(tenancy, applied.view, snapshot.floors.clone());
                    }
                    let refused = applied.outcomes.iter().any(
                        |outcome| matches!(outcome, Outcome::Refused(refusal) if is_quota(refusal)),
                    );
                    tenancy.account.meter.count(Counts {
                        written: metered.bytes,
                        writes: metered.operations,
                        throttled: refused.into(),
                        ..Counts::default()
                    });
                    if grows {
                        tenancy.watch(&applied.usage);
                    }
                    return Ok(Ok(applied));
                }
                Commit::Refused(Refusal::Stale(_)) => snapshot = self.reload(tenancy).await?,
                Commit::Refused(Refusal::Gone) => {
                    return Err(tenancy.departed(&self.store).await);
                }
                Commit::Refused(refusal) => {
                    tenancy.account.meter.count(Counts {
                        throttled: is_quota(&refusal).into(),
                        ..Counts::default()
                    });
                    return Ok(Err(refusal));
                }
            }
        }
        Err(Error::RequestInProgress)
    }
}

/// Whether what is written can be more than was there: then limits are looked at.
pub(super) const GROWS: bool = true;

/// What a commit meters that carries a call: an operation, and these bytes of keys
/// and values.
pub(super) fn operation(bytes: u64) -> Metered {
    Metered {
        operations: 1,
        bytes,
    }
}

/// Bytes of key and value that a write carries.
fn carried(set: &Set<'_>) -> u64 {
    set.key.len() as u64 + set.value.len() as u64
}

/// The outcome of a batch of one.
pub(super) fn only(applied: Applied) -> Result<Outcome> {
    applied.outcomes.into_iter().next().ok_or_else(short)
}

fn written(tenancy: &Tenancy, outcome: Outcome, stored_bytes: u64) -> Result<Written> {
    match outcome {
        Outcome::Done {
            version, expire_ms, ..
        } => Ok(Written {
            version,
            expire_ms,
            stored_bytes,
        }),
        Outcome::Refused(refusal) => Err(refused(tenancy, &refusal)),
        Outcome::Shown(_) => Err(unasked()),
    }
}

pub(super) fn short() -> Error {
    Error::Internal("the store answered fewer outcomes than it was given writes".to_owned())
}
