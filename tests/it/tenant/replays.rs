//! Requests that name themselves happen once, also where what they were about is
//! gone when they are asked again. It does not know how answers are kept.

use std::sync::Arc;

use riptide_persistence::{
    error::Error,
    store::Table,
    tenant::{Caller, Change, PurgeReport, api_key},
};

use super::{Replica, Stage, cut::Cut, eventually};

const REQUEST: &str = "7c9a1c1e-4b7d-4c6e-9f0a-3f8f2f1f0b5a";

fn by_request() -> Change {
    Change {
        request_id: REQUEST.into(),
        ..Change::default()
    }
}

/// A deleted tenant with 7 entries and 1 key; its etag.
async fn doomed(stage: &Stage, replica: &Replica) -> String {
    let tenant = replica.create("acme").await.tenant;
    stage.fill(tenant.incarnation, "default", 7).await;
    let deleted = replica
        .tenants
        .delete("acme", false, Change::default())
        .await;
    deleted.unwrap().unwrap().etag
}

#[tokio::test]
async fn a_replayed_delete_of_nobody_spares_who_came_later() {
    let stage = Stage::new();
    let (one, two) = (stage.replica().await, stage.replica().await);
    let tried = Change {
        validate_only: true,
        ..by_request()
    };
    assert_eq!(one.tenants.delete("nobody", true, tried).await, Ok(None));
    assert_eq!(
        one.tenants.delete("acme", true, by_request()).await,
        Ok(None)
    );
    let tenant = two.create("acme").await.tenant;
    for replica in [&one, &two] {
        let replayed = replica.tenants.delete("acme", true, by_request()).await;
        assert_eq!(replayed, Ok(None));
        let other = replica.tenants.delete("acme", false, by_request()).await;
        assert_eq!(other, Err(Error::RequestIdReused));
    }
    let kept = two.tenants.get(&Caller::Admin, "acme").await.unwrap();
    assert_eq!(kept, tenant);
    let nobody = one.tenants.delete("nobody", false, by_request()).await;
    assert_eq!(nobody, Err(Error::RequestIdReused));
}

#[tokio::test]
async fn a_replayed_purge_tells_the_first_report() {
    let stage = Stage::new();
    let (one, two) = (stage.replica().await, stage.replica().await);
    let change = Change {
        etag: doomed(&stage, &one).await,
        ..by_request()
    };
    let again = || Change {
        etag: change.etag.clone(),
        ..by_request()
    };
    let tried = Change {
        validate_only: true,
        ..again()
    };
    one.tenants.purge("acme", tried).await.unwrap();
    let first = one.tenants.purge("acme", again()).await.unwrap();
    assert!(first.reclaimed && first.entries == 7 && first.api_keys == 1);
    two.create("acme").await;
    assert_eq!(two.tenants.purge("acme", again()).await, Ok(first));
    let other = two.tenants.purge("acme", by_request()).await;
    assert_eq!(other, Err(Error::RequestIdReused));
    assert_eq!(stage.records(Table::Tenant).await, ["acme"]);
}

#[tokio::test]
async fn a_purge_cut_at_any_commit_answers_its_request_in_the_end() {
    for by_background in [false, true] {
        for commits in 1.. {
            let stage = Stage::new();
            let replica = stage.replica().await;
            let etag = doomed(&stage, &replica).await;
            let change = || Change {
                etag: etag.clone(),
                ..by_request()
            };
            let cut = Cut::after(stage.store.clone(), commits, commits % 2 == 0);
            let lost = stage.replica_on(Arc::new(cut));
            let first = lost.tenants.purge("acme", change()).await;
            if by_background {
                stage.pass_time(31_000);
                replica.tenants.purge_pass().await.unwrap();
            }
            let PurgeReport {
                entries, api_keys, ..
            } = replica.tenants.purge("acme", change()).await.unwrap();
            assert_eq!((entries, api_keys), (7, 1), "{commits}");
            assert!(stage.records(Table::Tenant).await.is_empty());
            if first.is_ok_and(|report| report.reclaimed) {
                assert!(commits > 4, "several commits make a purge");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_purge_is_not_held_up_by_its_request_id_used_elsewhere() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    doomed(&stage, &replica).await;
    let cut = Cut::after(stage.store.clone(), 1, false);
    let lost = stage.replica_on(Arc::new(cut));
    lost.tenants.purge("acme", by_request()).await.unwrap_err();
    let other = replica.tenants.delete("other", true, by_request()).await;
    assert_eq!(other, Ok(None));
    let reused = replica.tenants.purge("acme", by_request()).await;
    assert_eq!(reused, Err(Error::RequestIdReused));
    stage.pass_time(31_000);
    eventually(async || {
        replica.tenants.purge_pass().await.unwrap();
        stage.records(Table::Tenant).await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_replayed_revocation_gets_the_first_answer() {
    let stage = Stage::new();
    let (one, two) = (stage.replica().await, stage.replica().await);
    let (_, key) = one.create_with_key("acme").await;
    let key_id = api_key::parse(&key).unwrap().key_id.to_owned();
    let tried = Change {
        validate_only: true,
        ..by_request()
    };
    one.tenants.revoke_api_key(&key_id, tried).await.unwrap();
    let revoked = one.tenants.revoke_api_key(&key_id, by_request()).await;
    let revoked = revoked.unwrap();
    assert_eq!(revoked.revoke_ms, Some(stage.now_ms()));
    assert!(revoked.secrets.is_empty());
    one.tenants
        .delete("acme", false, Change::default())
        .await
        .unwrap();
    one.tenants.purge("acme", Change::default()).await.unwrap();
    let again = two.tenants.revoke_api_key(&key_id, by_request()).await;
    assert_eq!(again, Ok(revoked), "also where the key is gone");
    let other = two
        .tenants
        .revoke_api_key(&"0".repeat(28), by_request())
        .await;
    assert_eq!(other, Err(Error::RequestIdReused));

    // Revoked by another request: this one keeps its answer too.
    let (_, key) = one.create_with_key("acme").await;
    let key_id = api_key::parse(&key).unwrap().key_id.to_owned();
    let first = one.tenants.revoke_api_key(&key_id, Change::default()).await;
    let request = || Change {
        request_id: REQUEST.replace('7', "8"),
        ..Change::default()
    };
    let second = one.tenants.revoke_api_key(&key_id, request()).await;
    assert_eq!(second, first);
    let other = one.tenants.delete("acme", false, request()).await;
    assert_eq!(other, Err(Error::RequestIdReused));
}
