//! Removing entries by their keys: one commit of the store, however many. It does
//! not know what else makes entries disappear.

use super::{
    Cache,
    refusal::{refused, unasked},
    rules,
    rules::At,
    snapshot::Snapshot,
    write::{GROWS, only, operation, short},
};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::{Result, Violations},
    store::{Check, Key, Mode, Outcome, Refusal, Write},
    tenant::{Counts, Tenancy, stats::Deeds},
};

impl Cache {
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
        let delete = |_: &Snapshot| {
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
                Outcome::Shown(_) => Err(unasked()),
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
        rules::batch("keys", keys.len(), &self.settings.load())?;
        let namespace = rules::only_namespace(namespace)?;
        tenancy.reach_namespace(namespace)?;

        let check = |(index, key): (usize, &String)| {
            rules::item_key(tenancy, namespace, key, At::Value("keys", index))
        };
        let checked: Vec<Result<()>> = keys.iter().enumerate().map(check).collect();
        let delete = |_: &Snapshot| {
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
                Outcome::Shown(_) => Err(unasked()),
            }
        };
        let results = checked.into_iter().map(result).collect();
        tenancy.count_written(namespace, &deletes(deleted));
        Ok(results)
    }
}

/// Entries that were there and were deleted.
fn deletes(deletes: u64) -> Deeds {
    Deeds {
        deletes,
        ..Deeds::default()
    }
}
