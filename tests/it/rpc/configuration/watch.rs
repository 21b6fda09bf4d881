//! WatchConfig: who is told, of what, and how it ends.

use riptide_persistence::{
    proto::v1::{ReloadOutcome, WatchConfigRequest, WatchConfigResponse},
    state::{Asked, Trigger},
};
use rstest::rstest;
use tonic::{Code, Request, Streaming};

use super::{Rig, changed, configuration, tags};
use crate::server::{Kind, reason};

async fn watch(rig: &Rig) -> Streaming<WatchConfigResponse> {
    let mut state = rig.server.admin().state;
    let watch = state.watch_config(WatchConfigRequest {}).await;
    watch.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchConfigResponse>) -> WatchConfigResponse {
    let next = tokio::time::timeout(std::time::Duration::from_secs(30), stream.message()).await;
    next.expect("nothing is told").unwrap().unwrap()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_watcher_is_told_of_every_reload_and_of_the_end(#[case] kind: Kind) {
    let mut rig = Rig::start(kind, &tags("8")).await;
    let mut first = watch(&rig).await;
    let told = next(&mut first).await;
    assert_eq!((told.version, told.reload), (1, None));

    let reload = rig.apply(&tags("9")).await;
    let told = next(&mut first).await;
    assert_eq!((told.version, told.reload), (2, Some(reload.clone())));
    assert_eq!(reload.changes, [changed("cache.max_tags", "8", "9")]);
    // Who comes later learns what led to what is in force.
    let mut second = watch(&rig).await;
    assert_eq!(next(&mut second).await.reload, Some(reload));

    rig.write(&tags("many"));
    rig.reload().await;
    rig.reload().await;
    for stream in [&mut first, &mut second] {
        for _ in 0..2 {
            let told = next(stream).await;
            assert_eq!(told.version, 2);
            let reload = told.reload.unwrap();
            assert_eq!(reload.outcome(), ReloadOutcome::Rejected);
            assert_eq!(reload.problems[0].path, "cache.max_tags");
        }
    }

    rig.server.begin_stop();
    for mut stream in [first, second] {
        let end = stream.message().await.unwrap_err();
        assert_eq!(end.code(), Code::Unavailable);
        assert_eq!(reason(&end), "DRAINING");
    }
}

#[tokio::test]
async fn a_watch_ends_in_its_own_time() {
    let rig = Rig::start(Kind::Embedded, &tags("8")).await;
    let mut request = Request::new(WatchConfigRequest {});
    request
        .metadata_mut()
        .insert("grpc-timeout", "300m".parse().unwrap());
    let mut state = rig.server.admin().state;
    let mut stream = state.watch_config(request).await.unwrap().into_inner();
    next(&mut stream).await;
    let end = stream.message().await.unwrap_err();
    assert_eq!(end.code(), Code::DeadlineExceeded, "{end:?}");
}

#[tokio::test]
async fn who_falls_behind_learns_the_newest_and_holds_little() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("persistence.yml");
    std::fs::write(&file, tags("8")).unwrap();
    let configuration = configuration(&file);
    let mut slow = configuration.watch();
    let reload = async || configuration.reload(Trigger::Rpc, Asked::default()).await;
    for _ in 0..100 {
        reload().await.unwrap();
    }
    std::fs::write(&file, tags("9")).unwrap();
    reload().await.unwrap();
    assert_eq!(slow.next().await.unwrap().version, 1);
    let mut told = 0;
    while slow.next().await.unwrap().version == 1 {
        told += 1;
    }
    assert_eq!(told, 63, "so many wait, and the newest is one of them");
}
