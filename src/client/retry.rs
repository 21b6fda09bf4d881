//! Whether a failed call is made again, and after which wait. It holds no clock: it is
//! told how much time is left.
//!
//! A retry must be safe, and must be able to help:
//!
//! | the failure | is repeated |
//! |---|---|
//! | `RATE_LIMITED`, `QUOTA_EXCEEDED` with a RetryInfo | after exactly that time |
//! | `STORE_UNAVAILABLE`, `OVERLOADED`, `DRAINING` | after RetryInfo or the backoff, whichever is longer, and up to half as much more |
//! | `REQUEST_IN_PROGRESS`, `RESTORE_IN_PROGRESS` | the same |
//! | nobody could be reached | the same |
//! | the answer was lost, `OUTCOME_UNKNOWN`, UNAVAILABLE of a proxy | the same, where the call may be repeated |
//! | all else | never |
//!
//! No wait goes past the deadline: the failure is told at once instead.

use std::{sync::Arc, time::Duration};

use tonic::Code;

use super::{Failure, Outcome, Reason};

/// The wait after the first failure, where the service names none. It doubles with each.
const FIRST: Duration = Duration::from_millis(50);

/// The longest wait that the service did not name.
const LONGEST: Duration = Duration::from_secs(5);

/// Is told of retries.
pub(super) type Observer = Arc<dyn Fn(&Retry<'_>) + Send + Sync>;

/// A retry that is waited for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Retry<'a> {
    /// The RPC, such as `/riptide.persistence.v1.CacheService/Get`.
    pub path: &'static str,
    /// How often it was made.
    pub attempt: u32,
    /// How long is waited before it is made again.
    pub wait: Duration,
    /// Why.
    pub failure: &'a Failure,
}

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) attempts: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { attempts: 8 }
    }
}

