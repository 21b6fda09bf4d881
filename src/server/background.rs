//! What no caller waits for, on a thread of its own: probes, the change feed, and
//! the work behind the calls. It does not know how any of it is done.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, runtime::Builder, sync::oneshot, time::timeout};

use super::{
    Error, Parts, Result,
    core::{End, check, spawn},
    probes,
    warming::Warming,
};
use crate::cache::Sweeper;

/// How long the last uses of keys may take to be kept.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the last usage may take to be flushed.
const METERS_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the thread; it ends when `stopped` resolves.
pub(super) fn start(
    holder: usize,
    parts: Arc<Parts>,
    admin: TcpListener,
    stopped: oneshot::Receiver<()>,
) -> Result<End> {
    let admin = admin.into_std().map_err(Error::Thread)?;
    let runtime = Builder::new_current_thread().enable_all().build();
    spawn("background".to_owned(), runtime, async move {
        let store = match parts.stores.handle(Arc::default()) {
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
        tokio::spawn(probes::serve(
            admin,
            parts.health.clone(),
            parts.live.clone(),
        ));
        tokio::spawn(async move { directory.follow(feed).await });
        let configuration = parts.configuration.clone();
        tokio::spawn(async move { configuration.follow_file().await });
        let work = tenants.clone();
        let sweeper = Sweeper::new(parts.directory.clone());
        tokio::spawn(async move { work.maintain(sweeper).await });
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
        parts.stores.release(store).await;
    })
}
