//! A load that does not stop while the configuration is reloaded, every second, and
//! the same load without, in turn. A call that fails ends the run: so none did. It
//! does not know what a reload does.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use riptide_persistence::proto::v1::{
    WatchConfigRequest, WatchConfigResponse, state_service_client::StateServiceClient,
};
use serde::Serialize;
use tokio::time::timeout;
use tonic::{Request, Streaming, transport::Channel};

use crate::{
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

/// How long it may take until a change is noticed.
const NOTICED: Duration = Duration::from_secs(20);

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
    // Three that have one file; the first one bears the load.
    let stores = ["store", "second", "third"].map(|name| folder.join(name));
    let servers = stores
        .iter()
        .map(|store| Process::server(&On::Embedded(store), &folder, log))
        .collect::<Result<Vec<_>>>()?;
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let address = *addresses.first().context("no server")?;
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
            let (sample, applied, noticed_ms) =
                beside(&addresses, &work, open, &folder, &mut turn)?;
            reloads.with.push(sample);
            reloads.applied += applied;
            reloads.noticed_ms = reloads.noticed_ms.max(noticed_ms);
        }
    }
    for server in servers {
        server.stop()?;
    }
    Ok(reloads)
}

/// The load, while the file changes; how many reloads were applied, and how long the
/// slowest was waited for, in ms. Who waits is told by the server, so that nothing but
/// the reloads comes on top of the load.
fn beside(
    addresses: &[SocketAddr],
    work: &std::sync::Arc<Work>,
    open: Pressure,
    folder: &Path,
    turn: &mut u64,
) -> Result<(Sample, i64, f64)> {
    let over = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let watched = runtime.block_on(try_join_all(addresses.iter().map(|at| watch(*at))))?;
    let (mut told, versions): (Vec<_>, Vec<_>) = watched.into_iter().unzip();
    thread::scope(|scope| {
        let changes = scope.spawn(|| -> Result<(i64, f64)> {
            let (mut applied, mut noticed_ms) = (0, 0.0_f64);
            while !over.load(Relaxed) {
                *turn += 1;
                let aside = folder.join("aside.yml");
                fs::write(&aside, text(*turn))?;
                fs::rename(&aside, folder.join("persistence.yml"))?;
                let changed = Instant::now();
                let all = try_join_all(told.iter_mut().map(next));
                let next = runtime.block_on(async { timeout(NOTICED, all).await })??;
                applied += 1;
                let expected = versions.iter().map(|version| version + applied);
                ensure!(next.iter().copied().eq(expected), "versions {next:?}");
                noticed_ms = noticed_ms.max(changed.elapsed().as_secs_f64() * 1e3);
                thread::sleep(EVERY.saturating_sub(changed.elapsed()));
            }
            Ok((applied, noticed_ms))
        });
        let [address, ..] = addresses else {
            bail!("no server");
        };
        let tally = load::run(*address, work, open, &[]);
        over.store(true, Relaxed);
        let changed = changes.join();
        let (applied, noticed_ms) =
            changed.map_err(|_| anyhow::anyhow!("who changes the file panicked"))??;
        Ok((Sample::of(&tally?), applied, noticed_ms))
    })
}

/// Whoever is told of reloads, and the version in force.
async fn watch(address: SocketAddr) -> Result<(Streaming<WatchConfigResponse>, i64)> {
    let channel = Channel::from_shared(format!("http://{address}"))?;
    let mut client = StateServiceClient::new(channel.connect().await?);
    let mut request = Request::new(WatchConfigRequest {});
    let authorization = format!("Bearer {ADMIN_KEY}").parse()?;
    request
        .metadata_mut()
        .insert("authorization", authorization);
    let mut told = client.watch_config(request).await?.into_inner();
    let version = next(&mut told).await?;
    Ok((told, version))
}

/// The version after the next reload.
async fn next(told: &mut Streaming<WatchConfigResponse>) -> Result<i64> {
    let message = told.message().await?;
    Ok(message.context("the server tells no more")?.version)
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
             each in force at all of 3 replicas within {:.0} ms of the change [<= 2000 ms]\n",
            self.applied, self.noticed_ms
        )
    }
}
