//! Three replicas with one file: changed once, it is in force at all of them.

use std::{fs, time::Instant};

use riptide_persistence::proto::v1::SetRequest;
use tempfile::TempDir;

use super::{config_of, environment, launch, tags, until, value_of};
use crate::{redis::Redis, server::fields};

#[tokio::test]
async fn one_change_of_the_file_is_in_force_at_all_replicas() {
    let redis = Redis::start();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("persistence.yml");
    fs::write(&file, tags("8")).unwrap();
    let servers: Vec<_> = (0..3)
        .map(|_| launch(&file, environment(folder.path(), Some(&redis))))
        .collect();
    for server in &servers {
        server.serves(true).await;
    }
    let acme = servers[0].tenant("acme").await;
    let set = SetRequest {
        key: "k".into(),
        tags: (0..8).map(|n| format!("t{n}")).collect(),
        ..Default::default()
    };
    for server in &servers {
        let mut cache = server.with_key(&acme.secret).cache;
        cache.set(set.clone()).await.unwrap();
    }
    fs::write(&file, tags("7")).unwrap();
    let began = Instant::now();
    for server in &servers {
        until("it is in force", async || {
            value_of(&config_of(server).await, "cache.max_tags").0 == "7"
        })
        .await;
    }
    println!("in force at 3 replicas after {:?}", began.elapsed());
    for server in &servers {
        let mut cache = server.with_key(&acme.secret).cache;
        let refused = cache.set(set.clone()).await.unwrap_err();
        assert_eq!(fields(&refused), ["tags"]);
    }
}
