//! A core: a thread with a runtime of its own, a handle to the store, and the
//! connections that live and die on it. It does not know where they come from.

use std::{
    io,
    pin::pin,
    sync::{Arc, atomic::AtomicUsize},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{Error, Parts, Result, checkpoints::Keeping, connection, listener::Socket};
use crate::{
    config,
    grpc::{Auth, CacheApi, HealthApi, Layer, Routes, Stage, StateApi, TenantApi},
    store,
};

/// How often each holder of the store asks how it is; health follows within two
/// of these and a check's own time.
const CHECK_EVERY: Duration = Duration::from_millis(400);

/// How often it asks while the store does not serve, so that a start and a
/// recovery are noticed at once; what is not connected answers without a trip.
const RECHECK_EVERY: Duration = Duration::from_millis(25);

/// How long a check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// A running core, as the accept loop sees it.
pub(super) struct Core {
    sockets: mpsc::UnboundedSender<Socket>,
    /// How many connections it has.
    pub(super) connections: Arc<AtomicUsize>,
}

/// Resolves when a thread is done.
pub(super) type End = oneshot::Receiver<()>;

impl Core {
    /// Starts the thread.
    pub(super) fn start(index: usize, parts: Arc<Parts>, keeping: Keeping) -> Result<(Self, End)> {
        let runtime = match parts.config.server.runtime {
            config::Runtime::PerCore => Builder::new_current_thread().enable_all().build(),
            config::Runtime::MultiThread => Builder::new_multi_thread()
                .worker_threads(super::threads(&parts.config.server))
                .enable_all()
                .build(),
        };
        let (sockets, taken) = mpsc::unbounded_channel();
        let end = spawn(
            format!("core-{index}"),
            runtime,
            serve(index, parts, keeping, taken),
        )?;
        Ok((
            Self {
                sockets,
                connections: Arc::default(),
            },
            end,
        ))
    }

    /// Takes over a connection.
    pub(super) fn take(&self, socket: Socket) {
        // Where the core has left already, the connection closes.
        let _ = self.sockets.send(socket);
    }
}

/// Does this work on a thread of its own.
pub(super) fn spawn(
    name: String,
    runtime: io::Result<Runtime>,
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<End> {
    let runtime = runtime.map_err(Error::Thread)?;
    let (done, end) = oneshot::channel();
    let thread = thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(work);
        // Whatever is left has had its time.
        runtime.shutdown_background();
        let _ = done.send(());
    });
    thread.map(|_| end).map_err(Error::Thread)
}

/// Serves the connections a core is given, until the server leaves and they are
/// done or out of time.
async fn serve(
    index: usize,
    parts: Arc<Parts>,
    keeping: Keeping,
    mut sockets: mpsc::UnboundedReceiver<Socket>,
) {
    parts.runtimes.add(index.to_string());
    let built = parts.store(&parts.counters);
    let built = built
        .map_err(crate::error::Error::from)
        .and_then(|store| Ok((layer(&parts, &store, keeping)?, store)));
    let (layer, store) = match built {
        Ok(built) => built,
        Err(error) => return tracing::error!(?error, "core not built"),
    };
    tokio::spawn(check(index, store.clone(), parts.clone()));
    let protocol = connection::protocol(&parts.config.server);
    let within = parts.config.server.handshake_timeout;
    let connections = TaskTracker::new();
    let mut leaving = pin!(parts.health.reached(Stage::Leaving));
    loop {
        let socket = tokio::select! {
            socket = sockets.recv() => socket,
            () = &mut leaving => None,
        };
        let Some(socket) = socket else { break };
        let (protocol, layer, health) = (protocol.clone(), layer.clone(), parts.health.clone());
        let handshake = parts.live.handshake();
        connections.spawn(async move {
            connection::serve(socket, protocol, layer, handshake, within, &health).await;
        });
    }
    connections.close();
    let most = parts.configuration.config().drain.timeout;
    if timeout(most, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections cut: drain.timeout is over"
        );
    }
    parts.stores.release(store).await;
}

/// What the calls of a core pass.
fn layer(parts: &Parts, store: &store::Handle, keeping: Keeping) -> crate::error::Result<Layer> {
    let config = &parts.config.server;
    let tenants = parts.tenants(store.clone());
    let cache = parts.cache(store.clone());
    let routes = Routes::new(
        config.max_message_bytes,
        TenantApi::new(tenants.clone()),
        CacheApi::new(tenants.clone(), cache, parts.health.clone()),
        StateApi::new(
            parts.about,
            parts.configuration.clone(),
            keeping,
            parts.health.clone(),
            tenants.clone(),
            parts.sessions(store.clone()),
        ),
        HealthApi(parts.health.clone()),
        parts.reflection,
    )?;
    let auth = Auth::new(tenants, parts.live.admins.clone());
    let (in_flight, figures) = (parts.in_flight.clone(), parts.calls.stripe());
    let tracer = parts.tracer.clone();
    Ok(Layer::new(routes, auth, in_flight, figures, config, tracer))
}

/// Asks the store how it is, and tells the health, for ever; which is a sign of life too.
pub(super) async fn check(holder: usize, store: store::Handle, parts: Arc<Parts>) {
    loop {
        parts.signs.give(holder);
        let found = timeout(CHECK_TIMEOUT, store.ping())
            .await
            .unwrap_or_else(|_| Err(store::Error::Unavailable("it does not answer".to_owned())));
        parts.health.report(holder, &found);
        sleep(if found.is_ok() {
            CHECK_EVERY
        } else {
            RECHECK_EVERY
        })
        .await;
    }
}
