//! Which listeners others than this machine could reach while nothing encrypts what is
//! said there. It does not know what is said.

use std::net::SocketAddr;

use super::Server;

impl Server {
    /// The listeners beyond loopback that neither TLS protects nor a setting allows:
    /// the setting of each, and what is allowed.
    pub fn exposed(&self) -> Vec<(&'static str, String)> {
        let everything = "server.allow_plaintext_beyond_loopback";
        let calls = Listener {
            setting: "server.listen",
            address: self.listen,
            open: self.tls.is_on() || self.allow_plaintext_beyond_loopback,
            tls: "set server.tls.cert_file and server.tls.key_file",
            allowing: everything.to_owned(),
        };
        let probes = Listener {
            setting: "server.admin_listen",
            address: self.admin_listen,
            open: self.admin_tls
                || self.allow_plaintext_admin_beyond_loopback
                || self.allow_plaintext_beyond_loopback,
            tls: "set server.admin_tls to true (with server.tls)",
            allowing: format!("server.allow_plaintext_admin_beyond_loopback (or {everything})"),
        };
        [calls, probes]
            .into_iter()
            .filter_map(Listener::problem)
            .collect()
    }
}

struct Listener {
    setting: &'static str,
    address: SocketAddr,
    /// Whether it may be anywhere.
    open: bool,
    tls: &'static str,
    allowing: String,
}

impl Listener {
    fn problem(self) -> Option<(&'static str, String)> {
        let Self {
            setting,
            address,
            open,
            tls,
            allowing,
        } = self;
        (!open && !address.ip().is_loopback()).then(|| {
            let problem = format!(
                "{address} is beyond loopback, and nothing encrypts what is said there; listen on \
                 127.0.0.1 or [::1], {tls}, or set {allowing} to true where something else \
                 protects it"
            );
            (setting, problem)
        })
    }
}
