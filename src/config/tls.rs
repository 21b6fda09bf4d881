//! TLS as it is set: the certificate that a server shows and its private key, whose
//! certificates it takes from clients, and which of those are admins'. It does not know
//! who is shown anything.

pub(super) mod collector;
mod identity;
pub(super) mod pem;
pub(super) mod redis;

use std::{path::PathBuf, sync::Arc};

use rustls::{RootCertStore, sign::CertifiedKey};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use self::pem::{Files, Problem};
pub use self::{identity::Identity, redis::RedisTls};
use super::{unit, validate::Note};

const FILES: Files = Files {
    cert_file: "server.tls.cert_file",
    key_file: "server.tls.key_file",
};
const CLIENT_CA_FILE: &str = "server.tls.client_ca_file";
const CLIENT_AUTH: &str = "server.tls.client_auth";
const ADMINS: &str = "server.tls.admins";

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
    /// The file of the certificates that sign clients', in PEM.
    #[serde(deserialize_with = "unit::optional_path")]
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// Whose certificates make a call without a key an admin's.
    #[serde(deserialize_with = "identity::list")]
    pub admins: Vec<Identity>,
    /// What was in the first file, when the settings were read.
    #[serde(default, deserialize_with = "unit::secret")]
    certificate: Option<SecretString>,
    /// What was in the second one.
    #[serde(default, deserialize_with = "unit::secret")]
    key: Option<SecretString>,
    /// What was in the third one.
    #[serde(default, deserialize_with = "unit::secret")]
    client_ca: Option<SecretString>,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    Off,
    /// One is asked for; who shows none is served, who shows a wrong one is not.
    Optional,
    /// Who shows none is not served.
    Required,
}

impl<'de> Deserialize<'de> for ClientAuth {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        unit::choose(
            value,
            &[
                ("off", Self::Off),
                ("optional", Self::Optional),
                ("required", Self::Required),
            ],
        )
    }
}

impl Tls {
    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some()
    }

    /// The certificate with its key; `None` where it is off.
    pub fn identity(&self) -> Option<Arc<CertifiedKey>> {
        // What is wrong with it was told when the settings were checked.
        self.read_identity().ok().flatten().map(Arc::new)
    }

    /// The certificates that sign those of clients; `None` where clients are asked for
    /// none.
    pub fn client_roots(&self) -> Option<Arc<RootCertStore>> {
        self.read_client_roots().ok().flatten()
    }

    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert_file, &self.key_file, &self.client_ca_file]
            .into_iter()
            .flatten()
    }

    fn read_identity(&self) -> Result<Option<CertifiedKey>, Problem> {
        pair(&FILES, &self.cert_file, &self.key_file)?
            .then(|| pem::certified(&FILES, self.certificate.as_ref(), self.key.as_ref()))
            .transpose()
    }

    fn read_client_roots(&self) -> Result<Option<Arc<RootCertStore>>, Problem> {
        if self.client_auth == ClientAuth::Off {
            return Ok(None);
        }
        pem::roots(CLIENT_CA_FILE, self.client_ca.as_ref()).map(Some)
    }
}

/// Whether both files are named; an error where one is.
fn pair(
    files: &Files,
    cert_file: &Option<PathBuf>,
    key_file: &Option<PathBuf>,
) -> Result<bool, Problem> {
    let needed = |missing, given| Err((missing, format!("is needed beside {given}")));
    match (cert_file, key_file) {
        (None, None) => Ok(false),
        (Some(_), None) => needed(files.key_file, files.cert_file),
        (None, Some(_)) => needed(files.cert_file, files.key_file),
        (Some(_), Some(_)) => Ok(true),
    }
}

pub(super) fn check(tls: &Tls, note: Note<'_>) {
    if let Err((path, problem)) = tls.read_identity() {
        note(path, problem);
    }
    match (tls.client_auth, &tls.client_ca_file) {
        (ClientAuth::Off, None) => {}
        // Whoever set the file believes that certificates are asked for.
        (ClientAuth::Off, Some(_)) => {
            let problem = format!(
                "is off, but {CLIENT_CA_FILE} is set; optional or required is allowed then"
            );
            note(CLIENT_AUTH, problem);
        }
        (_, None) => {
            let problem = format!("is needed because {CLIENT_AUTH} is set");
            note(CLIENT_CA_FILE, problem);
        }
        (_, Some(_)) => {
            if let Err((path, problem)) = tls.read_client_roots() {
                note(path, problem);
            }
        }
    }
    if tls.client_auth != ClientAuth::Off && !tls.is_on() {
        let problem = format!("needs TLS: set {} and {}", FILES.cert_file, FILES.key_file);
        note(CLIENT_AUTH, problem);
    }
    if tls.client_auth == ClientAuth::Off && !tls.admins.is_empty() {
        let problem = format!(
            "is of no use while {CLIENT_AUTH} is off: optional or required asks clients for certificates"
        );
        note(ADMINS, problem);
    }
}
