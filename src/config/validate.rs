//! Which values make sense, alone and together. It does not know how a value
//! was written or who gave it.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::EnvFilter;

use super::{
    Backend, Config, audit, checkpoint, master_key, plan, price, session, tls, trace,
    unit::write_duration, watch,
};

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;
/// What a message needs beside a value: a key, tags, a content type, framing.
const ENVELOPE_BYTES: usize = 16 * KIB;
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The schemes of a Redis URL.
const SCHEMES: [&str; 7] = [
    "redis",
    "rediss",
    "redis-cluster",
    "rediss-cluster",
    "redis-sentinel",
    "rediss-sentinel",
    "redis+unix",
];

/// Items of a batch: half of the writes that one commit takes, as each may end a lease
/// as well.
const MOST_BATCH_ITEMS: usize = 2048;

/// Takes the path of a setting, and what is wrong with it.
pub(super) type Note<'a> = &'a mut dyn FnMut(&str, String);

/// Checks everything; notes every problem.
pub(super) fn check(config: &Config, note: Note<'_>) {
    server(config, note);
    store(config, note);
    master_key::check(&config.encryption, note);
    tenant(config, note);
    price::check(config, note);
    cache(config, note);
    session::check(&config.session, note);
    audit::check(&config.audit, note);
    checkpoint::check(config, note);
    number(note, "metrics.tenants", config.metrics.tenants, 0, 1000);
    if let Err(error) = EnvFilter::builder().parse(&config.log.filter) {
        let allowed = "a level (error, warn, info, debug, trace) or target=level, comma-separated";
        note("log.filter", format!("{error}; allowed is {allowed}"));
    }
    let sample = config.log.access_sample;
    number(note, "log.access_sample", sample, 1, 1_000_000);
    trace::check(&config.trace, note);
}

fn server(config: &Config, note: Note<'_>) {
    let server = &config.server;
    number(note, "server.threads", server.threads, 0, 1024);
    number(
        note,
        "server.max_connections",
        server.max_connections,
        1,
        1_000_000,
    );
    let streams = server.max_streams_per_connection as usize;
    number(
        note,
        "server.max_streams_per_connection",
        streams,
        1,
        65_536,
    );
    number(
        note,
        "server.max_in_flight",
        server.max_in_flight,
        1,
        1_000_000,
    );
    span(
        note,
        "server.max_deadline",
        server.max_deadline,
        Duration::from_millis(10),
        DAY,
    );
    let minute = Duration::from_secs(60);
    let handshake = server.handshake_timeout;
    span(
        note,
        "server.handshake_timeout",
        handshake,
        Duration::from_millis(10),
        minute,
    );
    tls::check(&server.tls, note);
    if server.admin_tls && !server.tls.is_on() {
        let problem = "needs TLS: set server.tls.cert_file and server.tls.key_file";
        note("server.admin_tls", problem.to_owned());
    }
    for (setting, problem) in server.exposed() {
        note(setting, problem);
    }
    if server.listen == server.admin_listen && server.listen.port() != 0 {
        note(
            "server.admin_listen",
            format!("{} is server.listen already", server.listen),
        );
    }
    let room = config.cache.max_value_bytes.saturating_add(ENVELOPE_BYTES);
    if !(room..=512 * MIB).contains(&server.max_message_bytes) {
        note(
            "server.max_message_bytes",
            format!(
                "{} bytes; allowed is {room} (cache.max_value_bytes and 16 KiB around it) to 512 MiB",
                server.max_message_bytes
            ),
        );
    }
    span(
        note,
        "drain.delay",
        config.drain.delay,
        Duration::ZERO,
        10 * minute,
    );
    span(
        note,
        "drain.timeout",
        config.drain.timeout,
        Duration::ZERO,
        60 * minute,
    );
}

