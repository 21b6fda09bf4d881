//! Which calls the audit log is told of, and which of them are answered only when the
//! store has the event. It does not know how events are kept.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use super::{Idempotency, Method};
use crate::tenant::{
    Caller,
    audit::{Kept, Manner},
};

/// How long an answer waits for its event to be kept, if the call's deadline leaves so
/// much; the event is kept later then.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether each call of this RPC by this caller is told, however it ends.
pub(super) fn concerns(method: &Method, caller: &Caller) -> bool {
    method.audited || caller.is_admin() && method.idempotency != Idempotency::NoSideEffects
}

/// Whether this is how a call ends whose caller may not.
pub(super) fn denies(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied)
}

/// Whether a call that was not refused is answered only when its event is kept.
pub(super) fn awaited(method: &Method, caller: Option<&Caller>) -> bool {
    method.audited && caller.is_some_and(Caller::is_admin)
}

/// How the end of a call is told; `None` where it is not.
pub(super) fn manner(method: &Method, caller: Option<&Caller>, code: Code) -> Option<Manner> {
    if denies(code) {
        return Some(Manner::Denied);
    }
    let caller = caller.filter(|caller| concerns(method, caller));
    match caller {
        _ if awaited(method, caller) => Some(Manner::Each),
        // A tenant's own calls, and an admin's on data: they may be as many as any.
        Some(_) => Some(Manner::Routine),
        // One that ended before anybody knew whose it is.
        None if method.audited => Some(Manner::Routine),
        None => None,
    }
}

/// Waits until the event of a call is kept, but not beyond the call's deadline.
pub(super) async fn wait(kept: Kept, request_id: &str, deadline: Option<&Instant>) {
    let patience = Instant::now() + PATIENCE;
    let until = deadline.map_or(patience, |deadline| patience.min(*deadline));
    if !kept.until(until).await {
        tracing::warn!(request_id, "answered before its audit event was kept");
    }
}
