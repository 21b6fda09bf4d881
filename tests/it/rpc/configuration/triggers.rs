//! The file as it changes: in whatever way it does, that is noticed, and nothing else
//! is. Nobody asks for a reload here.

use std::{fs, os::unix::fs::symlink, time::Duration};

use riptide_persistence::proto::v1::ReloadOutcome;
use tempfile::TempDir;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{Rig, config_of, environment, launch, tags, until, value_of};
use crate::server::Kind;

async fn in_force(rig: &Rig, tags: &str) {
    until(&format!("max_tags is {tags}"), async || {
        rig.value("cache.max_tags").await.0 == tags
    })
    .await;
}

#[tokio::test]
async fn a_change_is_noticed_in_whatever_way_it_is_made() {
    let rig = Rig::start_with(Kind::Embedded, &tags("8"), []).await;
    // In place.
    rig.write(&tags("9"));
    in_force(&rig, "9").await;
    let reload = rig.config().await.last_reload.unwrap();
    assert_eq!(reload.trigger, "file");
    assert_eq!(reload.outcome(), ReloadOutcome::Applied);
    // In one step, as editors do.
    let aside = rig.file.with_extension("new");
    fs::write(&aside, tags("10")).unwrap();
    fs::rename(&aside, &rig.file).unwrap();
    in_force(&rig, "10").await;
    // Again in place, of the new file.
    rig.write(&tags("11"));
    in_force(&rig, "11").await;

    // Gone: that is a problem, and what is in force stays.
    fs::remove_file(&rig.file).unwrap();
    until("it is missed", async || {
        rig.server.health("config").await.unwrap() == ServingStatus::NotServing
    })
    .await;
    assert_eq!(rig.value("cache.max_tags").await.0, "11");
    rig.write(&tags("12"));
    in_force(&rig, "12").await;
    assert_eq!(
        rig.server.health("config").await.unwrap(),
        ServingStatus::Serving
    );
    assert_eq!(rig.config().await.version, 5);
}

/// As Kubernetes mounts a ConfigMap: the file is a link into `..data`, which is a
/// link to a folder, and is exchanged in one step.
#[tokio::test]
async fn an_exchange_of_a_link_far_away_is_noticed() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let publish = |name: &str, text: &str| {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("persistence.yml"), text).unwrap();
        symlink(name, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    publish("..1", &tags("8"));
    symlink("..data/persistence.yml", at("persistence.yml")).unwrap();
    let file = at("persistence.yml");
    let server = launch(&file, environment(folder.path(), None));
    server.serves(true).await;
    for (name, wanted) in [("..2", "9"), ("..3", "10")] {
        publish(name, &tags(wanted));
        until("the new folder's file is in force", async || {
            value_of(&config_of(&server).await, "cache.max_tags").0 == wanted
        })
        .await;
    }
    fs::remove_dir_all(at("..1")).unwrap();
}

#[tokio::test]
async fn a_secret_in_a_file_of_its_own_is_watched_too() {
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys");
    let key = |id: &str| format!("{id}:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    fs::write(&keys, key("a")).unwrap();
    let env = [(
        "PERSISTENCE_ENCRYPTION__MASTER_KEYS_FILE".to_owned(),
        keys.display().to_string(),
    )];
    let rig = Rig::start_with(Kind::Embedded, &tags("8"), env).await;
    fs::write(&keys, "what is no key").unwrap();
    until("it is told", async || {
        let reload = rig.config().await.last_reload;
        reload.is_some_and(|reload| reload.outcome() == ReloadOutcome::Rejected)
    })
    .await;
    let reload = rig.config().await.last_reload.unwrap();
    assert_eq!(reload.problems[0].path, "encryption.master_keys");
    assert!(!format!("{reload:?}").contains("what is no key"));
}

#[tokio::test]
async fn a_file_is_left_alone_where_it_is_not_to_be_watched() {
    let rig = Rig::start(Kind::Embedded, &tags("8")).await;
    assert_eq!(
        rig.value("reload.watch_file").await,
        ("false".into(), "env PERSISTENCE_HOT_RELOAD".into())
    );
    rig.write(&tags("9"));
    // Long enough for whoever watches.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let config = rig.config().await;
    assert_eq!((config.version, config.last_reload.clone()), (1, None));
    assert_eq!(value_of(&config, "cache.max_tags").0, "8");

    // It can be switched on while the server runs, and off again.
    let watched = Rig::start_with(
        Kind::Embedded,
        "persistence: {reload: {watch_file: false}}",
        [],
    )
    .await;
    watched
        .apply(&format!("{}  reload:\n    watch_file: true\n", tags("9")))
        .await;
    watched.write(&tags("10"));
    in_force(&watched, "10").await;
}
