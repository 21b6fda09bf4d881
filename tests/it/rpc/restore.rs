//! Restores over a real socket, on both backends: what comes back, what stays, and what
//! is refused. It does not know how a checkpoint is written.

mod away;
mod carried;
mod damaged;
mod drill;
mod events;
mod killed;
mod live;

use std::{collections::BTreeMap, path::PathBuf};

use riptide_persistence::{
    config::Config,
    proto::v1::{
        Component, CreateCheckpointRequest, CreateSessionRequest, CreateTenantRequest, GetRequest,
        GetSessionRequest, GetTenantUsageRequest, GetTenantUsageResponse, ListKeysRequest,
        RestoreCheckpointRequest, RestoreConflict, RestorePlan, RestoreResult, RestoreStep,
        RevokeApiKeyRequest, Session, SetRequest, WhoAmIRequest, create_checkpoint_response,
        restore_checkpoint_response::Event, restore_step::Action,
    },
};
use rstest::rstest;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::{
    redis::Redis,
    rpc::encryption::master,
    server::{ADMIN_KEY, Backend, Clients, Kind, Server, reason},
};

/// Stores, and a folder for checkpoints that all share.
pub struct Stage {
    pub checkpoints: TempDir,
    pub redis: Option<Redis>,
}

impl Stage {
    pub fn new(kind: Kind) -> Self {
        Self {
            checkpoints: tempfile::tempdir().unwrap(),
            redis: (kind == Kind::Redis).then(Redis::start),
        }
    }

    pub async fn serve(&self) -> Server {
        self.serve_with(|_| {}).await
    }

    /// A server on the Redis; one of its own where there is none.
    pub async fn serve_with(&self, set: impl FnOnce(&mut Config)) -> Server {
        let backend = match &self.redis {
            Some(redis) => Backend::Redis(redis),
            None => Backend::Embedded,
        };
        let url = format!("file://{}", self.checkpoints.path().display());
        Server::start_with(backend, |config| {
            config.checkpoint.url = Some(url);
            config.encryption.master_keys = Some(master("m").into());
            // Without limits.
            config.tenant.default_plan = "enterprise".into();
            set(config);
        })
        .await
    }

    /// A server whose store is empty, and that has the same checkpoints.
    pub async fn emptied(&self, server: Server) -> Server {
        match &self.redis {
            Some(redis) => {
                redis.cli(&["flushall"]);
                server
            }
            None => {
                server.stop().await;
                self.serve().await
            }
        }
    }

    pub fn part(&self, id: &str, part: &str) -> PathBuf {
        self.checkpoints.path().join(id).join(part)
    }
}

/// An entry as a caller sees it; its end to the second.
pub type Shown = (Vec<u8>, String, Vec<String>, Option<i64>);

pub fn set(key: &str, value: impl Into<bytes::Bytes>) -> SetRequest {
    SetRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    }
}

/// Plain, compressible, tagged and passing entries.
pub async fn fill(clients: &Clients, count: usize, salt: u8) {
    let mut cache = clients.cache.clone();
    for n in 0..count {
        let value: Vec<u8> = match n % 4 {
            0 => vec![salt; 3000],
            1 => (0..900).map(|i| (i * 31 + n * 7) as u8 ^ salt).collect(),
            2 => format!("value {n} {salt}").into_bytes(),
            _ => Vec::new(),
        };
        let tags = if n % 3 == 0 { vec!["t".into()] } else { vec![] };
        let request = SetRequest {
            namespace: if n % 5 == 0 {
                "other".into()
            } else {
                String::new()
            },
            ttl: (n % 2 == 0).then_some(prost_types::Duration {
                seconds: 3600 + n as i64,
                nanos: 0,
            }),
            content_type: if n % 7 == 0 {
                "text/plain".into()
            } else {
                String::new()
            },
            tags,
            ..set(&format!("key:{n}"), value)
        };
        cache.set(request).await.unwrap();
    }
}

