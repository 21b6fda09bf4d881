//! The store on Redis 7.0 or newer: a read is one MGET, a write one script. It
//! deliberately knows nothing of what the records hold, and nothing outside this
//! folder knows the driver.
//!
//! Every space is one hash tag and so one slot; commit.lua applies a batch and
//! keeps the space's counters exact although Redis lets records expire in silence
//! (its header tells how), and state.lua its meters. Batches that come at the same time
//! for one space travel together (group.rs). Rows of counters and windows
//! are hashes, each moved by one script: tally.lua, lease.lua. The log of a space is a
//! stream, appended to by commit.lua (see log.rs). What is read to be kept is read
//! through tracked connections (tracking.rs). What a pinned space held is kept by
//! commit.lua as it changes (keep.lua), and read beside the walk over what did not
//! (pinned.rs). See keys.rs for the names and wire.rs for the layouts.

mod address;
mod audit;
mod clock;
mod commit;
mod connection;
mod fault;
mod feed;
mod gauges;
mod group;
mod inherit;
mod keys;
mod lease;
mod listing;
mod log;
mod meters;
mod pinned;
mod pins;
mod pool;
mod pulse;
mod recall;
mod reclaim;
mod reply;
mod scan;
mod script;
mod server;
mod slots;
mod state;
mod tally;
mod ties;
mod tls;
mod tracking;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::{ClusterHash, config::Config};
use secrecy::SecretString;

pub use self::tls::Connector;
use self::{
    commit::check,
    connection::Task,
    fault::Fault,
    feed::Feed,
    group::Groups,
    pool::Pool,
    pulse::pulse,
    server::Shared,
    state::State,
    tracking::{Told, Tracking},
    wire::{Answer, Basis, Way},
};
use super::{
    Audit, Batch, Changes, Commit, Cursor, Error, Gauges, Health, Keep, Key, Lease, Leased, Meters,
    Notes, Page, Pin, PinnedPage, Pinning, Position, Query, Read, Recall, Recalled, Reclaim,
    Reclaimed, Refusal, Result, Row, Space, Step, Store, Table, Tallied, Tally, Ties, Unit, Usage,
    Watched, Watcher, misuse,
};

/// How Redis is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its URL; may hold a password.
    pub url: SecretString,
    /// Connections.
    pub pool_size: usize,
    /// How long a command may take.
    pub command_timeout: Duration,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How many invalidations may wait on a tracked connection to be taken in.
    pub invalidation_buffer: usize,
    /// How connections begin in TLS, where the URL asks for it; as this machine does
    /// with others where nothing is said.
    pub tls: Option<Connector>,
}

impl Settings {
    /// From the configuration.
    ///
    /// # Errors
    /// [`Error::Unusable`] where it has no URL, or TLS cannot be spoken.
    pub fn of(config: &crate::config::Redis) -> Result<Self> {
        let url = config.url.clone();
        let url = url.ok_or_else(|| Error::Unusable("it is not set".to_owned()))?;
        let tls = address::is_tls(&url).then(|| Connector::of(&config.tls));
        Ok(Self {
            url,
            pool_size: config.pool_size,
            command_timeout: config.command_timeout,
            connect_timeout: config.connect_timeout,
            invalidation_buffer: config.invalidation_buffer,
            tls: tls.transpose()?,
        })
    }
}

/// The store on Redis. Its tasks end when it is dropped.
pub struct Redis {
    pool: Arc<Pool>,
    groups: Groups,
    shared: Arc<Shared>,
    feed: Feed,
    tracking: Option<Tracking>,
    config: Config,
    settings: Settings,
    closed: AtomicBool,
    pulse: Task<()>,
}

impl Redis {
    /// Begins to connect and returns at once; until it has, calls answer
    /// [`Error::Unavailable`], or [`Error::Unusable`] where trying is vain. Must
    /// be called in a runtime.
    ///
    /// # Errors
    /// [`Error::Unusable`] for a URL that cannot be read, with what is allowed.
    pub fn connect(settings: &Settings) -> Result<Self> {
        Self::connect_watched(settings, None)
    }

