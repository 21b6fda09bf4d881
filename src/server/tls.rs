//! TLS of the listener: the certificate in use, and the handshake. It does not know
//! what is spoken behind it.

use std::{io, sync::Arc};

use rustls::{ServerConfig, crypto::ring, sign::SingleCertAndKey};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::wire::Wire;
use crate::config::Tls;

/// What a handshake speaks of; `None` where there is none.
pub(super) type Offer = Option<Arc<ServerConfig>>;

/// What is offered with this certificate: TLS 1.2 or 1.3, and HTTP/2 behind it.
pub(super) fn offer(tls: &Tls) -> Offer {
    let identity = tls.identity()?;
    let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions();
    let builder = match versions {
        Ok(builder) => builder,
        Err(error) => {
            let (cert_file, key_file) = (&tls.cert_file, &tls.key_file);
            tracing::error!(%error, ?cert_file, ?key_file, "tls not offered");
            return None;
        }
    };
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Some(Arc::new(config))
}

/// A connection as it is spoken on, after the handshake where one is offered.
pub(super) async fn shake(stream: TcpStream, offer: Offer) -> io::Result<Wire> {
    match offer {
        Some(config) => {
            let stream = TlsAcceptor::from(config).accept(stream).await?;
            Ok(Wire::Tls(Box::new(stream)))
        }
        None => Ok(Wire::Plain(stream)),
    }
}
