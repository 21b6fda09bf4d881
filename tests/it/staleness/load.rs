//! Who writes and who reads, and what they note. They do not know what is broken
//! meanwhile, and go on.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use riptide_persistence::proto::v1::{
    BatchGetRequest, BatchSetRequest, Consistency, DeleteRequest, GetRequest,
    InvalidateCacheRequest, Keys, SetCondition, SetEntry, SetRequest,
    invalidate_cache_request::Target,
};
use tokio::time::sleep;
use tonic::{Status, transport::Endpoint};

use super::{
    Era,
    history::{Namespace, STALENESS},
};
use crate::{
    money::Dice,
    server::{Bearer, Clients},
};

/// Keys of one read.
const BATCH: usize = 100;
/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// A connection to one replica.
#[derive(Clone)]
pub struct Line {
    pub clients: Clients,
}

impl Line {
    pub fn new(address: &str, key: &str) -> Self {
        let endpoint = Endpoint::from_shared(address.to_owned()).unwrap();
        let channel = endpoint.timeout(DEADLINE).connect_lazy();
        Self {
            clients: Clients::new(channel, Bearer::new(key)),
        }
    }
}

/// What came of all reads and writes.
#[derive(Default)]
pub struct Judged {
    pub reads: AtomicU64,
    pub near_hits: AtomicU64,
    pub stale: AtomicU64,
    pub worst_us: AtomicU64,
    pub failed: AtomicU64,
    pub writes: AtomicU64,
    pub unknown: AtomicU64,
    pub examples: Mutex<Vec<String>>,
}

impl Judged {
    /// Holds what was read against what was acknowledged, `allowed` long before.
    fn judge(
        &self,
        namespace: &Namespace,
        key: usize,
        seen: Option<i64>,
        began: Instant,
        allowed: Duration,
    ) {
        if seen.is_none() && namespace.is_doomed() {
            return;
        }
        let age = namespace.history(key, |history| history.age(seen, began));
        self.reads.fetch_add(1, Relaxed);
        self.worst_us.fetch_max(age.as_micros() as u64, Relaxed);
        if age > allowed {
            self.stale.fetch_add(1, Relaxed);
            let mut examples = self.examples.lock().unwrap();
            if examples.len() < 10 {
                let history = namespace.history(key, |history| format!("{history:?}"));
                let name = &namespace.keys[key];
                examples.push(format!(
                    "{}:{name}: {seen:?} was {age:?} old, began {began:?}; {history}",
                    namespace.name
                ));
            }
        }
    }
}

