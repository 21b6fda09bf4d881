//! WarmCache over a real socket, on both backends: what becomes of a stream that
//! goes well, is refused, throttled, cut, or outlives the server. It does not know
//! how items are brought to the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use prost::Message;
use riptide_persistence::proto::v1::{
    CreateApiKeyRequest, CreateTenantRequest, Quotas, RevokeApiKeyRequest, SetEntry,
    SuspendTenantRequest, SuspensionMode, WarmCacheRequest, WarmCacheResponse,
};
use rstest::rstest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::{get, item, item_reason};
use crate::server::{Clients, Kind, fields, reason};

fn entries(entries: Vec<SetEntry>) -> WarmCacheRequest {
    WarmCacheRequest {
        entries,
        ..Default::default()
    }
}

/// A message of so many entries, `k0`, `k1` and on from `first`.
fn some(first: usize, count: usize) -> WarmCacheRequest {
    entries(
        (first..first + count)
            .map(|n| item(&format!("k{n}"), format!("value {n}")))
            .collect(),
    )
}

async fn warm(
    clients: &Clients,
    messages: impl Stream<Item = WarmCacheRequest> + Send + 'static,
) -> Result<WarmCacheResponse, Status> {
    let answer = clients.cache.clone().warm_cache(messages).await;
    answer.map(tonic::Response::into_inner)
}

/// A stream that is written as it goes, and its answer.
fn open(
    clients: &Clients,
    timeout: Option<Duration>,
) -> (
    mpsc::UnboundedSender<WarmCacheRequest>,
    tokio::task::JoinHandle<Result<WarmCacheResponse, Status>>,
) {
    let (send, messages) = mpsc::unbounded_channel();
    let mut cache = clients.cache.clone();
    let mut request = Request::new(UnboundedReceiverStream::new(messages));
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    let answer = async move { cache.warm_cache(request).await };
    let answer = tokio::spawn(async move { answer.await.map(tonic::Response::into_inner) });
    (send, answer)
}

