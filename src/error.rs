//! The domain error: closed, and each kind something a caller can act on. It
//! does not know gRPC; `grpc::status` alone turns it into a status.

use std::{borrow::Cow, time::Duration};

use crate::store;

/// Result of a domain call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was not answered as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Fields of the request break rules; all of them are named.
    #[error("{}", describe(.0))]
    Invalid(Vec<Violation>),
    /// The page token is not one of ours, or belongs to another query.
    #[error("page_token: not a token of this listing and filter")]
    InvalidPageToken,
    /// The resume token is not one of ours, or belongs to another watch.
    #[error("resume_token: not a token of this tenant and these namespaces")]
    InvalidResumeToken,
    /// Paths of the update mask name no field that can be changed.
    #[error("{}", describe(.0))]
    InvalidFieldMask(Vec<Violation>),
    /// A value is over the limit.
    #[error("value: {bytes} bytes, at most {limit} are allowed")]
    EntryTooLarge {
        /// The value's size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A batch has too many items.
    #[error("{field}: {items} items, at most {limit} are allowed")]
    BatchTooLarge {
        /// The repeated field.
        field: &'static str,
        /// How many items it has.
        items: usize,
        /// The limit.
        limit: usize,
    },

    /// The values of a batch do not fit into one answer.
    #[error(
        "keys: the values before this one fill an answer, {limit} bytes; ask for fewer at once"
    )]
    AnswerTooLarge {
        /// Bytes of values that an answer holds.
        limit: u64,
    },
    /// The request message is over the limit; it was not read.
    #[error("the request message is larger than {limit} bytes")]
    MessageTooLarge {
        /// The limit.
        limit: u64,
    },

    /// No credential was given.
    #[error("no API key: send `authorization: Bearer <key>`")]
    KeyMissing,
    /// The credential is unknown, wrong, expired or revoked; which, is not told.
    #[error("the API key is not valid")]
    KeyInvalid,
    /// The credential does not reach this.
    #[error("the API key lacks the scope {scope}")]
    ScopeMissing {
        /// What it would need.
        scope: Cow<'static, str>,
    },
    /// The request names another tenant than the credential's.
    #[error("tenant_id: not the tenant of the API key")]
    TenantMismatch,

    /// There is no such thing.
    #[error("{} {name:?} does not exist", .kind.noun())]
    NotFound {
        /// What kind of thing.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// There is such a tenant already.
    #[error("tenant {0:?} exists already")]
    TenantExists(String),

    /// The tenant is suspended, and this is not allowed meanwhile.
    #[error("tenant {tenant_id:?} is suspended")]
    TenantSuspended {
        /// The tenant.
        tenant_id: String,
        /// Whether reads still work.
        read_only: bool,
    },
    /// The tenant is deleted.
    #[error("tenant {0:?} is deleted")]
    TenantDeleted(String),
    /// The tenant is protected against deletion.
    #[error("tenant {0:?} is protected: set delete_protection to false first")]
    DeleteProtected(String),
    /// The request id was used for other content.
    #[error("request_id: used before, for another request")]
    RequestIdReused,
    /// Another configuration is in force than the caller expects.
    #[error("expected_version: {expected}, but version {version} is in force; read it again")]
    ConfigRejected {
        /// The version that was expected.
        expected: i64,
        /// The one in force.
        version: i64,
    },
    /// A condition of the request does not hold.
    #[error("{subject}: {description}")]
    ConditionNotMet {
        /// What the condition is on.
        subject: String,
        /// What was found.
        description: String,
    },

    /// The resource has changed since it was read.
    #[error("etag: the resource has changed; read it again")]
    EtagMismatch,
    /// The same request is being worked on, or others write the same resource.
    #[error("others are writing the same resource; try again")]
    RequestInProgress,

    /// A restore has its hands on what was asked for.
    #[error("a restore is in progress; try again")]
    RestoreInProgress,

    /// A quota is used up.
    #[error("quota {metric}: {used} of {limit} used")]
    QuotaExceeded {
        /// The metric's name in Quotas.
        metric: Cow<'static, str>,
        /// The limit.
        limit: i64,
        /// What is used.
        used: i64,
        /// Whose quota it is, such as `tenant:acme`.
        scope: String,
        /// When a retry can succeed, where time alone helps.
        retry_after: Option<Duration>,
    },
    /// A rate is used up.
    #[error("rate {metric}: {used} of {limit} used")]
    RateLimited {
        /// The metric's name in Quotas.
        metric: Cow<'static, str>,
        /// The limit in its window.
        limit: i64,
        /// What counts in the window now.
        used: i64,
        /// Whose rate it is, such as `tenant:acme`.
        scope: String,
        /// When a retry can succeed; `None` where none can, because the limit is
        /// less than what was asked for.
        retry_after: Option<Duration>,
    },
    /// The service holds as many tenants as it may.
    #[error("{used} of {limit} tenants exist")]
    MaxTenants {
        /// The limit.
        limit: u64,
        /// How many there are, deleted ones that are not yet purged included.
        used: u64,
    },
    /// The store has no room.
    #[error("the store is full")]
    StoreFull,
    /// The object store of checkpoints has no room.
    #[error("the object store of checkpoints is full: {0}")]
    ObjectsFull(String),

    /// The store cannot be reached.
    #[error("the store is unavailable")]
    StoreUnavailable,
    /// The object store of checkpoints cannot be used now.
    #[error("the object store of checkpoints cannot be used: {0}")]
    ObjectsUnavailable(String),
    /// The server works on as much as it may.
    #[error("the server is overloaded")]
    Overloaded,
    /// The server is going away.
    #[error("the server is draining")]
    Draining,

    /// Time ran out with no write on its way.
    #[error("the deadline has passed")]
    DeadlineExceeded,
    /// Time ran out, or the store was lost, with a write on its way.
    #[error("a write was on its way when its answer was given up; it may have happened")]
    OutcomeUnknown,

    /// A stored entry cannot be read.
    #[error("the stored entry is damaged: {0}")]
    EntryCorrupt(String),

    /// A checkpoint is damaged.
    #[error("checkpoint {checkpoint_id} is damaged: {part}: {problem}")]
    CheckpointCorrupt {
        /// The checkpoint.
        checkpoint_id: String,
        /// The part of it, such as `chunk-000003`.
        part: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A checkpoint is whole, and cannot be read here.
    #[error("checkpoint {checkpoint_id} cannot be read here: {problem}")]
    CheckpointIncompatible {
        /// The checkpoint.
        checkpoint_id: String,
        /// What it would need.
        problem: String,
    },

    /// There is no such RPC, or not in the way it was called.
    #[error("{0}")]
    Unimplemented(String),
    /// A fault of this service; the text is for the log.
    #[error("internal error")]
    Internal(String),
}

/// A field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the request, such as `entries[3].key`.
    pub field: String,
    /// What was wrong, and what is allowed.
    pub description: String,
}

