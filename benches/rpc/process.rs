//! The processes that are measured: servers of this build, and twins. It does
//! not know what is asked of them.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    line::{Call, Line},
    redis::free_port,
};

/// The admin key of every server started here.
pub const ADMIN_KEY: &str = "rtp_admin_0123456789abcdefghijklmnopqrstuvwxyz";

/// The master key of every server started here: it protects nothing.
const MASTER_KEY: &str = "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The server's binary, built with the benchmark.
const BINARY: &str = env!("CARGO_BIN_EXE_riptide-persistence");

/// A process that serves gRPC; killed when dropped.
pub struct Process {
    child: Child,
    /// Where it serves.
    pub address: SocketAddr,
    /// From its start to SERVING.
    pub start_time: Duration,
}

/// Which store a server is started on.
pub enum On<'a> {
    /// The Redis at this URL.
    Redis(&'a str),
    /// The same, with nothing kept near.
    RedisFar(&'a str),
    /// A file in this folder.
    Embedded(&'a Path),
}

impl Process {
    /// Starts a server and waits until its health is SERVING. It logs to `log`.
    pub fn server(on: &On<'_>, folder: &Path, log: &Path) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let output = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(BINARY);
        command
            .arg("serve")
            .env_remove("REDIS_URL")
            .env("PERSISTENCE_SERVER__LISTEN", address.to_string())
            .env("PERSISTENCE_SERVER__ADMIN_LISTEN", admin.to_string())
            .env("PERSISTENCE_AUTH__ADMIN_KEY", ADMIN_KEY)
            .env("PERSISTENCE_TENANT__MAX_TENANTS", "-1")
            .env("PERSISTENCE_ENCRYPTION__MASTER_KEYS", MASTER_KEY)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        match on {
            On::Redis(url) | On::RedisFar(url) => {
                let near = matches!(on, On::Redis(_));
                command
                    .env("PERSISTENCE_STORE__BACKEND", "redis")
                    .env("PERSISTENCE_REDIS__URL", url)
                    .env("PERSISTENCE_CACHE__NEAR__ENABLED", near.to_string())
                    .env("PERSISTENCE_STORE__PATH", folder);
            }
            On::Embedded(path) => {
                command
                    .env("PERSISTENCE_STORE__BACKEND", "embedded")
                    .env("PERSISTENCE_STORE__PATH", path);
            }
        }
        let begin = Instant::now();
        let mut process = Self {
            child: command.spawn()?,
            address,
            start_time: Duration::ZERO,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        while !runtime.block_on(serving(address)) {
            if let Some(status) = process.child.try_wait()? {
                bail!(
                    "the server ended with {status}; it said:\n{}",
                    fs::read_to_string(log)?
                );
            }
            ensure!(
                begin.elapsed() < Duration::from_secs(20),
                "the server is not SERVING after 20 s; it said:\n{}",
                fs::read_to_string(log)?
            );
            thread::sleep(Duration::from_millis(2));
        }
        process.start_time = begin.elapsed();
        Ok(process)
    }

    /// Starts a twin: this binary, with another task.
    pub fn twin(name: &str) -> Result<Self> {
        let begin = Instant::now();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--twin", name])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().context("a pipe was asked for")?)
            .read_line(&mut address)?;
        let process = Self {
            child,
            address: address.trim().parse()?,
            start_time: begin.elapsed(),
        };
        Ok(process)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to go (SIGTERM) and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        let sent = Command::new("kill")
            .args(["-s", "TERM", &self.pid().to_string()])
            .status()?;
        ensure!(sent.success(), "kill -s TERM: {sent}");
        let status = self.child.wait()?;
        ensure!(
            status.success(),
            "the server ended with {status} after SIGTERM"
        );
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serving(address: SocketAddr) -> bool {
    let ask = async {
        let mut line = Line::open(address).await?;
        line.call(&Call::new("/grpc.health.v1.Health/Check", "", &())?)
            .await
    };
    // HealthCheckResponse { status: SERVING }
    ask.await
        .is_ok_and(|answer| answer.get(5..) == Some(&[8, 1]))
}

/// CPU seconds a process has used, from `/proc`; 0 where there is none.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; utime and stime are the 12th
    // and 13th fields after it, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// Memory a process holds, in MiB, from `/proc`; 0 where there is none.
pub fn resident_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<f64>().ok())
        .unwrap_or_default()
        / 1024.0
}
