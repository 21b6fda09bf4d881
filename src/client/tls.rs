//! Reaching a server of ours in TLS: whose certificates are trusted, and which one is
//! shown. It does not know how a handshake is done, nor what is asked.

use std::path::{Path, PathBuf};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tonic::transport::Uri;

use super::connection::Unconnected;
use crate::tls::{self, Connector};

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
        let connector = Connector::to(uri, self.config()?, protocol);
        connector.map_err(|problem| Unconnected::setting("address", problem))
    }

    fn config(&self) -> Result<ClientConfig, Unconnected> {
        let builder = tls::client()
            .map_err(|error| Unconnected::setting("address", error.to_string()))?
            .with_root_certificates(self.roots()?);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((cert_file, key_file)) => {
                let chain = certificates("cert_file", cert_file)?;
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .map_err(|error| unfit("key_file", key_file, error))?;
                let builder = builder.with_client_auth_cert(chain, key);
                builder.map_err(|error| unfit("key_file", key_file, error))
            }
        }
    }

    fn roots(&self) -> Result<RootCertStore, Unconnected> {
        let Some(path) = &self.ca_file else {
            return Ok(tls::native_roots());
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates("ca_file", path)?);
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
