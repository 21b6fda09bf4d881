//! The Redis backend against real servers that are killed, frozen, full, wrong,
//! or many. It does not know the promises of the port, which conformance.rs holds
//! every backend to.

use std::time::Duration;

use riptide_persistence::store::{
    Store,
    redis::{Redis, Settings},
};

/// Short enough that a frozen server is noticed soon.
const TIMEOUT: Duration = Duration::from_millis(400);

fn open(url: &str) -> Redis {
    let settings = Settings {
        url: url.to_owned().into(),
        pool_size: 2,
        command_timeout: TIMEOUT,
        connect_timeout: Duration::from_secs(1),
    };
    Redis::connect(&settings).unwrap()
}

/// A store that has reached its server.
pub async fn connected(url: &str) -> Redis {
    let store = open(url);
    answering(&store).await;
    store
}

/// Waits until the server answers.
async fn answering(store: &Redis) {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while let Err(error) = store.ping().await {
        assert!(tokio::time::Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
