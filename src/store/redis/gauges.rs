//! What the servers say of themselves in INFO. It does not know who asks.

use std::time::Duration;

use futures::future::try_join_all;

use super::{
    Redis,
    fault::{self, Fault},
    reply,
};
use crate::store::{Gauges, Result};

/// How long all servers together may take.
const PATIENCE: Duration = Duration::from_secs(1);

impl Redis {
    /// See [`crate::store::Store::gauges`].
    pub(super) async fn ask_gauges(&self) -> Result<Gauges> {
        let primaries = self.pool.link()?.one_each();
        let asked = primaries.into_iter().map(|primary| async move {
            let info = self.pool.command("INFO", primary, &[]).await;
            let info = reply::text(&info.map_err(Fault::of_read)?);
            info.ok_or_else(|| fault::corrupt("INFO answered no text"))
        });
        let infos = tokio::time::timeout(PATIENCE, try_join_all(asked))
            .await
            .unwrap_or_else(|_| Err(Fault::Timeout.of_read()))?;
        Ok(infos
            .iter()
            .map(|info| gauges(info))
            .reduce(sum)
            .unwrap_or_default())
    }
}

/// What one server says.
fn gauges(info: &str) -> Gauges {
    let number = |name: &str| -> Option<u64> {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line?.trim().parse().ok()
    };
    // A line a database; one without keys has none, and we use the first.
    let keys = info.lines().find_map(|line| line.strip_prefix("db0:keys="));
    let keys = keys.and_then(|keys| keys.split(',').next()?.parse().ok());
    Gauges {
        used_bytes: number("used_memory"),
        limit_bytes: number("maxmemory").filter(|limit| *limit > 0),
        records: Some(keys.unwrap_or(0)),
        operations_per_second: number("instantaneous_ops_per_sec"),
        expired: number("expired_keys"),
        evicted: number("evicted_keys"),
    }
}

/// Of two servers together; what one cannot tell is not known of both.
fn sum(one: Gauges, other: Gauges) -> Gauges {
    let sum = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
    Gauges {
        used_bytes: sum(one.used_bytes, other.used_bytes),
        limit_bytes: sum(one.limit_bytes, other.limit_bytes),
        records: sum(one.records, other.records),
        operations_per_second: sum(one.operations_per_second, other.operations_per_second),
        expired: sum(one.expired, other.expired),
        evicted: sum(one.evicted, other.evicted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Memory\r\nused_memory:1000\r\nused_memory_rss:2000\r\nmaxmemory:0\r\n\
        # Stats\r\ninstantaneous_ops_per_sec:7\r\nexpired_keys:3\r\nevicted_keys:0\r\n\
        # Keyspace\r\ndb0:keys=12,expires=5,avg_ttl=9\r\n";

    #[test]
    fn what_a_server_says_is_read_by_name() {
        let expected = Gauges {
            used_bytes: Some(1000),
            limit_bytes: None,
            records: Some(12),
            operations_per_second: Some(7),
            expired: Some(3),
            evicted: Some(0),
        };
        assert_eq!(gauges(INFO), expected);
        let empty = gauges("maxmemory:500\r\n");
        assert_eq!((empty.limit_bytes, empty.records), (Some(500), Some(0)));
        assert_eq!(empty.used_bytes, None);
    }

    #[test]
    fn servers_together_have_a_limit_if_each_has() {
        let limited = gauges(&INFO.replace("maxmemory:0", "maxmemory:500"));
        assert_eq!(sum(limited, limited).limit_bytes, Some(1000));
        let both = sum(limited, gauges(INFO));
        assert_eq!((both.limit_bytes, both.records), (None, Some(24)));
    }
}
