//! Checkpoints, on a thread of their own: packing them takes time that no call should
//! wait for. It does not know how one is taken.

use std::sync::Arc;

use tokio::{
    runtime::Builder,
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    Error, Parts, Result,
    core::{End, spawn},
};
use crate::{
    cache,
    config::Config,
    error,
    state::{
        checkpoint::{Checkpoints, Hidden, Hiding},
        objects::Objects,
        restore::Restores,
    },
    store,
};

/// How often the object store is asked how it is; health follows within this and the
/// time that an answer may take, a second.
const PROBE_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// The folder of checkpoints in `store.path`, where nothing else is set.
const FOLDER: &str = "checkpoints";

/// What invalidations hide, as the cache tells.
struct Floors;

impl Hidden for Floors {
    fn key(&self) -> store::Key {
        cache::Gone::key()
    }

    fn read(&self, record: Option<&store::Record>) -> error::Result<Box<dyn Hiding>> {
        Ok(Box::new(cache::Gone::read(record)?))
    }
}

impl Hiding for cache::Gone {
    fn hides(&self, path: &[u8], record: &store::Record) -> bool {
        self.includes(path, record)
    }
}

/// The object store that is configured.
pub(super) fn open(config: &Config) -> Result<Objects> {
    let bad = |cause| Error::Objects { cause };
    match &config.checkpoint.url {
        Some(url) => Objects::open(url).map_err(bad),
        None if config.store.ephemeral => Ok(Objects::in_memory()),
        None => {
            let folder = config.store.path.join(FOLDER);
            let folder = std::path::absolute(folder).map_err(|e| bad(e.to_string()))?;
            Objects::open(&format!("file://{}", folder.display())).map_err(bad)
        }
    }
}

/// What calls are served by: checkpoints, and restores from them.
pub(super) type Keeping = (Checkpoints, Restores);

/// Starts the thread, and waits until calls can be served by it; it ends when `stopped`
/// resolves, after a last checkpoint where that is asked for.
pub(super) async fn start(
    parts: Arc<Parts>,
    objects: Objects,
    stopped: oneshot::Receiver<()>,
) -> Result<(Keeping, End)> {
    let (ready, built) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_all().build();
    let end = spawn("checkpoints".to_owned(), runtime, async move {
        parts.runtimes.add("checkpoints");
        let store = match parts.store(&parts.own_counters) {
            Ok(store) => store,
            Err(error) => return tracing::error!(%error, "checkpoints not built"),
        };
        let tenants = parts.tenants(store.clone());
        let configuration = parts.configuration.clone();
        let (floors, tally) = (Arc::new(Floors), parts.checkpoints.clone());
        let checkpoints = Checkpoints::new(objects, tenants, floors, configuration, tally);
        let _ = parts.forgetting.set(Arc::new(checkpoints.clone()));
        let restores = Restores::new(checkpoints.clone());
        if ready.send((checkpoints.clone(), restores.clone())).is_err() {
            return;
        }
        tokio::spawn(probe(checkpoints.clone(), parts.clone()));
        let tended = checkpoints.clone();
        let tending = tokio::spawn(async move { tended.tend().await });
        let going = tokio::spawn(async move { restores.keep_going().await });
        let _ = stopped.await;
        tending.abort();
        going.abort();
        let last = async {
            checkpoints.finish().await;
            checkpoints.at_shutdown().await;
        };
        let patience = parts.configuration.config().drain.timeout;
        if timeout(patience, last).await.is_err() {
            tracing::warn!("checkpoint cut: drain.timeout is over");
        }
        parts.stores.release(store).await;
    })?;
    let keeping = built.await.map_err(|_| super::died())?;
    Ok((keeping, end))
}

/// Asks the object store how it is, and tells the health, for ever.
async fn probe(checkpoints: Checkpoints, parts: Arc<Parts>) {
    loop {
        let found = checkpoints.objects().probe().await;
        parts
            .health
            .report_checkpoints(found.map_err(|fault| fault.to_string()));
        sleep(PROBE_EVERY).await;
    }
}
