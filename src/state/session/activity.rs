//! What keeps a session alive: changes and touches. It does not know how a session
//! ends.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    ATTEMPTS, GROWS, Session, Sessions, id, key, mask::Mask, reach, refused, rules, shown, took,
};
use crate::{
    error::{Error, Result, Violations},
    store::{Action, Check, Refusal, Write},
    tenant::{Counts, Tenancy},
};

/// A change of a session.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Which.
    pub session_id: String,
    /// The etag it must have; empty for any.
    pub etag: String,
    /// What is kept in it from now on.
    pub data: Option<Map<String, Value>>,
    /// What a listing shows.
    pub attributes: BTreeMap<String, String>,
    /// How long it lives without activity.
    pub idle_ms: Option<u64>,
    /// Which of these are set; see `update_mask` of the request.
    pub mask: Vec<String>,
    /// Check everything and write nothing.
    pub validate_only: bool,
}

impl Sessions {
    /// Changes a session; that is activity. Where no etag is given, a change beside
    /// another of the same session is made on what the other left.
    ///
    /// # Errors
    /// [`Error::Invalid`] besides the violations given; [`Error::InvalidFieldMask`];
    /// [`Error::NotFound`]; [`Error::EtagMismatch`]; [`Error::QuotaExceeded`];
    /// [`Error::RequestInProgress`] where others change it all the time;
    /// [`Error::EntryCorrupt`]; [`Error::ScopeMissing`]; the store's.
    pub async fn update(
        &self,
        tenancy: &Tenancy,
        update: &Update,
        mut violations: Violations,
    ) -> Result<Session> {
        reach(tenancy)?;
        let settings = self.settings.load_full();
        if let Some(idle_ms) = update.idle_ms {
            rules::span("session.idle_timeout", idle_ms, &settings, &mut violations);
        }
        let session_id = rules::session_id("session.session_id", &update.session_id, violations)?;
        let mask = Mask::of(update)?;
        for _ in 0..ATTEMPTS {
            let before = self.read(tenancy, session_id).await?;
            if !update.etag.is_empty() && update.etag != before.etag() {
                return Err(Error::EtagMismatch);
            }
            let mut after = before.clone();
            let idle_ms = rules::default_idle_ms(&settings);
            mask.apply(update, idle_ms, &mut after);
            let mut violations = Violations::default();
            rules::data("session.data", &after.data, &settings, &mut violations);
            rules::attributes("session.attributes", &after.attributes, &mut violations);
            violations.check()?;
            let now_ms = self.store.now_ms();
            after.update_ms = now_ms;
            let put = self.put(tenancy, &after, now_ms)?;
            let put = put.when(Check::Version(before.version));
            if update.validate_only {
                tenancy.account.meter.count(Counts {
                    operations: 1,
                    ..Counts::default()
                });
                return Ok(after);
            }
            let bytes = after.carried_bytes();
            match self.commit(tenancy, vec![put], GROWS, bytes).await? {
                Ok(applied) => {
                    took(&mut after, &applied)?;
                    self.answered(tenancy, &after);
                    return Ok(after);
                }
                Err(Refusal::Conflict { found: None, .. }) => {
                    return Err(Error::no_session(session_id.to_string()));
                }
                Err(Refusal::Conflict { .. }) if !update.etag.is_empty() => {
                    return Err(Error::EtagMismatch);
                }
                Err(Refusal::Conflict { .. }) => {}
                Err(refusal) => return Err(refused(tenancy, &refusal)),
            }
        }
        Err(Error::RequestInProgress)
    }

    /// Puts off the end of an idle session, in one commit.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for what is no id;
    /// [`Error::EntryCorrupt`]; [`Error::ScopeMissing`]; the store's.
    pub async fn touch(&self, tenancy: &Tenancy, session_id: &str) -> Result<Session> {
        reach(tenancy)?;
        let session_id = rules::session_id("session_id", session_id, Violations::default())?;
        let renew = Write::new(key(session_id), Check::Any, Action::Renew);
        let bytes = id::TEXT_BYTES as u64;
        let applied = self.commit(tenancy, vec![renew], !GROWS, bytes).await?;
        let applied = applied.map_err(|refusal| refused(tenancy, &refusal))?;
        let none = || Error::no_session(session_id.to_string());
        let record = shown(applied)?.ok_or_else(none)?;
        let session = self.open(tenancy, session_id, &record).await?;
        self.answered(tenancy, &session);
        Ok(session)
    }
}
