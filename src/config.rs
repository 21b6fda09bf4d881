//! What an operator sets. Each section is a plain struct, and `default.yaml`
//! holds the defaults; where a value came from is [`load`]'s business, and no
//! section knows who reads it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

mod audit;
mod cache;
mod checkpoint;
mod effect;
mod exposure;
mod live;
mod load;
mod log;
mod master_key;
mod plan;
mod price;
mod problem;
mod schema;
mod session;
mod source;
mod succession;
mod tls;
mod trace;
mod unit;
mod validate;
mod watch;
mod when_down;

pub use audit::Audit;
pub use cache::{Cache, Compression, Lease, Near, WarmStart};
pub use checkpoint::{COMPONENTS, Checkpoint, Schedule};
pub use effect::{Effect, effect};
pub use live::Live;
pub use load::{Loaded, Setting, load};
pub use log::{Access, Log, LogFormat};
pub use master_key::{HOW_TO_MAKE, MASTER_KEY_BYTES, MasterKey, is_master_key_id};
pub use plan::{
    CUSTOM_METRICS, CustomQuota, MAX_WINDOW, METRICS, MIN_WINDOW, Plan, QuotaMode, Quotas,
    is_custom_metric,
};
pub use price::{Billing, BytesPrice, HoursPrice, MAX_PRICE_MICROS, Price, Prices};
pub use problem::{Origin, Problem, Problems};
pub use schema::DEFAULTS;
pub use session::Session;
pub use source::{Flag, Sources};
pub use succession::{Change, Succession, means_the_same};
pub use tls::{ClientAuth, Identity, RedisTls, Tls};
pub use trace::Trace;
pub use unit::{read_duration, read_size};
pub use watch::Watch;
pub use when_down::{WhenDown, WhenStoreIsDown};

/// The name of the file in `store.path` that holds the admin key that was made
/// at first start.
pub const ADMIN_KEY_FILE: &str = "admin.key";

impl Config {
    /// The defaults as they are shipped.
    pub fn defaults() -> Self {
        let sources = Sources {
            file: None,
            env: BTreeMap::new(),
            flags: Vec::new(),
            read: &|_| Err(std::io::ErrorKind::NotFound.into()),
        };
        #[allow(clippy::expect_used)] // default.yaml is part of the binary, and a test loads it
        load(&sources).expect("default.yaml is valid").config
    }
}

impl Store {
    /// Where the admin key is kept that was made at first start.
    pub fn admin_key_file(&self) -> PathBuf {
        Path::new(&self.path).join(ADMIN_KEY_FILE)
    }
}

/// The whole configuration, valid.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listeners and their limits.
    pub server: Server,
    /// How the server goes away.
    pub drain: Drain,
    /// Which store.
    pub store: Store,
    /// The connection to Redis.
    pub redis: Redis,
    /// Credentials.
    pub auth: Auth,
    /// Encryption of values.
    pub encryption: Encryption,
    /// Tenants and their plans.
    pub tenant: Tenant,
    /// Bills.
    pub billing: Billing,
    /// Cache entries.
    pub cache: Cache,
    /// Sessions.
    pub session: Session,
    /// The audit log.
    pub audit: Audit,
    /// Checkpoints.
    pub checkpoint: Checkpoint,
    /// Metrics.
    pub metrics: Metrics,
    /// Logging.
    pub log: Log,
    /// Traces.
    pub trace: Trace,
    /// Reading all of this anew.
    pub reload: Reload,
}

/// Reading the configuration anew.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// Whether a change of the file is noticed.
    #[serde(deserialize_with = "unit::switch")]
    pub watch_file: bool,
}

/// The listeners and their limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where gRPC is served.
    #[serde(deserialize_with = "unit::address")]
    pub listen: SocketAddr,
    /// Where probes are served over HTTP/1.
    #[serde(deserialize_with = "unit::address")]
    pub admin_listen: SocketAddr,
    /// How cores are used.
    pub runtime: Runtime,
    /// Threads that serve calls; 0 means one per core.
    #[serde(deserialize_with = "unit::number")]
    pub threads: usize,
    /// Whether reflection is served; by default only on loopback.
    pub reflection: Reflection,
    /// Connections, over all cores.
    #[serde(deserialize_with = "unit::number")]
    pub max_connections: usize,
    /// Concurrent calls on one connection.
    #[serde(deserialize_with = "unit::number")]
    pub max_streams_per_connection: u32,
    /// Calls in flight, over all connections; beyond it calls are shed.
    #[serde(deserialize_with = "unit::number")]
    pub max_in_flight: usize,
    /// Bytes of a request message.
    #[serde(deserialize_with = "unit::size")]
    pub max_message_bytes: usize,
    /// The deadline of a call that brings none, and the longest one honoured.
    #[serde(deserialize_with = "unit::duration")]
    pub max_deadline: Duration,
    /// How long a new connection may take to begin HTTP/2.
    #[serde(deserialize_with = "unit::duration")]
    pub handshake_timeout: Duration,
    /// Listen beyond loopback although nothing is encrypted.
    #[serde(deserialize_with = "unit::switch")]
    pub allow_plaintext_beyond_loopback: bool,
    /// The same for `admin_listen` alone.
    #[serde(deserialize_with = "unit::switch")]
    pub allow_plaintext_admin_beyond_loopback: bool,
    /// Whether `admin_listen` speaks TLS.
    #[serde(deserialize_with = "unit::switch")]
    pub admin_tls: bool,
    /// TLS of `listen`.
    pub tls: Tls,
}

