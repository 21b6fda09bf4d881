//! GetConfig, ReloadConfig and WatchConfig over a real socket, with a file that a
//! test writes. It does not know who uses a setting, nor how a file is looked at.

mod bad_file;
mod effects;
mod replicas;
mod triggers;
mod watch;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use riptide_persistence::{
    config::{self, Sources},
    proto::v1::{
        ConfigChange, GetConfigRequest, GetConfigResponse, GetServerInfoRequest, Reload,
        ReloadConfigRequest, ReloadOutcome,
    },
    state::Configuration,
};
use rstest::rstest;
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt;

use crate::{
    redis::Redis,
    server::{ADMIN_KEY, Kind, Server, fields, reason},
};

/// A server that was set up by a file, and the file.
pub struct Rig {
    pub server: Server,
    pub file: PathBuf,
    folder: TempDir,
}

/// The environment of a server on such a store.
pub fn environment(folder: &Path, redis: Option<&Redis>) -> BTreeMap<String, String> {
    let store = folder.join("store").display().to_string();
    let mut env = vec![
        ("PERSISTENCE_SERVER__LISTEN", "127.0.0.1:0".to_owned()),
        ("PERSISTENCE_SERVER__ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("PERSISTENCE_SERVER__THREADS", "2".to_owned()),
        ("PERSISTENCE_AUTH__ADMIN_KEY", ADMIN_KEY.to_owned()),
        ("PERSISTENCE_STORE__PATH", store),
    ];
    match redis {
        Some(redis) => env.push(("REDIS_URL", redis.url())),
        None => env.push(("PERSISTENCE_STORE__EPHEMERAL", "true".to_owned())),
    }
    let owned = env
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    owned.collect()
}

/// A server set up by this file and environment, which may not serve yet.
pub fn launch(file: &Path, env: BTreeMap<String, String>) -> Server {
    let mut sources = Sources::process(Some(file.to_owned()), Vec::new());
    sources.env = env;
    let loaded = config::load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    Server::launch_from(loaded, sources, TempDir::new().unwrap()).unwrap()
}

impl Rig {
    /// A server that reads this file again only when it is asked to.
    pub async fn start(kind: Kind, text: &str) -> Self {
        let unwatched = ("PERSISTENCE_HOT_RELOAD".to_owned(), "false".to_owned());
        Self::start_with(kind, text, [unwatched]).await
    }

    /// The same with more of an environment.
    pub async fn start_with(
        kind: Kind,
        text: &str,
        more: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("persistence.yml");
        fs::write(&file, text).unwrap();
        let redis = (kind == Kind::Redis).then(Redis::start);
        let mut env = environment(folder.path(), redis.as_ref());
        env.extend(more);
        let mut server = launch(&file, env);
        server.hold(redis);
        server.serves(true).await;
        Self {
            server,
            file,
            folder,
        }
    }

    pub fn write(&self, text: &str) {
        fs::write(&self.file, text).unwrap();
    }

    pub async fn config(&self) -> GetConfigResponse {
        config_of(&self.server).await
    }

    pub async fn reload_as(&self, request: ReloadConfigRequest) -> Result<Reload, Status> {
        let answer = self.server.admin().state.reload_config(request).await?;
        Ok(answer.into_inner().reload.unwrap())
    }

    pub async fn reload(&self) -> Reload {
        self.reload_as(ReloadConfigRequest::default())
            .await
            .unwrap()
    }

    /// Puts this file in force, all of it.
    pub async fn apply(&self, text: &str) -> Reload {
        self.write(text);
        let reload = self.reload().await;
        assert_eq!(reload.outcome(), ReloadOutcome::Applied, "{reload:#?}");
        assert_eq!(reload.requires_restart, [], "{reload:#?}");
        reload
    }

    pub async fn value(&self, path: &str) -> (String, String) {
        value_of(&self.config().await, path)
    }
}

pub async fn config_of(server: &Server) -> GetConfigResponse {
    let answer = server.admin().state.get_config(GetConfigRequest {}).await;
    answer.unwrap().into_inner()
}

/// The value of a setting, and its source.
pub fn value_of(config: &GetConfigResponse, path: &str) -> (String, String) {
    let value = config.values.iter().find(|value| value.path == path);
    let value = value.unwrap_or_else(|| panic!("there is no {path}"));
    (value.value.clone(), value.source.clone())
}

/// The configuration of a file, without a server.
fn configuration(file: &Path) -> Arc<Configuration> {
    let mut sources = Sources::process(Some(file.to_owned()), Vec::new());
    sources.env.clear();
    let loaded = config::load(&sources).unwrap();
    Arc::new(Configuration::new(loaded, sources, |_| {}))
}

/// Waits until it holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

pub fn changed(path: &str, old: &str, new: &str) -> ConfigChange {
    ConfigChange {
        path: path.into(),
        old: old.into(),
        new: new.into(),
    }
}

fn tags(most: &str) -> String {
    format!("persistence:\n  cache:\n    max_tags: {most}\n")
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_can_be_reloaded_is_and_what_cannot_is_named(#[case] kind: Kind) {
    let rig = Rig::start(kind, &tags("8")).await;
    let before = rig.config().await;
    assert_eq!((before.version, before.last_reload.clone()), (1, None));

    rig.write(
        "persistence:\n  cache:\n    max_tags: 9\n    near: {enabled: false}\n  \
         server: {max_in_flight: 77, threads: 7}\n  tenant: {default_plan: gold, plans: {gold: {\
         default_ttl: ~, quotas: {memory_bytes: 1 GiB, cache_entries: -1, storage_bytes: 7, \
         operations_per_minute: 8, data_transfer_bytes: 9 MB, active_sessions: 10}}}}\n",
    );
    let reload = rig.reload().await;
    assert_eq!(reload.outcome(), ReloadOutcome::Applied);
    assert_eq!((reload.version, reload.trigger.as_str()), (2, "rpc"));
    assert_eq!(reload.problems, []);
    let changes = &reload.changes;
    assert!(changes.contains(&changed("cache.max_tags", "8", "9")));
    assert!(changes.contains(&changed("tenant.default_plan", "free", "gold")));
    let path = "tenant.plans.gold.quotas.memory_bytes";
    assert!(changes.contains(&changed(path, "", "1 GiB")), "{changes:?}");
    assert_eq!(changes.len(), 9, "{changes:?}");
    // Threads are set by the environment, which goes before the file.
    assert_eq!(
        reload.requires_restart,
        [
            changed("cache.near.enabled", "true", "false"),
            changed("server.max_in_flight", "4096", "77"),
        ]
    );

    let after = rig.config().await;
    assert_eq!(
        (after.version, after.last_reload),
        (2, Some(reload.clone()))
    );
    assert!(after.load_time.unwrap().seconds >= before.load_time.unwrap().seconds);
    let from = format!("file {}", rig.file.display());
    let in_force = rig.config().await;
    let is = |path, value: &str, source: &str| {
        assert_eq!(value_of(&in_force, path), (value.into(), source.into()));
    };
    is("cache.max_tags", "9", &from);
    is("cache.near.enabled", "true", "default");
    is("server.max_in_flight", "4096", "default");
    let mut state = rig.server.admin().state;
    let info = state.get_server_info(GetServerInfoRequest {}).await;
    let limits = info.unwrap().into_inner().limits.unwrap();
    assert_eq!((limits.tags, limits.in_flight), (9, 4096));

    // Nothing more can be applied; what waits is told again.
    let again = rig.reload().await;
    assert_eq!(again.outcome(), ReloadOutcome::Unchanged);
    assert_eq!((again.version, &again.changes[..]), (2, &[][..]));
    assert_eq!(again.requires_restart, reload.requires_restart);

    // A plan that is taken out is none any more.
    let reload = rig.apply(&tags("9")).await;
    assert_eq!(reload.version, 3);
    assert!(reload.changes.contains(&changed(path, "1 GiB", "")));
}

#[tokio::test]
async fn a_setting_tells_whether_it_needs_a_restart() {
    let rig = Rig::start(Kind::Embedded, &tags("8")).await;
    let config = rig.config().await;
    for (path, requires_restart) in [
        ("server.listen", true),
        ("cache.near.enabled", true),
        ("cache.near.max_bytes", false),
        ("tenant.plans.free.quotas.memory_bytes", false),
        ("log.filter", false),
        ("reload.watch_file", false),
    ] {
        let value = config.values.iter().find(|value| value.path == path);
        assert_eq!(value.unwrap().requires_restart, requires_restart, "{path}");
    }
}

#[tokio::test]
async fn a_reload_can_be_tried_and_changes_nothing() {
    let rig = Rig::start(Kind::Embedded, &tags("8")).await;
    let tried = ReloadConfigRequest {
        validate_only: true,
        ..Default::default()
    };
    rig.write(&tags("9"));
    let reload = rig.reload_as(tried).await.unwrap();
    assert_eq!(reload.outcome(), ReloadOutcome::Applied);
    assert_eq!(reload.changes, [changed("cache.max_tags", "8", "9")]);
    assert_eq!(reload.version, 1, "in force");
    rig.write(&tags("many"));
    let reload = rig.reload_as(tried).await.unwrap();
    assert_eq!(reload.outcome(), ReloadOutcome::Rejected);
    assert_eq!(reload.problems[0].path, "cache.max_tags");

    let config = rig.config().await;
    assert_eq!((config.version, config.last_reload.clone()), (1, None));
    assert_eq!(value_of(&config, "cache.max_tags").0, "8");
    let health = rig.server.health("config").await.unwrap();
    assert_eq!(health, ServingStatus::Serving);
}

#[tokio::test]
async fn a_reload_of_another_version_than_expected_is_refused() {
    let rig = Rig::start(Kind::Embedded, &tags("8")).await;
    rig.write(&tags("9"));
    let expecting = |expected_version| ReloadConfigRequest {
        expected_version,
        ..Default::default()
    };
    for (request, version) in [(expecting(2), "1"), (expecting(7), "1")] {
        let refused = rig.reload_as(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(reason(&refused), "CONFIG_REJECTED");
        let details = refused.get_error_details();
        let violations = &details.precondition_failure().unwrap().violations;
        assert_eq!(violations[0].subject, "expected_version");
        assert_eq!(details.error_info().unwrap().metadata["version"], version);
    }
    assert_eq!(rig.config().await.last_reload, None, "none was tried");
    let reload = rig.reload_as(expecting(1)).await.unwrap();
    assert_eq!(
        (reload.outcome(), reload.version),
        (ReloadOutcome::Applied, 2)
    );
    assert!(rig.reload_as(expecting(1)).await.is_err());
    let refused = rig.reload_as(expecting(-1)).await.unwrap_err();
    assert_eq!(reason(&refused), "VALIDATION_FAILED");
    assert_eq!(fields(&refused), ["expected_version"]);
}

#[tokio::test]
async fn two_reloads_at_once_are_one_after_the_other() {
    let rig = Rig::start(Kind::Embedded, &tags("8")).await;
    rig.write(&tags("9"));
    let reloads = futures::future::join_all((0..8).map(|_| rig.reload())).await;
    let applied = reloads
        .iter()
        .filter(|reload| reload.outcome() == ReloadOutcome::Applied);
    assert_eq!(applied.count(), 1, "{reloads:#?}");
    assert!(reloads.iter().all(|reload| reload.version == 2));
}

#[tokio::test]
async fn what_goes_beyond_what_waits_waits_with_it() {
    let sizes = |value: &str, message: &str| {
        format!(
            "persistence: {{cache: {{max_value_bytes: {value}, max_tags: 9}}, \
             server: {{max_message_bytes: {message}}}}}"
        )
    };
    let rig = Rig::start(Kind::Embedded, &tags("8")).await;
    rig.write(&sizes("40 MiB", "64 MiB"));
    let reload = rig.reload().await;
    assert_eq!(reload.outcome(), ReloadOutcome::Applied);
    assert_eq!(reload.changes, [changed("cache.max_tags", "8", "9")]);
    assert_eq!(
        reload.requires_restart,
        [
            changed("cache.max_value_bytes", "20 MiB", "40 MiB"),
            changed("server.max_message_bytes", "32 MiB", "64 MiB"),
        ]
    );
    // As far as messages allow, it does not wait.
    rig.write(&sizes("31 MiB", "64 MiB"));
    let reload = rig.reload().await;
    let change = changed("cache.max_value_bytes", "20 MiB", "31 MiB");
    assert_eq!(reload.changes, [change]);
    assert_eq!(reload.requires_restart.len(), 1);
}

#[tokio::test]
async fn units_and_sources_make_no_change() {
    let text = |value: &str| format!("persistence: {{drain: {{delay: {value}}}}}");
    let rig = Rig::start(Kind::Embedded, &text("60s")).await;
    rig.write(
        "persistence: {drain: {delay: 1m}, cache: {max_tags: 16, near: {max_bytes: 65536 KiB}}}",
    );
    let reload = rig.reload().await;
    assert_eq!(reload.outcome(), ReloadOutcome::Unchanged, "{reload:#?}");
    let from = format!("file {}", rig.file.display());
    assert_eq!(rig.value("cache.max_tags").await, ("16".into(), from));
}
