//! What is counted of TLS: handshakes that were refused, and until when the certificate
//! in use is good. It does not know who reads it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::peer;
use crate::config::Tls;

/// How long before its end a certificate is told of.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Refusals that are told in a second; a scan of ports is no reason to fill a disk.
const TOLD: u64 = 10;

/// What is counted of TLS, over all listeners.
#[derive(Debug, Default)]
pub struct Figures {
    refused: Arc<AtomicU64>,
    /// In seconds since 1970; 0 where there is no certificate.
    expire_s: Arc<AtomicU64>,
    telling: Mutex<Telling>,
}

/// How much was told in this second.
#[derive(Debug, Default)]
struct Telling {
    began: Option<Instant>,
    told: u64,
    untold: u64,
}

impl Figures {
    /// Handshakes that failed: no TLS, no version or cipher in common, no certificate or
    /// a wrong one, or one of ours that the peer did not trust.
    pub fn handshake_failures(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// When the certificate in use expires, in seconds since 1970; `None` without TLS.
    pub fn certificate_expiry_s(&self) -> Option<u64> {
        match self.expire_s.load(Ordering::Relaxed) {
            0 => None,
            seconds => Some(seconds),
        }
    }

    /// Both as they are counted, for who tells of them: refused handshakes, and when the
    /// certificate expires in seconds since 1970, 0 where there is none.
    pub(in crate::server) fn counted(&self) -> [Arc<AtomicU64>; 2] {
        [self.refused.clone(), self.expire_s.clone()]
    }

    /// Counts a handshake that failed, and tells of it.
    pub(super) fn refused(&self, peer: SocketAddr, error: &io::Error) {
        // One who goes away in the middle of it has not been refused: a probe of a
        // load balancer does so every second.
        if error.kind() != io::ErrorKind::InvalidData {
            return tracing::debug!(%peer, %error, "tls handshake not finished");
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let second = Duration::from_secs(1);
        if telling
            .began
            .is_none_or(|began| now.duration_since(began) >= second)
        {
            telling.began = Some(now);
            telling.told = 0;
        }
        if telling.told >= TOLD {
            telling.untold += 1;
            return;
        }
        telling.told += 1;
        let untold = std::mem::take(&mut telling.untold);
        tracing::warn!(%peer, why = %error, untold, "tls handshake refused");
    }

    /// Notes the certificate that is in use from now on, and warns where it ends soon.
    pub(in crate::server) fn shows(&self, tls: &Tls) {
        let identity = tls.identity();
        let expire_time = identity.and_then(|identity| peer::expire_time(identity.cert.first()?));
        let since_epoch = expire_time.and_then(|time| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.ok()
        });
        let expire_s = since_epoch.map_or(0, |since| since.as_secs().max(1));
        self.expire_s.store(expire_s, Ordering::Relaxed);
        let Some(expire_time) = expire_time else {
            return;
        };
        let cert_file = &tls.cert_file;
        match expire_time.duration_since(SystemTime::now()) {
            Err(_) => tracing::error!(?cert_file, expire_s, "tls certificate has expired"),
            Ok(left) if left < SOON => {
                let hours = left.as_secs() / 3600;
                tracing::warn!(?cert_file, expire_s, hours, "tls certificate expires soon");
            }
            Ok(_) => {}
        }
    }
}
