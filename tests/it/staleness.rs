//! Reads through three replicas are held against what was acknowledged: none may be
//! older than what was acknowledged half a second before it began, whatever happens
//! to Redis, to the replicas and to what tells them of changes. Each key has one
//! writer, so its versions say what is newer. The run in the tests is short; `make
//! staleness SEED=...` makes it long. It does not know how anything is kept near.

#![allow(clippy::print_stdout)] // its tables are read by people

mod faults;
mod history;
mod latency;
mod load;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use riptide_persistence::proto::v1::{CreateTenantRequest, GetCacheStatsRequest, Quotas};
use tokio::{runtime::Runtime, task::JoinSet};

use self::{
    faults::Fault,
    history::Namespace,
    latency::Latencies,
    load::{Judged, Line},
};
use crate::{
    cli::{Folder, Serving},
    money::{Dice, form, row, show},
    redis::{Options, Redis},
    server::ADMIN_KEY,
};

/// Replicas on the one Redis.
const REPLICAS: usize = 3;
/// Namespaces, each with a writer of its own.
const NAMESPACES: usize = 8;
/// Keys of a namespace.
const KEYS: usize = 125;

/// How much is done.
#[derive(Debug)]
struct Extent {
    seed: u64,
    /// Keys that are read and held against what was written.
    reads: u64,
    faults: u64,
    /// Writes whose invalidation is timed.
    probes: usize,
}

impl Extent {
    /// From the environment, where it says anything.
    fn read() -> Self {
        let told = |name: &str| {
            let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
            Some(
                text.parse()
                    .unwrap_or_else(|_| panic!("{name}: {text} is no number")),
            )
        };
        Self {
            seed: told("RIPTIDE_SEED").unwrap_or(4),
            reads: told("RIPTIDE_READS").unwrap_or(form(20_000, 10_000_000)),
            faults: told("RIPTIDE_FAULTS").unwrap_or(form(Fault::KINDS as u64, 60)),
            probes: form(40, 3_000),
        }
    }
}

/// One life of the database, from a flush to the next: a tenant, and what was written
/// for it.
struct Era {
    tenant_id: String,
    key: String,
    namespaces: Vec<Namespace>,
    /// Whether writers go on.
    writing: AtomicBool,
    /// Whether readers go on.
    reading: AtomicBool,
}

/// Three replicas on a Redis.
struct Fleet<'a> {
    redis: Redis,
    replicas: Vec<Serving<'a>>,
    folders: &'a [Folder],
}

impl<'a> Fleet<'a> {
    /// The first hears of changes through so small a channel that it often lags.
    fn folders(redis: &Redis) -> Vec<Folder> {
        let folder = |replica: usize| {
            let folder = Folder::new();
            let buffer = if replica == 0 { 16 } else { 8192 };
            folder.write(
                "persistence.yml",
                format!(
                    "persistence: {{redis: {{url: '{}', command_timeout: 1s, invalidation_buffer: {buffer}}}, \
                     auth: {{admin_key: '{ADMIN_KEY}'}}}}",
                    redis.url()
                ),
            );
            folder
        };
        (0..REPLICAS).map(folder).collect()
    }

    fn lines(&self, key: &str) -> Vec<Line> {
        let lines = self.replicas.iter();
        lines
            .map(|serving| Line::new(&serving.address, key))
            .collect()
    }

    /// What the replicas said on stderr.
    fn logs(&self) -> String {
        let read = |folder: &Folder| std::fs::read_to_string(folder.path("stderr")).unwrap();
        self.folders.iter().map(read).collect()
    }
}

