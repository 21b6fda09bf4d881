//! The life of a tenant, change by change. It does not know what purges it.

use std::sync::Arc;

use futures::future::join_all;
use riptide_persistence::{
    error::Error,
    store::{Error as StoreError, Key, Space, Table},
    tenant::{
        Caller, Change, Created, NewTenant, Owner, Profile, Quotas, State, SuspensionMode, Tenant,
        Update,
    },
};
use secrecy::ExposeSecret;

use super::{DAY_MS, Stage, cut::Cut, named};

const REQUEST: &str = "0190a1b2-0000-7000-8000-00000000000a";

fn by_request() -> Change {
    Change {
        request_id: REQUEST.into(),
        ..Change::default()
    }
}

fn tried() -> Change {
    Change {
        validate_only: true,
        ..Change::default()
    }
}

fn at(etag: &str) -> Change {
    Change {
        etag: etag.into(),
        ..Change::default()
    }
}

fn rename(tenant_id: &str, name: &str) -> Update {
    Update {
        tenant_id: tenant_id.into(),
        profile: Profile {
            display_name: name.into(),
            ..Profile::default()
        },
        update_mask: vec!["display_name".into()],
    }
}

fn secret(created: &Created) -> String {
    created
        .issued
        .as_ref()
        .unwrap()
        .secret
        .as_ref()
        .unwrap()
        .expose_secret()
        .to_owned()
}

#[tokio::test]
async fn a_creation_is_one_commit_and_readable_everywhere() {
    let stage = Stage::new();
    let (one, two) = (stage.replica().await, stage.replica().await);
    one.create("first").await;
    let profile = Profile {
        display_name: "Acme".into(),
        plan: "basic".into(),
        owner: Some(Owner {
            email: "ann@example.com".into(),
            ..Owner::default()
        }),
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        settings: Some([("beta".to_owned(), true.into())].into_iter().collect()),
        quotas: Some(Quotas {
            cache_entries: Some(5),
            ..Quotas::default()
        }),
        encryption_enabled: false,
        delete_protection: true,
    };
    let new = NewTenant {
        tenant_id: "acme".into(),
        profile: profile.clone(),
    };
    let before = stage.counters.calls();
    let created = one.tenants.create(new, Change::default()).await.unwrap();
    let calls = stage.counters.calls().since(before);
    assert_eq!((calls.commit, calls.read, calls.list), (1, 0, 0));

    let found = two.tenants.get(&Caller::Admin, "acme").await.unwrap();
    assert_eq!(found, created.tenant);
    assert_eq!(found.state(), State::Active);
    assert_eq!(found.labels, profile.labels);
    assert_eq!(found.create_ms, stage.now_ms());
    let effective = two.tenants.effective_quotas(&found);
    assert_eq!(
        (effective.cache_entries, effective.memory_bytes),
        (Some(5), Some(1_000_000))
    );
    let caller = two.caller(&secret(&created)).await;
    assert_eq!(two.tenants.get(&caller, "").await.unwrap(), found);

    let generated = one.create("").await.tenant;
    assert!(generated.tenant_id.starts_with("t-"));
    assert_eq!(generated.plan, "free");
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let answers =
        join_all((0..8).map(|_| replica.tenants.create(named("acme"), Change::default()))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for refused in answers.into_iter().filter_map(Result::err) {
        assert_eq!(refused, Error::TenantExists("acme".into()));
    }
    assert_eq!(
        replica
            .tenants
            .create(named("acme"), tried())
            .await
            .unwrap_err(),
        Error::TenantExists("acme".into())
    );
    replica
        .tenants
        .delete("acme", false, Change::default())
        .await
        .unwrap();
    let refused = replica
        .tenants
        .create(named("acme"), Change::default())
        .await
        .unwrap_err();
    assert_eq!(
        refused,
        Error::TenantExists("acme".into()),
        "a deleted tenant keeps its name"
    );
}

#[tokio::test]
async fn every_violation_is_told_at_once() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let profile = Profile {
        plan: "gold".into(),
        encryption_enabled: true,
        ..Profile::default()
    };
    let new = NewTenant {
        tenant_id: "No".into(),
        profile,
    };
    let change = Change {
        request_id: "not-a-uuid".into(),
        ..Change::default()
    };
    let Err(Error::Invalid(found)) = replica.tenants.create(new, change).await else {
        panic!("accepted")
    };
    let fields: Vec<_> = found
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(fields, ["request_id", "tenant_id", "plan"]);
    assert!(
        found[2].description.contains("basic, free"),
        "{}",
        found[2].description
    );
}

