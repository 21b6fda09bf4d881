//! TLS of the connections to Redis: whom the server is believed by, and what is shown
//! to it. It does not know whether the URL asks for TLS.

use std::{path::PathBuf, sync::Arc};

use rustls::{RootCertStore, sign::CertifiedKey};
use secrecy::SecretString;
use serde::Deserialize;

use super::pem::{self, Files, Problem};
use crate::config::{unit, validate::Note};

const CA_FILE: &str = "redis.tls.ca_file";
const FILES: Files = Files {
    cert_file: "redis.tls.cert_file",
    key_file: "redis.tls.key_file",
};

/// TLS to Redis, where its URL asks for it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisTls {
    /// The file of the certificates that sign the server's; those that this machine
    /// trusts where there is none.
    #[serde(deserialize_with = "unit::optional_path")]
    pub ca_file: Option<PathBuf>,
    /// The file of the certificate that is shown to the server, in PEM.
    #[serde(deserialize_with = "unit::optional_path")]
    pub cert_file: Option<PathBuf>,
    /// The file of its private key, in PEM.
    #[serde(deserialize_with = "unit::optional_path")]
    pub key_file: Option<PathBuf>,
    /// What was in the first one, when the settings were read.
    #[serde(default, deserialize_with = "unit::secret")]
    ca: Option<SecretString>,
    /// What was in the second one.
    #[serde(default, deserialize_with = "unit::secret")]
    certificate: Option<SecretString>,
    /// What was in the third one.
    #[serde(default, deserialize_with = "unit::secret")]
    key: Option<SecretString>,
}

impl RedisTls {
    /// The certificates that sign the server's; `None` means those that this machine
    /// trusts.
    pub fn roots(&self) -> Option<Arc<RootCertStore>> {
        // What is wrong with them was told when the settings were checked.
        self.read_roots().ok().flatten()
    }

    /// The certificate that is shown to the server, with its key.
    pub fn identity(&self) -> Option<Arc<CertifiedKey>> {
        self.read_identity().ok().flatten().map(Arc::new)
    }

    /// The files.
    pub(in crate::config) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.ca_file, &self.cert_file, &self.key_file]
            .into_iter()
            .flatten()
    }

    fn read_roots(&self) -> Result<Option<Arc<RootCertStore>>, Problem> {
        let read = |_| pem::roots(CA_FILE, self.ca.as_ref());
        self.ca_file.as_ref().map(read).transpose()
    }

    fn read_identity(&self) -> Result<Option<CertifiedKey>, Problem> {
        super::pair(&FILES, &self.cert_file, &self.key_file)?
            .then(|| pem::certified(&FILES, self.certificate.as_ref(), self.key.as_ref()))
            .transpose()
    }
}

/// `in_tls` tells whether the URL asks for TLS; without it the files would be of no use.
pub(in crate::config) fn check(tls: &RedisTls, in_tls: bool, note: Note<'_>) {
    if let Err((path, problem)) = tls.read_roots() {
        note(path, problem);
    }
    if let Err((path, problem)) = tls.read_identity() {
        note(path, problem);
    }
    let named = [
        (CA_FILE, &tls.ca_file),
        (FILES.cert_file, &tls.cert_file),
        (FILES.key_file, &tls.key_file),
    ];
    for (setting, _) in named.iter().filter(|(_, file)| !in_tls && file.is_some()) {
        let problem = "is set, but redis.url asks for no TLS: it begins with rediss://, \
                       rediss-cluster:// or rediss-sentinel:// where it does";
        note(setting, problem.to_owned());
    }
}
