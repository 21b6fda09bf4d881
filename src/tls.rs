//! TLS to other servers: whom this machine trusts, the handshake, and what it means when
//! one fails. It does not know which server is reached, nor what for.

use std::{io, sync::Arc};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier, crypto::ring, pki_types::ServerName,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower::Service;

/// The beginning of how a server is met: TLS 1.2 or 1.3.
pub(crate) fn client() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
}

/// The certificates that this machine trusts.
pub(crate) fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates that this machine trusts not read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// These certificates, or else those that this machine trusts.
///
/// # Errors
/// Where nobody is trusted then, and that `ca_file` is the setting to name some by.
pub(crate) fn trusted(
    roots: Option<Arc<RootCertStore>>,
    ca_file: &str,
) -> Result<Arc<RootCertStore>, String> {
    let roots = roots.unwrap_or_else(|| Arc::new(native_roots()));
    match roots.is_empty() {
        true => Err(format!(
            "this machine trusts no certificates: name some by {ca_file}"
        )),
        false => Ok(roots),
    }
}

/// What the certificate of a server has to be of, by its address.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn name(uri: &Uri) -> Result<ServerName<'static>, String> {
    let host = host(uri);
    ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is no name of a server"))
}

fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
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
    /// To the server at this address, for what is spoken in this protocol.
    ///
    /// # Errors
    /// Why no certificate can be of that address.
    pub(crate) fn to(uri: &Uri, mut config: ClientConfig, protocol: &[u8]) -> Result<Self, String> {
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            name: name(uri)?,
            host: host(uri).to_owned(),
            port: uri.port_u16().unwrap_or(443),
        })
    }

    /// What makes a channel's connections.
    pub(crate) fn service(
        self,
    ) -> impl Service<Uri, Response = Shaken, Error = io::Error, Future: Send> + Send {
        tower::service_fn(move |_| self.clone().shake())
    }

    /// A connection of its own.
    pub(crate) async fn shake(self) -> io::Result<Shaken> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.name, stream).await?;
        Ok(TokioIo::new(stream))
    }
}

/// A connection after the handshake.
pub(crate) type Shaken = TokioIo<TlsStream<TcpStream>>;

/// What a failed handshake may be mended by.
pub(crate) struct Settings {
    /// The one that names the file of those who sign the server's certificate.
    pub(crate) ca_file: &'static str,
    /// Those that name the certificate that is shown to it, and its key; `None` where
    /// none can be.
    pub(crate) identity: Option<[&'static str; 2]>,
    /// How the address of a server begins that speaks no TLS.
    pub(crate) plain: &'static str,
}

/// What the words of an error tell of a failed handshake, for who set it up; `None` where
/// they are about something else. Nothing of them is repeated but the name of a case.
pub(crate) fn failure(text: &str, settings: &Settings) -> Option<String> {
    let inside = |name: &str| {
        let (_, rest) = text.split_once(name)?;
        // The name of the case; what belongs to it may be long.
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
        rest.get(..end.unwrap_or(rest.len()))
    };
    let Settings {
        ca_file,
        identity,
        plain,
    } = settings;
    if let Some(why) = inside("InvalidCertificate(") {
        let meaning: &str = match why {
            // The second is what comes of an authority of the same name.
            "UnknownIssuer" | "BadSignature" => &format!(
                "its certificate is unknown: it is signed by none of {ca_file}, or of those that \
                 this machine trusts"
            ),
            "Expired" | "ExpiredContext" => "its certificate has expired",
            "NotValidYet" | "NotValidYetContext" => "its certificate is not valid yet",
            "NotValidForName" | "NotValidForNameContext" => {
                "its certificate is for another name than the one it is reached by"
            }
            _ => "its certificate is not accepted",
        };
        Some(format!("{meaning} ({why})"))
    } else if let Some(why) = inside("AlertReceived(") {
        let meaning: &str = match (why, identity) {
            ("CertificateRequired", Some([cert_file, key_file])) => {
                &format!("it asks for a certificate: set {cert_file} and {key_file}")
            }
            ("CertificateRequired", None) => "it asks for a certificate, and none can be shown",
            (
                "UnknownCA"
                | "BadCertificate"
                | "CertificateExpired"
                | "CertificateUnknown"
                | "CertificateRevoked"
                | "UnsupportedCertificate"
                | "AccessDenied"
                | "DecryptError",
                Some([cert_file, _]),
            ) => &format!("it does not accept the certificate of {cert_file}"),
            _ => "it refused the handshake",
        };
        Some(format!("{meaning} ({why})"))
    } else if text.contains("InvalidMessage(InvalidContentType)") {
        Some(format!(
            "it does not speak TLS on this port: {plain} is for servers that do not"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_handshake_is_told_in_words_that_help() {
        let may_show = Settings {
            ca_file: "its.ca_file",
            identity: Some(["its.cert_file", "its.key_file"]),
            plain: "plain://",
        };
        let shows_nothing = Settings {
            identity: None,
            ..may_show
        };
        for (text, settings, says) in [
            (
                "Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }",
                &may_show,
                "signed by none of its.ca_file",
            ),
            (
                "Custom { kind: InvalidData, error: InvalidCertificate(NotValidForNameContext { expected: x }) }",
                &may_show,
                "another name than the one it is reached by (NotValidForNameContext)",
            ),
            (
                "Custom { kind: InvalidData, error: AlertReceived(CertificateRequired) }",
                &may_show,
                "set its.cert_file and its.key_file",
            ),
            (
                "AlertReceived(CertificateRequired)",
                &shows_nothing,
                "none can be shown",
            ),
            (
                "AlertReceived(BadCertificate)",
                &may_show,
                "does not accept the certificate of its.cert_file",
            ),
            (
                "AlertReceived(BadCertificate)",
                &shows_nothing,
                "it refused the handshake (BadCertificate)",
            ),
            (
                "Custom { kind: InvalidData, error: InvalidMessage(InvalidContentType) }",
                &may_show,
                "plain:// is for servers",
            ),
        ] {
            let told = failure(text, settings).unwrap_or_default();
            assert!(told.contains(says), "{text}: {told}");
        }
        assert_eq!(failure("Connection refused", &may_show), None);
    }

    #[test]
    fn a_name_is_that_of_a_server_or_an_address() {
        for sound in [
            "https://collector:4317",
            "https://127.0.0.1",
            "https://[::1]:4317",
        ] {
            assert!(name(&sound.parse().unwrap()).is_ok(), "{sound}");
        }
        let told = name(&"https://a..b:4317".parse().unwrap()).unwrap_err();
        assert!(told.contains("a..b"), "{told}");
    }
}