#[tokio::test]
async fn no_more_tenants_than_allowed_whoever_asks() {
    let stage = Stage::new();
    let mut settings = super::settings();
    settings.max_tenants = 5;
    stage.settings.store(Arc::new(settings));
    let (one, two) = (stage.replica().await, stage.replica().await);
    let replicas = [&one, &two];
    let creations = (0..10).map(|n| {
        let replica = replicas[n % 2];
        async move {
            replica
                .tenants
                .create(named(&format!("tenant-{n}")), Change::default())
                .await
        }
    });
    let answers = join_all(creations).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    for refused in answers.into_iter().filter_map(Result::err) {
        assert_eq!(refused, Error::MaxTenants { limit: 5, used: 5 });
    }
    assert_eq!(
        one.tenants
            .create(named("more"), tried())
            .await
            .unwrap_err(),
        Error::MaxTenants { limit: 5, used: 5 }
    );

    let tenant_id = stage.records(Table::Tenant).await[0].clone();
    one.tenants
        .delete(&tenant_id, false, Change::default())
        .await
        .unwrap();
    let full = two
        .tenants
        .create(named("more"), Change::default())
        .await
        .unwrap_err();
    assert_eq!(
        full,
        Error::MaxTenants { limit: 5, used: 5 },
        "a deleted tenant still counts"
    );
    one.tenants
        .purge(&tenant_id, Change::default())
        .await
        .unwrap();
    two.tenants
        .create(named("more"), Change::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_validation_writes_nothing() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    replica.create("acme").await;
    let before = replica.tenants.get(&Caller::Admin, "acme").await.unwrap();
    let tenants = &replica.tenants;
    let writes = stage.counters.calls();
    let created = tenants.create(named("more"), tried()).await.unwrap();
    assert_eq!(created.tenant.tenant_id, "more");
    assert!(created.issued.is_none());
    assert_eq!(
        tenants
            .update(rename("acme", "New"), tried())
            .await
            .unwrap()
            .display_name,
        "New"
    );
    let suspended = tenants
        .suspend("acme", SuspensionMode::Blocked, "", tried())
        .await
        .unwrap();
    assert_eq!(suspended.state(), State::Suspended);
    let deleted = tenants
        .delete("acme", false, tried())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(deleted.state(), State::Deleted);
    assert_eq!(stage.counters.calls().since(writes).commit, 0);
    assert_eq!(tenants.get(&Caller::Admin, "acme").await.unwrap(), before);
    assert_eq!(stage.records(Table::Tenant).await, ["acme"]);
    assert!(stage.records(Table::Job).await.is_empty());
}

#[tokio::test]
async fn a_stale_etag_is_refused_and_a_fresh_one_wins_once() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let tenants = &replica.tenants;
    let first = replica.create("acme").await.tenant;
    stage.pass_time(5);
    let second = tenants
        .update(rename("acme", "Two"), at(&first.etag))
        .await
        .unwrap();
    assert_ne!(second.etag, first.etag);
    assert_eq!(
        (second.create_ms, second.update_ms),
        (first.create_ms, stage.now_ms())
    );
    let stale =
        async |answer: Result<Tenant, Error>| assert_eq!(answer.unwrap_err(), Error::EtagMismatch);
    stale(
        tenants
            .update(rename("acme", "Three"), at(&first.etag))
            .await,
    )
    .await;
    stale(
        tenants
            .suspend("acme", SuspensionMode::Blocked, "", at(&first.etag))
            .await,
    )
    .await;
    stale(tenants.resume("acme", at("nonsense")).await).await;
    stale(
        tenants
            .delete("acme", false, at(&first.etag))
            .await
            .map(Option::unwrap),
    )
    .await;

    let races = (0..6).map(|n| {
        let update = rename("acme", &format!("racer {n}"));
        tenants.update(update, at(&second.etag))
    });
    let answers = join_all(races).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for refused in answers.into_iter().filter_map(Result::err) {
        assert_eq!(refused, Error::EtagMismatch);
    }
}

