//! What an operator sets. Each section is a plain struct; where a value came
//! from is [`load`]'s business, and no section knows who reads it.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;

/// The whole configuration, valid.
#[derive(Clone, Debug)]
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
    /// Tenants and their plans.
    pub tenant: Tenant,
    /// Cache entries.
    pub cache: Cache,
    /// Logging.
    pub log: Log,
}

/// The listeners and their limits.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Where probes are served over HTTP/1.
    pub admin_listen: SocketAddr,
    /// How cores are used.
    pub runtime: Runtime,
    /// Threads that serve calls; 0 means one per core.
    pub threads: usize,
    /// Whether reflection is served; by default only on loopback.
    pub reflection: Reflection,
    /// Connections, over all cores.
    pub max_connections: usize,
    /// Concurrent calls on one connection.
    pub max_streams_per_connection: u32,
    /// Calls in flight, over all connections; beyond it calls are shed.
    pub max_in_flight: usize,
    /// Bytes of a request message.
    pub max_message_bytes: usize,
    /// The deadline of a call that brings none, and the longest one honoured.
    pub max_deadline: Duration,
    /// How long a new connection may take to begin HTTP/2.
    pub handshake_timeout: Duration,
    /// Listen beyond loopback although nothing is encrypted.
    pub allow_plaintext_beyond_loopback: bool,
}

/// How cores are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// One single-threaded runtime per core.
    PerCore,
    /// One runtime over all cores.
    MultiThread,
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

/// How the server goes away.
#[derive(Clone, Debug)]
pub struct Drain {
    /// How long it says NOT_SERVING before it stops taking calls.
    pub delay: Duration,
    /// How long calls may take to finish then.
    pub timeout: Duration,
}

/// Which store.
#[derive(Clone, Debug)]
pub struct Store {
    /// The backend.
    pub backend: Backend,
    /// Where the embedded store keeps its file, and the server its admin key.
    pub path: PathBuf,
    /// Keep everything in memory (`serve --ephemeral`).
    pub ephemeral: bool,
}

/// The kinds of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A file, or memory, of this process.
    Embedded,
    /// A Redis server, Cluster or Sentinel group.
    Redis,
}

/// The connection to Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    /// Its URL; may hold a password.
    pub url: Option<SecretString>,
    /// Connections per core.
    pub pool_size: usize,
    /// How long a command may take.
    pub command_timeout: Duration,
    /// How long a connection may take.
    pub connect_timeout: Duration,
}

/// Credentials.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The admin key; made at first start where none is given.
    pub admin_key: Option<SecretString>,
    /// How long an API key that was looked up is remembered.
    pub key_cache_ttl: Duration,
}

/// Tenants and their plans.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The plan of a tenant that names none.
    pub default_plan: String,
    /// Tenants the service holds, deleted ones included; -1 means unlimited.
    pub max_tenants: i64,
    /// How long a deleted tenant can be undeleted.
    pub delete_grace: Duration,
    /// The plans by name.
    pub plans: BTreeMap<String, Plan>,
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The limits of a tenant on it.
    pub quotas: Quotas,
    /// How long entries live that are set without a time; `None` means for ever.
    pub default_ttl: Option<Duration>,
}

/// A plan's limits; -1 means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Bytes of cache entries.
    pub memory_bytes: i64,
    /// Cache entries.
    pub cache_entries: i64,
    /// Bytes of sessions.
    pub storage_bytes: i64,
    /// Calls in any minute.
    pub operations_per_minute: i64,
    /// Bytes in and out in a billing period.
    pub data_transfer_bytes: i64,
    /// Sessions alive.
    pub active_sessions: i64,
}

/// Cache entries.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Bytes of a value.
    pub max_value_bytes: usize,
    /// The longest time to live.
    pub max_ttl: Duration,
    /// Items of a batch.
    pub max_batch_items: usize,
    /// Tags of an entry.
    pub max_tags: usize,
    /// Bytes of a tag.
    pub max_tag_bytes: usize,
    /// Compression of values.
    pub compression: Compression,
}

/// Compression of values.
#[derive(Clone, Debug)]
pub struct Compression {
    /// Whether values are compressed.
    pub enabled: bool,
    /// Only values of at least so many bytes.
    pub min_bytes: usize,
    /// Only where it saves so many per cent.
    pub min_saving_percent: u8,
}

/// Logging.
#[derive(Clone, Debug)]
pub struct Log {
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it.
    pub filter: String,
    /// How it is written.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}
