//! The only way an error becomes a status: its code, its reason, and the
//! details the contract names. It does not know which RPC failed.

mod detail;
mod partial;

use std::{collections::HashMap, time::Duration};

use prost::Message;
use prost_types::Any;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::pb;

pub(super) use partial::partial;

use self::detail::{any, bad_request, cut};
use super::Context;
use crate::error::{Error, Kind, Violation};

/// The domain of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "persistence.riptide";

/// The trailer that tells a client when to retry, in milliseconds; -1 means not
/// at all.
pub const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The details of a status, its message included, stay within so many bytes:
/// clients refuse trailers of more than 8 KiB, and base64 adds a third.
const DETAILS_BYTES: usize = 4096;

/// A message is cut to so many bytes; percent-encoding may treble it.
const MESSAGE_BYTES: usize = 512;

/// A text inside a detail is cut to so many bytes.
const TEXT_BYTES: usize = 256;

/// When a retry is worth it after the server shed a call, or others wrote the
/// same resource.
const SOON: Duration = Duration::from_millis(100);

/// When a retry is worth it after the store was lost; it is asked about as often.
const LATER: Duration = Duration::from_millis(500);

/// The status of a failed call.
///
/// The cause of an internal error is logged here, once.
pub fn status(error: &Error, context: &Context) -> Status {
    of(error, &context.request_id)
}

/// The status of a call that failed before anyone knew who calls.
///
/// The cause of an internal error is logged here, once.
pub(super) fn of(error: &Error, request_id: &str) -> Status {
    sent(error, rpc(error, request_id))
}

fn sent(error: &Error, rpc: pb::Status) -> Status {
    let details = rpc.encode_to_vec();
    let mut metadata = MetadataMap::new();
    if let Some(ms) = pushback_ms(error) {
        metadata.insert(PUSHBACK, MetadataValue::from(ms));
    }
    Status::with_details_and_metadata(
        Code::from_i32(rpc.code),
        rpc.message,
        details.into(),
        metadata,
    )
}

/// The status of one item of a batch.
///
/// The cause of an internal error is logged here, once.
pub fn rpc_status(error: &Error, context: &Context) -> pb::Status {
    rpc(error, &context.request_id)
}

fn rpc(error: &Error, request_id: &str) -> pb::Status {
    if let Error::Internal(cause) = error {
        tracing::error!(request_id, cause, "internal error");
    }
    let shape = Shape::of(error);
    let mut details = vec![any(
        "ErrorInfo",
        &pb::ErrorInfo {
            reason: shape.reason.to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: shape.metadata,
        },
    )];
    details.extend(shape.details);
    let request = pb::RequestInfo {
        request_id: request_id.to_owned(),
        serving_data: String::new(),
    };
    details.push(any("RequestInfo", &request));
    let status = pb::Status {
        code: shape.code as i32,
        message: cut(&error.to_string(), MESSAGE_BYTES),
        details,
    };
    debug_assert!(status.encoded_len() <= DETAILS_BYTES, "{status:?}");
    status
}

/// What becomes of an error on the wire.
struct Shape {
    code: Code,
    reason: &'static str,
    metadata: HashMap<String, String>,
    details: Vec<Any>,
}

impl Shape {
    fn new(code: Code, reason: &'static str) -> Self {
        Self {
            code,
            reason,
            metadata: HashMap::new(),
            details: Vec::new(),
        }
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.metadata
            .insert(name.to_owned(), cut(&value.to_string(), TEXT_BYTES));
        self
    }

    fn violations(mut self, violations: &[Violation]) -> Self {
        self.details
            .push(any("BadRequest", &bad_request(violations)));
        self
    }

    fn violation(self, field: &str, error: &Error) -> Self {
        // The error's own text begins with the field.
        let text = error.to_string();
        let description = text
            .strip_prefix(field)
            .and_then(|text| text.strip_prefix(": "))
            .unwrap_or(&text);
        self.violations(&[Violation::new(field, description)])
    }

    fn resource(mut self, kind: Kind, name: &str, error: &Error) -> Self {
        let resource_type = match kind {
            Kind::Tenant => "riptide.persistence.v1.Tenant",
            Kind::ApiKey => "riptide.persistence.v1.ApiKey",
            Kind::Checkpoint => "riptide.persistence.v1.Checkpoint",
            Kind::Session => "riptide.persistence.v1.Session",
        };
        let resource = pb::ResourceInfo {
            resource_type: resource_type.to_owned(),
            resource_name: cut(name, TEXT_BYTES),
            owner: String::new(),
            description: cut(&error.to_string(), TEXT_BYTES),
        };
        self.details.push(any("ResourceInfo", &resource));
        self
    }

