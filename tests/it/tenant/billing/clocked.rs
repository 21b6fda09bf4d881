//! Stores whose clock stands until the test moves it: embedded, and a real
//! redis-server that asks a file for the time. It does not know what time is for.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use riptide_persistence::store::{Handle, embedded::Embedded};
use tempfile::TempDir;

use crate::{
    redis::{answers, end_with_us, free_port},
    server::Kind,
    store::patient,
    tenant::eventually,
};

/// A store and its clock.
pub struct Clocked {
    pub store: Handle,
    clock: Clock,
}

enum Clock {
    Embedded(Arc<AtomicU64>),
    Redis { server: Child, folder: TempDir },
}

impl Clocked {
    pub async fn new(kind: Kind, now_ms: u64) -> Self {
        match kind {
            Kind::Embedded => {
                let now = Arc::new(AtomicU64::new(now_ms));
                let told = now.clone();
                let store = Embedded::in_memory_with_clock(move || told.load(Ordering::SeqCst));
                Self {
                    store: Arc::new(store.unwrap()),
                    clock: Clock::Embedded(now),
                }
            }
            Kind::Redis => {
                let folder = tempfile::tempdir().unwrap();
                write(folder.path(), now_ms);
                let (server, port) = serve(folder.path());
                let store = patient(&format!("redis://127.0.0.1:{port}")).await;
                Self {
                    store: Arc::new(store),
                    clock: Clock::Redis { server, folder },
                }
            }
        }
    }

    /// Lets time pass until this moment.
    pub async fn pass_to(&self, now_ms: u64) {
        match &self.clock {
            Clock::Embedded(now) => now.store(now_ms, Ordering::SeqCst),
            Clock::Redis { folder, .. } => write(folder.path(), now_ms),
        }
        eventually(async || {
            self.store.ping().await.unwrap();
            // Beside a clock that stands, the store's estimate runs on.
            self.store.now_ms().abs_diff(now_ms) < 1000
        })
        .await;
    }
}

impl Drop for Clocked {
    fn drop(&mut self) {
        if let Clock::Redis { server, .. } = &mut self.clock {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn write(folder: &Path, now_ms: u64) {
    let us = i64::try_from(now_ms * 1000).unwrap();
    // In one piece, so that nobody reads half of it.
    let (file, part) = (folder.join("now"), folder.join("part"));
    if !file.exists() {
        fs::write(&part, us.to_ne_bytes()).unwrap();
        fs::rename(&part, &file).unwrap();
        return;
    }
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(&us.to_ne_bytes(), 0).unwrap();
}

/// A redis-server whose clock is the file.
fn serve(folder: &Path) -> (Child, u16) {
    let library = folder.join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tenant/billing/clock.c");
    // The compiler that Rust links with.
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "this test needs the C compiler that Rust links with, as cc"
    );
    end_with_us(folder);
    for _ in 0..20 {
        let port = free_port();
        let mut child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--dir", folder.to_str().unwrap()])
            .env("LD_PRELOAD", &library)
            .env("TEST_CLOCK", folder.join("now"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need redis-server 7.0 or newer: apt-get install redis-server");
        if answers(&mut child, port) {
            return (child, port);
        }
    }
    panic!("redis-server did not start on any of 20 ports");
}

#[tokio::test]
async fn time_stands_until_it_is_moved_and_records_expire_by_it() {
    use riptide_persistence::store::{Action, Batch, Check, Expiry, Key, Space, Table, Write};
    const BEGIN_MS: u64 = 1_800_000_000_000;
    for kind in [Kind::Embedded, Kind::Redis] {
        let clocked = Clocked::new(kind, BEGIN_MS).await;
        let key = Key::new(Table::Request, "r");
        let put = Action::Put {
            value: "v".into(),
            expiry: Expiry::AfterMs(86_400_000),
        };
        let write = Write::new(key.clone(), Check::Any, put);
        let space = Space::registry();
        let there = async || {
            let read = clocked.store.read(&space, 0, std::slice::from_ref(&key));
            read.await.unwrap().records[0].is_some()
        };
        clocked
            .store
            .commit(&space, Batch::of([write]))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        clocked.pass_to(BEGIN_MS + 86_399_000).await;
        assert!(there().await, "{kind:?}");
        clocked.pass_to(BEGIN_MS + 86_400_001).await;
        assert!(!there().await, "{kind:?}");
    }
}