/// All that a caller sees.
pub async fn shown(clients: &Clients) -> BTreeMap<String, Shown> {
    let mut cache = clients.cache.clone();
    let mut all = BTreeMap::new();
    for namespace in ["default", "other"] {
        let mut page_token = String::new();
        loop {
            let request = ListKeysRequest {
                namespace: namespace.into(),
                page_size: 1000,
                page_token,
                ..Default::default()
            };
            let page = cache.list_keys(request).await.unwrap().into_inner();
            for key in page.keys {
                let request = GetRequest {
                    namespace: namespace.into(),
                    key: key.key.clone(),
                    ..Default::default()
                };
                let entry = cache.get(request).await.unwrap().into_inner().entry;
                let Some(entry) = entry else { continue };
                let end = entry.expire_time.map(|time| time.seconds);
                all.insert(
                    format!("{namespace}:{}", key.key),
                    (entry.value.to_vec(), entry.content_type, entry.tags, end),
                );
            }
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
    }
    all
}

/// Begins sessions of two users; their ids.
pub async fn begin_sessions(clients: &Clients, count: usize) -> Vec<String> {
    let mut state = clients.state.clone();
    let mut ids = Vec::new();
    for n in 0..count {
        let request = CreateSessionRequest {
            user_id: format!("user-{}", n % 2),
            attributes: [("n".to_owned(), n.to_string())].into(),
            ttl: Some(prost_types::Duration {
                seconds: 7200 + n as i64,
                nanos: 0,
            }),
            ..Default::default()
        };
        let created = state.create_session(request).await.unwrap().into_inner();
        ids.push(created.session.unwrap().session_id);
    }
    ids
}

/// What these sessions hold, and when they end at the latest.
pub async fn sessions(clients: &Clients, ids: &[String]) -> Vec<Session> {
    let mut state = clients.state.clone();
    let mut found = Vec::new();
    for id in ids {
        let request = GetSessionRequest {
            session_id: id.clone(),
            ..Default::default()
        };
        let session = state.get_session(request).await.unwrap().into_inner();
        found.push(Session {
            etag: String::new(),
            idle_expire_time: None,
            last_active_time: None,
            ..session.session.unwrap()
        });
    }
    found
}

/// The same, whose ends differ by the time that a commit takes.
pub fn assert_same(found: &BTreeMap<String, Shown>, expected: &BTreeMap<String, Shown>) {
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (key, (value, content_type, tags, end)) in expected {
        let (found_value, found_type, found_tags, found_end) = &found[key];
        assert_eq!(
            (found_value, found_type, found_tags),
            (value, content_type, tags),
            "{key}"
        );
        match (found_end, end) {
            (Some(found), Some(end)) => assert!((found - end).abs() <= 1, "{key}"),
            (found, end) => assert_eq!(found, end, "{key}"),
        }
    }
}

pub const ALL: [Component; 4] = [
    Component::Tenants,
    Component::Cache,
    Component::Sessions,
    Component::Usage,
];

pub async fn checkpoint(clients: &Clients, components: &[Component]) -> String {
    let request = CreateCheckpointRequest {
        components: components.iter().map(|c| (*c).into()).collect(),
        ..Default::default()
    };
    let mut told = clients
        .state
        .clone()
        .create_checkpoint(request)
        .await
        .unwrap()
        .into_inner();
    let mut last = None;
    while let Some(message) = told.message().await.unwrap() {
        last = message.event;
    }
    match last {
        Some(create_checkpoint_response::Event::Checkpoint(taken)) => taken.checkpoint_id,
        other => panic!("no checkpoint was told: {other:?}"),
    }
}

pub fn asked(checkpoint_id: &str, conflict: RestoreConflict) -> RestoreCheckpointRequest {
    RestoreCheckpointRequest {
        checkpoint_id: checkpoint_id.into(),
        conflict: conflict.into(),
        ..Default::default()
    }
}

/// What a restore told: its plan, and its result unless only the plan was asked for.
pub async fn restore(
    clients: &Clients,
    request: RestoreCheckpointRequest,
) -> Result<(RestorePlan, Option<RestoreResult>), Status> {
    let mut told = clients
        .state
        .clone()
        .restore_checkpoint(request)
        .await?
        .into_inner();
    let (mut plan, mut result) = (None, None);
    while let Some(message) = told.message().await? {
        match message.event {
            Some(Event::Plan(told)) => plan = Some(told),
            Some(Event::Result(told)) => result = Some(told),
            _ => {}
        }
    }
    Ok((plan.unwrap_or_default(), result))
}

pub async fn restored(clients: &Clients, request: RestoreCheckpointRequest) -> RestoreResult {
    let (_, result) = restore(clients, request).await.unwrap();
    let result = result.expect("a restore tells what it did");
    assert_eq!(result.failures, [], "{result:?}");
    result
}

fn step<'a>(plan: &'a RestorePlan, tenant_id: &str) -> &'a RestoreStep {
    plan.steps
        .iter()
        .find(|step| step.tenant_id == tenant_id)
        .unwrap()
}

