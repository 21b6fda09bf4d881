//! How many calls of each RPC began and ended, how, and in what time; counted by each core
//! for itself, in a table by the place of the RPC and its code, so that a call adds a few
//! numbers and looks nothing up. It does not know who reads them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tonic::Code;

use super::{
    METHODS, Method, Streams,
    routes::{Route, Version},
};
use crate::histogram::{self, Histogram};

/// The codes in the order of their numbers, by the names that figures have for them: those
/// of gRPC for Go.
pub const CODE_NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// How many codes there are.
const CODES: usize = 17;

/// Tenants whose failed calls a core keeps apart until they are taken.
const MAX_TENANTS: usize = 1024;

/// The RPCs that others define, and what is none.
static FOREIGN: [Rpc; 5] = [
    Rpc {
        service: "grpc.health.v1.Health",
        name: "Check",
        streams: Streams::Neither,
    },
    Rpc {
        service: "grpc.health.v1.Health",
        name: "Watch",
        streams: Streams::Answers,
    },
    Rpc {
        service: "grpc.reflection.v1.ServerReflection",
        name: "ServerReflectionInfo",
        streams: Streams::Both,
    },
    Rpc {
        service: "grpc.reflection.v1alpha.ServerReflection",
        name: "ServerReflectionInfo",
        streams: Streams::Both,
    },
    Rpc {
        service: "unknown",
        name: "unknown",
        streams: Streams::Neither,
    },
];

/// What calls are counted by.
#[derive(Clone, Copy, Debug)]
pub struct Rpc {
    /// `riptide.persistence.v1.CacheService`.
    pub service: &'static str,
    /// `Get`.
    pub name: &'static str,
    /// What of it is a stream.
    pub streams: Streams,
}

impl Rpc {
    fn of(method: &Method) -> Self {
        let path = method.path.trim_start_matches('/');
        Self {
            service: path.split('/').next().unwrap_or(path),
            name: method.name,
            streams: method.streams,
        }
    }
}

/// The place of a route in the table.
pub(super) fn place(route: Route) -> usize {
    let foreign = match route {
        Route::Rpc(method) => return method.place,
        Route::Health { watch } => usize::from(watch),
        Route::Reflection(Version::V1) => 2,
        Route::Reflection(Version::V1Alpha) => 3,
        Route::Unknown => 4,
    };
    METHODS.len() + foreign
}

/// What the calls of one RPC came to at one core.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Row {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    took: Histogram,
    handled: [AtomicU64; CODES],
}

/// What one core counts.
#[derive(Debug)]
pub struct Stripe {
    rows: Box<[Row]>,
    failed: Mutex<Failed>,
}

/// What calls that fail are told apart by.
#[derive(Debug, Default)]
struct Failed {
    /// By the reason of their error; there are as many as there are reasons.
    reasons: BTreeMap<String, u64>,
    /// By the tenant whose key called.
    tenants: HashMap<String, u64>,
    /// Of tenants beyond those.
    others: u64,
}

impl Default for Stripe {
    fn default() -> Self {
        let rows = METHODS.len() + FOREIGN.len();
        Self {
            rows: (0..rows).map(|_| Row::default()).collect(),
            failed: Mutex::default(),
        }
    }
}

