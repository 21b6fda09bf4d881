//! What the server asks of Redis on its own account, with many tenants that it
//! knows and few that call. It does not know what a flush is.

use std::{collections::BTreeMap, path::Path, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    line::{Call, Line, decode},
    load::{self, Answers, Pressure, Work},
    process::{On, Process, cpu_seconds},
    redis::Redis,
    scenario,
};

/// Tenants that call all the time.
const ACTIVE: usize = 100;
/// Tenants that have called once.
const IDLE: usize = 10_000;
/// Calls a second of all active ones.
const RATE: f64 = 1000.0;
/// Connections that create tenants at once.
const LINES: usize = 32;

/// The costs beside so many tenants that are idle.
#[derive(Serialize)]
pub struct Idle {
    /// Tenants that the server knows and that do not call.
    pub idle: usize,
    /// Commands to Redis a second, by name, those of the calls themselves included.
    pub commands_per_second: BTreeMap<String, f64>,
    /// CPU seconds of the server a second.
    pub server_cpu: f64,
}

impl Idle {
    /// Scripts a second: what the server writes. The calls themselves only read.
    pub fn scripts_per_second(&self) -> f64 {
        let scripts = self.commands_per_second.iter();
        let scripts = scripts.filter(|(name, _)| name.starts_with("eval") || *name == "fcall");
        scripts.map(|(_, rate)| rate).sum()
    }
}

/// Measures with the active tenants alone, and with all.
pub fn measure(scratch: &Path, log: &Path, pressure: Pressure) -> Result<Vec<Idle>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let redis = Redis::start();
    let process = Process::server(&On::Redis(&redis.url()), scratch, log)?;
    let active = runtime.block_on(known(&process, "active", ACTIVE))?;
    let work = Arc::new(Work {
        calls: active,
        answers: Answers::Refusable,
    });
    let mut all = Vec::new();
    for idle in [0, IDLE] {
        runtime.block_on(known(&process, "idle", idle))?;
        // What they came to is flushed.
        thread::sleep(Duration::from_millis(2500));
        let open = Pressure {
            callers: 50,
            rate: Some(RATE),
            time: pressure.time * 5,
            ..pressure
        };
        let run = {
            let (work, address) = (Arc::clone(&work), process.address);
            thread::spawn(move || load::run(address, &work, open, &[]))
        };
        // From when all of them have called until they stop.
        thread::sleep(open.warm_up + Duration::from_millis(200));
        let (before, cpu) = (redis.commands(), cpu_seconds(process.pid()));
        let time = open.time - Duration::from_millis(400);
        thread::sleep(time);
        let (after, cpu) = (redis.commands(), cpu_seconds(process.pid()) - cpu);
        run.join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        let rate = |(name, count): (String, u64)| {
            let count = count - before.get(&name).copied().unwrap_or_default();
            (name, count as f64 / time.as_secs_f64())
        };
        all.push(Idle {
            idle,
            commands_per_second: after.into_iter().map(rate).collect(),
            server_cpu: cpu / time.as_secs_f64(),
        });
    }
    process.stop()?;
    Ok(all)
}

/// Creates tenants, each of which has then called once; a call of each.
async fn known(process: &Process, prefix: &str, count: usize) -> Result<Vec<Call>> {
    let mut lines = tokio::task::JoinSet::new();
    for first in 0..LINES {
        let mut line = Line::open(process.address).await?;
        let prefix = prefix.to_owned();
        lines.spawn(async move {
            let mut calls = Vec::new();
            for number in (first..count).step_by(LINES) {
                let creation = scenario::creation(&format!("{prefix}-{number}"))?;
                let created = line.call(&creation).await.context("creating a tenant")?;
                let key = scenario::secret(&created)?;
                let call = Call::new(scenario::GET, &key, &scenario::get("absent"))?;
                decode::<riptide_persistence::proto::v1::GetResponse>(&line.call(&call).await?)?;
                calls.push(call);
            }
            anyhow::Ok(calls)
        });
    }
    let mut calls = Vec::new();
    while let Some(part) = lines.join_next().await {
        calls.extend(part??);
    }
    Ok(calls)
}