#[tokio::test]
async fn changes_without_an_etag_all_happen() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    replica.create("acme").await;
    let label = |n: usize| Update {
        tenant_id: "acme".into(),
        profile: Profile {
            labels: [(format!("l{n}"), "v".to_owned())].into(),
            ..Profile::default()
        },
        update_mask: vec![format!("labels.l{n}")],
    };
    let answers =
        join_all((0..20).map(|n| replica.tenants.update(label(n), Change::default()))).await;
    for answer in answers {
        answer.unwrap();
    }
    assert_eq!(
        replica
            .tenants
            .get(&Caller::Admin, "acme")
            .await
            .unwrap()
            .labels
            .len(),
        20
    );
}

#[tokio::test]
async fn numbers_in_settings_come_back_to_the_last_bit() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let numbers = [
        0.1,
        1e-7,
        123_456_789.123_456_79,
        2.0_f64.powi(60) + 1.0,
        f64::MAX,
        5e-324,
        0.1 + 0.2,
    ];
    let settings = numbers
        .iter()
        .enumerate()
        .map(|(at, number)| (at.to_string(), (*number).into()))
        .collect();
    let profile = Profile {
        settings: Some(settings),
        ..Profile::default()
    };
    let new = NewTenant {
        tenant_id: "acme".into(),
        profile,
    };
    let created = replica
        .tenants
        .create(new, Change::default())
        .await
        .unwrap()
        .tenant;
    assert_eq!(
        replica
            .tenants
            .get(&Caller::Admin, "acme")
            .await
            .unwrap()
            .settings,
        created.settings
    );
}

#[tokio::test]
async fn what_single_changes_add_up_to_is_checked_too() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let profile = Profile {
        labels: (0..64).map(|n| (format!("l{n}"), String::new())).collect(),
        ..Profile::default()
    };
    let new = NewTenant {
        tenant_id: "acme".into(),
        profile,
    };
    replica
        .tenants
        .create(new, Change::default())
        .await
        .unwrap();
    let one_more = Update {
        tenant_id: "acme".into(),
        profile: Profile {
            labels: [("more".to_owned(), String::new())].into(),
            ..Profile::default()
        },
        update_mask: vec!["labels.more".into()],
    };
    let Err(Error::Invalid(found)) = replica.tenants.update(one_more, Change::default()).await
    else {
        panic!()
    };
    assert_eq!(found[0].field, "tenant.labels");
}

#[tokio::test]
async fn unknown_paths_of_a_mask_are_named_and_nothing_changes() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    replica.create("acme").await;
    let mut update = rename("acme", "New");
    update
        .update_mask
        .extend(["colour".into(), "owner.phone".into()]);
    let Err(Error::InvalidFieldMask(found)) =
        replica.tenants.update(update, Change::default()).await
    else {
        panic!()
    };
    assert_eq!(found.len(), 2);
    assert!(found[0].description.contains("colour"));
    assert_eq!(
        replica
            .tenants
            .get(&Caller::Admin, "acme")
            .await
            .unwrap()
            .display_name,
        ""
    );
}

