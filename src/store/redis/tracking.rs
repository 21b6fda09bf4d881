//! Telling of changes to what was read with
//! [`Store::read_watched`](crate::store::Store::read_watched): tracked connections,
//! one to each primary, and which of them reads a slot. It does not know what is
//! kept of what was read.
//!
//! # Why the promise holds
//!
//! A [`Vouch`] says: every change of these records that was acknowledged
//! [`STALENESS`] ago has been told. What that rests on, from the ground up:
//!
//! 1. **One connection, one [`Watch`].** A tracked connection has a client of the
//!    driver's of its own that is not allowed to reconnect (no policy): when its
//!    connection goes, the client is at its end, and so is its watch, for ever. So
//!    no read and no command of a canary can silently go over another connection
//!    than the one that was armed, and a vouch cannot outlive its connection. The
//!    driver on its own would reconnect without tracking and send what was queued.
//! 2. **Redis remembers before it answers.** A connection that is armed (`CLIENT
//!    TRACKING ON`) is told of the next change of every key it has read, absent or
//!    not, by a push that Redis queues on the same connection in the moment of the
//!    change, before it acknowledges it to the writer. A reader that keeps a value
//!    only if nothing was told of it since before it asked cannot keep what a push
//!    has overtaken: if the change came after the read, the push comes after.
//! 3. **Pushes and answers stay in order.** One connection, one task of the driver
//!    that takes its frames one by one: a push goes into the channel of
//!    invalidations before the answer behind it goes to who waits for it. The task
//!    of the line is the only one that takes pushes out, and tells each as it does.
//! 4. **The canary** (canary.rs) sends, every [`PULSE`], a change of a key that only
//!    this connection reads, and a read behind it. When the read is answered, all
//!    pushes that Redis queued before are in the channel; the line empties it, tells
//!    them, and only then lets the watch promise [`STALENESS`] from the moment before
//!    the canary was *sent*. Whatever was acknowledged before that moment had its
//!    push queued before the canary was run.
//! 5. **What is lost is noticed before anything is promised.** The channel has
//!    lagged: a push may be gone. The canary's push is not among those told:
//!    tracking is not what it should be. The canary's key is gone: the database was
//!    flushed, or swapped, which Redis tells with a push that the driver drops. It is
//!    refused: the server is a replica now, or its primary's replicas are out of
//!    reach. It was answered later than [`STALENESS`]: the server, or this process,
//!    stood still, and it may have been replaced meanwhile. Each ends the connection.
//! 6. **A value read under a vouch needs no telling for as long as it is young.** It
//!    was true when it was read, and the vouch was taken before and ends
//!    [`STALENESS`] after the last proof; so what is read by a connection in its last
//!    moments is never too old either.
//! 7. **Slots that move.** Redis tells of a key that is moved to another node, but
//!    not of one that was absent and is made there. So a primary's canary asks for
//!    the slots the node has, and when they are not those the connection was armed
//!    with, or one begins to move, it ends; a slot that moves is not vouched for.
//!    A slot that is given to another node without being marked as moving is noticed
//!    when its old owner hears of it from the cluster, and not before.
//!
//! Whoever freezes lets the promise run out: it is a moment on a clock that goes on.
//! The canary is a write, so a primary that was cut off from its replicas vouches for
//! nothing as far as `min-replicas-to-write` stops its writes; beyond that, a read of
//! such a primary is as old as a plain read of it.
//!
//! Where there is no such connection now, reads are plain, and nothing is vouched for.

mod canary;
mod line;
mod teller;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use fred::types::{
    cluster::ClusterRouting,
    config::{Config, Server, ServerConfig},
};
use tokio::time;

use self::line::{Line, Maker};
use super::{Settings, connection::Task, fault::Fault, pool::Pool};
#[cfg(doc)]
use crate::store::{STALENESS, Watch};
use crate::store::{Vouch, Watcher};

/// How often a connection proves that it tells of changes.
const PULSE: Duration = Duration::from_millis(100);

/// How often a Cluster's primaries are compared with the lines there are.
const FOLLOW: Duration = Duration::from_millis(250);

