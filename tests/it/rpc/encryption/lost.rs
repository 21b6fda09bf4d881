//! Master keys that are not there, and are there again.

use riptide_persistence::proto::v1::{
    BatchSetRequest, DeleteRequest, ListKeysRequest, RotateDataKeyRequest, SetEntry, TouchRequest,
};
use rstest::rstest;
use tonic::Code;

use super::{Stage, batch, get, set, value, vault};
use crate::{
    process::audit,
    rpc::tenant::assert_refused,
    server::{Kind, Server},
};

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn without_its_master_key_nothing_opens_and_with_it_all_does_again(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let tenant_id = format!("lost-{kind:?}").to_lowercase();
    let server = stage.serve(&["one"]).await;
    let tenant = vault(&server, &tenant_id).await;
    for key in ["a", "b", "c"] {
        set(&tenant.clients, "", key, format!("value of {key}"))
            .await
            .unwrap();
    }
    server.stop().await;

    // Another key, none, and another key under the same name.
    let wrong = super::master("two").replace("two:", "one:");
    let masters: [Option<String>; 3] = [Some(super::master("two")), None, Some(wrong)];
    for (turn, masters) in masters.into_iter().enumerate() {
        let server = stage
            .serve_with(&[], |config| {
                config.encryption.master_keys = masters.clone().map(Into::into);
            })
            .await;
        let clients = server.with_key(&tenant.secret);
        assert_refused(
            get(&clients, "", "a").await,
            Code::DataLoss,
            "ENTRY_CORRUPT",
        );
        let results = batch(&clients, &["a", "none", "b"]).await;
        let codes: Vec<_> = results
            .iter()
            .map(|result| result.status.as_ref().map(|status| status.code))
            .collect();
        let loss = Some(Code::DataLoss as i32);
        assert_eq!(codes, [loss, None, loss]);
        assert!(results.iter().all(|result| result.entry.is_none()));
        let told = audit::unopened(&tenant_id);
        assert_eq!(told.len(), turn + 1, "once a minute and server: {told:?}");
        assert!(told[turn].contains("data key 1"), "{told:?}");

        let refused = set(&clients, "", "a", "not in the clear").await;
        assert_refused(refused, Code::FailedPrecondition, "CONDITION_NOT_MET");
        let request = BatchSetRequest {
            entries: vec![SetEntry {
                key: "a".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let refused = clients.cache.clone().batch_set(request).await;
        assert_refused(refused, Code::FailedPrecondition, "CONDITION_NOT_MET");
        // What needs no key goes on.
        let listed = clients
            .cache
            .clone()
            .list_keys(ListKeysRequest::default())
            .await;
        assert_eq!(listed.unwrap().into_inner().keys.len(), 3);
        let touch = TouchRequest {
            key: "b".into(),
            ..Default::default()
        };
        assert!(
            clients
                .cache
                .clone()
                .touch(touch)
                .await
                .unwrap()
                .into_inner()
                .found
        );
        server.stop().await;
    }

    // Both are there: what is old opens, and what is new is wrapped by the first.
    let server = stage.serve(&["two", "one"]).await;
    let clients = server.with_key(&tenant.secret);
    assert_eq!(value(&clients, "", "a").await.unwrap(), "value of a");
    assert!(
        batch(&clients, &["a", "b", "c"])
            .await
            .iter()
            .all(|got| got.entry.is_some())
    );
    set(&clients, "", "a", "new").await.unwrap();
    assert_eq!(value(&clients, "", "a").await.unwrap(), "new");
}

/// Where the master key is gone for good, a new data key lets the tenant go on; the
/// entries it lost can be removed or set anew.
#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_tenant_goes_on_with_a_new_data_key(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["one"]).await;
    let tenant = vault(&server, "vault").await;
    for key in ["a", "b"] {
        set(&tenant.clients, "", key, "lost").await.unwrap();
    }
    server.stop().await;

    let server: Server = stage.serve(&["two"]).await;
    let clients = server.with_key(&tenant.secret);
    assert_refused(
        get(&clients, "", "a").await,
        Code::DataLoss,
        "ENTRY_CORRUPT",
    );
    let rotate = RotateDataKeyRequest {
        tenant_id: "vault".into(),
        ..Default::default()
    };
    let rotated = server.admin().tenant.rotate_data_key(rotate).await.unwrap();
    let rotated = rotated.into_inner();
    let data_key = rotated.data_key.unwrap();
    assert_eq!(
        (data_key.data_key_id, data_key.master_key_id.as_str()),
        (2, "two")
    );
    assert_eq!(rotated.data_keys, 2);

    set(&clients, "", "a", "new").await.unwrap();
    assert_eq!(value(&clients, "", "a").await.unwrap(), "new");
    assert_refused(
        get(&clients, "", "b").await,
        Code::DataLoss,
        "ENTRY_CORRUPT",
    );
    let delete = DeleteRequest {
        key: "b".into(),
        ..Default::default()
    };
    assert!(
        clients
            .cache
            .clone()
            .delete(delete)
            .await
            .unwrap()
            .into_inner()
            .deleted
    );
    assert_eq!(value(&clients, "", "b").await, None);
}
