//! Reads a store's URL into what the driver is configured with. It does not
//! connect, and never repeats the URL, which may hold a password.

use std::time::Duration;

use fred::{
    socket2::TcpKeepalive,
    types::{
        RespVersion,
        config::{
            Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, TcpConfig,
            UnresponsiveConfig,
        },
    },
};
use secrecy::{ExposeSecret, SecretString};

use super::{Settings, tls::Connector};
use crate::{config::RedisTls, store::Error};

const SCHEMES: [&str; 8] = [
    "redis",
    "rediss",
    "redis-cluster",
    "rediss-cluster",
    "redis-sentinel",
    "rediss-sentinel",
    "redis+unix",
    "unix",
];

const ALLOWED: &str = "redis.url: allowed are redis://[user:password@]host:port[/database], rediss:// for TLS, \
    redis-cluster://host:port?node=host:port, redis-sentinel://host:port?sentinelServiceName=name&node=host:port \
    (both also as rediss-), and unix:///path/of/socket";

/// Whether a URL asks for TLS.
pub(super) fn is_tls(url: &SecretString) -> bool {
    url.expose_secret().trim().starts_with("rediss")
}

/// The driver's configuration for these settings.
pub(super) fn config(settings: &Settings) -> Result<Config, Error> {
    let url = settings.url.expose_secret().trim();
    let wrong = |what: &str| Error::Unusable(format!("{ALLOWED}; {what}"));
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| wrong("there is no scheme"))?;
    if !SCHEMES.contains(&scheme) {
        return Err(wrong("the scheme is another"));
    }
    if scheme.ends_with("unix") && !rest.contains('/') {
        return Err(wrong("the path of the socket is missing"));
    }
    let read = match (scheme.ends_with("unix"), rest.split_once("@/")) {
        // The driver's reader wants a host after a password, and then ignores it.
        (true, Some((user, path))) if !user.contains('/') => {
            Config::from_url(&format!("redis+unix://{user}@localhost/{path}"))
        }
        (true, _) => Config::from_url(&format!("redis+unix://{rest}")),
        // By itself the driver would speak TLS as this machine does with all others.
        _ => match scheme.strip_prefix("rediss") {
            Some(kind) => Config::from_url(&format!("redis{kind}://{rest}")),
            None => Config::from_url(url),
        },
    };
    let mut config = read.map_err(|error| wrong(error.details()))?;
    if is_tls(&settings.url) {
        let connector = match &settings.tls {
            Some(connector) => connector.clone(),
            None => Connector::of(&RedisTls::default())?,
        };
        config.tls = Some(connector.of_driver());
    }
    config.fail_fast = false;
    config.version = RespVersion::RESP3;
    Ok(config)
}

/// How connections behave. Every default of the driver that would wait without
/// end is set.
pub(super) fn behaviour(
    settings: &Settings,
) -> (PerformanceConfig, ConnectionConfig, ReconnectPolicy) {
    let performance = PerformanceConfig {
        default_command_timeout: settings.command_timeout,
        // The driver makes nine channels a client, and room for all of this in each.
        // Only connects and errors are listened to, and of those that were missed the
        // last is enough; who listens for more says so.
        broadcast_channel_capacity: 256,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: settings.connect_timeout,
        internal_command_timeout: settings.connect_timeout,
        max_command_attempts: 1,
        // A redirected command comes back as "not run", after the driver has
        // looked at the slots again; it is repeated here, where that is known.
        max_redirections: 0,
        max_command_buffer_len: 10_000,
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(Duration::from_secs(2)),
            interval: Duration::from_millis(500),
        },
        reconnect_on_auth_error: true,
        tcp: TcpConfig {
            nodelay: Some(true),
            keepalive: Some(TcpKeepalive::new().with_time(Duration::from_secs(10))),
            user_timeout: Some(Duration::from_secs(5)),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    };
    let mut policy = ReconnectPolicy::new_exponential(0, 5, 400, 2);
    policy.set_jitter(5);
    (performance, connection, policy)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings {
            url: url.to_owned().into(),
            pool_size: 1,
            command_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            invalidation_buffer: 8192,
            tls: None,
        }
    }

    #[test]
    fn every_kind_of_address_is_read() {
        for url in [
            "redis://localhost",
            "redis://:pass@localhost:6379/3",
            "rediss://user:pass@localhost:6379",
            "rediss-cluster://a:1?node=b:2",
            "rediss-sentinel://a:1?sentinelServiceName=main",
            "redis-cluster://a:1?node=b:2",
            "redis-sentinel://a:1?sentinelServiceName=main",
            "redis+unix:///run/redis.sock",
            "unix:///run/redis.sock",
            "unix://user:pass@/run/redis.sock",
        ] {
            match config(&settings(url)) {
                Ok(config) => assert_eq!(config.uses_tls(), url.starts_with("rediss")),
                Err(error) => panic!("{url}: {error}"),
            }
        }
        assert!(
            config(&settings("redis-cluster://a:1"))
                .unwrap()
                .server
                .is_clustered()
        );
        assert!(
            config(&settings("unix:///a/b"))
                .unwrap()
                .server
                .is_unix_socket()
        );
    }

    #[test]
    fn a_wrong_address_is_told_what_is_allowed_but_not_repeated() {
        for url in [
            "",
            "localhost:6379",
            "http://:secret@a",
            "redis://:secret@",
            "redis-sentinel://:secret@a:1",
            "unix://a",
        ] {
            let Err(Error::Unusable(words)) = config(&settings(url)) else {
                panic!("{url} was read")
            };
            assert!(
                words.contains("redis://") && !words.contains("secret"),
                "{words}"
            );
        }
    }
}
