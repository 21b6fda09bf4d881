//! TLS to Redis: whose certificates are believed, which one is shown, and what it means
//! when a handshake fails. It does not know where the server is.

use std::sync::Arc;

use fred::types::config::{TlsConfig, TlsConnector};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

use crate::{
    config::{Live, RedisTls},
    store::{Error, Result},
};

/// How connections to a store begin in TLS. One for all of them, which share what is
/// believed and shown: it can be exchanged while they last.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    files: Live<Files>,
}

/// What was in the files.
#[derive(Debug)]
struct Files {
    /// Whose certificates are believed.
    verifier: Arc<WebPkiServerVerifier>,
    /// What is shown to a server that asks for a certificate.
    identity: Option<Arc<CertifiedKey>>,
}

impl Files {
    fn of(config: &RedisTls) -> Result<Self> {
        let roots = config.roots().unwrap_or_else(|| Arc::new(native_roots()));
        if roots.is_empty() {
            let words = "this machine trusts no certificates: name some by redis.tls.ca_file";
            return Err(Error::Unusable(words.to_owned()));
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        Ok(Self {
            verifier: verifier.map_err(unusable)?,
            identity: config.identity(),
        })
    }
}

impl Connector {
    /// From the configuration; without any of it, the server is believed as this
    /// machine believes others, and is shown nothing.
    ///
    /// # Errors
    /// [`Error::Unusable`] where TLS cannot be spoken.
    pub fn of(config: &RedisTls) -> Result<Self> {
        let files = Live::from(Files::of(config)?);
        let read = || Arc::new(Read(files.clone()));
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            // It verifies as any other; what by is looked at each time.
            .dangerous()
            .with_custom_certificate_verifier(read())
            .with_client_cert_resolver(read());
        // Who comes back by a ticket verifies nothing.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            files,
        })
    }

    /// Lets the connections that begin from now on go by this configuration.
    ///
    /// # Errors
    /// [`Error::Unusable`]; all is as before then.
    pub fn renew(&self, config: &RedisTls) -> Result<()> {
        self.files.store(Files::of(config)?);
        Ok(())
    }

    /// The same for the driver.
    pub(super) fn of_driver(&self) -> TlsConfig {
        TlsConnector::from(ClientConfig::clone(&self.config)).into()
    }
}

fn unusable(error: impl ToString) -> Error {
    Error::Unusable(format!("TLS with it: {}", error.to_string()))
}

/// Goes by what is in the files when it is asked.
#[derive(Debug)]
struct Read(Live<Files>);

type Verified<T> = std::result::Result<T, rustls::Error>;

impl ServerCertVerifier for Read {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Verified<ServerCertVerified> {
        let verifier = &self.0.load().verifier;
        verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        let verifier = &self.0.load().verifier;
        verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        let verifier = &self.0.load().verifier;
        verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.load().verifier.supported_verify_schemes()
    }
}

impl ResolvesClientCert for Read {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load().identity.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.load().identity.is_some()
    }
}

fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates that this machine trusts not read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// What the driver's words for a failed handshake mean to who set it up; `None` where
/// they are about something else.
pub(super) fn failure(text: &str) -> Option<Error> {
    let inside = |name: &str| {
        let (_, rest) = text.split_once(name)?;
        // The name of the case; what belongs to it may be long.
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
        rest.get(..end.unwrap_or(rest.len()))
    };
    let words = if let Some(why) = inside("InvalidCertificate(") {
        let meaning = match why {
            // The second is what comes of an authority of the same name.
            "UnknownIssuer" | "BadSignature" => {
                "its certificate is unknown: it is signed by none of redis.tls.ca_file, or of those \
                 that this machine trusts"
            }
            "Expired" | "ExpiredContext" => "its certificate has expired",
            "NotValidYet" | "NotValidYetContext" => "its certificate is not valid yet",
            "NotValidForName" | "NotValidForNameContext" => {
                "its certificate is for another name than the one it is reached by"
            }
            _ => "its certificate is not accepted",
        };
        format!("{meaning} ({why})")
    } else if let Some(why) = inside("AlertReceived(") {
        let meaning = match why {
            "CertificateRequired" => {
                "it asks for a certificate: set redis.tls.cert_file and redis.tls.key_file"
            }
            "UnknownCA"
            | "BadCertificate"
            | "CertificateExpired"
            | "CertificateUnknown"
            | "CertificateRevoked"
            | "UnsupportedCertificate"
            | "AccessDenied"
            | "DecryptError" => "it does not accept the certificate of redis.tls.cert_file",
            _ => "it refused the handshake",
        };
        format!("{meaning} ({why})")
    } else if text.contains("InvalidMessage(InvalidContentType)") {
        "it does not speak TLS on this port: redis:// is for servers that do not".to_owned()
    } else {
        return None;
    };
    Some(Error::Unusable(format!("TLS with it failed: {words}")))
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_handshake_is_told_in_words_that_help() {
        for (text, says) in [
            (
                "Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }",
                "unknown",
            ),
            (
                "Custom { kind: InvalidData, error: InvalidCertificate(NotValidForNameContext { expected: x }) }",
                "another name",
            ),
            (
                "Custom { kind: InvalidData, error: AlertReceived(CertificateRequired) }",
                "redis.tls.cert_file",
            ),
            (
                "Custom { kind: InvalidData, error: InvalidMessage(InvalidContentType) }",
                "redis://",
            ),
        ] {
            match failure(text) {
                Some(Error::Unusable(told)) => assert!(told.contains(says), "{told}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(failure("Connection refused").map(|_| ()), None);
    }
}
