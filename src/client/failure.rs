//! A call that failed: the reason, its details, and whether what was asked may have
//! happened. It does not decide whether to try again.

use std::{error::Error, fmt, time::Duration};

use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::{ErrorDetails, StatusExt};

use super::Reason;
use crate::grpc::status::DOMAIN;

/// Whether what was asked for may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did not: the service refused, or was never reached.
    NotDone,
    /// Nobody knows: the answer was lost, or time ran out on the way.
    Unknown,
}

/// Why a call failed.
#[derive(Debug)]
pub struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: Status,
    details: ErrorDetails,
    reason: Option<Reason>,
    outcome: Outcome,
    attempts: u32,
}

impl Failure {
    /// What a status tells of a call; `changes` is whether the call could have changed
    /// anything.
    pub(super) fn of(status: Status, changes: bool) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let reason = info.map(|info| Reason::of(&info.reason));
        let doubtful = match reason {
            // The service refuses before it does anything, but for these.
            Some(reason) => matches!(
                reason,
                Reason::OutcomeUnknown | Reason::Internal | Reason::Other
            ),
            None => !caused_by::<ConnectError>(&status),
        };
        if reason.is_none() && caused_by::<TimeoutExpired>(&status) {
            return Self::late(changes);
        }
        Self(Box::new(Inner {
            details,
            reason,
            outcome: if doubtful && changes {
                Outcome::Unknown
            } else {
                Outcome::NotDone
            },
            attempts: 1,
            status,
        }))
    }

    /// A call whose time ran out while nothing had been heard of it.
    pub(super) fn late(changes: bool) -> Self {
        let (reason, outcome) = if changes {
            (Reason::OutcomeUnknown, Outcome::Unknown)
        } else {
            (Reason::DeadlineExceeded, Outcome::NotDone)
        };
        Self(Box::new(Inner {
            status: Status::deadline_exceeded("no answer came in time"),
            details: ErrorDetails::new(),
            reason: Some(reason),
            outcome,
            attempts: 1,
        }))
    }

    /// A stream that failed: what came before may be done, whatever ended it.
    pub(super) fn of_stream(status: Status) -> Self {
        let unreached = caused_by::<ConnectError>(&status);
        let mut failure = Self::of(status, true);
        if !unreached {
            failure.0.outcome = Outcome::Unknown;
        }
        failure
    }

    /// Whether the connection broke, or could not be made.
    pub(super) fn is_lost(&self) -> bool {
        self.0.reason.is_none() && self.0.status.source().is_some()
    }

    pub(super) fn after(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// The status code.
    pub fn code(&self) -> Code {
        self.0.status.code()
    }

    /// The text, which is for people and may change.
    pub fn message(&self) -> &str {
        self.0.status.message()
    }

    /// The reason, which is what to act on; `None` where no service of ours answered.
    pub fn reason(&self) -> Option<Reason> {
        self.0.reason
    }

    /// Whether what was asked for may have happened.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// How often the call was made.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// A figure or name that comes with the reason, such as `limit` with `QUOTA_EXCEEDED`;
    /// docs/errors.md tells which there are.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        let info = self.0.details.error_info()?;
        info.metadata.get(name).map(String::as_str)
    }

    /// When the service says a retry is worth it; `None` where time alone does not help, or
    /// nobody knows.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.details.retry_info()?.retry_delay
    }

    /// The fields that were wrong, each with what is allowed.
    pub fn violations(&self) -> impl Iterator<Item = (&str, &str)> {
        let request = self.0.details.bad_request();
        let violations = request.map_or(&[][..], |request| &request.field_violations);
        violations
            .iter()
            .map(|violation| (violation.field.as_str(), violation.description.as_str()))
    }

    /// The id under which the service's log has the call.
    pub fn request_id(&self) -> Option<&str> {
        let request = self.0.details.request_info()?;
        Some(request.request_id.as_str())
    }

    /// All details, decoded.
    pub fn details(&self) -> &ErrorDetails {
        &self.0.details
    }

    /// The status as it came.
    pub fn status(&self) -> &Status {
        &self.0.status
    }
}

/// Whether an error of this kind is beneath a status.
fn caused_by<E: Error + 'static>(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What broke a stream that was being read.
impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::of_stream(status)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message())?;
        match self.reason() {
            Some(reason) => write!(f, " ({reason})"),
            None => write!(f, " ({:?})", self.code()),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.status.source()
    }
}
