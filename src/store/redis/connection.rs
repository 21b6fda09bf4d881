//! One connection that is made in the background and remade for ever, and whether
//! it can be used now: a command is refused at once where it could only wait. It
//! does not know of other connections, or what the commands mean.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use fred::{
    clients::{Client, WithOptions},
    interfaces::{ClientLike, ClusterInterface, EventInterface, KeysInterface},
    types::{
        ClusterHash, CustomCommand, Key, Resp3Frame, Value,
        config::{Config, Options, Server as Node},
    },
};
use tokio::{
    sync::{Notify, broadcast::error::RecvError},
    task::JoinHandle,
    time,
};

use super::{
    Settings, address,
    fault::{self, Fault},
    reply,
    server::{Server, Shared},
};
use crate::store::{Error, Result};

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Task<T>(pub(super) JoinHandle<T>);

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
    /// Told when the connection is to be given up.
    renew: Notify,
    /// How often it came to be of use.
    ups: AtomicU64,
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

/// How the driver's clients are made; each is given up as a whole.
struct Maker {
    config: Config,
    settings: Settings,
}

impl Maker {
    /// A client that has not begun to connect.
    fn client(&self) -> WithOptions<Client> {
        let (performance, connection, policy) = address::behaviour(&self.settings);
        let client = Client::new(
            self.config.clone(),
            Some(performance),
            Some(connection),
            Some(policy),
        );
        client.with_options(&Options {
            max_attempts: Some(1),
            timeout: Some(self.settings.command_timeout),
            fail_fast: true,
            ..Options::default()
        })
    }
}

/// One connection (in a Cluster, one to each primary).
pub(super) struct Link {
    client: Arc<ArcSwap<WithOptions<Client>>>,
    health: Arc<Health>,
    supervisor: Task<()>,
}

impl Link {
    /// Begins to connect. Must be called in a runtime.
    pub(super) fn open(config: &Config, settings: &Settings, shared: &Arc<Shared>) -> Self {
        let maker = Maker {
            config: config.clone(),
            settings: settings.clone(),
        };
        let client = Arc::new(ArcSwap::from_pointee(maker.client()));
        let health = Arc::new(Health {
            down: ArcSwapOption::from_pointee(fault::unavailable("not connected yet")),
            run_id: ArcSwapOption::empty(),
            renew: Notify::new(),
            ups: AtomicU64::new(0),
        });
        let supervisor = Task::spawn(supervise(
            maker,
            Arc::clone(&client),
            Arc::clone(&health),
            Arc::clone(shared),
        ));
        Self {
            client,
            health,
            supervisor,
        }
    }

    /// Gives the connection up and makes another: the peer takes what is sent, and
    /// answers nothing.
    pub(super) fn renew(&self) {
        self.health.renew.notify_one();
    }

    /// Why it cannot be used now.
    pub(super) fn down(&self) -> Option<Error> {
        self.health
            .down
            .load()
            .as_ref()
            .map(|error| Error::clone(error))
    }

    /// How many connections can be used now: one, or one to each primary; and how often
    /// it was of no use and came to be of use again.
    pub(super) fn connections(&self) -> [u64; 2] {
        let ups = self.health.ups.load(Ordering::Relaxed);
        let open = match self.down() {
            Some(_) => 0,
            None => self.client.load().active_connections().len() as u64,
        };
        [open, ups.saturating_sub(1)]
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
        send(&self.client.load_full(), name, hash, args).await
    }

    /// Reads strings, as of one moment.
    pub(super) async fn mget(
        &self,
        names: Vec<Bytes>,
    ) -> std::result::Result<Vec<Option<Bytes>>, Fault> {
        let names: Vec<Key> = names.into_iter().map(Key::from).collect();
        let client = self.client.load_full();
        client
            .mget(names)
            .await
            .map_err(|error| Fault::driver(&error))
    }

