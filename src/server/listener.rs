//! The one accept loop: takes connections, within their limit, and hands each
//! to the core that has the fewest. It does not know what is spoken on them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::{Error, Result, core::Core};
use crate::config;

/// How long the loop rests after a failed accept, at first and at most. What
/// fails is mostly the lack of file descriptors, which only time mends.
const REST: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Whether each listener may be where it is to be.
pub(super) fn allow(config: &config::Server) -> Result<()> {
    if let Some((setting, problem)) = config.exposed().into_iter().next() {
        return Err(Error::Plaintext { setting, problem });
    }
    let calls = config.allow_plaintext_beyond_loopback;
    if calls || config.allow_plaintext_admin_beyond_loopback {
        let (in_tls, admin_in_tls) = (config.tls.is_on(), config.admin_tls);
        tracing::warn!(
            in_tls,
            admin_in_tls,
            calls,
            "plaintext is allowed beyond loopback"
        );
    }
    Ok(())
}

/// Binds an address.
pub(super) async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|cause| Error::Listen {
        setting,
        address,
        cause,
    })
}

/// A connection on its way to a core.
pub(super) struct Socket {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    /// Counts it for as long as it lives.
    pub(super) open: Open,
}

/// Counts a connection at its core and in all.
pub(super) struct Open([Arc<AtomicUsize>; 2]);

impl Open {
    fn new(counts: [&Arc<AtomicUsize>; 2]) -> Self {
        Self(counts.map(|count| {
            count.fetch_add(1, Ordering::Relaxed);
            count.clone()
        }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The cores, and the connections of all of them.
pub(super) struct Cores {
    cores: Vec<Core>,
    open: Arc<AtomicUsize>,
    max: usize,
}

impl Cores {
    /// These, which take so many connections at most, and count those that are open.
    pub(super) fn new(cores: Vec<Core>, max: usize, open: Arc<AtomicUsize>) -> Self {
        Self { cores, open, max }
    }

    /// Hands a connection to a core; closes it where there are too many.
    fn place(&self, stream: TcpStream, peer: SocketAddr) {
        if self.open.load(Ordering::Relaxed) >= self.max {
            tracing::debug!(%peer, max = self.max, "connection refused: too many");
            return;
        }
        let core = self
            .cores
            .iter()
            .min_by_key(|core| core.connections.load(Ordering::Relaxed));
        // A connection that died meanwhile is no one's loss.
        let (Some(core), Ok(())) = (core, stream.set_nodelay(true)) else {
            return;
        };
        let Ok(stream) = stream.into_std() else {
            return;
        };
        core.take(Socket {
            stream,
            peer,
            open: Open::new([&core.connections, &self.open]),
        });
    }
}

/// Takes connections until `stop` resolves; errors make it rest, never end.
pub(super) async fn accept(listener: &TcpListener, cores: &Cores, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut rest = REST.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                rest = REST.0;
                cores.place(stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::select! {
                    () = &mut stop => return,
                    () = sleep(rest) => rest = (rest * 2).min(REST.1),
                }
            }
        }
    }
}