async fn usage(clients: &Clients) -> GetTenantUsageResponse {
    let request = GetTenantUsageRequest::default();
    let usage = clients.tenant.clone().get_tenant_usage(request).await;
    usage.unwrap().into_inner()
}

/// Waits until the calls at all cores are counted.
async fn settled(clients: &Clients) -> GetTenantUsageResponse {
    let mut last = usage(clients).await;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        let now = usage(clients).await;
        let figures = |usage: &GetTenantUsageResponse| {
            let now = usage.usage.clone().unwrap();
            (now.operations, now.bytes_in, now.bytes_out)
        };
        if figures(&now) == figures(&last) {
            return now;
        }
        last = now;
    }
}

async fn encrypted(server: &Server, tenant_id: &str) -> Clients {
    let request = CreateTenantRequest {
        tenant_id: tenant_id.into(),
        encryption_enabled: true,
        ..Default::default()
    };
    let created = server.admin().tenant.create_tenant(request).await;
    server.with_key(&created.unwrap().into_inner().secret)
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_back_onto_an_empty_store(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    let acme = server.tenant("acme").await;
    let request = CreateTenantRequest {
        tenant_id: "sealed".into(),
        encryption_enabled: true,
        ..Default::default()
    };
    let created = server.admin().tenant.create_tenant(request).await.unwrap();
    let sealed_secret = created.into_inner().secret;
    let sealed = server.with_key(&sealed_secret);
    fill(&acme.clients, 150, 1).await;
    fill(&sealed, 60, 2).await;
    let (plain, secret) = (shown(&acme.clients).await, shown(&sealed).await);
    assert_eq!((plain.len(), secret.len()), (150, 60));
    let (ids, sealed_ids) = (
        begin_sessions(&acme.clients, 7).await,
        begin_sessions(&sealed, 3).await,
    );
    let (open, sealed_open) = (
        sessions(&acme.clients, &ids).await,
        sessions(&sealed, &sealed_ids).await,
    );
    let before = settled(&acme.clients).await;
    let id = checkpoint(&server.admin(), &ALL).await;

    let server = stage.emptied(server).await;
    let acme_again = server.with_key(&acme.secret);
    // A replica learns that its store was emptied within a second.
    let who = || acme_again.tenant.clone();
    while who().who_am_i(WhoAmIRequest {}).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let request = asked(&id, RestoreConflict::Fail);
    let plan_only = RestoreCheckpointRequest {
        validate_only: true,
        ..request.clone()
    };
    let (plan, none) = restore(&server.admin(), plan_only).await.unwrap();
    assert_eq!((plan.creates, plan.replaces, plan.skips), (2, 0, 0));
    assert_eq!(none, None);
    let refused = acme_again.tenant.clone().who_am_i(WhoAmIRequest {}).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);

    let result = restored(&server.admin(), request).await;
    assert_eq!((result.created, result.replaced, result.skipped), (2, 0, 0));
    assert_eq!(result.safety_checkpoint_id, "");
    let cache = result
        .counts
        .iter()
        .find(|count| count.component() == Component::Cache)
        .unwrap();
    assert_eq!(cache.records, 210);
    // Their keys work again, at once.
    let sealed_again = server.with_key(&sealed_secret);
    assert_same(&shown(&acme_again).await, &plain);
    assert_same(&shown(&sealed_again).await, &secret);
    assert_eq!(sessions(&acme_again, &ids).await, open);
    assert_eq!(sessions(&sealed_again, &sealed_ids).await, sealed_open);

    let figures = |usage: &GetTenantUsageResponse| usage.usage.clone().unwrap();
    let (before, after) = (figures(&before), figures(&usage(&acme_again).await));
    assert_eq!(after.memory_bytes, before.memory_bytes);
    assert_eq!(after.cache_entries, before.cache_entries);
    assert_eq!(after.active_sessions, before.active_sessions);
    assert_eq!(after.storage_bytes, before.storage_bytes);
    // What was used is there, and what was read since is on top.
    assert!(
        after.operations >= before.operations,
        "{before:?} {after:?}"
    );
    assert!(after.bytes_in >= before.bytes_in);
    assert!(after.memory_byte_seconds >= before.memory_byte_seconds);
    if let Some(redis) = &stage.redis {
        audit(redis).await;
    }
    // It is a tenant like any other.
    acme_again.cache.clone().set(set("new", "v")).await.unwrap();
}

