//! Files of certificates and keys that settings name: what they hold is read with the
//! settings and stands among them, so that another content is a change as any other.
//! It does not know what any of it is used for.

use std::{path::PathBuf, sync::Arc};

use ::config::ValueKind;
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::config::{
    Origin, Problems,
    source::{Given, Layer, Sources},
};

/// What is wrong, and with which setting.
pub(super) type Problem = (&'static str, String);

/// Where a certificate and its key come from.
pub(super) struct Files {
    /// The setting that names the file of the certificate.
    pub(super) cert_file: &'static str,
    /// The setting that names the file of the key.
    pub(super) key_file: &'static str,
}

/// Settings that name a file, and the setting that is what the file holds.
const FILES: [(&str, &str); 7] = [
    ("server.tls.cert_file", "server.tls.certificate"),
    ("server.tls.key_file", "server.tls.key"),
    ("server.tls.client_ca_file", "server.tls.client_ca"),
    ("redis.tls.ca_file", "redis.tls.ca"),
    ("redis.tls.cert_file", "redis.tls.certificate"),
    ("redis.tls.key_file", "redis.tls.key"),
    ("trace.otlp_ca_file", "trace.otlp_ca"),
];

/// Those contents that are never shown.
pub(in crate::config) const KEYS: [&str; 2] = ["server.tls.key", "redis.tls.key"];

/// Reads the files that are named, and puts what they hold among the settings.
pub(in crate::config) fn add(sources: &Sources<'_>, layer: &mut Layer, problems: &mut Problems) {
    for (named, content) in FILES {
        let Some(given) = layer
            .get(named)
            .filter(|given| given.value != ValueKind::Nil)
        else {
            continue;
        };
        let path = PathBuf::from(given.text());
        let origin = given.origin.clone();
        if path.as_os_str().is_empty() {
            continue;
        }
        match (sources.read)(&path) {
            Ok(text) => {
                let value = ValueKind::String(text);
                let origin = Origin::File(path);
                layer.insert(content.to_owned(), Given { value, origin });
            }
            Err(error) => {
                let problem = format!("{} cannot be read: {error}", path.display());
                problems.add(named, &origin, problem);
            }
        }
    }
}

/// What is shown of the content of certificates: a name for it. `None` where the
/// setting is no such content.
pub(in crate::config) fn shown(path: &str, text: &str) -> Option<String> {
    let content = FILES.iter().any(|(_, content)| *content == path);
    content.then(|| {
        let hash = Sha256::digest(text.as_bytes());
        format!("sha256:{}", data_encoding::HEXLOWER.encode(&hash))
    })
}

/// The certificates of a text in PEM, of which there is at least one.
pub(super) fn chain(
    setting: &'static str,
    text: Option<&SecretString>,
) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let text = text.ok_or_else(|| (setting, "was not read".to_owned()))?;
    let chain = CertificateDer::pem_slice_iter(text.expose_secret().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| (setting, format!("is not in PEM: {error}")))?;
    if chain.is_empty() {
        return Err((setting, "holds no certificate in PEM".to_owned()));
    }
    Ok(chain)
}

/// The certificates of a text in PEM as those that sign others.
pub(super) fn roots(
    setting: &'static str,
    text: Option<&SecretString>,
) -> Result<Arc<RootCertStore>, Problem> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in chain(setting, text)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            let number = index + 1;
            (
                setting,
                format!("its certificate {number} cannot be trusted: {error}"),
            )
        })?;
    }
    Ok(Arc::new(roots))
}

/// A certificate with its key. No problem repeats any part of a key.
pub(super) fn certified(
    files: &Files,
    certificate: Option<&SecretString>,
    key: Option<&SecretString>,
) -> Result<CertifiedKey, Problem> {
    let Files {
        cert_file,
        key_file,
    } = *files;
    let chain = chain(cert_file, certificate)?;
    let key = key.ok_or_else(|| (key_file, "was not read".to_owned()))?;
    let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
        .map_err(|_| (key_file, "holds no private key in PEM".to_owned()))?;
    let provider = ring::default_provider();
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| (key_file, "holds no private key that can be used".to_owned()))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => Err((
            key_file,
            format!("is not the key of the certificate in {cert_file}"),
        )),
        Err(error) => Err((cert_file, format!("holds no certificate first: {error}"))),
    }
}
