//! WatchInvalidations over a real socket: what is told, for how long, and how it
//! ends. It does not know how replicas hear of each other.

mod replicas;

use std::time::Duration;

use riptide_persistence::{
    proto::v1::{
        BatchSetRequest, CreateApiKeyRequest, DeleteRequest, DeleteTenantRequest,
        InvalidateCacheRequest, InvalidationEvent, Keys, ListKeysRequest, RevokeApiKeyRequest,
        SuspendTenantRequest, Tags, WatchInvalidationsRequest, WatchInvalidationsResponse,
        WhoAmIRequest, invalidate_cache_request, invalidation_event::Target,
    },
    store::Calls,
};
use rstest::rstest;
use tonic::{Code, Request, Status, Streaming, transport::Endpoint};
use tonic_types::StatusExt;

use super::{flush, item, keys, set};
use crate::server::{Bearer, Clients, Kind, Server, fields, reason};

/// A stream, and what it told last.
struct Watch {
    stream: Streaming<WatchInvalidationsResponse>,
    token: String,
}

impl Watch {
    /// Watches all namespaces from now on.
    async fn begin(clients: &Clients) -> Self {
        Self::call(clients, WatchInvalidationsRequest::default())
            .await
            .unwrap()
    }

    async fn resume(clients: &Clients, token: &str) -> Self {
        let request = WatchInvalidationsRequest {
            resume_token: token.into(),
            ..Default::default()
        };
        Self::call(clients, request).await.unwrap()
    }

    /// The first response comes at once, and tells nothing but where it begins.
    async fn call(clients: &Clients, request: WatchInvalidationsRequest) -> Result<Self, Status> {
        let stream = clients.cache.clone().watch_invalidations(request).await?;
        let mut watch = Self {
            stream: stream.into_inner(),
            token: String::new(),
        };
        let first = watch.response().await?;
        assert!(first.events.is_empty() && !first.resume_token.is_empty());
        Ok(watch)
    }

    async fn response(&mut self) -> Result<WatchInvalidationsResponse, Status> {
        let response = tokio::time::timeout(Duration::from_secs(30), self.stream.message()).await;
        let response = response.expect("nothing is told")?;
        let response = response.expect("the stream ended without a status");
        self.token.clone_from(&response.resume_token);
        Ok(response)
    }

    /// The next events, at least as many.
    async fn events(&mut self, count: usize) -> Vec<InvalidationEvent> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.response().await.unwrap().events);
        }
        events
    }

    /// How it ends, whatever it tells until then.
    async fn end(mut self) -> Status {
        loop {
            if let Err(status) = self.response().await {
                return status;
            }
        }
    }
}

fn event(namespace: &str, target: Option<Target>) -> InvalidationEvent {
    InvalidationEvent {
        namespace: namespace.into(),
        target,
    }
}

fn changed(of: &[&str]) -> InvalidationEvent {
    event("default", Some(Target::Keys(Keys { keys: keys(of) })))
}

fn whole_tenant() -> InvalidationEvent {
    event("", Some(Target::Tenant(true)))
}

