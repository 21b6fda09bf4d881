//! Reaching a server: its address, the API key, deadlines. It does not know what
//! is asked.

mod admin;

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use clap::Args;
use jiff::{Timestamp as Moment, civil::Date, tz::TimeZone};
use prost_types::Timestamp;
use secrecy::ExposeSecret;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Uri},
};
use tonic_health::pb::health_client::HealthClient;

pub(super) use self::admin::{Admin, Kind, Silence};
use super::{
    failure::{Exit, Failure},
    output::Format,
};
use crate::{
    client::{self, MESSAGE_BYTES, Trust, Unconnected},
    config::{self, Config, Sources, Tls},
    proto::v1::{
        cache_service_client::CacheServiceClient, state_service_client::StateServiceClient,
        tenant_service_client::TenantServiceClient,
    },
};

/// The options of all commands.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of all commands")]
pub(super) struct Global {
    /// The settings' file [env: PERSISTENCE_CONFIG=] [default: ./persistence.yml
    /// if it exists].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The server's address, https:// where it speaks TLS [default: `server.listen` of
    /// the settings, which is http://127.0.0.1:50051 where nothing else is set].
    #[arg(long, global = true, value_name = "URL", env = "RIPTIDE_ADDRESS")]
    address: Option<String>,
    /// The API key. Without one, and for a server on this machine, the admin key
    /// of the settings or of <store.path>/admin.key is used.
    #[arg(
        long = "key",
        global = true,
        value_name = "KEY",
        env = "RIPTIDE_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
    /// Whose certificates are trusted, in PEM [default: those that this machine trusts].
    #[arg(long, global = true, value_name = "FILE", env = "RIPTIDE_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// A certificate that says who calls, where the server asks for one, in PEM; needs
    /// --key-file. With it the admin key of this machine is not looked for.
    #[arg(long, global = true, value_name = "FILE", env = "RIPTIDE_CERT_FILE")]
    cert_file: Option<PathBuf>,
    /// The private key of --cert-file, in PEM.
    #[arg(long, global = true, value_name = "FILE", env = "RIPTIDE_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// The tenant; may be left out with a tenant's own key.
    #[arg(long, global = true, value_name = "ID", env = "RIPTIDE_TENANT")]
    pub(super) tenant: Option<String>,
    /// The cache's namespace [default: `default`].
    #[arg(long, global = true, value_name = "NAME", env = "RIPTIDE_NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// How results are written.
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    pub(super) output: Format,
    /// How long to wait for the connection, and for each answer.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: Duration,
}

impl Global {
    /// The tenant of a request about the data of one.
    pub(super) fn tenant_id(&self) -> String {
        self.tenant.clone().unwrap_or_default()
    }

    /// The namespace of a request.
    pub(super) fn namespace(&self) -> String {
        self.namespace.clone().unwrap_or_default()
    }

    /// The files of a connection in TLS.
    fn trust(&self) -> Result<Trust, Failure> {
        let identity = match (self.cert_file.clone(), self.key_file.clone()) {
            (Some(cert_file), Some(key_file)) => Some((cert_file, key_file)),
            (None, None) => None,
            (Some(_), None) => return Err(Failure::usage("--cert-file needs --key-file")),
            (None, Some(_)) => return Err(Failure::usage("--key-file needs --cert-file")),
        };
        let ca_file = self.ca_file.clone();
        Ok(Trust { ca_file, identity })
    }

    /// The settings of a server started beside this command; the defaults where
    /// they cannot be used, since a client needs none.
    fn settings(&self) -> Config {
        let loaded = config::load(&Sources::process(self.config.clone(), Vec::new()));
        loaded.map_or_else(|_| Config::defaults(), |loaded| loaded.config)
    }
}

/// Reads a duration for an option.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let allowed = "a duration needs its unit: 500ms, 30s, 12h, 7d";
    config::read_duration(text).ok_or_else(|| allowed.to_owned())
}

/// Reads a time: RFC 3339, or the beginning of a day in UTC.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let read = text.parse::<Moment>().ok().or_else(|| {
        // A date would be read from a time without a zone too.
        let date = text.parse::<Date>().ok().filter(|_| text.len() == 10)?;
        Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
    });
    let read =
        read.ok_or("a date or a time with its zone is allowed: 2026-11-24, 2026-11-24T10:00:00Z")?;
    Ok(Timestamp {
        seconds: read.as_second(),
        nanos: read.subsec_nanosecond(),
    })
}