impl Stripe {
    /// Counts that a call begins of the RPC at this place of the table, which is that of
    /// [`METHODS`] and more.
    pub fn begin(&self, place: usize) {
        if let Some(row) = self.rows.get(place) {
            row.started.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts how a call ended, and how many messages it received and sent.
    pub fn end(&self, place: usize, code: Code, took: Duration, [received, sent]: [u64; 2]) {
        let Some(row) = self.rows.get(place) else {
            return;
        };
        if let Some(handled) = row.handled.get(code as usize) {
            handled.fetch_add(1, Ordering::Relaxed);
        }
        for (counter, amount) in [(&row.received, received), (&row.sent, sent)] {
            if amount > 0 {
                counter.fetch_add(amount, Ordering::Relaxed);
            }
        }
        row.took.add(took);
    }

    /// Counts that a call failed for this reason, made by this tenant's key.
    pub(super) fn fail(&self, reason: Option<&str>, tenant_id: Option<&str>) {
        let mut failed = lock(&self.failed);
        if let Some(reason) = reason {
            match failed.reasons.get_mut(reason) {
                Some(count) => *count += 1,
                None => drop(failed.reasons.insert(reason.to_owned(), 1)),
            }
        }
        let Some(tenant_id) = tenant_id else { return };
        let room = failed.tenants.len() < MAX_TENANTS;
        match failed.tenants.get_mut(tenant_id) {
            Some(count) => *count += 1,
            None if room => drop(failed.tenants.insert(tenant_id.to_owned(), 1)),
            None => failed.others += 1,
        }
    }
}

/// What all cores count.
#[derive(Debug, Default)]
pub struct Figures(Mutex<Vec<Arc<Stripe>>>);

/// What the calls of one RPC came to.
#[derive(Clone, Debug)]
pub struct Calls {
    /// Which.
    pub rpc: Rpc,
    /// How many began.
    pub started: u64,
    /// Messages that came.
    pub received: u64,
    /// Messages that were sent.
    pub sent: u64,
    /// How many ended, by code.
    pub handled: [u64; CODES],
    /// In what time they ended.
    pub took: histogram::Taken,
}

impl Figures {
    /// A place for one more core to count in.
    pub fn stripe(&self) -> Arc<Stripe> {
        let stripe = Arc::new(Stripe::default());
        lock(&self.0).push(stripe.clone());
        stripe
    }

    /// What calls came to so far, by RPC.
    pub fn calls(&self) -> Vec<Calls> {
        let stripes: Vec<Arc<Stripe>> = lock(&self.0).clone();
        let rpcs = METHODS.iter().map(Rpc::of).chain(FOREIGN);
        let sum = |(place, rpc): (usize, Rpc)| {
            let mut calls = Calls {
                rpc,
                started: 0,
                received: 0,
                sent: 0,
                handled: [0; CODES],
                took: histogram::Taken::default(),
            };
            for row in stripes.iter().filter_map(|stripe| stripe.rows.get(place)) {
                calls.started += row.started.load(Ordering::Relaxed);
                calls.received += row.received.load(Ordering::Relaxed);
                calls.sent += row.sent.load(Ordering::Relaxed);
                for (sum, count) in calls.handled.iter_mut().zip(&row.handled) {
                    *sum += count.load(Ordering::Relaxed);
                }
                calls.took.merge(&row.took.taken());
            }
            calls
        };
        rpcs.enumerate().map(sum).collect()
    }

    /// How many calls failed so far, by reason.
    pub fn refusals(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for stripe in &*lock(&self.0) {
            for (reason, count) in &lock(&stripe.failed).reasons {
                *sums.entry(reason.clone()).or_default() += count;
            }
        }
        sums
    }

    /// Takes how many calls failed since the last time, by the tenant whose key made
    /// them; `None` are those that are not told apart.
    pub fn take_failed(&self, mut into: impl FnMut(Option<&str>, u64)) {
        for stripe in lock(&self.0).clone() {
            let (tenants, others) = {
                let mut failed = lock(&stripe.failed);
                (
                    std::mem::take(&mut failed.tenants),
                    std::mem::take(&mut failed.others),
                )
            };
            for (tenant_id, count) in &tenants {
                into(Some(tenant_id), *count);
            }
            if others > 0 {
                into(None, others);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Sums are whole whoever panicked while holding them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_summed_and_codes_told_apart() {
        let figures = Figures::default();
        let (one, other) = (figures.stripe(), figures.stripe());
        let place = place(Route::of("/riptide.persistence.v1.CacheService/Get"));
        let took = Duration::from_micros(70);
        for stripe in [&one, &other] {
            stripe.begin(place);
            stripe.begin(place);
            stripe.end(place, Code::Ok, took, [1, 0]);
            stripe.end(place, Code::Unauthenticated, took, [1, 0]);
        }
        let calls = figures.calls();
        let get = &calls[place];
        assert_eq!((get.rpc.name, get.rpc.streams.name()), ("Get", "unary"));
        assert_eq!(get.rpc.service, "riptide.persistence.v1.CacheService");
        assert_eq!((get.started, get.received, get.sent), (4, 4, 0));
        assert_eq!((get.handled[0], get.handled[16]), (2, 2));
        assert_eq!(get.took.count(), 4);
        let all: u64 = calls.iter().map(|calls| calls.started).sum();
        assert_eq!(all, 4);
    }

    #[test]
    fn every_route_has_a_row_of_its_own() {
        let figures = Figures::default();
        let stripe = figures.stripe();
        let paths = METHODS.iter().map(|method| method.path).chain([
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/nothing/Nothing",
        ]);
        for path in paths {
            stripe.begin(place(Route::of(path)));
        }
        let calls = figures.calls();
        assert_eq!(calls.len(), METHODS.len() + FOREIGN.len());
        for calls in calls {
            assert_eq!(calls.started, 1, "{:?}", calls.rpc);
        }
    }

    #[test]
    fn failures_of_tenants_are_taken_once_and_never_take_much_room() {
        let figures = Figures::default();
        let stripe = figures.stripe();
        for tenant in 0..3 * MAX_TENANTS {
            stripe.fail(Some("RATE_LIMITED"), Some(&format!("tenant-{tenant}")));
        }
        stripe.fail(Some("API_KEY_INVALID"), None);
        let take = || {
            let (mut named, mut others) = (0, 0);
            figures.take_failed(|tenant_id, count| match tenant_id {
                Some(_) => named += count,
                None => others += count,
            });
            (named, others)
        };
        let most = MAX_TENANTS as u64;
        assert_eq!(take(), (most, 2 * most));
        assert_eq!(take(), (0, 0));
        let refusals = figures.refusals();
        assert_eq!(refusals["RATE_LIMITED"], 3 * most);
        assert_eq!(refusals["API_KEY_INVALID"], 1);
    }
}