async fn put(clients: &Clients, key: &str) {
    clients.cache.clone().set(set(key, "v")).await.unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn changes_are_told_in_order_with_a_place_to_go_on_from(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    put(&clients, "before").await;
    let mut watch = Watch::begin(&clients).await;
    let begin = watch.token.clone();

    let mut cache = clients.cache.clone();
    put(&clients, "a").await;
    let batch = BatchSetRequest {
        namespace: "n".into(),
        entries: vec![item("b", "v"), item("c", "v")],
        ..Default::default()
    };
    cache.batch_set(batch).await.unwrap();
    let delete = DeleteRequest {
        key: "a".into(),
        ..Default::default()
    };
    cache.delete(delete).await.unwrap();
    let targets = [
        invalidate_cache_request::Target::Keys(Keys {
            keys: keys(&["before", "absent"]),
        }),
        invalidate_cache_request::Target::Prefix("p:".into()),
        invalidate_cache_request::Target::Tags(Tags {
            tags: keys(&["x", "y"]),
        }),
        invalidate_cache_request::Target::WholeNamespace(true),
        invalidate_cache_request::Target::WholeTenant(true),
    ];
    for target in targets {
        cache.invalidate_cache(flush(target)).await.unwrap();
    }
    let expected = [
        changed(&["a"]),
        event(
            "n",
            Some(Target::Keys(Keys {
                keys: keys(&["b", "c"]),
            })),
        ),
        changed(&["a"]),
        changed(&["before", "absent"]),
        event("default", Some(Target::Prefix("p:".into()))),
        event(
            "default",
            Some(Target::Tags(Tags {
                tags: keys(&["x", "y"]),
            })),
        ),
        event("default", None),
        whole_tenant(),
    ];
    assert_eq!(watch.events(8).await, expected);

    // From its beginning, all again; from its end, nothing of it.
    let end = watch.token.clone();
    drop(watch);
    put(&clients, "d").await;
    let mut again = Watch::resume(&clients, &begin).await;
    let events = again.events(9).await;
    assert_eq!(events[..8], expected);
    assert_eq!(events[8..], [changed(&["d"])]);
    let mut rest = Watch::resume(&clients, &end).await;
    assert_eq!(rest.events(1).await, [changed(&["d"])]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn signs_of_life_come_while_nothing_happens(#[case] kind: Kind) {
    let server = kind
        .start_with(|config| config.cache.watch.heartbeat = Duration::from_millis(50))
        .await;
    let clients = server.tenant("acme").await.clients;
    let mut watch = Watch::begin(&clients).await;
    for _ in 0..3 {
        let sign = watch.response().await.unwrap();
        assert!(sign.events.is_empty() && !sign.resume_token.is_empty());
    }
    put(&clients, "k").await;
    assert_eq!(watch.events(1).await, [changed(&["k"])]);
    // The place of a sign of life is one to go on from.
    watch.response().await.unwrap();
    let token = watch.token.clone();
    drop(watch);
    put(&clients, "l").await;
    let mut watch = Watch::resume(&clients, &token).await;
    assert_eq!(watch.events(1).await, [changed(&["l"])]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_token_is_good_for_its_tenant_and_namespaces_alone(#[case] kind: Kind) {
    let server = kind.start().await;
    let (acme, other) = (server.tenant("acme").await, server.tenant("other").await);
    let named = |namespaces: &[&str], token: &str| WatchInvalidationsRequest {
        namespaces: keys(namespaces),
        resume_token: token.into(),
        ..Default::default()
    };
    let token = Watch::begin(&acme.clients).await.token;
    let of_two = Watch::call(&acme.clients, named(&["b", "a"], "")).await;
    let of_two = of_two.unwrap().token;
    // Their order does not matter.
    let again = Watch::call(&acme.clients, named(&["a", "b"], &of_two)).await;
    assert!(again.is_ok());

    put(&acme.clients, "k").await;
    put(&acme.clients, "l").await;
    let list = ListKeysRequest {
        page_size: 1,
        ..Default::default()
    };
    let page = acme.clients.cache.clone().list_keys(list).await.unwrap();
    let page = page.into_inner().next_page_token;
    let mut forged = token.clone().into_bytes();
    forged[10] = if forged[10] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for (clients, namespaces, token) in [
        (&other.clients, &[][..], &*token),
        (&acme.clients, &["a"], &of_two),
        (&acme.clients, &[], &of_two),
        (&acme.clients, &["a", "b"], &token),
        (&acme.clients, &[], &forged),
        (&acme.clients, &[], &page),
        (&acme.clients, &[], "no token"),
        (&acme.clients, &[], &"A".repeat(10_000)),
    ] {
        let refused = Watch::call(clients, named(namespaces, token)).await;
        let Err(status) = refused else {
            panic!("{token} is taken");
        };
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(reason(&status), "INVALID_PAGE_TOKEN");
        assert_eq!(fields(&status), ["resume_token"]);
    }
    let refused = Watch::call(&acme.clients, named(&["ok", "NO", ""], "")).await;
    let Err(status) = refused else {
        panic!("these are no namespaces");
    };
    assert_eq!(reason(&status), "VALIDATION_FAILED");
    assert_eq!(fields(&status), ["namespaces[1]", "namespaces[2]"]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_confined_key_hears_of_what_it_reaches_alone(#[case] kind: Kind) {
    let server = kind.start().await;
    let tenant = server.tenant("acme").await;
    let key = CreateApiKeyRequest {
        tenant_id: "acme".into(),
        scopes: keys(&["cache.read"]),
        namespaces: keys(&["default", "n"]),
        key_prefixes: keys(&["user:"]),
        ..Default::default()
    };
    let key = server.admin().tenant.create_api_key(key).await.unwrap();
    let confined = server.with_key(&key.into_inner().secret);
    let beyond = WatchInvalidationsRequest {
        namespaces: keys(&["n", "m"]),
        ..Default::default()
    };
    let Err(refused) = Watch::call(&confined, beyond).await else {
        panic!("it watches what it does not reach");
    };
    assert_eq!(reason(&refused), "SCOPE_MISSING");
    let unscoped = server.key("acme", &["cache.write"]).await;
    let unscoped = server.with_key(&unscoped);
    let Err(refused) = Watch::call(&unscoped, WatchInvalidationsRequest::default()).await else {
        panic!("it may not read");
    };
    assert_eq!(reason(&refused), "SCOPE_MISSING");

    let mut watch = Watch::begin(&confined).await;
    let mut cache = tenant.clients.cache.clone();
    for namespace in ["m", "n"] {
        let batch = BatchSetRequest {
            namespace: namespace.into(),
            entries: vec![item("secret", "v"), item("user:1", "v")],
            ..Default::default()
        };
        cache.batch_set(batch).await.unwrap();
        let whole = InvalidateCacheRequest {
            namespace: namespace.into(),
            ..flush(invalidate_cache_request::Target::WholeNamespace(true))
        };
        cache.invalidate_cache(whole).await.unwrap();
    }
    let whole = flush(invalidate_cache_request::Target::WholeTenant(true));
    cache.invalidate_cache(whole).await.unwrap();
    let own = Target::Keys(Keys {
        keys: keys(&["user:1"]),
    });
    let expected = [event("n", Some(own)), event("n", None), whole_tenant()];
    assert_eq!(watch.events(3).await, expected);
}

/// What makes a stream end.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Revoke,
    Suspend,
    Delete,
}

#[rstest]
#[tokio::test]
async fn a_watch_ends_when_its_caller_may_watch_no_more(
    #[values(Kind::Embedded, Kind::Redis)] kind: Kind,
    #[values(Stop::Revoke, Stop::Suspend, Stop::Delete)] stop: Stop,
) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let watches = [
        Watch::begin(&clients).await,
        Watch::call(
            &server.admin(),
            WatchInvalidationsRequest {
                tenant_id: "acme".into(),
                ..Default::default()
            },
        )
        .await
        .unwrap(),
    ];
    let mut admin = server.admin().tenant;
    let expected = match stop {
        Stop::Revoke => {
            let who = clients.tenant.clone().who_am_i(WhoAmIRequest {}).await;
            let revoke = RevokeApiKeyRequest {
                key_id: who.unwrap().into_inner().key_id,
                ..Default::default()
            };
            admin.revoke_api_key(revoke).await.unwrap();
            ["API_KEY_INVALID", ""]
        }
        Stop::Suspend => {
            let suspend = SuspendTenantRequest {
                tenant_id: "acme".into(),
                ..Default::default()
            };
            admin.suspend_tenant(suspend).await.unwrap();
            ["TENANT_SUSPENDED"; 2]
        }
        Stop::Delete => {
            let delete = DeleteTenantRequest {
                tenant_id: "acme".into(),
                ..Default::default()
            };
            admin.delete_tenant(delete).await.unwrap();
            ["TENANT_DELETED"; 2]
        }
    };
    for (watch, expected) in watches.into_iter().zip(expected) {
        if !expected.is_empty() {
            assert_eq!(reason(&watch.end().await), expected);
        }
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_watch_ends_when_the_server_leaves(#[case] kind: Kind) {
    let mut server = kind.start().await;
    let watch = Watch::begin(&server.tenant("acme").await.clients).await;
    server.begin_stop();
    let end = watch.end().await;
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::Unavailable, "DRAINING")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_watch_ends_with_the_time_its_caller_gave_it() {
    let server = Kind::Embedded.start().await;
    let clients = server.tenant("acme").await.clients;
    let mut request = Request::new(WatchInvalidationsRequest::default());
    request.set_timeout(Duration::from_millis(400));
    let stream = clients.cache.clone().watch_invalidations(request).await;
    let watch = Watch {
        stream: stream.unwrap().into_inner(),
        token: String::new(),
    };
    let end = watch.end().await;
    assert_eq!(end.code(), Code::DeadlineExceeded, "{end:?}");
    assert_eq!(reason(&end), "DEADLINE_EXCEEDED");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_watcher_that_does_not_read_is_told_so_and_goes_on_from_its_token(#[case] kind: Kind) {
    let server = kind
        .start_with(|config| config.cache.watch.max_backlog_bytes = 256 << 10)
        .await;
    let tenant = server.tenant("acme").await;
    // A connection that takes little ahead.
    let channel = Endpoint::from_shared(format!("http://{}", server.address))
        .unwrap()
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535)
        .connect_lazy();
    let idle = Clients::new(channel, Bearer::new(&tenant.secret));
    let mut watch = Watch::begin(&idle).await;
    let mut reading = Watch::begin(&tenant.clients).await;

    let long = |number: usize| format!("{number:01000}");
    const BATCHES: usize = 700;
    for number in 0..BATCHES {
        let entries = (0..3).map(|n| item(&long(3 * number + n), "v")).collect();
        let batch = BatchSetRequest {
            entries,
            ..Default::default()
        };
        tenant.clients.cache.clone().batch_set(batch).await.unwrap();
        assert_eq!(reading.events(1).await.len(), 1);
    }
    let mut events = 0;
    let end = loop {
        match watch.response().await {
            Ok(response) => events += response.events.len(),
            Err(status) => break status,
        }
    };
    assert!(events < BATCHES);
    assert_eq!(end.code(), Code::ResourceExhausted);
    assert_eq!(reason(&end), "QUOTA_EXCEEDED");
    let failure = end.get_details_quota_failure().unwrap();
    assert_eq!(failure.violations[0].subject, "tenant:acme");
    let info = end.get_details_error_info().unwrap();
    assert_eq!(info.metadata["metric"], "watch_backlog");

    let mut watch = Watch::resume(&idle, &watch.token).await;
    assert_eq!(watch.events(BATCHES - events).await.len(), BATCHES - events);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_tenant_has_so_many_watchers_at_a_replica(#[case] kind: Kind) {
    let server = kind
        .start_with(|config| config.cache.watch.max_watchers = 2)
        .await;
    let clients = server.tenant("acme").await.clients;
    let first = Watch::begin(&clients).await;
    let _second = Watch::begin(&clients).await;
    let third = Watch::call(&clients, WatchInvalidationsRequest::default()).await;
    let Err(refused) = third else {
        panic!("a third watches");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.metadata["metric"], "watchers");
    drop(first);
    // The server learns of it a moment later.
    let again = async {
        while Watch::call(&clients, WatchInvalidationsRequest::default())
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(20), again).await;
    again.expect("its place stays taken");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_write_that_is_watched_is_one_commit_as_any_other(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    put(&clients, "k").await;
    let mut watch = Watch::begin(&clients).await;
    put(&clients, "k").await;
    watch.events(1).await;
    // What is remembered may be looked up anew, once in a while.
    let mut least = (u64::MAX, 0);
    for _ in 0..5 {
        let before = server.calls();
        put(&clients, "k").await;
        let calls = server.calls().since(before);
        let calls = Calls {
            ping: 0,
            notes: 0,
            ..calls
        };
        least = least.min((calls.commit, calls.read));
    }
    assert_eq!(least, (1, 0));
}
