//! Telling of changes by a Redis to which everything happens that client tracking
//! has holes for. It does not know the promise itself, which conformance.rs holds every
//! backend to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use riptide_persistence::store::{
    Batch, Commit, Handle, Incarnation, Key, STALENESS, Space, Table, Vouch, Write,
    redis::{Redis, Settings},
};

use super::{
    conformance::watch::{Recorder, vouched},
    patient, settings,
};
use crate::redis::{Options, Redis as Server};

/// A store that tells, and another that changes.
pub struct Pair {
    pub store: Handle,
    pub other: Handle,
    pub told: Arc<Recorder>,
}

impl Pair {
    pub async fn open(url: &str) -> Self {
        Self::open_as(&settings(url)).await
    }

    pub async fn open_as(settings: &Settings) -> Self {
        use secrecy::ExposeSecret;
        let told = Arc::<Recorder>::default();
        let store = Redis::connect_watched(settings, Some(told.clone())).unwrap();
        Self {
            store: Arc::new(store),
            other: Arc::new(patient(settings.url.expose_secret()).await),
            told,
        }
    }

    pub async fn vouched(&self, space: &Space, keys: &[Key]) -> Vouch {
        vouched(&self.store, space, 0, keys).await.1
    }

    /// Changes a record; again where the store is not to be had.
    pub async fn change(&self, space: &Space, key: &Key) {
        put(&self.other, space, [key.clone()]).await;
    }

    /// That a change of what is read now is told.
    pub async fn tells(&self, space: &Space) {
        let key = entry(&Incarnation::random().to_string());
        for _ in 0..2 {
            self.vouched(space, std::slice::from_ref(&key)).await;
            let before = self.told.count(space, 0, &key);
            self.change(space, &key).await;
            self.told.hears(space, 0, &key, before).await;
        }
    }

    /// Waits until this promise is taken back and others are made: if it were only
    /// not proven for a while, it would hold again with them.
    pub async fn breaks_off(&self, vouch: &Vouch) {
        let space = space();
        eventually("the promise is taken back", async || {
            self.vouched(&space, &[entry("other")]).await;
            !vouch.holds(Instant::now())
        })
        .await;
    }
}

pub async fn put(store: &Handle, space: &Space, keys: impl IntoIterator<Item = Key> + Clone) {
    eventually("it is written", async || {
        let puts = keys.clone().into_iter().map(|key| Write::put(key, "v"));
        matches!(
            store.commit(space, Batch::of(puts)).await,
            Ok(Commit::Applied(_))
        )
    })
    .await;
}

pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < until, "it never came to be that {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn space() -> Space {
    Space::tenant(Incarnation::random())
}

pub fn entry(name: &str) -> Key {
    Key::entry("default", name)
}

/// The ids of the connections that are tracked.
pub fn tracked(server: &Server) -> Vec<String> {
    let list = server.cli(&["client", "list"]);
    let word = |line: &str, name: &str| {
        let mut words = line.split(' ').filter_map(|word| word.split_once('='));
        words
            .find(|(found, _)| *found == name)
            .unwrap()
            .1
            .to_owned()
    };
    list.lines()
        .filter(|line| word(line, "flags").contains('t'))
        .map(|line| word(line, "id"))
        .collect()
}

#[tokio::test]
async fn a_flushed_database_is_noticed() {
    let server = Server::start();
    let pair = Pair::open(&server.url()).await;
    for flush in ["flushall", "flushdb"] {
        let (space, key) = (space(), entry("a"));
        pair.change(&space, &key).await;
        let vouch = pair.vouched(&space, std::slice::from_ref(&key)).await;
        assert_eq!(server.cli(&[flush]), "OK");
        // Nobody tells of the record: the push has no names, and the driver drops it.
        pair.breaks_off(&vouch).await;
        let read = vouched(&pair.store, &space, 0, &[key]).await.0.read;
        assert_eq!(read.records, [None]);
        pair.tells(&space).await;
    }
}

#[tokio::test]
async fn a_swapped_database_is_noticed() {
    let server = Server::start();
    let pair = Pair::open(&server.url()).await;
    let vouch = pair.vouched(&space(), &[entry("a")]).await;
    assert_eq!(server.cli(&["swapdb", "0", "1"]), "OK");
    pair.breaks_off(&vouch).await;
    pair.tells(&space()).await;
}

#[tokio::test]
async fn changes_that_come_too_fast_are_noticed() {
    let server = Server::start();
    let pair = Pair::open_as(&Settings {
        invalidation_buffer: 16,
        ..settings(&server.url())
    })
    .await;
    let space = space();
    let keys: Vec<Key> = (0..300).map(|n| entry(&n.to_string())).collect();
    eventually("pushes are lost", async || {
        let vouch = pair.vouched(&space, &keys).await;
        put(&pair.other, &space, keys.iter().cloned()).await;
        // A few may be kept up with.
        pair.vouched(&space, &[entry("other")]).await;
        !vouch.holds(Instant::now())
    })
    .await;
    pair.tells(&space).await;
}

#[tokio::test]
async fn a_killed_connection_is_made_and_armed_again() {
    let server = Server::start();
    let pair = Pair::open(&server.url()).await;
    let space = space();
    for _ in 0..3 {
        let vouch = pair.vouched(&space, &[entry("a")]).await;
        let ids = tracked(&server);
        assert_eq!(ids.len(), 1);
        server.cli(&["client", "kill", "id", &ids[0]]);
        pair.breaks_off(&vouch).await;
        pair.tells(&space).await;
    }
}

