//! A Redis that dies under load and comes back on its port with what it had
//! acknowledged. It does not know how the replica finds it again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use riptide_persistence::proto::v1::{GetRequest, SetRequest};
use tonic::{Code, Response, Status};

use crate::{
    redis::Options,
    server::{Backend, Clients, Server, reason},
};

const CALLERS: usize = 16;

/// What no call takes: beyond it, it hangs.
const HANG: Duration = Duration::from_secs(30);

/// What the callers met so far.
#[derive(Default)]
struct Met {
    answers: AtomicUsize,
    /// Callers that were refused at least once.
    refused: AtomicUsize,
    /// Whether Redis is back for good.
    back: AtomicBool,
}

impl Met {
    /// Waits until as many callers came so far.
    async fn until(&self, count: &AtomicUsize, wanted: usize) {
        let reached = async {
            while count.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(HANG, reached).await;
        reached.expect("the callers do not come on");
    }
}

/// The answer, unless the call was refused as it may be while the store is away.
async fn answered<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Option<T> {
    let ended = tokio::time::timeout(HANG, call).await;
    let status = match ended.expect("a call hangs") {
        Ok(answer) => return Some(answer.into_inner()),
        Err(status) => status,
    };
    let reason = reason(&status);
    let sound = match status.code() {
        Code::Unavailable => reason == "STORE_UNAVAILABLE",
        Code::DeadlineExceeded => reason == "OUTCOME_UNKNOWN",
        _ => false,
    };
    assert!(sound, "{status:?}");
    // As a caller waits before it tries again.
    tokio::time::sleep(Duration::from_millis(10)).await;
    None
}

fn get(key: &str) -> GetRequest {
    GetRequest {
        key: key.into(),
        ..Default::default()
    }
}

/// Writes and reads until Redis is back and both were answered again; the keys
/// whose writes were acknowledged.
async fn caller(number: usize, mut clients: Clients, met: Arc<Met>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut refused = false;
    for turn in 0.. {
        let back = met.back.load(Ordering::Relaxed);
        let key = format!("{number}-{turn}");
        let set = SetRequest {
            key: key.clone(),
            value: key.clone().into(),
            ..Default::default()
        };
        let set = answered(clients.cache.set(set)).await.is_some();
        let got = answered(clients.cache.get(get(&key))).await;
        if set {
            if let Some(got) = &got {
                assert_eq!(got.entry.as_ref().unwrap().value, key);
            }
            acknowledged.push(key);
        }
        if set && got.is_some() {
            met.answers.fetch_add(1, Ordering::Relaxed);
            if back {
                break;
            }
        } else if !refused {
            refused = true;
            met.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_get_through_again_and_nothing_acknowledged_is_lost() {
    let mut redis = Options::new().aof().start();
    let server = Server::start(Backend::Redis(&redis)).await;
    let clients = server.tenant("acme").await.clients;
    let met = Arc::new(Met::default());
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| tokio::spawn(caller(number, clients.clone(), met.clone())))
        .collect();

    met.until(&met.answers, 20 * CALLERS).await;
    tokio::task::block_in_place(|| redis.kill());
    met.until(&met.refused, CALLERS).await;
    tokio::task::block_in_place(|| redis.restart());
    met.back.store(true, Ordering::Relaxed);

    let mut acknowledged = Vec::new();
    for caller in callers {
        let ended = tokio::time::timeout(HANG, caller).await;
        acknowledged.extend(ended.expect("a caller does not get through").unwrap());
    }
    assert!(acknowledged.len() >= 21 * CALLERS);
    for key in acknowledged {
        let entry = clients.cache.clone().get(get(&key)).await.unwrap();
        let entry = entry.into_inner().entry;
        assert_eq!(entry.expect(&key).value, key);
    }
}
