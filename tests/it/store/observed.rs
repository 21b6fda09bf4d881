//! The decorator that counts, and the deadline that knows of commits. It does
//! not know how a backend works.

use std::{future::pending, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use riptide_persistence::store::{
    Audit, Batch, Calls, Changes, Check, Commit, Counters, Cursor, Elapsed, Gauges, Handle, Health,
    Incarnation, Keep, Key, Lease, Leased, Meters, Notes, Observed, Page, Pin, PinnedPage, Pinning,
    Position, Query, Read, Recall, Recalled, Reclaim, Reclaimed, Result, Row, Space, Store, Table,
    Tallied, Tally, Unit, Usage, Write, deadline, embedded::Embedded, with_deadline,
};
use tokio::time::Instant;

/// A store whose commits and reads never come back.
struct Stuck;

#[async_trait]
impl Store for Stuck {
    async fn read(&self, _: &Space, _: u64, _: &[Key]) -> Result<Read> {
        pending().await
    }
    async fn read_lingering(&self, _: &Space, _: u64, _: &[Key]) -> Result<Read> {
        pending().await
    }
    async fn commit(&self, _: &Space, _: Batch) -> Result<Commit> {
        pending().await
    }
    async fn list(&self, _: &Space, _: Query) -> Result<Page> {
        pending().await
    }
    async fn usage(&self, _: &Space) -> Result<Usage> {
        pending().await
    }
    async fn meters(&self, _: &Space, _: Unit) -> Result<Meters> {
        pending().await
    }
    async fn tally(&self, _: &Space, _: Tally) -> Result<Tallied> {
        pending().await
    }
    async fn rows(&self, _: &Space, _: &[Bytes]) -> Result<Vec<Row>> {
        pending().await
    }
    async fn recall(&self, _: Recall) -> Result<Recalled> {
        pending().await
    }
    async fn lease(&self, _: &Space, _: Lease) -> Result<Leased> {
        pending().await
    }
    async fn audit(&self, _: &Space) -> Result<Audit> {
        pending().await
    }
    async fn reclaim(
        &self,
        _: &Space,
        _: Reclaim,
        _: Option<Cursor>,
        _: usize,
    ) -> Result<Reclaimed> {
        pending().await
    }
    async fn pin(&self, _: &Space, _: Keep) -> Result<Pinning> {
        pending().await
    }
    async fn pinned(
        &self,
        _: &[Pin],
        _: &[Table],
        _: Option<Cursor>,
        _: usize,
    ) -> Result<PinnedPage> {
        pending().await
    }
    async fn unpin(&self, _: &Pin) -> Result<()> {
        pending().await
    }
    async fn changes(&self, _: Option<Position>) -> Result<Changes> {
        pending().await
    }
    async fn notes(&self, _: &Space, _: Option<Position>, _: usize) -> Result<Notes> {
        pending().await
    }
    async fn ping(&self) -> Result<Health> {
        pending().await
    }
    async fn gauges(&self) -> Result<Gauges> {
        pending().await
    }
    fn now_ms(&self) -> u64 {
        7
    }
    fn backend(&self) -> &'static str {
        "stuck"
    }
    async fn close(&self) -> Result<()> {
        pending().await
    }
}

fn watched(store: impl Store) -> (Handle, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    (
        Arc::new(Observed::new(Arc::new(store), counters.clone())),
        counters,
    )
}

fn space() -> Space {
    Space::tenant(Incarnation::random())
}

fn put() -> Batch {
    Batch::of([Write::put(Key::new(Table::Entry, "k"), "v")])
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(20)
}

#[tokio::test]
async fn every_call_is_counted_by_its_method() {
    let (store, counters) = watched(Embedded::in_memory().unwrap());
    let space = space();
    assert_eq!(counters.calls(), Calls::default());
    store.commit(&space, put()).await.unwrap();
    assert_eq!(
        counters.calls(),
        Calls {
            commit: 1,
            ..Calls::default()
        }
    );
    store.read(&space, 0, &[]).await.unwrap();
    let refused = Batch::of([Write::check(Key::new(Table::Entry, "k"), Check::Absent)]);
    store.commit(&space, refused).await.unwrap();
    let query = Query {
        table: Table::Job,
        generation: 0,
        prefix: "".into(),
        after: None,
        limit: 1,
        value_bytes: 0,
    };
    store.list(&space, query).await.unwrap();
    store.usage(&space).await.unwrap();
    store.meters(&space, Unit::Minute).await.unwrap();
    store.tally(&space, Tally::default()).await.unwrap();
    store.rows(&space, &[]).await.unwrap();
    let recall = Recall {
        spaces: vec![space.clone()],
        limit: 1,
        ..Recall::default()
    };
    store.recall(recall).await.unwrap();
    let lease = Lease {
        window: "w".into(),
        limit: 1,
        span_ms: 60_000,
        want: 1,
        least: 1,
        share: 1,
        hold_ms: 1,
        ..Lease::default()
    };
    store.lease(&space, lease).await.unwrap();
    store.audit(&space).await.unwrap();
    store
        .reclaim(&space, Reclaim::Orphans { below: 0 }, None, 1)
        .await
        .unwrap();
    let Pinning::Pinned(pin) = store.pin(&space, Keep::default()).await.unwrap() else {
        panic!("nobody has pinned it")
    };
    let pins = std::slice::from_ref(&pin);
    store.pinned(pins, &Table::ALL, None, 1).await.unwrap();
    store.unpin(&pin).await.unwrap();
    store.changes(None).await.unwrap();
    store.notes(&space, None, 1).await.unwrap();
    store.ping().await.unwrap();
    let before = counters.calls();
    store.close().await.unwrap();
    let each = Calls {
        read: 1,
        commit: 2,
        list: 1,
        usage: 1,
        meters: 1,
        tally: 1,
        rows: 1,
        recall: 1,
        lease: 1,
        audit: 1,
        reclaim: 1,
        pin: 1,
        pinned: 1,
        unpin: 1,
        changes: 1,
        notes: 1,
        ping: 1,
        close: 0,
    };
    assert_eq!(before, each);
    assert_eq!(
        counters.calls().since(before),
        Calls {
            close: 1,
            ..Calls::default()
        }
    );
}

