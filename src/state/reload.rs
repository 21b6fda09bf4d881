//! The configuration in force, and how another one takes its place while the server
//! runs: read anew from the same sources, checked as a whole, and put in force as far
//! as that needs no restart. It does not know who uses which setting.
//!
//! A configuration with any problem changes nothing: what was loaded last and was
//! good stays in memory, whatever becomes of its file.

mod file;
mod watch;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use tokio::{sync::broadcast, task::spawn_blocking};

pub use self::watch::Watch;
use crate::{
    config::{self, Change, Config, Loaded, Problem, Sources, Succession},
    error::{Error, Result},
};

/// Problems that are told in a line of the log.
const LOGGED: usize = 8;

/// Why the configuration is read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// ReloadConfig.
    Rpc,
    /// SIGHUP.
    Signal,
    /// The file has changed.
    File,
}

impl Trigger {
    /// Its name: `rpc`, `signal` or `file`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::Signal => "signal",
            Self::File => "file",
        }
    }
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What changed is in force.
    Applied,
    /// Nothing that can be put in force has changed.
    Unchanged,
    /// There are problems, and what was in force stays.
    Rejected,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Rejected];

    /// Its name: `applied`, `unchanged` or `rejected`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
        }
    }
}

/// A reload that was tried, or how one would end.
#[derive(Clone, Debug)]
pub struct Reload {
    /// When, by this machine's clock.
    pub time: SystemTime,
    /// Why.
    pub trigger: Trigger,
    /// What became of it.
    pub outcome: Outcome,
    /// The version in force after it.
    pub version: i64,
    /// What changed and is in force.
    pub changes: Vec<Change>,
    /// What differs from what is in force, and needs a restart.
    pub requires_restart: Vec<Change>,
    /// Every problem, where it was rejected.
    pub problems: Vec<Problem>,
}

/// What is asked of a reload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Tell how it would end, and change nothing.
    pub validate_only: bool,
    /// The version that must be in force.
    pub expected_version: Option<i64>,
}

/// A configuration in force, and how it came to be.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The configuration.
    pub loaded: Loaded,
    /// Grows with every reload that was applied; 1 at the start.
    pub version: i64,
    /// When it was put in force.
    pub load_time: SystemTime,
    /// The last reload that was tried.
    pub last_reload: Option<Arc<Reload>>,
    /// How many were tried.
    tried: u64,
}

/// What puts a configuration in force; it is told of every reload that was tried.
type Follower = Box<dyn Fn(&InForce) + Send + Sync>;

/// The configuration of a server. One for all its threads.
pub struct Configuration {
    sources: Sources<'static>,
    in_force: ArcSwap<InForce>,
    follower: Follower,
    /// Held by the one reload that is done at a time.
    turn: Mutex<()>,
    /// Of the files, as they were last read.
    fingerprint: AtomicU64,
    told: broadcast::Sender<Arc<InForce>>,
    /// How many reloads came to each of [`Outcome::ALL`].
    reloads: [AtomicU64; 3],
}

impl Configuration {
    /// The configuration that was loaded from these sources, in force already, and
    /// what puts those in force that come after it.
    pub fn new(
        loaded: Loaded,
        sources: Sources<'static>,
        follower: impl Fn(&InForce) + Send + Sync + 'static,
    ) -> Self {
        let sources = sources.anew();
        let in_force = InForce {
            loaded,
            version: 1,
            load_time: SystemTime::now(),
            last_reload: None,
            tried: 0,
        };
        Self {
            fingerprint: AtomicU64::new(sources.fingerprint(&in_force.loaded.files())),
            sources,
            in_force: ArcSwap::from_pointee(in_force),
            follower: Box::new(follower),
            turn: Mutex::default(),
            told: watch::channel(),
            reloads: Default::default(),
        }
    }

    /// How many reloads were tried, by what became of them.
    pub fn reloads(&self) -> [(Outcome, u64); 3] {
        let counts = self.reloads.each_ref();
        let mut counts = counts
            .map(|count| count.load(Ordering::Relaxed))
            .into_iter();
        Outcome::ALL.map(|outcome| (outcome, counts.next().unwrap_or_default()))
    }

    /// What is in force.
    pub fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// The same, to be looked at and let go of.
    pub fn config(&self) -> impl std::ops::Deref<Target = Config> {
        Borrowed(self.in_force.load_full())
    }