impl Era {
    /// A new tenant, as soon as one can be made.
    async fn begin(number: usize, admin: &Line) -> Arc<Self> {
        let tenant_id = format!("era-{number}");
        let until = Instant::now() + Duration::from_secs(60);
        let unlimited = Quotas {
            memory_bytes: Some(-1),
            cache_entries: Some(-1),
            storage_bytes: Some(-1),
            operations_per_minute: Some(-1),
            data_transfer_bytes: Some(-1),
            active_sessions: Some(-1),
            ..Default::default()
        };
        let key = loop {
            let request = CreateTenantRequest {
                tenant_id: tenant_id.clone(),
                plan: "enterprise".into(),
                quotas: Some(unlimited.clone()),
                ..Default::default()
            };
            match admin.clients.tenant.clone().create_tenant(request).await {
                Ok(created) => break created.into_inner().secret,
                Err(status) => assert!(Instant::now() < until, "no tenant: {status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Arc::new(Self {
            tenant_id,
            key,
            namespaces: (0..NAMESPACES).map(|n| Namespace::new(n, KEYS)).collect(),
            writing: AtomicBool::new(true),
            reading: AtomicBool::new(true),
        })
    }

    /// Begins to write and to read, with such a pause between reads.
    fn load(
        self: &Arc<Self>,
        fleet: &Fleet,
        judged: &Arc<Judged>,
        seed: u64,
        pause: Duration,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for number in 0..self.namespaces.len() {
            let dice = Dice::new(seed as usize * 1000 + number);
            let lines = fleet.lines(&self.key);
            tasks.spawn(load::write(
                self.clone(),
                number,
                lines,
                dice,
                judged.clone(),
            ));
        }
        for number in 0..2 * REPLICAS {
            let dice = Dice::new(seed as usize * 1000 + 500 + number);
            let line = fleet.lines(&self.key).swap_remove(number % REPLICAS);
            tasks.spawn(load::read(self.clone(), line, dice, judged.clone(), pause));
        }
        tasks
    }

    /// What a flush of the database leaves: nothing, from this moment on. Its writers
    /// have gone before.
    fn flushed(&self, flush: impl FnOnce()) {
        for namespace in &self.namespaces {
            namespace.each(|history| history.goes());
        }
        flush();
        let gone = Instant::now();
        for namespace in &self.namespaces {
            namespace.each(|history| history.gone(gone));
        }
    }

    /// Keys answered from memory, as the replicas count them: up to the last second.
    async fn near_hits(&self, line: &Line) -> u64 {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let request = GetCacheStatsRequest {
                tenant_id: self.tenant_id.clone(),
                ..Default::default()
            };
            match line.clients.cache.clone().get_cache_stats(request).await {
                Ok(stats) => return stats.into_inner().stats.unwrap().near_hits as u64,
                Err(status) => assert!(Instant::now() < until, "no statistics: {status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A run: eras one after another, faults in each, until there is enough.
struct Run<'a> {
    fleet: Fleet<'a>,
    runtime: Runtime,
    extent: Extent,
    dice: Dice,
    judged: Arc<Judged>,
    faults: Vec<Fault>,
}

impl Run<'_> {
    fn enough(&self) -> bool {
        self.faults.len() as u64 >= self.extent.faults
            && self.judged.reads.load(Relaxed) >= self.extent.reads
    }

    /// One era. Whether there is to be another.
    fn era(&mut self, number: usize) -> bool {
        let (era, tasks) = {
            let _inside = self.runtime.enter();
            let admin = self.fleet.lines(ADMIN_KEY);
            let era = self.runtime.block_on(Era::begin(number, &admin[1]));
            let seed = self.extent.seed + number as u64;
            let pause = Duration::ZERO;
            (
                era.clone(),
                era.load(&self.fleet, &self.judged, seed, pause),
            )
        };
        let mut flushed = false;
        while !flushed {
            std::thread::sleep(Duration::from_millis(150 + self.dice.roll(850)));
            if self.enough() {
                break;
            }
            let fault = Fault::roll(&mut self.dice, self.faults.len());
            self.faults.push(fault);
            if fault != Fault::Flush {
                fault.happen(&mut self.fleet);
                continue;
            }
            era.writing.store(false, Relaxed);
            while era.namespaces.iter().any(Namespace::is_written) {
                std::thread::sleep(Duration::from_millis(5));
            }
            self.count_near(&era);
            era.flushed(|| fault.happen(&mut self.fleet));
            // Replicas remember the tenant for a while; what they kept of it is gone.
            std::thread::sleep(Duration::from_millis(1500));
            flushed = true;
        }
        era.writing.store(false, Relaxed);
        era.reading.store(false, Relaxed);
        self.runtime.block_on(tasks.join_all());
        if !flushed {
            self.count_near(&era);
        }
        !self.enough()
    }

    fn count_near(&self, era: &Era) {
        let _inside = self.runtime.enter();
        let line = self.fleet.lines(&era.key).swap_remove(1);
        let near = self.runtime.block_on(era.near_hits(&line));
        self.judged.near_hits.fetch_add(near, Relaxed);
    }
}

#[test]
fn no_read_is_older_than_what_was_acknowledged_half_a_second_before() {
    let extent = Extent::read();
    println!("\nstaleness: {extent:?}");
    // What was acknowledged is written before it is, and so survives a kill.
    let redis = Options::new()
        .with(&["--appendonly", "yes", "--appendfsync", "no"])
        .start();
    let folders = Fleet::folders(&redis);
    let replicas = folders.iter().map(|folder| folder.serve(&[])).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut run = Run {
        fleet: Fleet {
            redis,
            replicas,
            folders: &folders,
        },
        runtime,
        dice: Dice::new(extent.seed as usize),
        extent,
        judged: Arc::default(),
        faults: Vec::new(),
    };
    let calm = latency::measure(&run, false);
    let busy = latency::measure(&run, true);
    let began = Instant::now();
    let mut number = 1;
    while run.era(number) {
        number += 1;
    }
    run.report(
        &[("calm", calm), ("under writes and reads", busy)],
        began.elapsed(),
    );

    let judged = &run.judged;
    assert_eq!(
        judged.stale.load(Relaxed),
        0,
        "{:#?}",
        judged.examples.lock().unwrap()
    );
    assert!(
        judged.near_hits.load(Relaxed) > 0,
        "nothing was answered from memory"
    );
    let logs = run.fleet.logs();
    assert!(!logs.contains("panicked"), "{logs}");
}

impl Run<'_> {
    fn report(&self, latencies: &[(&str, Latencies)], took: Duration) {
        let judged = &self.judged;
        let count = |of: &AtomicU64| of.load(Relaxed);
        let worst = Duration::from_micros(count(&judged.worst_us));
        show(
            &format!(
                "Reads through {REPLICAS} replicas, seed {}",
                self.extent.seed
            ),
            ["what", "count"],
            vec![
                row([&"keys read and judged", &count(&judged.reads)]),
                row([
                    &"  of them near hits, as the replicas count them",
                    &count(&judged.near_hits),
                ]),
                row([&"  stale: older than 500 ms", &count(&judged.stale)]),
                row([
                    &"  worst age, ms",
                    &format!("{:.1}", worst.as_secs_f64() * 1e3),
                ]),
                row([
                    &"calls that failed while something was broken",
                    &count(&judged.failed),
                ]),
                row([&"writes acknowledged", &count(&judged.writes)]),
                row([&"writes of unknown outcome", &count(&judged.unknown)]),
                row([&"seconds", &took.as_secs()]),
            ],
        );
        let times = |kind| {
            self.faults
                .iter()
                .filter(|fault| fault.kind() == kind)
                .count()
        };
        let logs = self.fleet.logs();
        let said = |words: &str| logs.matches(words).count();
        show(
            "Faults, and why tracked connections were given up",
            ["what", "count"],
            Fault::WORDS
                .iter()
                .enumerate()
                .map(|(kind, words)| row([words, &times(kind)]))
                .chain([
                    row([
                        &"given up: changes came too fast",
                        &said("faster than they were taken in"),
                    ]),
                    row([
                        &"given up: the database was flushed",
                        &said("the database was flushed"),
                    ]),
                    row([&"given up: no answer", &said("it has stopped answering")]),
                    row([
                        &"given up: told no more, for any reason",
                        &said("changes were told no more"),
                    ]),
                ])
                .collect(),
        );
        show(
            "From an acknowledgement at one replica until a read at another sees it, ms",
            ["when", "writes", "p50", "p99", "max"],
            latencies
                .iter()
                .map(|(when, latencies)| {
                    let ms = |of: f64| format!("{:.2}", latencies.quantile(of).as_secs_f64() * 1e3);
                    row([when, &latencies.count(), &ms(0.5), &ms(0.99), &ms(1.0)])
                })
                .collect(),
        );
    }
}
