//! How sessions end by themselves, and what they outlast. It does not know who ends
//! them.

use std::time::Duration;

use riptide_persistence::{
    proto::v1::{
        CreateSessionRequest, DeleteTenantRequest, Session, SuspendTenantRequest, SuspensionMode,
    },
    store::STALENESS,
};
use rstest::rstest;
use tonic::Code;

use super::{assert_refused, create, get, listed, millis, of, seconds, structure, text, touch};
use crate::{
    rpc::encryption::Stage,
    server::{Clients, Kind},
};

/// Waits until a session is no more.
async fn ended(clients: &Clients, session: &Session) {
    loop {
        match get(clients, &session.session_id).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            answer => return assert_refused(answer, Code::NotFound, "SESSION_NOT_FOUND"),
        }
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_session_ends_idle_or_at_its_end(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let request = |ttl, idle| CreateSessionRequest {
        ttl: seconds(ttl),
        idle_timeout: seconds(idle),
        ..of("ann")
    };
    let idle = create(&clients, request(3600, 1)).await.unwrap();
    let short = create(&clients, request(2, 3600)).await.unwrap();
    let kept = create(&clients, request(3600, 1800)).await.unwrap();
    assert_eq!(millis(short.expire_time) - millis(short.create_time), 2_000);
    assert!(millis(short.idle_expire_time) <= millis(short.expire_time));
    ended(&clients, &idle).await;
    // However often it is touched, it goes no further than its end.
    loop {
        match touch(&clients, &short.session_id).await {
            Ok(touched) => {
                assert_eq!(touched.expire_time, short.expire_time);
                assert_eq!(touched.idle_expire_time, short.expire_time);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => break assert_refused(answer, Code::NotFound, "SESSION_NOT_FOUND"),
        }
    }
    assert_eq!(
        listed(&clients, "ann").await,
        std::slice::from_ref(&kept.session_id)
    );
    get(&clients, &kept.session_id).await.unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_touch_keeps_a_session_beyond_its_idle_timeout(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let request = CreateSessionRequest {
        idle_timeout: seconds(2),
        ..of("ann")
    };
    let session = create(&clients, request).await.unwrap();
    let mut now = session.clone();
    // A machine that stands still for two seconds would end it, and prove nothing.
    while millis(now.last_active_time) < millis(session.create_time) + 3_000 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        now = touch(&clients, &session.session_id).await.unwrap();
    }
    assert!(millis(now.idle_expire_time) > millis(session.idle_expire_time) + 2_000);
    ended(&clients, &session).await;
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn sessions_outlast_a_drain_and_a_restart(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&[]).await;
    let tenant = server.tenant("acme").await;
    let request = CreateSessionRequest {
        data: Some(structure([("theme", text("dark"))])),
        ..of("ann")
    };
    let session = create(&tenant.clients, request).await.unwrap();
    server.stop().await;
    let server = stage.serve(&[]).await;
    let clients = server.with_key(&tenant.secret);
    assert_eq!(get(&clients, &session.session_id).await.unwrap(), session);
    assert_eq!(
        listed(&clients, "ann").await,
        std::slice::from_ref(&session.session_id)
    );
    let touched = touch(&clients, &session.session_id).await.unwrap();
    assert_eq!(touched.etag, session.etag);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn sessions_of_a_tenant_that_is_stopped_are_as_its_cache(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let admin = server.admin();
    let session = create(&clients, of("ann")).await.unwrap();
    let id = &session.session_id;
    let suspend = async |mode: SuspensionMode| {
        let request = SuspendTenantRequest {
            tenant_id: "acme".into(),
            mode: mode.into(),
            ..Default::default()
        };
        admin.tenant.clone().suspend_tenant(request).await.unwrap();
        // In force everywhere once what is remembered has passed.
        tokio::time::sleep(STALENESS + Duration::from_millis(600)).await;
    };
    suspend(SuspensionMode::ReadOnly).await;
    assert_eq!(get(&clients, id).await.unwrap(), session);
    assert_eq!(listed(&clients, "ann").await.len(), 1);
    let why = (Code::FailedPrecondition, "TENANT_SUSPENDED");
    assert_refused(create(&clients, of("ann")).await, why.0, why.1);
    assert_refused(touch(&clients, id).await, why.0, why.1);
    suspend(SuspensionMode::Blocked).await;
    assert_refused(get(&clients, id).await, why.0, why.1);
    let request = DeleteTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    admin.tenant.clone().delete_tenant(request).await.unwrap();
    let request = riptide_persistence::proto::v1::GetSessionRequest {
        tenant_id: "acme".into(),
        session_id: id.clone(),
    };
    let refused = admin.state.clone().get_session(request).await;
    assert_refused(refused, Code::FailedPrecondition, "TENANT_DELETED");
}
