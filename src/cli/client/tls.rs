//! Reaching a server in TLS: whose certificates are trusted, and the handshake. It does
//! not know what is asked.

use std::{io, path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::innermost;
use crate::cli::failure::{Exit, Failure};

/// A connection, or why there is none.
pub(super) async fn connect(
    uri: &Uri,
    endpoint: Endpoint,
    ca_file: Option<&Path>,
) -> Result<Result<Channel, String>, Failure> {
    let host = uri.host().unwrap_or_default();
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let usage = |_| Failure::usage(format!("--address: {host:?} is no name of a server"));
    let name = ServerName::try_from(host.clone()).map_err(usage)?;
    let connector = TlsConnector::from(Arc::new(config(roots(ca_file)?)?));
    let shake = tower::service_fn(move |_: Uri| {
        let (connector, name, host) = (connector.clone(), name.clone(), host.clone());
        async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(name, stream).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let connected = endpoint.connect_with_connector(shake).await;
    Ok(connected.map_err(|error| innermost(&error)))
}

fn config(roots: RootCertStore) -> Result<ClientConfig, Failure> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let unfit = |why: String| Failure::usage(format!("--ca-file: {}: {why}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unfit(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unfit("it holds no certificate in PEM".to_owned()));
    }
    roots.add_parsable_certificates(certificates);
    Ok(roots)
}
