//! The embedded store's file when it is damaged, its clock, and its callers'
//! runtimes. It does not know what a crash leaves.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use riptide_persistence::store::{
    Batch, Check, Commit, Error, Expiry, Incarnation, Key, Space, Store, Table, View, Write,
    embedded::Embedded,
};

fn space() -> Space {
    Space::tenant(Incarnation::parse("0000000000000001").unwrap())
}

fn entry(number: u64) -> Key {
    Key::new(Table::Entry, format!("e{number}"))
}

fn control(number: u64) -> Key {
    Key::new(Table::Control, format!("c{number}"))
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store.redb"), "a diary, not a store").unwrap();
    let error = Embedded::open(folder.path()).err().unwrap();
    assert!(
        matches!(&error, Error::Unusable(text) if text.contains(&folder.path().display().to_string())),
        "{error}"
    );
    let file = folder.path().join("store.redb");
    let error = Embedded::open(&file).err().unwrap();
    assert!(
        matches!(&error, Error::Unusable(_)),
        "a file is no folder: {error}"
    );
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_read_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    {
        let store = Embedded::open(folder.path()).unwrap();
        let puts = (0..300).map(|number| Write::put(control(number), vec![b'v'; 200]));
        store.commit(&space(), Batch::of(puts)).await.unwrap();
    }
    let whole = fs::read(&file).unwrap();
    let (mut refused, mut opened) = (0, 0);
    let flips = (0..whole.len()).step_by(whole.len() / 60).chain(0..48);
    for place in flips {
        let mut damaged = whole.clone();
        damaged[place] ^= 0xff;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("store.redb"), damaged).unwrap();
        let store = match Embedded::open(folder.path()) {
            Err(Error::Unusable(_)) => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("{place}: {error}"),
            Ok(store) => store,
        };
        opened += 1;
        for number in 0..300 {
            match store.read(&space(), 0, &[control(number)]).await {
                Ok(read) => match &read.records[0] {
                    Some(record) => assert_eq!(record.value, vec![b'v'; 200], "{place}: {number}"),
                    None => assert_eq!(
                        read.view,
                        View::default(),
                        "{place}: {number} is lost in silence"
                    ),
                },
                Err(error) => assert!(
                    matches!(error, Error::Corrupt(_) | Error::Unavailable(_)),
                    "{error}"
                ),
            }
        }
    }
    assert!(
        refused > 0 && opened > 0,
        "{refused} refused, {opened} opened"
    );
    for length in [0, 1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("store.redb"), &whole[..length]).unwrap();
        match Embedded::open(folder.path()) {
            Ok(_) => assert_eq!(length, 0, "an empty file is a new store"),
            Err(error) => assert!(matches!(error, Error::Unusable(_)), "{length}: {error}"),
        }
    }
}

/// A clock that a test sets.
#[derive(Clone)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn at(ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(ms)))
    }

    fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }

    fn clock(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let hands = self.0.clone();
        move || hands.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn time_is_exact_to_the_millisecond() {
    let hands = Hands::at(1_000_003);
    let store = Embedded::in_memory_with_clock(hands.clock()).unwrap();
    let put = Write::put(entry(1), "v").expiring(Expiry::AfterMs(120));
    store.commit(&space(), Batch::of([put])).await.unwrap();
    let there = async || store.read(&space(), 0, &[entry(1)]).await.unwrap().records[0].is_some();
    let entries = async || store.usage(&space()).await.unwrap().entries;
    hands.set(1_000_122);
    assert!(there().await);
    hands.set(1_000_123);
    assert!(!there().await, "it ends 120 ms after 1 000 003");
    let gone = Batch::of([Write::check(entry(1), Check::Absent)]);
    assert!(
        matches!(store.commit(&space(), gone).await.unwrap(), Commit::Applied(applied) if applied.usage.entries == 1)
    );
    hands.set(1_000_150);
    assert_eq!(
        entries().await,
        1,
        "it counts to the end of its bucket of 50 ms"
    );
    hands.set(1_000_151);
    assert_eq!(entries().await, 0);
    assert!(store.audit(&space()).await.unwrap().agrees());
}

#[tokio::test]
async fn a_clock_that_jumps_back_does_not_revive_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(2_000_000);
    let store = Embedded::open_with_clock(folder.path(), hands.clock()).unwrap();
    let put = Write::put(entry(1), "v").expiring(Expiry::AfterMs(1000));
    store.commit(&space(), Batch::of([put])).await.unwrap();
    hands.set(2_500_000);
    assert_eq!(store.now_ms(), 2_500_000);
    store
        .commit(&space(), Batch::of([Write::put(control(1), "v")]))
        .await
        .unwrap();
    hands.set(1_000_000);
    assert_eq!(store.now_ms(), 2_500_000);
    assert!(store.read(&space(), 0, &[entry(1)]).await.unwrap().records[0].is_none());
    store.close().await.unwrap();
    let store = Embedded::open_with_clock(folder.path(), hands.clock()).unwrap();
    assert_eq!(store.now_ms(), 2_500_000, "not even over a restart");
    assert_eq!(store.usage(&space()).await.unwrap().entries, 0);
    assert!(store.audit(&space()).await.unwrap().agrees());
}

/// One store for several single-threaded runtimes, as the server uses it.
#[test]
fn several_runtimes_share_a_store() {
    let store = Arc::new(Embedded::in_memory().unwrap());
    let threads: Vec<_> = (0..4u64)
        .map(|core| {
            let store = store.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let start = store.changes(None).await.unwrap().position;
                    for round in 0..50 {
                        let put = Write::put(entry(core * 1000 + round), "v");
                        store.commit(&space(), Batch::of([put])).await.unwrap();
                    }
                    let tenant = Key::new(Table::Tenant, format!("t{core}"));
                    store
                        .commit(
                            &Space::registry(),
                            Batch::of([Write::put(tenant.clone(), "v")]),
                        )
                        .await
                        .unwrap();
                    assert!(
                        store
                            .changes(Some(start))
                            .await
                            .unwrap()
                            .keys
                            .contains(&tenant)
                    );
                    store.audit(&space()).await.unwrap();
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        assert_eq!(store.usage(&space()).await.unwrap().entries, 200);
        store.close().await.unwrap();
    });
}
