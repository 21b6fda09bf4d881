//! Creating a session, once for each request. It does not know what keeps it alive.

use super::{
    ATTEMPTS, GROWS, NewSession, Session, SessionId, Sessions, reach, refused, rules, took,
};
use crate::{
    error::{Error, Result, Violations},
    store::Refusal,
    tenant::{Once, Tenancy},
};

impl Sessions {
    /// Creates a session. A replay of its request gets the same session, as it is by
    /// then.
    ///
    /// # Errors
    /// [`Error::Invalid`] besides the violations given; [`Error::QuotaExceeded`];
    /// [`Error::RequestIdReused`]; [`Error::NotFound`] for a replay whose session has
    /// ended; [`Error::ScopeMissing`]; the store's.
    pub async fn create(
        &self,
        tenancy: &Tenancy,
        new: &NewSession,
        mut violations: Violations,
    ) -> Result<Session> {
        reach(tenancy)?;
        let once = new.once(&mut violations)?;
        let (ttl_ms, idle_ms) = rules::new_session(new, &self.settings.load(), violations)?;
        let now_ms = self.store.now_ms();
        for _ in 0..ATTEMPTS {
            let session_id = SessionId::random(tenancy.incarnation, &new.user_id);
            let mut session = Session {
                session_id,
                user_id: new.user_id.clone(),
                data: new.data.clone(),
                attributes: new.attributes.clone(),
                create_ms: now_ms,
                update_ms: now_ms,
                idle_ms,
                expire_ms: now_ms.saturating_add(ttl_ms),
                idle_expire_ms: 0,
                version: 0,
            };
            let put = self.put(tenancy, &session, now_ms)?;
            let answer = once
                .as_ref()
                .map(|once| once.write(&session_id.to_string()));
            let writes = [put].into_iter().chain(answer.transpose()?).collect();
            let bytes = session.carried_bytes();
            match self.commit(tenancy, writes, GROWS, bytes).await? {
                Ok(applied) => {
                    self.tally.created();
                    took(&mut session, &applied)?;
                    self.answered(tenancy, &session);
                    return Ok(session);
                }
                Err(Refusal::Conflict { write: 1, .. }) => {
                    if let Some(first) = self.first_answer(tenancy, once.as_ref()).await? {
                        return self.get(tenancy, &first).await;
                    }
                }
                // Another has the same 128 random bits.
                Err(Refusal::Conflict { .. }) => {}
                Err(refusal) => return Err(refused(tenancy, &refusal)),
            }
        }
        Err(Error::RequestInProgress)
    }

    /// The session that a request created when it first came; `None` where that is no
    /// longer known.
    async fn first_answer(&self, tenancy: &Tenancy, once: Option<&Once>) -> Result<Option<String>> {
        let Some(once) = once else {
            return Ok(None);
        };
        let read = self.store.read(&tenancy.sessions, 0, &[once.key()]).await?;
        let found = read.records.into_iter().next().flatten();
        found.map(|found| once.replay(&found)).transpose()
    }
}
