//! The Lua scripts as the server knows them: their text, and the name it gave
//! them. It does not know what they do.

use std::sync::OnceLock;

use bytes::Bytes;

/// A script; the server calls it by the digest of its text.
#[derive(Debug)]
pub(super) struct Script {
    text: Bytes,
    digest: OnceLock<Bytes>,
}

impl Script {
    fn new(flags: &str, body: &str) -> Self {
        // Without the first line a script would go on past maxmemory once it has
        // written, and could be started on a replica.
        let first = if flags.is_empty() {
            "#!lua".to_owned()
        } else {
            format!("#!lua flags={flags}")
        };
        Self {
            text: format!("{first}\n{body}").into(),
            digest: OnceLock::new(),
        }
    }

    /// Its text, for EVAL.
    pub(super) fn text(&self) -> Bytes {
        self.text.clone()
    }

    /// Its digest, for EVALSHA, once the server has told it.
    pub(super) fn digest(&self) -> Option<Bytes> {
        self.digest.get().cloned()
    }

    /// Keeps what SCRIPT LOAD answered.
    pub(super) fn loaded(&self, digest: Bytes) {
        let _ = self.digest.set(digest);
    }
}

const COMMIT: &str = concat!(
    include_str!("state.lua"),
    include_str!("keep.lua"),
    include_str!("commit.lua")
);

const GROUP: &str = concat!(
    include_str!("state.lua"),
    include_str!("keep.lua"),
    "local function apply(KEYS, ARGV)\n",
    include_str!("commit.lua"),
    "end\n",
    include_str!("group.lua")
);

/// All scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    /// A batch that may need memory; refused at maxmemory before it begins.
    pub(super) commit: Script,
    /// A batch that puts nothing, and so goes on at maxmemory.
    pub(super) release: Script,
    /// Several of the first kind, in one space.
    pub(super) commits: Script,
    /// Several of the second.
    pub(super) releases: Script,
    pub(super) list: Script,
    pub(super) records: Script,
    pub(super) reclaim: Script,
    pub(super) sweep: Script,
    /// Refused at maxmemory before it begins: what is not counted is sent again.
    pub(super) tally: Script,
    pub(super) rows: Script,
    pub(super) recall: Script,
    /// A window has its size; calls that only read need it at maxmemory too.
    pub(super) lease: Script,
    pub(super) meters: Script,
    pub(super) log: Script,
    /// Needs hardly more memory than what it replaces.
    pub(super) inherit: Script,
    pub(super) pin: Script,
    pub(super) renew: Script,
    pub(super) unpin: Script,
    pub(super) copies: Script,
    pub(super) pinned: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            commit: Script::new("", COMMIT),
            release: Script::new("allow-oom", COMMIT),
            commits: Script::new("", GROUP),
            releases: Script::new("allow-oom", GROUP),
            list: Script::new("no-writes", include_str!("list.lua")),
            records: Script::new("no-writes", include_str!("records.lua")),
            reclaim: Script::new(
                "allow-oom",
                concat!(
                    include_str!("state.lua"),
                    include_str!("keep.lua"),
                    include_str!("reclaim.lua")
                ),
            ),
            sweep: Script::new("allow-oom", include_str!("sweep.lua")),
            tally: Script::new("", include_str!("tally.lua")),
            rows: Script::new("no-writes", include_str!("rows.lua")),
            recall: Script::new("no-writes", include_str!("recall.lua")),
            lease: Script::new("allow-oom", include_str!("lease.lua")),
            meters: Script::new("no-writes", include_str!("meters.lua")),
            log: Script::new("allow-oom", include_str!("log.lua")),
            inherit: Script::new(
                "allow-oom",
                concat!(include_str!("state.lua"), include_str!("inherit.lua")),
            ),
            pin: Script::new(
                "",
                concat!(include_str!("state.lua"), include_str!("pin.lua")),
            ),
            renew: Script::new(
                "allow-oom",
                concat!(include_str!("point.lua"), include_str!("renew.lua")),
            ),
            unpin: Script::new(
                "allow-oom",
                concat!(include_str!("point.lua"), include_str!("unpin.lua")),
            ),
            copies: Script::new(
                "no-writes",
                concat!(include_str!("point.lua"), include_str!("copies.lua")),
            ),
            pinned: Script::new(
                "no-writes",
                concat!(include_str!("point.lua"), include_str!("pinned.lua")),
            ),
        }
    }

    pub(super) fn all(&self) -> [&Script; 20] {
        [
            &self.commit,
            &self.release,
            &self.commits,
            &self.releases,
            &self.list,
            &self.records,
            &self.reclaim,
            &self.sweep,
            &self.tally,
            &self.rows,
            &self.recall,
            &self.lease,
            &self.meters,
            &self.log,
            &self.inherit,
            &self.pin,
            &self.renew,
            &self.unpin,
            &self.copies,
            &self.pinned,
        ]
    }
}
