//! Sessions of encrypted tenants: what the store holds of them, and what becomes of what
//! is changed or moved there. It does not know how anything is sealed.

use bytes::Bytes;
use riptide_persistence::{
    proto::v1::{CreateSessionRequest, RotateDataKeyRequest},
    store::{Batch, Commit, Expiry, Incarnation, Key, Space, Table, Write},
    tenant::record,
};
use rstest::rstest;
use std::collections::HashMap;
use tonic::Code;

use super::{assert_refused, create, get, listed, of, structure, terminate, text, touch};
use crate::{
    rpc::encryption::{Stage, vault},
    server::Kind,
};

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn the_store_holds_nothing_of_a_sealed_session_that_reads(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["one"]).await;
    let sealed = vault(&server, "sealed").await;
    let clear = server.tenant("clear").await;
    let mut sessions = Vec::new();
    for (tenant, canary) in [(&sealed, "canary-sealed"), (&clear, "canary-clear")] {
        let request = CreateSessionRequest {
            data: Some(structure([("secret", text(format!("{canary}-data")))])),
            attributes: HashMap::from([("a".to_owned(), format!("{canary}-attribute"))]),
            request_id: "7c9a1c1e-4b7d-4c6e-9f0a-3f8f2f1f0b5a".into(),
            ..of(&format!("{canary}-user"))
        };
        let session = create(&tenant.clients, request).await.unwrap();
        let read = get(&tenant.clients, &session.session_id).await.unwrap();
        assert_eq!(read, session);
        assert_eq!(
            touch(&tenant.clients, &session.session_id)
                .await
                .unwrap()
                .data,
            session.data
        );
        assert_eq!(listed(&tenant.clients, &session.user_id).await.len(), 1);
        sessions.push(session);
    }
    server.stop().await;
    for part in ["data", "attribute", "user"] {
        assert_eq!(stage.holding(&format!("canary-sealed-{part}")), 0, "{part}");
        assert!(stage.holding(&format!("canary-clear-{part}")) > 0, "{part}");
    }
    // With its key it reads again.
    let server = stage.serve(&["one"]).await;
    let clients = server.with_key(&sealed.secret);
    let read = get(&clients, &sessions[0].session_id).await.unwrap();
    assert_eq!(read.data, sessions[0].data);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_is_changed_or_moved_does_not_open(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["one"]).await;
    let tenants = [vault(&server, "sealed").await, server.tenant("clear").await];
    let mut ids = Vec::new();
    for tenant in &tenants {
        let one = create(&tenant.clients, of("ann")).await.unwrap();
        let two = create(&tenant.clients, of("ann")).await.unwrap();
        ids.push([one.session_id, two.session_id]);
    }
    server.stop().await;
    let store = stage.store().await;
    for (tenant, [one, two]) in tenants.iter().zip(&ids) {
        let key = Key::new(Table::Tenant, tenant.message.tenant_id.clone());
        let read = store.read(&Space::registry(), 0, &[key]).await.unwrap();
        let value = &read.records[0].as_ref().unwrap().value;
        let found: record::Tenant = serde_json::from_slice(value).unwrap();
        let incarnation: Incarnation = found.incarnation;
        let space = Space::sessions(incarnation);
        let path = |id: &str| {
            let bytes = riptide_persistence::random::BASE32.decode(id.as_bytes());
            Key::new(Table::Session, bytes.unwrap())
        };
        let read = store.read(&space, 0, &[path(one)]).await.unwrap();
        let value = read.records[0].as_ref().unwrap().value.clone();
        // Another's place; and a longer life.
        let mut longer = value.to_vec();
        longer[7] ^= 1;
        let writes = [(path(two), value.clone()), (path(one), Bytes::from(longer))];
        let writes =
            writes.map(|(key, value)| Write::put(key, value).expiring(Expiry::AfterMs(3_600_000)));
        let commit = store.commit(&space, Batch::of(writes)).await.unwrap();
        assert!(matches!(commit, Commit::Applied(_)));
    }
    store.close().await.unwrap();
    drop(store);
    let server = stage.serve(&["one"]).await;
    for (tenant, [one, two]) in tenants.iter().zip(&ids) {
        let clients = server.with_key(&tenant.secret);
        assert_refused(get(&clients, one).await, Code::DataLoss, "ENTRY_CORRUPT");
        if tenant.message.encryption_enabled {
            assert_refused(get(&clients, two).await, Code::DataLoss, "ENTRY_CORRUPT");
        }
        // What cannot be shown can be ended all the same.
        let ended = terminate(&clients, one, "").await;
        assert_refused(ended, Code::DataLoss, "ENTRY_CORRUPT");
        assert_refused(
            get(&clients, one).await,
            Code::NotFound,
            "SESSION_NOT_FOUND",
        );
        create(&clients, of("ann")).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_data_key_opens_sessions_at_all_replicas_at_once() {
    let stage = Stage::new(Kind::Redis);
    let (one, two) = (stage.serve(&["one"]).await, stage.serve(&["one"]).await);
    let tenant = vault(&one, "sealed").await;
    let there = two.with_key(&tenant.secret);
    let old = create(&tenant.clients, of("ann")).await.unwrap();
    get(&there, &old.session_id).await.unwrap();
    for _ in 0..3 {
        let request = RotateDataKeyRequest {
            tenant_id: "sealed".into(),
            ..Default::default()
        };
        let rotated = one.admin().tenant.rotate_data_key(request).await;
        rotated.unwrap();
        let new = create(&tenant.clients, of("ann")).await.unwrap();
        assert_eq!(get(&there, &new.session_id).await.unwrap(), new);
        touch(&there, &new.session_id).await.unwrap();
    }
    assert_eq!(listed(&there, "ann").await.len(), 4);
    assert_eq!(get(&there, &old.session_id).await.unwrap(), old);
}