    /// Sends a command that may wait at the server for so long.
    pub(super) async fn send_blocking(
        &self,
        name: &'static str,
        hash: ClusterHash,
        args: Vec<Value>,
        wait: Duration,
    ) -> std::result::Result<Resp3Frame, Fault> {
        let client = self.client.load_full();
        let options = client.options();
        let timeout = options.timeout.map(|timeout| timeout + wait);
        let client = client.with_options(&Options {
            timeout,
            ..options.clone()
        });
        read(
            client
                .custom_raw(CustomCommand::new_static(name, hash, true), args)
                .await,
        )
    }

    /// What a walk over the keys of a slot depends on: another text means that
    /// cursors mean nothing any more.
    pub(super) fn place(&self, hash: &ClusterHash) -> String {
        let client = self.client.load();
        if let ClusterHash::Custom(slot) = hash
            && client.is_clustered()
        {
            let state = client.cached_cluster_state();
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

    /// The primaries of a Cluster, as far as they are known.
    pub(super) fn primaries(&self) -> Vec<Node> {
        let state = self.client.load().cached_cluster_state();
        state.map_or_else(Vec::new, |state| state.unique_primary_nodes())
    }

    /// What sends a command to each primary: a slot of it, or of the only one any.
    pub(super) fn one_each(&self) -> Vec<ClusterHash> {
        let client = self.client.load();
        if !client.is_clustered() {
            return vec![ClusterHash::Random];
        }
        let state = client.cached_cluster_state();
        let slots = state.map_or_else(Vec::new, |state| state.unique_hash_slots());
        slots.into_iter().map(ClusterHash::Custom).collect()
    }

    /// Lets go of the connection; within this time it is told to the server.
    pub(super) async fn close(&self, within: Duration) {
        self.health
            .down
            .store(Some(Arc::new(fault::unavailable("closed"))));
        let client = self.client.load_full();
        if client.is_connected() {
            let _ = time::timeout(within, client.quit()).await;
        }
        self.supervisor.stop();
    }
}

pub(super) async fn send(
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
    answer
        .map_err(|error| Fault::driver(&error))
        .and_then(reply::refused)
}

/// Keeps a connection, and says whether it can be used.
async fn supervise(
    maker: Maker,
    current: Arc<ArcSwap<WithOptions<Client>>>,
    health: Arc<Health>,
    shared: Arc<Shared>,
) {
    loop {
        let client = current.load_full();
        // Its commands wait for the driver to be done with connecting.
        let patient = client.with_options(&Options {
            fail_fast: false,
            ..client.options().clone()
        });
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
                    time::sleep(Duration::from_millis(200)).await;
                    break;
                }
                () = health.renew.notified() => {
                    health.set_down(fault::unavailable("the connection gave no answers"));
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
                connect = connects.recv() => match connect {
                    Ok(_) | Err(RecvError::Lagged(_)) => true,
                    Err(RecvError::Closed) => break,
                },
                () = time::sleep(Duration::from_millis(50)), if is_down => client.is_connected(),
            };
            if verify {
                match welcome(&patient, &shared).await {
                    Ok(server) => {
                        health.run_id.store(Some(Arc::new(server.run_id.clone())));
                        shared.met(&server);
                        if health.down.swap(None).is_some() {
                            health.ups.fetch_add(1, Ordering::Relaxed);
                            tracing::info!(version = %server.version, "store connection is up");
                        }
                    }
                    Err(error) => health.set_down(error),
                }
            }
        }
        drop(router);
        current.store(Arc::new(maker.client()));
    }
}

/// Learns whether the server behind a new connection can be worked with, and
/// makes it ready.
async fn welcome(client: &WithOptions<Client>, shared: &Shared) -> Result<Server> {
    let info = send(client, "INFO", ClusterHash::Random, Vec::new())
        .await
        .map_err(Fault::of_read)?;
    let server = Server::read(
        &reply::text(&info).unwrap_or_default(),
        client.is_clustered(),
    )?;
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
        script.loaded(
            reply::bulk(digest).ok_or_else(|| fault::unavailable("it does not keep scripts"))?,
        );
    }
    Ok(server)
}
