//! The sessions of a user: listed, and ended all but one. It does not know the other
//! RPCs.

use std::collections::HashMap;

use riptide_persistence::proto::v1::{
    CreateSessionRequest, ListSessionsRequest, ListSessionsResponse, TerminateSessionsRequest,
};
use rstest::rstest;
use tonic::{Code, Status};

use super::{assert_refused, create, get, listed, of, structure, text};
use crate::server::{Clients, Kind, fields};

async fn page(
    clients: &Clients,
    user_id: &str,
    page_size: i32,
    page_token: &str,
) -> Result<ListSessionsResponse, Status> {
    let request = ListSessionsRequest {
        user_id: user_id.into(),
        page_size,
        page_token: page_token.into(),
        ..Default::default()
    };
    let answer = clients.state.clone().list_sessions(request).await?;
    Ok(answer.into_inner())
}

async fn terminate_all(clients: &Clients, user_id: &str, except: &str) -> Result<i64, Status> {
    let request = TerminateSessionsRequest {
        user_id: user_id.into(),
        except_session_id: except.into(),
        ..Default::default()
    };
    let answer = clients.state.clone().terminate_sessions(request).await?;
    Ok(answer.into_inner().terminated)
}

async fn many(clients: &Clients, user_id: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(create(clients, of(user_id)).await.unwrap().session_id);
    }
    ids.sort();
    ids
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_users_sessions_are_listed_page_by_page(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let own = many(&clients, "ann", 23).await;
    let others = many(&clients, "anna", 5).await;
    assert_eq!(listed(&clients, "ann").await, own);
    assert_eq!(listed(&clients, "anna").await, others);
    assert_eq!(listed(&clients, "nobody").await, [""; 0]);

    let (mut found, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer = page(&clients, "ann", 5, &token).await.unwrap();
        assert!(answer.sessions.len() <= 5);
        found.extend(answer.sessions.into_iter().map(|s| s.session_id));
        pages += 1;
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
        // A session that comes or goes meanwhile moves no other.
        create(&clients, of("anna")).await.unwrap();
    }
    found.sort();
    assert_eq!((found, pages), (own, 5));

    let token = page(&clients, "ann", 5, "").await.unwrap().next_page_token;
    let of_another = page(&clients, "anna", 5, &token).await;
    assert_refused(of_another, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    let status = page(&clients, "", -1, "").await.unwrap_err();
    let mut named = fields(&status);
    named.sort();
    assert_eq!(named, ["page_size", "user_id"]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_listing_shows_attributes_and_no_data(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    // As many and as long as are allowed, of what JSON escapes.
    let attributes: HashMap<_, _> = (10..42)
        .map(|number| (format!("{number}{}", "\"".repeat(62)), "\\".repeat(256)))
        .collect();
    let request = CreateSessionRequest {
        data: Some(structure([("big", text("x".repeat(60_000)))])),
        attributes: attributes.clone(),
        ..of(&"\u{1}".repeat(256))
    };
    let session = create(&clients, request).await.unwrap();
    assert_eq!(get(&clients, &session.session_id).await.unwrap(), session);
    let answer = page(&clients, &session.user_id, 0, "").await.unwrap();
    let [shown] = &answer.sessions[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(shown.attributes, attributes);
    assert_eq!(shown.data, None);
    assert_eq!(shown.etag, session.etag);
    assert_eq!(shown.idle_expire_time, session.idle_expire_time);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn all_sessions_of_a_user_end_but_one(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let own = many(&clients, "ann", 130).await;
    let others = many(&clients, "anna", 3).await;
    let kept = &own[77];
    let status = terminate_all(&clients, "", "x").await.unwrap_err();
    let mut named = fields(&status);
    named.sort();
    assert_eq!(named, ["except_session_id", "user_id"]);
    assert_eq!(terminate_all(&clients, "ann", kept).await.unwrap(), 129);
    assert_eq!(listed(&clients, "ann").await, std::slice::from_ref(kept));
    assert_eq!(terminate_all(&clients, "ann", kept).await.unwrap(), 0);
    // Another's is no reason to keep one's own.
    assert_eq!(terminate_all(&clients, "ann", &others[0]).await.unwrap(), 1);
    assert_eq!(listed(&clients, "ann").await, [""; 0]);
    assert_eq!(terminate_all(&clients, "nobody", "").await.unwrap(), 0);
    assert_eq!(listed(&clients, "anna").await, others);

    // Two at once count each session once.
    many(&clients, "ann", 40).await;
    let (one, two) = tokio::join!(
        terminate_all(&clients, "ann", ""),
        terminate_all(&clients, "ann", "")
    );
    assert_eq!(one.unwrap() + two.unwrap(), 40);
}