    /// The sources, with the file that was read last: one that was read once must
    /// not go away in silence.
    fn sources_anew(&self) -> Sources<'static> {
        let mut sources = self.sources.clone();
        sources.file = self.in_force.load().loaded.file.clone().or(sources.file);
        sources
    }

    /// Reads the configuration anew, and puts in force what can be. One at a time;
    /// another one waits. Whoever stops waiting does not stop it.
    ///
    /// # Errors
    /// [`Error::ConfigRejected`] where another version is in force than was expected.
    pub async fn reload(self: &Arc<Self>, trigger: Trigger, asked: Asked) -> Result<Arc<Reload>> {
        let this = self.clone();
        // Files are read, and much is parsed.
        spawn_blocking(move || this.reload_now(trigger, asked))
            .await
            .unwrap_or_else(|error| Err(Error::Internal(format!("a reload broke: {error}"))))
    }

    fn reload_now(&self, trigger: Trigger, asked: Asked) -> Result<Arc<Reload>> {
        // What is in force is whole whoever panicked while replacing it.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.in_force.load_full();
        if let Some(expected) = asked.expected_version
            && expected != before.version
        {
            return Err(Error::ConfigRejected {
                expected,
                version: before.version,
            });
        }
        let sources = self.sources_anew();
        // Before it is read, so that a change meanwhile is noticed as one.
        let mut fingerprint = sources.fingerprint(&before.loaded.files());
        let mut reload = Reload {
            time: SystemTime::now(),
            trigger,
            outcome: Outcome::Rejected,
            version: before.version,
            changes: Vec::new(),
            requires_restart: Vec::new(),
            problems: Vec::new(),
        };
        let mut loaded = None;
        match config::load(&sources) {
            Ok(next) => {
                let Succession {
                    loaded: next,
                    changes,
                    requires_restart,
                } = before.loaded.succeeded_by(&next);
                if changes.is_empty() {
                    reload.outcome = Outcome::Unchanged;
                } else {
                    reload.outcome = Outcome::Applied;
                    reload.version += i64::from(!asked.validate_only);
                }
                reload.changes = changes;
                reload.requires_restart = requires_restart;
                // Where a value comes from may have changed in any case.
                loaded = Some(next);
            }
            Err(problems) => reload.problems = problems.0,
        }
        let reload = Arc::new(reload);
        if asked.validate_only {
            return Ok(reload);
        }
        reload.log();
        if let Some(count) = self.reloads.get(reload.outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(next) = loaded
            .as_ref()
            .filter(|n| n.files() != before.loaded.files())
        {
            fingerprint = sources.fingerprint(&next.files());
        }
        let applied = reload.outcome == Outcome::Applied;
        let in_force = Arc::new(InForce {
            loaded: loaded.unwrap_or_else(|| before.loaded.clone()),
            version: reload.version,
            load_time: if applied {
                reload.time
            } else {
                before.load_time
            },
            last_reload: Some(reload.clone()),
            tried: before.tried + 1,
        });
        self.in_force.store(in_force.clone());
        (self.follower)(&in_force);
        self.fingerprint.store(fingerprint, Ordering::Release);
        // Nobody may be watching.
        let _ = self.told.send(in_force);
        Ok(reload)
    }
}

/// The configuration in what is in force.
struct Borrowed(Arc<InForce>);

impl std::ops::Deref for Borrowed {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.0.loaded.config
    }
}

impl Reload {
    fn log(&self) {
        let (trigger, version) = (self.trigger.name(), self.version);
        let paths = |changes: &[Change]| {
            let paths = changes.iter().map(|change| change.path.as_str());
            paths.collect::<Vec<_>>().join(", ")
        };
        let (changed, waits) = (paths(&self.changes), paths(&self.requires_restart));
        match self.outcome {
            Outcome::Applied => tracing::info!(trigger, version, changed, "configuration reloaded"),
            Outcome::Unchanged => tracing::info!(trigger, version, "configuration unchanged"),
            Outcome::Rejected => {
                for problem in self.problems.iter().take(LOGGED) {
                    tracing::error!(trigger, version, %problem, "configuration rejected");
                }
            }
        }
        if !waits.is_empty() {
            tracing::warn!(requires_restart = waits, "settings wait for a restart");
        }
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configuration")
            .field("sources", &self.sources)
            .field("version", &self.in_force.load().version)
            .finish_non_exhaustive()
    }
}
