//! TLS of the listeners: the certificate in use, whose certificates are taken, the
//! handshake, and how many were refused. It does not know what is spoken behind it.

mod figures;
mod peer;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::ring,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

pub use self::figures::Figures;
use super::wire::Wire;
use crate::{
    config::{self, ClientAuth, Tls},
    tenant::Peer,
};

/// How long a peer that was refused has to hear of it, and how often it is read from.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_READS: usize = 64;

/// What a handshake speaks of; `None` where there is none.
pub(super) type Offer = Option<Arc<ServerConfig>>;

/// What is offered to callers: TLS 1.2 or 1.3, and HTTP/2 behind it.
pub(super) fn offer(tls: &Tls) -> Offer {
    let offered = verifier(tls).and_then(|verifier| build(tls, verifier, b"h2"));
    told(tls, offered)
}

/// What is offered on the admin listener, where that speaks TLS: the same certificate,
/// to clients of whom none is asked for.
pub(super) fn admin_offer(server: &config::Server) -> Offer {
    let tls = &server.tls;
    match server.admin_tls {
        true => told(tls, build(tls, None, b"http/1.1")),
        false => None,
    }
}

/// What was wrong was told when the settings were checked, as far as that could be seen.
fn told(tls: &Tls, offered: Result<Offer, String>) -> Offer {
    offered.unwrap_or_else(|error| {
        let (cert_file, client_ca_file) = (&tls.cert_file, &tls.client_ca_file);
        tracing::error!(%error, ?cert_file, ?client_ca_file, "tls not offered");
        None
    })
}

type Verifier = Option<Arc<dyn ClientCertVerifier>>;

fn verifier(tls: &Tls) -> Result<Verifier, String> {
    let Some(roots) = tls.client_roots() else {
        return Ok(None);
    };
    let provider = Arc::new(ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    if tls.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    let built = builder.build();
    built.map(Some).map_err(|error| error.to_string())
}

fn build(tls: &Tls, verifier: Verifier, protocol: &[u8]) -> Result<Offer, String> {
    let Some(identity) = tls.identity() else {
        return Ok(None);
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let resolver = Arc::new(SingleCertAndKey::from(identity));
    let mut config = match verifier {
        None => builder.with_no_client_auth().with_cert_resolver(resolver),
        Some(verifier) => {
            let mut config = builder
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(resolver);
            // Who comes back by a ticket would not be verified again, though its
            // certificate may have expired meanwhile.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Some(Arc::new(config)))
}

/// Takes in what a peer that was refused has sent already, until it goes. If that were
/// still unread when the socket is closed, the system would tell the peer of a reset, and
/// the alert that says why it was refused would be lost.
async fn linger(mut stream: TcpStream) {
    let mut unread = [0; 1024];
    let drained = async {
        stream.shutdown().await?;
        for _ in 0..LINGER_READS {
            if stream.read(&mut unread).await? == 0 {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    // However it ends, nothing more can be done for the peer.
    let _ = timeout(LINGER, drained).await;
}

/// How connections begin, as it is when one does.
pub(super) struct Handshake {
    pub(super) offer: Offer,
    pub(super) figures: Arc<Figures>,
}

impl Handshake {
    /// A connection as it is spoken on, after the handshake where one is offered, and
    /// whom the peer has proved to be in it.
    pub(super) async fn shake(
        self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> io::Result<(Wire, Option<Peer>)> {
        let Some(config) = self.offer else {
            return Ok((Wire::Plain(stream), None));
        };
        let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
        let stream = match accepting.await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                self.figures.refused(address, &error);
                linger(stream).await;
                return Err(error);
            }
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let peer = certificates.and_then(|chain| peer::of(chain.first()?));
        Ok((Wire::Tls(Box::new(stream)), peer))
    }
}
