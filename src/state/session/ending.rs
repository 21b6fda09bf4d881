//! How sessions end before their time: one, or all of a user. It does not know how they
//! end by themselves.

use super::{
    GROWS, Session, SessionId, Sessions, id, key, listing::PAGE, reach, refused, rules, shown,
};
use crate::{
    error::{Error, Result, Violations},
    store::{Action, Batch, Check, Commit, Mode, Outcome, Refusal, Write},
    tenant::{Counts, Tenancy},
};

impl Sessions {
    /// Ends a session; it is shown as it was.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for what is no id;
    /// [`Error::EtagMismatch`]; [`Error::EntryCorrupt`] for one that ended and cannot be
    /// shown; [`Error::ScopeMissing`]; the store's.
    pub async fn terminate(
        &self,
        tenancy: &Tenancy,
        session_id: &str,
        etag: &str,
    ) -> Result<Session> {
        reach(tenancy)?;
        let session_id = rules::session_id("session_id", session_id, Violations::default())?;
        let none = || Error::no_session(session_id.to_string());
        let check = match etag {
            "" => Check::Any,
            etag => {
                let version = u64::from_str_radix(etag, 16);
                Check::Version(version.map_err(|_| Error::EtagMismatch)?)
            }
        };
        let take = Write::new(key(session_id), check, Action::Take);
        let bytes = id::TEXT_BYTES as u64;
        let record = match self.commit(tenancy, vec![take], !GROWS, bytes).await? {
            Ok(applied) => shown(applied)?.ok_or_else(none)?,
            Err(Refusal::Conflict { found: None, .. }) => return Err(none()),
            Err(Refusal::Conflict { .. }) => return Err(Error::EtagMismatch),
            Err(refusal) => return Err(refused(tenancy, &refusal)),
        };
        self.tally.ended();
        let session = self.open(tenancy, session_id, &record).await?;
        self.answered(tenancy, &session);
        Ok(session)
    }

    /// Ends the sessions of a user, but one where it is named; how many there were. Page
    /// by page: those that are created meanwhile may stay.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a user_id that none can have, or what is no id;
    /// [`Error::ScopeMissing`]; the store's, and then some may have ended.
    pub async fn terminate_all(
        &self,
        tenancy: &Tenancy,
        user_id: &str,
        except: &str,
    ) -> Result<u64> {
        reach(tenancy)?;
        let mut violations = Violations::default();
        rules::user_id(user_id, &mut violations);
        let except = match except {
            "" => {
                violations.check()?;
                None
            }
            except => Some(rules::session_id("except_session_id", except, violations)?),
        };
        let mut terminated = 0;
        let mut after = None;
        loop {
            let page = self.page(tenancy, user_id, PAGE, after).await?;
            let ends = |session_id: &SessionId| Some(*session_id) != except;
            let deletes: Vec<Write> = page
                .items
                .iter()
                .filter(|item| item.session.as_ref().is_none_or(|s| s.user_id == user_id))
                .map(|item| item.session_id)
                .filter(ends)
                .map(|session_id| Write::delete(key(session_id)))
                .collect();
            if !deletes.is_empty() {
                terminated += self.delete(tenancy, deletes).await?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        tenancy.account.meter.count(Counts {
            operations: 1,
            bytes_in: user_id.len() as u64,
            ..Counts::default()
        });
        Ok(terminated)
    }

    /// Deletes sessions; how many there were.
    async fn delete(&self, tenancy: &Tenancy, deletes: Vec<Write>) -> Result<u64> {
        let batch = Batch {
            mode: Mode::Each,
            ..Batch::of(deletes)
        };
        let commit = self.store.commit(&tenancy.sessions, batch).await?;
        let applied = match commit {
            Commit::Applied(applied) => applied,
            Commit::Refused(Refusal::Gone) => return Err(tenancy.departed(&self.store).await),
            Commit::Refused(refusal) => return Err(refused(tenancy, &refusal)),
        };
        let existed = |outcome: &&Outcome| matches!(outcome, Outcome::Done { existed: true, .. });
        let ended = applied.outcomes.iter().filter(existed).count() as u64;
        self.tally.ended_with_user(ended);
        Ok(ended)
    }
}