    fn precondition(mut self, subject: &str, error: &Error) -> Self {
        let failure = pb::PreconditionFailure {
            violations: vec![pb::precondition_failure::Violation {
                r#type: self.reason.to_owned(),
                subject: cut(subject, TEXT_BYTES),
                description: cut(&error.to_string(), TEXT_BYTES),
            }],
        };
        self.details.push(any("PreconditionFailure", &failure));
        self
    }

    fn quota(
        mut self,
        scope: &str,
        metric: &str,
        (limit, used): (i64, i64),
        error: &Error,
    ) -> Self {
        let dimension = |name: &str, value: String| (name.to_owned(), cut(&value, TEXT_BYTES));
        let violation = pb::quota_failure::Violation {
            subject: cut(scope, TEXT_BYTES),
            description: cut(&error.to_string(), TEXT_BYTES),
            quota_metric: cut(metric, TEXT_BYTES),
            quota_value: limit,
            quota_dimensions: HashMap::from([
                dimension("used", used.to_string()),
                dimension("scope", scope.to_owned()),
            ]),
            ..Default::default()
        };
        let failure = pb::QuotaFailure {
            violations: vec![violation],
        };
        self.details.push(any("QuotaFailure", &failure));
        self.with("metric", metric)
            .with("limit", limit)
            .with("used", used)
            .with("scope", scope)
    }

    fn retry(mut self, after: Option<Duration>) -> Self {
        if let Some(after) = after {
            let retry = pb::RetryInfo {
                retry_delay: prost_types::Duration::try_from(after).ok(),
            };
            self.details.push(any("RetryInfo", &retry));
        }
        self
    }

