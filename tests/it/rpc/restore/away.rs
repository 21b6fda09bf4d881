//! The object store goes away in the middle of a restore: each tenant is wholly as it
//! was or wholly restored, and whoever asks again later gets all of it. It does not know
//! which tenant it was at.

use std::fs;

use super::*;

const TENANTS: usize = 6;

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_whose_object_store_goes_leaves_no_tenant_half_done(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    let mut tenants = Vec::new();
    for n in 0..TENANTS {
        let tenant = server.tenant(&format!("tenant-{n}")).await;
        fill(&tenant.clients, 40, 1).await;
        tenants.push(tenant.clients);
    }
    let then = shown(&tenants[0]).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    let (there, aside) = (
        stage.checkpoints.path().join(&id),
        stage.checkpoints.path().join("aside"),
    );
    let mut cut = false;
    for attempt in 0..10_u8 {
        for clients in &tenants {
            fill(clients, 40, 2 + attempt).await;
        }
        let now = shown(&tenants[0]).await;
        let request = RestoreCheckpointRequest {
            request_id: format!("00000000-0000-4000-8000-{attempt:012}"),
            ..asked(&id, RestoreConflict::Replace)
        };
        let admin = server.admin();
        let mut state = admin.state.clone();
        let told = state.restore_checkpoint(request.clone()).await;
        let mut told = told.unwrap().into_inner();
        let ended = loop {
            match told.message().await {
                Ok(Some(message)) => match message.event {
                    Some(Event::Progress(progress))
                        if progress.phase == "writing" && there.exists() =>
                    {
                        fs::rename(&there, &aside).unwrap();
                    }
                    Some(Event::Result(result)) => break Ok(result),
                    _ => {}
                },
                Ok(None) => panic!("a restore tells how it ended"),
                Err(status) => break Err(status),
            }
        };
        let mut restored = 0;
        for clients in &tenants {
            let values = |all: BTreeMap<String, Shown>| -> Vec<(String, Vec<u8>)> {
                all.into_iter().map(|(k, v)| (k, v.0)).collect()
            };
            let held = values(shown(clients).await);
            assert!(
                held == values(then.clone()) || held == values(now.clone()),
                "a tenant is half restored"
            );
            restored += usize::from(held == values(then.clone()));
        }
        if aside.exists() {
            fs::rename(&aside, &there).unwrap();
        }
        match ended {
            Ok(result) if result.failures.is_empty() => assert_eq!(restored, TENANTS),
            ended => {
                cut = true;
                assert!(restored < TENANTS, "{ended:?}");
            }
        }
        // Once it is back, asking again brings the rest.
        let result = loop {
            match restore(&admin, request.clone()).await {
                Ok((_, Some(result))) if result.failures.is_empty() => break result,
                Ok((_, Some(result))) => {
                    let anew = asked(&id, RestoreConflict::Replace);
                    assert!(!result.failures.is_empty());
                    break self::restored(&admin, anew).await;
                }
                Ok((_, None)) => panic!("a restore tells what it did"),
                Err(status) => {
                    assert!(reason(&status).ends_with("_IN_PROGRESS"), "{status:?}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        };
        assert_eq!(result.failures, []);
        for clients in &tenants {
            assert_same(&shown(clients).await, &then);
        }
        if cut {
            break;
        }
    }
    assert!(
        cut,
        "the object store never went before the restore was done"
    );
    if let Some(redis) = &stage.redis {
        audit(redis).await;
    }
}
