//! Redis killed while it is written to, with everything acknowledged in its
//! append-only file. It does not know how a service above takes it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use riptide_persistence::store::{
    Batch, Commit, Error, Expiry, Key, Outcome, Space, Store, Write, redis::Redis,
};
use tokio::task::JoinSet;

use super::redis_faults::{answering, connected, failing, put, space};
use crate::{
    ledger::{Deed, Ledger},
    redis::{Options, eventually},
};

const WRITERS: usize = 8;
/// Acknowledged writes before a kill, and after a restart.
const ENOUGH: usize = 400;

/// What the writers of a round have met so far.
#[derive(Default)]
struct Met {
    acknowledged: AtomicUsize,
    faults: AtomicUsize,
    stop: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let mut server = Options::new().aof().start();
    let store = Arc::new(connected(&server.url()).await);
    let space = space();
    let mut ledgers: Vec<Ledger> = (0..WRITERS).map(Ledger::new).collect();
    for round in 0..6 {
        let met = Arc::new(Met::default());
        let mut writers = JoinSet::new();
        for ledger in ledgers.drain(..) {
            let (store, space, met) = (store.clone(), space.clone(), met.clone());
            writers.spawn(async move { write(&store, &space, ledger, &met).await });
        }
        eventually("they write", || met.acknowledged.load(Relaxed) >= ENOUGH);
        server.kill();
        eventually("they notice", || met.faults.load(Relaxed) >= WRITERS);
        // Some go on through the restart: nothing from before it may come after
        // what they write then.
        if round % 2 == 1 {
            server.restart();
            let before = met.acknowledged.load(Relaxed);
            eventually("they write again", || {
                met.acknowledged.load(Relaxed) >= before + ENOUGH
            });
        }
        met.stop.store(true, Relaxed);
        ledgers = writers.join_all().await;
        if round % 2 == 0 {
            failing(&store, |error| matches!(error, Error::Unavailable(_))).await;
            let error = store.commit(&space, put("down")).await.unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error}");
            server.restart();
        }
        answering(&store).await;
        for ledger in &mut ledgers {
            let found = found(&store, &space, ledger).await;
            ledger.settle(found);
        }
        let audit = store.audit(&space).await.unwrap();
        assert!(audit.agrees(), "round {round}: {audit:?}");
    }
}

/// Writes until it is told to stop, and keeps what it was told.
async fn write(store: &Redis, space: &Space, mut ledger: Ledger, met: &Met) -> Ledger {
    while !met.stop.load(Relaxed) {
        let deed = ledger.next();
        match store.commit(space, Batch::of([batched(&deed)])).await {
            Ok(Commit::Applied(applied)) => {
                let [Outcome::Done { version, .. }] = applied.outcomes[..] else {
                    panic!("{applied:?}");
                };
                ledger.acknowledged(deed, version);
                met.acknowledged.fetch_add(1, Relaxed);
                continue;
            }
            Err(Error::OutcomeUnknown(_)) => ledger.unknown(deed),
            // Nothing was written, says the port.
            Err(Error::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
        met.faults.fetch_add(1, Relaxed);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    ledger
}

fn batched(deed: &Deed) -> Write {
    let key = Key::entry("default", &deed.name);
    match &deed.value {
        None => Write::delete(key),
        Some(value) => Write::put(key, value.clone())
            .expiring(deed.ttl_ms.map_or(Expiry::Never, Expiry::AfterMs)),
    }
}

async fn found(store: &Redis, space: &Space, ledger: &Ledger) -> Vec<Option<(u64, String)>> {
    let names = ledger.names();
    let keys: Vec<Key> = names
        .iter()
        .map(|name| Key::entry("default", name))
        .collect();
    let read = store.read(space, 0, &keys).await.unwrap();
    let found = read.records.into_iter().map(|record| {
        let record = record?;
        let value = String::from_utf8(record.value.to_vec()).unwrap();
        Some((record.version, value))
    });
    found.collect()
}