    fn of(error: &Error) -> Self {
        match error {
            Error::Invalid(violations) => {
                Self::new(Code::InvalidArgument, "VALIDATION_FAILED").violations(violations)
            }
            Error::InvalidPageToken => Self::new(Code::InvalidArgument, "INVALID_PAGE_TOKEN")
                .violation("page_token", error),
            Error::InvalidResumeToken => Self::new(Code::InvalidArgument, "INVALID_PAGE_TOKEN")
                .violation("resume_token", error),
            Error::InvalidFieldMask(violations) => {
                Self::new(Code::InvalidArgument, "INVALID_FIELD_MASK").violations(violations)
            }
            Error::EntryTooLarge { bytes, limit } => {
                Self::new(Code::InvalidArgument, "ENTRY_TOO_LARGE")
                    .violation("value", error)
                    .with("bytes", bytes)
                    .with("limit", limit)
            }
            Error::BatchTooLarge {
                field,
                items,
                limit,
            } => Self::new(Code::InvalidArgument, "BATCH_TOO_LARGE")
                .violation(field, error)
                .with("items", items)
                .with("limit", limit),
            Error::AnswerTooLarge { limit } => Self::new(Code::InvalidArgument, "BATCH_TOO_LARGE")
                .violation("keys", error)
                .with("limit", limit),
            Error::MessageTooLarge { limit } => Self::new(Code::InvalidArgument, "ENTRY_TOO_LARGE")
                .violation("", error)
                .with("limit", limit),
            Error::KeyMissing => Self::new(Code::Unauthenticated, "API_KEY_MISSING"),
            Error::KeyInvalid => Self::new(Code::Unauthenticated, "API_KEY_INVALID"),
            Error::ScopeMissing { scope } => {
                Self::new(Code::PermissionDenied, "SCOPE_MISSING").with("scope", scope)
            }
            Error::TenantMismatch => Self::new(Code::PermissionDenied, "TENANT_MISMATCH"),
            Error::NotFound { kind, name } => {
                let reason = match kind {
                    Kind::Tenant => "TENANT_NOT_FOUND",
                    Kind::ApiKey => "API_KEY_NOT_FOUND",
                    Kind::Checkpoint => "CHECKPOINT_NOT_FOUND",
                    Kind::Session => "SESSION_NOT_FOUND",
                };
                Self::new(Code::NotFound, reason).resource(*kind, name, error)
            }
            Error::TenantExists(name) => {
                Self::new(Code::AlreadyExists, "TENANT_EXISTS").resource(Kind::Tenant, name, error)
            }
            Error::TenantSuspended {
                tenant_id,
                read_only,
            } => {
                let mode = if *read_only { "READ_ONLY" } else { "BLOCKED" };
                Self::new(Code::FailedPrecondition, "TENANT_SUSPENDED")
                    .precondition(tenant_id, error)
                    .with("mode", mode)
            }
            Error::TenantDeleted(tenant_id) => {
                Self::new(Code::FailedPrecondition, "TENANT_DELETED").precondition(tenant_id, error)
            }
            Error::DeleteProtected(tenant_id) => {
                Self::new(Code::FailedPrecondition, "DELETE_PROTECTED")
                    .precondition(tenant_id, error)
            }
            Error::RequestIdReused => Self::new(Code::FailedPrecondition, "REQUEST_ID_REUSED")
                .precondition("request_id", error),
            Error::ConfigRejected { expected, version } => {
                Self::new(Code::FailedPrecondition, "CONFIG_REJECTED")
                    .precondition("expected_version", error)
                    .with("expected", expected)
                    .with("version", version)
            }
            Error::ConditionNotMet { subject, .. } => {
                Self::new(Code::FailedPrecondition, "CONDITION_NOT_MET")
                    .precondition(subject, error)
            }
            // The same call again fails again: it must be read first.
            Error::EtagMismatch => Self::new(Code::Aborted, "ETAG_MISMATCH"),
            Error::RequestInProgress => {
                Self::new(Code::Aborted, "REQUEST_IN_PROGRESS").retry(Some(SOON))
            }
            Error::RestoreInProgress => {
                Self::new(Code::Aborted, "RESTORE_IN_PROGRESS").retry(Some(SOON))
            }
            Error::QuotaExceeded {
                metric,
                limit,
                used,
                scope,
                retry_after,
            } => Self::new(Code::ResourceExhausted, "QUOTA_EXCEEDED")
                .quota(scope, metric, (*limit, *used), error)
                .retry(*retry_after),
            Error::RateLimited {
                metric,
                limit,
                used,
                scope,
                retry_after,
            } => Self::new(Code::ResourceExhausted, "RATE_LIMITED")
                .quota(scope, metric, (*limit, *used), error)
                .retry(*retry_after),
            Error::MaxTenants { limit, used } => {
                let int64 = |figure| i64::try_from(figure).unwrap_or(i64::MAX);
                Self::new(Code::ResourceExhausted, "MAX_TENANTS").quota(
                    "service",
                    "tenants",
                    (int64(*limit), int64(*used)),
                    error,
                )
            }
            Error::StoreFull | Error::ObjectsFull(_) => {
                Self::new(Code::ResourceExhausted, "STORE_FULL")
            }
            Error::StoreUnavailable | Error::ObjectsUnavailable(_) => {
                Self::new(Code::Unavailable, "STORE_UNAVAILABLE").retry(Some(LATER))
            }
            Error::Overloaded => Self::new(Code::Unavailable, "OVERLOADED").retry(Some(SOON)),
            Error::Draining => Self::new(Code::Unavailable, "DRAINING").retry(Some(SOON)),
            Error::DeadlineExceeded => Self::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Error::OutcomeUnknown => Self::new(Code::DeadlineExceeded, "OUTCOME_UNKNOWN"),
            Error::EntryCorrupt(_) => Self::new(Code::DataLoss, "ENTRY_CORRUPT"),
            Error::CheckpointCorrupt {
                checkpoint_id,
                part,
                ..
            } => Self::new(Code::DataLoss, "CHECKPOINT_CORRUPT")
                .with("checkpoint_id", checkpoint_id)
                .with("part", part),
            Error::CheckpointIncompatible { checkpoint_id, .. } => {
                Self::new(Code::FailedPrecondition, "CHECKPOINT_INCOMPATIBLE")
                    .precondition(checkpoint_id, error)
            }
            Error::Unimplemented(_) => Self::new(Code::Unimplemented, "UNIMPLEMENTED"),
            Error::Internal(_) => Self::new(Code::Internal, "INTERNAL"),
        }
    }
}

