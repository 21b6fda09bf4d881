//! Sessions: what a service keeps of its users between their calls. Each is one record
//! in a space of its tenant's own, whose counters are the quotas. It does not know who
//! the users are; a user_id is whatever the service calls them.
//!
//! A session ends when it was idle for its idle_timeout, and at its expire_time at the
//! latest. Both are of the store's clock: the record says itself how it is renewed, so
//! that a touch is one commit and needs nothing to be read.

mod activity;
mod creation;
mod ending;
mod id;
mod listing;
mod mask;
mod record;
mod rules;
mod tally;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use self::record::Stored;
pub use self::{
    activity::Update,
    id::SessionId,
    listing::{Listing, Range},
    rules::NewSession,
    tally::Tally,
};
use crate::{
    config::{self, Live},
    error::{Error, Result, Violations},
    store::{
        Applied, Batch, Check, Commit, Handle, Key, Limits, Metered, Metric, Outcome, Record,
        Refusal, Table, View, Write,
    },
    tenant::{ACTIVE_SESSIONS, Counts, STORAGE_BYTES, Tenancy},
};

/// How often a call is repeated because others write the same session, or the same
/// request is carried out beside it.
const ATTEMPTS: usize = 20;

/// The space of sessions as every commit finds it: it has been written, and nothing
/// moves its view.
const WRITTEN: View = View {
    epoch: 1,
    generation: 0,
};

/// A session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its id.
    pub session_id: SessionId,
    /// Whose it is.
    pub user_id: String,
    /// What is kept in it; empty in a listing.
    pub data: Map<String, Value>,
    /// What a listing shows.
    pub attributes: BTreeMap<String, String>,
    /// When it was created, by the store's clock, in ms since 1970 as all times here.
    pub create_ms: u64,
    /// When its data or attributes were last changed.
    pub update_ms: u64,
    /// How long it lives without activity.
    pub idle_ms: u64,
    /// When it ends, whatever happens.
    pub expire_ms: u64,
    /// When it ends without activity.
    pub idle_expire_ms: u64,
    /// The version of its record, which a touch keeps.
    pub version: u64,
}

impl Session {
    /// Changes with its data and attributes, and not by a touch.
    pub fn etag(&self) -> String {
        format!("{:x}", self.version)
    }

    /// When it was last created, changed or touched. From the moment when its
    /// expire_time is nearer than its idle_timeout, a touch leaves no trace, and it is
    /// that moment at the earliest.
    pub fn last_active_ms(&self) -> u64 {
        let idle = self.idle_expire_ms.saturating_sub(self.idle_ms);
        idle.max(self.update_ms)
    }

    /// Bytes of what a caller is sent of it: texts, and data as JSON.
    fn carried_bytes(&self) -> u64 {
        let attributes = self.attributes.iter();
        let attributes = attributes.map(|(name, value)| (name.len() + value.len()) as u64);
        (id::TEXT_BYTES + self.user_id.len()) as u64
            + attributes.sum::<u64>()
            + rules::json_bytes(&self.data)
    }
}

/// The sessions of a store's tenants. Cheap to clone: each core has one.
#[derive(Clone)]
pub struct Sessions {
    store: Handle,
    settings: Live<config::Session>,
    /// Their compression is that of entries.
    cache: Live<config::Cache>,
    tally: Arc<Tally>,
}

impl Sessions {
    /// The sessions in this store, under these settings.
    pub fn new(
        store: Handle,
        settings: impl Into<Live<config::Session>>,
        cache: impl Into<Live<config::Cache>>,
    ) -> Self {
        Self {
            store,
            settings: settings.into(),
            cache: cache.into(),
            tally: Arc::default(),
        }
    }

    /// The same sessions, counted here.
    #[must_use]
    pub fn counted(self, tally: Arc<Tally>) -> Self {
        Self { tally, ..self }
    }

    /// A session; that is no activity.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for what is no id;
    /// [`Error::EntryCorrupt`]; [`Error::ScopeMissing`]; the store's.
    pub async fn get(&self, tenancy: &Tenancy, session_id: &str) -> Result<Session> {
        reach(tenancy)?;
        let session_id = rules::session_id("session_id", session_id, Violations::default())?;
        let session = self.read(tenancy, session_id).await;
        if matches!(session, Ok(_) | Err(Error::NotFound { .. })) {
            tenancy.account.meter.count(Counts {
                operations: 1,
                bytes_in: id::TEXT_BYTES as u64,
                bytes_out: session.as_ref().map_or(0, Session::carried_bytes),
                ..Counts::default()
            });
        }
        session
    }

    async fn read(&self, tenancy: &Tenancy, session_id: SessionId) -> Result<Session> {
        let read = self
            .store
            .read(&tenancy.sessions, 0, &[key(session_id)])
            .await?;
        self.confirm(tenancy, read.view).await?;
        let record = read.records.into_iter().next().flatten();
        self.found(tenancy, session_id, record).await
    }

    /// The session in what was found under its id.
    async fn found(
        &self,
        tenancy: &Tenancy,
        session_id: SessionId,
        record: Option<Record>,
    ) -> Result<Session> {
        let none = || Error::no_session(session_id.to_string());
        let record = record.ok_or_else(none)?;
        let session = self.open(tenancy, session_id, &record).await?;
        if session.expire_ms <= self.store.now_ms() {
            return Err(none());
        }
        Ok(session)
    }

