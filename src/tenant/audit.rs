//! What is told of calls that matter: who asked for what, and how it ended. Each is
//! told at once, as a tracing event of the target `audit`, and kept in the store in a
//! chain that shows what was changed, removed or moved in it. It does not know which
//! calls matter, and an event never holds a secret or a user's key.

mod chain;
mod entry;
mod fold;
mod keeping;
mod listing;
mod log;

use std::net::IpAddr;

use super::Directory;
use crate::config;

pub use entry::{DAMAGED, Entry, Facts, Head, LOST};
pub use listing::{Listed, Span};
pub use log::{Counts, Kept, Log, Manner};

/// The target of the events, for filters.
pub const TARGET: &str = "audit";

/// The outcome of a call that came to what it asked for.
pub const OK: &str = "OK";

/// The outcome of a call whose answer is a stream, when that begins; how it ends is told
/// as well.
pub const STARTED: &str = "STARTED";

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
    /// [`OK`], or the reason of the refusal.
    pub outcome: &'a str,
    /// The call's id.
    pub request_id: &'a str,
    /// Where the call came from, as the connection says.
    pub peer: Option<IpAddr>,
}

/// Tells it.
pub fn tell(event: &Event<'_>) {
    let Event {
        actor,
        rpc,
        tenant_id,
        outcome,
        request_id,
        peer: _,
    } = *event;
    tracing::info!(target: TARGET, actor, rpc, tenant_id, outcome, request_id, "audited");
}

/// Tells that an entry of a tenant could not be opened, and why. It names neither
/// the entry nor who asked for it, since one event a minute stands for all.
pub fn tell_unopened(log: &Log, tenant_id: &str, why: &str) {
    let (actor, rpc, request_id, outcome) = ("", "", "", "ENTRY_CORRUPT");
    tracing::warn!(target: TARGET, actor, rpc, tenant_id, outcome, request_id, why, "entry not opened");
    let event = Event {
        actor,
        rpc,
        tenant_id,
        outcome,
        request_id,
        peer: None,
    };
    log.append(&event, Manner::Each);
}

impl Directory {
    /// The same directory, of a replica whose audit log is set up so; otherwise no event
    /// is kept.
    #[must_use]
    pub fn auditing(mut self, settings: config::Live<config::Audit>) -> Self {
        let replica = String::from_utf8_lossy(self.accounts.replica());
        self.accounts.audit = Log::new(&replica, settings);
        self
    }

    /// The audit log of this replica.
    pub fn audit(&self) -> &Log {
        &self.accounts.audit
    }
}
