//! Why a call failed, as the service names it; docs/errors.md explains each. It does not
//! know what to do about one.

use std::fmt;

macro_rules! reasons {
    ($($variant:ident = $text:literal,)*) => {
        /// The reason in the `google.rpc.ErrorInfo` of a failed call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
            /// One that a later release of the service knows.
            Other,
        }

        impl Reason {
            /// Every reason that this release knows.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it stands in the error; `OTHER` for [`Reason::Other`].
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other => "OTHER",
                }
            }

            pub(super) fn of(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

reasons! {
    ValidationFailed = "VALIDATION_FAILED",
    InvalidPageToken = "INVALID_PAGE_TOKEN",
    InvalidFieldMask = "INVALID_FIELD_MASK",
    EntryTooLarge = "ENTRY_TOO_LARGE",
    BatchTooLarge = "BATCH_TOO_LARGE",
    Unimplemented = "UNIMPLEMENTED",
    ApiKeyMissing = "API_KEY_MISSING",
    ApiKeyInvalid = "API_KEY_INVALID",
    ScopeMissing = "SCOPE_MISSING",
    TenantMismatch = "TENANT_MISMATCH",
    TenantNotFound = "TENANT_NOT_FOUND",
    ApiKeyNotFound = "API_KEY_NOT_FOUND",
    CheckpointNotFound = "CHECKPOINT_NOT_FOUND",
    CheckpointIncompatible = "CHECKPOINT_INCOMPATIBLE",
    SessionNotFound = "SESSION_NOT_FOUND",
    TenantExists = "TENANT_EXISTS",
    TenantSuspended = "TENANT_SUSPENDED",
    TenantDeleted = "TENANT_DELETED",
    DeleteProtected = "DELETE_PROTECTED",
    ConditionNotMet = "CONDITION_NOT_MET",
    ConfigRejected = "CONFIG_REJECTED",
    RequestIdReused = "REQUEST_ID_REUSED",
    EtagMismatch = "ETAG_MISMATCH",
    QuotaExceeded = "QUOTA_EXCEEDED",
    RateLimited = "RATE_LIMITED",
    MaxTenants = "MAX_TENANTS",
    StoreFull = "STORE_FULL",
    RequestInProgress = "REQUEST_IN_PROGRESS",
    StoreUnavailable = "STORE_UNAVAILABLE",
    RestoreInProgress = "RESTORE_IN_PROGRESS",
    Overloaded = "OVERLOADED",
    Draining = "DRAINING",
    DeadlineExceeded = "DEADLINE_EXCEEDED",
    OutcomeUnknown = "OUTCOME_UNKNOWN",
    EntryCorrupt = "ENTRY_CORRUPT",
    CheckpointCorrupt = "CHECKPOINT_CORRUPT",
    Internal = "INTERNAL",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
