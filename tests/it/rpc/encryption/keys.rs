//! What an encrypted tenant shows and what it hides, from its creation to its
//! purge.

use riptide_persistence::{
    proto::v1::{
        Consistency, CreateTenantRequest, DeleteTenantRequest, GetRequest, GetServerInfoRequest,
        ListKeysRequest, PurgeTenantRequest, RewrapDataKeysRequest, RotateDataKeyRequest, Tenant,
        UpdateTenantRequest,
    },
    tenant::record,
};
use rstest::rstest;
use tonic::Code;

use super::{Stage, get, master, registered, set, value, vault};
use crate::{
    rpc::tenant::{assert_refused, get as get_tenant, mask, named, rename},
    server::{Kind, fields},
};

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_value_is_not_in_the_store_as_it_is(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["one"]).await;
    let sealed = vault(&server, "vault").await;
    let plain = server.tenant("plain").await;
    assert!(sealed.message.encryption_enabled);
    assert!(!plain.message.encryption_enabled);
    let text = |whose: &str| format!("a canary of the {whose} tenant");
    set(&sealed.clients, "", "k", text("sealed")).await.unwrap();
    set(&plain.clients, "", "k", text("plain")).await.unwrap();

    let entry = get(&sealed.clients, "", "k").await.unwrap().unwrap();
    assert_eq!(entry.value, text("sealed"));
    assert_eq!(
        (entry.content_type.as_str(), entry.tags.len()),
        ("text/plain", 1)
    );
    assert_eq!(entry.size_bytes, text("sealed").len() as i64);
    assert_eq!(entry.stored_bytes, entry.size_bytes);
    let listed = sealed.clients.cache.clone();
    let listed = listed.clone().list_keys(ListKeysRequest::default()).await;
    let listed = listed.unwrap().into_inner().keys;
    assert_eq!((listed.len(), listed[0].size_bytes), (1, entry.size_bytes));

    server.stop().await;
    assert!(stage.holding(&text("plain")) > 0);
    assert_eq!(stage.holding(&text("sealed")), 0);
    let secret = master("one");
    assert_eq!(stage.holding(secret.split_once(':').unwrap().1), 0);
    // Tags are told to whoever sweeps, and who has no key.
    assert!(stage.holding("a-tag") > 0);

    let server = stage.serve(&["one"]).await;
    let clients = server.with_key(&sealed.secret);
    assert_eq!(value(&clients, "", "k").await.unwrap(), text("sealed"));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn encryption_is_fixed_at_creation_and_needs_a_master_key(#[case] kind: Kind) {
    let server = kind.start().await;
    let encrypted = CreateTenantRequest {
        encryption_enabled: true,
        ..named("vault")
    };
    for validate_only in [true, false] {
        let request = CreateTenantRequest {
            validate_only,
            ..encrypted.clone()
        };
        let refused = server.admin().tenant.create_tenant(request).await;
        let refused = assert_refused(refused, Code::FailedPrecondition, "CONDITION_NOT_MET");
        assert!(refused.message().contains("encryption.master_keys"));
        assert!(refused.message().contains("key generate-master"));
    }
    let mut admin = server.admin();
    let rewrap = RewrapDataKeysRequest::default();
    let refused = admin.tenant.rewrap_data_keys(rewrap).await;
    assert_refused(refused, Code::FailedPrecondition, "CONDITION_NOT_MET");

    let server = kind
        .start_with(|config| config.encryption.master_keys = Some(master("one").into()))
        .await;
    let mut admin = server.admin();
    vault(&server, "vault").await;
    server.tenant("plain").await;
    let update = |tenant_id: &str, paths: &[&str]| UpdateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: tenant_id.into(),
            display_name: "new".into(),
            encryption_enabled: true,
            ..Default::default()
        }),
        update_mask: mask(paths),
        ..Default::default()
    };
    for tenant_id in ["plain", "vault"] {
        let masked = update(tenant_id, &["display_name", "encryption_enabled"]);
        let masked = admin.tenant.update_tenant(masked).await;
        let masked = assert_refused(masked, Code::InvalidArgument, "INVALID_FIELD_MASK");
        assert_eq!(fields(&masked), ["update_mask.paths[1]"]);
    }
    for paths in [&[][..], &["*"]] {
        let asked = admin.tenant.update_tenant(update("plain", paths)).await;
        let asked = assert_refused(asked, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(fields(&asked), ["tenant.encryption_enabled"]);
        let same = admin.tenant.update_tenant(update("vault", paths)).await;
        assert!(
            same.unwrap()
                .into_inner()
                .tenant
                .unwrap()
                .encryption_enabled
        );
    }
    let other = admin.tenant.update_tenant(rename("vault", "other")).await;
    assert!(
        other
            .unwrap()
            .into_inner()
            .tenant
            .unwrap()
            .encryption_enabled
    );
    assert!(
        get_tenant(&admin, "vault")
            .await
            .unwrap()
            .encryption_enabled
    );

    let rotate = RotateDataKeyRequest {
        tenant_id: "plain".into(),
        ..Default::default()
    };
    let refused = admin.tenant.rotate_data_key(rotate).await;
    let refused = assert_refused(refused, Code::FailedPrecondition, "CONDITION_NOT_MET");
    assert!(refused.message().contains("not encrypted"), "{refused:?}");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn where_all_are_to_be_every_new_tenant_is_encrypted(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["one"]).await;
    let before = server.tenant("before").await;
    set(&before.clients, "", "k", "in the clear").await.unwrap();
    server.stop().await;

    let server = stage
        .serve_with(&["one"], |config| config.encryption.enabled = true)
        .await;
    let after = server.tenant("after").await;
    assert!(after.message.encryption_enabled);
    let before = server.with_key(&before.secret);
    assert_eq!(value(&before, "", "k").await.unwrap(), "in the clear");
    let mut state = server.admin().state;
    let info = state
        .get_server_info(GetServerInfoRequest {})
        .await
        .unwrap();
    let features = info.into_inner().features;
    let encryption = features.iter().find(|feature| feature.name == "encryption");
    assert!(encryption.unwrap().enabled);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_purge_destroys_the_data_keys(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["one"]).await;
    let sealed = vault(&server, "vault").await;
    set(&sealed.clients, "", "k", "value").await.unwrap();
    let plain = server.tenant("plain").await;
    set(&plain.clients, "", "k", "value").await.unwrap();
    // An answer that is kept for a replay holds no key either.
    let mut admin = server.admin();
    let rotate = RotateDataKeyRequest {
        tenant_id: "vault".into(),
        request_id: "0190a1b2-0000-7000-8000-0000000000aa".into(),
        ..Default::default()
    };
    admin.tenant.rotate_data_key(rotate).await.unwrap();
    server.stop().await;

    let store = stage.store().await;
    let tenant = registered(&store, "vault").await;
    let stored = String::from_utf8(record::encode(&tenant).unwrap().to_vec()).unwrap();
    // A release that knows no data keys refuses it.
    assert!(stored.starts_with("{\"format\":2,"), "{stored}");
    let wrapped: Vec<&str> = stored.split("\"wrapped\":\"").skip(1).collect();
    let wrapped: Vec<&str> = wrapped.iter().map(|rest| &rest[..40]).collect();
    assert_eq!(wrapped.len(), 2);
    store.close().await.unwrap();
    drop(store);
    if kind == Kind::Redis {
        assert_eq!(
            wrapped.iter().map(|key| stage.holding(key)).sum::<usize>(),
            2
        );
    }

    let server = stage.serve(&["one"]).await;
    let mut admin = server.admin();
    for (tenant_id, destroyed) in [("vault", true), ("plain", false)] {
        let delete = DeleteTenantRequest {
            tenant_id: tenant_id.into(),
            ..Default::default()
        };
        admin.tenant.delete_tenant(delete).await.unwrap();
        let mut purge = PurgeTenantRequest {
            tenant_id: tenant_id.into(),
            validate_only: true,
            ..Default::default()
        };
        for validate_only in [true, false] {
            purge.validate_only = validate_only;
            let purged = admin.tenant.purge_tenant(purge.clone()).await.unwrap();
            let report = purged.into_inner().report.unwrap();
            assert_eq!(report.data_key_destroyed, destroyed, "{tenant_id}");
            assert_eq!(report.entries, 1);
        }
    }
    server.stop().await;
    if kind == Kind::Redis {
        for key in wrapped {
            assert_eq!(stage.holding(key), 0, "a data key outlived its tenant");
        }
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn sealing_takes_no_further_trip(#[case] kind: Kind) {
    let server = kind
        .start_with(|config| config.encryption.master_keys = Some(master("one").into()))
        .await;
    let tenant = vault(&server, "vault").await;
    let strong = GetRequest {
        key: "k".into(),
        consistency: Consistency::Strong.into(),
        ..Default::default()
    };
    let mut clients = tenant.clients;
    let mut turn = async || {
        let before = server.calls();
        set(&clients, "", "k", "value").await.unwrap();
        let set = server.calls().since(before);
        let before = server.calls();
        clients.cache.get(strong.clone()).await.unwrap();
        (set, server.calls().since(before))
    };
    // What the replica remembers of key and tenant is looked up at first, and on a
    // busy machine now and then.
    let mut seen = Vec::new();
    for _ in 0..20 {
        let (set, get) = turn().await;
        seen.push(((set.read, set.commit), (get.read, get.commit)));
    }
    assert!(seen.contains(&((0, 1), (1, 0))), "{seen:?}");
}