#[tokio::test]
async fn a_canary_that_is_refused_promises_nothing() {
    let server = Server::start();
    let pair = Pair::open(&server.url()).await;
    for command in ["get", "pexpire"] {
        let vouch = pair.vouched(&space(), &[entry("a")]).await;
        server.cli(&["acl", "setuser", "default", &format!("-{command}")]);
        eventually("it does not hold", async || !vouch.holds(Instant::now())).await;
        server.cli(&["acl", "setuser", "default", "+@all"]);
        pair.breaks_off(&vouch).await;
        pair.tells(&space()).await;
    }
}

#[tokio::test]
async fn a_restarted_server_is_armed_again() {
    let mut server = Options::new().aof().start();
    let pair = Pair::open(&server.url()).await;
    let (space, key) = (space(), entry("a"));
    pair.change(&space, &key).await;
    let vouch = pair.vouched(&space, &[key]).await;
    server.restart();
    pair.breaks_off(&vouch).await;
    pair.tells(&space).await;
}

#[tokio::test]
async fn a_frozen_server_lets_the_promise_run_out() {
    let server = Server::start();
    let pair = Pair::open(&server.url()).await;
    let space = space();
    let vouch = pair.vouched(&space, &[entry("a")]).await;
    server.freeze();
    // What was sent before may still be answered; it speaks for when it was sent.
    let frozen = Instant::now();
    eventually("it runs out", async || {
        assert!(!vouch.holds(frozen + STALENESS));
        !vouch.holds(Instant::now())
    })
    .await;
    server.thaw();
    pair.tells(&space).await;
}

#[tokio::test]
async fn what_the_server_forgets_is_told() {
    let server = Options::new()
        .with(&["--tracking-table-max-keys", "10"])
        .start();
    let pair = Pair::open(&server.url()).await;
    let space = space();
    let keys: Vec<Key> = (0..60).map(|n| entry(&n.to_string())).collect();
    pair.vouched(&space, &keys).await;
    eventually("some are told of though none has changed", async || {
        keys.iter().any(|key| pair.told.count(&space, 0, key) > 0)
    })
    .await;
    // Each is told of by now, or when it changes.
    put(&pair.other, &space, keys.iter().cloned()).await;
    eventually("all are told of", async || {
        keys.iter().all(|key| pair.told.count(&space, 0, key) > 0)
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_full_still_tells() {
    let server = Server::start();
    let pair = Pair::open(&server.url()).await;
    let (space, key) = (space(), entry("a"));
    pair.change(&space, &key).await;
    server.cli(&["config", "set", "maxmemory", "1"]);
    let ids = tracked(&server);
    for id in &ids {
        server.cli(&["client", "kill", "id", id]);
    }
    eventually("it is made again", async || {
        let now = tracked(&server);
        now.len() == 1 && now != ids
    })
    .await;
    pair.vouched(&space, std::slice::from_ref(&key)).await;
    let before = pair.told.count(&space, 0, &key);
    let batch = Batch::of([Write::delete(key.clone())]);
    assert!(matches!(
        pair.other.commit(&space, batch).await,
        Ok(Commit::Applied(_))
    ));
    pair.told.hears(&space, 0, &key, before).await;
}

#[tokio::test]
async fn who_may_not_track_reads_plainly() {
    let server = Server::start();
    assert_eq!(
        server.cli(&["acl", "setuser", "default", "-client|tracking"]),
        "OK"
    );
    let pair = Pair::open(&server.url()).await;
    let (space, key) = (space(), entry("a"));
    pair.change(&space, &key).await;
    for _ in 0..20 {
        let keys = std::slice::from_ref(&key);
        let watched = pair.store.read_watched(&space, 0, keys).await.unwrap();
        assert!(watched.vouch.is_none() && watched.read.records[0].is_some());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.cli(&["acl", "setuser", "default", "+client|tracking"]);
    pair.tells(&space).await;
}

#[tokio::test]
async fn a_replica_tells_nothing() {
    let primary = Server::start();
    let server = Server::start();
    let pair = Pair::open(&server.url()).await;
    let space = space();
    let vouch = pair.vouched(&space, &[entry("a")]).await;
    let port = primary.port().to_string();
    server.cli(&["replicaof", "127.0.0.1", &port]);
    eventually("it does not hold", async || !vouch.holds(Instant::now())).await;
    server.cli(&["replicaof", "no", "one"]);
    pair.breaks_off(&vouch).await;
    pair.tells(&space).await;
}

#[tokio::test]
async fn names_that_are_no_records_are_not_told() {
    let server = Server::start();
    let pair = Pair::open(&server.url()).await;
    let (space, key) = (space(), Key::new(Table::Control, "c"));
    pair.vouched(&space, std::slice::from_ref(&key)).await;
    pair.change(&space, &key).await;
    pair.told.hears(&space, 0, &key, 0).await;
    assert_eq!(
        pair.told.all(),
        1,
        "the space's state was read and changed, too"
    );
}

#[tokio::test]
async fn a_dropped_or_closed_store_ends_its_tracked_connections_and_promises() {
    let server = Server::start();
    let pair = Pair::open(&server.url()).await;
    let space = space();
    let vouch = pair.vouched(&space, &[entry("a")]).await;
    pair.store.close().await.unwrap();
    eventually("it is gone", async || tracked(&server).is_empty()).await;
    assert!(!vouch.holds(Instant::now()));

    let pair = Pair::open(&server.url()).await;
    let vouch = pair.vouched(&space, &[entry("a")]).await;
    assert_eq!(tracked(&server).len(), 1);
    drop(pair);
    eventually("it is gone", async || tracked(&server).is_empty()).await;
    assert!(!vouch.holds(Instant::now()));
}