#[tokio::test]
async fn a_replayed_request_gets_the_first_answer_and_happens_once() {
    let stage = Stage::new();
    let (one, two) = (stage.replica().await, stage.replica().await);
    let created = one.tenants.create(named(""), by_request()).await.unwrap();
    let again = two.tenants.create(named(""), by_request()).await.unwrap();
    assert_eq!(again.tenant, created.tenant);
    assert_eq!(secret(&again), secret(&created));
    two.caller(&secret(&created)).await;
    assert_eq!(stage.records(Table::Tenant).await.len(), 1);
    let tried = Change {
        validate_only: true,
        ..by_request()
    };
    assert_eq!(
        two.tenants.create(named(""), tried).await.unwrap().tenant,
        created.tenant
    );

    let reused = one
        .tenants
        .create(named("other"), by_request())
        .await
        .unwrap_err();
    assert_eq!(reused, Error::RequestIdReused);
    let tenant_id = created.tenant.tenant_id.as_str();
    let reused = one
        .tenants
        .update(rename(tenant_id, "New"), by_request())
        .await
        .unwrap_err();
    assert_eq!(reused, Error::RequestIdReused);

    // No secret is stored, neither in the answer nor in the key.
    let keys = [Key::new(Table::Request, REQUEST.as_bytes().to_vec()), {
        let key_id = created.issued.as_ref().unwrap().api_key.key_id.clone();
        Key::new(Table::ApiKey, key_id.into_bytes())
    }];
    let tail = secret(&created).split_off(33);
    for record in stage
        .store
        .read(&Space::registry(), 0, &keys)
        .await
        .unwrap()
        .records
    {
        assert!(!String::from_utf8_lossy(&record.unwrap().value).contains(&tail));
    }

    stage.pass_time(DAY_MS);
    let updated = one
        .tenants
        .update(rename(tenant_id, "New"), by_request())
        .await
        .unwrap();
    one.tenants
        .update(rename(tenant_id, "Newer"), Change::default())
        .await
        .unwrap();
    let again = two
        .tenants
        .update(rename(tenant_id, "New"), by_request())
        .await
        .unwrap();
    assert_eq!(again, updated);
    assert_eq!(
        two.tenants
            .get(&Caller::Admin, tenant_id)
            .await
            .unwrap()
            .display_name,
        "Newer"
    );
}

