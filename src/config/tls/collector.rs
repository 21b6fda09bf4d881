//! TLS to the collector of traces: whom it is believed by. It does not know what is sent
//! there.

use std::{path::PathBuf, sync::Arc};

use rustls::RootCertStore;

use super::pem::{self, Problem};
use crate::config::{Trace, validate::Note};

const CA_FILE: &str = "trace.otlp_ca_file";

impl Trace {
    /// The certificates that sign the collector's; `None` means those that this machine
    /// trusts.
    pub fn otlp_roots(&self) -> Option<Arc<RootCertStore>> {
        // What is wrong with them was told when the settings were checked.
        self.read_roots().ok().flatten()
    }

    /// The file.
    pub(in crate::config) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.otlp_ca_file.iter()
    }

    fn read_roots(&self) -> Result<Option<Arc<RootCertStore>>, Problem> {
        let read = |_| pem::roots(CA_FILE, self.otlp_ca.as_ref());
        self.otlp_ca_file.as_ref().map(read).transpose()
    }
}

/// `in_tls` tells whether the endpoint asks for TLS; without it the file would be of no use.
pub(in crate::config) fn check(trace: &Trace, in_tls: bool, note: Note<'_>) {
    if let Err((path, problem)) = trace.read_roots() {
        note(path, problem);
    }
    if trace.otlp_ca_file.is_some() && !in_tls {
        let problem = "is set, but trace.otlp_endpoint asks for no TLS: it begins with https:// \
                       where it does";
        note(CA_FILE, problem.to_owned());
    }
}
