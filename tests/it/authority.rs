//! Who signs certificates for tests, those who hold them, and how either is met by a
//! server that speaks TLS. It does not know what is tested.

use std::{io, net::SocketAddr, sync::Arc};

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::server::{ADMIN_KEY, Bearer, Clients};

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Its own certificate, in PEM.
    pub pem: String,
}

/// Who holds a certificate.
#[derive(Clone)]
pub struct Holder {
    /// The certificate, in PEM.
    pub pem: String,
    /// Its key, in PEM.
    pub key_pem: String,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

/// What a certificate says.
#[derive(Clone, Copy, Default)]
pub struct Says<'a> {
    pub common_name: &'a str,
    pub dns: &'a [&'a str],
    pub uri: &'a [&'a str],
    /// Whether it is over.
    pub expired: bool,
}

impl Holder {
    /// What a server speaks who holds this.
    pub fn server(&self, protocol: &str) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate of this machine, with its key, in PEM.
    pub fn sign(&self) -> (String, String) {
        let names = ["localhost", "127.0.0.1"];
        let holder = self.holder(Says {
            dns: &names,
            ..Says::default()
        });
        (holder.pem, holder.key_pem)
    }

    /// One who holds a certificate that says this.
    pub fn holder(&self, says: Says<'_>) -> Holder {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = says.dns.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        for uri in says.uri {
            let uri = (*uri).try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        if !says.common_name.is_empty() {
            let name = says.common_name;
            params.distinguished_name.push(DnType::CommonName, name);
        }
        if says.expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Holder {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        }
    }

    /// What a client speaks who trusts this, and is one who holds a certificate.
    pub fn client(&self, protocol: &str, holder: Option<&Holder>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match holder {
            None => builder.with_no_client_auth(),
            Some(holder) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(holder.key.clone()));
                let chain = vec![holder.certificate.clone()];
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }

    /// A handshake with a server, by one who trusts this.
    pub async fn shake(
        &self,
        address: SocketAddr,
        protocol: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        shake(self.client(protocol, None), address).await
    }

    /// The certificate that a server shows.
    pub async fn shown(&self, address: SocketAddr) -> CertificateDer<'static> {
        let stream = self.shake(address, "h2").await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        chain[0].clone().into_owned()
    }

    /// Clients of a server, with the admin key, by one who trusts this.
    pub async fn clients(&self, address: SocketAddr) -> Clients {
        let clients = self.clients_as(address, None, Bearer::new(ADMIN_KEY));
        clients.await.unwrap()
    }

    /// Clients of a server, by one who trusts this and holds a certificate and a key.
    pub async fn clients_as(
        &self,
        address: SocketAddr,
        holder: Option<&Holder>,
        bearer: Bearer,
    ) -> Result<Clients, tonic::transport::Error> {
        let config = self.client("h2", holder);
        let connector = tower::service_fn(move |_| {
            let config = config.clone();
            async move { shake(config, address).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel: Channel = endpoint.connect_with_connector(connector).await?;
        Ok(Clients::new(channel, bearer))
    }
}

/// A handshake with a server.
pub async fn shake(
    config: Arc<ClientConfig>,
    address: SocketAddr,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(name, stream).await
}