/// Waits until an entry is there.
async fn stored(clients: &Clients, key: &str) {
    while get(clients, key).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What a stream that was stopped came to before.
fn before(status: &Status) -> WarmCacheResponse {
    let rpc = tonic_types::pb::Status::decode(status.details()).unwrap();
    let name = "type.googleapis.com/riptide.persistence.v1.WarmCacheResponse";
    let detail = rpc.details.iter().find(|any| any.type_url == name);
    let detail = detail.unwrap_or_else(|| panic!("it tells nothing: {status:?}"));
    assert!(status.details().len() <= 4096);
    WarmCacheResponse::decode(&*detail.value).unwrap()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn entries_are_stored_and_failures_are_told_by_their_number(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let first = WarmCacheRequest {
        namespace: "default".into(),
        tenant_id: "acme".into(),
        ..some(0, 700)
    };
    let bad = SetEntry {
        ttl: super::seconds(-1),
        ..item("bad", "v")
    };
    let tagged = SetEntry {
        content_type: "text/plain".into(),
        tags: vec!["red".into()],
        ttl: super::seconds(3600),
        ..item("tagged", "v")
    };
    let messages = [
        first,
        entries(vec![item("", "no key"), tagged, bad]),
        WarmCacheRequest::default(),
        some(700, 500),
    ];
    let warmed = warm(&clients, stream::iter(messages)).await.unwrap();
    assert_eq!((warmed.stored, warmed.failed), (1201, 2));
    assert_eq!((warmed.pulled, warmed.missing), (0, 0));
    let failed: Vec<_> = warmed
        .failures
        .iter()
        .map(|failure| (failure.item, &*failure.key))
        .collect();
    assert_eq!(failed, [(700, ""), (702, "bad")]);
    for failure in &warmed.failures {
        let (code, reason) = item_reason(failure.status.as_ref());
        assert_eq!(
            (code, &*reason),
            (Code::InvalidArgument, "VALIDATION_FAILED")
        );
    }
    for n in [0, 699, 700, 1199] {
        let entry = get(&clients, &format!("k{n}")).await.unwrap().unwrap();
        assert_eq!(entry.value, format!("value {n}"));
    }
    let tagged = get(&clients, "tagged").await.unwrap().unwrap();
    assert_eq!(
        (&*tagged.content_type, tagged.tags),
        ("text/plain", vec!["red".to_owned()])
    );
    assert!(tagged.expire_time.is_some());

    // Nothing is something, too.
    let none = warm(&clients, stream::empty()).await.unwrap();
    assert_eq!(none, WarmCacheResponse::default());
    let admin = warm(&server.admin(), stream::empty()).await.unwrap_err();
    assert_eq!(fields(&admin), ["tenant_id"]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_is_refused_ends_the_stream_behind_what_came_before(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let named = |tenant_id: &str, namespace: &str| WarmCacheRequest {
        tenant_id: tenant_id.into(),
        namespace: namespace.into(),
        ..some(900, 1)
    };
    let writer = server.key("acme", &["cache.write"]).await;
    let writer = server.with_key(&writer);
    let pulls = WarmCacheRequest {
        keys: vec!["k0".into()],
        ..Default::default()
    };
    let cases = [
        (
            &clients,
            some(0, 1001),
            Code::InvalidArgument,
            "BATCH_TOO_LARGE",
        ),
        (
            &clients,
            named("", "other"),
            Code::InvalidArgument,
            "VALIDATION_FAILED",
        ),
        (
            &clients,
            named("umbrella", ""),
            Code::InvalidArgument,
            "VALIDATION_FAILED",
        ),
        (&writer, pulls, Code::PermissionDenied, "SCOPE_MISSING"),
    ];
    for (at, (clients, last, code, expected)) in cases.into_iter().enumerate() {
        let messages = [some(10 * at, 3), some(10 * at + 3, 2), last, some(800, 1)];
        let refused = warm(clients, stream::iter(messages)).await.unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (code, expected));
        let before = before(&refused);
        assert_eq!((before.stored, before.failed), (5, 0), "{expected}");
        let found = server.with_key(&server.key("acme", &["cache.read"]).await);
        for n in 10 * at..10 * at + 5 {
            assert!(get(&found, &format!("k{n}")).await.unwrap().is_some());
        }
        assert!(get(&found, "k800").await.unwrap().is_none());
    }
    // The first message may be what is wrong.
    let stranger = warm(&clients, stream::iter([named("umbrella", "")])).await;
    let stranger = stranger.unwrap_err();
    assert_eq!(reason(&stranger), "TENANT_MISMATCH");
    assert_eq!(before(&stranger), WarmCacheResponse::default());
    let nowhere = warm(&clients, stream::iter([named("", "No")])).await;
    assert_eq!(fields(&nowhere.unwrap_err()), ["namespace"]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn failures_before_the_end_are_told_as_far_as_there_is_room(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let bad = entries((0..90).map(|_| item("", "v")).collect());
    let messages = [some(0, 10), bad, some(0, 1001)];
    let refused = warm(&clients, stream::iter(messages)).await.unwrap_err();
    let before = before(&refused);
    assert_eq!((before.stored, before.failed), (10, 90));
    let told = before.failures.len();
    assert!((2..90).contains(&told), "{told}");
    assert_eq!(before.failures[1].item, 11);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn each_message_counts_against_the_rate(#[case] kind: Kind) {
    let server = kind.start().await;
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        quotas: Some(Quotas {
            operations_per_minute: Some(3),
            ..Default::default()
        }),
        ..Default::default()
    };
    let created = server.admin().tenant.create_tenant(request).await.unwrap();
    let clients = server.with_key(&created.into_inner().secret);
    let messages = (0..5).map(|n| some(10 * n, 10));
    let limited = warm(&clients, stream::iter(messages)).await.unwrap_err();
    assert_eq!(
        (limited.code(), &*reason(&limited)),
        (Code::ResourceExhausted, "RATE_LIMITED")
    );
    assert_eq!(before(&limited).stored, 30);
    let retry = limited
        .get_error_details()
        .retry_info()
        .unwrap()
        .retry_delay;
    assert!(retry.unwrap() > Duration::from_secs(1), "{retry:?}");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn an_entry_over_the_quota_fails_alone(#[case] kind: Kind) {
    let server = kind.start().await;
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        quotas: Some(Quotas {
            cache_entries: Some(600),
            ..Default::default()
        }),
        ..Default::default()
    };
    let created = server.admin().tenant.create_tenant(request).await.unwrap();
    let clients = server.with_key(&created.into_inner().secret);
    let messages = [some(0, 1000), some(0, 10)];
    let warmed = warm(&clients, stream::iter(messages)).await.unwrap();
    assert_eq!((warmed.stored, warmed.failed), (610, 400));
    assert_eq!(warmed.failures.len(), 100);
    let status = warmed.failures[0].status.as_ref();
    assert_eq!(item_reason(status).1, "QUOTA_EXCEEDED");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_stream_that_is_cut_leaves_what_came_before(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let (messages, answer) = open(&clients, None);
    messages.send(some(0, 300)).unwrap();
    // Nothing else comes, so that it does not wait for more.
    stored(&clients, "k299").await;
    messages.send(some(300, 10)).unwrap();
    stored(&clients, "k309").await;
    answer.abort();
    assert!(answer.await.unwrap_err().is_cancelled());
    drop(messages);
    for n in [0, 150, 309] {
        assert!(get(&clients, &format!("k{n}")).await.unwrap().is_some());
    }
    // The tenant can be warmed again, in full.
    let again = warm(&clients, stream::iter([some(0, 500)])).await.unwrap();
    assert_eq!(again.stored, 500);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_deadline_ends_the_stream(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let (messages, answer) = open(&clients, Some(Duration::from_millis(700)));
    messages.send(some(0, 5)).unwrap();
    stored(&clients, "k4").await;
    let late = answer.await.unwrap().unwrap_err();
    // Either side may be the first to see that the time is over.
    let code = late.code();
    assert!(
        matches!(code, Code::DeadlineExceeded | Code::Cancelled),
        "{late:?}"
    );
    assert!(get(&clients, "k0").await.unwrap().is_some());
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_drain_ends_the_stream_and_tells_what_is_done(#[case] kind: Kind) {
    let mut server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let (messages, answer) = open(&clients, None);
    messages.send(some(0, 5)).unwrap();
    let (nothing, silent) = open(&clients, None);
    stored(&clients, "k4").await;
    server.begin_stop();
    let ended = answer.await.unwrap().unwrap_err();
    assert_eq!(
        (ended.code(), &*reason(&ended)),
        (Code::Unavailable, "DRAINING")
    );
    assert_eq!(before(&ended).stored, 5);
    // Also where nothing came yet.
    let ended = silent.await.unwrap().unwrap_err();
    assert_eq!(reason(&ended), "DRAINING");
    drop((messages, nothing));
    server.stop().await;
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_tenant_that_is_suspended_meanwhile_is_warmed_no_further(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let (messages, answer) = open(&clients, None);
    messages.send(some(0, 5)).unwrap();
    stored(&clients, "k4").await;
    let suspend = SuspendTenantRequest {
        tenant_id: "acme".into(),
        mode: SuspensionMode::ReadOnly.into(),
        reason: "unpaid".into(),
        ..Default::default()
    };
    server.admin().tenant.suspend_tenant(suspend).await.unwrap();
    let mut sent = 5;
    while messages.send(some(1000, 1)).is_ok() && !answer.is_finished() {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = answer.await.unwrap().unwrap_err();
    assert_eq!(reason(&ended), "TENANT_SUSPENDED");
    assert!((5..=sent).contains(&before(&ended).stored));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_key_that_is_revoked_meanwhile_warms_no_further(#[case] kind: Kind) {
    let server = kind.start().await;
    let tenant = server.tenant("acme").await;
    let request = CreateApiKeyRequest {
        tenant_id: "acme".into(),
        scopes: vec!["cache.write".into()],
        ..Default::default()
    };
    let mut admin = server.admin().tenant;
    let created = admin.create_api_key(request).await.unwrap().into_inner();
    let (messages, answer) = open(&server.with_key(&created.secret), None);
    messages.send(some(0, 5)).unwrap();
    stored(&tenant.clients, "k4").await;
    let revoke = RevokeApiKeyRequest {
        key_id: created.api_key.unwrap().key_id,
        ..Default::default()
    };
    admin.revoke_api_key(revoke).await.unwrap();
    let mut sent = 5;
    while messages.send(some(1000, 1)).is_ok() && !answer.is_finished() {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = answer.await.unwrap().unwrap_err();
    assert_eq!(reason(&ended), "API_KEY_INVALID");
    assert!((5..=sent).contains(&before(&ended).stored));
}

#[tokio::test]
async fn a_caller_is_held_back_while_the_store_takes_nothing() {
    let mut server = Kind::Redis
        .start_with(|config| config.redis.command_timeout = Duration::from_secs(30))
        .await;
    let redis = server.take_redis().unwrap();
    let clients = server.tenant("acme").await.clients;
    warm(&clients, stream::iter([some(0, 1)])).await.unwrap();
    redis.freeze();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    // 100 MB, of which the caller's side may take what fits on the way.
    let value = bytes::Bytes::from(vec![b'v'; 10_000]);
    let messages = stream::iter(0..1000).map(move |n| {
        count.fetch_add(1, Ordering::SeqCst);
        entries(
            (0..10)
                .map(|at| item(&format!("k{}", 10 * n + at), value.clone()))
                .collect(),
        )
    });
    let answer = tokio::spawn(async move { warm(&clients, messages).await });
    // It has come to rest when nothing more is taken for a while.
    let (mut before, mut quiet) = (0, 0);
    while quiet < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = taken.load(Ordering::SeqCst);
        quiet = if now == before && now > 0 {
            quiet + 1
        } else {
            0
        };
        before = now;
    }
    let rest = taken.load(Ordering::SeqCst);
    assert!(rest < 200, "{rest} messages of 100 kB were taken");
    redis.thaw();
    let warmed = answer.await.unwrap().unwrap();
    assert_eq!((warmed.stored, warmed.failed), (10_000, 0));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn keys_are_pulled_into_the_memory_of_the_replica(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    warm(&clients, stream::iter([some(0, 100)])).await.unwrap();
    let pull = || WarmCacheRequest {
        keys: (0..101).map(|n| format!("k{n}")).collect(),
        ..Default::default()
    };
    // A store that cannot yet tell of changes lets nothing be kept.
    let mut warmed = warm(&clients, stream::iter([pull()])).await.unwrap();
    for _ in 0..500 {
        assert_eq!((warmed.pulled + warmed.not_kept, warmed.missing), (100, 1));
        if warmed.pulled == 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        warmed = warm(&clients, stream::iter([pull()])).await.unwrap();
    }
    assert_eq!((warmed.pulled, warmed.missing, warmed.failed), (100, 1, 0));
    let before = server.calls().read;
    for n in 0..100 {
        assert!(get(&clients, &format!("k{n}")).await.unwrap().is_some());
    }
    let asked = server.calls().read - before;
    assert!(asked < 20, "{asked} reads of the store");

    let off = kind
        .start_with(|config| config.cache.near.enabled = false)
        .await;
    let clients = off.tenant("acme").await.clients;
    let both = [some(0, 5), pull()];
    let warmed = warm(&clients, stream::iter(both)).await.unwrap();
    assert_eq!((warmed.stored, warmed.pulled, warmed.not_kept), (5, 0, 5));
    assert_eq!((warmed.missing, warmed.failed), (96, 0));
}
