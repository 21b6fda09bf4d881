//! The certificate that a server shows, and its private key: what is in their files,
//! and whether the two belong together. It does not know who is shown it.

use std::{path::PathBuf, sync::Arc};

use ::config::ValueKind;
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    Origin, Problems,
    source::{Given, Layer, Sources},
    unit,
    validate::Note,
};

const CERT_FILE: &str = "server.tls.cert_file";
const KEY_FILE: &str = "server.tls.key_file";

/// What was in the files. It stands among the settings, so that another content is a
/// change as any other.
pub(super) const CERTIFICATE: &str = "server.tls.certificate";
/// See [`CERTIFICATE`].
pub(super) const KEY: &str = "server.tls.key";

/// TLS of the listener; off where there is no certificate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The file of the certificate, and of those that lead to its root, in PEM.
    #[serde(deserialize_with = "unit::optional_path")]
    pub cert_file: Option<PathBuf>,
    /// The file of its private key, in PEM.
    #[serde(deserialize_with = "unit::optional_path")]
    pub key_file: Option<PathBuf>,
    /// What was in the first one, when the settings were read.
    #[serde(default, deserialize_with = "unit::secret")]
    certificate: Option<SecretString>,
    /// What was in the second one.
    #[serde(default, deserialize_with = "unit::secret")]
    key: Option<SecretString>,
}

impl Tls {
    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some()
    }

    /// The certificate with its key; `None` where it is off.
    pub fn identity(&self) -> Option<Arc<CertifiedKey>> {
        // What is wrong with it was told when the settings were checked.
        read(self).ok().flatten().map(Arc::new)
    }

    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert_file, &self.key_file].into_iter().flatten()
    }
}

/// Reads the files that are named, and puts what they hold among the settings.
pub(super) fn add(sources: &Sources<'_>, layer: &mut Layer, problems: &mut Problems) {
    for (named, content) in [(CERT_FILE, CERTIFICATE), (KEY_FILE, KEY)] {
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

/// What is shown of a certificate: a name for what its file holds.
pub(super) fn shown(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&hash))
}

pub(super) fn check(tls: &Tls, note: Note<'_>) {
    if let Err((path, problem)) = read(tls) {
        note(path, problem);
    }
}

/// The certificate with its key, or what is wrong, and with which setting. No problem
/// repeats any part of a key.
fn read(tls: &Tls) -> Result<Option<CertifiedKey>, (&'static str, String)> {
    match (&tls.cert_file, &tls.key_file) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err((KEY_FILE, format!("is needed beside {CERT_FILE}"))),
        (None, Some(_)) => return Err((CERT_FILE, format!("is needed beside {KEY_FILE}"))),
        (Some(_), Some(_)) => {}
    }
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return Err((CERT_FILE, "was not read".to_owned()));
    };
    let chain = CertificateDer::pem_slice_iter(certificate.expose_secret().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| (CERT_FILE, format!("is not in PEM: {error}")))?;
    if chain.is_empty() {
        return Err((CERT_FILE, "holds no certificate in PEM".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
        .map_err(|_| (KEY_FILE, "holds no private key in PEM".to_owned()))?;
    let provider = ring::default_provider();
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| (KEY_FILE, "holds no private key that can be used".to_owned()))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) => Ok(Some(identity)),
        Err(rustls::Error::InconsistentKeys(_)) => Err((
            KEY_FILE,
            format!("is not the key of the certificate in {CERT_FILE}"),
        )),
        Err(error) => Err((CERT_FILE, format!("holds no certificate first: {error}"))),
    }
}
