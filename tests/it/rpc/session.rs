//! Sessions over a real socket, on both backends. It does not know how they are kept.

mod billed;
mod ends;
mod quota;
mod sealed;
mod user;

use std::collections::HashMap;

use prost_types::{Duration, Struct, Timestamp, Value, value::Kind as Is};
use riptide_persistence::proto::v1::{
    CreateSessionRequest, GetSessionRequest, ListSessionsRequest, Session, TerminateSessionRequest,
    TouchSessionRequest, UpdateSessionRequest,
};
use rstest::rstest;
use tonic::{Code, Status};

use crate::server::{Clients, Kind, fields, reason};

pub fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn millis(time: Option<Timestamp>) -> i64 {
    let time = time.unwrap();
    time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000
}

fn text(text: impl Into<String>) -> Value {
    Value {
        kind: Some(Is::StringValue(text.into())),
    }
}

pub fn structure<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct {
        fields: fields.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

pub fn of(user_id: &str) -> CreateSessionRequest {
    CreateSessionRequest {
        user_id: user_id.into(),
        ..Default::default()
    }
}

pub async fn create(clients: &Clients, request: CreateSessionRequest) -> Result<Session, Status> {
    let answer = clients.state.clone().create_session(request).await?;
    Ok(answer.into_inner().session.unwrap())
}

pub async fn get(clients: &Clients, session_id: &str) -> Result<Session, Status> {
    let request = GetSessionRequest {
        session_id: session_id.into(),
        ..Default::default()
    };
    let answer = clients.state.clone().get_session(request).await?;
    Ok(answer.into_inner().session.unwrap())
}

pub async fn touch(clients: &Clients, session_id: &str) -> Result<Session, Status> {
    let request = TouchSessionRequest {
        session_id: session_id.into(),
        ..Default::default()
    };
    let answer = clients.state.clone().touch_session(request).await?;
    Ok(answer.into_inner().session.unwrap())
}

async fn update(clients: &Clients, session: Session, paths: &[&str]) -> Result<Session, Status> {
    let request = UpdateSessionRequest {
        session: Some(session),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
        ..Default::default()
    };
    let answer = clients.state.clone().update_session(request).await?;
    Ok(answer.into_inner().session.unwrap())
}

async fn terminate(clients: &Clients, session_id: &str, etag: &str) -> Result<Session, Status> {
    let request = TerminateSessionRequest {
        session_id: session_id.into(),
        etag: etag.into(),
        ..Default::default()
    };
    let answer = clients.state.clone().terminate_session(request).await?;
    Ok(answer.into_inner().session.unwrap())
}

/// The ids of all sessions of a user.
async fn listed(clients: &Clients, user_id: &str) -> Vec<String> {
    let request = ListSessionsRequest {
        user_id: user_id.into(),
        page_size: 1000,
        ..Default::default()
    };
    let answer = clients.state.clone().list_sessions(request).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.next_page_token, "");
    let mut ids: Vec<String> = answer.sessions.into_iter().map(|s| s.session_id).collect();
    ids.sort();
    ids
}

