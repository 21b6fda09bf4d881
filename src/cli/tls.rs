//! `tls init`: certificates to develop with, and what to type to use them. It asks no
//! server, and does not know how one uses them.

mod certificates;
mod files;

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use self::certificates::{Client, Made};
use super::{
    client::Global,
    failure::{Exit, Failure},
    output::show,
};
use crate::config::Identity;

/// By what this machine is reached on itself.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Names of files that clients' would collide with.
const TAKEN: [&str; 2] = ["ca", "server"];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a certificate authority, a certificate of the server and certificates of
    /// clients, for development; asks no server.
    Init(Init),
}

#[derive(Args, Debug)]
pub(super) struct Init {
    /// The folder that the files are written to; made where there is none.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A name or an IP address of the server, beside localhost, 127.0.0.1 and ::1; can
    /// be given many times.
    #[arg(long = "host", value_name = "NAME_OR_IP")]
    hosts: Vec<String>,
    /// A client that gets a certificate, CN=NAME; with a URI where one is given, such as
    /// ops=spiffe://platform/ops. Can be given many times.
    #[arg(long = "client", value_name = "NAME[=URI]", value_parser = client)]
    clients: Vec<Client>,
    /// How long all of them are good, in days, 1 to 825.
    #[arg(long, value_name = "NUMBER", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=825))]
    days: u16,
    /// Replace files that are there already.
    #[arg(long)]
    force: bool,
}

impl Command {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(global),
        }
    }
}

fn client(text: &str) -> Result<Client, String> {
    let (name, uri) = match text.split_once('=') {
        Some((name, uri)) => (name, Some(uri)),
        None => (text, None),
    };
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=63).contains(&name.len()) || !name.bytes().all(allowed) || TAKEN.contains(&name) {
        return Err(format!(
            "{name:?} is no name of a client; allowed are 1 to 63 of a-z, 0-9 and -, but not ca and server"
        ));
    }
    if let Some(uri) = uri
        && (uri.contains(',') || !matches!(Identity::parse(uri), Ok(Identity::Uri(_))))
    {
        return Err(format!("{uri:?} is no URI such as spiffe://platform/ops"));
    }
    Ok(Client {
        name: name.to_owned(),
        uri: uri.map(str::to_owned),
    })
}

impl Init {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let mut hosts = HERE.map(str::to_owned).to_vec();
        for host in &self.hosts {
            if !hosts.contains(host) {
                hosts.push(host.clone());
            }
        }
        let mut names: Vec<_> = self.clients.iter().map(|client| &client.name).collect();
        names.sort();
        if let Some([twice, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(Failure::usage(format!("--client: {twice} is named twice")));
        }
        let out = std::path::absolute(&self.out)
            .map_err(|error| Failure::usage(format!("--out: {error}")))?;
        let made = certificates::make(&hosts, &self.clients, self.days)?;
        files::write(&out, &made.files, self.force)?;
        let told = Told {
            hosts,
            clients: self.clients,
            days: self.days,
            made,
            out,
        };
        let result = json!({
            "folder": told.out,
            "expire_time": told.made.expire_time,
            "files": told.made.files.iter().map(|file| told.out.join(&file.name)).collect::<Vec<_>>(),
            "settings": told.settings(),
            "environment": told.environment(),
        });
        show(global.output, &result, || told.text())
    }
}

/// What was made, as it is told.
struct Told {
    hosts: Vec<String>,
    clients: Vec<Client>,
    days: u16,
    made: Made,
    out: PathBuf,
}

impl Told {
    fn path(&self, name: &str) -> String {
        self.out.join(name).display().to_string()
    }

    /// Settings of the server, under `persistence.server.tls`.
    fn settings(&self) -> BTreeMap<&'static str, String> {
        let mut settings = BTreeMap::from([
            ("cert_file", self.path("server.crt")),
            ("key_file", self.path("server.key")),
        ]);
        if !self.clients.is_empty() {
            let admins: Vec<_> = self.clients.iter().map(Client::identity).collect();
            settings.insert("client_ca_file", self.path("ca.crt"));
            settings.insert("client_auth", "required".to_owned());
            settings.insert("admins", admins.join(", "));
        }
        settings
    }

    /// What the commands find in their environment.
    fn environment(&self) -> BTreeMap<&'static str, String> {
        let mut environment = BTreeMap::from([("RIPTIDE_CA_FILE", self.path("ca.crt"))]);
        if let Some(client) = self.clients.first() {
            let name = &client.name;
            environment.insert("RIPTIDE_CERT_FILE", self.path(&format!("{name}.crt")));
            environment.insert("RIPTIDE_KEY_FILE", self.path(&format!("{name}.key")));
        }
        environment
    }

    fn text(&self) -> String {
        let mut text = format!(
            "Written to {}, good for {} days:\n  \
             ca.crt, ca.key: a certificate authority\n  \
             server.crt, server.key: the server {}\n",
            self.out.display(),
            self.days,
            self.hosts.join(", "),
        );
        for client in &self.clients {
            let (name, identity) = (&client.name, client.identity());
            text += &format!("  {name}.crt, {name}.key: the client {identity}\n");
        }
        text += "\nThey are for development: the authority's key lies beside them, and whoever reads it can be\n\
                 the server and every client. In production certificates come from the platform's authority.\n\
                 \nThe server, in persistence.yml:\n\
                 \x20 persistence:\n    server:\n      tls:\n";
        for (name, value) in self.settings() {
            let value = serde_json::Value::from(value);
            text += &format!("        {name}: {value}\n");
        }
        if !self.clients.is_empty() {
            text += "\nA client of server.tls.admins is an admin, and needs no key: name only those that may be.\n";
        }
        text += "\nThe commands, in another terminal:\n";
        for (name, value) in self.environment() {
            text += &format!("  export {name}='{}'\n", value.replace('\'', r"'\''"));
        }
        text += "  riptide-persistence whoami --address https://localhost:50051";
        text
    }
}

/// What went wrong with a certificate.
fn failed(error: impl ToString) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}
