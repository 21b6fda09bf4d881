//! The connections of a store, used in turn, and how a command or a script gets
//! its answer through them. It does not know what the commands mean.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use fred::types::{
    ClusterHash, Resp3Frame, Value,
    config::{Config, Server},
};
use tokio::time;

use super::{
    Settings,
    connection::Link,
    fault::{self, Fault},
    script::Script,
    server::Shared,
};
use crate::store::Result;

/// Several connections, used in turn.
pub(super) struct Pool {
    links: Vec<Link>,
    next: AtomicUsize,
    shared: Arc<Shared>,
    /// How long a command that meets a moving slot is repeated.
    patience: Duration,
    clustered: bool,
}

impl Pool {
    pub(super) fn open(config: &Config, settings: &Settings, shared: &Arc<Shared>) -> Self {
        Self {
            links: (0..settings.pool_size.max(1))
                .map(|_| Link::open(config, settings, shared))
                .collect(),
            next: AtomicUsize::new(0),
            shared: Arc::clone(shared),
            patience: settings.command_timeout,
            clustered: config.server.is_clustered(),
        }
    }

    /// Whether it is a Cluster's.
    pub(super) fn is_clustered(&self) -> bool {
        self.clustered
    }

    /// A connection that can be used, or why there is none.
    pub(super) fn link(&self) -> Result<&Link> {
        let mut down = None;
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for link in self
            .links
            .iter()
            .cycle()
            .skip(first % self.links.len())
            .take(self.links.len())
        {
            match link.down() {
                None => return Ok(link),
                Some(error) => down = down.or(Some(error)),
            }
        }
        Err(down.unwrap_or_else(|| fault::unavailable("not connected")))
    }

    /// Runs a command. `args` are all that follow its name; in a Cluster `hash` is
    /// the slot of its keys, or the first argument is a key.
    pub(super) async fn command(
        &self,
        name: &'static str,
        hash: ClusterHash,
        args: &[Bytes],
    ) -> std::result::Result<Resp3Frame, Fault> {
        let until = Instant::now() + self.patience;
        loop {
            match self
                .once(
                    name,
                    hash.clone(),
                    args.iter().cloned().map(Value::Bytes).collect(),
                )
                .await
            {
                Err(Fault::Moving) if Instant::now() < until => self.rest().await,
                answer => return answer,
            }
        }
    }

    /// Reads strings, as of one moment. The driver sends what other calls have
    /// queued in the same piece, which it does for no command it does not know.
    pub(super) async fn mget(
        &self,
        names: Vec<Bytes>,
    ) -> std::result::Result<Vec<Option<Bytes>>, Fault> {
        let until = Instant::now() + self.patience;
        loop {
            let link = self.usable()?;
            match self.judged(link.mget(names.clone()).await) {
                Err(Fault::Moving) if Instant::now() < until => self.rest().await,
                answer => return answer,
            }
        }
    }

    async fn once(
        &self,
        name: &'static str,
        hash: ClusterHash,
        args: Vec<Value>,
    ) -> std::result::Result<Resp3Frame, Fault> {
        let link = self.usable()?;
        self.judged(link.send(name, hash, args).await)
    }

    fn usable(&self) -> std::result::Result<&Link, Fault> {
        let link = self.link().map_err(Fault::NotRun)?;
        self.shared.breaker.check().map_err(Fault::NotRun)?;
        Ok(link)
    }

    /// Waits a little for a slot that is moving.
    async fn rest(&self) {
        let [jitter] = crate::random::bytes();
        time::sleep(Duration::from_millis(5 + u64::from(jitter % 16))).await;
    }

    /// Tells the breaker how it went.
    pub(super) fn judged<T>(
        &self,
        answer: std::result::Result<T, Fault>,
    ) -> std::result::Result<T, Fault> {
        let breaker = &self.shared.breaker;
        match &answer {
            Err(Fault::Timeout) => breaker.timed_out(),
            Ok(_) => breaker.answered(),
            Err(_) => {}
        }
        answer
    }

    /// Runs a script. A server that does not have it is given it.
    pub(super) async fn script(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: impl IntoIterator<Item = Bytes>,
    ) -> std::result::Result<Resp3Frame, Fault> {
        // Only where slots matter is one worked out: the driver takes it as it is
        // given, or else hashes the first argument.
        let hash = match keys.first() {
            Some(key) if self.clustered => ClusterHash::from(&key[..]),
            _ => ClusterHash::Random,
        };
        let digest = script.digest();
        let known = digest.is_some();
        let mut all = Vec::with_capacity(2 * keys.len() + 4);
        all.push(digest.unwrap_or_else(|| script.text()));
        all.push(Bytes::from(keys.len().to_string()));
        all.extend(keys);
        all.extend(args);
        if known {
            match self.command("EVALSHA", hash.clone(), &all).await {
                Err(Fault::NoScript) => {}
                answer => return answer,
            }
            if let Some(first) = all.first_mut() {
                *first = script.text();
            }
        }
        self.command("EVAL", hash, &all).await
    }

    /// Asks the server for its time, on any connection that can be used.
    pub(super) async fn time(&self, within: Duration) -> std::result::Result<(), Fault> {
        let link = self.link().map_err(Fault::NotRun)?;
        let asked = self
            .shared
            .ask_time(link.send("TIME", ClusterHash::Random, Vec::new()));
        time::timeout(within, asked)
            .await
            .unwrap_or(Err(Fault::Timeout))
    }

    /// The primaries of a Cluster, as the first connection that can be used knows
    /// them; none where there is none.
    pub(super) fn primaries(&self) -> Vec<Server> {
        self.link().map(Link::primaries).unwrap_or_default()
    }

    /// How many connections can be used, and how often one was made anew.
    pub(super) fn connections(&self) -> [u64; 2] {
        let each = self.links.iter().map(Link::connections);
        each.fold([0; 2], |[open, remade], link| {
            [open + link[0], remade + link[1]]
        })
    }

    /// Gives all connections up and makes others.
    pub(super) fn renew(&self) {
        self.links.iter().for_each(Link::renew);
    }

    pub(super) async fn close(&self, within: Duration) {
        futures::future::join_all(self.links.iter().map(|link| link.close(within))).await;
    }
}
