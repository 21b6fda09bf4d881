//! Two replicas on one Redis: what one does, the other does too within a second.

use std::time::{Duration, Instant};

use riptide_persistence::proto::v1::{
    GetRequest, ResumeTenantRequest, RevokeApiKeyRequest, SetRequest, SuspendTenantRequest,
    WhoAmIRequest,
};
use tonic::Status;

use crate::{
    redis::Redis,
    server::{Backend, Clients, Server, reason},
};

const WITHIN: Duration = Duration::from_secs(1);

async fn get(clients: &Clients) -> Result<Option<Vec<u8>>, Status> {
    let request = GetRequest {
        key: "k".into(),
        ..Default::default()
    };
    let answer = clients.cache.clone().get(request).await?.into_inner();
    Ok(answer.entry.map(|entry| entry.value.to_vec()))
}

/// Repeats a call until it is refused for this reason; how long that took.
async fn until(clients: &Clients, wanted: Option<&str>) -> Duration {
    let began = Instant::now();
    loop {
        let found = get(clients).await.err().map(|status| reason(&status));
        if found.as_deref() == wanted {
            return began.elapsed();
        }
        assert!(
            began.elapsed() < WITHIN * 5,
            "still {found:?}, not {wanted:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_one_replica_does_is_in_force_at_the_other_within_a_second() {
    let redis = Redis::start();
    let one = Server::start(Backend::Redis(&redis)).await;
    let two = Server::start(Backend::Redis(&redis)).await;

    // A tenant is usable everywhere as soon as its creation returned.
    let acme = one.tenant("acme").await;
    let elsewhere = two.with_key(&acme.secret);
    assert_eq!(get(&elsewhere).await.unwrap(), None);
    let set = SetRequest {
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    };
    acme.clients.cache.clone().set(set).await.unwrap();
    assert_eq!(
        get(&elsewhere).await.unwrap().as_deref(),
        Some(b"v".as_slice())
    );

    let suspend = SuspendTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    one.admin().tenant.suspend_tenant(suspend).await.unwrap();
    let took = until(&elsewhere, Some("TENANT_SUSPENDED")).await;
    assert!(took < WITHIN, "suspension took {took:?}");
    let resume = ResumeTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    one.admin().tenant.resume_tenant(resume).await.unwrap();
    let took = until(&elsewhere, None).await;
    assert!(took < WITHIN, "resumption took {took:?}");

    let who = elsewhere
        .tenant
        .clone()
        .who_am_i(WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();
    let revoke = RevokeApiKeyRequest {
        key_id: who.key_id,
        ..Default::default()
    };
    one.admin().tenant.revoke_api_key(revoke).await.unwrap();
    let took = until(&elsewhere, Some("API_KEY_INVALID")).await;
    assert!(took < WITHIN, "revocation took {took:?}");
}
