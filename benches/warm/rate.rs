//! Warming by one stream, and by `cache warm FILE`, into an empty Redis: entries a
//! second with the client on the same machine, the server's memory, and scripts that
//! took Redis longer than they may. It does not know what is stored.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::stream;
use riptide_persistence::proto::v1::{
    CreateTenantRequest, Quotas, SetEntry, WarmCacheRequest,
    cache_service_client::CacheServiceClient, tenant_service_client::TenantServiceClient,
};
use tonic::{Request, metadata::AsciiMetadataValue, transport::Endpoint};

use crate::{
    process::{ADMIN_KEY, On, Process, cpu_seconds, resident_mib},
    redis::Redis,
};

/// How long Redis may be busy with one script, in microseconds.
const SLOW_US: u64 = 2000;

#[derive(clap::Args)]
pub struct Rate {
    /// Entries.
    #[arg(long, default_value_t = 1_000_000)]
    entries: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 200)]
    value_bytes: usize,
    /// Entries of a message.
    #[arg(long, default_value_t = 500)]
    message: usize,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What a round came to.
struct Came {
    seconds: f64,
    server_cpu: f64,
    redis_cpu: f64,
    before_mib: f64,
    peak_mib: f64,
    slow: u64,
    slowest_us: u64,
}

impl Rate {
    pub fn run(&self, folder: &Path) -> Result<()> {
        println!(
            "{} entries of {} B, Redis, client included; aims: >= 50000 entries/s, growth <= 64 MiB, no script over {SLOW_US} us\n",
            self.entries, self.value_bytes
        );
        println!(
            "{:<14} {:>10} {:>9} {:>11} {:>10} {:>10} {:>10} {:>11} {:>12} {:>11}",
            "by",
            "entries/s",
            "seconds",
            "server cpu",
            "redis cpu",
            "RSS MiB",
            "peak MiB",
            "growth MiB",
            "slow scripts",
            "slowest us"
        );
        for _ in 0..self.rounds {
            self.show(
                "one stream",
                &self.round(folder, |server| self.stream(server))?,
            );
        }
        let lines = folder.join("lines");
        self.write(&lines)?;
        for _ in 0..self.rounds {
            self.show(
                "cache warm",
                &self.round(folder, |server| command(server, &lines))?,
            );
        }
        Ok(())
    }

    fn show(&self, by: &str, came: &Came) {
        println!(
            "{by:<14} {:>10.0} {:>9.2} {:>11.2} {:>10.2} {:>10.1} {:>10.1} {:>11.1} {:>12} {:>11}",
            self.entries as f64 / came.seconds,
            came.seconds,
            came.server_cpu,
            came.redis_cpu,
            came.before_mib,
            came.peak_mib,
            came.peak_mib - came.before_mib,
            came.slow,
            came.slowest_us,
        );
    }

