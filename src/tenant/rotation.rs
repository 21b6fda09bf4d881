//! API keys get a new secret, or their end. It does not know how a key is checked
//! when it is used.

use std::time::Duration;

use secrecy::SecretString;

use super::{
    Change, Issued, Tenants,
    admission::pepper_key,
    api_key,
    lifecycle::ATTEMPTS,
    once::Once,
    record::{self, ApiKey, SecretMac},
};
use crate::{
    error::{Error, Result},
    store::{Check, Key, Write},
};

/// How long an old secret can live beside a new one at most.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Tenants {
    /// Gives an API key a new secret; the one it had lives on for `overlap`.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`], [`Error::ConditionNotMet`] where it
    /// is revoked, [`Error::RequestIdReused`]; those of the store.
    pub async fn rotate_api_key(
        &self,
        key_id: &str,
        overlap: Duration,
        mut change: Change,
    ) -> Result<Issued> {
        let once = Once::of(
            "RotateApiKey",
            &change.request_id,
            &(key_id, overlap),
            &mut change.violations,
        )?;
        change
            .violations
            .require(!key_id.is_empty(), "key_id", "empty: name the key");
        change
            .violations
            .require(overlap <= MAX_OVERLAP, "overlap", "longer than 30 days");
        change.violations.check()?;
        let at = key_at(key_id)?;
        for _ in 0..ATTEMPTS {
            let pepper = self.pepper().await?;
            let (found_key, answered) = self.find_or_replay(at.clone(), once.as_ref()).await?;
            if let (Some(once), Some(api_key)) = (&once, answered) {
                return self.reissued(once, api_key).await;
            }
            let found_key = found_key.ok_or_else(|| Error::no_api_key(key_id))?;
            let mut key: ApiKey = record::decode(&found_key.value)?;
            if key.revoke_ms.is_some() {
                return Err(Error::ConditionNotMet {
                    subject: format!("API key {key_id}"),
                    description: "it is revoked".into(),
                });
            }
            if change.validate_only {
                return Ok(Issued {
                    api_key: key.bare(),
                    secret: None,
                });
            }
            let secret = once.as_ref().map_or_else(crate::random::bytes, |o| {
                pepper.derive(key_id, &o.request_id)
            });
            let overlap_ms = u64::try_from(overlap.as_millis()).unwrap_or(u64::MAX);
            let until_ms = self.store.now_ms().saturating_add(overlap_ms);
            // Of the older secrets only the newest lives on.
            key.secrets.truncate(usize::from(overlap_ms > 0));
            key.secrets
                .iter_mut()
                .for_each(|old| old.until_ms = Some(until_ms));
            key.secrets.insert(
                0,
                SecretMac {
                    mac: pepper.mac(&secret),
                    until_ms: None,
                },
            );
            let request = once
                .as_ref()
                .map(|once| once.write(&key.bare()))
                .transpose()?;
            let writes = [
                Write::put(record::api_key_key(key_id), record::encode(&key)?)
                    .when(Check::Version(found_key.version)),
                Write::check(pepper_key(), Check::Version(pepper.version)),
            ];
            if self
                .commit_issue(writes.into_iter().chain(request), key_id)
                .await?
            {
                let text = SecretString::from(api_key::format(key_id, &secret));
                // Nothing is asked of the store any more: the secret is shown this
                // once, and a fault now would lose it.
                return Ok(Issued {
                    api_key: key.bare(),
                    secret: Some(text),
                });
            }
        }
        Err(Error::RequestInProgress)
    }

    /// Revokes an API key; a revoked one stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::RequestIdReused`]; those of the store.
    pub async fn revoke_api_key(&self, key_id: &str, mut change: Change) -> Result<ApiKey> {
        let once = Once::of(
            "RevokeApiKey",
            &change.request_id,
            &key_id,
            &mut change.violations,
        )?;
        change
            .violations
            .require(!key_id.is_empty(), "key_id", "empty: name the key");
        change.violations.check()?;
        let at = key_at(key_id)?;
        for _ in 0..ATTEMPTS {
            let (found, answered) = self
                .find_or_replay::<(ApiKey, Option<u64>)>(at.clone(), once.as_ref())
                .await?;
            if let Some((key, last_used_ms)) = answered {
                return Ok(ApiKey {
                    last_used_ms,
                    ..key
                });
            }
            let found = found.ok_or_else(|| Error::no_api_key(key_id))?;
            let mut key: ApiKey = record::decode(&found.value)?;
            let revoked = key.revoke_ms.is_some();
            key.revoke_ms = key.revoke_ms.or_else(|| Some(self.store.now_ms()));
            key.secrets.clear();
            let answer = self.with_use(key.clone()).await?;
            if change.validate_only || (revoked && once.is_none()) {
                return Ok(answer);
            }
            let unchanged = Check::Version(found.version);
            let write = match revoked {
                true => Write::check(at.clone(), unchanged),
                false => Write::put(at.clone(), record::encode(&key)?).when(unchanged),
            };
            // A key's record does not hold its last use.
            let told = (&answer, answer.last_used_ms);
            let request = once.as_ref().map(|once| once.write(&told)).transpose()?;
            if self
                .commit_issue([write].into_iter().chain(request), key_id)
                .await?
            {
                return Ok(answer);
            }
        }
        Err(Error::RequestInProgress)
    }

    async fn with_use(&self, key: ApiKey) -> Result<ApiKey> {
        let mut keys = self.with_uses(vec![key]).await?;
        keys.pop()
            .ok_or_else(|| Error::Internal("one key in, one key out".into()))
    }
}

/// Where a key's record is; not found where there can be none.
fn key_at(key_id: &str) -> Result<Key> {
    if api_key::is_id(key_id) {
        Ok(record::api_key_key(key_id))
    } else {
        Err(Error::no_api_key(key_id))
    }
}
