//! Files that are cut, wrong, gone, or being written: what was good stays in force,
//! and the problem is named.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use riptide_persistence::{
    config,
    proto::v1::ReloadOutcome,
    state::{Asked, Outcome, Trigger},
};
use tempfile::TempDir;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{Rig, changed, config_of, configuration, tags, until, value_of};
use crate::server::Kind;

#[tokio::test]
async fn every_problem_is_told_at_once_and_the_health_of_config_follows() {
    let rig = Rig::start(Kind::Embedded, &tags("8")).await;
    let health = async |name| rig.server.health(name).await.unwrap();
    assert_eq!(health("config").await, ServingStatus::Serving);
    rig.write(
        "persistence:\n  cache: {max_tags: many, max_ttl: soon, colour: red}\n  servre: {}\n  \
         log: {filter: 'a=loud'}\n",
    );
    let reload = rig.reload().await;
    assert_eq!(reload.outcome(), ReloadOutcome::Rejected);
    assert_eq!((&reload.changes[..], reload.version), (&[][..], 1));
    let paths: Vec<_> = reload.problems.iter().map(|p| p.path.as_str()).collect();
    for path in [
        "cache.max_tags",
        "cache.max_ttl",
        "cache.colour",
        "servre",
        "log.filter",
    ] {
        assert!(paths.contains(&path), "{path}: {paths:?}");
    }
    assert_eq!(paths.len(), 5, "{paths:?}");
    let from = format!("file {}", rig.file.display());
    for problem in &reload.problems {
        assert!(problem.source == from && !problem.description.is_empty());
    }
    assert_eq!(rig.value("cache.max_tags").await.0, "8");
    assert_eq!(rig.config().await.last_reload, Some(reload));
    // Calls go on by what is in force, so that only `config` is not well.
    assert_eq!(health("config").await, ServingStatus::NotServing);
    for name in ["", "riptide.persistence.v1.StateService", "store"] {
        assert_eq!(health(name).await, ServingStatus::Serving, "{name}");
    }
    assert_eq!(rig.server.probe("/readyz").0, 200);

    // What is in force again is well, changed or not.
    rig.write(&tags("8"));
    assert_eq!(rig.reload().await.outcome(), ReloadOutcome::Unchanged);
    assert_eq!(health("config").await, ServingStatus::Serving);
}

#[tokio::test]
async fn a_secret_is_never_told() {
    let rig = Rig::start(
        Kind::Embedded,
        "persistence: {redis: {url: 'redis://:hunter1@h'}, store: {backend: embedded}}",
    )
    .await;
    rig.write("persistence: {redis: {url: 'redis://:hunter2@h'}, store: {backend: embedded}}");
    let reload = rig.reload().await;
    assert_eq!(
        reload.requires_restart,
        [changed("redis.url", "(redacted)", "(redacted)")]
    );
    let config = format!("{:?}", rig.config().await);
    assert!(!config.contains("hunter"), "{config}");
}

#[tokio::test]
async fn a_file_that_is_gone_or_cannot_be_read_changes_nothing() {
    let rig = Rig::start(Kind::Embedded, &tags("8")).await;
    let rejected = async |says: &str| {
        let reload = rig.reload().await;
        assert_eq!(reload.outcome(), ReloadOutcome::Rejected, "{says}");
        assert_eq!(reload.problems.len(), 1, "{reload:#?}");
        let told = &reload.problems[0].description;
        assert!(told.contains(says), "{told}");
        assert_eq!(rig.value("cache.max_tags").await.0, "8");
    };
    fs::remove_file(&rig.file).unwrap();
    rejected("cannot be read").await;
    fs::create_dir(&rig.file).unwrap();
    rejected("not a regular file").await;
    fs::remove_dir(&rig.file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&rig.file).status();
    assert!(made.unwrap().success());
    rejected("not a regular file").await;
    fs::remove_file(&rig.file).unwrap();
    for empty in ["", " \n\n"] {
        rig.write(empty);
        rejected("it is empty").await;
    }
    fs::write(&rig.file, [b'a', 0xff, 0xfe]).unwrap();
    rejected("cannot be read").await;
    fs::write(&rig.file, vec![b'#'; 5 << 20]).unwrap();
    rejected("more than 4 MiB").await;
    fs::remove_file(&rig.file).unwrap();
    std::os::unix::fs::symlink(&rig.file, &rig.file).unwrap();
    rejected("cannot be read").await;
    fs::remove_file(&rig.file).unwrap();
    rig.write(&tags("9"));
    fs::set_permissions(&rig.file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&rig.file).is_err() {
        // Root reads all the same.
        rejected("cannot be read").await;
    }
    fs::set_permissions(&rig.file, fs::Permissions::from_mode(0o600)).unwrap();
    rig.write("persistence:\n");
    let reload = rig.reload().await;
    assert_eq!(reload.outcome(), ReloadOutcome::Applied);
    assert_eq!(rig.value("cache.max_tags").await.0, "16");
}

