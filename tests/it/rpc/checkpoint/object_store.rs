//! Object stores that are full, read-only, gone or slow: a checkpoint fails, is told why,
//! and leaves nothing that could be taken for one; the health follows. And S3.

mod s3;

use std::{
    fs,
    time::{Duration, Instant},
};

use riptide_persistence::proto::v1::Component as Named;
use rstest::rstest;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{Vault, list_by, of, set, take, take_of, tenant_by, until, verify, verify_by};
use crate::{
    cli::Folder,
    process::client,
    server::{ADMIN_KEY, Kind, Server, reason},
};

async fn becomes(server: &Server, wanted: ServingStatus) {
    let began = Instant::now();
    until("the health follows", async || {
        server.health("checkpoints").await.unwrap() == wanted
    })
    .await;
    // Not a promise of a busy machine, but of the service: two seconds, told where it is
    // far from it.
    assert!(began.elapsed() < Duration::from_secs(20));
    // Calls are served all the same.
    assert_eq!(server.health("").await.unwrap(), ServingStatus::Serving);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn one_that_is_gone_is_told_of_and_comes_back(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    server.tenant("acme").await;
    becomes(&server, ServingStatus::Serving).await;
    let taken = take_of(&server, &[Named::Tenants]).await;
    let away = vault.beside("away");
    fs::rename(vault.part("", ""), &away).unwrap();
    becomes(&server, ServingStatus::NotServing).await;
    let status = take(&server.admin(), of(&[Named::Tenants]))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "STORE_UNAVAILABLE");
    assert!(status.message().contains("object store"), "{status:?}");
    let status = verify(&server, &taken.checkpoint_id).await.unwrap_err();
    assert_eq!(reason(&status), "STORE_UNAVAILABLE");
    // Nothing was made where it was: it may be the place of a volume.
    assert!(!vault.part("", "").exists());
    fs::rename(&away, vault.part("", "")).unwrap();
    becomes(&server, ServingStatus::Serving).await;
    assert!(verify(&server, &taken.checkpoint_id).await.unwrap().valid);
    take_of(&server, &[Named::Tenants]).await;
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn one_that_may_not_be_written_is_told_of(#[case] kind: Kind) {
    let set = |config: &mut riptide_persistence::config::Config| {
        // Of the kernel's own, which nobody may add to, whoever it is.
        config.checkpoint.url = Some("file:///sys/kernel/checkpoints".into());
    };
    let server = kind.start_with(set).await;
    server.tenant("acme").await;
    becomes(&server, ServingStatus::NotServing).await;
    let status = take(&server.admin(), of(&[Named::Tenants]))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "STORE_UNAVAILABLE");
    assert!(status.message().contains("denies access"), "{status:?}");
}

/// No file may grow beyond 256 KiB: what it is to a chunk that the disk is full.
#[tokio::test]
async fn one_that_is_full_is_told_of_and_nothing_is_left() {
    let (vault, redis) = (Vault::new(), crate::redis::Redis::start());
    let mut folder = Folder::new();
    folder.limit_files(256);
    let settings = format!(
        "persistence: {{redis: {{url: '{}'}}, auth: {{admin_key: '{ADMIN_KEY}'}}, \
         checkpoint: {{url: '{}'}}}}",
        redis.url(),
        vault.url()
    );
    folder.write("persistence.yml", settings);
    let serving = folder.serve(&[]);
    let admin = client(&serving.address, ADMIN_KEY);
    let acme = client(&serving.address, &tenant_by(&admin, "acme").await);
    let small = take(&admin, of(&[Named::Tenants])).await.unwrap();
    let mut noise = vec![0; 1 << 20];
    riptide_persistence::random::fill(&mut noise);
    set(&acme, "key", noise).await;
    let status = take(&admin, of(&[Named::Cache])).await.unwrap_err();
    assert_eq!(reason(&status), "STORE_FULL");
    assert!(status.message().contains("object store"), "{status:?}");
    // Neither a checkpoint nor a part of one.
    let listed = list_by(&admin).await;
    assert_eq!(listed, std::slice::from_ref(&small));
    assert!(verify_by(&admin, &small.checkpoint_id).await.unwrap().valid);
}
