//! Writing what waits to the store, in the order it came: many events in one commit,
//! each of which is tried until it is known to be there. It does not know who waits.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Head, Log, log};
use crate::{
    error::Result,
    store::{Commit, Handle, Outcome, Space},
};

/// Events of one commit. With what leads to them they are fewer writes than a commit
/// takes ended records out of the index, so that it does not grow.
const BATCH: usize = 60;

/// How often the log looks for what is due, while something is being folded, and at all.
const OFTEN: Duration = Duration::from_millis(200);
const SELDOM: Duration = Duration::from_secs(1);

/// How long it rests when a commit has failed, at first and at most.
const REST: Duration = Duration::from_millis(25);
const MOST_REST: Duration = Duration::from_millis(500);

/// What became of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// There was nothing to write.
    Nothing,
    /// Some was written; there may be more.
    Some,
}

impl Log {
    /// Writes what comes to this store, for as long as it is polled. One a replica.
    pub async fn keep(&self, store: Handle) {
        let mut rest = REST;
        loop {
            self.set_clock(store.now_ms());
            match self.write(&store).await {
                Ok(Written::Some) => {
                    if rest > REST {
                        tracing::info!("audit events are kept again");
                    }
                    rest = REST;
                }
                Ok(Written::Nothing) => {
                    rest = REST;
                    let look = if self.folds() { OFTEN } else { SELDOM };
                    let _ = timeout(look, self.0.woken.notified()).await;
                }
                Err(error) => {
                    if rest == REST {
                        tracing::warn!(%error, "audit events not kept; they wait");
                    }
                    sleep(rest).await;
                    rest = (rest * 2).min(MOST_REST);
                }
            }
        }
    }

    /// Writes what is left, within this time; what then is not kept is lost.
    pub async fn keep_last(&self, store: &Handle, patience: Duration) {
        self.unfold();
        let all = async {
            loop {
                match self.write(store).await {
                    Ok(Written::Some) => {}
                    Ok(Written::Nothing) => return,
                    Err(_) => sleep(REST).await,
                }
            }
        };
        if timeout(patience, all).await.is_err() {
            let lost = self.give_up() + self.0.chain.lock().await.in_flight();
            tracing::error!(lost, "last audit events not kept in time");
        }
    }

    /// Writes some of what waits.
    async fn write(&self, store: &Handle) -> Result<Written> {
        let mut chain = self.0.chain.lock().await;
        if !chain.is_in_flight() {
            let waiting = self.take(BATCH);
            if waiting.is_empty() {
                return Ok(Written::Nothing);
            }
            chain.prepare(waiting, self.settings().keep);
        }
        let space = Space::audit();
        let batch = chain.batch(store.now_ms())?;
        let version = match store.commit(&space, batch).await? {
            Commit::Applied(applied) => match applied.outcomes.first() {
                Some(Outcome::Done { version, .. }) => *version,
                _ => 0,
            },
            // Either it was written by an attempt whose answer did not come, or the
            // store does not hold the chain as this replica left it.
            Commit::Refused(refusal) => {
                let read = store.read(&space, 0, &[chain.head_key()]).await?;
                let found = read.records.into_iter().next().flatten();
                match found.filter(|found| chain.is_end(&found.value)) {
                    Some(found) => found.version,
                    None => {
                        tracing::error!(
                            ?refusal,
                            "the audit chain does not end in the store where it did: another begins"
                        );
                        chain.begin_anew(self.settings().keep);
                        return Ok(Written::Some);
                    }
                }
            }
        };
        let (events, end) = chain.arrived(version);
        self.count_kept(events.len());
        self.note_head(end);
        for awaited in events.into_iter().filter_map(|event| event.awaited) {
            // Who does not wait any more need not know.
            let _ = awaited.send(());
        }
        Ok(Written::Some)
    }

    fn note_head(&self, head: Head) {
        *log::lock(&self.0.head) = Some(head);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config,
        store::{Batch, Query, Table, Write, embedded::Embedded},
        tenant::audit::{Entry, Event, Manner},
    };

    fn told(log: &Log, request_id: &str) {
        let event = Event {
            actor: "admin",
            rpc: "CreateTenant",
            tenant_id: "acme",
            outcome: "OK",
            request_id,
            peer: None,
        };
        log.append(&event, Manner::Each);
    }

    async fn listed(store: &Handle) -> Vec<Entry> {
        let query = Query {
            table: Table::Audit,
            generation: 0,
            prefix: "e:".into(),
            after: None,
            limit: 1000,
            value_bytes: 1 << 20,
        };
        let page = store.list(&Space::audit(), query).await.unwrap();
        let read = |item: &crate::store::Listed| {
            let path = std::str::from_utf8(&item.path).unwrap();
            Entry::read(path.strip_prefix("e:").unwrap(), &item.record.value)
        };
        page.items.iter().map(read).collect()
    }

    #[tokio::test]
    async fn a_chain_whose_end_was_changed_goes_on_as_another() {
        let store: Handle = Arc::new(Embedded::in_memory().unwrap());
        let on = config::Audit {
            enabled: true,
            ..config::Audit::OFF
        };
        let log = Log::new("replica", on.into());
        for request_id in ["1", "2"] {
            told(&log, request_id);
            log.keep_last(&store, SELDOM).await;
        }
        let head = log.head().unwrap();
        assert_eq!((&*head.replica, head.sequence), ("replica", 2));

        // Somebody writes it anew, with the same words.
        let key = log.0.chain.lock().await.head_key();
        let read = store
            .read(&Space::audit(), 0, std::slice::from_ref(&key))
            .await;
        let value = read.unwrap().records.remove(0).unwrap().value;
        let write = Batch::of([Write::put(key, value)]);
        store.commit(&Space::audit(), write).await.unwrap();
        told(&log, "3");
        log.keep_last(&store, SELDOM).await;
        let entries = listed(&store).await;
        assert_eq!(entries.len(), 3);
        let (third, rest): (Vec<_>, Vec<_>) =
            entries.iter().partition(|e| e.facts.request_id == "3");
        assert!(rest.iter().all(|entry| entry.replica == "replica"));
        assert_ne!(third[0].replica, "replica");
        assert_eq!((third[0].sequence, &*third[0].previous_hash), (1, ""));
        assert_eq!(log.counts().kept, 3);
    }
}
