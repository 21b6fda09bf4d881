//! A line to one primary: connections that are tracked, one after the other, each
//! until the first doubt. It does not know which slots others have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use fred::{
    clients::{Client, WithOptions},
    error::Error as Driver,
    interfaces::{ClientLike, EventInterface, KeysInterface, TrackingInterface},
    types::{
        ClusterHash, Key, Resp3Frame, Value,
        client::Invalidation,
        config::{Config, Options, Server, ServerConfig, UnresponsiveConfig},
    },
};
use tokio::{sync::broadcast::Receiver, task::JoinError, time};
use tokio_util::sync::CancellationToken;

use super::{
    super::slots::Slots,
    PULSE,
    canary::{self, Canary},
    teller::Teller,
};
use crate::store::{
    Error, Result, Watch, Watcher,
    redis::{
        Settings, address,
        connection::{self, Task},
        fault::{self, Fault},
    },
};

/// How long a line waits before it connects anew, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// How lines connect, and whom they tell.
#[derive(Clone)]
pub(super) struct Maker {
    config: Config,
    settings: Settings,
    watcher: Arc<dyn Watcher>,
    /// Counts the connections that come after another of their line.
    remade: Arc<AtomicU64>,
}

impl Maker {
    pub(super) fn new(
        config: &Config,
        settings: &Settings,
        watcher: Arc<dyn Watcher>,
        remade: Arc<AtomicU64>,
    ) -> Self {
        let mut config = config.clone();
        // Tried once: without a policy the driver would not try even that.
        config.fail_fast = true;
        Self {
            config,
            settings: settings.clone(),
            watcher,
            remade,
        }
    }

    /// A client that makes one connection in its life.
    fn client(&self, server: &ServerConfig) -> Wire {
        let mut config = self.config.clone();
        config.server = server.clone();
        let (mut performance, mut connection, _) = address::behaviour(&self.settings);
        performance.broadcast_channel_capacity = self.settings.invalidation_buffer.max(1);
        // The canary notices sooner.
        connection.unresponsive = UnresponsiveConfig {
            max_timeout: None,
            ..connection.unresponsive
        };
        let client = Client::new(config, Some(performance), Some(connection), None);
        Wire(client.with_options(&Options {
            max_attempts: Some(1),
            timeout: Some(self.settings.command_timeout),
            ..Options::default()
        }))
    }
}

/// One connection of the driver's.
pub(super) struct Wire(WithOptions<Client>);

impl Wire {
    pub(super) async fn send(
        &self,
        name: &'static str,
        args: &[Bytes],
    ) -> std::result::Result<Resp3Frame, Fault> {
        let args = args.iter().cloned().map(Value::Bytes).collect();
        connection::send(&self.0, name, ClusterHash::Random, args).await
    }
}

/// A connection that tells of changes, for as long as it does.
pub(super) struct Armed {
    pub(super) wire: Wire,
    /// Its own: what it promised ends with it.
    pub(super) watch: Arc<Watch>,
    /// The slots it speaks for; outside a Cluster, all.
    pub(super) slots: Option<Slots>,
    ended: CancellationToken,
}

impl Armed {
    /// Whether it tells of changes in this slot.
    pub(super) fn covers(&self, slot: Option<u16>) -> bool {
        match (&self.slots, slot) {
            (Some(slots), Some(slot)) => slots.contains(slot),
            _ => true,
        }
    }

    /// Reads strings, as of one moment; `None` where the connection went away, or
    /// does not have the slot any more.
    pub(super) async fn mget(
        &self,
        names: Vec<Bytes>,
    ) -> Option<std::result::Result<Vec<Option<Bytes>>, Fault>> {
        let names: Vec<Key> = names.into_iter().map(Key::from).collect();
        let answer: std::result::Result<_, Driver> = tokio::select! {
            answer = self.wire.0.mget(names) => answer,
            // What the driver has not answered by now it never will.
            () = self.ended.cancelled() => return None,
        };
        match answer.map_err(|error| Fault::driver(&error)) {
            Err(Fault::NotRun(Error::Unavailable(_)) | Fault::Lost(_) | Fault::Moving) => None,
            answer => Some(answer),
        }
    }
}

/// The connections to one primary; ends when it is dropped.
pub(super) struct Line {
    server: ServerConfig,
    armed: Arc<ArcSwapOption<Armed>>,
    keeper: Task<()>,
}

