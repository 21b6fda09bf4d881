//! Two replicas on one Redis: what one is told, the other keeps. It does not
//! know how they hear of each other.

use std::{future::Future, time::Duration};

use riptide_persistence::proto::v1::{
    ListTenantsRequest, ResumeTenantRequest, RevokeApiKeyRequest, RotateApiKeyRequest,
    SuspensionMode, WhoAmIRequest,
};
use tonic::Code;

use super::{assert_refused, get, named, rename, store, suspend};
use crate::{
    redis::Redis,
    server::{Backend, Server},
};

/// The contract promises a second, and `tenant::FRESH` keeps it; a machine that
/// is busy with other tests gets more.
const IN_FORCE: Duration = Duration::from_secs(5);

/// Asserts that a call is refused before long, however often it was answered.
async fn soon_refused<T, F: Future<Output = Result<T, tonic::Status>>>(
    call: impl Fn() -> F,
    why: &str,
) {
    let refused = async {
        loop {
            match call().await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(status) => return status,
            }
        }
    };
    let status = tokio::time::timeout(IN_FORCE, refused)
        .await
        .expect("in force before long");
    assert_eq!(crate::server::reason(&status), why);
}

#[tokio::test]
async fn what_one_replica_is_told_the_other_keeps() {
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;

    // Created at one: readable and usable at the other at once.
    let tenant = one.tenant("acme").await;
    let here = two.with_key(&tenant.secret);
    store(&here, "k").await.unwrap();
    assert_eq!(get(&two.admin(), "acme").await.unwrap(), tenant.message);

    let mut admin = one.admin();
    admin
        .tenant
        .suspend_tenant(suspend("acme", SuspensionMode::ReadOnly))
        .await
        .unwrap();
    soon_refused(|| store(&here, "k"), "TENANT_SUSPENDED").await;
    let resume = ResumeTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    admin.tenant.resume_tenant(resume).await.unwrap();
    let resumed = async {
        while store(&here, "k").await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(IN_FORCE, resumed)
        .await
        .expect("resumed before long");

    let key_id = here
        .tenant
        .clone()
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner()
        .key_id;
    let rotate = RotateApiKeyRequest {
        key_id: key_id.clone(),
        ..Default::default()
    };
    let rotated = admin
        .tenant
        .rotate_api_key(rotate)
        .await
        .unwrap()
        .into_inner();
    let renewed = two.with_key(&rotated.secret);
    store(&renewed, "k").await.unwrap();
    soon_refused(|| store(&here, "k"), "API_KEY_INVALID").await;

    let revoke = RevokeApiKeyRequest {
        key_id,
        ..Default::default()
    };
    admin.tenant.revoke_api_key(revoke).await.unwrap();
    soon_refused(|| store(&renewed, "k"), "API_KEY_INVALID").await;
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