#[tokio::test]
async fn several_share_their_counters() {
    let counters = Arc::new(Counters::default());
    let store: Handle = Arc::new(Embedded::in_memory().unwrap());
    for _ in 0..3 {
        Observed::new(store.clone(), counters.clone())
            .read(&space(), 0, &[])
            .await
            .unwrap();
    }
    assert_eq!(
        counters.calls(),
        Calls {
            read: 3,
            ..Calls::default()
        }
    );
    assert_eq!(Observed::new(store, counters).backend(), "embedded");
}

#[tokio::test]
async fn a_commit_on_its_way_is_known_when_time_runs_out() {
    let (store, _) = watched(Stuck);
    let space = space();
    let elapsed = with_deadline(soon(), store.commit(&space, put()))
        .await
        .unwrap_err();
    assert_eq!(
        elapsed,
        Elapsed {
            commit_in_flight: true
        }
    );
    let elapsed = with_deadline(soon(), store.read(&space, 0, &[]))
        .await
        .unwrap_err();
    assert_eq!(
        elapsed,
        Elapsed {
            commit_in_flight: false
        }
    );
    let both = async { tokio::join!(store.read(&space, 0, &[]), store.commit(&space, put())) };
    assert_eq!(
        with_deadline(soon(), both).await.unwrap_err(),
        Elapsed {
            commit_in_flight: true
        }
    );
}

#[tokio::test]
async fn a_commit_that_wrote_nothing_leaves_nothing_open() {
    let (store, _) = watched(Embedded::in_memory().unwrap());
    let space = space();
    let refused = Batch::of([Write::check(Key::new(Table::Entry, "k"), Check::Present)]);
    let then_stuck = async {
        assert!(matches!(
            store.commit(&space, refused).await,
            Ok(Commit::Refused(_))
        ));
        assert!(
            store
                .commit(
                    &space,
                    Batch::of([Write::put(Key::new(Table::Entry, ""), "v")])
                )
                .await
                .is_err()
        );
        pending::<()>().await;
    };
    assert_eq!(
        with_deadline(soon(), then_stuck).await,
        Err(Elapsed {
            commit_in_flight: false
        })
    );
    let then_stuck = async {
        assert!(matches!(
            store.commit(&space, put()).await,
            Ok(Commit::Applied(_))
        ));
        pending::<()>().await;
    };
    assert_eq!(
        with_deadline(Instant::now() + Duration::from_secs(1), then_stuck).await,
        Err(Elapsed {
            commit_in_flight: true
        }),
        "it was written, though its caller was never told"
    );
}

#[tokio::test]
async fn work_is_done_in_time_or_not_begun() {
    let far = Instant::now() + Duration::from_secs(60);
    assert_eq!(
        with_deadline(far, async { deadline() }).await,
        Ok(Some(far))
    );
    assert_eq!(deadline(), None);
    let begun = with_deadline(Instant::now(), async { panic!("begun after its deadline") });
    assert_eq!(
        begun.await,
        Err::<(), _>(Elapsed {
            commit_in_flight: false
        })
    );
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_call_is_traced_with_its_outcome_and_without_secrets() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let (store, _) = watched(Embedded::in_memory().unwrap());
    let space = space();
    let key = || Key::new(Table::Entry, "canary-key");
    let put = Batch::of([Write::put(key(), "canary-value").when(Check::Absent)]);
    store.commit(&space, put.clone()).await.unwrap();
    store.commit(&space, put).await.unwrap();
    store.read(&space, 0, &[key()]).await.unwrap();
    store.close().await.unwrap();
    store.read(&space, 0, &[key()]).await.unwrap_err();
    drop(guard);

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let calls: Vec<(String, String)> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["fields"]["message"] == "store call")
        .map(|line| {
            let fields = &line["fields"];
            assert!(fields["latency_us"].is_u64(), "{line}");
            assert_eq!(fields["backend"], "embedded");
            let text = |name: &str| fields[name].as_str().unwrap().to_owned();
            (text("method"), text("outcome"))
        })
        .collect();
    let expected = [
        ("commit", "applied"),
        ("commit", "refused"),
        ("read", "ok"),
        ("close", "ok"),
        ("read", "unavailable"),
    ];
    assert_eq!(
        calls,
        expected.map(|(method, outcome)| (method.into(), outcome.into()))
    );
    assert!(!text.contains("canary"), "{text}");
}
