//! Scripts that stand still while they run, as they do on a busy machine: time goes
//! on in them, and expiry does not. It does not know why they stand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use riptide_persistence::store::{Action, Batch, Check, Commit, Expiry, Key, Mode, Store, Write};

use super::{patient, redis_faults::space};
use crate::redis::Redis as Server;

/// Stands still for longer than a bucket of the least width, again and again, until
/// it is dropped.
struct Stalling {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Stalling {
    fn of(server: Arc<Server>) -> Self {
        let over = Arc::<AtomicBool>::default();
        let told = over.clone();
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                server.freeze();
                thread::sleep(Duration::from_millis(70));
                server.thaw();
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Stalling {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn touch(key: &Key, after_ms: u64) -> Write {
    let touch = Action::Touch(Expiry::AfterMs(after_ms));
    Write::new(key.clone(), Check::Any, touch)
}

#[tokio::test]
async fn a_record_touched_twice_in_a_script_that_stood_still_keeps_its_value() {
    let server = Arc::new(Server::start());
    let store = patient(&server.url()).await;
    let space = space();
    let stalling = Stalling::of(server.clone());
    for round in 0..20 {
        let key = Key::entry("default", &format!("k{round}"));
        // What is put, and then touched, may end in the middle of it.
        let put = Write::put(key.clone(), "the value");
        let mut writes = match round % 2 {
            0 => vec![put, touch(&key, 1)],
            _ => vec![put.expiring(Expiry::AfterMs(1))],
        };
        // So many that it does not run from one end to the other at once.
        writes.extend((0..800).map(|n| {
            let key = Key::entry("default", &format!("filler {round} {n}"));
            Write::put(key, "filler")
        }));
        if round % 2 == 0 {
            writes.insert(400, touch(&key, 1));
        }
        writes.push(touch(&key, 600_000));
        let batch = Batch {
            mode: Mode::Each,
            ..Batch::of(writes)
        };
        let commit = store.commit(&space, batch).await.unwrap();
        assert!(matches!(commit, Commit::Applied(_)), "{commit:?}");
        let read = store.read(&space, 0, &[key]).await.unwrap();
        let value = read.records[0].as_ref().map(|record| &record.value[..]);
        assert_eq!(value, Some(&b"the value"[..]), "{round}");
    }
    drop(stalling);
    let audit = store.audit(&space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
}