    fn round(&self, folder: &Path, warm: impl FnOnce(&Process) -> Result<u64>) -> Result<Came> {
        let redis = Redis::start();
        let server = Process::server(&On::Redis(&redis.url()), folder, &folder.join("log"))?;
        runtime()?.block_on(tenant(&server))?;
        redis.cli(&[
            "config",
            "set",
            "slowlog-log-slower-than",
            &SLOW_US.to_string(),
        ]);
        redis.cli(&["slowlog", "reset"]);
        let redis_cpu = || -> Result<f64> {
            let info = redis.cli(&["info", "cpu"]);
            let of = |name: &str| {
                let line = info.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|value| value.trim().parse::<f64>().ok())
            };
            let used = of("used_cpu_user:").zip(of("used_cpu_sys:"));
            used.map(|(user, system)| user + system).context("INFO cpu")
        };
        let (pid, before_mib) = (server.pid(), resident_mib(server.pid()));
        let (stop, peak) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let watch = thread::spawn({
            let (stop, peak) = (stop.clone(), peak.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    // In KiB, as whole numbers.
                    let now = (resident_mib(pid) * 1024.0) as u64;
                    peak.fetch_max(now, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        let (server_before, redis_before) = (cpu_seconds(pid), redis_cpu()?);
        let begin = Instant::now();
        let stored = warm(&server)?;
        let seconds = begin.elapsed().as_secs_f64();
        ensure!(
            stored == self.entries as u64,
            "{stored} entries were stored"
        );
        let came = Came {
            seconds,
            server_cpu: cpu_seconds(pid) - server_before,
            redis_cpu: redis_cpu()? - redis_before,
            before_mib,
            peak_mib: peak.load(Ordering::Relaxed) as f64 / 1024.0,
            slow: redis.cli(&["slowlog", "len"]).trim().parse()?,
            slowest_us: slowest(&redis.cli(&["slowlog", "get", "-1"])),
        };
        stop.store(true, Ordering::Relaxed);
        ensure!(watch.join().is_ok(), "the memory was not watched");
        Ok(came)
    }

    fn stream(&self, server: &Process) -> Result<u64> {
        let (entries, message) = (self.entries, self.message);
        let value = bytes::Bytes::from(vec![b'v'; self.value_bytes]);
        let messages = (0..entries).step_by(message).map(move |first| {
            let entry = |n| SetEntry {
                key: format!("key-{n:08}"),
                value: value.clone(),
                ..SetEntry::default()
            };
            WarmCacheRequest {
                tenant_id: "acme".to_owned(),
                entries: (first..entries.min(first + message)).map(entry).collect(),
                ..WarmCacheRequest::default()
            }
        });
        runtime()?.block_on(async {
            let channel = Endpoint::from_shared(format!("http://{}", server.address))?;
            let mut client = CacheServiceClient::new(channel.connect().await?);
            let mut request = Request::new(stream::iter(messages));
            request.metadata_mut().insert("authorization", bearer()?);
            let warmed = client.warm_cache(request).await?.into_inner();
            Ok(u64::try_from(warmed.stored)?)
        })
    }

    /// The lines that `cache warm` reads.
    fn write(&self, lines: &Path) -> Result<()> {
        let mut file = BufWriter::new(File::create(lines)?);
        let value = "v".repeat(self.value_bytes);
        for n in 0..self.entries {
            writeln!(file, "{{\"key\":\"key-{n:08}\",\"value\":\"{value}\"}}")?;
        }
        Ok(file.flush()?)
    }
}

fn command(server: &Process, lines: &Path) -> Result<u64> {
    let ran = Command::new(env!("CARGO_BIN_EXE_riptide-persistence"))
        .args(["cache", "warm", "--tenant", "acme", "--output", "json"])
        .arg(lines)
        .env("RIPTIDE_ADDRESS", format!("http://{}", server.address))
        .env("RIPTIDE_API_KEY", ADMIN_KEY)
        .output()?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "cache warm: {}: {said}", ran.status);
    let told: serde_json::Value = serde_json::from_slice(&ran.stdout)?;
    let stored = told.get("stored").and_then(serde_json::Value::as_u64);
    stored.context("it does not tell what was stored")
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    Ok(runtime.enable_all().build()?)
}

fn bearer() -> Result<AsciiMetadataValue> {
    Ok(format!("Bearer {ADMIN_KEY}").parse()?)
}

async fn tenant(server: &Process) -> Result<()> {
    let channel = Endpoint::from_shared(format!("http://{}", server.address))?;
    let mut client = TenantServiceClient::new(channel.connect().await?);
    let unlimited = Some(-1);
    let mut request = Request::new(CreateTenantRequest {
        tenant_id: "acme".to_owned(),
        quotas: Some(Quotas {
            memory_bytes: unlimited,
            cache_entries: unlimited,
            operations_per_minute: unlimited,
            data_transfer_bytes: unlimited,
            ..Quotas::default()
        }),
        ..CreateTenantRequest::default()
    });
    request.metadata_mut().insert("authorization", bearer()?);
    client.create_tenant(request).await?;
    Ok(())
}

/// The longest of what `SLOWLOG GET` lists: the third field of each of its entries.
fn slowest(listed: &str) -> u64 {
    let times = listed.lines().collect::<Vec<_>>();
    let entry = |pair: &[&str]| match pair {
        // A number, the time since 1970, the microseconds.
        [id, at, took] => {
            let (id, at) = (id.parse::<u64>().ok()?, at.parse::<u64>().ok()?);
            (id < at && at > 1_000_000_000).then_some(took.parse::<u64>().ok()?)
        }
        _ => None,
    };
    times.windows(3).filter_map(entry).max().unwrap_or(0)
}