    /// The session in its record.
    async fn open(
        &self,
        tenancy: &Tenancy,
        session_id: SessionId,
        record: &Record,
    ) -> Result<Session> {
        self.learn_data_key(tenancy, record).await?;
        Stored::of(tenancy, session_id).open(record)
    }

    /// Makes sure that the data key is known which a record is sealed with.
    async fn learn_data_key(&self, tenancy: &Tenancy, record: &Record) -> Result<()> {
        match record::data_key(record) {
            Some(id) => tenancy.learn_data_key(&self.store, id).await,
            None => Ok(()),
        }
    }

    /// The write of a session as it is to be from now on.
    fn put(&self, tenancy: &Tenancy, session: &Session, now_ms: u64) -> Result<Write> {
        let stored = Stored::of(tenancy, session.session_id);
        let (value, expiry) = stored.encode(session, &self.cache.load().compression, now_ms)?;
        Ok(Write::put(key(session.session_id), value)
            .when(Check::Absent)
            .expiring(expiry))
    }

    /// Commits writes to sessions, as one operation that carries these bytes, within
    /// the quotas where they grow. A refusal may be an answer.
    async fn commit(
        &self,
        tenancy: &Tenancy,
        writes: Vec<Write>,
        grows: bool,
        bytes: u64,
    ) -> Result<std::result::Result<Applied, Refusal>> {
        let mut view = WRITTEN;
        let metered = Metered {
            operations: 1,
            bytes,
        };
        for _ in 0..ATTEMPTS {
            let batch = Batch {
                view: Some(view),
                later: true,
                limits: if grows {
                    tenancy.session_limits
                } else {
                    Limits::default()
                },
                metered,
                ..Batch::of(writes.iter().cloned())
            };
            match self.store.commit(&tenancy.sessions, batch).await? {
                Commit::Applied(applied) => {
                    tenancy.account.meter.count(Counts {
                        written: bytes,
                        writes: metered.operations,
                        ..Counts::default()
                    });
                    if grows {
                        tenancy.watch_sessions(&applied.usage);
                    }
                    return Ok(Ok(applied));
                }
                Commit::Refused(Refusal::Stale(found)) => {
                    self.confirm(tenancy, found).await?;
                    view = found;
                }
                Commit::Refused(Refusal::Gone) => {
                    return Err(tenancy.departed(&self.store).await);
                }
                Commit::Refused(refusal) => {
                    tenancy.account.meter.count(Counts {
                        throttled: matches!(refusal, Refusal::Exceeded { .. }).into(),
                        ..Counts::default()
                    });
                    return Ok(Err(refusal));
                }
            }
        }
        Err(Error::RequestInProgress)
    }

    /// Makes sure that what is not there is not there: a space that was never written is
    /// that of a tenant without sessions, or that of a tenant which the store has lost,
    /// for whom nothing is to be begun anew; one that is gone may be elsewhere.
    async fn confirm(&self, tenancy: &Tenancy, view: View) -> Result<()> {
        match view {
            View::GONE => Err(tenancy.departed(&self.store).await),
            View { epoch: 0, .. } => tenancy.confirm(&self.store).await,
            _ => Ok(()),
        }
    }

    /// Counts what a write's caller is sent.
    fn answered(&self, tenancy: &Tenancy, session: &Session) {
        tenancy.account.meter.count(Counts {
            bytes_out: session.carried_bytes(),
            ..Counts::default()
        });
    }
}

/// Whether what is written can be more than was there: then quotas are looked at.
const GROWS: bool = true;

/// Where a session is.
fn key(session_id: SessionId) -> Key {
    Key::new(Table::Session, session_id.path())
}

/// Whether the caller reaches sessions: they lie in no namespace and under no prefix,
/// so that a key confined to some reaches none.
fn reach(tenancy: &Tenancy) -> Result<()> {
    match tenancy.confined {
        Some(_) => Err(Error::ScopeMissing {
            scope: "sessions, as it is confined to namespaces or key_prefixes".into(),
        }),
        None => Ok(()),
    }
}

/// Notes in a session what its commit made of it.
fn took(session: &mut Session, applied: &Applied) -> Result<()> {
    match applied.outcomes.first() {
        Some(Outcome::Done {
            version, expire_ms, ..
        }) => {
            session.version = *version;
            let idle_expire_ms = expire_ms.unwrap_or(session.expire_ms);
            session.idle_expire_ms = idle_expire_ms.min(session.expire_ms);
            Ok(())
        }
        _ => Err(strange()),
    }
}

/// The record that a commit of one write shows.
fn shown(applied: Applied) -> Result<Option<Record>> {
    match applied.outcomes.into_iter().next() {
        Some(Outcome::Shown(record)) => Ok(record),
        _ => Err(strange()),
    }
}

fn strange() -> Error {
    Error::Internal("the store's outcomes are not those of the writes".to_owned())
}

/// A refusal as the caller learns of it.
fn refused(tenancy: &Tenancy, refusal: &Refusal) -> Error {
    match refusal {
        Refusal::Exceeded {
            metric,
            limit,
            used,
        } => {
            let name = match metric {
                Metric::Entries => ACTIVE_SESSIONS,
                Metric::Bytes | Metric::Flushed => STORAGE_BYTES,
            };
            tenancy.exceeded(name, *limit, *used, None)
        }
        Refusal::Conflict { .. } | Refusal::Stale(_) | Refusal::Gone => Error::RequestInProgress,
        Refusal::Fenced => Error::RestoreInProgress,
    }
}