impl Violation {
    /// A violation of one field.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

/// The kinds of things that can be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tenant.
    Tenant,
    /// An API key.
    ApiKey,
    /// A checkpoint.
    Checkpoint,
    /// A session.
    Session,
}

impl Kind {
    /// The thing in words.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::ApiKey => "API key",
            Self::Checkpoint => "checkpoint",
            Self::Session => "session",
        }
    }
}

impl Error {
    /// One field breaks a rule.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation::new(field, description)])
    }

    /// There is no such tenant.
    pub fn no_tenant(tenant_id: impl Into<String>) -> Self {
        Self::NotFound {
            kind: Kind::Tenant,
            name: tenant_id.into(),
        }
    }

    /// There is no such checkpoint.
    pub fn no_checkpoint(checkpoint_id: impl Into<String>) -> Self {
        Self::NotFound {
            kind: Kind::Checkpoint,
            name: checkpoint_id.into(),
        }
    }

    /// There is no such session.
    pub fn no_session(session_id: impl Into<String>) -> Self {
        Self::NotFound {
            kind: Kind::Session,
            name: session_id.into(),
        }
    }

    /// There is no such API key.
    pub fn no_api_key(key_id: impl Into<String>) -> Self {
        Self::NotFound {
            kind: Kind::ApiKey,
            name: key_id.into(),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(_) | store::Error::Unusable(_) => {
                tracing::debug!(%error, "store call failed");
                Self::StoreUnavailable
            }
            store::Error::OutcomeUnknown(_) => {
                tracing::debug!(%error, "store call failed");
                Self::OutcomeUnknown
            }
            store::Error::Full(_) => Self::StoreFull,
            store::Error::Corrupt(what) => Self::EntryCorrupt(what),
            store::Error::Misuse(what) => Self::Internal(what),
        }
    }
}

/// Gathers violations, so that a caller learns of all of them at once.
#[derive(Clone, Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Notes one.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation::new(field, description));
    }

    /// Notes one unless the rule holds.
    pub fn require(&mut self, holds: bool, field: &str, description: &str) {
        if !holds {
            self.add(field, description);
        }
    }

    /// The error, if there is any violation.
    pub fn check(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self.0))
        }
    }
}

fn describe(violations: &[Violation]) -> String {
    let mut text = String::new();
    for violation in violations.iter().take(3) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&violation.field);
        text.push_str(": ");
        text.push_str(&violation.description);
    }
    if violations.len() > 3 {
        text.push_str(&format!("; and {} more", violations.len() - 3));
    }
    text
}
