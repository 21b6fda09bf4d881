//! Who is let in, from memory and from the store. It does not know how keys are
//! made.

use riptide_persistence::{
    config,
    error::Error,
    store::{Limits, Table},
    tenant::{
        Access, Caller, Change, NewTenant, Profile, Quotas, SuspensionMode, api_key, plan::Mode,
    },
};

use super::{ADMIN, Stage, eventually};

#[tokio::test]
async fn a_warm_replica_admits_without_the_store() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let (_, key) = replica.create_with_key("acme").await;
    let admit = async || {
        let caller = replica.caller(&key).await;
        replica
            .tenants
            .admit(&caller, "", Access::Write)
            .await
            .unwrap()
    };
    admit().await;
    let before = stage.counters.calls();
    let tenancy = admit().await;
    replica
        .tenants
        .admit(&Caller::Admin, "acme", Access::Read)
        .await
        .unwrap();
    let calls = stage.counters.calls().since(before);
    assert_eq!(
        (calls.read, calls.commit, calls.list, calls.usage),
        (0, 0, 0, 0)
    );
    assert_eq!(&*tenancy.tenant_id, "acme");
    assert_eq!(
        tenancy.limits,
        Limits {
            entries: Some(100),
            bytes: Some(1_000_000)
        }
    );
    assert_eq!(tenancy.default_ttl_ms, Some(90_000));
    assert!(tenancy.confined.is_none());
}

#[tokio::test]
async fn only_a_key_that_was_issued_is_let_in() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let (tenant, key) = replica.create_with_key("acme").await;
    let tenants = &replica.tenants;
    assert_eq!(
        tenants.authenticate(None).await.unwrap_err(),
        Error::KeyMissing
    );
    assert!(matches!(
        tenants.authenticate(Some(ADMIN)).await.unwrap(),
        Caller::Admin
    ));

    let id = api_key::parse(&key).unwrap().key_id.to_owned();
    let wrong_secret = api_key::format(&id, &[1; 32]);
    let unknown = api_key::format(&api_key::generate_id(tenant.incarnation), &[1; 32]);
    let before = stage.counters.calls();
    for bad in [
        "",
        " ",
        "x",
        "the-admin-kez",
        &key[1..],
        &format!("{key}x"),
        &key.to_uppercase(),
    ] {
        assert_eq!(
            tenants.authenticate(Some(bad)).await.unwrap_err(),
            Error::KeyInvalid,
            "{bad:?}"
        );
    }
    assert_eq!(
        stage.counters.calls().since(before).read,
        0,
        "malformed keys cost no read"
    );
    for bad in [&wrong_secret, &wrong_secret, &unknown, &unknown] {
        assert_eq!(
            tenants.authenticate(Some(bad)).await.unwrap_err(),
            Error::KeyInvalid,
            "{bad:?}"
        );
    }
    let reads = stage.counters.calls().since(before).read;
    assert_eq!(
        reads, 3,
        "the key, once more for the wrong secret, and the unknown one once"
    );
    assert!(matches!(replica.caller(&key).await, Caller::Key(grant) if grant.tenant_id == "acme"));
}

#[tokio::test]
async fn an_empty_admin_key_lets_nobody_in() {
    let stage = Stage::new();
    let directory = std::sync::Arc::new(riptide_persistence::tenant::Directory::new(
        std::time::Duration::from_secs(1),
    ));
    let tenants = riptide_persistence::tenant::Tenants::new(
        stage.store.clone(),
        directory,
        stage.settings.clone(),
        secrecy::SecretString::from(""),
    );
    assert_eq!(
        tenants.authenticate(Some("")).await.unwrap_err(),
        Error::KeyInvalid
    );
}

#[tokio::test]
async fn a_tenant_key_opens_its_own_tenant_alone() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let (_, key) = replica.create_with_key("acme").await;
    replica.create("other").await;
    let caller = replica.caller(&key).await;
    replica
        .tenants
        .admit(&caller, "acme", Access::Read)
        .await
        .unwrap();
    for named in ["other", "nobody", "No Tenant"] {
        let refused = replica
            .tenants
            .admit(&caller, named, Access::Read)
            .await
            .unwrap_err();
        assert_eq!(refused, Error::TenantMismatch, "{named}");
        assert_eq!(
            replica.tenants.get(&caller, named).await.unwrap_err(),
            Error::TenantMismatch
        );
    }
    for named in ["nobody", "No Tenant"] {
        let refused = replica
            .tenants
            .admit(&Caller::Admin, named, Access::Read)
            .await
            .unwrap_err();
        assert_eq!(refused, Error::no_tenant(named));
    }
    let unnamed = replica
        .tenants
        .admit(&Caller::Admin, "", Access::Read)
        .await
        .unwrap_err();
    assert!(matches!(unnamed, Error::Invalid(_)));
}

