//! Tenants leave for good, whatever dies meanwhile. It does not know how bytes
//! are given back.

use std::sync::Arc;

use riptide_persistence::{
    error::Error,
    store::{Commit, Key, Outcome, Space, Table, Write},
    tenant::{Caller, Change, NewApiKey, PurgeReport, Tenant},
};

use super::{DAY_MS, Replica, Stage, cut::Cut, eventually, named, sweeper};

/// A deleted tenant with entries and keys.
async fn doomed(stage: &Stage, replica: &Replica) -> Tenant {
    let (tenant, key) = replica.create_with_key("acme").await;
    for _ in 0..60 {
        let new = NewApiKey {
            scopes: vec!["cache.read".into()],
            ..NewApiKey::default()
        };
        replica
            .tenants
            .create_api_key("acme", new, Change::default())
            .await
            .unwrap();
    }
    replica.caller(&key).await;
    replica.tenants.flush_uses().await.unwrap();
    stage.fill(tenant.incarnation, "default", 40).await;
    stage.fill_sessions(tenant.incarnation, 23).await;
    replica
        .tenants
        .delete("acme", false, Change::default())
        .await
        .unwrap()
        .unwrap()
}

/// Nothing of the tenant is left but its tombstone.
async fn assert_gone(stage: &Stage, tenant: &Tenant) {
    assert!(stage.records(Table::Tenant).await.is_empty());
    assert!(stage.records(Table::ApiKey).await.is_empty());
    assert!(stage.records(Table::Job).await.is_empty());
    let life = tenant.incarnation;
    for space in [Space::tenant(life), Space::sessions(life)] {
        let found = stage.store.audit(&space).await.unwrap().found;
        let left = (found.entries, found.bytes, found.orphaned_bytes);
        assert_eq!(left, (0, 0, 0), "{space:?}");
    }
}

#[tokio::test]
async fn a_purge_tells_exactly_what_it_removed() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let tenant = doomed(&stage, &replica).await;
    let held = stage
        .store
        .usage(&Space::tenant(tenant.incarnation))
        .await
        .unwrap();
    let sessions = Space::sessions(tenant.incarnation);
    let sessions = stage.store.usage(&sessions).await.unwrap();
    assert_eq!((held.entries, sessions.entries), (40, 23));
    let report = PurgeReport {
        entries: 40,
        bytes: held.bytes,
        sessions: 23,
        session_bytes: sessions.bytes,
        api_keys: 61,
        data_keys: false,
        reclaimed: false,
        forgotten: false,
    };

    let tried = Change {
        validate_only: true,
        ..Change::default()
    };
    assert_eq!(replica.tenants.purge("acme", tried).await.unwrap(), report);
    assert_eq!(stage.records(Table::ApiKey).await.len(), 61);
    let stale = Change {
        etag: "stale".into(),
        ..Change::default()
    };
    assert_eq!(
        replica.tenants.purge("acme", stale).await.unwrap_err(),
        Error::EtagMismatch
    );

    let done = replica
        .tenants
        .purge(
            "acme",
            Change {
                etag: tenant.etag.clone(),
                ..Change::default()
            },
        )
        .await;
    assert_eq!(
        done.unwrap(),
        PurgeReport {
            reclaimed: true,
            forgotten: true,
            ..report
        }
    );
    assert_gone(&stage, &tenant).await;
    let gone = replica
        .tenants
        .purge("acme", Change::default())
        .await
        .unwrap_err();
    assert_eq!(gone, Error::no_tenant("acme"));

    // What was on its way is refused, not resurrected.
    let life = tenant.incarnation;
    for (space, key) in [
        (Space::tenant(life), Key::entry("default", "late")),
        (Space::sessions(life), Key::new(Table::Session, "late")),
    ] {
        let late = batch(Write::put(key, "v"));
        let commit = stage.store.commit(&space, late).await.unwrap();
        assert!(matches!(commit, Commit::Refused(_)), "{commit:?}");
    }
}

fn batch(write: Write) -> riptide_persistence::store::Batch {
    riptide_persistence::store::Batch::of([write])
}

#[tokio::test]
async fn only_a_deleted_tenant_is_purged() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    replica.create("acme").await;
    let refused = replica
        .tenants
        .purge("acme", Change::default())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::ConditionNotMet { .. }),
        "{refused}"
    );
    assert_eq!(
        replica
            .tenants
            .purge("nobody", Change::default())
            .await
            .unwrap_err(),
        Error::no_tenant("nobody")
    );
    let unnamed = replica
        .tenants
        .purge("", Change::default())
        .await
        .unwrap_err();
    assert!(matches!(unnamed, Error::Invalid(_)));
    assert_eq!(stage.records(Table::Tenant).await, ["acme"]);
}