    /// The same, and tells this watcher of changes to what is read with
    /// [`Store::read_watched`], over connections of their own.
    ///
    /// # Errors
    /// As [`Redis::connect`].
    pub fn connect_watched(settings: &Settings, watcher: Option<Arc<dyn Watcher>>) -> Result<Self> {
        let config = address::config(settings)?;
        let shared = Arc::new(Shared::new());
        let pool = Arc::new(Pool::open(&config, settings, &shared));
        let pulse = Task::spawn(pulse(
            Arc::clone(&pool),
            Arc::clone(&shared),
            settings.command_timeout,
        ));
        let tracking = watcher.map(|watcher| Tracking::open(&config, settings, &pool, watcher));
        let (feed, closed, settings) = (Feed::default(), AtomicBool::new(false), settings.clone());
        let groups = Groups::new(Arc::clone(&pool), Arc::clone(&shared));
        Ok(Self {
            pool,
            groups,
            shared,
            feed,
            tracking,
            config,
            settings,
            closed,
            pulse,
        })
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Records from what is stored under [`names`], those whose time is over among
    /// them where they linger.
    fn records(&self, stored: Vec<Option<Bytes>>, count: usize, lingering: bool) -> Result<Read> {
        let mut stored = stored.into_iter();
        let state = State::read(stored.next().flatten().as_deref())?;
        // At the beginning of time nothing has ended.
        let now_ms = if lingering {
            0
        } else {
            self.shared.clock.now_ms()
        };
        let mut records = Vec::with_capacity(count);
        for stored in stored {
            records.push(match stored {
                Some(stored) if !state.removed => wire::record(&stored, now_ms)?,
                _ => None,
            });
        }
        if records.len() != count {
            return Err(fault::corrupt("a read was answered in part"));
        }
        Ok(Read {
            view: state.seen(),
            records,
        })
    }
}

/// The names of what a read needs: the space's state, and the records.
fn names(space: &Space, generation: u64, keys: &[Key]) -> Vec<Bytes> {
    let mut names = Vec::with_capacity(keys.len() + 1);
    names.push(keys::state(space));
    names.extend(keys.iter().map(|key| keys::record(space, generation, key)));
    names
}

#[async_trait]
impl Store for Redis {
    async fn read(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        let stored = self.pool.mget(names(space, generation, keys)).await;
        self.records(stored.map_err(Fault::of_read)?, keys.len(), false)
    }

    async fn read_lingering(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        let stored = self.pool.mget(names(space, generation, keys)).await;
        self.records(stored.map_err(Fault::of_read)?, keys.len(), true)
    }

