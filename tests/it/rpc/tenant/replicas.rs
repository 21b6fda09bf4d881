//! Two replicas on one Redis: what one is told, the other keeps. It does not
//! know how they hear of each other.

use std::time::Duration;

use riptide_persistence::proto::v1::{ListTenantsRequest, RotateApiKeyRequest, WhoAmIRequest};
use tonic::Code;

use super::{assert_refused, get, named, rename, store};
use crate::{
    redis::Redis,
    server::{Backend, Server},
};

#[tokio::test]
async fn a_key_rotated_at_one_replica_works_at_the_other_at_once() {
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;
    let tenant = one.tenant("acme").await;
    let here = two.with_key(&tenant.secret);
    store(&here, "k").await.unwrap();
    assert_eq!(get(&two.admin(), "acme").await.unwrap(), tenant.message);

    let who = here
        .tenant
        .clone()
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap();
    let rotate = RotateApiKeyRequest {
        key_id: who.into_inner().key_id,
        ..Default::default()
    };
    let rotated = one
        .admin()
        .tenant
        .rotate_api_key(rotate)
        .await
        .unwrap()
        .into_inner();
    store(&two.with_key(&rotated.secret), "k").await.unwrap();
    let old = async {
        while store(&here, "k").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), old)
        .await
        .expect("the old secret dies before long");
    assert_refused(
        store(&here, "k").await,
        Code::Unauthenticated,
        "API_KEY_INVALID",
    );
}

#[tokio::test]
async fn a_store_that_came_back_empty_knows_no_tenant_and_takes_new_ones() {
    let mut redis = Redis::start();
    let server = Server::start(Backend::Redis(&redis)).await;
    let tenant = server.tenant("acme").await;
    store(&tenant.clients, "k").await.unwrap();
    redis.kill();
    server.serves(false).await;
    assert_refused(
        store(&tenant.clients, "k").await,
        Code::Unavailable,
        "STORE_UNAVAILABLE",
    );
    redis.restart();
    server.serves(true).await;

    assert_refused(
        store(&tenant.clients, "k").await,
        Code::Unauthenticated,
        "API_KEY_INVALID",
    );
    assert_refused(
        get(&server.admin(), "acme").await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );
    let reborn = server.tenant("acme").await;
    store(&reborn.clients, "k").await.unwrap();
    assert_refused(
        store(&tenant.clients, "k").await,
        Code::Unauthenticated,
        "API_KEY_INVALID",
    );
}

#[tokio::test]
async fn tokens_and_etags_of_one_replica_are_good_at_the_other() {
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;
    for name in ["aaa", "bbb", "ccc"] {
        one.admin().tenant.create_tenant(named(name)).await.unwrap();
    }
    let first = ListTenantsRequest {
        page_size: 2,
        ..Default::default()
    };
    let page = one
        .admin()
        .tenant
        .list_tenants(first.clone())
        .await
        .unwrap()
        .into_inner();
    let rest = ListTenantsRequest {
        page_token: page.next_page_token,
        ..first
    };
    let rest = two
        .admin()
        .tenant
        .list_tenants(rest)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        rest.tenants
            .iter()
            .map(|t| t.tenant_id.as_str())
            .collect::<Vec<_>>(),
        ["ccc"]
    );

    let mut update = rename("aaa", "One");
    update.tenant.as_mut().unwrap().etag = get(&one.admin(), "aaa").await.unwrap().etag;
    two.admin()
        .tenant
        .update_tenant(update.clone())
        .await
        .unwrap();
    let stale = one.admin().tenant.update_tenant(update).await;
    assert_refused(stale, Code::Aborted, "ETAG_MISMATCH");
}
