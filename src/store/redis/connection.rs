//! Connections that are made in the background and remade for ever, and whether
//! they can be used now: a command is refused at once where it could only wait.
//! It does not know what the commands mean.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use fred::{
    clients::{Client, WithOptions},
    interfaces::{ClientLike, ClusterInterface, EventInterface},
    types::{
        ClusterHash, CustomCommand, Resp3Frame, Value,
        config::{Config, Options},
    },
};
use tokio::{sync::broadcast::error::RecvError, task::JoinHandle, time};

use super::{
    Settings, address,
    fault::{self, Fault},
    script::Script,
    server::{Server, Shared},
};
use crate::store::{Error, Result};

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    pub(super) fn spawn(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }

    pub(super) fn stop(&self) {
        self.0.abort();
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a connection cannot be used; nothing where it can.
#[derive(Debug)]
struct Health {
    down: ArcSwapOption<Error>,
    run_id: ArcSwapOption<String>,
}

impl Health {
    fn set_down(&self, error: Error) {
        let before = self.down.swap(Some(Arc::new(error.clone())));
        let told = before.is_some_and(|before| before.to_string() == error.to_string());
        if !told {
            tracing::warn!(%error, "store connection is down");
        }
    }
}

/// One connection (in a Cluster, one to each primary).
pub(super) struct Link {
    client: WithOptions<Client>,
    health: Arc<Health>,
    supervisor: Task<()>,
}

impl Link {
    /// Begins to connect. Must be called in a runtime.
    pub(super) fn open(config: &Config, settings: &Settings, shared: &Arc<Shared>) -> Self {
        let (performance, connection, policy) = address::behaviour(settings);
        let client = Client::new(
            config.clone(),
            Some(performance),
            Some(connection),
            Some(policy),
        );
        let health = Arc::new(Health {
            down: ArcSwapOption::from_pointee(fault::unavailable("not connected yet")),
            run_id: ArcSwapOption::empty(),
        });
        let patient = client.with_options(&Options {
            max_attempts: Some(1),
            timeout: Some(settings.command_timeout),
            ..Options::default()
        });
        let hasty = client.with_options(&Options {
            fail_fast: true,
            ..patient.options().clone()
        });
        let supervisor = Task::spawn(supervise(
            client,
            patient,
            Arc::clone(&health),
            Arc::clone(shared),
        ));
        Self {
            client: hasty,
            health,
            supervisor,
        }
    }

    /// Why it cannot be used now.
    pub(super) fn down(&self) -> Option<Error> {
        self.health
            .down
            .load()
            .as_ref()
            .map(|error| Error::clone(error))
    }

    /// Waits until it can be used, for a while.
    pub(super) async fn ready(&self, within: Duration) {
        let until = Instant::now() + within;
        while self.health.down.load().is_some() && Instant::now() < until {
            time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn send(
        &self,
        name: &'static str,
        hash: ClusterHash,
        args: Vec<Value>,
    ) -> std::result::Result<Resp3Frame, Fault> {
        send(&self.client, name, hash, args).await
    }

    /// Sends a command that may wait at the server for so long.
    pub(super) async fn send_blocking(
        &self,
        name: &'static str,
        args: Vec<Value>,
        wait: Duration,
    ) -> std::result::Result<Resp3Frame, Fault> {
        let options = self.client.options();
        let timeout = options.timeout.map(|timeout| timeout + wait);
        let client = self.client.with_options(&Options {
            timeout,
            ..options.clone()
        });
        read(
            client
                .custom_raw(
                    CustomCommand::new_static(name, ClusterHash::FirstKey, true),
                    args,
                )
                .await,
        )
    }

    /// What a walk over the keys of a slot depends on: another text means that
    /// cursors mean nothing any more.
    pub(super) fn place(&self, hash: &ClusterHash) -> String {
        if let ClusterHash::Custom(slot) = hash
            && self.client.is_clustered()
        {
            let state = self.client.cached_cluster_state();
            return state
                .and_then(|state| state.get_server(*slot).map(ToString::to_string))
                .unwrap_or_default();
        }
        self.health
            .run_id
            .load()
            .as_ref()
            .map(|id| String::clone(id))
            .unwrap_or_default()
    }

    /// Lets go of the connection; within this time it is told to the server.
    pub(super) async fn close(&self, within: Duration) {
        self.health
            .down
            .store(Some(Arc::new(fault::unavailable("closed"))));
        if self.client.is_connected() {
            let _ = time::timeout(within, self.client.quit()).await;
        }
        self.supervisor.stop();
    }
}

async fn send(
    client: &WithOptions<Client>,
    name: &'static str,
    hash: ClusterHash,
    args: Vec<Value>,
) -> std::result::Result<Resp3Frame, Fault> {
    read(
        client
            .custom_raw(CustomCommand::new_static(name, hash, false), args)
            .await,
    )
}

fn read(
    answer: std::result::Result<Resp3Frame, fred::error::Error>,
) -> std::result::Result<Resp3Frame, Fault> {
    match answer {
        Ok(Resp3Frame::SimpleError { data, .. }) => Err(Fault::answered(&data)),
        Ok(Resp3Frame::BlobError { data, .. }) => {
            Err(Fault::answered(&String::from_utf8_lossy(&data)))
        }
        Ok(frame) => Ok(frame),
        Err(error) => Err(Fault::driver(&error)),
    }
}

/// Keeps a connection, and says whether it can be used.
async fn supervise(
    client: Client,
    patient: WithOptions<Client>,
    health: Arc<Health>,
    shared: Arc<Shared>,
) {
    loop {
        let mut errors = client.error_rx();
        let mut connects = client.reconnect_rx();
        let mut router = Task(client.connect());
        loop {
            let is_down = health.down.load().is_some();
            // Errors come first: one that is older than a connect must not undo it.
            let verify = tokio::select! {
                biased;
                ended = &mut router.0 => {
                    if let Ok(Err(error)) = ended {
                        health.set_down(fault::connection(&error, true));
                    }
                    break;
                }
                error = errors.recv() => match error {
                    Ok((error, server)) => {
                        health.set_down(fault::connection(&error, server.is_none()));
                        false
                    }
                    Err(RecvError::Lagged(_)) => false,
                    Err(RecvError::Closed) => break,
                },
                connect = connects.recv() => !matches!(connect, Err(RecvError::Closed)),
                () = time::sleep(Duration::from_millis(50)), if is_down => client.is_connected(),
            };
            if verify {
                match welcome(&patient, &shared).await {
                    Ok(server) => {
                        health.run_id.store(Some(Arc::new(server.run_id.clone())));
                        shared.met(&server);
                        if health.down.swap(None).is_some() {
                            tracing::info!(version = %server.version, "store connection is up");
                        }
                    }
                    Err(error) => health.set_down(error),
                }
            }
        }
        time::sleep(Duration::from_millis(200)).await;
    }
}

/// Learns whether the server behind a new connection can be worked with, and
/// makes it ready.
async fn welcome(client: &WithOptions<Client>, shared: &Shared) -> Result<Server> {
    let info = send(client, "INFO", ClusterHash::Random, Vec::new())
        .await
        .map_err(Fault::of_read)?;
    let server = Server::read(&text(&info).unwrap_or_default(), client.is_clustered())?;
    shared
        .ask_time(send(client, "TIME", ClusterHash::Random, Vec::new()))
        .await
        .map_err(Fault::of_read)?;
    for script in shared
        .scripts
        .all()
        .into_iter()
        .filter(|script| script.digest().is_none())
    {
        let args = vec![Value::from_static_str("LOAD"), Value::Bytes(script.text())];
        let digest = send(client, "SCRIPT", ClusterHash::Random, args)
            .await
            .map_err(Fault::of_read)?;
        script.loaded(bulk(digest).ok_or_else(|| fault::unavailable("it does not keep scripts"))?);
    }
    Ok(server)
}

/// Several connections, used in turn.
pub(super) struct Pool {
    links: Vec<Link>,
    next: AtomicUsize,
    shared: Arc<Shared>,
    /// How long a command that meets a moving slot is repeated.
    patience: Duration,
}

impl Pool {
    pub(super) fn open(config: &Config, settings: &Settings, shared: &Arc<Shared>) -> Self {
        Self {
            links: (0..settings.pool_size.max(1))
                .map(|_| Link::open(config, settings, shared))
                .collect(),
            next: AtomicUsize::new(0),
            shared: Arc::clone(shared),
            patience: settings.command_timeout,
        }
    }

    /// A connection that can be used, or why there is none.
    pub(super) fn link(&self) -> Result<&Link> {
        let mut down = None;
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for link in self
            .links
            .iter()
            .cycle()
            .skip(first % self.links.len())
            .take(self.links.len())
        {
            match link.down() {
                None => return Ok(link),
                Some(error) => down = down.or(Some(error)),
            }
        }
        Err(down.unwrap_or_else(|| fault::unavailable("not connected")))
    }

    /// Runs a command. `args` are all that follow its name.
    pub(super) async fn command(
        &self,
        name: &'static str,
        hash: ClusterHash,
        args: &[Bytes],
    ) -> std::result::Result<Resp3Frame, Fault> {
        let until = Instant::now() + self.patience;
        loop {
            match self
                .once(
                    name,
                    hash.clone(),
                    args.iter().cloned().map(Value::Bytes).collect(),
                )
                .await
            {
                Err(Fault::Moving) if Instant::now() < until => {
                    let [jitter] = crate::random::bytes();
                    time::sleep(Duration::from_millis(5 + u64::from(jitter % 16))).await;
                }
                answer => return answer,
            }
        }
    }

    async fn once(
        &self,
        name: &'static str,
        hash: ClusterHash,
        args: Vec<Value>,
    ) -> std::result::Result<Resp3Frame, Fault> {
        let breaker = &self.shared.breaker;
        breaker.check().map_err(Fault::NotRun)?;
        let answer = self
            .link()
            .map_err(Fault::NotRun)?
            .send(name, hash, args)
            .await;
        match &answer {
            Err(Fault::Timeout) => breaker.timed_out(),
            Ok(_) => breaker.answered(),
            Err(_) => {}
        }
        answer
    }

    /// Runs a script. A server that does not have it is given it.
    pub(super) async fn script(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: impl IntoIterator<Item = Bytes>,
    ) -> std::result::Result<Resp3Frame, Fault> {
        let digest = script.digest();
        let known = digest.is_some();
        let mut all = Vec::with_capacity(2 * keys.len() + 4);
        all.push(digest.unwrap_or_else(|| script.text()));
        all.push(Bytes::from(keys.len().to_string()));
        all.extend(keys);
        all.extend(args);
        // The first key tells the slot.
        let hash = ClusterHash::Offset(2);
        if known {
            match self.command("EVALSHA", hash.clone(), &all).await {
                Err(Fault::NoScript) => {}
                answer => return answer,
            }
            if let Some(first) = all.first_mut() {
                *first = script.text();
            }
        }
        self.command("EVAL", hash, &all).await
    }

    /// Asks the server for its time, on any connection that can be used.
    pub(super) async fn time(&self, within: Duration) -> std::result::Result<(), Fault> {
        let link = self.link().map_err(Fault::NotRun)?;
        let asked = self
            .shared
            .ask_time(link.send("TIME", ClusterHash::Random, Vec::new()));
        time::timeout(within, asked)
            .await
            .unwrap_or(Err(Fault::Timeout))
    }

    pub(super) async fn close(&self, within: Duration) {
        futures::future::join_all(self.links.iter().map(|link| link.close(within))).await;
    }
}

/// The bytes of a string answer.
pub(super) fn bulk(frame: Resp3Frame) -> Option<Bytes> {
    match frame {
        Resp3Frame::BlobString { data, .. }
        | Resp3Frame::SimpleString { data, .. }
        | Resp3Frame::VerbatimString { data, .. } => Some(data),
        _ => None,
    }
}

/// The text of a string answer.
pub(super) fn text(frame: &Resp3Frame) -> Option<String> {
    bulk(frame.clone()).map(|data| String::from_utf8_lossy(&data).into_owned())
}

/// The number of a number answer.
pub(super) fn number(frame: &Resp3Frame) -> Option<i64> {
    match frame {
        Resp3Frame::Number { data, .. } => Some(*data),
        _ => None,
    }
}

/// The items of an array answer; an error where it is none.
pub(super) fn array(frame: Resp3Frame) -> Result<Vec<Resp3Frame>> {
    match frame {
        Resp3Frame::Array { data, .. } => Ok(data),
        Resp3Frame::Null => Ok(Vec::new()),
        _ => Err(fault::corrupt("an answer has another shape than expected")),
    }
}
