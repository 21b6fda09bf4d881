//! Makes calls for a while and counts: in a closed loop, where each caller
//! waits for its answer, or in an open one, where calls are due at fixed times
//! and a late answer is late by the clock of the schedule. It does not know what
//! is at the other end, but it checks every answer.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use riptide_persistence::proto::v1::{CheckQuotaResponse, SetResponse};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    line::{Call, Exhausted, Line, decode},
    process::cpu_seconds,
    tls::Reach,
};

/// Client threads, as many as the machines this is meant for have cores.
const THREADS: usize = 2;
/// Connections over all threads.
const LINES: usize = 8;
/// How often calls that have come due are released.
const TICK: Duration = Duration::from_micros(250);

/// Calls, and what their answers must be.
pub struct Work {
    /// The calls, made in turn.
    pub calls: Vec<Call>,
    /// What comes back.
    pub answers: Answers,
}

/// What comes back.
pub enum Answers {
    /// These bytes, call by call.
    Exactly(Vec<Bytes>),
    /// A `SetResponse` whose version is above those the caller saw before.
    GrowingVersions,
    /// A `CheckQuotaResponse` that allows.
    Allowed,
    /// Anything, or a refusal for a quota or a rate.
    Refusable,
    /// What this finds right, told which call it answers.
    Right(Check),
}

/// Whether an answer is right, told which call it answers.
pub type Check = Box<dyn Fn(usize, &Bytes) -> Result<()> + Send + Sync>;

impl Work {
    /// Calls whose answers are what they are now, once `check` has approved each.
    pub async fn learn(
        address: SocketAddr,
        calls: Vec<Call>,
        check: impl Fn(usize, &Bytes) -> Result<()>,
    ) -> Result<Self> {
        let mut line = Line::open(address).await?;
        let mut answers = Vec::with_capacity(calls.len());
        for (index, call) in calls.iter().enumerate() {
            let answer = line.call(call).await?;
            check(index, &answer)?;
            answers.push(answer);
        }
        Ok(Self {
            calls,
            answers: Answers::Exactly(answers),
        })
    }
}

/// How long, and how hard.
#[derive(Clone, Copy)]
pub struct Pressure {
    /// Callers at once, over all connections.
    pub callers: usize,
    /// Calls a second in an open loop; `None` closes it.
    pub rate: Option<f64>,
    /// Time before counting begins.
    pub warm_up: Duration,
    /// Time that counts.
    pub time: Duration,
}

/// What was counted.
pub struct Tally {
    /// Calls answered in the time that counts.
    pub calls: u64,
    /// Those of them that were refused for a quota or a rate; whether any may be is
    /// said by [`Answers`].
    pub refused: u64,
    /// That time.
    pub seconds: f64,
    /// From when a call was due (closed loop: made) to its answer, in nanoseconds.
    pub latency: Histogram<u64>,
    /// CPU seconds of the watched processes in that time.
    pub cpu_seconds: Vec<f64>,
}

impl Tally {
    /// Calls a second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.seconds
    }
}

#[derive(Default)]
struct Shared {
    counting: AtomicBool,
    stop: AtomicBool,
    calls: AtomicU64,
    refused: AtomicU64,
    latency: Mutex<Option<Histogram<u64>>>,
}

/// Puts `work` on the server that is reached so, and watches processes meanwhile. Any
/// answer that is not as it should be is an error.
pub fn run(
    reach: impl Into<Reach>,
    work: &Arc<Work>,
    pressure: Pressure,
    watched: &[u32],
) -> Result<Tally> {
    run_while(reach, work, pressure, watched, || true)
}

/// The same, for as long as `going` says so, which is asked all the time that counts.
pub fn run_while(
    reach: impl Into<Reach>,
    work: &Arc<Work>,
    pressure: Pressure,
    watched: &[u32],
    mut going: impl FnMut() -> bool,
) -> Result<Tally> {
    let reach = reach.into();
    let shared: Vec<Arc<Shared>> = (0..THREADS).map(|_| Arc::default()).collect();
    let threads: Vec<_> = shared
        .iter()
        .enumerate()
        .map(|(index, shared)| {
            let (work, shared) = (Arc::clone(work), Arc::clone(shared));
            let reach = reach.clone();
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let outcome = runtime.block_on(drive(index, reach, &work, pressure, &shared));
                shared.stop.store(true, Relaxed);
                outcome
            })
        })
        .collect();

    let sum = |of: fn(&Shared) -> &AtomicU64| -> u64 {
        let counts = shared.iter().map(|shared| of(shared).load(Relaxed));
        counts.sum()
    };
    let count = || (sum(|shared| &shared.calls), sum(|shared| &shared.refused));
    let cpu = || {
        watched
            .iter()
            .map(|pid| cpu_seconds(*pid))
            .collect::<Vec<_>>()
    };
    thread::sleep(pressure.warm_up);
    shared
        .iter()
        .for_each(|shared| shared.counting.store(true, Relaxed));
    let (begin, calls_before, cpu_before) = (Instant::now(), count(), cpu());
    let end = begin + pressure.time;
    while Instant::now() < end && !threads.iter().any(thread::JoinHandle::is_finished) && going() {
        thread::sleep(Duration::from_millis(20).min(end.saturating_duration_since(Instant::now())));
    }
    let (seconds, calls_after, cpu_after) = (begin.elapsed().as_secs_f64(), count(), cpu());
    let calls = calls_after.0 - calls_before.0;
    shared
        .iter()
        .for_each(|shared| shared.stop.store(true, Relaxed));
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow!("a client thread panicked"))??;
    }
    ensure!(calls > 0, "no call was answered");

    let mut latency = Histogram::new(3)?;
    for shared in &shared {
        if let Some(part) = &*shared
            .latency
            .lock()
            .map_err(|_| anyhow!("a caller panicked"))?
        {
            latency.add(part)?;
        }
    }
    let cpu_seconds = cpu_before
        .iter()
        .zip(cpu_after)
        .map(|(before, after)| after - before)
        .collect();
    Ok(Tally {
        calls,
        refused: calls_after.1 - calls_before.1,
        seconds,
        latency,
        cpu_seconds,
    })
}

