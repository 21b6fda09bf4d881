//! The embedded store on a disk that fails at will. It does not know how a disk
//! comes to fail.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind},
    ops::Bound,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use redb::{BackendError, Database, StorageBackend, backends::FileBackend};

use super::{
    super::{Batch, Commit, Error, Key, Space, Store, Table, Watcher, Write},
    Embedded,
    clock::{Clock, machine_ms},
    opening::{self, Opening},
    shelter::Shelter,
};

/// What the disk does.
#[derive(Clone, Default)]
struct Mood(Arc<AtomicU8>);

const WELL: u8 = 0;
const FULL: u8 = 1;
const BROKEN: u8 = 2;
const UNSYNCED: u8 = 3;

impl Mood {
    fn set(&self, mood: u8) {
        self.0.store(mood, Ordering::Relaxed);
    }

    fn write(&self) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            FULL => Err(ErrorKind::StorageFull.into()),
            BROKEN => Err(io::Error::other("input/output error")),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            BROKEN | UNSYNCED => Err(io::Error::other("input/output error")),
            _ => Ok(()),
        }
    }
}

struct Disk {
    file: FileBackend,
    mood: Mood,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.mood.write()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.mood.sync()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.mood.write()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

fn open(folder: &Path, mood: &Mood) -> Embedded {
    let (path, mood) = (folder.join("store.redb"), mood.clone());
    let open = move |to: opening::Disk| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let disk = Disk {
            file: FileBackend::new(file)?,
            mood: mood.clone(),
        };
        match to {
            opening::Disk::Written => Database::builder().create_with_backend(disk),
            opening::Disk::Sheltered => {
                Database::builder().create_with_backend(Shelter::over(disk)?)
            }
        }
    };
    Embedded::start(Opening::by(Box::new(open)), "test", Clock::over(machine_ms)).unwrap()
}

fn space() -> Space {
    Space::registry()
}

fn put(table: Table, path: &str) -> Batch {
    Batch::of([Write::put(
        Key::new(table, path.to_owned()),
        vec![b'v'; 5000],
    )])
}

async fn there(store: &Embedded, table: Table, path: &str) -> bool {
    let keys = [Key::new(table, path.to_owned())];
    store.read(&space(), 0, &keys).await.unwrap().records[0].is_some()
}