/// Runs a command that calls a server.
pub(super) fn run(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    runtime.block_on(command)
}

/// A connection to a server.
pub(super) struct Client {
    address: String,
    channel: Channel,
    key: Option<MetadataValue<Ascii>>,
    timeout: Duration,
}

impl Client {
    /// Connects with the API key there is.
    pub(super) async fn connect(global: &Global) -> Result<Self, Failure> {
        let settings = global.settings();
        let uri = address(global, &settings)?;
        // One who shows a certificate is who that says.
        let certified = global.cert_file.is_some() && uri.scheme_str() == Some("https");
        let local = uri.host().is_some_and(loopback) && !certified;
        // The admin key of this machine goes to no other.
        let key = global
            .api_key
            .clone()
            .or_else(|| local.then(|| admin_key(&settings)).flatten());
        let key = key.as_deref().map(client::bearer).transpose()?;
        Self::reach(uri, key, global).await
    }

    /// Connects for what needs no API key.
    pub(super) async fn connect_without_key(global: &Global) -> Result<Self, Failure> {
        Self::reach(address(global, &global.settings())?, None, global).await
    }

    async fn reach(
        uri: Uri,
        key: Option<MetadataValue<Ascii>>,
        global: &Global,
    ) -> Result<Self, Failure> {
        let trust = global.trust()?;
        Ok(Self {
            address: uri.to_string(),
            channel: client::connect(&uri, global.timeout, &trust).await?,
            key,
            timeout: global.timeout,
        })
    }

    /// The server's address.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A request with the API key and the time an answer may take.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.lasting(message);
        request.set_timeout(self.timeout);
        request
    }

    /// A request with the API key, whose answer goes on without end.
    pub(super) fn lasting<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.clone());
        }
        request
    }

    pub(super) fn tenants(&self) -> TenantServiceClient<Channel> {
        TenantServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(super) fn caches(&self) -> CacheServiceClient<Channel> {
        CacheServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    pub(super) fn states(&self) -> StateServiceClient<Channel> {
        StateServiceClient::new(self.channel.clone())
    }

    pub(super) fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }
}

fn address(global: &Global, settings: &Config) -> Result<Uri, Failure> {
    let text = match &global.address {
        Some(address) => address.clone(),
        None => {
            let mut listen = settings.server.listen;
            match listen.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip([127, 0, 0, 1].into()),
                IpAddr::V6(ip) if ip.is_unspecified() => {
                    listen.set_ip(std::net::Ipv6Addr::LOCALHOST.into())
                }
                _ => {}
            }
            let scheme = match &settings.server.tls {
                Tls {
                    cert_file: Some(_),
                    key_file: Some(_),
                    ..
                } => "https",
                _ => "http",
            };
            format!("{scheme}://{listen}")
        }
    };
    Ok(client::uri(&text)?)
}

fn loopback(host: &str) -> bool {
    let ip = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The admin key of a server on this machine.
fn admin_key(settings: &Config) -> Option<String> {
    match &settings.auth.admin_key {
        Some(key) => Some(key.expose_secret().to_owned()),
        None => fs::read_to_string(settings.store.admin_key_file()).ok(),
    }
}

impl From<Unconnected> for Failure {
    fn from(unconnected: Unconnected) -> Self {
        match unconnected {
            Unconnected::Setting { name, problem } => {
                Self::usage(format!("--{}: {problem}", name.replace('_', "-")))
            }
            Unconnected::Unreachable { .. } => {
                Self::new(Exit::Unavailable, format!("{unconnected} (UNAVAILABLE)"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::loopback;

    #[test]
    fn the_local_admin_key_goes_to_this_machine_alone() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"] {
            assert!(loopback(host), "{host}");
        }
        for host in [
            "0.0.0.0",
            "10.0.0.1",
            "127.0.0.1.example.org",
            "localhost.example.org",
            "[::2]",
            "",
        ] {
            assert!(!loopback(host), "{host}");
        }
    }
}