/// Reads batches of a namespace until the era is over.
pub async fn read(era: Arc<Era>, line: Line, mut dice: Dice, judged: Arc<Judged>, pause: Duration) {
    let mut cache = line.clients.cache;
    while era.reading.load(Relaxed) {
        let namespace = &era.namespaces[dice.roll(era.namespaces.len() as u64) as usize];
        let first = dice.roll(namespace.keys.len() as u64) as usize;
        let keys: Vec<usize> = (first..first + BATCH)
            .map(|key| key % namespace.keys.len())
            .collect();
        let request = BatchGetRequest {
            namespace: namespace.name.clone(),
            keys: keys
                .iter()
                .map(|key| namespace.keys[*key].clone())
                .collect(),
            ..Default::default()
        };
        let began = Instant::now();
        match cache.batch_get(request).await {
            Ok(answer) => {
                for (key, result) in keys.into_iter().zip(answer.into_inner().results) {
                    if result.status.is_none() {
                        let seen = result.entry.map(|entry| entry.version);
                        judged.judge(namespace, key, seen, began, STALENESS);
                    }
                }
            }
            Err(status) => {
                judged.failed.fetch_add(1, Relaxed);
                settled(&status);
                sleep(Duration::from_millis(5)).await;
            }
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
}

/// Only what a broken store or a flushed tenant makes of a call.
fn settled(status: &Status) {
    use tonic::Code::{
        Aborted, Cancelled, DeadlineExceeded, FailedPrecondition, NotFound, Unauthenticated,
        Unavailable, Unknown,
    };
    assert!(
        matches!(
            status.code(),
            Aborted
                | Cancelled
                | DeadlineExceeded
                | FailedPrecondition
                | NotFound
                | Unauthenticated
                | Unavailable
                | Unknown
        ),
        "{status:?}"
    );
}

/// What a writer knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Absent,
    At(i64),
    /// A call had no answer: it may have been done.
    Open,
}

/// The one writer of a namespace.
struct Writer {
    era: Arc<Era>,
    number: usize,
    lines: Vec<Line>,
    dice: Dice,
    judged: Arc<Judged>,
    known: Vec<Known>,
}

/// Writes to a namespace until the era is over.
pub async fn write(
    era: Arc<Era>,
    number: usize,
    lines: Vec<Line>,
    dice: Dice,
    judged: Arc<Judged>,
) {
    let known = vec![Known::Absent; era.namespaces[number].keys.len()];
    let mut writer = Writer {
        era: era.clone(),
        number,
        lines,
        dice,
        judged,
        known,
    };
    while era.writing.load(Relaxed) {
        writer.deed().await;
    }
    writer.namespace().leave();
}

impl Writer {
    fn namespace(&self) -> &Namespace {
        &self.era.namespaces[self.number]
    }

    /// Any replica.
    fn line(&mut self) -> Clients {
        let replica = self.dice.roll(self.lines.len() as u64) as usize;
        self.lines[replica].clients.clone()
    }

    async fn deed(&mut self) {
        let key = self.dice.roll(self.known.len() as u64) as usize;
        match self.dice.roll(100) {
            0..80 => self.set(key).await,
            80..88 => self.delete(key).await,
            88..95 => self.set_many(key).await,
            95..98 => self.invalidate(&[key, (key + 1) % self.known.len()]).await,
            98 => self.invalidate_prefix().await,
            _ => self.invalidate_all().await,
        }
        let pause = self.dice.roll(4);
        sleep(Duration::from_millis(pause)).await;
    }

    /// Nobody answered, or somebody refused: what there is now is asked before the
    /// key is written again.
    async fn open(&mut self, keys: &[usize], status: &Status) {
        settled(status);
        for &key in keys {
            self.known[key] = Known::Open;
        }
        self.judged.unknown.fetch_add(1, Relaxed);
        sleep(Duration::from_millis(5)).await;
    }

    /// Learns what a key is now, from the store itself.
    async fn learn(&mut self, key: usize) {
        let request = GetRequest {
            namespace: self.namespace().name.clone(),
            key: self.namespace().keys[key].clone(),
            consistency: Consistency::Strong.into(),
            ..Default::default()
        };
        let mut cache = self.line().cache;
        let began = Instant::now();
        match cache.get(request).await {
            Ok(answer) => {
                let seen = answer.into_inner().entry.map(|entry| entry.version);
                self.judged
                    .judge(self.namespace(), key, seen, began, Duration::ZERO);
                self.known[key] = seen.map_or(Known::Absent, Known::At);
                if let Some(version) = seen {
                    self.acknowledged(key, version);
                }
            }
            Err(status) => {
                settled(&status);
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn acknowledged(&mut self, key: usize, version: i64) {
        let now = Instant::now();
        self.namespace()
            .history(key, |history| history.set(version, now));
        self.known[key] = Known::At(version);
    }

    fn entry(&self, key: usize) -> SetEntry {
        let (condition, if_version) = match self.known[key] {
            Known::At(version) => (SetCondition::Unspecified, version),
            Known::Absent | Known::Open => (SetCondition::IfAbsent, 0),
        };
        SetEntry {
            key: self.namespace().keys[key].clone(),
            value: vec![b'v'; 100].into(),
            ttl: Some(prost_types::Duration {
                seconds: 3600,
                nanos: 0,
            }),
            condition: condition.into(),
            if_version,
            ..Default::default()
        }
    }

    async fn set(&mut self, key: usize) {
        if self.known[key] == Known::Open {
            return self.learn(key).await;
        }
        let entry = self.entry(key);
        let request = SetRequest {
            namespace: self.namespace().name.clone(),
            key: entry.key,
            value: entry.value,
            ttl: entry.ttl,
            condition: entry.condition,
            if_version: entry.if_version,
            ..Default::default()
        };
        match self.line().cache.set(request).await {
            Ok(answer) => {
                self.acknowledged(key, answer.into_inner().version);
                self.judged.writes.fetch_add(1, Relaxed);
            }
            Err(status) => self.open(&[key], &status).await,
        }
    }

    /// A burst, from this key on.
    async fn set_many(&mut self, first: usize) {
        let keys: Vec<usize> = (first..first + 40)
            .map(|key| key % self.known.len())
            .filter(|key| self.known[*key] != Known::Open)
            .collect();
        if keys.is_empty() {
            return self.learn(first).await;
        }
        let request = BatchSetRequest {
            namespace: self.namespace().name.clone(),
            entries: keys.iter().map(|key| self.entry(*key)).collect(),
            ..Default::default()
        };
        match self.line().cache.batch_set(request).await {
            Ok(answer) => {
                for (key, result) in keys.into_iter().zip(answer.into_inner().results) {
                    if result.status.is_none() {
                        self.acknowledged(key, result.version);
                        self.judged.writes.fetch_add(1, Relaxed);
                    } else {
                        self.known[key] = Known::Open;
                    }
                }
            }
            Err(status) => self.open(&keys, &status).await,
        }
    }

    async fn delete(&mut self, key: usize) {
        let Known::At(version) = self.known[key] else {
            return self.set(key).await;
        };
        self.namespace().history(key, |history| history.goes());
        let request = DeleteRequest {
            namespace: self.namespace().name.clone(),
            key: self.namespace().keys[key].clone(),
            if_version: version,
            ..Default::default()
        };
        match self.line().cache.delete(request).await {
            Ok(_) => self.gone([key]),
            Err(status) => self.open(&[key], &status).await,
        }
    }

    fn gone(&mut self, keys: impl IntoIterator<Item = usize>) {
        let now = Instant::now();
        for key in keys {
            self.namespace().history(key, |history| history.gone(now));
            if self.known[key] != Known::Open {
                self.known[key] = Known::Absent;
            }
        }
        self.judged.writes.fetch_add(1, Relaxed);
    }

    async fn invalidate(&mut self, keys: &[usize]) {
        let names = keys.iter().map(|key| self.namespace().keys[*key].clone());
        let target = Target::Keys(Keys {
            keys: names.collect(),
        });
        self.flush(keys.to_vec(), target).await;
    }

    async fn invalidate_prefix(&mut self) {
        let prefix = format!("p{}/", self.dice.roll(5));
        let keys = &self.namespace().keys;
        let keys = (0..keys.len()).filter(|key| keys[*key].starts_with(&prefix));
        let keys = keys.collect();
        self.flush(keys, Target::Prefix(prefix)).await;
    }

    async fn invalidate_all(&mut self) {
        let keys = (0..self.known.len()).collect();
        self.flush(keys, Target::WholeNamespace(true)).await;
    }

    async fn flush(&mut self, keys: Vec<usize>, target: Target) {
        for &key in &keys {
            self.namespace().history(key, |history| history.goes());
        }
        let request = InvalidateCacheRequest {
            namespace: self.namespace().name.clone(),
            target: Some(target),
            ..Default::default()
        };
        match self.line().cache.invalidate_cache(request).await {
            Ok(_) => self.gone(keys),
            Err(status) => {
                // It has no condition, and may yet be done.
                self.namespace().doom();
                self.open(&keys, &status).await;
            }
        }
    }
}