impl Policy {
    /// The wait before the call is made again; `None` where it is not. `left` is the time to
    /// the deadline, `chance` a number from 0 to 1 that differs each time.
    pub(super) fn wait(
        self,
        failure: &Failure,
        repeatable: bool,
        attempt: u32,
        left: Duration,
        chance: f64,
    ) -> Option<Duration> {
        if attempt >= self.attempts || !(repeatable || failure.outcome() == Outcome::NotDone) {
            return None;
        }
        let backoff = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        let told = failure.retry_after().unwrap_or_default();
        // Never sooner than told, and not all at the same moment.
        let spread = || {
            let least = told.max(backoff.min(LONGEST));
            least.mul_f64(1.0 + chance.clamp(0.0, 1.0) / 2.0)
        };
        let wait = match failure.reason() {
            // The moment a permit is free; who comes later only waits longer.
            Some(Reason::RateLimited | Reason::QuotaExceeded) => failure.retry_after()?,
            Some(
                Reason::StoreUnavailable
                | Reason::Overloaded
                | Reason::Draining
                | Reason::RequestInProgress
                | Reason::RestoreInProgress
                | Reason::OutcomeUnknown,
            ) => spread(),
            None if failure.is_lost() || failure.code() == Code::Unavailable => spread(),
            _ => return None,
        };
        (wait < left).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic::Status;
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;
    use crate::grpc::status::DOMAIN;

    const MINUTE: Duration = Duration::from_secs(60);

    fn failure(code: Code, reason: &str, after: Option<Duration>) -> Failure {
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
        if after.is_some() {
            details.set_retry_info(after);
        }
        Failure::of(Status::with_error_details(code, "no", details), true)
    }

    fn lost(code: Code) -> Failure {
        let cause = std::io::Error::other("the connection broke");
        let mut status = Status::new(code, "lost");
        status.set_source(Arc::new(cause));
        Failure::of(status, true)
    }

    fn wait(failure: &Failure, repeatable: bool, attempt: u32, chance: f64) -> Option<Duration> {
        Policy { attempts: 5 }.wait(failure, repeatable, attempt, MINUTE, chance)
    }

    #[test]
    fn a_rate_is_waited_for_exactly_and_never_past_the_deadline() {
        let after = Duration::from_millis(12_345);
        let limited = failure(Code::ResourceExhausted, "RATE_LIMITED", Some(after));
        for (attempt, chance) in [(1, 0.0), (1, 1.0), (4, 0.5)] {
            assert_eq!(wait(&limited, false, attempt, chance), Some(after));
        }
        let policy = Policy::default();
        assert_eq!(policy.wait(&limited, true, 1, after, 0.0), None);
        let left = after + Duration::from_nanos(1);
        assert_eq!(policy.wait(&limited, true, 1, left, 0.0), Some(after));
        let full = failure(Code::ResourceExhausted, "QUOTA_EXCEEDED", None);
        assert_eq!(wait(&full, true, 1, 0.0), None, "time alone does not help");
    }

    #[test]
    fn what_is_away_is_asked_again_later_and_later_but_never_sooner_than_told() {
        let told = Duration::from_millis(120);
        for (code, reason) in [
            (Code::Unavailable, "STORE_UNAVAILABLE"),
            (Code::Unavailable, "OVERLOADED"),
            (Code::Unavailable, "DRAINING"),
            (Code::Aborted, "REQUEST_IN_PROGRESS"),
            (Code::Aborted, "RESTORE_IN_PROGRESS"),
        ] {
            let away = failure(code, reason, Some(told));
            // Refused before anything was done: whatever the call is, it is safe.
            for repeatable in [false, true] {
                let waits: Vec<u128> = (1..=4)
                    .map(|attempt| wait(&away, repeatable, attempt, 0.0))
                    .map(|wait| wait.map_or(0, |wait| wait.as_millis()))
                    .collect();
                assert_eq!(waits, [120, 120, 200, 400], "{reason}");
                let latest = wait(&away, repeatable, 1, 1.0);
                assert_eq!(latest, Some(Duration::from_millis(180)));
            }
            assert_eq!(wait(&away, true, 5, 0.0), None, "five attempts are five");
        }
        let away = failure(Code::Unavailable, "DRAINING", None);
        let policy = Policy { attempts: 100 };
        assert_eq!(policy.wait(&away, true, 99, MINUTE, 0.0), Some(LONGEST));
    }

    #[test]
    fn what_may_have_happened_is_repeated_only_where_that_is_safe() {
        let unknown = failure(Code::DeadlineExceeded, "OUTCOME_UNKNOWN", None);
        let proxied = Failure::of(Status::unavailable("no upstream"), true);
        for doubtful in [unknown, lost(Code::Unknown), lost(Code::Internal), proxied] {
            assert_eq!(doubtful.outcome(), Outcome::Unknown, "{doubtful}");
            assert_eq!(wait(&doubtful, false, 1, 0.0), None, "{doubtful}");
            assert_eq!(wait(&doubtful, true, 1, 0.0), Some(FIRST), "{doubtful}");
        }
        let mut refused = Status::unavailable("refused");
        let cause = tonic::ConnectError(std::io::Error::other("connection refused").into());
        refused.set_source(Arc::new(cause));
        let unreached = Failure::of(refused, true);
        assert_eq!(unreached.outcome(), Outcome::NotDone);
        assert_eq!(wait(&unreached, false, 1, 0.0), Some(FIRST));
    }

    #[test]
    fn nothing_else_is_repeated() {
        let retried = [
            Reason::RateLimited,
            Reason::QuotaExceeded,
            Reason::StoreUnavailable,
            Reason::Overloaded,
            Reason::Draining,
            Reason::RequestInProgress,
            Reason::RestoreInProgress,
            Reason::OutcomeUnknown,
        ];
        let others = Reason::ALL.iter().chain([&Reason::Other]);
        for reason in others.filter(|reason| !retried.contains(reason)) {
            let failure = failure(Code::Internal, reason.as_str(), Some(FIRST));
            assert_eq!(wait(&failure, true, 1, 0.0), None, "{reason}");
        }
        assert_eq!(wait(&Failure::late(false), true, 1, 0.0), None);
        let plain = Failure::of(Status::not_found("no"), true);
        assert_eq!(wait(&plain, true, 1, 0.0), None);
    }
}