pub fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, why: &str) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (code, why));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_session_is_created_read_changed_touched_and_ended(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let created = create(
        &clients,
        CreateSessionRequest {
            data: Some(structure([("theme", text("dark")), ("cart", text("1"))])),
            attributes: HashMap::from([("device".to_owned(), "phone".to_owned())]),
            ttl: seconds(7200),
            idle_timeout: seconds(600),
            ..of("ann")
        },
    )
    .await
    .unwrap();
    assert_eq!(created.session_id.len(), 52);
    assert_eq!((&*created.tenant_id, &*created.user_id), ("acme", "ann"));
    assert_eq!(created.idle_timeout, seconds(600));
    let lives = millis(created.expire_time) - millis(created.create_time);
    assert_eq!(lives, 7_200_000);
    let idles = millis(created.idle_expire_time) - millis(created.create_time);
    assert!((599_000..=601_000).contains(&idles), "{idles} ms");
    assert_eq!(get(&clients, &created.session_id).await.unwrap(), created);

    let change = Session {
        session_id: created.session_id.clone(),
        data: Some(structure([("theme", text("light"))])),
        attributes: HashMap::from([("place".to_owned(), "home".to_owned())]),
        idle_timeout: seconds(900),
        ..Default::default()
    };
    let paths = [
        "data.theme",
        "data.cart",
        "attributes.place",
        "idle_timeout",
    ];
    let changed = update(&clients, change, &paths).await.unwrap();
    assert_eq!(changed.data, Some(structure([("theme", text("light"))])));
    let attributes = [("device", "phone"), ("place", "home")];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(changed.attributes, attributes.into());
    assert_eq!(changed.idle_timeout, seconds(900));
    assert_ne!(changed.etag, created.etag);
    assert_eq!(changed.create_time, created.create_time);
    assert_eq!(changed.expire_time, created.expire_time, "it stays");
    let idles = millis(changed.idle_expire_time) - millis(changed.update_time);
    assert!((899_000..=901_000).contains(&idles), "{idles} ms");
    assert_eq!(get(&clients, &created.session_id).await.unwrap(), changed);

    let touched = touch(&clients, &created.session_id).await.unwrap();
    assert_eq!(touched.etag, changed.etag, "a touch keeps it");
    assert!(millis(touched.idle_expire_time) >= millis(changed.idle_expire_time));
    assert!(millis(touched.last_active_time) >= millis(changed.update_time));
    let as_before = Session {
        idle_expire_time: changed.idle_expire_time,
        last_active_time: changed.last_active_time,
        ..touched.clone()
    };
    assert_eq!(as_before, changed);
    assert_eq!(get(&clients, &created.session_id).await.unwrap(), touched);

    let ended = terminate(&clients, &created.session_id, "").await.unwrap();
    assert_eq!(ended, touched, "as it was");
    let id = &created.session_id;
    assert_refused(get(&clients, id).await, Code::NotFound, "SESSION_NOT_FOUND");
    assert_refused(
        touch(&clients, id).await,
        Code::NotFound,
        "SESSION_NOT_FOUND",
    );
    let again = terminate(&clients, id, "").await;
    assert_refused(again, Code::NotFound, "SESSION_NOT_FOUND");
    let again = terminate(&clients, id, &touched.etag).await;
    assert_refused(again, Code::NotFound, "SESSION_NOT_FOUND");
    let change = Session {
        session_id: id.clone(),
        ..Default::default()
    };
    let again = update(&clients, change, &["data"]).await;
    assert_refused(again, Code::NotFound, "SESSION_NOT_FOUND");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_session_that_says_nothing_has_the_settings_times(#[case] kind: Kind) {
    let server = kind
        .start_with(|config| {
            config.session.default_ttl = std::time::Duration::from_secs(1_000);
            config.session.default_idle_timeout = std::time::Duration::from_secs(100);
        })
        .await;
    let clients = server.tenant("acme").await.clients;
    let session = create(&clients, of("ann")).await.unwrap();
    let lives = millis(session.expire_time) - millis(session.create_time);
    assert_eq!((lives, session.idle_timeout), (1_000_000, seconds(100)));
    assert_eq!(session.data, Some(Struct::default()));
    let short = CreateSessionRequest {
        ttl: seconds(50),
        ..of("ann")
    };
    let session = create(&clients, short).await.unwrap();
    assert_eq!(session.idle_timeout, seconds(50));
    assert!(millis(session.idle_expire_time) <= millis(session.expire_time));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_a_mask_names_is_set_and_no_more(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let full = || CreateSessionRequest {
        data: Some(structure([("a", text("1")), ("b", text("2"))])),
        attributes: HashMap::from([("x".to_owned(), "1".to_owned())]),
        idle_timeout: seconds(600),
        ..of("ann")
    };
    let change = |session_id: &str| Session {
        session_id: session_id.to_owned(),
        data: Some(structure([("a", text("new"))])),
        idle_timeout: seconds(700),
        ..Default::default()
    };
    // The mask, then how many data and attributes are left, and the idle timeout.
    for (paths, data, attributes, idle) in [
        (&[][..], 1, 1, 700),
        (&["*"], 1, 0, 700),
        (&["data"], 1, 1, 600),
        (&["data.a"], 2, 1, 600),
        (&["data.b"], 1, 1, 600),
        (&["attributes"], 2, 0, 600),
        (&["attributes.x"], 2, 0, 600),
        (&["attributes.none", "idle_timeout"], 2, 1, 700),
    ] {
        let session = create(&clients, full()).await.unwrap();
        let changed = update(&clients, change(&session.session_id), paths)
            .await
            .unwrap();
        let left = (changed.data.unwrap().fields.len(), changed.attributes.len());
        assert_eq!(left, (data, attributes), "{paths:?}");
        assert_eq!(changed.idle_timeout, seconds(idle), "{paths:?}");
    }
    let session = create(&clients, full()).await.unwrap();
    let wrong = ["user_id", "data.", "expire_time", "data"];
    let refused = update(&clients, change(&session.session_id), &wrong).await;
    let status = refused.unwrap_err();
    assert_eq!(reason(&status), "INVALID_FIELD_MASK");
    let named = [
        "update_mask.paths[0]",
        "update_mask.paths[1]",
        "update_mask.paths[2]",
    ];
    assert_eq!(fields(&status), named);

    let checked = UpdateSessionRequest {
        session: Some(change(&session.session_id)),
        validate_only: true,
        ..Default::default()
    };
    let mut state = clients.state.clone();
    let checked = state.update_session(checked).await.unwrap().into_inner();
    assert_eq!(checked.session.unwrap().idle_timeout, seconds(700));
    assert_eq!(get(&clients, &session.session_id).await.unwrap(), session);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn an_etag_lets_one_of_all_writers_through(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let session = create(&clients, of("ann")).await.unwrap();
    let change = |number: usize, etag: &str| Session {
        session_id: session.session_id.clone(),
        etag: etag.to_owned(),
        data: Some(structure([(&*format!("n{number}"), text("there"))])),
        ..Default::default()
    };
    let with_etag = (0..8).map(|number| {
        let change = change(number, &session.etag);
        let path = format!("data.n{number}");
        let clients = &clients;
        async move { update(clients, change, &[&path]).await }
    });
    let answers = futures::future::join_all(with_etag).await;
    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    for answer in refused {
        assert_refused(answer, Code::Aborted, "ETAG_MISMATCH");
    }
    // Without one, each change is made on what the others left.
    let without = (10..16).map(|number| {
        let change = change(number, "");
        let path = format!("data.n{number}");
        let clients = &clients;
        async move { update(clients, change, &[&path]).await }
    });
    for answer in futures::future::join_all(without).await {
        answer.unwrap();
    }
    let now = get(&clients, &session.session_id).await.unwrap();
    assert_eq!(now.data.unwrap().fields.len(), 7);

    for etag in [&*session.etag, "nonsense"] {
        let refused = terminate(&clients, &session.session_id, etag).await;
        assert_refused(refused, Code::Aborted, "ETAG_MISMATCH");
    }
    terminate(&clients, &session.session_id, &now.etag)
        .await
        .unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_request_that_comes_again_creates_no_other_session(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let request = || CreateSessionRequest {
        data: Some(structure([("a", text("1"))])),
        request_id: "7c9a1c1e-4b7d-4c6e-9f0a-3f8f2f1f0b5a".into(),
        ..of("ann")
    };
    let all = (0..6).map(|_| create(&clients, request()));
    let all = futures::future::join_all(all).await;
    let first = all[0].as_ref().unwrap();
    for answer in &all {
        assert_eq!(answer.as_ref().unwrap(), first);
    }
    assert_eq!(
        listed(&clients, "ann").await,
        std::slice::from_ref(&first.session_id)
    );
    let other = CreateSessionRequest {
        user_id: "bob".into(),
        ..request()
    };
    let refused = create(&clients, other).await;
    assert_refused(refused, Code::FailedPrecondition, "REQUEST_ID_REUSED");
    // Another tenant's request of the same id is another.
    let stranger = server.tenant("other").await.clients;
    create(&stranger, request()).await.unwrap();
    terminate(&clients, &first.session_id, "").await.unwrap();
    let gone = create(&clients, request()).await;
    assert_refused(gone, Code::NotFound, "SESSION_NOT_FOUND");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_makes_no_sense_is_named_and_changes_nothing(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let attributes = (0..33).map(|number| (format!("a{number}"), String::new()));
    let refused = create(
        &clients,
        CreateSessionRequest {
            data: Some(structure([("big", text("x".repeat(64 << 10)))])),
            attributes: attributes.collect(),
            ttl: seconds(0),
            idle_timeout: Some(Duration {
                seconds: -1,
                nanos: 0,
            }),
            request_id: "none".into(),
            ..of("")
        },
    )
    .await
    .unwrap_err();
    assert_eq!(reason(&refused), "VALIDATION_FAILED");
    let mut named = fields(&refused);
    named.sort();
    let expected = [
        "attributes",
        "data",
        "idle_timeout",
        "request_id",
        "ttl",
        "user_id",
    ];
    assert_eq!(named, expected);
    for (name, value) in [("", "v"), ("a\n", "v"), ("a", "\0")] {
        let wrong = CreateSessionRequest {
            attributes: HashMap::from([(name.to_owned(), value.to_owned())]),
            ..of("ann")
        };
        let status = create(&clients, wrong).await.unwrap_err();
        assert_eq!(fields(&status).len(), 1, "{name:?} {value:?}");
    }
    let long = CreateSessionRequest {
        ttl: seconds(31 * 24 * 3600),
        ..of(&"u".repeat(257))
    };
    let status = create(&clients, long).await.unwrap_err();
    let mut named = fields(&status);
    named.sort();
    assert_eq!(named, ["ttl", "user_id"]);
    assert!(status.message().contains("session.max_ttl"), "{status:?}");

    for wrong in ["", "x", "../x", &"0".repeat(53), &"W".repeat(52)] {
        for answer in [
            get(&clients, wrong).await,
            touch(&clients, wrong).await,
            terminate(&clients, wrong, "").await,
        ] {
            let status = answer.unwrap_err();
            assert_eq!(fields(&status), ["session_id"], "{wrong}");
        }
        let change = Session {
            session_id: wrong.to_owned(),
            idle_timeout: seconds(0),
            ..Default::default()
        };
        let status = update(&clients, change, &[]).await.unwrap_err();
        assert_eq!(
            fields(&status),
            ["session.idle_timeout", "session.session_id"]
        );
    }
    // The limit itself is allowed, in a change too: {"big":"xx..."} has 10 bytes around.
    let at_limit = |extra: usize| {
        Some(structure([(
            "big",
            text("x".repeat((64 << 10) - 10 + extra)),
        )]))
    };
    let session = create(
        &clients,
        CreateSessionRequest {
            data: at_limit(0),
            ..of("ann")
        },
    )
    .await
    .unwrap();
    let over = Session {
        session_id: session.session_id.clone(),
        data: at_limit(1),
        ..Default::default()
    };
    let status = update(&clients, over, &["data"]).await.unwrap_err();
    assert_eq!(fields(&status), ["session.data"]);
    assert_eq!(get(&clients, &session.session_id).await.unwrap(), session);
    let mut state = clients.state.clone();
    let status = state.update_session(UpdateSessionRequest::default()).await;
    assert_eq!(fields(&status.unwrap_err()), ["session"]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn anothers_session_is_none(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let stranger = server.tenant("other").await.clients;
    let session = create(&clients, of("ann")).await.unwrap();
    let id = &session.session_id;
    create(&stranger, of("ann")).await.unwrap();
    for answer in [
        get(&stranger, id).await,
        touch(&stranger, id).await,
        terminate(&stranger, id, "").await,
    ] {
        assert_refused(answer, Code::NotFound, "SESSION_NOT_FOUND");
    }
    let mismatch = GetSessionRequest {
        tenant_id: "acme".into(),
        session_id: id.clone(),
    };
    let refused = stranger.state.clone().get_session(mismatch).await;
    assert_refused(refused, Code::PermissionDenied, "TENANT_MISMATCH");
    assert_eq!(get(&clients, id).await.unwrap(), session);

    // A key that is confined reaches none, whatever its scopes.
    let request = riptide_persistence::proto::v1::CreateApiKeyRequest {
        tenant_id: "acme".into(),
        scopes: ["session.read", "session.write"].map(str::to_owned).into(),
        namespaces: vec!["default".into()],
        ..Default::default()
    };
    let key = server.admin().tenant.create_api_key(request).await.unwrap();
    let confined = server.with_key(&key.into_inner().secret);
    for answer in [
        create(&confined, of("ann")).await,
        get(&confined, id).await,
        touch(&confined, id).await,
        terminate(&confined, id, "").await,
    ] {
        assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");
    }
}