/// One client thread: its connections, its callers, and in an open loop the
/// clock that releases their calls.
async fn drive(
    index: usize,
    reach: Reach,
    work: &Arc<Work>,
    pressure: Pressure,
    shared: &Arc<Shared>,
) -> Result<()> {
    let mut lines = Vec::new();
    for _ in 0..LINES / THREADS {
        lines.push(reach.open().await?);
    }
    let callers = pressure.callers / THREADS;
    let mut due = Vec::new();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let line = lines
            .get(caller % lines.len())
            .cloned()
            .ok_or_else(|| anyhow!("no line"))?;
        let first = (index * callers + caller) * work.calls.len() / pressure.callers;
        let schedule = pressure.rate.map(|_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            due.push(sender);
            receiver
        });
        tasks.spawn(call(
            line,
            Arc::clone(work),
            first,
            schedule,
            Arc::clone(shared),
        ));
    }
    if let Some(rate) = pressure.rate {
        let (shared, interval) = (
            Arc::clone(shared),
            Duration::from_secs_f64(THREADS as f64 / rate),
        );
        thread::spawn(move || release(&due, interval, &shared));
    }
    while let Some(outcome) = tasks.join_next().await {
        let latency = outcome.map_err(|error| anyhow!("a caller panicked: {error}"))??;
        let mut whole = shared
            .latency
            .lock()
            .map_err(|_| anyhow!("a caller panicked"))?;
        match &mut *whole {
            Some(whole) => whole.add(latency)?,
            None => *whole = Some(latency),
        }
    }
    Ok(())
}

/// Tells callers in turn that a call was due, and when. A runtime's timer would
/// round to a millisecond.
fn release(due: &[mpsc::UnboundedSender<Instant>], interval: Duration, shared: &Shared) {
    let begin = Instant::now();
    let mut released = 0_u32;
    while !shared.stop.load(Relaxed) {
        let now = Instant::now();
        loop {
            let time = begin + interval * released;
            let Some(caller) = due.get(released as usize % due.len()) else {
                return;
            };
            if time > now {
                break;
            }
            if caller.send(time).is_err() {
                return;
            }
            released += 1;
        }
        thread::sleep(TICK);
    }
}

async fn call(
    mut line: Line,
    work: Arc<Work>,
    first: usize,
    mut schedule: Option<mpsc::UnboundedReceiver<Instant>>,
    shared: Arc<Shared>,
) -> Result<Histogram<u64>> {
    let mut latency = Histogram::new(3)?;
    let mut version = 0;
    for (index, call) in work.calls.iter().enumerate().cycle().skip(first) {
        let due = match &mut schedule {
            None => Instant::now(),
            Some(schedule) => match schedule.recv().await {
                Some(due) => due,
                None => break,
            },
        };
        let answer = match line.call(call).await {
            // Going away in the middle of a call is no fault at the end.
            Err(_) if shared.stop.load(Relaxed) => break,
            Err(error) if matches!(work.answers, Answers::Refusable) && error.is::<Exhausted>() => {
                shared.refused.fetch_add(1, Relaxed);
                Bytes::new()
            }
            answer => answer?,
        };
        match &work.answers {
            Answers::Exactly(answers) => ensure!(
                answers.get(index) == Some(&answer),
                "call {index}: another answer than before"
            ),
            Answers::GrowingVersions => {
                let written: SetResponse = decode(&answer)?;
                ensure!(
                    written.version > version,
                    "call {index}: version {} after {version}",
                    written.version
                );
                version = written.version;
            }
            Answers::Allowed => ensure!(
                decode::<CheckQuotaResponse>(&answer)?.allowed,
                "call {index} was not allowed"
            ),
            Answers::Refusable => {}
            Answers::Right(right) => {
                right(index, &answer).with_context(|| format!("call {index}"))?;
            }
        }
        shared.calls.fetch_add(1, Relaxed);
        if shared.counting.load(Relaxed) {
            latency.record(u64::try_from(due.elapsed().as_nanos())?)?;
        }
        if shared.stop.load(Relaxed) {
            break;
        }
    }
    Ok(latency)
}
