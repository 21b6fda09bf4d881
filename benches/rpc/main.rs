//! How fast the service answers, beside servers that do nothing with the same
//! messages: the twins. All are measured in turn in the same run, round after
//! round, so that a busy machine slows them alike; what is compared is the
//! median over the rounds of their ratios. It does not judge: aims are printed
//! beside the figures.

#![allow(clippy::print_stdout, unreachable_pub, missing_docs)]

mod access;
mod checkpoint;
mod idle;
mod invalidate;
mod line;
mod load;
mod noisy;
mod process;
#[path = "../../tests/it/redis.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic
)]
mod redis;
mod reload;
mod report;
mod scenario;
#[path = "../../src/store/redis/script.rs"]
#[allow(dead_code)] // its names are what is wanted here
mod script;
mod slow;
mod tls;
#[path = "../../src/server/turn.rs"]
#[allow(unused_imports, dead_code)] // its tests run with the server's
mod turn;
mod twin;

use std::{fs, path::Path, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;

use load::{Pressure, Tally, Work};
use process::{On, Process, resident_mib};
use report::{Report, Sample, Subject};
use scenario::Peaks;

/// Measures the server against twins that do nothing.
#[derive(Parser)]
struct Arguments {
    /// Fewer and shorter rounds: about 40 seconds, for a first impression.
    #[arg(long)]
    quick: bool,
    /// Callers at once in the closed loops.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Rounds; every server is measured once in each.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only this part, beside or instead of the closed loops; can be given many times.
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Entries of 1 KiB that a checkpoint is taken of.
    #[arg(long, default_value_t = 1_000_000)]
    entries: usize,
    #[command(flatten)]
    choice: Choice,
    /// Serve as a twin instead: `default` or `per-core`.
    #[arg(long, value_name = "NAME")]
    twin: Option<String>,
    /// Passed by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The closed loops.
    Peaks,
    /// A tenant beside a noisy one.
    Noisy,
    /// Tenants that are idle.
    Idle,
    /// Invalidations of a hundred and of a million entries: only where it is named,
    /// as it takes some minutes.
    Invalidate,
    /// A load while the configuration is reloaded: only where it is named.
    Reload,
    /// A load while a checkpoint is taken: only where it is named.
    Checkpoint,
    /// What it costs to tell of calls: only where it is named.
    Access,
    /// Near hits in TLS, beside the same in the clear: only where it is named.
    Tls,
}

/// Part of the closed loops, and nothing else: for a profiler.
#[derive(clap::Args)]
struct Choice {
    /// Only the closed loops whose name holds this.
    #[arg(long, value_name = "NAME")]
    peak: Option<String>,
    /// Only these servers; can be given many times.
    #[arg(long, value_enum)]
    on: Vec<Subject>,
}

impl Choice {
    fn is_all(&self) -> bool {
        self.peak.is_none() && self.on.is_empty()
    }

    fn has_peak(&self, name: &str) -> bool {
        self.peak.as_deref().is_none_or(|part| name.contains(part))
    }

    fn has(&self, subject: Subject) -> bool {
        self.on.is_empty() || self.on.contains(&subject)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(name) = &arguments.twin {
        return twin::serve(name);
    }
    let rounds = arguments
        .rounds
        .unwrap_or(if arguments.quick { 2 } else { 7 });
    let pressure = Pressure {
        callers: arguments.callers,
        rate: None,
        warm_up: Duration::from_millis(if arguments.quick { 150 } else { 250 }),
        time: Duration::from_millis(if arguments.quick { 600 } else { 1000 }),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder)?;
    let mut report = Report {
        rounds,
        callers: pressure.callers,
        ..Report::default()
    };
    measure(&mut report, pressure, &arguments, &folder)?;
    print!("{}", report.table());
    let path = folder.join("rpc.json");
    fs::write(&path, report.json()?)?;
    println!(
        "\nwritten to {}",
        path.strip_prefix(env!("CARGO_MANIFEST_DIR"))
            .unwrap_or(&path)
            .display()
    );
    Ok(())
}

fn measure(
    report: &mut Report,
    pressure: Pressure,
    arguments: &Arguments,
    folder: &Path,
) -> Result<()> {
    let (rounds, choice) = (report.rounds, &arguments.choice);
    let whole = choice.is_all() && arguments.part.is_empty();
    let wants = |part| whole || arguments.part.contains(&part);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let log = folder.join("servers.log");
    let _ = fs::remove_file(&log);
    let redis = redis::Redis::start();
    let url = redis.url();
    let scratch = tempfile::tempdir()?;
    let on_redis = Process::server(&On::Redis(&url), scratch.path(), &log)?;
    let on_file = Process::server(
        &On::Embedded(&scratch.path().join("store")),
        scratch.path(),
        &log,
    )?;
    let far = scratch.path().join("far");
    fs::create_dir_all(&far)?;
    let on_redis_far = Process::server(&On::RedisFar(&url), &far, &log)?;
    let default = Process::twin("default")?;
    let per_core = Process::twin("per-core")?;
    let redis_pid = slow::pid(&redis)?;

    let subjects = [
        (Subject::Redis, &on_redis, Some(redis_pid)),
        (Subject::RedisFar, &on_redis_far, Some(redis_pid)),
        (Subject::Embedded, &on_file, None),
        (Subject::DefaultTwin, &default, None),
        (Subject::PerCoreTwin, &per_core, None),
    ];
    let real = [(Subject::Redis, &on_redis), (Subject::Embedded, &on_file)];
    if wants(Part::Peaks) || !choice.is_all() {
        peaks(report, &subjects, pressure, choice)?;
    }
    if wants(Part::Noisy) {
        for (subject, process) in real {
            let beside = noisy::measure(process.address, rounds, pressure);
            report.noisy.insert(subject, beside?);
        }
    }
    if wants(Part::Idle) {
        report.idle = idle::measure(scratch.path(), &log, pressure)?;
    }
    if arguments.part.contains(&Part::Invalidate) {
        report.invalidations = invalidate::measure(scratch.path(), &log)?;
    }
    if arguments.part.contains(&Part::Reload) {
        let reloads = reload::measure(scratch.path(), &log, rounds, pressure)?;
        report.reloads = Some(reloads);
    }
    if arguments.part.contains(&Part::Checkpoint) {
        let (scratch, entries) = (scratch.path(), arguments.entries);
        let taken = checkpoint::measure(scratch, &log, rounds, pressure, entries)?;
        report.checkpoints = Some(taken);
    }
    if arguments.part.contains(&Part::Access) {
        report.access = Some(access::measure(scratch.path(), rounds, pressure)?);
    }
    if arguments.part.contains(&Part::Tls) {
        report.tls = Some(tls::measure(scratch.path(), &log, rounds, pressure)?);
    }
    if !whole {
        return Ok(());
    }

    for (subject, process) in real {
        let (latency, many) = runtime.block_on(async {
            Ok::<_, anyhow::Error>((
                created(process, 200).await?,
                scenario::many_tenants(process.address).await?,
            ))
        })?;
        report.create_tenant.insert(subject, latency);
        let rate = report.median_rate("Get 1 KiB", subject) * OPEN_SHARE;
        let open = Pressure {
            callers: 50,
            rate: Some(rate),
            time: pressure.time * 3,
            ..pressure
        };
        report.many_tenants.insert(
            subject,
            Sample::of(&load::run(process.address, &many, open, &[])?),
        );
    }

    starts(report, rounds, &url, scratch.path(), &log)?;
    on_redis.stop()?;
    on_redis_far.stop()?;
    on_file.stop()
}

/// The closed loops, on every subject in turn; the last of a subject is a process
/// that works for it.
fn peaks(
    report: &mut Report,
    subjects: &[(Subject, &Process, Option<u32>)],
    pressure: Pressure,
    choice: &Choice,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut works = Vec::new();
    for (subject, process, servant) in subjects.iter().filter(|chosen| choice.has(chosen.0)) {
        let real = subject.is_real();
        let peaks = runtime.block_on(async {
            if !real {
                return Peaks::prepare(process.address, scenario::NO_KEY, false).await;
            }
            // Two of them share a Redis.
            let name = |tenant: &str| format!("{tenant}-{}", process.pid());
            let plain = scenario::create_tenant(process.address, &name("plain")).await?;
            let sealed = scenario::create_sealed(process.address, &name("sealed")).await?;
            let sealed = Peaks::prepare(process.address, &sealed, true).await?;
            let plain = Peaks::prepare(process.address, &plain, true).await?;
            Ok(plain.beside(sealed))
        });
        let watched: Vec<u32> = [std::process::id(), process.pid()]
            .into_iter()
            .chain(*servant)
            .collect();
        works.push((
            *subject,
            process.address,
            watched,
            peaks.with_context(|| format!("preparing {subject:?}"))?,
        ));
    }
    for round in 0..report.rounds {
        for (name, pick) in PEAKS.into_iter().filter(|(name, _)| choice.has_peak(name)) {
            // There and back again: no server always follows the same one.
            let mut order: Vec<_> = works.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for (subject, address, watched, peaks) in order {
                let Some(work) = pick(peaks) else {
                    continue;
                };
                let tally = load::run(*address, work, pressure, watched)
                    .with_context(|| format!("{name} on {subject:?}"))?;
                report
                    .peaks
                    .entry(name)
                    .or_default()
                    .entry(*subject)
                    .or_default()
                    .push(Sample::of(&tally));
            }
        }
        println!("round {} of {} is done", round + 1, report.rounds);
    }
    Ok(())
}

/// Of the peak of Get, what the open loop asks for.
const OPEN_SHARE: f64 = 0.4;

type Pick = fn(&Peaks) -> Option<&Arc<Work>>;
const PEAKS: [(&str, Pick); 8] = [
    (report::GET, |peaks| Some(&peaks.get)),
    (report::SEALED_GET, |peaks| {
        peaks.sealed.as_ref().map(|(get, _)| get)
    }),
    (report::SET, |peaks| Some(&peaks.set)),
    (report::SEALED_SET, |peaks| {
        peaks.sealed.as_ref().map(|(_, set)| set)
    }),
    ("Get miss", |peaks| Some(&peaks.miss)),
    ("BatchGet 100 x 100 B", |peaks| Some(&peaks.batch)),
    (report::CUSTOM, |peaks| Some(&peaks.consume)),
    (report::OPERATIONS, |peaks| Some(&peaks.consume_operations)),
];

/// The latency of creating tenants one after another.
async fn created(process: &Process, count: usize) -> Result<Sample> {
    let mut line = line::Line::open(process.address).await?;
    let mut latency = hdrhistogram::Histogram::new(3)?;
    let begin = std::time::Instant::now();
    for number in 0..count {
        let call = scenario::creation(&format!("created-{number}"))?;
        let begin = std::time::Instant::now();
        line.call(&call).await?;
        latency.record(u64::try_from(begin.elapsed().as_nanos())?)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Sample::of(&Tally {
        calls: count as u64,
        refused: 0,
        seconds,
        latency,
        cpu_seconds: Vec::new(),
    }))
}

/// From the start of a process to SERVING, and the memory it holds when idle.
fn starts(report: &mut Report, rounds: usize, url: &str, scratch: &Path, log: &Path) -> Result<()> {
    let store = scratch.join("ten-thousand");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let filled = Process::server(&On::Embedded(&store), scratch, log)?;
    runtime.block_on(async {
        let key = scenario::create_tenant(filled.address, "filled").await?;
        scenario::fill(filled.address, &key, "entry", 10_000, &scenario::noise(100)).await
    })?;
    filled.stop()?;
    for (subject, on) in [
        (Subject::Redis, On::Redis(url)),
        (Subject::Embedded, On::Embedded(&store)),
    ] {
        for _ in 0..rounds {
            let process = Process::server(&on, scratch, log)?;
            report
                .start_ms
                .entry(subject)
                .or_default()
                .push(process.start_time.as_secs_f64() * 1e3);
            thread::sleep(Duration::from_millis(500));
            report
                .idle_mib
                .entry(subject)
                .or_default()
                .push(resident_mib(process.pid()));
            process.stop()?;
        }
    }
    Ok(())
}