impl Line {
    /// Begins to connect. Must be called in a runtime.
    pub(super) fn open(maker: Maker, server: ServerConfig, clustered: bool) -> Self {
        let armed = Arc::new(ArcSwapOption::empty());
        let keeper = Keeper {
            maker,
            server: server.clone(),
            clustered,
            armed: Arc::clone(&armed),
            told: AtomicBool::new(false),
        };
        Self {
            server,
            armed,
            keeper: Task::spawn(keeper.keep()),
        }
    }

    /// The connection that tells of changes now.
    pub(super) fn armed(&self) -> Option<Arc<Armed>> {
        self.armed.load_full()
    }

    /// Whether it can promise, at this moment, to tell of changes.
    pub(super) fn vouches(&self) -> bool {
        let armed = self.armed.load();
        armed.as_ref().is_some_and(|it| it.watch.vouch().is_some())
    }

    /// The node, in a Cluster.
    pub(super) fn server(&self) -> Option<&Server> {
        match &self.server {
            ServerConfig::Centralized { server } => Some(server),
            _ => None,
        }
    }

    pub(super) fn close(&self) {
        self.keeper.stop();
    }
}

/// Publishes an armed connection, and takes it and all it promised back when it is
/// dropped.
struct Published<'a> {
    place: &'a ArcSwapOption<Armed>,
    armed: Arc<Armed>,
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        self.place.store(None);
        self.armed.watch.break_off();
        self.armed.ended.cancel();
    }
}

/// Connects, again and again.
struct Keeper {
    maker: Maker,
    server: ServerConfig,
    clustered: bool,
    armed: Arc<ArcSwapOption<Armed>>,
    /// Whether a connection has ever told of changes.
    told: AtomicBool,
}

impl Keeper {
    async fn keep(self) {
        let (first, last) = PAUSES;
        let (mut pause, mut told) = (first, String::new());
        loop {
            let mut proven = false;
            let error = self.live(&mut proven).await;
            let words = error.to_string();
            if proven {
                tracing::info!(%error, "changes were told no more; connecting anew");
                pause = first;
            } else if words != told {
                tracing::warn!(%error, "store does not tell of changes yet");
            }
            told = words;
            time::sleep(pause).await;
            pause = (2 * pause).min(last);
        }
    }

    /// One connection, from its making to the first doubt; why it ended.
    async fn live(&self, proven: &mut bool) -> Error {
        let wire = self.maker.client(&self.server);
        let pushes = wire.0.invalidation_rx();
        let mut made = wire.0.reconnect_rx();
        // Ends with this call, and the connection with it.
        let mut router = Task(wire.0.connect());
        let within = self.maker.settings.connect_timeout;
        tokio::select! {
            ended = &mut router.0 => return cause(ended),
            made = time::timeout(within, made.recv()) => match made {
                Ok(Ok(_)) => {}
                _ => return fault::unavailable("the connection was not made in time"),
            },
        }
        let told = async {
            match self.tell(wire, pushes, proven).await {
                Ok(never) => match never {},
                Err(error) => error,
            }
        };
        tokio::select! {
            ended = &mut router.0 => cause(ended),
            error = told => error,
        }
    }

    /// Arms the connection and tells of changes, until the first doubt.
    async fn tell(
        &self,
        wire: Wire,
        pushes: Receiver<Invalidation>,
        proven: &mut bool,
    ) -> Result<Never> {
        let on = [Bytes::from_static(b"TRACKING"), Bytes::from_static(b"ON")];
        wire.send("CLIENT", &on).await.map_err(Fault::of_read)?;
        let slots = if self.clustered {
            Some(Slots::read(&canary::nodes(&wire).await?)?)
        } else {
            None
        };
        let canary = Canary::make(&wire, slots.as_ref()).await?;
        let armed = Arc::new(Armed {
            wire,
            watch: Arc::default(),
            slots,
            ended: CancellationToken::new(),
        });
        let mut teller = Teller::new(&*self.maker.watcher, canary, pushes);
        let _published = Published {
            place: &self.armed,
            armed: Arc::clone(&armed),
        };
        loop {
            let next = time::Instant::now() + PULSE;
            teller.prove(&armed).await?;
            if !*proven {
                *proven = true;
                if self.told.swap(true, Ordering::Relaxed) {
                    self.maker.remade.fetch_add(1, Ordering::Relaxed);
                }
                self.armed.store(Some(Arc::clone(&armed)));
                tracing::debug!("store tells of changes");
            }
            teller.tell_until(next).await?;
        }
    }
}

/// What is never returned.
enum Never {}

/// Why the driver's task ended.
fn cause(ended: std::result::Result<std::result::Result<(), Driver>, JoinError>) -> Error {
    match ended {
        Ok(Err(error)) => fault::connection(&error, true),
        _ => fault::unavailable("the connection was closed"),
    }
}
