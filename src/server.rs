//! The composition root: a configuration becomes a server that binds, runs and
//! goes away. The only module that knows all others; it knows no rule of any.

mod admin;
mod admin_key;
mod background;
mod checkpoints;
mod connection;
mod console;
mod core;
mod listener;
mod live;
#[cfg(feature = "otlp")]
mod otlp;
mod preface;
mod signs;
mod stores;
mod tls;
mod turn;
mod warming;
mod wire;

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
    time::SystemTime,
};

use futures::{StreamExt, stream::FuturesUnordered};
use secrecy::SecretString;
use tokio::{net::TcpListener, sync::oneshot, time::sleep};

use self::{core::Core, listener::Cores, stores::Stores};
pub use self::{signs::Signs, tls::Figures as TlsFigures};
use crate::{
    cache::{Cache, Memory},
    config::{self, Config, Loaded, Sources},
    grpc::{About, Figures, Health, InFlight, Stage},
    metrics::Runtimes,
    state::{
        Configuration,
        checkpoint::Tally,
        objects::Objects,
        session::{self, Sessions},
    },
    store::{self, Counters, Watcher},
    tenant::{Directory, Masters, Tenants, elsewhere},
    trace::{Spans, Tracer},
};

/// Result of starting or running a server.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a server does not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("{setting}: cannot listen on {address}: {cause}")]
    Listen {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// What is not encrypted would be open to others than this machine.
    #[error("{setting}: {problem}")]
    Plaintext {
        /// The setting that names the address.
        setting: &'static str,
        /// The address, and what is allowed.
        problem: String,
    },
    /// The admin key can neither be read nor made.
    #[error("store.path: the admin key in {}: {cause}", .path.display())]
    AdminKey {
        /// Its file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// The store cannot be opened.
    #[error("{setting}: {cause}")]
    Store {
        /// The setting that names it.
        setting: &'static str,
        /// What the store said.
        cause: store::Error,
    },
    /// The object store of checkpoints makes no sense.
    #[error("checkpoint.url: {cause}")]
    Objects {
        /// What is wrong with it.
        cause: String,
    },
    /// Part of the server could not be built.
    #[error(transparent)]
    Build(#[from] crate::error::Error),
    /// A thread could not be started, or died.
    #[error("a thread of the server failed: {0}")]
    Thread(io::Error),
}

/// A server that holds its ports and its store, and does not serve yet.
pub struct Server {
    listener: TcpListener,
    admin: TcpListener,
    objects: Objects,
    /// The spans of calls, where they are recorded.
    spans: Option<Spans>,
    parts: Arc<Parts>,
}

/// What the threads of a server share.
struct Parts {
    /// As the server was started; what can be reloaded is in `live`.
    config: Config,
    configuration: Arc<Configuration>,
    live: Arc<live::Parts>,
    stores: Stores,
    /// Those that are held to it.
    handles: Arc<store::Handles>,
    admin_key: SecretString,
    health: Arc<Health>,
    about: About,
    in_flight: InFlight,
    /// Of the cores and the background thread.
    signs: Arc<Signs>,
    /// What is known of tenants and keys.
    directory: Arc<Directory>,
    /// What wraps the data keys of encrypted tenants.
    masters: Arc<Masters>,
    /// What is remembered of tenants' caches.
    memory: Arc<Memory>,
    /// Calls to the store on behalf of callers.
    counters: Arc<Counters>,
    /// Calls to the store for what no caller waits for.
    own_counters: Arc<Counters>,
    /// What calls came to.
    calls: Arc<Figures>,
    /// How checkpoints and restores ended.
    checkpoints: Arc<Tally>,
    /// How many sessions were created and terminated.
    sessions: Arc<session::Tally>,
    /// How many connections are open.
    connections: Arc<AtomicUsize>,
    runtimes: Arc<Runtimes>,
    /// Who makes checkpoints of purged tenants unreadable, once there is one.
    forgetting: elsewhere::Forgetting,
    reflection: bool,
    /// Records calls, where a collector is named.
    tracer: Option<Arc<Tracer>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Parts {
    /// The tenants, by way of this handle to their store.
    fn tenants(&self, store: store::Handle) -> Tenants {
        Tenants::new(
            store,
            self.directory.clone(),
            self.live.plans.clone(),
            self.admin_key.clone(),
        )
        .billed(self.live.billing.clone())
        .encrypted(self.masters.clone(), self.live.encrypts_all.clone())
        .forgotten_by(self.forgetting.clone())
    }

    /// The cache, by way of this handle to its store.
    fn cache(&self, store: store::Handle) -> Cache {
        Cache::new(store, self.memory.clone(), self.live.cache.clone())
    }

    /// The sessions, by way of this handle to their store.
    fn sessions(&self, store: store::Handle) -> Sessions {
        Sessions::new(store, self.live.session.clone(), self.live.cache.clone())
            .counted(self.sessions.clone())
    }
}

impl Server {
    /// Checks what is configured, binds the addresses and opens the store. A
    /// Redis that is not there is no error: it is waited for while serving. From the
    /// sources the configuration is read anew.
    ///
    /// # Errors
    /// [`Error`] naming the setting that does not work.
    pub async fn bind(loaded: Loaded, sources: Sources<'static>) -> Result<Self> {
        let config = loaded.config.clone();
        let server = &config.server;
        listener::allow(server)?;
        let listener = listener::bind("server.listen", server.listen).await?;
        let admin = listener::bind("server.admin_listen", server.admin_listen).await?;
        let admin_key = admin_key::obtain(&config)?;
        let memory = Arc::new(Memory::new(&config.cache.near));
        // Where nothing is kept, nobody needs to know.
        let watcher: Option<Arc<dyn Watcher>> = match memory.near() {
            Some(_) => Some(memory.clone()),
            None => None,
        };
        let objects = checkpoints::open(&config)?;
        let stores = Stores::open(&config, watcher)?;
        let masters = Arc::new(Masters::new(&config.encryption.keys()));
        if let Some(writing) = masters.writing() {
            tracing::info!(writing, known = ?masters, "master keys read");
        }
        let reflection = match server.reflection {
            config::Reflection::On => true,
            config::Reflection::Off => false,
            config::Reflection::Auto => server.listen.ip().is_loopback(),
        };
        let live = Arc::new(live::Parts::of(&config));
        let directory = Directory::new(config.auth.key_cache_ttl)
            .remembering(config.auth.remembered_ttl)
            .auditing(live.audit.clone());
        let directory = Arc::new(directory);
        directory.traffic().tell(config.metrics.tenants);
        // Each core holds a handle to the store, and the background one.
        let health = Arc::new(Health::new(cores(server) + 1));
        let recorded = config.trace.otlp_endpoint.as_ref();
        let recorded = recorded.map(|_| Tracer::new(config.trace.sample_ratio));
        let (tracer, spans) = recorded.unzip();
        let told = live::Told {
            tracer: tracer.clone(),
            parts: live.clone(),
            directory: directory.clone(),
            masters: masters.clone(),
            memory: memory.clone(),
            health: health.clone(),
            redis_tls: stores.connector(),
        };
        let follower = move |in_force: &_| told.tell(in_force);
        let parts = Parts {
            stores,
            handles: Arc::default(),
            admin_key,
            health,
            configuration: Arc::new(Configuration::new(loaded, sources, follower)),
            live,
            about: About {
                backend: stores::backend(&config),
                reflection,
                start_time: SystemTime::now(),
            },
            in_flight: InFlight::new(server.max_in_flight),
            signs: Arc::new(Signs::new(cores(server) + 1)),
            directory,
            memory,
            masters,
            counters: Arc::default(),
            own_counters: Arc::default(),
            calls: Arc::default(),
            checkpoints: Arc::default(),
            sessions: Arc::default(),
            connections: Arc::default(),
            runtimes: Arc::default(),
            forgetting: Arc::default(),
            reflection,
            tracer,
            config,
        };
        Ok(Self {
            listener,
            admin,
            objects,
            spans,
            parts: Arc::new(parts),
        })
    }

    /// Where gRPC is served: the port is the one bound, where 0 was asked for.
    ///
    /// # Errors
    /// What the system says where the socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where probes are served.
    ///
    /// # Errors
    /// What the system says where the socket is gone.
    pub fn admin_addr(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// The calls that callers' requests made to the store, as they are counted.
    pub fn counters(&self) -> Arc<Counters> {
        self.parts.counters.clone()
    }

    /// What is counted of TLS.
    pub fn tls(&self) -> Arc<TlsFigures> {
        self.parts.live.tls.clone()
    }

    /// Whether its threads live.
    pub fn signs(&self) -> Arc<Signs> {
        self.parts.signs.clone()
    }

    /// The configuration, as it is in force while the server runs.
    pub fn configuration(&self) -> Arc<Configuration> {
        self.parts.configuration.clone()
    }

    /// Serves until `shutdown` resolves; then says so in its health, finishes
    /// what is in flight within `drain.timeout`, and closes the store.
    ///
    /// # Errors
    /// [`Error::Thread`] where a thread cannot be started or died.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Self {
            listener,
            admin,
            objects,
            spans,
            parts,
        } = self;
        let (address, admin_address) = (listener.local_addr(), admin.local_addr());
        let (mut cores, mut ended) = (Vec::new(), FuturesUnordered::new());
        let (stop_checkpoints, stopped) = oneshot::channel();
        let (keeping, checkpoints_end) =
            checkpoints::start(parts.clone(), objects, stopped).await?;
        for index in 0..self::cores(&parts.config.server) {
            let (core, end) = Core::start(index, parts.clone(), keeping.clone())?;
            cores.push(core);
            ended.push(end);
        }
        let (stop, stopped) = oneshot::channel();
        let background = background::start(cores.len(), parts.clone(), admin, spans, stopped)?;
        if let (Ok(address), Ok(admin_address)) = (address, admin_address) {
            tracing::info!(%address, %admin_address, backend = stores::backend(&parts.config), "server listens");
        }

        let most = parts.config.server.max_connections;
        let cores = Cores::new(cores, most, parts.connections.clone());
        // A core that ends by itself has died, and the rest cannot make up for it.
        let mut lost = false;
        let over = async {
            tokio::select! {
                () = shutdown => {}
                _ = ended.next() => lost = true,
            }
        };
        listener::accept(&listener, &cores, over).await;
        tracing::info!("server drains");
        parts.health.enter(Stage::Draining);
        let delay = parts.configuration.config().drain.delay;
        listener::accept(&listener, &cores, sleep(delay)).await;
        drop((listener, cores));
        parts.health.enter(Stage::Leaving);
        while let Some(end) = ended.next().await {
            lost |= end.is_err();
        }
        // Calls are over, so nothing can be metered or written any more.
        drop(stop);
        lost |= background.await.is_err();
        // What was metered is part of the last checkpoint.
        drop(stop_checkpoints);
        lost |= checkpoints_end.await.is_err();
        parts.stores.close().await;
        tracing::info!("server ended");
        if lost { Err(died()) } else { Ok(()) }
    }
}

/// How many runtimes serve calls.
fn cores(config: &config::Server) -> usize {
    match config.runtime {
        config::Runtime::PerCore => threads(config),
        config::Runtime::MultiThread => 1,
    }
}

/// How many threads serve calls.
fn threads(config: &config::Server) -> usize {
    match config.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

fn died() -> Error {
    Error::Thread(io::Error::other("it panicked"))
}