    async fn read_watched(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Watched> {
        let told = match &self.tracking {
            Some(tracking) => tracking.mget(names(space, generation, keys)).await,
            None => None,
        };
        let Some(told) = told else {
            let (read, vouch) = (self.read(space, generation, keys).await?, None);
            return Ok(Watched { read, vouch });
        };
        let Told { stored, vouch } = self.pool.judged(told).map_err(Fault::of_read)?;
        Ok(Watched {
            read: self.records(stored, keys.len(), false)?,
            vouch: Some(vouch).filter(|vouch| vouch.holds(Instant::now())),
        })
    }

    async fn commit(&self, space: &Space, batch: Batch) -> Result<Commit> {
        check(&batch)?;
        if let Some(Step::Inherit(inheritance)) = &batch.step {
            return self.inherit(space, batch.view, inheritance).await;
        }
        let mut basis = match batch.view {
            Some(view) if batch.later => Basis::Since(view),
            Some(view) => Basis::View(view),
            // The keys name a generation: the first is tried, and the answer tells
            // the right one.
            None if batch
                .writes
                .iter()
                .any(|write| write.key.table.generational()) =>
            {
                Basis::Generation(0)
            }
            None => Basis::Any,
        };
        loop {
            let answer = self
                .run(space, &batch, basis, Way::of(batch.mode))
                .await
                .map_err(Fault::of_commit)?;
            match wire::answer(&answer, &batch, self.shared.exact())? {
                Answer::Commit(Commit::Refused(Refusal::Stale(view))) if batch.view.is_none() => {
                    basis = Basis::Generation(view.generation);
                }
                Answer::Commit(commit) => return Ok(commit),
                // More has ended than one script may uncount; nothing was written.
                Answer::Again => drop(self.reap(space).await?),
            }
        }
    }

    async fn list(&self, space: &Space, query: Query) -> Result<Page> {
        if !(1..=1000).contains(&query.limit) {
            return Err(Error::Misuse("a page has 1 to 1000 records".into()));
        }
        match query.table {
            Table::Entry => self.list_entries(space, &query).await,
            table if table.ordered() => self.list_ordered(space, &query).await,
            table => Err(Error::Misuse(format!("{table:?} cannot be listed"))),
        }
    }

    async fn usage(&self, space: &Space) -> Result<Usage> {
        Ok(self.reap(space).await?.usage(self.shared.exact()))
    }

    async fn meters(&self, space: &Space, unit: Unit) -> Result<Meters> {
        self.read_meters(space, unit).await
    }

    async fn tally(&self, space: &Space, tally: Tally) -> Result<Tallied> {
        misuse::tally(&tally)?;
        self.add(space, &tally).await
    }

    async fn rows(&self, space: &Space, names: &[Bytes]) -> Result<Vec<Row>> {
        misuse::rows(names)?;
        self.counters(space, names).await
    }

    async fn recall(&self, recall: Recall) -> Result<Recalled> {
        self.walk_names(&recall).await
    }

    async fn lease(&self, space: &Space, lease: Lease) -> Result<Leased> {
        misuse::lease(&lease)?;
        self.lend(space, &lease).await
    }

    async fn audit(&self, space: &Space) -> Result<Audit> {
        self.audit_space(space).await
    }

    async fn reclaim(
        &self,
        space: &Space,
        what: Reclaim,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Reclaimed> {
        self.reclaim_space(space, what, after, limit).await
    }

    async fn pin(&self, space: &Space, keep: Keep) -> Result<Pinning> {
        misuse::keep(keep)?;
        self.begin_pin(space, keep).await
    }

    async fn pinned(
        &self,
        pins: &[Pin],
        tables: &[Table],
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<PinnedPage> {
        self.read_pins(pins, tables, after, limit).await
    }

    async fn unpin(&self, pin: &Pin) -> Result<()> {
        self.end_pin(pin).await
    }

    async fn changes(&self, position: Option<Position>) -> Result<Changes> {
        self.follow(position).await
    }

    async fn notes(&self, space: &Space, after: Option<Position>, limit: usize) -> Result<Notes> {
        self.read_log(space, after, limit).await
    }

    async fn ping(&self) -> Result<Health> {
        let asked = Instant::now();
        let ping = self.pool.command("PING", ClusterHash::Random, &[]);
        let answer = tokio::time::timeout(Duration::from_secs(1), ping)
            .await
            .unwrap_or(Err(Fault::Timeout));
        answer.map_err(Fault::of_read)?;
        let latency_us = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(Health {
            latency_us,
            exact: self.shared.exact(),
            version: self.shared.version(),
        })
    }

    async fn gauges(&self) -> Result<Gauges> {
        self.ask_gauges().await
    }

    fn ties(&self) -> Ties {
        self.tied()
    }

    fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    fn backend(&self) -> &'static str {
        "redis"
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Relaxed);
        self.pulse.stop();
        if let Some(tracking) = &self.tracking {
            tracking.close();
        }
        let within = self.settings.command_timeout;
        futures::future::join(self.pool.close(within), self.feed.close(within)).await;
        Ok(())
    }
}
