//! A load that does not stop while the configuration is reloaded, every second, and
//! the same load without, in turn. A call that fails ends the run: so none did. It
//! does not know what a reload does.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use riptide_persistence::proto::v1::{GetConfigRequest, GetConfigResponse};
use serde::Serialize;

use crate::{
    line::{Call, Line, decode},
    load::{self, Pressure, Work},
    process::{ADMIN_KEY, On, Process},
    report::{
        Sample,
        form::{median, table},
    },
    scenario,
};

/// Calls a second, where the machine gives so many.
const RATE: f64 = 20_000.0;
/// Of the peak, where it gives less.
const SHARE: f64 = 0.6;
/// Entries that are read.
const KEYS: usize = 1000;
/// How often the file is changed.
const EVERY: Duration = Duration::from_secs(1);

const GET_CONFIG: &str = "/riptide.persistence.v1.StateService/GetConfig";

/// Both runs, a sample a round.
#[derive(Serialize)]
pub struct Reloads {
    /// Calls a second that were due.
    pub rate: f64,
    /// Without reloads.
    pub without: Vec<Sample>,
    /// With one every second.
    pub with: Vec<Sample>,
    /// How many were applied in the second runs.
    pub applied: i64,
    /// From the change of the file until the new version was seen, in ms, at most.
    pub noticed_ms: f64,
}

/// The file, in the state that it has at this turn.
fn text(turn: u64) -> String {
    let (entries, filter) = match turn % 2 {
        0 => (100_000, "info"),
        _ => (200_000, "info,riptide_persistence::config=debug"),
    };
    format!(
        "persistence:\n  log: {{filter: '{filter}'}}\n  tenant:\n    plans:\n      free:\n        \
         quotas: {{cache_entries: {entries}, operations_per_minute: -1}}\n"
    )
}

/// Measures both in each round.
pub fn measure(scratch: &Path, log: &Path, rounds: usize, pressure: Pressure) -> Result<Reloads> {
    let folder = scratch.join("reload");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("persistence.yml"), text(0))?;
    let server = Process::server(&On::Embedded(&folder.join("store")), &folder, log)?;
    let address = server.address;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let work = runtime.block_on(async {
        let key = scenario::create_tenant(address, "reloaded").await?;
        scenario::hits(address, &key, KEYS).await
    })?;
    let peak = load::run(address, &work, pressure, &[])?.rate();
    let open = Pressure {
        callers: 64,
        rate: Some(RATE.min(peak * SHARE)),
        time: Duration::from_secs(6),
        ..pressure
    };
    let mut reloads = Reloads {
        rate: open.rate.unwrap_or_default(),
        without: Vec::new(),
        with: Vec::new(),
        applied: 0,
        noticed_ms: 0.0,
    };
    let mut turn = 0;
    for round in 0..rounds {
        // There and back again.
        for reloading in [round % 2 == 1, round % 2 == 0] {
            if !reloading {
                let alone = load::run(address, &work, open, &[])?;
                reloads.without.push(Sample::of(&alone));
                continue;
            }
            let before = version(address)?;
            let sample = beside(
                &server,
                &work,
                open,
                &folder,
                &mut turn,
                &mut reloads.noticed_ms,
            )?;
            reloads.with.push(sample);
            let applied = version(address)? - before;
            ensure!(applied > 0, "nothing was reloaded");
            reloads.applied += applied;
        }
    }
    server.stop()?;
    Ok(reloads)
}

/// The load, while the file changes.
fn beside(
    server: &Process,
    work: &std::sync::Arc<Work>,
    open: Pressure,
    folder: &Path,
    turn: &mut u64,
    noticed_ms: &mut f64,
) -> Result<Sample> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let changes = scope.spawn(|| -> Result<()> {
            while !over.load(Relaxed) {
                let before = version(server.address)?;
                *turn += 1;
                let aside = folder.join("aside.yml");
                fs::write(&aside, text(*turn))?;
                fs::rename(&aside, folder.join("persistence.yml"))?;
                let changed = Instant::now();
                while version(server.address)? == before {
                    ensure!(changed.elapsed() < Duration::from_secs(20), "not noticed");
                    thread::sleep(Duration::from_millis(20));
                }
                *noticed_ms = noticed_ms.max(changed.elapsed().as_secs_f64() * 1e3);
                thread::sleep(EVERY.saturating_sub(changed.elapsed()));
            }
            Ok(())
        });
        let tally = load::run(server.address, work, open, &[]);
        over.store(true, Relaxed);
        let changed = changes.join();
        changed.map_err(|_| anyhow::anyhow!("who changes the file panicked"))??;
        Ok(Sample::of(&tally?))
    })
}

/// The version of the configuration in force.
fn version(address: std::net::SocketAddr) -> Result<i64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut line = Line::open(address).await?;
        let call = Call::new(GET_CONFIG, ADMIN_KEY, &GetConfigRequest {})?;
        let config: GetConfigResponse = decode(&line.call(&call).await?)?;
        Ok(config.version)
    })
}

impl Reloads {
    /// For people.
    pub fn table(&self) -> String {
        let mut runs = table(&["open loop", "", "calls", "failed", "p50 ms", "p99 ms"]);
        for (name, samples) in [
            ("without reloads", &self.without),
            ("reloaded every second", &self.with),
        ] {
            let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
            runs.add_row([
                name.to_owned(),
                format!("{:.0}/s asked", self.rate),
                samples
                    .iter()
                    .map(|sample| sample.calls)
                    .sum::<u64>()
                    .to_string(),
                "0".to_owned(),
                format!("{:.2}", of(|sample| sample.p50_ms)),
                format!("{:.2}", of(|sample| sample.p99_ms)),
            ]);
        }
        let pairs = self.with.iter().zip(&self.without);
        let ratio = median(pairs.map(|(with, without)| with.p99_ms / without.p99_ms));
        format!(
            "{runs}\np99 with reloads x{ratio:.2} of that without [<= x1.20]; {} reloads applied, \
             each in force within {:.0} ms of the change [<= 2000 ms]\n",
            self.applied, self.noticed_ms
        )
    }
}