/// Every space of a tenant counts what it holds.
pub async fn audit(redis: &Redis) {
    use riptide_persistence::store::Store;
    let store = crate::store::patient(&redis.url()).await;
    for space in spaces(redis) {
        let audit = store.audit(&space).await.unwrap();
        assert!(audit.agrees(), "{space:?}: {audit:?}");
    }
    store.close().await.unwrap();
}

/// The spaces of tenants in a Redis.
pub fn spaces(redis: &Redis) -> Vec<riptide_persistence::store::Space> {
    use riptide_persistence::store::Space;
    let names = redis.cli(&["keys", "v1:{*}:s"]);
    let names = names.lines().filter_map(|line| {
        let (_, rest) = line.split_once('{')?;
        let (name, _) = rest.split_once('}')?;
        Space::of_a_tenant(name)
    });
    names.collect()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_already_is_kept_or_replaced_as_asked(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    let (acme, other) = (server.tenant("acme").await, server.tenant("other").await);
    fill(&acme.clients, 40, 1).await;
    fill(&other.clients, 10, 1).await;
    let then = shown(&acme.clients).await;
    let revoked = server.key("acme", &["cache.read"]).await;
    let kept = server.key("acme", &["cache.read"]).await;
    let id = checkpoint(&server.admin(), &ALL).await;

    fill(&acme.clients, 20, 9).await;
    acme.clients
        .cache
        .clone()
        .set(set("later", "x"))
        .await
        .unwrap();
    other
        .clients
        .cache
        .clone()
        .set(set("later", "y"))
        .await
        .unwrap();
    let key_id = revoked.split('_').nth(1).unwrap();
    let revoke = RevokeApiKeyRequest {
        key_id: key_id.into(),
        ..Default::default()
    };
    server.admin().tenant.revoke_api_key(revoke).await.unwrap();
    let (now, others) = (shown(&acme.clients).await, shown(&other.clients).await);

    let refused = restore(&server.admin(), asked(&id, RestoreConflict::Fail)).await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::AlreadyExists, "TENANT_EXISTS")
    );
    assert_eq!(shown(&acme.clients).await, now);

    let skipped = restored(&server.admin(), asked(&id, RestoreConflict::Skip)).await;
    assert_eq!(
        (skipped.created, skipped.replaced, skipped.skipped),
        (0, 0, 2)
    );
    assert_eq!(shown(&acme.clients).await, now);

    let one = RestoreCheckpointRequest {
        tenant_ids: vec!["acme".into()],
        ..asked(&id, RestoreConflict::Replace)
    };
    let (plan, _) = restore(
        &server.admin(),
        RestoreCheckpointRequest {
            validate_only: true,
            ..one.clone()
        },
    )
    .await
    .unwrap();
    assert_eq!(plan.steps.len(), 1);
    assert_eq!(step(&plan, "acme").action(), Action::Replace);
    let before = settled(&acme.clients).await;
    let replaced = restored(&server.admin(), one).await;
    assert_eq!(
        (replaced.created, replaced.replaced, replaced.skipped),
        (0, 1, 0)
    );
    assert_same(&shown(&acme.clients).await, &then);
    assert_eq!(shown(&other.clients).await, others);
    // What was used stays used.
    let figures = |usage: &GetTenantUsageResponse| usage.usage.clone().unwrap();
    let (before, after) = (figures(&before), figures(&usage(&acme.clients).await));
    assert!(after.operations >= before.operations);
    assert!(after.memory_byte_seconds >= before.memory_byte_seconds);
    assert_eq!(after.cache_entries, 40);

    // A key that was revoked since stays so; another works on.
    let who = |secret: &str| {
        let mut tenant = server.with_key(secret).tenant;
        async move { tenant.who_am_i(WhoAmIRequest {}).await.map(drop) }
    };
    assert_eq!(
        who(&revoked).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    who(&kept).await.unwrap();

    // What was replaced lies in a checkpoint of its own.
    let safety = replaced.safety_checkpoint_id;
    assert_ne!(safety, "");
    restored(&server.admin(), asked(&safety, RestoreConflict::Replace)).await;
    assert_same(&shown(&acme.clients).await, &now);
    if let Some(redis) = &stage.redis {
        audit(redis).await;
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_go_on_and_components_are_restored_alone(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    let acme = server.tenant("acme").await;
    let write = |key: &'static str| {
        let mut cache = acme.clients.cache.clone();
        async move { cache.set(set(key, "v")).await.unwrap().into_inner().version }
    };
    write("a").await;
    let id = checkpoint(&server.admin(), &ALL).await;
    let last = write("b").await;
    let only = |component: Component| RestoreCheckpointRequest {
        components: vec![component.into()],
        ..asked(&id, RestoreConflict::Replace)
    };
    let result = restored(&server.admin(), only(Component::Tenants)).await;
    assert_eq!(result.replaced, 1);
    assert_eq!(
        shown(&acme.clients).await.len(),
        2,
        "the cache was not asked for"
    );
    restored(&server.admin(), only(Component::Cache)).await;
    assert_eq!(shown(&acme.clients).await.len(), 1);
    assert!(write("c").await > last);

    for (request, field) in [
        (asked("../x", RestoreConflict::Fail), "checkpoint_id"),
        (
            RestoreCheckpointRequest {
                components: vec![Component::Config.into()],
                ..asked(&id, RestoreConflict::Fail)
            },
            "components",
        ),
        (
            RestoreCheckpointRequest {
                request_id: "1".into(),
                ..asked(&id, RestoreConflict::Fail)
            },
            "request_id",
        ),
    ] {
        let refused = restore(&server.admin(), request).await.unwrap_err();
        assert_eq!(crate::server::fields(&refused), [field]);
    }
    let unknown = asked("20200101t000000-00000000", RestoreConflict::Fail);
    let refused = restore(&server.admin(), unknown).await.unwrap_err();
    assert_eq!(reason(&refused), "CHECKPOINT_NOT_FOUND");
    let absent = RestoreCheckpointRequest {
        tenant_ids: vec!["nobody".into()],
        ..asked(&id, RestoreConflict::Fail)
    };
    let refused = restore(&server.admin(), absent).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_NOT_FOUND");
    let _ = ADMIN_KEY;
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_carried_out_once(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve().await;
    let acme = server.tenant("acme").await;
    fill(&acme.clients, 8, 1).await;
    let id = checkpoint(&server.admin(), &ALL).await;
    let request = RestoreCheckpointRequest {
        request_id: "7c9a1c1e-4b7d-4c6e-9f0a-3f8f2f1f0b5a".into(),
        ..asked(&id, RestoreConflict::Replace)
    };
    let first = restored(&server.admin(), request.clone()).await;
    acme.clients
        .cache
        .clone()
        .set(set("later", "x"))
        .await
        .unwrap();
    let again = restored(&server.admin(), request.clone()).await;
    assert_eq!(again, first);
    assert_eq!(
        shown(&acme.clients).await.len(),
        9,
        "nothing was restored again"
    );
    let other = RestoreCheckpointRequest {
        tenant_ids: vec!["acme".into()],
        ..request
    };
    let refused = restore(&server.admin(), other).await.unwrap_err();
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
}
