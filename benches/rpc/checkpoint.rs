//! A load that does not stop while checkpoints are taken, and the same load without, in
//! turn. A call that fails ends the run: so none did. It does not know how a checkpoint
//! is taken.

mod entries;
mod taking;

use std::{cell::Cell, fs, net::SocketAddr, path::Path, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use self::taking::Taken;
use crate::{
    load::{self, Pressure, Tally, Work},
    process::{On, Process, resident_mib},
    redis::Redis,
    report::{
        Sample,
        form::{median, table},
    },
    slow::{self, Slow},
};

/// Calls a second, where the machine gives so many.
const RATE: f64 = 10_000.0;
/// Of the peak, where it gives less.
const SHARE: f64 = 0.6;
/// How long a load without is measured, and one with at least: where a checkpoint is
/// done before, the next is begun.
const TIME: Duration = Duration::from_secs(10);
/// How long a load with is measured at most.
const PATIENCE: Duration = Duration::from_secs(600);

/// Both runs, one a round.
#[derive(Serialize)]
pub struct Checkpoints {
    /// Calls a second that were due.
    pub rate: f64,
    /// Entries there are, of 1 KiB each.
    pub entries: usize,
    /// Without a checkpoint.
    pub without: Vec<Run>,
    /// While one was taken, all the time.
    pub with: Vec<Run>,
    /// Those that were taken.
    pub taken: Vec<Taken>,
}

/// A load, and what was seen meanwhile.
#[derive(Serialize)]
pub struct Run {
    sample: Sample,
    seconds: f64,
    /// Cores that were in use: by the load, the server and Redis.
    cores: Vec<f64>,
    /// Memory of the server when the time that counts began, and at most, in MiB.
    before_mib: f64,
    peak_mib: f64,
    /// Commands of Redis that took more than 2 ms.
    slow: Vec<Slow>,
}

/// A server with tenants that have entries, and the calls on them.
struct Filled {
    address: SocketAddr,
    work: Arc<Work>,
    entries: usize,
    /// The load, the server and Redis.
    watched: [u32; 3],
    redis: Redis,
}

/// Measures both in each round.
pub fn measure(
    scratch: &Path,
    log: &Path,
    rounds: usize,
    pressure: Pressure,
    entries: usize,
) -> Result<Checkpoints> {
    let folder = scratch.join("checkpoint");
    fs::create_dir_all(&folder)?;
    let redis = Redis::start();
    let server = Process::server(&On::Redis(&redis.url()), &folder, log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let work = runtime.block_on(entries::fill(server.address, entries))?;
    println!("{entries} entries are there");
    slow::watch(&redis);
    let filled = Filled {
        address: server.address,
        work: Arc::new(work),
        entries,
        watched: [std::process::id(), server.pid(), slow::pid(&redis)?],
        redis,
    };
    let peak = load::run(server.address, &filled.work, pressure, &[])?.rate();
    let open = Pressure {
        callers: 64,
        rate: Some(RATE.min(peak * SHARE)),
        warm_up: Duration::from_secs(2),
        time: TIME,
    };
    let mut checkpoints = Checkpoints {
        rate: open.rate.unwrap_or_default(),
        entries,
        without: Vec::new(),
        with: Vec::new(),
        taken: Vec::new(),
    };
    for round in 0..rounds {
        // There and back again.
        for taking in [round % 2 == 1, round % 2 == 0] {
            if !taking {
                let run = filled.run(|going| {
                    load::run_while(filled.address, &filled.work, open, &filled.watched, || {
                        going();
                        true
                    })
                })?;
                checkpoints.without.push(run);
                continue;
            }
            let (run, taken) = filled.beside(open)?;
            let last = round + 1 == rounds;
            runtime.block_on(taking::remove(server.address, &taken, last))?;
            checkpoints.with.push(run);
            checkpoints.taken.extend(taken);
        }
        println!("round {} of {rounds} is done", round + 1);
    }
    server.stop()?;
    Ok(checkpoints)
}

impl Filled {
    /// A load, and what is seen meanwhile: it calls what it is given while it counts.
    fn run(&self, load: impl FnOnce(&dyn Fn()) -> Result<Tally>) -> Result<Run> {
        let (before_mib, peak_mib) = (Cell::new(0.0), Cell::new(0.0_f64));
        let going = || {
            let now = resident_mib(self.watched[1]);
            if before_mib.get() == 0.0 {
                before_mib.set(now);
            }
            peak_mib.set(peak_mib.get().max(now));
        };
        slow::forget(&self.redis);
        let tally = load(&going)?;
        let cores = tally.cpu_seconds.iter().map(|cpu| cpu / tally.seconds);
        Ok(Run {
            sample: Sample::of(&tally),
            seconds: tally.seconds,
            cores: cores.collect(),
            before_mib: before_mib.get(),
            peak_mib: peak_mib.get(),
            slow: slow::all(&self.redis),
        })
    }

    /// A load that counts from when the first checkpoint is begun until the last is
    /// there.
    fn beside(&self, open: Pressure) -> Result<(Run, Vec<Taken>)> {
        let open = Pressure {
            time: PATIENCE,
            ..open
        };
        thread::scope(|scope| {
            let mut taking = None;
            let run = self.run(|going| {
                load::run_while(self.address, &self.work, open, &self.watched, || {
                    going();
                    let take =
                        || scope.spawn(|| taking::take_all(self.address, self.entries, TIME));
                    !taking.get_or_insert_with(take).is_finished()
                })
            })?;
            let taking = taking.context("no call was counted")?;
            let taken = taking.join();
            let taken = taken.map_err(|_| anyhow!("who takes checkpoints panicked"))??;
            Ok((run, taken))
        })
    }
}

impl Checkpoints {
    /// For people.
    pub fn table(&self) -> String {
        let mut runs = table(&[
            "open loop",
            "",
            "calls",
            "failed",
            "p50 ms",
            "p99 ms",
            "cores: load",
            "server",
            "Redis",
        ]);
        for (name, all) in [
            ("without a checkpoint", &self.without),
            ("while one is taken", &self.with),
        ] {
            let of = |figure: &dyn Fn(&Run) -> f64| median(all.iter().map(figure));
            let cores = |part: usize| {
                let part = |run: &Run| run.cores.get(part).copied().unwrap_or_default();
                format!("{:.2}", of(&part))
            };
            let calls: u64 = all.iter().map(|run| run.sample.calls).sum();
            let seconds: f64 = all.iter().map(|run| run.seconds).sum();
            runs.add_row([
                name.to_owned(),
                format!("{:.0}/s asked", self.rate),
                format!("{calls} in {seconds:.0} s"),
                "0".to_owned(),
                format!("{:.2}", of(&|run| run.sample.p50_ms)),
                format!("{:.2}", of(&|run| run.sample.p99_ms)),
                cores(0),
                cores(1),
                cores(2),
            ]);
        }
        let p99 = |all: &[Run]| median(all.iter().map(|run| run.sample.p99_ms));
        let grown = |all: &[Run]| {
            let grown = all.iter().map(|run| run.peak_mib - run.before_mib);
            grown.fold(0.0, f64::max)
        };
        let rates = self
            .taken
            .iter()
            .map(|one| one.bytes as f64 / 1e6 / one.seconds);
        let peak = self.with.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
        let objects = median(self.taken.iter().map(|one| one.objects_bytes as f64));
        let slow = |all: &[Run]| slow::told(all.iter().flat_map(|run| &run.slow));
        format!(
            "{runs}\np99 while a checkpoint is taken x{:.2} of that without [<= x1.20]\n\
             {} checkpoints of {} entries of 1 KiB, one after the other: {:.0} MB/s of records each \
             [>= 50 MB/s], {:.0} MB of objects; the last one was read and opened\n\
             memory of the server: {peak:.0} MiB at most, {:.0} MiB more than before \
             [<= 128 MiB]; without {:.0} MiB more\n\
             commands of Redis over 2 ms: {} [none]; without {}\n",
            p99(&self.with) / p99(&self.without),
            self.taken.len(),
            self.entries,
            median(rates),
            objects / 1e6,
            grown(&self.with),
            grown(&self.without),
            slow(&self.with),
            slow(&self.without),
        )
    }
}
