//! How soon a read through one replica sees what another has acknowledged, where
//! nothing is broken. It does not know by which way.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use riptide_persistence::proto::v1::{GetRequest, SetRequest};

use super::{Era, REPLICAS, Run, load::Line};
use crate::server::ADMIN_KEY;

/// What was measured, in rising order.
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn quantile(&self, of: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0[(last as f64 * of).ceil() as usize]
    }
}

/// What others wait between reads: a machine that is not at its end.
const PAUSE: Duration = Duration::from_millis(20);

/// Writes through one replica and reads through another that has it in memory, with
/// or without others that write and read.
pub fn measure(run: &Run, busy: bool) -> Latencies {
    let _inside = run.runtime.enter();
    let admin = run.fleet.lines(ADMIN_KEY);
    let number = if busy { 9_002 } else { 9_001 };
    let era = run.runtime.block_on(Era::begin(number, &admin[0]));
    let tasks = busy.then(|| era.load(&run.fleet, &run.judged, run.extent.seed, PAUSE));
    let lines = run.fleet.lines(&era.key);
    let mut found = run.runtime.block_on(async {
        let mut found = Vec::new();
        for probe in 0..run.extent.probes {
            let (at, from) = (probe % REPLICAS, (probe + 1) % REPLICAS);
            let key = format!("k{}", probe % 50);
            found.push(once(&lines[at], &lines[from], &key).await);
        }
        found
    });
    era.writing.store(false, Relaxed);
    era.reading.store(false, Relaxed);
    if let Some(tasks) = tasks {
        run.runtime.block_on(tasks.join_all());
    }
    found.sort_unstable();
    Latencies(found)
}

async fn once(at: &Line, from: &Line, key: &str) -> Duration {
    let (mut writer, mut reader) = (at.clients.cache.clone(), from.clients.cache.clone());
    let get = || GetRequest {
        namespace: "probe".into(),
        key: key.to_owned(),
        ..Default::default()
    };
    // Read often enough to be kept.
    for _ in 0..4 {
        let _ = reader.get(get()).await;
    }
    let set = || SetRequest {
        namespace: "probe".into(),
        key: key.to_owned(),
        value: vec![b'v'; 100].into(),
        ..Default::default()
    };
    // A call may take too long on a machine that is busy; then it is made again.
    let (version, acknowledged) = loop {
        if let Ok(answer) = writer.set(set()).await {
            break (answer.into_inner().version, Instant::now());
        }
    };
    loop {
        let answer = reader.get(get()).await;
        let entry = answer.ok().and_then(|answer| answer.into_inner().entry);
        if entry.is_some_and(|entry| entry.version >= version) {
            return acknowledged.elapsed();
        }
    }
}
