//! What is known of the server: its version, its settings, its clock, and
//! whether it answers. It does not know how it is reached.

use std::{
    future::Future,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

use fred::types::Resp3Frame;
use tokio::sync::Notify;

use super::{
    clock::Clock,
    fault::{self, Fault},
    reply,
    script::Scripts,
};
use crate::store::{Error, Result};

/// What all connections to a store share.
pub(super) struct Shared {
    pub(super) scripts: Scripts,
    pub(super) clock: Clock,
    pub(super) breaker: Breaker,
    exact: AtomicBool,
    version: Mutex<String>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            scripts: Scripts::new(),
            clock: Clock::new(),
            breaker: Breaker::default(),
            exact: AtomicBool::new(true),
            version: Mutex::new(String::new()),
        }
    }

    /// Whether the server never evicts on its own, so that counters are exact.
    pub(super) fn exact(&self) -> bool {
        self.exact.load(Ordering::Relaxed)
    }

    /// What the server is, such as `redis 7.0.15`; empty before the first contact.
    pub(super) fn version(&self) -> String {
        self.version
            .lock()
            .map(|version| version.clone())
            .unwrap_or_default()
    }

    /// Keeps what a server said of itself. It has just answered.
    pub(super) fn met(&self, server: &Server) {
        if let Ok(mut version) = self.version.lock() {
            version.clone_from(&server.version);
        }
        let exact = server.policy == "noeviction";
        if self.exact.swap(exact, Ordering::Relaxed) && !exact {
            tracing::warn!(policy = %server.policy, "maxmemory-policy is not noeviction: usage is not exact");
        }
        self.breaker.answered();
    }

    /// Takes the answer to TIME as a sample of the store's clock.
    pub(super) async fn ask_time(
        &self,
        ask: impl Future<Output = std::result::Result<Resp3Frame, Fault>>,
    ) -> std::result::Result<(), Fault> {
        let asked = Instant::now();
        let answer = ask.await?;
        let answered = Instant::now();
        let parts: Vec<i64> = reply::array(answer)
            .map_err(Fault::NotRun)?
            .iter()
            .filter_map(|part| reply::text(part)?.parse().ok())
            .collect();
        if let [seconds, micros] = parts[..] {
            self.clock.sample(
                asked,
                answered,
                seconds.saturating_mul(1_000_000).saturating_add(micros),
            );
        }
        Ok(())
    }
}

/// What INFO says of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Such as `redis 7.0.15`.
    pub(super) version: String,
    /// Its maxmemory-policy.
    pub(super) policy: String,
    /// The name of its process.
    pub(super) run_id: String,
}

impl Server {
    /// Reads INFO; an error where the server cannot be worked with.
    pub(super) fn read(info: &str, clustered: bool) -> Result<Self> {
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .unwrap_or_default()
        };
        let redis = field("redis_version");
        if redis.is_empty() {
            return Err(Error::Unusable(
                "the peer does not say which version of Redis it is".into(),
            ));
        }
        let major: u32 = redis
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .unwrap_or_default();
        if major < 7 {
            return Err(Error::Unusable(format!(
                "redis {redis} is too old; 7.0 or newer is needed"
            )));
        }
        if field("loading") == "1" {
            return Err(fault::unavailable("it is loading its data"));
        }
        if !clustered && field("role") == "slave" {
            return Err(fault::unavailable("it is a replica, and takes no writes"));
        }
        let valkey = field("valkey_version");
        let version = if valkey.is_empty() {
            format!("redis {redis}")
        } else {
            format!("valkey {valkey}")
        };
        Ok(Self {
            version,
            policy: field("maxmemory_policy").to_owned(),
            run_id: field("run_id").to_owned(),
        })
    }
}

/// Timeouts in a row after which the server is taken for frozen.
const TIMEOUTS: u32 = 3;

/// Answers in place of a server that does not answer, until it does again.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    timeouts: AtomicU32,
    open: AtomicBool,
    /// Told when it opens.
    pub(super) opened: Notify,
}

impl Breaker {
    /// An error while it is open.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_open() {
            Err(fault::unavailable("it has stopped answering"))
        } else {
            Ok(())
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// The server has answered.
    pub(super) fn answered(&self) {
        if self.timeouts.load(Ordering::Relaxed) != 0 {
            self.timeouts.store(0, Ordering::Relaxed);
            if self.open.swap(false, Ordering::Relaxed) {
                tracing::info!("store answers again");
            }
        }
    }

    /// A command had no answer in time.
    pub(super) fn timed_out(&self) {
        let timeouts = self
            .timeouts
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        if timeouts >= TIMEOUTS && !self.open.swap(true, Ordering::Relaxed) {
            tracing::warn!("store has stopped answering");
            self.opened.notify_one();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n\
        # Persistence\r\nloading:0\r\nasync_loading:0\r\n# Replication\r\nrole:master\r\n";

    #[test]
    fn a_server_is_read_from_what_it_says() {
        let server = Server::read(INFO, false).unwrap();
        assert_eq!(
            (&server.version[..], &server.policy[..], &server.run_id[..]),
            ("redis 7.0.15", "noeviction", "abc")
        );
        let valkey = format!(
            "{}valkey_version:8.0.1\r\n",
            INFO.replace("7.0.15", "7.2.4")
        );
        assert_eq!(
            Server::read(&valkey, false).unwrap().version,
            "valkey 8.0.1"
        );
    }

    #[test]
    fn a_server_that_cannot_be_worked_with_is_named() {
        let kind = |info: &str| match Server::read(info, false) {
            Err(Error::Unusable(words)) => words,
            Err(Error::Unavailable(words)) => format!("unavailable: {words}"),
            other => panic!("{other:?}"),
        };
        assert!(kind(&INFO.replace("7.0.15", "6.2.7")).contains("6.2.7 is too old"));
        assert!(kind("hello").contains("version"));
        assert!(
            kind(&INFO.replace("loading:0", "loading:1")).starts_with("unavailable: it is loading")
        );
        assert!(
            kind(&INFO.replace("role:master", "role:slave"))
                .starts_with("unavailable: it is a replica")
        );
    }

    #[test]
    fn the_breaker_opens_after_three_timeouts_in_a_row() {
        let breaker = Breaker::default();
        for _ in 0..2 {
            breaker.timed_out();
            breaker.timed_out();
            breaker.answered();
        }
        assert!(breaker.check().is_ok());
        for _ in 0..TIMEOUTS {
            breaker.timed_out();
        }
        assert!(breaker.check().is_err());
        breaker.answered();
        assert!(breaker.check().is_ok());
    }
}
