//! What checkpoints hold of tenants that are purged: nobody can read it any more.

use std::fs;

use riptide_persistence::proto::v1::{Component as Named, PhysicalReclaim};
use rstest::rstest;

use super::{Vault, list, set, take_of, until, verify};
use crate::server::Kind;

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_purge_makes_unreadable_what_checkpoints_hold(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    let acme = server.tenant("acme").await;
    let other = server.tenant("other").await;
    for tenant in [&acme, &other] {
        set(&tenant.clients, "key", "value").await;
    }
    let all = [Named::Tenants, Named::Cache, Named::Usage];
    let taken = [take_of(&server, &all).await, take_of(&server, &all).await];
    let keys = |id: &str| {
        let files = fs::read_dir(vault.part(id, "")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("key-")).count()
    };
    assert_eq!(keys(&taken[0].checkpoint_id), 3);

    let report = server.purge("acme").await;
    assert_eq!(report.checkpoint_reclaim(), PhysicalReclaim::Done);
    for taken in &taken {
        assert_eq!(keys(&taken.checkpoint_id), 2);
        let told = verify(&server, &taken.checkpoint_id).await.unwrap();
        assert!(told.valid, "{told:?}");
        assert_eq!(told.purged_tenants, ["acme"]);
    }
    let later = take_of(&server, &all).await;
    assert_eq!(later.tenants, 1);
}

/// While the object store is away the purge is done in all else, and told so; and it is
/// done there when it is back.
#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_purge_waits_for_the_object_store(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind.start_with(vault.set()).await;
    server.tenant("acme").await;
    let taken = take_of(&server, &[Named::Tenants]).await;
    let away = vault.beside("away");
    fs::rename(vault.part("", ""), &away).unwrap();
    let report = server.purge("acme").await;
    assert_eq!(report.checkpoint_reclaim(), PhysicalReclaim::Pending);
    fs::rename(&away, vault.part("", "")).unwrap();
    until("the key is gone", async || {
        let told = verify(&server, &taken.checkpoint_id).await.unwrap();
        assert!(told.valid);
        told.purged_tenants == ["acme"]
    })
    .await;
    assert_eq!(list(&server).await.len(), 1);
}