async fn fails_and_recovers(mood_of_disk: u8) {
    let folder = tempfile::tempdir().unwrap();
    let mood = Mood::default();
    let store = open(folder.path(), &mood);
    store
        .commit(&space(), put(Table::Control, "kept"))
        .await
        .unwrap();
    store
        .commit(&space(), put(Table::Entry, "lately"))
        .await
        .unwrap();
    let version_before = store
        .read(&space(), 0, &[Key::new(Table::Entry, "lately")])
        .await
        .unwrap();

    mood.set(mood_of_disk);
    for path in ["refused", "refused too"] {
        let error = store
            .commit(&space(), put(Table::Control, path))
            .await
            .unwrap_err();
        match mood_of_disk {
            FULL => assert!(matches!(error, Error::Full(_)), "{error:?}"),
            _ => assert!(matches!(error, Error::Unavailable(_)), "{error:?}"),
        }
    }
    // Reads go on, and see what was acknowledged and nothing else.
    assert!(there(&store, Table::Control, "kept").await);
    assert!(!there(&store, Table::Control, "refused").await);
    let version_now = store
        .read(&space(), 0, &[Key::new(Table::Entry, "lately")])
        .await
        .unwrap();
    assert_eq!(version_now, version_before);
    let error = store
        .commit(&space(), put(Table::Entry, "refused"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Full(_) | Error::Unavailable(_)),
        "{error:?}"
    );
    assert_eq!(store.usage(&space()).await.unwrap().entries, 1);

    mood.set(WELL);
    let mut recovered = false;
    for _ in 0..200 {
        match store.commit(&space(), put(Table::Entry, "after")).await {
            Ok(Commit::Applied(_)) => {
                recovered = true;
                break;
            }
            Ok(refused) => panic!("{refused:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    assert!(recovered);
    assert!(store.audit(&space()).await.unwrap().agrees());
    store.close().await.unwrap();

    let store = open(folder.path(), &mood);
    for (table, path) in [
        (Table::Control, "kept"),
        (Table::Entry, "lately"),
        (Table::Entry, "after"),
    ] {
        assert!(there(&store, table, path).await, "{path}");
    }
    assert!(!there(&store, Table::Control, "refused").await);
    assert!(!there(&store, Table::Entry, "refused").await);
    assert!(store.audit(&space()).await.unwrap().agrees());
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    fails_and_recovers(FULL).await;
}

#[tokio::test]
async fn a_broken_disk_refuses_writes_and_loses_nothing() {
    fails_and_recovers(BROKEN).await;
}

#[tokio::test]
async fn a_disk_that_cannot_sync_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mood = Mood::default();
    let store = open(folder.path(), &mood);
    store
        .commit(&space(), put(Table::Control, "kept"))
        .await
        .unwrap();
    store
        .commit(&space(), put(Table::Entry, "lately"))
        .await
        .unwrap();
    mood.set(UNSYNCED);
    // Whether this one reached the file is the disk's secret; a fault that says
    // nothing was written must be right.
    let error = store
        .commit(&space(), put(Table::Control, "open"))
        .await
        .unwrap_err();
    if there(&store, Table::Control, "open").await {
        assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
    } else {
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
    assert!(there(&store, Table::Entry, "lately").await);
    mood.set(WELL);
    while store
        .commit(&space(), put(Table::Control, "after"))
        .await
        .is_err()
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(there(&store, Table::Entry, "lately").await);
    assert!(store.audit(&space()).await.unwrap().agrees());
}

#[tokio::test]
async fn entries_whose_second_is_over_on_a_full_disk_stay_readable() {
    let folder = tempfile::tempdir().unwrap();
    let mood = Mood::default();
    let store = open(folder.path(), &mood);
    store
        .commit(&space(), put(Table::Entry, "lately"))
        .await
        .unwrap();
    mood.set(FULL);
    // Writes go on until the file must grow, or the flush of that second fails.
    let mut more = false;
    while store
        .commit(&space(), put(Table::Entry, "more"))
        .await
        .is_ok()
    {
        more = true;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(there(&store, Table::Entry, "lately").await);
    assert_eq!(there(&store, Table::Entry, "more").await, more);
    let error = store.close().await.unwrap_err();
    assert!(
        matches!(error, Error::Full(_)),
        "a close that could not keep its promise says so: {error:?}"
    );
}

/// Somebody to be told.
struct Anyone;

impl Watcher for Anyone {
    fn changed(&self, _: &str, _: u64, _: Table, _: &[u8]) {}
}

#[tokio::test]
async fn what_was_read_before_the_disk_failed_is_not_vouched_for_after() {
    for mood_of_disk in [FULL, BROKEN, UNSYNCED] {
        let folder = tempfile::tempdir().unwrap();
        let mood = Mood::default();
        let store = open(folder.path(), &mood).watched_by(Arc::new(Anyone));
        store
            .commit(&space(), put(Table::Control, "kept"))
            .await
            .unwrap();
        let keys = [Key::new(Table::Control, "kept")];
        let read = || async { store.read_watched(&space(), 0, &keys).await.unwrap().vouch };
        let before = read().await.unwrap();
        assert!(before.holds(Instant::now()));
        mood.set(mood_of_disk);
        store
            .commit(&space(), put(Table::Control, "refused"))
            .await
            .unwrap_err();
        assert!(!before.holds(Instant::now()));
        // What is read from its shelter is told of again.
        let meanwhile = read().await.unwrap();
        mood.set(WELL);
        while store
            .commit(&space(), put(Table::Control, "after"))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!meanwhile.holds(Instant::now()) && !before.holds(Instant::now()));
        assert!(read().await.unwrap().holds(Instant::now()));
    }
}
