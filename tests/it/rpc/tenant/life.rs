//! The life of a tenant, call by call. It does not know how keys are issued.

use std::collections::HashMap;

use prost_types::{Struct, Value, value::Kind as ValueKind};
use riptide_persistence::proto::v1::{
    CreateTenantRequest, CustomQuota, DeleteTenantRequest, GetRequest, Owner, PhysicalReclaim,
    PurgeTenantRequest, QuotaMode, Quotas, ResumeTenantRequest, RevokeApiKeyRequest,
    SuspensionMode, TenantState, UndeleteTenantRequest, UpdateTenantRequest,
};
use rstest::rstest;
use tonic::Code;
use tonic_types::StatusExt;

use super::{REQUEST, assert_refused, get, mask, named, rename, store, suspend};
use crate::server::{Kind, fields};

fn text(value: &str) -> Value {
    Value {
        kind: Some(ValueKind::StringValue(value.into())),
    }
}

fn full(tenant_id: &str) -> CreateTenantRequest {
    CreateTenantRequest {
        display_name: "Acme Corporation".into(),
        plan: "professional".into(),
        owner: Some(Owner {
            email: "ann@example.com".into(),
            ..Default::default()
        }),
        labels: HashMap::from([("env".into(), "prod".into()), ("team".into(), "a".into())]),
        settings: Some(Struct {
            fields: [("theme".to_owned(), text("dark"))].into(),
        }),
        quotas: Some(Quotas {
            cache_entries: Some(3),
            custom: HashMap::from([(
                "mails".into(),
                CustomQuota {
                    limit: 9,
                    window: Some(prost_types::Duration {
                        seconds: 60,
                        nanos: 0,
                    }),
                },
            )]),
            modes: HashMap::from([("memory_bytes".into(), QuotaMode::Warn.into())]),
            ..Default::default()
        }),
        ..named(tenant_id)
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_tenant_is_created_read_and_changed(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let created = admin
        .tenant
        .create_tenant(full("acme"))
        .await
        .unwrap()
        .into_inner();
    let tenant = created.tenant.unwrap();
    assert_eq!(tenant.state(), TenantState::Active);
    assert_eq!(tenant.display_name, "Acme Corporation");
    let asked = full("acme");
    assert_eq!(tenant.settings, asked.settings);
    assert_eq!(tenant.labels, asked.labels);
    assert_eq!(tenant.quotas, asked.quotas);
    let effective = tenant.effective_quotas.clone().unwrap();
    assert_eq!(effective.cache_entries, Some(3));
    assert!(
        effective.memory_bytes.is_some_and(|bytes| bytes > 0),
        "from the plan"
    );
    assert!(
        tenant
            .create_time
            .is_some_and(|time| time.seconds > 1_700_000_000)
    );
    assert_eq!(created.api_key.unwrap().scopes.len(), 7);
    assert_eq!(get(&admin, "acme").await.unwrap(), tenant);
    let clients = server.with_key(&created.secret);
    assert_eq!(get(&clients, "").await.unwrap(), tenant);

    let mut update = rename("acme", "New Name");
    let new = update.tenant.as_mut().unwrap();
    new.etag = tenant.etag.clone();
    new.labels = HashMap::from([("env".into(), "test".into())]);
    update.update_mask = mask(&[
        "display_name",
        "labels.env",
        "labels.team",
        "quotas.cache_entries",
    ]);
    let changed = admin
        .tenant
        .update_tenant(update.clone())
        .await
        .unwrap()
        .into_inner()
        .tenant
        .unwrap();
    assert_eq!(changed.display_name, "New Name");
    assert_eq!(
        changed.labels,
        HashMap::from([("env".into(), "test".into())])
    );
    assert_eq!(changed.quotas.as_ref().unwrap().cache_entries, None);
    assert_eq!(changed.settings, tenant.settings);
    assert_ne!(changed.etag, tenant.etag);
    assert_refused(
        admin.tenant.update_tenant(update).await,
        Code::Aborted,
        "ETAG_MISMATCH",
    );
    assert_eq!(get(&admin, "acme").await.unwrap(), changed);

    let replaced = UpdateTenantRequest {
        update_mask: mask(&["*"]),
        ..rename("acme", "Only")
    };
    let replaced = admin
        .tenant
        .update_tenant(replaced)
        .await
        .unwrap()
        .into_inner()
        .tenant
        .unwrap();
    assert_eq!(
        (replaced.display_name.as_str(), replaced.plan.as_str()),
        ("Only", "free")
    );
    assert!(replaced.labels.is_empty());
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn bad_requests_are_told_everything_at_once(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    admin.tenant.create_tenant(named("acme")).await.unwrap();
    let bad = CreateTenantRequest {
        tenant_id: "No".into(),
        plan: "gold".into(),
        settings: Some(Struct {
            fields: [(
                "n".to_owned(),
                Value {
                    kind: Some(ValueKind::NumberValue(f64::INFINITY)),
                },
            )]
            .into(),
        }),
        quotas: Some(Quotas {
            memory_bytes: Some(i64::MIN),
            custom: HashMap::from([(
                "mails".into(),
                CustomQuota {
                    limit: 1,
                    window: Some(prost_types::Duration {
                        seconds: -1,
                        nanos: 0,
                    }),
                },
            )]),
            modes: HashMap::from([("memory_bytes".into(), 77)]),
            ..Default::default()
        }),
        encryption_enabled: true,
        request_id: "x".into(),
        ..Default::default()
    };
    let refused = assert_refused(
        admin.tenant.create_tenant(bad).await,
        Code::InvalidArgument,
        "VALIDATION_FAILED",
    );
    let mut found = fields(&refused);
    found.sort();
    assert_eq!(
        found,
        [
            "plan",
            "quotas.custom.mails.window",
            "quotas.memory_bytes",
            "quotas.modes.memory_bytes",
            "request_id",
            "settings.n",
            "tenant_id",
        ]
    );

    let taken = assert_refused(
        admin.tenant.create_tenant(named("acme")).await,
        Code::AlreadyExists,
        "TENANT_EXISTS",
    );
    assert_eq!(
        taken
            .get_error_details()
            .resource_info()
            .unwrap()
            .resource_name,
        "acme"
    );
    assert_refused(
        get(&admin, "nobody").await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );
    assert_refused(
        get(&admin, "").await,
        Code::InvalidArgument,
        "VALIDATION_FAILED",
    );

    let masked = UpdateTenantRequest {
        update_mask: mask(&["colour", "plan", "owner.phone"]),
        ..rename("acme", "x")
    };
    let refused = assert_refused(
        admin.tenant.update_tenant(masked).await,
        Code::InvalidArgument,
        "INVALID_FIELD_MASK",
    );
    assert_eq!(
        fields(&refused),
        ["update_mask.paths[0]", "update_mask.paths[2]"]
    );
    let nameless = UpdateTenantRequest::default();
    let refused = assert_refused(
        admin.tenant.update_tenant(nameless).await,
        Code::InvalidArgument,
        "VALIDATION_FAILED",
    );
    assert_eq!(fields(&refused), ["tenant"]);
    let mut odd = suspend("acme", SuspensionMode::Blocked);
    odd.mode = 99;
    odd.reason = "r".repeat(513);
    let refused = assert_refused(
        admin.tenant.suspend_tenant(odd).await,
        Code::InvalidArgument,
        "VALIDATION_FAILED",
    );
    assert_eq!(fields(&refused), ["mode", "reason"]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_request_id_makes_a_retry_safe(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let create = |name: &str| CreateTenantRequest {
        display_name: name.into(),
        request_id: REQUEST.into(),
        ..Default::default()
    };
    let first = admin
        .tenant
        .create_tenant(create("one"))
        .await
        .unwrap()
        .into_inner();
    let again = admin
        .tenant
        .create_tenant(create("one"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, first);
    store(&server.with_key(&again.secret), "k").await.unwrap();
    let other = admin.tenant.create_tenant(create("two")).await;
    assert_refused(other, Code::FailedPrecondition, "REQUEST_ID_REUSED");

    let tenant_id = first.tenant.unwrap().tenant_id;
    let second = REQUEST.replace("ff", "fe");
    let rename = |name: &str| UpdateTenantRequest {
        request_id: second.clone(),
        ..rename(&tenant_id, name)
    };
    let changed = admin
        .tenant
        .update_tenant(rename("a"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        admin
            .tenant
            .update_tenant(rename("a"))
            .await
            .unwrap()
            .into_inner(),
        changed
    );
    let other = admin.tenant.update_tenant(rename("b")).await;
    assert_refused(other, Code::FailedPrecondition, "REQUEST_ID_REUSED");

    let third = REQUEST.replace("ff", "fd");
    let revoke = || RevokeApiKeyRequest {
        key_id: first.api_key.as_ref().unwrap().key_id.clone(),
        request_id: third.clone(),
        ..Default::default()
    };
    let revoked = admin.tenant.revoke_api_key(revoke()).await.unwrap();
    let fourth = REQUEST.replace("ff", "fc");
    let purge = || PurgeTenantRequest {
        tenant_id: tenant_id.clone(),
        request_id: fourth.clone(),
        ..Default::default()
    };
    let delete = DeleteTenantRequest {
        tenant_id: tenant_id.clone(),
        ..Default::default()
    };
    admin.tenant.delete_tenant(delete).await.unwrap();
    let purged = admin.tenant.purge_tenant(purge()).await.unwrap();
    let again = admin.tenant.purge_tenant(purge()).await.unwrap();
    assert_eq!(again.into_inner(), purged.into_inner());
    let again = admin.tenant.revoke_api_key(revoke()).await.unwrap();
    assert_eq!(again.into_inner(), revoked.into_inner());
    let unnamed = PurgeTenantRequest {
        request_id: "not-a-uuid".into(),
        ..purge()
    };
    let refused = admin.tenant.purge_tenant(unnamed).await;
    assert_refused(refused, Code::InvalidArgument, "VALIDATION_FAILED");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_validation_writes_nothing(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    admin.tenant.create_tenant(named("acme")).await.unwrap();
    let before = get(&admin, "acme").await.unwrap();
    let tried = CreateTenantRequest {
        validate_only: true,
        ..named("more")
    };
    let tried = admin
        .tenant
        .create_tenant(tried)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((tried.api_key, tried.secret.as_str()), (None, ""));
    assert_refused(
        get(&admin, "more").await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );

    let mut blocked = suspend("acme", SuspensionMode::Blocked);
    blocked.validate_only = true;
    let answer = admin
        .tenant
        .suspend_tenant(blocked)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.tenant.unwrap().state(), TenantState::Suspended);
    let delete = DeleteTenantRequest {
        tenant_id: "acme".into(),
        validate_only: true,
        ..Default::default()
    };
    admin.tenant.delete_tenant(delete).await.unwrap();
    let update = UpdateTenantRequest {
        validate_only: true,
        ..rename("acme", "x")
    };
    admin.tenant.update_tenant(update).await.unwrap();
    assert_eq!(get(&admin, "acme").await.unwrap(), before);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn no_more_tenants_than_the_configuration_allows(#[case] kind: Kind) {
    let server = kind
        .start_with(|config| config.tenant.max_tenants = 2)
        .await;
    let mut admin = server.admin();
    admin.tenant.create_tenant(named("one")).await.unwrap();
    admin.tenant.create_tenant(named("two")).await.unwrap();
    for validate_only in [true, false] {
        let more = CreateTenantRequest {
            validate_only,
            ..named("three")
        };
        assert_refused(
            admin.tenant.create_tenant(more).await,
            Code::ResourceExhausted,
            "MAX_TENANTS",
        );
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_suspended_tenant_does_what_its_mode_allows(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let tenant = server.tenant("acme").await;
    store(&tenant.clients, "k").await.unwrap();
    let read = async || {
        tenant
            .clients
            .cache
            .clone()
            .get(GetRequest {
                key: "k".into(),
                ..Default::default()
            })
            .await
    };

    let answer = admin
        .tenant
        .suspend_tenant(suspend("acme", SuspensionMode::ReadOnly))
        .await
        .unwrap()
        .into_inner();
    let suspension = answer.tenant.unwrap().suspension.unwrap();
    assert_eq!(
        (suspension.mode(), suspension.reason.as_str()),
        (SuspensionMode::ReadOnly, "unpaid")
    );
    read().await.unwrap();
    let refused = assert_refused(
        store(&tenant.clients, "k").await,
        Code::FailedPrecondition,
        "TENANT_SUSPENDED",
    );
    assert!(refused.get_error_details().precondition_failure().is_some());

    admin
        .tenant
        .suspend_tenant(suspend("acme", SuspensionMode::Unspecified))
        .await
        .unwrap();
    assert_refused(read().await, Code::FailedPrecondition, "TENANT_SUSPENDED");
    get(&tenant.clients, "").await.unwrap();

    let resume = || ResumeTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let resumed = admin
        .tenant
        .resume_tenant(resume())
        .await
        .unwrap()
        .into_inner()
        .tenant
        .unwrap();
    assert_eq!(
        (resumed.state(), resumed.suspension.clone()),
        (TenantState::Active, None)
    );
    assert_eq!(
        admin
            .tenant
            .resume_tenant(resume())
            .await
            .unwrap()
            .into_inner()
            .tenant,
        Some(resumed)
    );
    store(&tenant.clients, "k").await.unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_deleted_tenant_comes_back_with_its_entries_or_is_purged(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let tenant = server.tenant("acme").await;
    for n in 0..20 {
        store(&tenant.clients, &format!("k{n}")).await.unwrap();
    }
    let delete = || DeleteTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let undelete = || UndeleteTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let purge = || PurgeTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let read = async || {
        tenant
            .clients
            .cache
            .clone()
            .get(GetRequest {
                key: "k7".into(),
                ..Default::default()
            })
            .await
    };

    assert_refused(
        admin.tenant.purge_tenant(purge()).await,
        Code::FailedPrecondition,
        "CONDITION_NOT_MET",
    );
    let deleted = admin
        .tenant
        .delete_tenant(delete())
        .await
        .unwrap()
        .into_inner()
        .tenant
        .unwrap();
    assert_eq!(deleted.state(), TenantState::Deleted);
    let (delete_time, purge_time) = (deleted.delete_time.unwrap(), deleted.purge_time.unwrap());
    assert_eq!(purge_time.seconds - delete_time.seconds, 7 * 24 * 60 * 60);
    assert_refused(read().await, Code::FailedPrecondition, "TENANT_DELETED");
    assert_refused(
        store(&tenant.clients, "k").await,
        Code::FailedPrecondition,
        "TENANT_DELETED",
    );
    assert_refused(
        admin.tenant.delete_tenant(delete()).await,
        Code::FailedPrecondition,
        "TENANT_DELETED",
    );
    assert_refused(
        admin.tenant.update_tenant(rename("acme", "x")).await,
        Code::FailedPrecondition,
        "TENANT_DELETED",
    );
    let lenient = DeleteTenantRequest {
        allow_missing: true,
        ..delete()
    };
    assert_eq!(
        admin
            .tenant
            .delete_tenant(lenient)
            .await
            .unwrap()
            .into_inner()
            .tenant,
        Some(deleted)
    );

    let back = admin
        .tenant
        .undelete_tenant(undelete())
        .await
        .unwrap()
        .into_inner()
        .tenant
        .unwrap();
    assert_eq!(
        (back.state(), back.delete_time),
        (TenantState::Active, None)
    );
    assert_eq!(
        read().await.unwrap().into_inner().entry.unwrap().value,
        "value"
    );

    admin.tenant.delete_tenant(delete()).await.unwrap();
    let tried = PurgeTenantRequest {
        validate_only: true,
        ..purge()
    };
    let expected = admin
        .tenant
        .purge_tenant(tried)
        .await
        .unwrap()
        .into_inner()
        .report
        .unwrap();
    assert_eq!((expected.entries, expected.api_keys), (20, 1));
    let report = admin
        .tenant
        .purge_tenant(purge())
        .await
        .unwrap()
        .into_inner()
        .report
        .unwrap();
    assert_eq!(report.physical_reclaim(), PhysicalReclaim::Done);
    assert_eq!((report.entries, report.api_keys), (20, 1));
    assert_eq!(report.bytes, expected.bytes);
    assert!(report.bytes > 20 * 5, "{report:?}");
    assert_eq!((report.sessions, report.data_key_destroyed), (0, false));

    assert_refused(
        get(&admin, "acme").await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );
    assert_refused(read().await, Code::Unauthenticated, "API_KEY_INVALID");
    assert_refused(
        admin.tenant.purge_tenant(purge()).await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );
    assert_refused(
        admin.tenant.undelete_tenant(undelete()).await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );
    assert_refused(
        admin.tenant.delete_tenant(delete()).await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );
    let lenient = DeleteTenantRequest {
        allow_missing: true,
        ..delete()
    };
    assert_eq!(
        admin
            .tenant
            .delete_tenant(lenient)
            .await
            .unwrap()
            .into_inner()
            .tenant,
        None
    );

    // The name is free again, and nothing of the old life is in the new one.
    let reborn = server.tenant("acme").await;
    let found = reborn
        .clients
        .cache
        .clone()
        .get(GetRequest {
            key: "k7".into(),
            ..Default::default()
        })
        .await;
    assert_eq!(found.unwrap().into_inner().entry, None);
    assert_refused(read().await, Code::Unauthenticated, "API_KEY_INVALID");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_protected_tenant_is_not_deleted(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let protected = CreateTenantRequest {
        delete_protection: true,
        ..named("acme")
    };
    admin.tenant.create_tenant(protected).await.unwrap();
    let delete = || DeleteTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let refused = admin.tenant.delete_tenant(delete()).await;
    assert_refused(refused, Code::FailedPrecondition, "DELETE_PROTECTED");
    let open = UpdateTenantRequest {
        update_mask: mask(&["delete_protection"]),
        ..rename("acme", "")
    };
    admin.tenant.update_tenant(open).await.unwrap();
    let stale = DeleteTenantRequest {
        etag: "stale".into(),
        ..delete()
    };
    assert_refused(
        admin.tenant.delete_tenant(stale).await,
        Code::Aborted,
        "ETAG_MISMATCH",
    );
    admin.tenant.delete_tenant(delete()).await.unwrap();
}