#[tokio::test]
async fn a_purge_cut_at_any_commit_is_finished_by_asking_again() {
    for answer_lost in [false, true] {
        for commits in 1.. {
            let stage = Stage::new();
            let replica = stage.replica().await;
            let tenant = doomed(&stage, &replica).await;
            let cut = Cut::after(stage.store.clone(), commits, answer_lost);
            let first = stage
                .replica_on(Arc::new(cut))
                .tenants
                .purge("acme", Change::default())
                .await;
            let undone = replica.tenants.undelete("acme", Change::default()).await;
            assert!(
                undone.is_err(),
                "nothing brings it back once begun: {commits}"
            );
            match replica.tenants.purge("acme", Change::default()).await {
                Ok(report) => {
                    assert!(first.is_err());
                    assert_eq!(report.entries, 40, "{commits} {answer_lost}");
                    assert_eq!(report.api_keys, 61, "{commits} {answer_lost}");
                }
                // The cut came after the tenant was gone; bytes may still be left.
                Err(error) => assert_eq!(error, Error::no_tenant("acme")),
            }
            let maintained = replica.tenants.clone();
            let background = tokio::spawn(async move { maintained.maintain(sweeper()).await });
            // A claim of the replica that was cut lapses.
            stage.pass_time(11_000);
            eventually(async || stage.records(Table::Job).await.is_empty()).await;
            background.abort();
            assert_gone(&stage, &tenant).await;
            if first.is_ok_and(|report| report.reclaimed) {
                assert!(commits > 4, "several commits make a purge");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_purge_left_half_done_is_finished_by_the_background() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let tenant = doomed(&stage, &replica).await;
    let cut = Cut::after(stage.store.clone(), 2, false);
    stage
        .replica_on(Arc::new(cut))
        .tenants
        .purge("acme", Change::default())
        .await
        .unwrap_err();
    replica.tenants.purge_pass().await.unwrap();
    assert_eq!(
        stage.records(Table::Tenant).await,
        ["acme"],
        "the one who began may still be at it"
    );
    stage.pass_time(31_000);
    replica.tenants.purge_pass().await.unwrap();
    assert_gone(&stage, &tenant).await;
}

#[tokio::test]
async fn a_tenant_is_purged_when_its_grace_is_over() {
    let stage = Stage::new();
    let (one, two) = (stage.replica().await, stage.replica().await);
    let tenant = doomed(&stage, &one).await;
    one.create("kept").await;
    one.tenants
        .delete("kept", false, Change::default())
        .await
        .unwrap();
    one.tenants
        .undelete("kept", Change::default())
        .await
        .unwrap();
    stage.pass_time(7 * DAY_MS - 1);
    one.tenants.purge_pass().await.unwrap();
    assert_eq!(stage.records(Table::Tenant).await, ["acme", "kept"]);
    stage.pass_time(1);
    let (first, second) = tokio::join!(one.tenants.purge_pass(), two.tenants.purge_pass());
    first.unwrap();
    second.unwrap();
    assert_eq!(stage.records(Table::Tenant).await, ["kept"]);
    let gone = two.tenants.get(&Caller::Admin, "acme").await.unwrap_err();
    assert_eq!(gone, Error::no_tenant("acme"));
    let again = two
        .tenants
        .create(named("acme"), Change::default())
        .await
        .unwrap();
    assert_ne!(again.tenant.incarnation, tenant.incarnation);
}

#[tokio::test]
async fn a_key_that_is_purged_leaves_no_use_behind() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let (_, key) = replica.create_with_key("acme").await;
    let key_id = replica.caller(&key).await.key_id().to_owned();
    replica
        .tenants
        .delete("acme", false, Change::default())
        .await
        .unwrap();
    replica
        .tenants
        .purge("acme", Change::default())
        .await
        .unwrap();
    replica.tenants.flush_uses().await.unwrap();
    let key = Key::new(Table::KeyUse, key_id.into_bytes());
    assert_eq!(
        stage
            .store
            .read(&Space::registry(), 0, &[key])
            .await
            .unwrap()
            .records,
        [None]
    );
}

#[tokio::test]
async fn versions_of_a_dead_space_do_not_matter_to_a_new_one() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    doomed(&stage, &replica).await;
    replica
        .tenants
        .purge("acme", Change::default())
        .await
        .unwrap();
    let tenant = replica.create("acme").await.tenant;
    let write = Write::put(Key::entry("default", "k"), "v");
    let commit = stage
        .store
        .commit(&Space::tenant(tenant.incarnation), batch(write))
        .await
        .unwrap();
    let Commit::Applied(applied) = commit else {
        panic!("{commit:?}")
    };
    assert!(matches!(
        applied.outcomes[0],
        Outcome::Done { existed: false, .. }
    ));
}

#[tokio::test]
async fn a_tenant_that_cannot_be_purged_does_not_keep_the_others() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    for name in ["broken", "whole"] {
        replica.create(name).await;
        replica
            .tenants
            .delete(name, false, Change::default())
            .await
            .unwrap();
        stage.pass_time(1);
    }
    let damage = Write::put(Key::new(Table::Tenant, "broken"), "{}");
    stage
        .store
        .commit(&Space::registry(), batch(damage))
        .await
        .unwrap();
    let unknown = Write::put(
        Key::new(Table::Job, "d:00000000000000000000:x"),
        "of tomorrow",
    );
    stage
        .store
        .commit(&Space::registry(), batch(unknown))
        .await
        .unwrap();
    stage.pass_time(7 * DAY_MS);
    replica.tenants.purge_pass().await.unwrap();
    assert_eq!(stage.records(Table::Tenant).await, ["broken"]);
}
