//! What no caller waits for, on a thread of its own: the admin listener, the change feed, and
//! the work behind the calls. It does not know how any of it is done.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, runtime::Builder, sync::oneshot, time::timeout};

#[cfg(feature = "otlp")]
use super::otlp;
use super::{
    Error, Parts, Result,
    admin::{self, Admin},
    core::{End, check, spawn},
    warming::Warming,
};
use crate::{
    cache::Sweeper,
    metrics::{Metrics, Sources},
    tenant::Tenants,
    trace::Spans,
};

/// How long the last uses of keys may take to be kept.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the last usage may take to be flushed.
const METERS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last audit events may take to be kept.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts the thread; it ends when `stopped` resolves.
pub(super) fn start(
    holder: usize,
    parts: Arc<Parts>,
    admin: TcpListener,
    spans: Option<Spans>,
    stopped: oneshot::Receiver<()>,
) -> Result<End> {
    let listener = admin.into_std().map_err(Error::Thread)?;
    let runtime = Builder::new_current_thread().enable_all().build();
    spawn("background".to_owned(), runtime, async move {
        parts.runtimes.add("background");
        let store = match parts.store(&parts.own_counters) {
            Ok(store) => store,
            Err(error) => return tracing::error!(%error, "background not built"),
        };
        let tenants = parts.tenants(store.clone());
        let directory = parts.directory.clone();
        let feed = store.clone();
        let warming = Warming::of(&parts, store.clone(), tenants.clone());
        if let Some(warming) = warming.clone() {
            tokio::spawn(async move { warming.run().await });
        }
        tokio::spawn(check(holder, store.clone(), parts.clone()));
        let metrics = Arc::new(Metrics::new(sources(&parts, tenants.clone())));
        tokio::spawn(admin::serve(listener, Admin::new(&parts, metrics.clone())));
        tokio::spawn(async move { metrics.follow().await });
        tokio::spawn(async move { directory.follow(feed).await });
        let (audit, kept_in) = (parts.directory.audit().clone(), store.clone());
        tokio::spawn(async move { audit.keep(kept_in).await });
        let configuration = parts.configuration.clone();
        tokio::spawn(async move { configuration.follow_file().await });
        let work = tenants.clone();
        let sweeper = Sweeper::new(parts.directory.clone());
        tokio::spawn(async move { work.maintain(sweeper).await });
        #[cfg(feature = "otlp")]
        let exporter =
            parts.tracer.clone().zip(spans).and_then(|(tracer, spans)| {
                otlp::Exporter::start(&parts.config.trace, tracer, spans)
            });
        // Without it no collector can be named, and nothing is recorded.
        #[cfg(not(feature = "otlp"))]
        drop(spans);
        let _ = stopped.await;
        if let Some(warming) = warming {
            warming.keep_last().await;
        }
        if timeout(METERS_TIMEOUT, tenants.flush_last_meters())
            .await
            .is_err()
        {
            tracing::warn!("last usage not flushed in time");
        }
        match timeout(FLUSH_TIMEOUT, tenants.flush_uses()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "last uses of api keys not kept"),
            Err(_) => tracing::warn!("last uses of api keys not kept in time"),
        }
        let audit = parts.directory.audit();
        audit.keep_last(&store, AUDIT_TIMEOUT).await;
        #[cfg(feature = "otlp")]
        if let Some(exporter) = exporter {
            exporter.finish().await;
        }
        parts.stores.release(store).await;
    })
}

/// What is told of a server.
fn sources(parts: &Parts, tenants: Tenants) -> Sources {
    Sources {
        about: parts.about,
        calls: parts.calls.clone(),
        in_flight: parts.in_flight.clone(),
        connections: parts.connections.clone(),
        health: parts.health.clone(),
        directory: parts.directory.clone(),
        memory: parts.memory.clone(),
        configuration: parts.configuration.clone(),
        handles: parts.handles.clone(),
        sessions: parts.sessions.clone(),
        counters: vec![parts.counters.clone(), parts.own_counters.clone()],
        checkpoints: parts.checkpoints.clone(),
        runtimes: parts.runtimes.clone(),
        tls: parts.live.tls.counted(),
        tenants,
    }
}
