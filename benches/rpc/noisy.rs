//! A tenant with an even load, alone and beside one that asks for ten times what
//! it may, in turn. It does not know how the noise is kept away.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use serde::Serialize;

use crate::{
    line::Call,
    load::{self, Answers, Pressure, Work},
    report::{Sample, form::median},
    scenario,
};

/// Calls a second of the tenant that is watched.
const RATE: f64 = 2000.0;
/// Entries it reads.
const KEYS: usize = 100;
/// What the noisy tenant may call in a minute.
const LIMIT: i64 = 12_000;
/// Calls a second of the noisy tenant: ten times what it may.
const NOISE: f64 = LIMIT as f64 / 60.0 * 10.0;

/// The watched tenant's calls, alone and beside the noise.
#[derive(Serialize)]
pub struct Noisy {
    /// Alone, a sample a round.
    pub quiet: Vec<Sample>,
    /// Beside the noise, a sample a round.
    pub beside: Vec<Sample>,
    /// Calls of the noisy tenant meanwhile.
    pub noise: u64,
    /// Those of them that were refused.
    pub refused: u64,
}

/// Measures both in each round.
pub fn measure(address: SocketAddr, rounds: usize, pressure: Pressure) -> Result<Noisy> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (watched, noise) = runtime.block_on(async {
        let quiet = scenario::create_tenant(address, "watched").await?;
        let noisy = scenario::create_limited(address, "noisy", LIMIT).await?;
        anyhow::Ok((
            scenario::hits(address, &quiet, KEYS).await?,
            Arc::new(Work {
                calls: vec![Call::new(scenario::GET, &noisy, &scenario::get("absent"))?],
                answers: Answers::Refusable,
            }),
        ))
    })?;
    let open = Pressure {
        callers: 50,
        rate: Some(RATE),
        time: pressure.time * 3,
        ..pressure
    };
    // What it may is used up first, as it is whenever somebody asks for ten times it.
    let begin = Instant::now();
    let closed = Pressure {
        rate: None,
        ..pressure
    };
    while load::run(address, &noise, closed, &[])?.refused == 0 {
        ensure!(
            begin.elapsed() < Duration::from_secs(30),
            "the noisy tenant is not limited"
        );
    }
    let mut noisy = Noisy {
        quiet: Vec::new(),
        beside: Vec::new(),
        noise: 0,
        refused: 0,
    };
    for round in 0..rounds {
        // There and back again.
        for loud in [round % 2 == 0, round % 2 == 1] {
            if !loud {
                let alone = load::run(address, &watched, open, &[])?;
                noisy.quiet.push(Sample::of(&alone));
                continue;
            }
            let work = Arc::clone(&noise);
            let pressure = Pressure {
                rate: Some(NOISE),
                ..open
            };
            let other = thread::spawn(move || load::run(address, &work, pressure, &[]));
            let beside = load::run(address, &watched, open, &[])?;
            let other = other.join().map_err(|_| anyhow!("the noise panicked"))??;
            noisy.beside.push(Sample::of(&beside));
            noisy.noise += other.calls;
            noisy.refused += other.refused;
        }
    }
    Ok(noisy)
}

impl Noisy {
    /// The medians, and the median of their ratios.
    pub fn told(&self) -> String {
        let p99 = |samples: &[Sample]| median(samples.iter().map(|sample| sample.p99_ms));
        let pairs = self.quiet.iter().zip(&self.beside);
        format!(
            "alone {:.2} ms, beside {:.2} ms: x{:.2} ({} of {} noisy calls refused)",
            p99(&self.quiet),
            p99(&self.beside),
            median(pairs.map(|(quiet, beside)| beside.p99_ms / quiet.p99_ms)),
            self.refused,
            self.noise,
        )
    }
}