#[tokio::test]
async fn the_same_request_at_once_happens_once() {
    let stage = Stage::new();
    let (one, two) = (stage.replica().await, stage.replica().await);
    let replicas = [&one, &two];
    let creations = (0..8).map(|n| {
        let replica = replicas[n % 2];
        async move {
            replica
                .tenants
                .create(named(""), by_request())
                .await
                .unwrap()
        }
    });
    let answers = join_all(creations).await;
    for answer in &answers {
        assert_eq!(answer.tenant, answers[0].tenant);
        assert_eq!(secret(answer), secret(&answers[0]));
    }
    assert_eq!(stage.records(Table::Tenant).await.len(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_found_again_by_the_request_id() {
    let stage = Stage::new();
    let whole = stage.replica().await;
    whole.create("first").await;
    let cut = Cut::after(stage.store.clone(), 1, true);
    let lost = stage.replica_on(Arc::new(cut)).tenants.clone();
    assert_eq!(
        lost.create(named("acme"), by_request()).await.unwrap_err(),
        Error::OutcomeUnknown
    );
    let created = whole
        .tenants
        .create(named("acme"), by_request())
        .await
        .unwrap();
    whole.caller(&secret(&created)).await;
    assert_eq!(
        Error::from(StoreError::OutcomeUnknown(String::new())),
        Error::OutcomeUnknown
    );
}

#[tokio::test]
async fn a_deleted_tenant_is_closed_kept_and_brought_back() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let tenants = &replica.tenants;
    let tenant = replica.create("acme").await.tenant;
    stage.fill(tenant.incarnation, "default", 3).await;
    tenants
        .suspend(
            "acme",
            SuspensionMode::ReadOnly,
            "unpaid",
            Change::default(),
        )
        .await
        .unwrap();

    let deleted = tenants
        .delete("acme", false, Change::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(deleted.state(), State::Deleted);
    assert_eq!(deleted.delete_ms, Some(stage.now_ms()));
    assert_eq!(deleted.purge_ms, Some(stage.now_ms() + 7 * DAY_MS));
    let closed = Error::TenantDeleted("acme".into());
    assert_eq!(
        tenants
            .delete("acme", false, Change::default())
            .await
            .unwrap_err(),
        closed
    );
    assert_eq!(
        tenants
            .delete("acme", true, Change::default())
            .await
            .unwrap()
            .unwrap(),
        deleted
    );
    assert_eq!(
        tenants
            .update(rename("acme", "x"), Change::default())
            .await
            .unwrap_err(),
        closed
    );
    assert_eq!(
        tenants
            .suspend("acme", SuspensionMode::Blocked, "", Change::default())
            .await
            .unwrap_err(),
        closed
    );
    assert_eq!(
        tenants.resume("acme", Change::default()).await.unwrap_err(),
        closed
    );
    assert_eq!(tenants.get(&Caller::Admin, "acme").await.unwrap(), deleted);

    let back = tenants.undelete("acme", Change::default()).await.unwrap();
    assert_eq!(back.state(), State::Suspended, "with all it had");
    assert_eq!((back.delete_ms, back.purge_ms), (None, None));
    assert_eq!(
        tenants.undelete("acme", Change::default()).await.unwrap(),
        back,
        "a live one stays as it is"
    );
    let usage = stage
        .store
        .usage(&Space::tenant(tenant.incarnation))
        .await
        .unwrap();
    assert_eq!(usage.entries, 3);
    assert!(
        stage.records(Table::Job).await.is_empty(),
        "nothing will purge it any more"
    );
}

#[tokio::test]
async fn what_is_missing_or_protected_is_not_deleted() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let tenants = &replica.tenants;
    assert_eq!(
        tenants
            .delete("acme", false, Change::default())
            .await
            .unwrap_err(),
        Error::no_tenant("acme")
    );
    assert_eq!(
        tenants
            .delete("acme", true, Change::default())
            .await
            .unwrap(),
        None
    );
    for (missing, answer) in [
        (
            "update",
            tenants.update(rename("acme", "x"), Change::default()).await,
        ),
        (
            "suspend",
            tenants
                .suspend("acme", SuspensionMode::Blocked, "", Change::default())
                .await,
        ),
        ("resume", tenants.resume("acme", Change::default()).await),
        (
            "undelete",
            tenants.undelete("acme", Change::default()).await,
        ),
        ("get", tenants.get(&Caller::Admin, "acme").await),
    ] {
        assert_eq!(answer.unwrap_err(), Error::no_tenant("acme"), "{missing}");
    }

    let profile = Profile {
        delete_protection: true,
        ..Profile::default()
    };
    let new = NewTenant {
        tenant_id: "acme".into(),
        profile,
    };
    tenants.create(new, Change::default()).await.unwrap();
    let refused = tenants
        .delete("acme", false, Change::default())
        .await
        .unwrap_err();
    assert_eq!(refused, Error::DeleteProtected("acme".into()));
    let unprotect = Update {
        tenant_id: "acme".into(),
        profile: Profile::default(),
        update_mask: vec!["delete_protection".into()],
    };
    tenants.update(unprotect, Change::default()).await.unwrap();
    tenants
        .delete("acme", false, Change::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_suspension_keeps_its_time_until_it_changes() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let tenants = &replica.tenants;
    replica.create("acme").await;
    let first = tenants
        .suspend(
            "acme",
            SuspensionMode::ReadOnly,
            "unpaid",
            Change::default(),
        )
        .await
        .unwrap();
    stage.pass_time(9);
    let same = tenants
        .suspend(
            "acme",
            SuspensionMode::ReadOnly,
            "unpaid",
            Change::default(),
        )
        .await
        .unwrap();
    assert_eq!(same, first);
    let other = tenants
        .suspend("acme", SuspensionMode::Blocked, "unpaid", Change::default())
        .await
        .unwrap();
    assert_eq!(other.suspension.unwrap().time_ms, stage.now_ms());
    let long = "r".repeat(513);
    let refused = tenants
        .suspend("acme", SuspensionMode::Blocked, &long, Change::default())
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Invalid(found) if found[0].field == "reason"));
    let resumed = tenants.resume("acme", Change::default()).await.unwrap();
    assert_eq!(resumed.state(), State::Active);
    assert_eq!(
        tenants.resume("acme", Change::default()).await.unwrap(),
        resumed
    );
}

#[tokio::test]
async fn a_key_survives_a_store_that_lost_its_secret() {
    // As after a restart without what was stored, before the feed has told.
    let (before, after) = (Stage::new(), Stage::new());
    let replica = before.replica().await;
    replica.create("acme").await;
    let moved = replica.tenants.through(after.store.clone());
    let created = moved
        .create(named("acme"), Change::default())
        .await
        .unwrap();
    after.deaf_replica().caller(&secret(&created)).await;
}
