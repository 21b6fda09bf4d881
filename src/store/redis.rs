//! The store on Redis 7.0 or newer: a read is one MGET, a write one script. It
//! deliberately knows nothing of what the records hold, and nothing outside this
//! folder knows the driver.
//!
//! Every space is one hash tag and so one slot; commit.lua applies a batch and
//! keeps the space's counters exact although Redis lets records expire in silence
//! (its header tells how). See keys.rs for the names and wire.rs for the layouts.

mod address;
mod clock;
mod connection;
mod fault;
mod feed;
mod keys;
mod scan;
mod script;
mod server;
mod wire;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use fred::types::{ClusterHash, config::Config};
use secrecy::SecretString;

use self::{
    connection::{Pool, Task},
    fault::Fault,
    feed::Feed,
    server::{Server, Shared},
    wire::{Answer, Basis, State, Way},
};
use super::{
    Action, Audit, Batch, Changes, Commit, Cursor, Error, Expiry, Health, Key, Mode, Page,
    Position, Query, Read, Reclaim, Reclaimed, Refusal, Result, Space, Store, Table, Usage, Write,
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
}

impl Settings {
    /// From the configuration; `None` where it has no URL.
    pub fn of(config: &crate::config::Redis) -> Option<Self> {
        Some(Self {
            url: config.url.clone()?,
            pool_size: config.pool_size,
            command_timeout: config.command_timeout,
            connect_timeout: config.connect_timeout,
        })
    }
}

/// Writes of one batch, at most; a script is not to run for long.
const MAX_WRITES: usize = 4096;
/// How often the server is asked for its time.
const TICK: Duration = Duration::from_secs(1);
/// How often a server that has stopped answering is asked again.
const PROBE: Duration = Duration::from_millis(100);
/// How often the server is asked for its settings, in ticks.
const SETTINGS_TICKS: u32 = 30;

