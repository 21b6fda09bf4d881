//! Checkpoints that are downloaded and uploaded. It does not know where they lie.

use std::fs;

use riptide_persistence::proto::v1::{
    DeleteCheckpointRequest, DownloadCheckpointRequest, ListCheckpointsRequest,
    UploadCheckpointRequest, UploadCheckpointResponse, VerifyCheckpointRequest,
};

use super::*;

async fn download(clients: &Clients, id: &str) -> Vec<u8> {
    let request = DownloadCheckpointRequest {
        checkpoint_id: id.into(),
    };
    let pieces = clients.state.clone().download_checkpoint(request).await;
    let mut pieces = pieces.unwrap().into_inner();
    let mut archive = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        assert!(piece.chunk.len() <= 1 << 20);
        archive.extend_from_slice(&piece.chunk);
    }
    archive
}

async fn upload(clients: &Clients, archive: &[u8]) -> Result<UploadCheckpointResponse, Status> {
    let pieces: Vec<_> = archive
        .chunks(1 << 20)
        .map(|chunk| UploadCheckpointRequest {
            chunk: chunk.to_vec(),
        })
        .collect();
    let stream = futures::stream::iter(pieces);
    let answer = clients.state.clone().upload_checkpoint(stream).await?;
    Ok(answer.into_inner())
}

async fn listed(clients: &Clients) -> usize {
    let request = ListCheckpointsRequest::default();
    let page = clients.state.clone().list_checkpoints(request).await;
    page.unwrap().into_inner().checkpoints.len()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_restores_elsewhere(#[case] kind: Kind) {
    let (here, there) = (Stage::new(kind), Stage::new(kind));
    let server = here.serve().await;
    let acme = server.tenant("acme").await;
    fill(&acme.clients, 60, 1).await;
    let sealed = encrypted(&server, "sealed").await;
    fill(&sealed, 9, 2).await;
    let then = shown(&acme.clients).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    let archive = download(&server.admin(), &id).await;

    let elsewhere = there.serve().await;
    let admin = elsewhere.admin();
    let taken = upload(&admin, &archive).await.unwrap().checkpoint.unwrap();
    assert_eq!(taken.checkpoint_id, id);
    assert_eq!(listed(&admin).await, 1);
    // Once more changes nothing.
    upload(&admin, &archive).await.unwrap();
    assert_eq!(download(&admin, &id).await, archive);
    let result = restored(&admin, asked(&id, RestoreConflict::Fail)).await;
    assert_eq!(result.created, 2);
    let acme = elsewhere.with_key(&acme.secret);
    assert_same(&shown(&acme).await, &then);

    let none = elsewhere
        .admin()
        .state
        .download_checkpoint(DownloadCheckpointRequest {
            checkpoint_id: "20200101t000000-00000000".into(),
        })
        .await;
    assert_eq!(reason(&none.unwrap_err()), "CHECKPOINT_NOT_FOUND");
}

/// An archive, and a copy of the folder, that were carried away before the purge.
#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_tenant_does_not_come_back_from_elsewhere(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    fill(&server.tenant("acme").await.clients, 3, 1).await;
    fill(&server.tenant("other").await.clients, 3, 1).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    let archive = download(&server.admin(), &id).await;
    let folder = stage.checkpoints.path().join(&id);
    let keys = || {
        let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap());
        let keys = files.filter(|file| file.file_name().to_string_lossy().starts_with("key-"));
        keys.map(|file| (file.path(), fs::read(file.path()).unwrap()))
            .collect::<Vec<_>>()
    };
    let carried = keys();
    let mut admin = server.admin();
    server.purge("acme").await;
    while keys().len() == carried.len() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let delete = DeleteCheckpointRequest {
        checkpoint_id: id.clone(),
        ..Default::default()
    };
    admin.state.delete_checkpoint(delete).await.unwrap();

    upload(&admin, &archive).await.unwrap();
    assert_eq!(keys().len(), carried.len() - 1);
    for copied in [false, true] {
        if copied {
            for (path, bytes) in &carried {
                fs::write(path, bytes).unwrap();
            }
        }
        let verify = VerifyCheckpointRequest {
            checkpoint_id: id.clone(),
        };
        let verified = admin.state.verify_checkpoint(verify).await.unwrap();
        let verified = verified.into_inner();
        assert!(verified.valid, "{verified:?}");
        assert_eq!(verified.purged_tenants, ["acme"]);
        let (plan, result) = restore(&admin, asked(&id, RestoreConflict::Replace))
            .await
            .unwrap();
        assert_eq!(step(&plan, "acme").why, "purged");
        let result = result.unwrap();
        assert_eq!((result.replaced, result.skipped), (1, 1));
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_is_not_whole_leaves_nothing(#[case] kind: Kind) {
    let (here, there) = (Stage::new(kind), Stage::new(kind));
    let server = here.serve().await;
    fill(&server.tenant("acme").await.clients, 30, 1).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    let archive = download(&server.admin(), &id).await;
    let elsewhere = there.serve().await;
    let admin = elsewhere.admin();
    let chunk = fs::read(here.part(&id, "chunk-000000")).unwrap();
    let at = archive
        .windows(chunk.len())
        .position(|window| window == chunk)
        .unwrap();
    let flipped = |at: usize| {
        let mut bytes = archive.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (bytes, named) in [
        (flipped(at + chunk.len() / 2), "chunk-000000"),
        (archive[..archive.len() - 1].to_vec(), "archive"),
        (archive[..at + 10].to_vec(), "archive"),
        (archive[..40].to_vec(), "archive"),
        ([&archive[..], b"more"].concat(), "archive"),
    ] {
        let refused = upload(&admin, &bytes).await.unwrap_err();
        assert_eq!(reason(&refused), "CHECKPOINT_CORRUPT", "{refused:?}");
        assert!(refused.message().contains(named), "{refused:?}");
        assert_eq!(listed(&admin).await, 0, "{named}");
        let left = fs::read_dir(there.checkpoints.path()).unwrap();
        let left = left.filter(|entry| {
            let folder = entry.as_ref().unwrap().path();
            folder.is_dir() && fs::read_dir(folder).unwrap().count() > 0
        });
        assert_eq!(left.count(), 0, "{named}");
    }
    let refused = upload(&admin, b"PK\x03\x04").await.unwrap_err();
    assert_eq!(crate::server::fields(&refused), ["chunk"]);

    elsewhere.stop().await;
    let strangers = there
        .serve_with(|config| config.encryption.master_keys = Some(master("n").into()))
        .await;
    let refused = upload(&strangers.admin(), &archive).await.unwrap_err();
    assert_eq!(reason(&refused), "CHECKPOINT_INCOMPATIBLE");
}
