//! What is told of this process: figures that others count, put together when somebody
//! asks, as metrics and as the course of the last hour. It counts nothing itself, and
//! does not know how it is asked.

mod course;
pub mod family;
mod figures;
mod gathering;
mod process;
mod runtimes;
mod sheet;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::time::timeout;

use self::{
    course::{Course, Sample},
    figures::Standings,
    process::Process,
};
pub use self::{
    family::{FAMILIES, Family, Kind},
    runtimes::Runtimes,
    sheet::Format,
};
use crate::{
    cache::Memory,
    grpc::{self, About, CODE_NAMES, Health, InFlight},
    state::{Configuration, checkpoint::Tally, session},
    store::{Counters, Gauges, Handle, Handles},
    tenant::{Directory, Tenants},
};

/// A step of the last hour's course.
pub const STEP: Duration = Duration::from_secs(5);

/// How long the store may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long what it said is told again.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Where the figures are.
pub struct Sources {
    /// What the server is.
    pub about: About,
    /// What calls came to.
    pub calls: Arc<grpc::Figures>,
    /// The calls in flight.
    pub in_flight: InFlight,
    /// How many connections are open.
    pub connections: Arc<AtomicUsize>,
    /// How the components are.
    pub health: Arc<Health>,
    /// What is known of tenants.
    pub directory: Arc<Directory>,
    /// What is remembered of their caches.
    pub memory: Arc<Memory>,
    /// The configuration in force.
    pub configuration: Arc<Configuration>,
    /// Calls to the store, by all who make them.
    pub counters: Vec<Arc<Counters>>,
    /// The handles that are held to the store.
    pub handles: Arc<Handles>,
    /// How many sessions were created and terminated.
    pub sessions: Arc<session::Tally>,
    /// How checkpoints and restores ended.
    pub checkpoints: Arc<Tally>,
    /// The runtimes of the process.
    pub runtimes: Arc<Runtimes>,
    /// Handshakes of TLS that were refused, and when the certificate in use expires, in
    /// seconds since 1970; 0 where there is none.
    pub tls: [Arc<AtomicU64>; 2],
    /// The tenants, by way of a handle to their store that this may use.
    pub tenants: Tenants,
}

/// What is told of this process.
pub struct Metrics {
    sources: Sources,
    course: Mutex<Course>,
    /// What the store said of itself, and when; held while it is asked.
    said: tokio::sync::Mutex<Option<(Instant, Said)>>,
    standings: Standings,
}

/// What the store says of itself. Nothing, where it does not answer.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    exact: Option<bool>,
    gauges: Gauges,
}

impl Metrics {
    /// What is told of these.
    pub fn new(sources: Sources) -> Self {
        Self {
            sources,
            course: Mutex::default(),
            said: tokio::sync::Mutex::default(),
            standings: Standings::default(),
        }
    }

    /// Follows the course of things, for as long as it is polled.
    pub async fn follow(&self) {
        let mut steps = tokio::time::interval(STEP);
        steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            steps.tick().await;
            self.step();
        }
    }

    /// Notes how it stands.
    fn step(&self) {
        self.take_failed();
        let sample = self.sample();
        self.course().add(sample);
        self.sources.directory.traffic().rank();
    }

    /// All metrics.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub async fn written(&self, format: Format) -> Result<String, fmt::Error> {
        self.take_failed();
        let said = self.said().await;
        self.gather(&said).written(format)
    }

    /// Adds the calls that failed to what is told of tenants.
    fn take_failed(&self) {
        let traffic = self.sources.directory.traffic();
        self.sources
            .calls
            .take_failed(|tenant_id, errors| traffic.failed(tenant_id, errors));
    }

    /// What the store says of itself; asked by one at a time, and seldom.
    async fn said(&self) -> Said {
        let mut said = self.said.lock().await;
        if let Some((at, said)) = &*said
            && at.elapsed() < REMEMBERED
        {
            return *said;
        }
        let store = self.sources.tenants.store();
        let now = ask(store).await;
        *said = Some((Instant::now(), now));
        now
    }

    fn sample(&self) -> Sample {
        let Sources {
            calls,
            in_flight,
            connections,
            directory,
            memory,
            counters,
            ..
        } = &self.sources;
        let mut sample = Sample {
            time_ms: now_ms(),
            deeds: directory.traffic().deeds(),
            told: directory.traffic().told(),
            in_flight: in_flight.now() as u64,
            connections: connections.load(Ordering::Relaxed) as u64,
            rss_bytes: Process::now().resident_bytes,
            near_bytes: memory.near().map_or(0, |near| near.size().1),
            ..Sample::default()
        };
        for calls in calls.calls() {
            for (code, count) in CODE_NAMES.into_iter().zip(calls.handled) {
                sample.calls += count;
                // A caller that goes away is no error.
                if !["OK", "Canceled"].contains(&code) {
                    sample.errors += count;
                }
            }
            if !calls.rpc.streams.answers() {
                sample.took.merge(&calls.took);
            }
        }
        // Whoever follows the change feed waits for as long as nothing changes.
        let ended = counters.iter().flat_map(|counters| counters.ended());
        for (_, ended) in ended.filter(|(method, _)| *method != "changes") {
            sample.store_took.merge(&ended.took);
        }
        sample
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        // Steps are whole whoever panicked while holding them.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(store: &Handle) -> Said {
    let asked = async { (store.ping().await, store.gauges().await) };
    let (health, gauges) = timeout(PATIENCE, asked)
        .await
        .map_or((None, None), |(health, gauges)| (health.ok(), gauges.ok()));
    Said {
        exact: health.map(|health| health.exact),
        gauges: gauges.unwrap_or_default(),
    }
}

/// Milliseconds since 1970, by this machine's clock.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
