//! How many sessions were created and terminated at this replica, for whoever asks. It
//! does not know of those that end by themselves: they expire in the store, in silence.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is counted of sessions since the process began.
#[derive(Debug, Default)]
pub struct Tally {
    created: AtomicU64,
    /// One by one.
    ended: AtomicU64,
    /// With all others of their user.
    ended_with_user: AtomicU64,
}

impl Tally {
    pub(super) fn created(&self) {
        self.created.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Relaxed);
    }

    pub(super) fn ended_with_user(&self, sessions: u64) {
        self.ended_with_user.fetch_add(sessions, Relaxed);
    }

    /// Sessions created; a request that is repeated creates none.
    pub fn creations(&self) -> u64 {
        self.created.load(Relaxed)
    }

    /// Sessions terminated, by what a caller named: the session, or its user.
    pub fn terminations(&self) -> [(&'static str, u64); 2] {
        [
            ("session", self.ended.load(Relaxed)),
            ("user", self.ended_with_user.load(Relaxed)),
        ]
    }
}