/// What the client's retry policy is told about a refusal for want of room.
fn pushback_ms(error: &Error) -> Option<i64> {
    match error {
        Error::RateLimited { retry_after, .. } | Error::QuotaExceeded { retry_after, .. } => {
            Some(retry_after.map_or(-1, |after| {
                i64::try_from(after.as_millis()).unwrap_or(i64::MAX).max(1)
            }))
        }
        Error::MaxTenants { .. } | Error::StoreFull | Error::ObjectsFull(_) => Some(-1),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;
    use crate::tenant::Caller;

    fn context() -> Context {
        Context {
            caller: Caller::Admin,
            request_id: "r-1".into(),
            began: std::time::Instant::now(),
            subject: None,
            notes: std::sync::OnceLock::new(),
        }
    }

    #[test]
    fn every_error_has_its_code_and_reason() {
        let quota = |retry_after| Error::QuotaExceeded {
            metric: "memory_bytes".into(),
            limit: 10,
            used: 9,
            scope: "tenant:acme".into(),
            retry_after,
        };
        let suspended = Error::TenantSuspended {
            tenant_id: "acme".into(),
            read_only: true,
        };
        let condition = Error::ConditionNotMet {
            subject: "if_version".into(),
            description: "found 3".into(),
        };
        use Code::*;
        for (error, code, reason) in [
            (
                Error::invalid("key", "empty"),
                InvalidArgument,
                "VALIDATION_FAILED",
            ),
            (
                Error::InvalidPageToken,
                InvalidArgument,
                "INVALID_PAGE_TOKEN",
            ),
            (
                Error::InvalidFieldMask(vec![]),
                InvalidArgument,
                "INVALID_FIELD_MASK",
            ),
            (
                Error::EntryTooLarge { bytes: 2, limit: 1 },
                InvalidArgument,
                "ENTRY_TOO_LARGE",
            ),
            (
                Error::BatchTooLarge {
                    field: "keys",
                    items: 2,
                    limit: 1,
                },
                InvalidArgument,
                "BATCH_TOO_LARGE",
            ),
            (
                Error::AnswerTooLarge { limit: 1 },
                InvalidArgument,
                "BATCH_TOO_LARGE",
            ),
            (
                Error::MessageTooLarge { limit: 1 },
                InvalidArgument,
                "ENTRY_TOO_LARGE",
            ),
            (Error::KeyMissing, Unauthenticated, "API_KEY_MISSING"),
            (Error::KeyInvalid, Unauthenticated, "API_KEY_INVALID"),
            (
                Error::ScopeMissing {
                    scope: "admin".into(),
                },
                PermissionDenied,
                "SCOPE_MISSING",
            ),
            (Error::TenantMismatch, PermissionDenied, "TENANT_MISMATCH"),
            (Error::no_tenant("acme"), NotFound, "TENANT_NOT_FOUND"),
            (Error::no_api_key("k"), NotFound, "API_KEY_NOT_FOUND"),
            (
                Error::TenantExists("acme".into()),
                AlreadyExists,
                "TENANT_EXISTS",
            ),
            (suspended, FailedPrecondition, "TENANT_SUSPENDED"),
            (
                Error::TenantDeleted("acme".into()),
                FailedPrecondition,
                "TENANT_DELETED",
            ),
            (
                Error::DeleteProtected("acme".into()),
                FailedPrecondition,
                "DELETE_PROTECTED",
            ),
            (
                Error::RequestIdReused,
                FailedPrecondition,
                "REQUEST_ID_REUSED",
            ),
            (condition, FailedPrecondition, "CONDITION_NOT_MET"),
            (
                Error::ConfigRejected {
                    expected: 1,
                    version: 2,
                },
                FailedPrecondition,
                "CONFIG_REJECTED",
            ),
            (Error::EtagMismatch, Aborted, "ETAG_MISMATCH"),
            (Error::RequestInProgress, Aborted, "REQUEST_IN_PROGRESS"),
            (Error::RestoreInProgress, Aborted, "RESTORE_IN_PROGRESS"),
            (quota(None), ResourceExhausted, "QUOTA_EXCEEDED"),
            (
                Error::MaxTenants { limit: 1, used: 1 },
                ResourceExhausted,
                "MAX_TENANTS",
            ),
            (Error::StoreFull, ResourceExhausted, "STORE_FULL"),
            (
                Error::ObjectsFull("disk".into()),
                ResourceExhausted,
                "STORE_FULL",
            ),
            (
                Error::ObjectsUnavailable("gone".into()),
                Unavailable,
                "STORE_UNAVAILABLE",
            ),
            (
                Error::no_checkpoint("20261125t213059-4b0c9dqv"),
                NotFound,
                "CHECKPOINT_NOT_FOUND",
            ),
            (
                Error::CheckpointCorrupt {
                    checkpoint_id: "20261125t213059-4b0c9dqv".into(),
                    part: "chunk-000003".into(),
                    problem: "it is missing".into(),
                },
                DataLoss,
                "CHECKPOINT_CORRUPT",
            ),
            (
                Error::CheckpointIncompatible {
                    checkpoint_id: "20261125t213059-4b0c9dqv".into(),
                    problem: "format 2".into(),
                },
                FailedPrecondition,
                "CHECKPOINT_INCOMPATIBLE",
            ),
            (Error::StoreUnavailable, Unavailable, "STORE_UNAVAILABLE"),
            (Error::Overloaded, Unavailable, "OVERLOADED"),
            (Error::Draining, Unavailable, "DRAINING"),
            (
                Error::DeadlineExceeded,
                DeadlineExceeded,
                "DEADLINE_EXCEEDED",
            ),
            (Error::OutcomeUnknown, DeadlineExceeded, "OUTCOME_UNKNOWN"),
            (
                Error::EntryCorrupt("checksum".into()),
                DataLoss,
                "ENTRY_CORRUPT",
            ),
            (
                Error::Unimplemented("no".into()),
                Unimplemented,
                "UNIMPLEMENTED",
            ),
            (Error::Internal("secret cause".into()), Internal, "INTERNAL"),
        ] {
            let status = status(&error, &context());
            assert_eq!(status.code(), code, "{error:?}");
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!(
                (info.reason.as_str(), info.domain.as_str()),
                (reason, DOMAIN)
            );
            assert_eq!(details.request_info().unwrap().request_id, "r-1");
            assert_eq!(
                details.bad_request().is_some(),
                code == InvalidArgument,
                "{error:?}"
            );
            assert_eq!(
                details.resource_info().is_some(),
                matches!(code, NotFound | AlreadyExists),
            );
            assert_eq!(
                details.precondition_failure().is_some(),
                code == FailedPrecondition
            );
            assert_eq!(
                details.retry_info().is_some(),
                code == Unavailable
                    || ["REQUEST_IN_PROGRESS", "RESTORE_IN_PROGRESS"].contains(&reason)
            );
            assert!(!format!("{status:?}").contains("secret cause"));
        }
    }

    #[test]
    fn a_quota_tells_its_figures_and_when_to_retry() {
        for (retry_after, pushback) in [(None, "-1"), (Some(Duration::from_millis(1500)), "1500")] {
            let error = Error::QuotaExceeded {
                metric: "operations_per_minute".into(),
                limit: 10,
                used: 9,
                scope: "tenant:acme".into(),
                retry_after,
            };
            let status = status(&error, &context());
            assert_eq!(status.metadata().get(PUSHBACK).unwrap(), pushback);
            let details = status.get_error_details();
            assert_eq!(
                details.retry_info().and_then(|retry| retry.retry_delay),
                retry_after
            );
            let metadata = &details.error_info().unwrap().metadata;
            assert_eq!(
                (metadata["limit"].as_str(), metadata["used"].as_str()),
                ("10", "9")
            );
            let violation = &details.quota_failure().unwrap().violations[0];
            assert_eq!(
                (violation.subject.as_str(), violation.quota_metric.as_str()),
                ("tenant:acme", "operations_per_minute")
            );
            assert_eq!(violation.quota_value, 10);
            let dimensions = [("used", "9"), ("scope", "tenant:acme")];
            let dimensions = dimensions.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(violation.quota_dimensions, dimensions.into());
        }
    }

    #[test]
    fn details_stay_small_and_say_what_was_cut() {
        let long = "ü".repeat(5000);
        let violations: Vec<_> = (0..1000)
            .map(|item| Violation::new(format!("entries[{item}].key"), long.clone()))
            .collect();
        for error in [
            Error::Invalid(violations),
            Error::no_tenant(long.clone()),
            Error::TenantDeleted(long.clone()),
            Error::ConditionNotMet {
                subject: long.clone(),
                description: long.clone(),
            },
        ] {
            let status = status(&error, &context());
            assert!(
                status.details().len() <= DETAILS_BYTES,
                "{}",
                status.details().len()
            );
            assert!(status.message().len() <= MESSAGE_BYTES);
        }
        let few = bad_request(&vec![Violation::new("key", "empty"); 3]);
        assert_eq!(few.field_violations.len(), 3);
        let many = bad_request(&vec![Violation::new("key", "empty"); 1000]);
        let listed = many.field_violations.len() - 1;
        assert_eq!(
            many.field_violations[listed].description,
            format!("and {} more", 1000 - listed)
        );
    }
}
