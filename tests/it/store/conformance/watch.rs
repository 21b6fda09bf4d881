//! Telling of changes to what was read, on a store with a watcher. It does not know how it is told, or what is
//! kept for it.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use riptide_persistence::store::{Reclaim, STALENESS, Step, Vouch, Watched, Watcher};

use super::*;

/// Keeps what it is told.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<(String, u64, Key)>>);

impl Watcher for Recorder {
    fn changed(&self, space: &str, generation: u64, table: Table, path: &[u8]) {
        let key = key(table, path);
        self.0
            .lock()
            .unwrap()
            .push((space.to_owned(), generation, key));
    }
}

impl Recorder {
    /// How often it was told of this record until now.
    pub fn count(&self, space: &Space, generation: u64, key: &Key) -> usize {
        let told = self.0.lock().unwrap();
        told.iter()
            .filter(|told| (&told.0[..], told.1, &told.2) == (space.name(), generation, key))
            .count()
    }

    /// Of how many changes it was told.
    pub fn all(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Waits until it is told of this record more often than so.
    pub async fn hears(&self, space: &Space, generation: u64, key: &Key, before: usize) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.count(space, generation, key) <= before {
            assert!(Instant::now() < until, "nothing was told of {key:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Reads until it is vouched for.
pub async fn vouched(
    store: &Handle,
    space: &Space,
    generation: u64,
    keys: &[Key],
) -> (Watched, Vouch) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(watched) = store.read_watched(space, generation, keys).await
            && let Some(vouch) = watched.vouch.clone()
        {
            return (watched, vouch);
        }
        assert!(Instant::now() < until, "nothing is vouched for");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Reads a record until it is vouched for, does something, and waits until the
/// change is told.
async fn told_of<T>(
    stage: &crate::store::Watched,
    space: &Space,
    generation: u64,
    key: &Key,
    change: impl Future<Output = T>,
) {
    vouched(&stage.store, space, generation, std::slice::from_ref(key)).await;
    let before = stage.told.count(space, generation, key);
    change.await;
    stage.told.hears(space, generation, key, before).await;
}

pub async fn a_watched_read_is_a_read(stage: &crate::store::Watched) {
    let (store, space) = (&stage.store, space());
    let keys = [entry("a"), entry("absent"), key(Table::Control, "floors")];
    write(store, &space, Write::put(keys[0].clone(), "1")).await;
    write(store, &space, ending(keys[2].clone(), "2", 60_000)).await;
    let (watched, _) = vouched(store, &space, 0, &keys).await;
    assert_eq!(watched.read, store.read(&space, 0, &keys).await.unwrap());
    assert_eq!(watched.read.records.iter().flatten().count(), 2);
}

pub async fn a_change_by_another_handle_is_told(stage: &crate::store::Watched) {
    let (space, key) = (space(), entry("a"));
    for number in ["1", "2", "3"] {
        let change = write(&stage.other, &space, Write::put(key.clone(), number));
        told_of(stage, &space, 0, &key, change).await;
    }
}

pub async fn a_change_by_this_handle_is_told(stage: &crate::store::Watched) {
    let (space, key) = (space(), entry("a"));
    for number in ["1", "2", "3"] {
        let change = write(&stage.store, &space, Write::put(key.clone(), number));
        told_of(stage, &space, 0, &key, change).await;
    }
}

pub async fn what_was_absent_is_told_when_it_is_put(stage: &crate::store::Watched) {
    for table in [Table::Entry, Table::Control, Table::Job] {
        let (space, key) = (space(), key(table, "a:b}{\0"));
        let change = write(&stage.other, &space, Write::put(key.clone(), "1"));
        told_of(stage, &space, 0, &key, change).await;
    }
}

pub async fn a_delete_and_a_touch_are_told(stage: &crate::store::Watched) {
    let (space, key) = (space(), entry("a"));
    write(&stage.other, &space, Write::put(key.clone(), "1")).await;
    for change in [
        touch(key.clone(), Expiry::AfterMs(60_000)),
        touch(key.clone(), Expiry::Never),
        Write::delete(key.clone()),
    ] {
        let change = write(&stage.other, &space, change);
        told_of(stage, &space, 0, &key, change).await;
    }
}

pub async fn every_record_of_a_batch_is_told(stage: &crate::store::Watched) {
    let space = space();
    let keys: Vec<Key> = (0..200).map(|n| entry(format!("k{n}"))).collect();
    vouched(&stage.store, &space, 0, &keys).await;
    let batch = Batch::of(keys.iter().map(|key| Write::put(key.clone(), "v")));
    applied(&stage.other, &space, batch).await;
    for key in &keys {
        stage.told.hears(&space, 0, key, 0).await;
    }
}

pub async fn whoever_is_told_reads_the_change(stage: &crate::store::Watched) {
    let (space, key) = (space(), entry("a"));
    for number in 0..50u64 {
        vouched(&stage.store, &space, 0, std::slice::from_ref(&key)).await;
        let before = stage.told.count(&space, 0, &key);
        let wrote = write(
            &stage.other,
            &space,
            Write::put(key.clone(), number.to_string()),
        );
        let heard = async {
            stage.told.hears(&space, 0, &key, before).await;
            value(&stage.store, &space, key.clone()).await
        };
        let (_, seen) = futures::join!(wrote, heard);
        assert_eq!(seen, Some(Bytes::from(number.to_string())));
    }
}

pub async fn a_flush_is_told_by_what_is_written_with_it(stage: &crate::store::Watched) {
    let (space, floors) = (space(), key(Table::Control, "floors"));
    for generation in 1..4 {
        let flush = Batch {
            step: Some(Step::Generation),
            ..Batch::of([Write::put(floors.clone(), "v")])
        };
        let change = applied(&stage.other, &space, flush);
        told_of(stage, &space, 0, &floors, change).await;
        // And what changes in the new generation, of that one.
        let change = write(&stage.other, &space, Write::put(entry("a"), "v"));
        told_of(stage, &space, generation, &entry("a"), change).await;
    }
}

pub async fn a_refused_commit_takes_no_promise_back(stage: &crate::store::Watched) {
    let (space, key) = (space(), entry("a"));
    write(&stage.other, &space, Write::put(key.clone(), "1")).await;
    sometime(async || {
        let (_, vouch) = vouched(&stage.store, &space, 0, std::slice::from_ref(&key)).await;
        let create = Write::put(key.clone(), "2").when(Check::Absent);
        refused(&stage.other, &space, Batch::of([create])).await;
        assert_eq!(
            value(&stage.store, &space, key.clone()).await,
            Some("1".into())
        );
        vouch.holds(Instant::now())
    })
    .await;
}

pub async fn expiry_is_no_change(stage: &crate::store::Watched) {
    sometime(async || {
        let (space, key) = (space(), entry("a"));
        write(&stage.other, &space, ending(key.clone(), "1", 100)).await;
        let (watched, vouch) = vouched(&stage.store, &space, 0, std::slice::from_ref(&key)).await;
        if let Some(record) = &watched.read.records[0] {
            wait_past(&stage.store, record.expire_ms.unwrap()).await;
        }
        assert_eq!(value(&stage.store, &space, key).await, None);
        vouch.holds(Instant::now())
    })
    .await;
}

/// Tries until it holds: a machine that is busy for half a second ends any promise.
async fn sometime(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..50 {
        if holds().await {
            return;
        }
    }
    panic!("the promise never held");
}

pub async fn a_store_tells_whether_it_vouches(stage: &crate::store::Watched) {
    vouched(&stage.store, &space(), 0, &[entry("a")]).await;
    // Behind a Cluster, for each of its primaries.
    eventually("it vouches", || stage.store.ties().vouches).await;
    stage.store.close().await.unwrap();
    eventually("nothing vouches", || !stage.store.ties().vouches).await;
    let connections = stage.store.ties().connections;
    assert!(connections.iter().all(|it| it.open == 0), "{connections:?}");
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub async fn without_a_watcher_nothing_is_vouched_for(store: &Handle) {
    assert!(!store.ties().vouches);
    let (space, key) = (space(), entry("a"));
    write(store, &space, Write::put(key.clone(), "1")).await;
    for _ in 0..50 {
        let watched = store
            .read_watched(&space, 0, std::slice::from_ref(&key))
            .await
            .unwrap();
        assert!(watched.vouch.is_none());
        assert_eq!(watched.read.records.iter().flatten().count(), 1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Keeps what is read for as long as it is vouched for and not told of, and compares
/// it with what was acknowledged.
pub async fn what_is_kept_is_never_too_old(stage: &crate::store::Watched) {
    const KEYS: usize = 8;
    const CHANGES: u64 = 150;
    let space = space();
    let keys: Vec<Key> = (0..KEYS).map(|n| entry(format!("k{n}"))).collect();
    // When each number was acknowledged, by key.
    let history: Vec<Mutex<Vec<Instant>>> = keys.iter().map(|_| Mutex::default()).collect();
    let writers = keys.iter().zip(&history).map(|(key, history)| async {
        for number in 0..CHANGES {
            let put = Write::put(key.clone(), number.to_string());
            write(&stage.other, &space, put).await;
            history.lock().unwrap().push(Instant::now());
        }
    });
    let over = std::cell::Cell::new(false);
    let writers = async {
        futures::future::join_all(writers).await;
        tokio::time::sleep(STALENESS).await;
        over.set(true);
    };
    let reader = async {
        let mut kept: HashMap<&Key, (Option<u64>, Vouch, usize)> = HashMap::new();
        let (mut near, mut checked) = (0, 0);
        while !over.get() {
            for (key, history) in keys.iter().zip(&history) {
                let now = Instant::now();
                let told = stage.told.count(&space, 0, key);
                let must = {
                    let history = history.lock().unwrap();
                    history
                        .iter()
                        .take_while(|at| **at + STALENESS <= now)
                        .count() as u64
                };
                let seen = match kept.get(key) {
                    Some((seen, vouch, since)) if *since == told && vouch.holds(now) => {
                        near += 1;
                        *seen
                    }
                    _ => {
                        let one = std::slice::from_ref(key);
                        let watched = stage.store.read_watched(&space, 0, one).await.unwrap();
                        let seen = watched.read.records[0].as_ref().map(|record| {
                            let text = std::str::from_utf8(&record.value).unwrap();
                            text.parse::<u64>().unwrap()
                        });
                        if let Some(vouch) = watched.vouch {
                            kept.insert(key, (seen, vouch, told));
                        }
                        seen
                    }
                };
                checked += 1;
                assert!(
                    seen.map_or(0, |seen| seen + 1) >= must,
                    "{key:?}: {seen:?}, though {must} were acknowledged long ago"
                );
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (near, checked)
    };
    let (_, (near, checked)) = futures::join!(writers, reader);
    assert!(near > 0, "nothing was kept, of {checked}");
}

pub async fn what_is_reclaimed_is_told(stage: &crate::store::Watched) {
    let (space, key) = (space(), entry("a:b"));
    let version = write(&stage.other, &space, Write::put(key.clone(), "v")).await;
    let below = Reclaim::Below {
        prefix: "a:".into(),
        version,
    };
    let change = async {
        // A call looks at a part of what the server holds.
        let (mut entries, mut after) = (0, None);
        loop {
            let reclaim = stage.other.reclaim(&space, below.clone(), after, 1000);
            let reclaimed = reclaim.await.unwrap();
            entries += reclaimed.entries;
            after = reclaimed.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(entries, 1);
    };
    told_of(stage, &space, 0, &key, change).await;
}

/// At once, or when what it proved last is too old.
pub async fn a_store_that_is_closed_vouches_for_nothing(stage: &crate::store::Watched) {
    let (space, key) = (space(), entry("a"));
    write(&stage.other, &space, Write::put(key.clone(), "v")).await;
    let (_, vouch) = vouched(&stage.store, &space, 0, &[key]).await;
    stage.store.close().await.unwrap();
    while vouch.holds(Instant::now()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
