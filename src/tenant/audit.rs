//! What is told of calls that matter: who asked for what, and how it ended. An
//! event is a tracing event of the target `audit`; it does not know where those
//! go, and it never holds a secret or a user's key.

/// The target of the events, for filters.
pub const TARGET: &str = "audit";

/// A call that was answered or refused.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The public half of the credential; `admin` for the admin key, empty where
    /// there was none.
    pub actor: &'a str,
    /// The RPC, such as `CreateTenant`.
    pub rpc: &'a str,
    /// The tenant it was about; empty where that is not known.
    pub tenant_id: &'a str,
    /// `OK`, or the reason of the refusal.
    pub outcome: &'a str,
    /// The call's id.
    pub request_id: &'a str,
}

/// Tells it.
pub fn tell(event: &Event<'_>) {
    let Event {
        actor,
        rpc,
        tenant_id,
        outcome,
        request_id,
    } = *event;
    tracing::info!(target: TARGET, actor, rpc, tenant_id, outcome, request_id, "audited");
}

/// Tells that an entry of a tenant could not be opened, and why. It names neither
/// the entry nor who asked for it, since one event a minute stands for all.
pub fn tell_unopened(tenant_id: &str, why: &str) {
    let (actor, rpc, request_id, outcome) = ("", "", "", "ENTRY_CORRUPT");
    tracing::warn!(target: TARGET, actor, rpc, tenant_id, outcome, request_id, why, "entry not opened");
}
