//! Reaching a server in TLS: whose certificates are trusted, which one is shown, and
//! the handshake. It does not know what is asked.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::connection::Unconnected;

/// Whom a client trusts, and who it says it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Whose certificates are trusted, in PEM; without it those that this machine trusts.
    pub(crate) ca_file: Option<PathBuf>,
    /// The certificate that is shown, and its private key, in PEM.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

impl Trust {
    /// What makes connections to this address.
    pub(super) fn connector(&self, uri: &Uri) -> Result<Connector, Unconnected> {
        self.connector_of(uri, b"h2")
    }

    /// The same for what is spoken in HTTP/1.1.
    pub(crate) fn connector_of_http1(&self, uri: &Uri) -> Result<Connector, Unconnected> {
        self.connector_of(uri, b"http/1.1")
    }

    fn connector_of(&self, uri: &Uri, protocol: &[u8]) -> Result<Connector, Unconnected> {
        let host = uri.host().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let unfit = |_| Unconnected::setting("address", format!("{host:?} is no name of a server"));
        let name = ServerName::try_from(host.clone()).map_err(unfit)?;
        Ok(Connector {
            tls: TlsConnector::from(Arc::new(self.config(protocol)?)),
            name,
            host,
            port: uri.port_u16().unwrap_or(443),
        })
    }

    fn config(&self, protocol: &[u8]) -> Result<ClientConfig, Unconnected> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Unconnected::setting("address", error.to_string()))?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert_file, key_file)) => {
                let chain = certificates("cert_file", cert_file)?;
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .map_err(|error| unfit("key_file", key_file, error))?;
                let builder = builder.with_client_auth_cert(chain, key);
                builder.map_err(|error| unfit("key_file", key_file, error))?
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, Unconnected> {
        let mut roots = RootCertStore::empty();
        let certificates = match &self.ca_file {
            None => rustls_native_certs::load_native_certs().certs,
            Some(path) => certificates("ca_file", path)?,
        };
        roots.add_parsable_certificates(certificates);
        Ok(roots)
    }
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, Unconnected> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unfit(setting, path, error))?;
    if certificates.is_empty() {
        return Err(unfit(setting, path, "it holds no certificate in PEM"));
    }
    Ok(certificates)
}

fn unfit(setting: &'static str, path: &Path, why: impl ToString) -> Unconnected {
    Unconnected::setting(setting, format!("{}: {}", path.display(), why.to_string()))
}

/// Makes connections to one server, and shakes hands.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
    name: ServerName<'static>,
    host: String,
    port: u16,
}

impl Connector {
    /// A channel that is connected.
    pub(super) async fn connect(
        self,
        endpoint: Endpoint,
    ) -> Result<Channel, tonic::transport::Error> {
        let shake = tower::service_fn(move |_: Uri| self.clone().shake());
        endpoint.connect_with_connector(shake).await
    }

    /// A channel that connects when it is first called.
    pub(super) fn connect_lazily(self, endpoint: Endpoint) -> Channel {
        let shake = tower::service_fn(move |_: Uri| self.clone().shake());
        endpoint.connect_with_connector_lazy(shake)
    }

    /// A connection of its own.
    pub(crate) async fn shake(
        self,
    ) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.name, stream).await?;
        Ok(TokioIo::new(stream))
    }
}
