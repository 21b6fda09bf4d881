//! Whole servers inside the test process, on free ports of loopback, and clients
//! that call them as any other would. It does not know what is tested.

mod clients;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use riptide_persistence::{
    config::{self, Config, Loaded, Sources},
    proto::v1::{
        CreateApiKeyRequest, CreateTenantRequest, DeleteTenantRequest, PurgeReport,
        PurgeTenantRequest, Tenant as TenantMessage,
    },
    server,
    store::{Calls, Counters},
};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

pub use self::clients::{Bearer, Clients, empty_call, fields, raw_call, reason};
use crate::redis::Redis;

/// The admin key of every server here.
pub const ADMIN_KEY: &str = "rta_the-admin-key-of-the-tests";

/// Where a server keeps what it is given.
#[derive(Clone, Copy)]
pub enum Backend<'a> {
    /// In its own memory.
    Embedded,
    /// In a Redis that the test holds.
    Redis(&'a Redis),
    /// In what is reached at this URL.
    Url(&'a str),
}

/// The backends by name, for tests that run on each:
/// `#[rstest] #[case::embedded(Kind::Embedded)] #[case::redis(Kind::Redis)]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In memory.
    Embedded,
    /// A Redis of the test's own.
    Redis,
}

impl Kind {
    /// A server that serves, on a store of its own.
    pub async fn start(self) -> Server {
        self.start_with(|_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(self, set: impl FnOnce(&mut Config)) -> Server {
        match self {
            Self::Embedded => Server::start_with(Backend::Embedded, set).await,
            Self::Redis => {
                let redis = Redis::start();
                let mut server = Server::start_with(Backend::Redis(&redis), set).await;
                server.redis = Some(redis);
                server
            }
        }
    }
}

/// A running server; it is told to stop when dropped.
pub struct Server {
    pub address: SocketAddr,
    pub admin_address: SocketAddr,
    channel: Channel,
    counters: Arc<Counters>,
    /// What is counted of TLS.
    pub tls: Arc<server::TlsFigures>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<server::Result<()>>>,
    /// The Redis that nobody else holds.
    redis: Option<Redis>,
    _folder: TempDir,
}

impl Server {
    /// A server with the tests' settings that serves.
    pub async fn start(backend: Backend<'_>) -> Self {
        Self::start_with(backend, |_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(backend: Backend<'_>, set: impl FnOnce(&mut Config)) -> Self {
        let server = Self::launch(backend, set).unwrap();
        server.serves(true).await;
        server
    }

    /// A server that listens, and may not serve yet.
    pub fn launch(backend: Backend<'_>, set: impl FnOnce(&mut Config)) -> server::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("server-")
            .tempdir()
            .unwrap();
        let sources = sources();
        let mut loaded = config::load(&sources).unwrap();
        settings(&mut loaded.config, backend, &folder);
        set(&mut loaded.config);
        Self::launch_from(loaded, sources, folder)
    }

    /// A server with the settings of these sources, which are read anew by reloads.
    pub fn launch_from(
        loaded: Loaded,
        sources: Sources<'static>,
        folder: TempDir,
    ) -> server::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        // A thread of its own, so that a test that blocks does not stop it.
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let server = match server::Server::bind(loaded, sources).await {
                    Ok(server) => server,
                    Err(error) => {
                        let _ = tell.send(Err(error));
                        return Ok(());
                    }
                };
                let addresses = (server.local_addr().unwrap(), server.admin_addr().unwrap());
                let _ = tell.send(Ok((addresses, server.counters(), server.tls())));
                server.run(async { _ = stopped.await }).await
            })
        });
        let ((address, admin_address), counters, tls) = told.recv().unwrap()?;
        Ok(Self {
            address,
            admin_address,
            channel: channel(address),
            counters,
            tls,
            stop: Some(stop),
            thread: Some(thread),
            redis: None,
            _folder: folder,
        })
    }

    /// The connection that the clients share.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A connection of one's own.
    pub fn connect(&self) -> Channel {
        channel(self.address)
    }

    /// Clients that hold this key.
    pub fn with_key(&self, key: &str) -> Clients {
        Clients::new(self.channel(), Bearer::new(key))
    }

    /// Clients that hold the admin key.
    pub fn admin(&self) -> Clients {
        self.with_key(ADMIN_KEY)
    }

    /// Clients that hold no key.
    pub fn anonymous(&self) -> Clients {
        Clients::new(self.channel(), Bearer::none())
    }

    /// A new tenant, and clients that hold its first key.
    pub async fn tenant(&self, tenant_id: &str) -> Tenant {
        let request = CreateTenantRequest {
            tenant_id: tenant_id.into(),
            ..Default::default()
        };
        let created = self
            .admin()
            .tenant
            .create_tenant(request)
            .await
            .unwrap()
            .into_inner();
        Tenant {
            clients: self.with_key(&created.secret),
            secret: created.secret,
            message: created.tenant.unwrap(),
        }
    }

    /// The secret of a new key of a tenant, with these scopes.
    pub async fn key(&self, tenant_id: &str, scopes: &[&str]) -> String {
        let request = CreateApiKeyRequest {
            tenant_id: tenant_id.into(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        self.admin()
            .tenant
            .create_api_key(request)
            .await
            .unwrap()
            .into_inner()
            .secret
    }

    /// Deletes and purges a tenant; what that removed.
    pub async fn purge(&self, tenant_id: &str) -> PurgeReport {
        let mut admin = self.admin().tenant;
        let delete = DeleteTenantRequest {
            tenant_id: tenant_id.into(),
            ..Default::default()
        };
        admin.delete_tenant(delete).await.unwrap();
        let purge = PurgeTenantRequest {
            tenant_id: tenant_id.into(),
            ..Default::default()
        };
        let purged = admin.purge_tenant(purge).await.unwrap().into_inner();
        purged.report.unwrap()
    }

    /// What `grpc.health.v1` says of a component.
    pub async fn health(&self, name: &str) -> Result<ServingStatus, Status> {
        let request = HealthCheckRequest {
            service: name.into(),
        };
        let answer = HealthClient::new(self.channel()).check(request).await?;
        Ok(answer.into_inner().status())
    }

    /// Waits until it serves, or does not.
    pub async fn serves(&self, whether: bool) {
        let wanted = if whether {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        let request = HealthCheckRequest::default();
        let watch = HealthClient::new(self.channel()).watch(request).await;
        let mut states = watch.unwrap().into_inner();
        let reached = async {
            while let Some(state) = states.message().await.unwrap() {
                if state.status() == wanted {
                    return;
                }
            }
            panic!("the health ended before it was {wanted:?}");
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        reached.unwrap_or_else(|_| panic!("the health did not become {wanted:?}"));
    }

    /// What a probe of the admin listener answers: the status and the body.
    pub fn probe(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin_address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.into(),
        )
    }

    /// Calls to the store on behalf of callers, so far.
    pub fn calls(&self) -> Calls {
        self.counters.calls()
    }

    /// The Redis it runs on, where [`Kind::start`] started one.
    pub fn redis(&mut self) -> Option<&mut Redis> {
        self.redis.as_mut()
    }

    /// The same, to be held by the test.
    pub fn take_redis(&mut self) -> Option<Redis> {
        self.redis.take()
    }

    /// Holds the Redis that it runs on.
    pub fn hold(&mut self, redis: Option<Redis>) {
        self.redis = redis;
    }

    /// Tells it to stop, and does not wait.
    pub fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Stops it and waits until it has ended.
    pub async fn stop(mut self) {
        self.begin_stop();
        let thread = self.thread.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || thread.join())
            .await
            .unwrap();
        ended.unwrap().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.begin_stop();
    }
}

/// No file, and nothing of the surrounding environment.
fn sources() -> Sources<'static> {
    Sources {
        file: None,
        env: [].into(),
        flags: vec![],
        read: &|_| Err(std::io::ErrorKind::NotFound.into()),
    }
}

/// What differs in tests from the settings as they are shipped.
fn settings(config: &mut Config, backend: Backend<'_>, folder: &TempDir) {
    let free: SocketAddr = ([127, 0, 0, 1], 0).into();
    config.server.listen = free;
    config.server.admin_listen = free;
    // More than one, so that whatever differs between cores shows.
    config.server.threads = 2;
    config.auth.admin_key = Some(ADMIN_KEY.into());
    config.store.path = folder.path().into();
    match backend {
        Backend::Embedded => {
            config.store.backend = config::Backend::Embedded;
            config.store.ephemeral = true;
        }
        Backend::Redis(redis) => {
            config.store.backend = config::Backend::Redis;
            config.redis.url = Some(redis.url().into());
        }
        Backend::Url(url) => {
            config.store.backend = config::Backend::Redis;
            config.redis.url = Some(url.into());
        }
    }
}

fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

/// A tenant and clients that hold its key.
pub struct Tenant {
    /// Its first key.
    pub secret: String,
    /// Clients that hold it.
    pub clients: Clients,
    /// What its creation answered.
    pub message: TenantMessage,
}