/// The store on Redis. Its tasks end when it is dropped.
pub struct Redis {
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    feed: Feed,
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
    /// [`Error::Misuse`] for a URL that cannot be read, with what is allowed.
    pub fn connect(settings: &Settings) -> Result<Self> {
        let config = address::config(settings)?;
        let shared = Arc::new(Shared::new());
        let pool = Arc::new(Pool::open(&config, settings, &shared));
        let pulse = Task::spawn(pulse(
            Arc::clone(&pool),
            Arc::clone(&shared),
            settings.command_timeout,
        ));
        let (feed, closed, settings) = (Feed::default(), AtomicBool::new(false), settings.clone());
        Ok(Self {
            pool,
            shared,
            feed,
            config,
            settings,
            closed,
            pulse,
        })
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Runs the commit script once.
    async fn run(
        &self,
        space: &Space,
        batch: &Batch,
        basis: Basis,
        way: Way,
    ) -> std::result::Result<Bytes, Fault> {
        let mut all = vec![
            keys::state(space),
            keys::bucket_ends(space),
            keys::bucket_sums(space),
        ];
        let generation = basis.generation();
        all.extend(
            batch
                .writes
                .iter()
                .map(|write| keys::record(space, generation, &write.key)),
        );
        let mut indexes = [(Table::Tenant, 0), (Table::ApiKey, 0), (Table::Job, 0)];
        let mut changes = 0;
        let heard = *space == Space::registry();
        let mut options = BytesMut::with_capacity(wire::WRITE_BYTES * batch.writes.len());
        let mut puts = false;
        for write in &batch.writes {
            let table = write.key.table;
            let announced = heard && table.announced();
            if announced && changes == 0 {
                all.push(keys::changes());
                changes = all.len();
            }
            let mut index = 0;
            if let Some((_, known)) = indexes.iter_mut().find(|(indexed, _)| *indexed == table) {
                if *known == 0 {
                    all.push(keys::index(space, table));
                    *known = all.len();
                }
                index = *known;
            }
            puts |= matches!(write.action, Action::Put { .. });
            wire::write(&mut options, write, index, announced);
        }
        let mut args = Vec::with_capacity(1 + 2 * batch.writes.len());
        args.push(wire::batch(batch, basis, way, changes));
        let mut options = options.freeze();
        for write in &batch.writes {
            args.push(options.split_to(wire::WRITE_BYTES));
            args.push(match &write.action {
                Action::Put { value, .. } => value.clone(),
                _ => Bytes::new(),
            });
        }
        // What needs no memory goes on at maxmemory.
        let scripts = &self.shared.scripts;
        let script = if puts {
            &scripts.commit
        } else {
            &scripts.release
        };
        let answer = self.pool.script(script, all, args).await?;
        connection::bulk(answer)
            .ok_or_else(|| Fault::Lost("the commit script answered no text".into()))
    }

    /// Uncounts all that has ended, and tells the state then.
    async fn reap(&self, space: &Space) -> Result<State> {
        loop {
            let answer = self
                .run(space, &Batch::default(), Basis::Any, Way::Reap)
                .await
                .map_err(Fault::of_read)?;
            let (state, more) = wire::reaped(&answer)?;
            if !more {
                return Ok(state);
            }
        }
    }

    /// A page of an ordered table.
    async fn list_ordered(&self, space: &Space, query: &Query) -> Result<Page> {
        let after = query.after.as_ref().map(|cursor| &cursor.0[..]);
        let (from, to) = keys::lex_range(&query.prefix, after);
        let records = keys::records(space, query.table, 0);
        let last = (super::HEAD_BYTES as usize - 1)
            .saturating_add(query.value_bytes)
            .min(i32::MAX as usize);
        let index = keys::index(space, query.table);
        let number = |number: usize| Bytes::from(number.to_string());
        let args = [records.clone(), from, to, number(query.limit), number(last)];
        let answer = self
            .pool
            .script(
                &self.shared.scripts.list,
                vec![keys::state(space), index.clone()],
                args,
            )
            .await;
        let mut parts = connection::array(answer.map_err(Fault::of_read)?)?.into_iter();
        let state = State::read(parts.next().and_then(connection::bulk).as_deref())?;
        let now_ms = self.shared.clock.now_ms();
        let (mut items, mut ended) = (Vec::new(), Vec::new());
        let (mut paths, mut next) = (0, None);
        while let (Some(path), Some(stored), Some(length)) =
            (parts.next(), parts.next(), parts.next())
        {
            let path =
                connection::bulk(path).ok_or_else(|| fault::corrupt("an index holds no text"))?;
            paths += 1;
            next = Some(Cursor(path.clone()));
            if connection::number(&length) == Some(0) {
                ended.push(path);
            } else {
                items.extend(scan::item(path, stored, &length, now_ms)?);
            }
        }
        if !ended.is_empty() {
            let names = ended
                .iter()
                .map(|path| [&records[..], path].concat().into());
            let all = std::iter::once(index).chain(names).collect();
            if let Err(fault) = self
                .pool
                .script(&self.shared.scripts.sweep, all, ended)
                .await
            {
                tracing::debug!(error = %fault.of_read(), "index keeps paths of expired records");
            }
        }
        if state.removed {
            (items, next) = (Vec::new(), None);
        }
        Ok(Page {
            view: state.view,
            items,
            next: next.filter(|_| paths >= query.limit),
        })
    }
}

/// Breaks of the port's contract that would break the counters.
fn check(batch: &Batch) -> Result<()> {
    let misuse = |words: String| Err(Error::Misuse(words));
    if batch.writes.len() > MAX_WRITES {
        return misuse(format!(
            "{} writes in a batch; at most {MAX_WRITES}",
            batch.writes.len()
        ));
    }
    let mut seen = HashSet::new();
    for Write {
        key: Key { table, path },
        action,
        ..
    } in &batch.writes
    {
        if let Action::Put {
            expiry: Expiry::AfterMs(0),
            ..
        }
        | Action::Touch(Expiry::AfterMs(0)) = action
        {
            return misuse("an expiry after no time; at least 1 ms".into());
        }
        if path.is_empty() {
            return misuse("a key without a path".into());
        }
        if batch.mode == Mode::Whole && batch.writes.len() > 1 && !seen.insert((table, path)) {
            return misuse("a key is written twice in one batch".into());
        }
    }
    Ok(())
}

#[async_trait]
impl Store for Redis {
    async fn read(&self, space: &Space, generation: u64, keys: &[Key]) -> Result<Read> {
        let mut names = Vec::with_capacity(keys.len() + 1);
        names.push(keys::state(space));
        names.extend(keys.iter().map(|key| keys::record(space, generation, key)));
        let answer = self
            .pool
            .command("MGET", ClusterHash::FirstKey, &names)
            .await
            .map_err(Fault::of_read)?;
        let mut stored = connection::array(answer)?.into_iter().map(connection::bulk);
        let state = State::read(stored.next().flatten().as_deref())?;
        let now_ms = self.shared.clock.now_ms();
        let mut records = Vec::with_capacity(keys.len());
        for stored in stored {
            records.push(match stored {
                Some(stored) if !state.removed => wire::record(&stored, now_ms)?,
                _ => None,
            });
        }
        if records.len() != keys.len() {
            return Err(fault::corrupt("a read was answered in part"));
        }
        Ok(Read {
            view: state.view,
            records,
        })
    }

    async fn commit(&self, space: &Space, batch: Batch) -> Result<Commit> {
        check(&batch)?;
        let mut basis = match batch.view {
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

    async fn changes(&self, position: Option<Position>) -> Result<Changes> {
        self.follow(position).await
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

    fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    fn backend(&self) -> &'static str {
        "redis"
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Relaxed);
        self.pulse.stop();
        let within = self.settings.command_timeout;
        futures::future::join(self.pool.close(within), self.feed.close(within)).await;
        Ok(())
    }
}

/// Follows the server's clock and settings, and asks one that has stopped
/// answering until it answers.
async fn pulse(pool: Arc<Pool>, shared: Arc<Shared>, patience: Duration) {
    let mut ticks = 0;
    loop {
        let pause = if shared.breaker.is_open() {
            PROBE
        } else {
            TICK
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.breaker.opened.notified() => continue,
        }
        match pool.time(patience.min(Duration::from_millis(500))).await {
            Ok(()) => shared.breaker.answered(),
            Err(Fault::Timeout) => shared.breaker.open(),
            Err(_) => continue,
        }
        ticks += 1;
        if ticks % SETTINGS_TICKS == 0
            && let Ok(info) = pool.command("INFO", ClusterHash::Random, &[]).await
            && let Ok(server) = Server::read(&connection::text(&info).unwrap_or_default(), true)
        {
            shared.met(&server);
        }
    }
}
