//! Giving an entry a new time to live. It does not know the old one.

use super::{
    Cache, Touched,
    doings::Doing,
    refusal::{refused, unasked},
    rules,
    rules::At,
    snapshot::Snapshot,
    write::{GROWS, only},
};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::{Result, Violations},
    store::{Action, Check, Key, Mode, Outcome, Write},
    tenant::{Tenancy, stats::Deeds},
};

impl Cache {
    /// Gives an entry a new time to live; `None` means the tenant's default.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::ScopeMissing`], and the store's.
    pub async fn touch(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        key: &str,
        ttl_ms: Option<i64>,
    ) -> Result<Touched> {
        let mut violations = Violations::default();
        let expiry = rules::expiry(
            ttl_ms,
            At::Request,
            tenancy,
            &self.settings.load(),
            &mut violations,
        );
        let namespace = rules::place(tenancy, namespace, key, violations)?;
        let touch = |_: &Snapshot| {
            let key = Key::entry(namespace, key);
            Ok(vec![Write::new(key, Check::Any, Action::Touch(expiry))])
        };
        let (limits, bytes) = (!GROWS, key.len() as u64);
        let applied = self
            .commit(tenancy, namespace, Mode::Whole, limits, bytes, touch)
            .await?;
        match only(applied)? {
            Outcome::Done {
                existed, expire_ms, ..
            } => {
                tenancy.count_written(namespace, &Deeds::default());
                if existed {
                    self.doings.count(Doing::Touched);
                }
                Ok(Touched {
                    found: existed,
                    expire_ms: expire_ms.filter(|_| existed),
                })
            }
            Outcome::Refused(refusal) => Err(refused(tenancy, &refusal)),
            Outcome::Shown(_) => Err(unasked()),
        }
    }
}