#[tokio::test]
async fn a_file_cut_at_any_byte_is_refused_or_whole_in_itself() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("persistence.yml");
    let whole = "persistence:\n  cache:\n    max_tags: 12\n    max_ttl: 30d\n  drain:\n    \
                 delay: 10s\n  tenant:\n    plans:\n      free:\n        quotas: {cache_entries: 77}\n";
    fs::write(&file, whole).unwrap();
    let configuration = configuration(&file);
    let before = configuration.in_force();
    let all = |config: &config::Config| format!("{config:?}");
    let mut rejected = 0;
    for end in 0..whole.len() {
        fs::write(&file, &whole[..end]).unwrap();
        let asked = Asked {
            validate_only: true,
            ..Asked::default()
        };
        let tried = configuration.reload(Trigger::File, asked).await.unwrap();
        if tried.outcome != Outcome::Rejected {
            continue;
        }
        rejected += 1;
        let reload = configuration.reload(Trigger::File, Asked::default()).await;
        assert_eq!(reload.unwrap().outcome, Outcome::Rejected);
        let now = configuration.in_force();
        assert_eq!(now.version, 1, "cut at {end}");
        assert_eq!(all(&now.loaded.config), all(&before.loaded.config));
        assert_eq!(now.loaded.settings, before.loaded.settings);
    }
    assert!(rejected > 60, "{rejected}");
    // What was last put in force was never replaced by less.
    fs::write(&file, whole).unwrap();
    let reload = configuration.reload(Trigger::File, Asked::default()).await;
    assert_eq!(reload.unwrap().outcome, Outcome::Unchanged);
}

/// The file is exchanged a thousand times a second, half of the times for one that
/// is cut: what was in force stays until that has ended, and calls go on.
#[tokio::test]
async fn a_file_that_never_rests_is_left_alone_until_it_does() {
    let rig = Rig::start_with(Kind::Embedded, &tags("8"), []).await;
    let over = Arc::new(AtomicBool::new(false));
    let (ended, file) = (over.clone(), rig.file.clone());
    let writer = thread::spawn(move || {
        let mut writes = 0;
        while !ended.load(Ordering::Relaxed) {
            let text = match writes % 2 {
                0 => tags("11"),
                _ => "persistence:\n  cache: {max_tags".to_owned(),
            };
            // In place, and in one step.
            if writes % 4 < 2 {
                fs::write(&file, text).unwrap();
            } else {
                let aside = file.with_extension("aside");
                fs::write(&aside, text).unwrap();
                fs::rename(&aside, &file).unwrap();
            }
            writes += 1;
            thread::sleep(Duration::from_micros(700));
        }
        writes
    });
    let mut calls = 0;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let config = config_of(&rig.server).await;
        // Either it was left alone, or a moment of it was whole.
        let tags = value_of(&config, "cache.max_tags").0;
        assert!(["8", "11"].contains(&tags.as_str()), "{tags}");
        calls += 1;
    }
    over.store(true, Ordering::Relaxed);
    let writes = writer.join().unwrap();
    assert!(writes > 200 && calls > 20, "{writes} writes, {calls} calls");
    rig.write(&tags("13"));
    until("the last one is in force", async || {
        rig.value("cache.max_tags").await.0 == "13"
    })
    .await;
    assert_eq!(
        rig.server.health("config").await.unwrap(),
        ServingStatus::Serving
    );
}