/// The tracked connections of a store. Their tasks end when it is dropped.
pub(super) struct Tracking {
    lines: Lines,
    clustered: bool,
    follower: Option<Task<()>>,
    /// How often a connection was made anew, by all lines there were.
    remade: Arc<AtomicU64>,
}

/// One line, or in a Cluster one to each primary.
type Lines = Arc<ArcSwap<Vec<Arc<Line>>>>;

/// What a tracked connection answered: strings as of one moment, and the promise to
/// tell of their changes.
pub(super) struct Told {
    pub(super) stored: Vec<Option<Bytes>>,
    pub(super) vouch: Vouch,
}

impl Tracking {
    /// Begins to connect. Must be called in a runtime.
    pub(super) fn open(
        config: &Config,
        settings: &Settings,
        pool: &Arc<Pool>,
        watcher: Arc<dyn Watcher>,
    ) -> Self {
        let remade = Arc::<AtomicU64>::default();
        let maker = Maker::new(config, settings, watcher, remade.clone());
        let clustered = config.server.is_clustered();
        let lines = Lines::default();
        let follower = if clustered {
            let (lines, pool) = (Arc::clone(&lines), Arc::clone(pool));
            Some(Task::spawn(follow(maker, pool, lines)))
        } else {
            let line = Line::open(maker, config.server.clone(), false);
            lines.store(Arc::new(vec![Arc::new(line)]));
            None
        };
        Self {
            lines,
            clustered,
            follower,
            remade,
        }
    }

    /// Reads strings of one slot through the connection that tells of their changes;
    /// `None` where there is none that can promise it now, or it went away meanwhile.
    pub(super) async fn mget(&self, names: Vec<Bytes>) -> Option<Result<Told, Fault>> {
        let slot = match names.first() {
            Some(name) if self.clustered => Some(ClusterRouting::hash_key(name)),
            _ => None,
        };
        let armed = self
            .lines
            .load()
            .iter()
            .find_map(|line| line.armed().filter(|armed| armed.covers(slot)))?;
        // Taken before the read is sent: what was promised later would not speak for
        // the moment it is run.
        let vouch = armed.watch.vouch()?;
        let stored = armed.mget(names).await?;
        Some(stored.map(|stored| Told { stored, vouch }))
    }

    /// Whether whatever is read now is vouched for: each primary has a connection that
    /// can promise it.
    pub(super) fn vouches(&self) -> bool {
        let lines = self.lines.load();
        !lines.is_empty() && lines.iter().all(|line| line.vouches())
    }

    /// How many connections tell of changes, and how often one was made anew.
    pub(super) fn connections(&self) -> [u64; 2] {
        let lines = self.lines.load();
        let open = lines.iter().filter(|line| line.armed().is_some());
        [open.count() as u64, self.remade.load(Ordering::Relaxed)]
    }

    /// Ends all connections; what was promised is taken back.
    pub(super) fn close(&self) {
        if let Some(follower) = &self.follower {
            follower.stop();
        }
        for line in self.lines.load().iter() {
            line.close();
        }
    }
}

/// Keeps a line to every primary that the driver knows of. Who gets slots is known
/// once a command met a slot that had moved.
async fn follow(maker: Maker, pool: Arc<Pool>, lines: Lines) {
    loop {
        let primaries = pool.primaries();
        let now = lines.load_full();
        let missing = |primary: &&Server| !now.iter().any(|line| line.server() == Some(primary));
        let gone = |line: &Arc<Line>| !line.server().is_some_and(|it| primaries.contains(it));
        if !primaries.is_empty()
            && (primaries.iter().any(|it| missing(&it)) || now.iter().any(gone))
        {
            let kept = now.iter().filter(|line| !gone(line)).cloned();
            let new = primaries.iter().filter(missing).map(|server| {
                let server = ServerConfig::Centralized {
                    server: server.clone(),
                };
                Arc::new(Line::open(maker.clone(), server, true))
            });
            lines.store(Arc::new(kept.chain(new).collect()));
        }
        drop(now);
        time::sleep(FOLLOW).await;
    }
}