fn store(config: &Config, note: Note<'_>) {
    let redis = &config.redis;
    match (config.store.backend, &redis.url) {
        (Backend::Redis, None) => {
            let example = "such as redis://127.0.0.1:6379 (or set REDIS_URL)";
            note(
                "redis.url",
                format!("is needed because store.backend is redis, {example}"),
            );
        }
        (_, Some(url)) => redis_url(url, note),
        (Backend::Embedded, None) => {}
    }
    let in_tls = redis.url.as_ref().is_some_and(|url| {
        // A URL that is none is told of above.
        let scheme = url.expose_secret().split_once("://");
        scheme.is_none_or(|(scheme, _)| scheme.starts_with("rediss"))
    });
    tls::redis::check(&redis.tls, in_tls, note);
    if config.store.ephemeral && config.store.backend == Backend::Redis {
        let message = "only the embedded store can be kept in memory; set store.backend to embedded, \
                       or unset redis.url (REDIS_URL)";
        note("store.ephemeral", message.to_owned());
    }
    number(note, "redis.pool_size", redis.pool_size, 1, 64);
    let (least, most) = (1, 1 << 20);
    number(
        note,
        "redis.invalidation_buffer",
        redis.invalidation_buffer,
        least,
        most,
    );
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(60));
    span(
        note,
        "redis.command_timeout",
        redis.command_timeout,
        least,
        most,
    );
    span(
        note,
        "redis.connect_timeout",
        redis.connect_timeout,
        least,
        most,
    );

    if let Some(key) = &config.auth.admin_key {
        let key = key.expose_secret();
        let visible = key.bytes().all(|b| b.is_ascii_graphic());
        if !(8..=512).contains(&key.len()) || !visible {
            let message = "is not a usable key: 8 to 512 visible ASCII characters are allowed";
            note("auth.admin_key", message.to_owned());
        }
    }
    span(
        note,
        "auth.key_cache_ttl",
        config.auth.key_cache_ttl,
        Duration::ZERO,
        most,
    );
    span(
        note,
        "auth.remembered_ttl",
        config.auth.remembered_ttl,
        Duration::ZERO,
        60 * most,
    );
}

/// Only the form; what is behind it shows when it is used.
fn redis_url(url: &SecretString, note: Note<'_>) {
    let known = url
        .expose_secret()
        .split_once("://")
        .is_some_and(|(scheme, rest)| {
            SCHEMES.contains(&scheme) && !rest.is_empty() && !rest.contains(char::is_whitespace)
        });
    if !known {
        let schemes = SCHEMES.join("://, ");
        note(
            "redis.url",
            format!("is not a URL of Redis; it begins with one of {schemes}://"),
        );
    }
}

fn tenant(config: &Config, note: Note<'_>) {
    let tenant = &config.tenant;
    if !tenant.plans.contains_key(&tenant.default_plan) {
        let plans: Vec<_> = tenant.plans.keys().map(String::as_str).collect();
        note(
            "tenant.default_plan",
            format!(
                "{:?} is not a plan; the plans are: {}",
                tenant.default_plan,
                plans.join(", ")
            ),
        );
    }
    if tenant.max_tenants == 0 {
        note(
            "tenant.max_tenants",
            "0 leaves room for none; allowed is 1 or more, or -1".to_owned(),
        );
    }
    span(
        note,
        "tenant.delete_grace",
        tenant.delete_grace,
        Duration::ZERO,
        3650 * DAY,
    );
    for (name, plan) in &tenant.plans {
        let at = format!("tenant.plans.{name}");
        plan::check(&at, plan, config.cache.max_ttl, note);
    }
}

fn cache(config: &Config, note: Note<'_>) {
    let cache = &config.cache;
    number(
        note,
        "cache.max_value_bytes",
        cache.max_value_bytes,
        KIB,
        256 * MIB,
    );
    span(
        note,
        "cache.max_ttl",
        cache.max_ttl,
        Duration::from_secs(1),
        3650 * DAY,
    );
    number(
        note,
        "cache.max_batch_items",
        cache.max_batch_items,
        1,
        MOST_BATCH_ITEMS,
    );
    span(
        note,
        "cache.lease.stale_for",
        cache.lease.stale_for,
        Duration::ZERO,
        DAY,
    );
    number(note, "cache.max_tags", cache.max_tags, 0, 64);
    number(note, "cache.max_tag_bytes", cache.max_tag_bytes, 1, 1024);
    number(
        note,
        "cache.near.max_bytes",
        cache.near.max_bytes,
        MIB,
        1 << 40,
    );
    let warm_start = &cache.warm_start;
    number(note, "cache.warm_start.keys", warm_start.keys, 1, 1_000_000);
    span(
        note,
        "cache.warm_start.timeout",
        warm_start.timeout,
        Duration::ZERO,
        Duration::from_secs(600),
    );
    let compression = &cache.compression;
    let saving = usize::from(compression.min_saving_percent);
    number(note, "cache.compression.min_saving_percent", saving, 0, 90);
    number(
        note,
        "cache.compression.min_bytes",
        compression.min_bytes,
        0,
        256 * MIB,
    );
    watch::check(&cache.watch, note);
}

pub(super) fn number(note: Note<'_>, path: &str, value: usize, least: usize, most: usize) {
    if !(least..=most).contains(&value) {
        note(
            path,
            format!("{value} is out of bounds; allowed is {least} to {most}"),
        );
    }
}

pub(super) fn span(note: Note<'_>, path: &str, value: Duration, least: Duration, most: Duration) {
    if !(least..=most).contains(&value) {
        let [value, least, most] = [value, least, most].map(write_duration);
        note(
            path,
            format!("{value} is out of bounds; allowed is {least} to {most}"),
        );
    }
}
