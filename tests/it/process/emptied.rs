//! A Redis that lost everything while replicas remember what was in it. It does
//! not know how it was lost.

use riptide_persistence::proto::v1::{
    CreateSessionRequest, GetRequest, SetRequest, TouchSessionRequest,
};
use tonic::Code;

use crate::{
    redis::Redis,
    server::{Backend, Server, reason},
};

fn write() -> SetRequest {
    SetRequest {
        tenant_id: "acme".into(),
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn nothing_lost_is_brought_back() {
    let redis = Redis::start();
    let server = Server::start(Backend::Redis(&redis)).await;
    let mut acme = server.tenant("acme").await.clients.cache;
    let mut admin = server.admin().cache;
    acme.set(write()).await.unwrap();
    let mut state = server.admin().state;
    let create = || CreateSessionRequest {
        tenant_id: "acme".into(),
        user_id: "ann".into(),
        ..Default::default()
    };
    let created = state.create_session(create()).await.unwrap().into_inner();
    let session_id = created.session.unwrap().session_id;
    let touch = || TouchSessionRequest {
        tenant_id: "acme".into(),
        session_id: session_id.clone(),
    };
    state.touch_session(touch()).await.unwrap();

    redis.cli(&["FLUSHALL"]);
    // At first the replica remembers the tenant and its key, then it learns.
    loop {
        let by_admin = admin.set(write()).await.unwrap_err();
        assert_eq!(reason(&by_admin), "TENANT_NOT_FOUND");
        let session = state.create_session(create()).await.unwrap_err();
        assert_eq!(reason(&session), "TENANT_NOT_FOUND");
        let session = state.touch_session(touch()).await.unwrap_err();
        assert_eq!(reason(&session), "TENANT_NOT_FOUND");
        let read = GetRequest {
            key: "k".into(),
            ..Default::default()
        };
        let by_key = acme.get(read).await.unwrap_err();
        match by_key.code() {
            Code::NotFound => {
                assert_eq!(reason(&by_key), "TENANT_NOT_FOUND");
                tokio::task::yield_now().await;
            }
            Code::Unauthenticated => break,
            _ => panic!("{by_key:?}"),
        }
    }
    assert_eq!(redis.cli(&["KEYS", "v1:*:k:*"]).trim(), "");
    assert_eq!(redis.cli(&["KEYS", "v1:{s*"]).trim(), "");
    let mut acme = server.tenant("acme").await.clients.cache;
    acme.set(write()).await.unwrap();
}
