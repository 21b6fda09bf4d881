//! TLS to Redis: whose certificates are believed, which one is shown, and what it means
//! when a handshake fails. It does not know where the server is.

use std::sync::Arc;

use fred::types::config::{TlsConfig, TlsConnector};
use rustls::{ClientConfig, RootCertStore, crypto::ring, sign::SingleCertAndKey};

use crate::{
    config::RedisTls,
    store::{Error, Result},
};

/// How connections to a store begin in TLS. One for all of them: the certificates that a
/// machine trusts take a while to read.
#[derive(Clone, Debug)]
pub struct Connector(Arc<ClientConfig>);

impl Connector {
    /// From the configuration; without any of it, the server is believed as this
    /// machine believes others, and is shown nothing.
    ///
    /// # Errors
    /// [`Error::Unusable`] where TLS cannot be spoken.
    pub fn of(config: &RedisTls) -> Result<Self> {
        let roots = config.roots().unwrap_or_else(|| Arc::new(native_roots()));
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Unusable(format!("TLS with it: {error}")))?
            .with_root_certificates(roots);
        let config = match config.identity() {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// The same for the driver.
    pub(super) fn of_driver(&self) -> TlsConfig {
        TlsConnector::from(ClientConfig::clone(&self.0)).into()
    }
}

fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates that this machine trusts not read");
    }
    let (read, _) = roots.add_parsable_certificates(found.certs);
    if read == 0 {
        tracing::warn!("this machine trusts no certificates; name some by redis.tls.ca_file");
    }
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