/// How cores are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// One single-threaded runtime per core.
    PerCore,
    /// One runtime over all cores.
    MultiThread,
}

impl<'de> Deserialize<'de> for Runtime {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        unit::choose(
            value,
            &[
                ("per-core", Self::PerCore),
                ("multi-thread", Self::MultiThread),
            ],
        )
    }
}

/// Whether reflection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reflection {
    /// When `server.listen` is loopback.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl<'de> Deserialize<'de> for Reflection {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        unit::choose(
            value,
            &[("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)],
        )
    }
}

/// How the server goes away.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// How long it says NOT_SERVING before it stops taking calls.
    #[serde(deserialize_with = "unit::duration")]
    pub delay: Duration,
    /// How long calls may take to finish then.
    #[serde(deserialize_with = "unit::duration")]
    pub timeout: Duration,
}

/// Which store.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The backend.
    pub backend: Backend,
    /// Where the embedded store keeps its file, and the server its admin key.
    #[serde(deserialize_with = "unit::path")]
    pub path: PathBuf,
    /// Keep everything in memory (`serve --ephemeral`).
    #[serde(deserialize_with = "unit::switch")]
    pub ephemeral: bool,
}

/// The kinds of store. `auto` in the settings is one of them by the time it is
/// read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A file, or memory, of this process.
    Embedded,
    /// A Redis server, Cluster or Sentinel group.
    Redis,
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let names = [
            ("auto", None),
            ("embedded", Some(Self::Embedded)),
            ("redis", Some(Self::Redis)),
        ];
        let chosen = unit::choose(value, &names)?;
        chosen.ok_or_else(|| serde::de::Error::custom("auto is resolved before it is read"))
    }
}

/// The connection to Redis.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Its URL; may hold a password.
    #[serde(deserialize_with = "unit::secret")]
    pub url: Option<SecretString>,
    /// Connections per core.
    #[serde(deserialize_with = "unit::number")]
    pub pool_size: usize,
    /// How long a command may take.
    #[serde(deserialize_with = "unit::duration")]
    pub command_timeout: Duration,
    /// How long a connection may take.
    #[serde(deserialize_with = "unit::duration")]
    pub connect_timeout: Duration,
    /// How many invalidations may wait to be taken in.
    #[serde(deserialize_with = "unit::number")]
    pub invalidation_buffer: usize,
    /// TLS, where the URL asks for it.
    pub tls: RedisTls,
}

/// Credentials.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The admin key; made at first start where none is given.
    #[serde(deserialize_with = "unit::secret")]
    pub admin_key: Option<SecretString>,
    /// How long an API key that was looked up is remembered.
    #[serde(deserialize_with = "unit::duration")]
    pub key_cache_ttl: Duration,
    /// How long what was looked up of keys and tenants admits calls that may be
    /// answered from memory while the store is down.
    #[serde(deserialize_with = "unit::duration")]
    pub remembered_ttl: Duration,
}

/// Encryption of values in the store.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encryption {
    /// Whether every new tenant is encrypted, whether it asks for that or not.
    #[serde(deserialize_with = "unit::switch")]
    pub enabled: bool,
    /// The keys that wrap the tenants' data keys; see [`Encryption::keys`].
    #[serde(deserialize_with = "unit::secret")]
    pub master_keys: Option<SecretString>,
}

/// Tenants and their plans. The default has no plan, and no tenant fits in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// The plan of a tenant that names none.
    #[serde(deserialize_with = "unit::text")]
    pub default_plan: String,
    /// Tenants the service holds, deleted ones included; -1 means unlimited.
    #[serde(deserialize_with = "unit::limit")]
    pub max_tenants: i64,
    /// How long a deleted tenant can be undeleted.
    #[serde(deserialize_with = "unit::duration")]
    pub delete_grace: Duration,
    /// What becomes of rates while the store cannot be asked.
    pub when_store_is_down: WhenStoreIsDown,
    /// The plans by name.
    pub plans: BTreeMap<String, Plan>,
}

/// Metrics.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Tenants that are told by their names, those that call most; the others together.
    #[serde(deserialize_with = "unit::number")]
    pub tenants: usize,
}
