//! Checkpoints that may not be restored: nothing changes. It does not know how a
//! checkpoint that is whole comes back.

use std::fs;

use super::*;

/// Chunks flipped, cut, missing, swapped, of another checkpoint; and what names them.
#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_named_before_anything_changes(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    let acme = server.tenant("acme").await;
    fill(&acme.clients, 30, 1).await;
    let other = checkpoint(&server.admin(), &ALL).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    acme.clients
        .cache
        .clone()
        .set(set("later", "x"))
        .await
        .unwrap();
    let now = shown(&acme.clients).await;
    let read = |part: &str| fs::read(stage.part(&id, part)).unwrap();
    let (chunk, manifest, index) = (read("chunk-000000"), read("manifest.json"), read("index"));
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        Some(bytes)
    };
    let foreign = fs::read(stage.part(&other, "chunk-000000")).unwrap();
    for (part, bytes) in [
        ("chunk-000000", flipped(&chunk, chunk.len() / 2)),
        ("chunk-000000", flipped(&chunk, 0)),
        ("chunk-000000", Some(chunk[..chunk.len() - 1].to_vec())),
        ("chunk-000000", Some(foreign)),
        ("chunk-000000", None),
        ("manifest.json", flipped(&manifest, manifest.len() - 10)),
        ("index", flipped(&index, index.len() / 2)),
        ("index", None),
    ] {
        let path = stage.part(&id, part);
        let whole = fs::read(&path).unwrap();
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let refused = restore(&server.admin(), asked(&id, RestoreConflict::Replace)).await;
        let refused = refused.unwrap_err();
        assert_eq!(
            reason(&refused),
            "CHECKPOINT_CORRUPT",
            "{part}: {refused:?}"
        );
        assert!(refused.message().contains(part), "{part}: {refused:?}");
        assert_eq!(shown(&acme.clients).await, now);
        fs::write(&path, whole).unwrap();
    }
    restored(&server.admin(), asked(&id, RestoreConflict::Replace)).await;
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_another_master_key_is_not_read(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    fill(&server.tenant("acme").await.clients, 3, 1).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    server.stop().await;
    let server = stage
        .serve_with(|config| config.encryption.master_keys = Some(master("n").into()))
        .await;
    let refused = restore(&server.admin(), asked(&id, RestoreConflict::Skip)).await;
    assert_eq!(reason(&refused.unwrap_err()), "CHECKPOINT_INCOMPATIBLE");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_tenant_does_not_come_back(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    fill(&server.tenant("acme").await.clients, 3, 1).await;
    fill(&server.tenant("other").await.clients, 3, 1).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    server.purge("acme").await;
    while fs::read_dir(stage.checkpoints.path().join(&id))
        .unwrap()
        .filter(|file| {
            let name = file.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("key-")
        })
        .count()
        > 2
    {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (plan, result) = restore(&server.admin(), asked(&id, RestoreConflict::Replace))
        .await
        .unwrap();
    assert_eq!(step(&plan, "acme").action(), Action::Skip);
    assert_eq!(step(&plan, "acme").why, "purged");
    let result = result.unwrap();
    assert_eq!((result.replaced, result.skipped), (1, 1));
    // A tenant of the same name is another one.
    let anew = server.tenant("acme").await;
    assert_eq!(shown(&anew.clients).await.len(), 0);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_of_the_same_name_is_not_replaced(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    fill(&server.tenant("acme").await.clients, 3, 1).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    let server = stage.emptied(server).await;
    let anew = server.tenant("acme").await;
    anew.clients
        .cache
        .clone()
        .set(set("mine", "v"))
        .await
        .unwrap();
    let refused = restore(&server.admin(), asked(&id, RestoreConflict::Fail)).await;
    assert_eq!(reason(&refused.unwrap_err()), "TENANT_EXISTS");
    let (plan, _) = restore(&server.admin(), asked(&id, RestoreConflict::Replace))
        .await
        .unwrap();
    assert_eq!(step(&plan, "acme").why, "other incarnation");
    assert_eq!(shown(&anew.clients).await.len(), 1);
}
