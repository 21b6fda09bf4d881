//! The quotas on sessions: exact, under many writers, and free again with what ends. It
//! does not know how they are counted.

use std::time::Duration;

use futures::future::join_all;
use riptide_persistence::proto::v1::{
    CheckQuotaMode, CreateSessionRequest, QuotaMode, Quotas, Session, TerminateSessionsRequest,
};
use rstest::rstest;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{assert_refused, create, listed, of, seconds, structure, terminate, text, update};
use crate::{
    rpc::tenant::quota::{check, tenant},
    server::{Kind, reason},
};

fn sessions(limit: i64) -> Quotas {
    Quotas {
        active_sessions: Some(limit),
        ..Default::default()
    }
}

/// The metric, its limit and what is used, as a refusal tells them.
fn told(status: &Status) -> [String; 3] {
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(status), "QUOTA_EXCEEDED");
    let info = status.get_details_error_info().unwrap();
    ["metric", "limit", "used"].map(|name| info.metadata[name].clone())
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn as_many_sessions_as_are_allowed_are_created_among_many(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = tenant(&server, "acme", sessions(25)).await;
    let all = join_all((0..80).map(|number| {
        let user_id = format!("user{}", number % 7);
        let clients = &clients;
        async move { create(clients, of(&user_id)).await }
    }))
    .await;
    let (done, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 25, "neither more nor fewer");
    for answer in refused {
        let told = told(&answer.unwrap_err());
        assert_eq!(told, ["active_sessions", "25", "25"]);
    }
    let peek = check(&clients, "active_sessions", 1, CheckQuotaMode::Peek).await;
    let peek = peek.unwrap();
    assert_eq!((peek.allowed, peek.limit, peek.used), (false, 25, 25));

    // One that ends makes room for one.
    let first = done[0].as_ref().unwrap();
    terminate(&clients, &first.session_id, "").await.unwrap();
    create(&clients, of("ann")).await.unwrap();
    let refused = create(&clients, of("ann")).await;
    assert_refused(refused, Code::ResourceExhausted, "QUOTA_EXCEEDED");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_ends_by_itself_makes_room(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = tenant(&server, "acme", sessions(3)).await;
    let short = || CreateSessionRequest {
        idle_timeout: seconds(1),
        ..of("ann")
    };
    for _ in 0..3 {
        create(&clients, short()).await.unwrap();
    }
    let refused = create(&clients, short()).await;
    // On a machine that stood still, they may have ended.
    if let Err(status) = refused {
        assert_eq!(told(&status)[0], "active_sessions");
    }
    while listed(&clients, "ann").await != [""; 0] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // They count to the end of their buckets, 50 ms at most.
    let mut made = 0;
    while made < 3 {
        match create(&clients, of("bob")).await {
            Ok(_) => made += 1,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let refused = create(&clients, of("bob")).await;
    assert_refused(refused, Code::ResourceExhausted, "QUOTA_EXCEEDED");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn bytes_are_counted_as_they_are_stored(#[case] kind: Kind) {
    let server = kind.start().await;
    let quotas = Quotas {
        storage_bytes: Some(8_000),
        ..Default::default()
    };
    let clients = tenant(&server, "acme", quotas).await;
    let used = async || {
        let peek = check(&clients, "storage_bytes", 1, CheckQuotaMode::Peek).await;
        peek.unwrap().used
    };
    // What compresses well would take next to nothing.
    let noise = |bytes: usize| -> String {
        let mut state = 7_u64;
        let step = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'!' + (state >> 33) as u8 % 90)
        };
        let noise = std::iter::repeat_with(step).filter(|c| !"\"\\".contains(*c));
        noise.take(bytes).collect()
    };
    let of_bytes = |bytes: usize| Some(structure([("noise", text(noise(bytes)))]));
    let request = CreateSessionRequest {
        data: of_bytes(3_000),
        ..of("ann")
    };
    let session = create(&clients, request.clone()).await.unwrap();
    let one = used().await;
    assert!((2_500..4_000).contains(&one), "{one}");
    create(&clients, request.clone()).await.unwrap();
    assert_eq!(used().await, 2 * one);
    let status = create(&clients, request).await.unwrap_err();
    assert_eq!(
        told(&status),
        ["storage_bytes", "8000", &(2 * one).to_string()]
    );

    // A change that grows is refused, one that shrinks is not.
    let change = |bytes| Session {
        session_id: session.session_id.clone(),
        data: of_bytes(bytes),
        ..Default::default()
    };
    let status = update(&clients, change(6_000), &["data"])
        .await
        .unwrap_err();
    assert_eq!(told(&status)[0], "storage_bytes");
    update(&clients, change(10), &["data"]).await.unwrap();
    assert!(used().await < 2 * one - 2_000);
    let request = TerminateSessionsRequest {
        user_id: "ann".into(),
        ..Default::default()
    };
    let all = clients.state.clone().terminate_sessions(request).await;
    assert_eq!(all.unwrap().into_inner().terminated, 2);
    assert_eq!(used().await, 0);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_limit_that_warns_lets_through_and_tells(#[case] kind: Kind) {
    let server = kind.start().await;
    let quotas = Quotas {
        modes: [("active_sessions".to_owned(), QuotaMode::Warn.into())].into(),
        ..sessions(1)
    };
    let clients = tenant(&server, "acme", quotas).await;
    for warned in [false, true] {
        let answer = clients.state.clone().create_session(of("ann")).await;
        let answer = answer.unwrap();
        let warning = answer.metadata().get("riptide-quota-warning");
        let warning = warning.map(|warning| warning.to_str().unwrap().to_owned());
        let expected = warned.then(|| "metric=active_sessions, limit=1, used=2".to_owned());
        assert_eq!(warning, expected);
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn sessions_draw_on_the_rate(#[case] kind: Kind) {
    let server = kind.start().await;
    let quotas = Quotas {
        operations_per_minute: Some(3),
        ..Default::default()
    };
    let clients = tenant(&server, "acme", quotas).await;
    for _ in 0..3 {
        create(&clients, of("ann")).await.unwrap();
    }
    let refused = create(&clients, of("ann")).await;
    assert_refused(refused, Code::ResourceExhausted, "RATE_LIMITED");
}
