//! The one table of all metrics: what each is called, how it is labelled and what it
//! means. docs/metrics.md is made of it. It does not know where the figures come from.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows only, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by buckets.
    Histogram,
    /// Always 1; its labels are the point.
    Info,
}

impl Kind {
    /// Its name: `counter`, `gauge`, `histogram` or `info`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name in queries; a histogram's has `_bucket`, `_sum` and `_count` behind it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it is measured in: `seconds`, `bytes` or nothing, in which case it counts.
    pub unit: &'static str,
    /// What it means.
    pub help: &'static str,
}

macro_rules! families {
    ($($id:ident: $kind:ident $name:literal [$($label:literal)*] $unit:literal $help:literal)*) => {
        $(pub(super) const $id: Family = Family {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            unit: $unit,
            help: $help,
        };)*

        /// All metrics, in the order they are told.
        pub const FAMILIES: &[Family] = &[$($id),*];
    };
}

families! {
    GRPC_STARTED: Counter "grpc_server_started_total" ["grpc_type" "grpc_service" "grpc_method"] ""
        "Calls that began. Those of paths that are no RPC are of the service and method `unknown`."
    GRPC_HANDLED: Counter "grpc_server_handled_total" ["grpc_type" "grpc_service" "grpc_method" "grpc_code"] ""
        "Calls that ended, by the name of their code, such as `ResourceExhausted`. A call whose caller went away is `Canceled`."
    GRPC_RECEIVED: Counter "grpc_server_msg_received_total" ["grpc_type" "grpc_service" "grpc_method"] ""
        "Messages received, counted when their call ends."
    GRPC_SENT: Counter "grpc_server_msg_sent_total" ["grpc_type" "grpc_service" "grpc_method"] ""
        "Messages sent, counted when their call ends."
    GRPC_HANDLING: Histogram "grpc_server_handling_seconds" ["grpc_type" "grpc_service" "grpc_method"] "seconds"
        "How long calls took; of a stream, until its end. An RPC has a histogram once it was called."
    GRPC_CONNECTIONS: Gauge "riptide_grpc_connections" [] ""
        "Connections that are open."
    GRPC_IN_FLIGHT: Gauge "riptide_grpc_in_flight" [] ""
        "Calls in flight; `server.max_in_flight` bounds them."
    GRPC_REFUSALS: Counter "riptide_grpc_refusals_total" ["reason"] ""
        "Calls answered by an error, by its reason (docs/errors.md). Failed items of batches are not among them."

    TENANT_OPERATIONS: Counter "riptide_tenant_operations_total" ["tenant"] ""
        "Operations of tenants at this replica, as they are billed."
    TENANT_ERRORS: Counter "riptide_tenant_errors_total" ["tenant"] ""
        "Calls with a tenant's keys that were answered by an error."
    TENANT_THROTTLED: Counter "riptide_tenant_throttled_total" ["tenant"] ""
        "Calls that passed a quota or a rate, whatever its mode."
    TENANT_HITS: Counter "riptide_tenant_hits_total" ["tenant"] ""
        "Keys read and found."
    TENANT_MISSES: Counter "riptide_tenant_misses_total" ["tenant"] ""
        "Keys read and not found."
    TENANT_RECEIVED: Counter "riptide_tenant_received_bytes_total" ["tenant"] "bytes"
        "Keys and values that callers sent."
    TENANT_SENT: Counter "riptide_tenant_sent_bytes_total" ["tenant"] "bytes"
        "Keys and values that callers were sent."

    CACHE_READS: Counter "riptide_cache_reads_total" ["result"] ""
        "Keys read: found in this replica's memory (`near_hit`), found in the store (`hit`), or not found (`miss`)."
    CACHE_WRITES: Counter "riptide_cache_writes_total" ["kind"] ""
        "Entries set (`set`), deleted (`delete`), and given another time to live by Touch (`touch`)."
    CACHE_INVALIDATIONS: Counter "riptide_cache_invalidations_total" ["kind"] ""
        "InvalidateCache that was done, by what it named: `keys`, `prefix`, `tags`, `namespace` or `tenant`. A call counts once, whatever it hid."
    CACHE_LEASES: Counter "riptide_cache_leases_total" ["result"] ""
        "GetOrLease, by what its caller was told: the entry (`hit`), to refill it (`granted`), to come again (`wait`), or that with the entry as it was (`stale`)."
    CACHE_WARMED: Counter "riptide_cache_warmed_total" ["outcome"] ""
        "Items of WarmCache: entries `stored`; keys `pulled` into memory, `not_kept` there, or `missing`; and what `failed`."
    CACHE_WATCHERS: Gauge "riptide_cache_watchers" [] ""
        "Open calls of WatchInvalidations that have been let in."
    CACHE_NEAR_ENTRIES: Gauge "riptide_cache_near_entries" [] ""
        "Entries kept in this replica's memory."
    CACHE_NEAR_BYTES: Gauge "riptide_cache_near_bytes" [] "bytes"
        "What they take."
    CACHE_NEAR_MAX: Gauge "riptide_cache_near_max_bytes" [] "bytes"
        "What they may take: `cache.near.max_bytes`; 0 where nothing is kept."
    CACHE_NEAR_EVICTIONS: Counter "riptide_cache_near_evictions_total" [] ""
        "Entries that left this replica's memory for want of room."
    CACHE_NEAR_INVALIDATIONS: Counter "riptide_cache_near_invalidations_total" [] ""
        "Entries that left it as they were written, deleted or invalidated by key, here or elsewhere. What a prefix, tags, a namespace or a tenant hides is not among them: it leaves when it is asked for."
    CACHE_NEAR_VOUCHED: Gauge "riptide_cache_near_vouched" [] ""
        "1 while the store tells every core of changes, else 0: then some reads go to the store. Not told where nothing is kept."

    STORE_CALLS: Counter "riptide_store_calls_total" ["method" "outcome"] ""
        "Calls of the store that ended, by what came of them."
    STORE_SECONDS: Histogram "riptide_store_call_seconds" ["method"] "seconds"
        "How long calls of the store took. A method has a histogram once it was called."
    STORE_UP: Gauge "riptide_store_up" [] ""
        "1 while the store answers all who need it here, else 0."
    STORE_EXACT: Gauge "riptide_store_usage_exact" [] ""
        "1 while usage is exact; 0 while the store may evict by itself. Not told while it is down."
    STORE_KEYS: Gauge "riptide_store_keys" [] ""
        "Everything stored under a name of its own, of all spaces and kinds. Not told while the store is down."
    STORE_USED: Gauge "riptide_store_used_bytes" [] "bytes"
        "What the store takes: memory of Redis, or the embedded store's file. Not told while it is down."
    STORE_MAX: Gauge "riptide_store_max_bytes" [] "bytes"
        "What it may take: `maxmemory` of Redis. Not told where there is no limit, and by the embedded store."

    REDIS_CONNECTIONS: Gauge "riptide_redis_connections" ["role"] ""
        "Connections to Redis that can be used, of all cores: for commands (`calls`), the feed of changes to tenants (`feed`), and to be told of changes to entries (`tracking`). On Redis only, as the next one."
    REDIS_RECONNECTS: Counter "riptide_redis_reconnects_total" ["role"] ""
        "Times that such a connection was lost, or given up as it gave no answers, and made anew."

    QUOTA_REFUSALS: Counter "riptide_quota_refusals_total" ["metric"] ""
        "What was refused for a quota or a rate, by its metric; a platform's own are `custom`. Each refused item of a batch counts."
    QUOTA_WARNINGS: Counter "riptide_quota_warnings_total" ["metric"] ""
        "Calls that passed a quota or a rate in the mode WARN, and went on."
    RATE_LEASES: Counter "riptide_rate_leases_total" [] ""
        "Times that permits of a rate were leased from the store."
    METER_FLUSHES: Counter "riptide_meter_flushes_total" ["outcome"] ""
        "Flushes of usage to the store: `ok` or `failed`. What a failed one carried is sent again."
    METER_OLDEST: Gauge "riptide_meter_oldest_unflushed_seconds" [] "seconds"
        "How long ago the last flush began after which no usage waited: about a second at most, while the store serves."

    CONFIG_RELOADS: Counter "riptide_config_reloads_total" ["outcome"] ""
        "Reloads of the configuration: `applied`, `unchanged` or `rejected`."
    CONFIG_LAST_GOOD: Gauge "riptide_config_last_reload_successful" [] ""
        "0 while the last reload was rejected, else 1."
    CONFIG_LAST_TIME: Gauge "riptide_config_last_reload_timestamp_seconds" [] "seconds"
        "When the configuration in force was loaded, in seconds since 1970."

    TLS_REFUSED: Counter "riptide_tls_handshake_failures_total" [] ""
        "Handshakes of TLS that were refused, by either side: no certificate, a wrong one, or no TLS at all."
    TLS_EXPIRY: Gauge "riptide_tls_certificate_expiry_timestamp_seconds" [] "seconds"
        "When the certificate that is shown to callers expires, in seconds since 1970. Absent without TLS."

    CHECKPOINTS: Counter "riptide_checkpoints_total" ["kind" "outcome"] ""
        "Checkpoints that ended at this replica, by why they were taken (`MANUAL`, `SCHEDULED`, `SHUTDOWN`, `SAFETY`): `taken` or `failed`."
    CHECKPOINT_LAST: Gauge "riptide_checkpoint_last_success_timestamp_seconds" [] "seconds"
        "When this replica took one last, in seconds since 1970; of a fleet's replicas the latest counts. Not told before the first."
    CHECKPOINT_TOOK: Histogram "riptide_checkpoint_duration_seconds" [] "seconds"
        "How long those took that were taken."
    CHECKPOINT_BYTES: Gauge "riptide_checkpoint_last_size_bytes" [] "bytes"
        "What the last one takes in the object store. Not told before the first."
    RESTORES: Counter "riptide_restores_total" ["outcome"] ""
        "Restores that ended at this replica: `done`, or `failed` in all or for some tenants."
    AUDIT: Counter "riptide_audit_events_total" ["outcome"] ""
        "Events of the audit log: `kept` in the store, or `lost` for want of room while the store was away."

    SESSIONS_CREATED: Counter "riptide_sessions_created_total" [] ""
        "Sessions created."
    SESSIONS_TERMINATED: Counter "riptide_sessions_terminated_total" ["cause"] ""
        "Sessions that a caller ended: one by one (`session`), or those of a user (`user`). Those that end by themselves are not known here."

    HEALTH: Gauge "riptide_health_serving" ["service"] ""
        "What `grpc.health.v1` says of each of its names, the empty one as `all`: 1 for SERVING, else 0."
    BUILD: Info "riptide_build_info" ["version" "commit" "backend"] ""
        "What runs."
    RUNTIME_TASKS: Gauge "riptide_runtime_tasks" ["core"] ""
        "Tasks alive on each core; `background` and `checkpoints` serve no calls."
    RUNTIME_BUSY: Counter "riptide_runtime_busy_seconds_total" ["core"] "seconds"
        "Time in which each core had something to do."

    PROCESS_CPU: Counter "process_cpu_seconds_total" [] "seconds"
        "CPU time of the process, user and system. This one and those below are told on Linux only."
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" [] "bytes"
        "Memory of the process that is resident."
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" [] "bytes"
        "Virtual memory of the process."
    PROCESS_FDS: Gauge "process_open_fds" [] ""
        "File descriptors that are open."
    PROCESS_MAX_FDS: Gauge "process_max_fds" [] ""
        "How many may be open."
    PROCESS_START: Gauge "process_start_time_seconds" [] "seconds"
        "When the process began, in seconds since 1970."
    PROCESS_THREADS: Gauge "process_threads" [] ""
        "Threads of the process."
}
