//! TLS to Redis: whose certificates are believed, which one is shown, and what it means
//! when a handshake fails. It does not know where the server is.

use std::sync::Arc;

use fred::types::config::{TlsConfig, TlsConnector};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
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
    tls::{self, Settings},
};

const SETTINGS: Settings = Settings {
    ca_file: "redis.tls.ca_file",
    identity: Some(["redis.tls.cert_file", "redis.tls.key_file"]),
    plain: "redis://",
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
        let roots = tls::trusted(config.roots(), SETTINGS.ca_file).map_err(Error::Unusable)?;
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
        let mut config = tls::client()
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

/// What the driver's words for a failed handshake mean to who set it up; `None` where
/// they are about something else.
pub(super) fn failure(text: &str) -> Option<Error> {
    let words = tls::failure(text, &SETTINGS)?;
    Some(Error::Unusable(format!("TLS with it failed: {words}")))
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_handshake_is_told_by_the_settings_of_redis() {
        for (text, says) in [
            ("InvalidCertificate(UnknownIssuer)", "redis.tls.ca_file"),
            ("AlertReceived(CertificateRequired)", "redis.tls.cert_file"),
            ("InvalidMessage(InvalidContentType)", "redis://"),
        ] {
            match failure(text) {
                Some(Error::Unusable(told)) => assert!(told.contains(says), "{told}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(failure("Connection refused").map(|_| ()), None);
    }
}
