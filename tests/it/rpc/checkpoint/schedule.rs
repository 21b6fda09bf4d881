//! Checkpoints that are taken by themselves: each by one replica of all, as many kept as
//! are wanted, and one at a drain.

use std::time::Duration;

use riptide_persistence::{
    config::Config,
    proto::v1::{CheckpointKind, CheckpointState, Component as Named},
};
use rstest::rstest;

use super::{Vault, list, until};
use crate::{
    redis::Redis,
    server::{Backend, Kind, Server},
};

fn every_second(vault: &Vault) -> impl FnOnce(&mut Config) {
    let set = vault.set();
    move |config| {
        set(config);
        config.checkpoint.schedule.interval = Some(Duration::from_secs(1));
        config.checkpoint.schedule.keep = 3;
        config.checkpoint.schedule.components = vec!["tenants".into()];
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_replicas_one_takes_each() {
    let (vault, redis) = (Vault::new(), Redis::start());
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let set = every_second(&vault);
        replicas.push(Server::start_with(Backend::Redis(&redis), set).await);
    }
    replicas[0].tenant("acme").await;
    let mut seen = std::collections::BTreeMap::new();
    until("five were taken", async || {
        for checkpoint in list(&replicas[seen.len() % 3]).await {
            if checkpoint.state() == CheckpointState::Complete {
                assert_eq!(checkpoint.kind(), CheckpointKind::Scheduled);
                let time = checkpoint.create_time.unwrap();
                let ms = time.seconds * 1000 + i64::from(time.nanos) / 1_000_000;
                seen.insert(checkpoint.checkpoint_id, ms);
            }
        }
        seen.len() >= 5
    })
    .await;
    // Never two for one: they are an interval apart, by the store's clock.
    let times: Vec<i64> = seen.into_values().collect();
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= 1000, "{times:?}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn the_oldest_go_and_no_others(#[case] kind: Kind) {
    let vault = Vault::new();
    let unfinished = "20200101t000000-00000000";
    std::fs::create_dir_all(vault.part(unfinished, "")).unwrap();
    std::fs::write(vault.part(unfinished, "chunk-000000"), b"begun").unwrap();
    let server = kind.start_with(every_second(&vault)).await;
    server.tenant("acme").await;
    // What somebody asked for stays, however old.
    let mut asked = None;
    until("one is asked for", async || {
        let taken = super::take(&server.admin(), super::of(&[Named::Tenants])).await;
        asked = taken.ok();
        asked.is_some()
    })
    .await;
    let asked = asked.unwrap().checkpoint_id;
    let mut seen = std::collections::BTreeSet::new();
    until("five were taken, and three are left", async || {
        let whole: Vec<_> = list(&server)
            .await
            .into_iter()
            .filter(|c| c.state() == CheckpointState::Complete)
            .map(|c| c.checkpoint_id)
            .collect();
        assert!(whole.contains(&asked));
        seen.extend(whole.iter().cloned());
        seen.len() >= 6 && whole.len() == 4
    })
    .await;
    assert!(
        !vault.part(unfinished, "").exists(),
        "a day old, and not whole"
    );
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn one_is_taken_at_a_drain(#[case] kind: Kind) {
    let vault = Vault::new();
    let set = vault.set();
    let server = kind
        .start_with(|config| {
            set(config);
            config.checkpoint.at_shutdown = true;
        })
        .await;
    let acme = server.tenant("acme").await;
    super::set(&acme.clients, "key", "value").await;
    server.stop().await;
    let server = Kind::Embedded.start_with(vault.set()).await;
    let listed = list(&server).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].kind(), CheckpointKind::Shutdown);
    assert_eq!(listed[0].state(), CheckpointState::Complete);
    let contents = vault.contents(&listed[0].checkpoint_id).await;
    assert!(contents.contains_key("acme"));
}
