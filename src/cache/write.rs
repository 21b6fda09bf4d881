//! Writing entries: one commit of the store, however many keys. Conditions and
//! limits are decided in the commit; it does not know how.

use super::{
    Cache, Set, Written,
    hidden::is_free,
    refusal::{is_quota, refused},
    rules,
    rules::At,
    snapshot::ATTEMPTS,
};
use crate::{
    codec::frame,
    error::{Error, Result, Violations},
    store::{
        Applied, Batch, Check, Commit, Key, Limits, Metered, Mode, Outcome, Refusal, Write, charge,
    },
    tenant::{Counts, Tenancy, stats::Deeds},
};

impl Cache {
    /// Writes an entry.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::EntryTooLarge`], [`Error::ScopeMissing`],
    /// [`Error::ConditionNotMet`], [`Error::QuotaExceeded`], and the store's.
    pub async fn set(&self, tenancy: &Tenancy, namespace: &str, set: &Set<'_>) -> Result<Written> {
        let mut violations = Violations::default();
        let namespace = rules::namespace(namespace, &mut violations);
        let allowed = rules::set(set, At::Request, tenancy, &self.settings, violations)?;
        tenancy.reach_key(namespace, set.key)?;

        let mut deeds = Deeds::default();
        let put = || {
            let (write, done) = self.put(tenancy, namespace, set, &allowed)?;
            deeds = done;
            Ok(vec![write])
        };
        let bytes = carried(set);
        let applied = self
            .commit(tenancy, namespace, Mode::Whole, GROWS, bytes, put)
            .await?;
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
        rules::batch("entries", sets.len(), &self.settings)?;
        let namespace = rules::only_namespace(namespace)?;
        tenancy.reach_namespace(namespace)?;

        let check = |(index, set): (usize, &Set<'_>)| {
            let at = At::Item("entries", index);
            let allowed = rules::set(set, at, tenancy, &self.settings, Violations::default())?;
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
        let put = || {
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

    /// Removes an entry, if `if_version` is 0 or its version; whether there was
    /// one.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::ScopeMissing`], [`Error::ConditionNotMet`]
    /// where it has another version, and the store's.
    pub async fn delete(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        key: &str,
        if_version: i64,
    ) -> Result<bool> {
        let mut violations = Violations::default();
        let version = rules::version(if_version, At::Request, &mut violations);
        let namespace = rules::place(tenancy, namespace, key, violations)?;
        let check = version.map_or(Check::Any, Check::Version);
        let delete = || {
            let write = Write::delete(Key::entry(namespace, key));
            Ok(vec![write.when(check)])
        };
        let bytes = key.len() as u64;
        let metered = operation(bytes);
        let deleted = self
            .attempt(tenancy, namespace, Mode::Whole, !GROWS, metered, delete)
            .await?;
        match deleted {
            Ok(applied) => match only(applied)? {
                Outcome::Done { existed, .. } => {
                    tenancy.count_written(namespace, &deletes(existed.into()));
                    Ok(existed)
                }
                Outcome::Refused(refusal) => Err(refused(tenancy, &refusal)),
            },
            // What is to be removed is not there, whatever version was meant: an
            // answer, and the refused commit has not metered it.
            Err(Refusal::Conflict { found: None, .. }) => {
                tenancy.account.meter.count(Counts {
                    operations: 1,
                    bytes_in: bytes,
                    ..Counts::default()
                });
                tenancy.count_written(namespace, &deletes(0));
                Ok(false)
            }
            Err(refusal) => Err(refused(tenancy, &refusal)),
        }
    }

    /// Removes entries; for each, in order, whether there was one.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::BatchTooLarge`], [`Error::ScopeMissing`] for
    /// the namespace, and the store's; for a key as [`Cache::delete`].
    pub async fn batch_delete(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        keys: &[String],
    ) -> Result<Vec<Result<bool>>> {
        rules::batch("keys", keys.len(), &self.settings)?;
        let namespace = rules::only_namespace(namespace)?;
        tenancy.reach_namespace(namespace)?;

        let check = |(index, key): (usize, &String)| {
            rules::item_key(tenancy, namespace, key, At::Value("keys", index))
        };
        let checked: Vec<Result<()>> = keys.iter().enumerate().map(check).collect();
        let delete = || {
            let allowed = keys
                .iter()
                .zip(&checked)
                .filter(|(_, allowed)| allowed.is_ok());
            let delete = |(key, _): (&String, _)| Write::delete(Key::entry(namespace, key));
            Ok(allowed.map(delete).collect())
        };
        let bytes = keys.iter().map(|key| key.len() as u64);
        let items = (&*checked, bytes, 1);
        let outcomes = self
            .commit_each(tenancy, namespace, items, !GROWS, delete)
            .await?;
        let mut outcomes = outcomes.into_iter();
        let mut deleted = 0;
        let result = |allowed: Result<()>| {
            allowed?;
            match outcomes.next().ok_or_else(short)? {
                Outcome::Done { existed, .. } => {
                    deleted += u64::from(existed);
                    Ok(existed)
                }
                Outcome::Refused(refusal) => Err(refused(tenancy, &refusal)),
            }
        };
        let results = checked.into_iter().map(result).collect();
        tenancy.count_written(namespace, &deletes(deleted));
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
        let encoded = entry.encode(&self.settings.compression, &place)?;
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
    async fn commit_each<T>(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        (checked, bytes, operations): (&[Result<T>], impl Iterator<Item = u64>, u64),
        grows: bool,
        writes: impl FnMut() -> Result<Vec<Write>>,
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
        writes: impl FnMut() -> Result<Vec<Write>>,
    ) -> Result<Applied> {
        self.attempt(tenancy, namespace, mode, grows, operation(bytes), writes)
            .await?
            .map_err(|refusal| refused(tenancy, &refusal))
    }

    /// The same, where a refusal may be an answer. The writes are made anew where
    /// the space has moved on since the snapshot was taken; the one commit that is
    /// applied meters the operation. When it ends, nothing is kept near of what was
    /// written: also where nobody knows whether it was.
    async fn attempt(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        mode: Mode,
        grows: bool,
        metered: Metered,
        mut writes: impl FnMut() -> Result<Vec<Write>>,
    ) -> Result<std::result::Result<Applied, Refusal>> {
        let limits = if grows {
            tenancy.limits
        } else {
            Limits::default()
        };
        let mut snapshot = self.snapshot(tenancy).await?;
        let mut leaving = None;
        for _ in 0..ATTEMPTS {
            let mut writes = writes()?;
            leaving.get_or_insert_with(|| self.memory.leaving(&tenancy.space, &writes));
            snapshot = self.hide(tenancy, namespace, snapshot, &mut writes).await?;
            let batch = Batch {
                view: Some(snapshot.view),
                later: snapshot.view.epoch > 0 && writes.iter().all(is_free),
                mode,
                writes,
                limits,
                step: None,
                metered,
                note: None,
            };
            match self.store.commit(&tenancy.space, batch).await? {
                Commit::Applied(applied) => {
                    if snapshot.view.epoch == 0 {
                        // The first commit begins the first epoch; nothing came between.
                        self.keep(tenancy, applied.view, snapshot.floors.clone());
                    }
                    let refused = applied.outcomes.iter().any(
                        |outcome| matches!(outcome, Outcome::Refused(refusal) if is_quota(refusal)),
                    );
                    tenancy.account.meter.count(Counts {
                        written: metered.bytes,
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
                    return Err(Error::no_tenant(&*tenancy.tenant_id));
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

/// Entries that were there and were deleted.
fn deletes(deletes: u64) -> Deeds {
    Deeds {
        deletes,
        ..Deeds::default()
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
    }
}

fn short() -> Error {
    Error::Internal("the store answered fewer outcomes than it was given writes".to_owned())
}