#[tokio::test]
async fn suspension_closes_what_its_mode_says() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    replica.create("acme").await;
    let tenants = &replica.tenants;
    for (mode, read, write) in [
        (SuspensionMode::ReadOnly, true, false),
        (SuspensionMode::Blocked, false, false),
    ] {
        tenants
            .suspend("acme", mode, "unpaid", Change::default())
            .await
            .unwrap();
        for (access, open) in [(Access::Read, read), (Access::Write, write)] {
            let answer = tenants.admit(&Caller::Admin, "acme", access).await;
            if open {
                answer.unwrap();
            } else {
                let read_only = mode == SuspensionMode::ReadOnly;
                let refusal = Error::TenantSuspended {
                    tenant_id: "acme".into(),
                    read_only,
                };
                assert_eq!(answer.unwrap_err(), refusal, "{mode:?} {access:?}");
            }
        }
    }
    tenants.resume("acme", Change::default()).await.unwrap();
    tenants
        .admit(&Caller::Admin, "acme", Access::Write)
        .await
        .unwrap();
    tenants
        .delete("acme", false, Change::default())
        .await
        .unwrap();
    let refused = tenants
        .admit(&Caller::Admin, "acme", Access::Read)
        .await
        .unwrap_err();
    assert_eq!(refused, Error::TenantDeleted("acme".into()));
}

#[tokio::test]
async fn another_replica_hears_of_a_suspension_and_a_revocation() {
    let stage = Stage::new();
    let (one, two) = (stage.replica().await, stage.replica().await);
    let (_, key) = one.create_with_key("acme").await;
    let caller = two.caller(&key).await;
    two.tenants.admit(&caller, "", Access::Write).await.unwrap();

    one.tenants
        .suspend("acme", SuspensionMode::Blocked, "", Change::default())
        .await
        .unwrap();
    eventually(async || {
        let answer = two.tenants.admit(&caller, "", Access::Write).await;
        matches!(answer, Err(Error::TenantSuspended { .. }))
    })
    .await;

    one.tenants
        .revoke_api_key(caller.key_id(), Change::default())
        .await
        .unwrap();
    eventually(async || two.tenants.authenticate(Some(&key)).await.is_err()).await;
}

#[tokio::test]
async fn a_replica_that_hears_nothing_asks_the_store_each_time() {
    let stage = Stage::new();
    let (one, deaf) = (stage.replica().await, stage.deaf_replica());
    let (_, key) = one.create_with_key("acme").await;
    let caller = deaf.caller(&key).await;
    deaf.tenants
        .admit(&caller, "", Access::Write)
        .await
        .unwrap();
    one.tenants
        .suspend("acme", SuspensionMode::Blocked, "", Change::default())
        .await
        .unwrap();
    let refused = deaf
        .tenants
        .admit(&caller, "", Access::Write)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::TenantSuspended { .. }));
    one.tenants
        .revoke_api_key(caller.key_id(), Change::default())
        .await
        .unwrap();
    assert_eq!(
        deaf.tenants.authenticate(Some(&key)).await.unwrap_err(),
        Error::KeyInvalid
    );
}

#[tokio::test]
async fn a_new_life_of_a_tenant_is_open_at_once_and_closed_to_keys_of_the_old_one() {
    let stage = Stage::new();
    let (one, two) = (stage.replica().await, stage.replica().await);
    let (_, old_key) = one.create_with_key("acme").await;
    let old_caller = two.caller(&old_key).await;
    two.tenants
        .admit(&old_caller, "", Access::Read)
        .await
        .unwrap();
    one.tenants
        .delete("acme", false, Change::default())
        .await
        .unwrap();
    one.tenants.purge("acme", Change::default()).await.unwrap();

    // The second replica may still remember the old life; it must not refuse the
    // new one for it, nor let a key of the old one in.
    let (_, new_key) = one.create_with_key("acme").await;
    let new_caller = two.caller(&new_key).await;
    let tenancy = two
        .tenants
        .admit(&new_caller, "acme", Access::Write)
        .await
        .unwrap();
    assert_ne!(tenancy.incarnation, grant_of(&old_caller));
    let refused = two
        .tenants
        .admit(&old_caller, "", Access::Read)
        .await
        .unwrap_err();
    assert_eq!(refused, Error::KeyInvalid);
    assert_eq!(
        one.tenants.get(&old_caller, "").await.unwrap_err(),
        Error::KeyInvalid
    );
    assert_eq!(stage.records(Table::ApiKey).await.len(), 1);
}

fn grant_of(caller: &Caller) -> riptide_persistence::store::Incarnation {
    match caller {
        Caller::Key(grant) => grant.incarnation,
        Caller::Admin | Caller::Certified(_) => unreachable!(),
    }
}

#[tokio::test]
async fn limits_follow_the_tenants_quotas_their_modes_and_a_reloaded_plan() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let mut quotas = Quotas {
        memory_bytes: Some(77),
        ..Quotas::default()
    };
    quotas.modes.insert("cache_entries".into(), Mode::Warn);
    let profile = Profile {
        quotas: Some(quotas),
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
    replica.create("plain").await;
    let limits = async |tenant_id: &str| {
        replica
            .tenants
            .admit(&Caller::Admin, tenant_id, Access::Read)
            .await
            .unwrap()
            .limits
    };
    assert_eq!(
        limits("acme").await,
        Limits {
            entries: None,
            bytes: Some(77)
        }
    );
    assert_eq!(
        limits("plain").await,
        Limits {
            entries: Some(100),
            bytes: Some(1_000_000)
        }
    );

    let mut settings = super::settings();
    settings.plans.insert(
        "free".into(),
        config::Plan {
            default_ttl: None,
            ..settings.plans["basic"].clone()
        },
    );
    stage.settings.store(settings.into());
    let before = stage.counters.calls();
    assert_eq!(
        limits("plain").await,
        Limits {
            entries: None,
            bytes: Some(1_000_000)
        }
    );
    assert_eq!(stage.counters.calls().since(before).read, 0);
}
