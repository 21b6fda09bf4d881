//! The layer every call passes: request id, in-flight limit, deadline,
//! authentication, permission, and an answer of the contract's form whatever
//! happens inside. It does not know what any RPC does.

use std::{
    any::Any,
    convert::Infallible,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::FutureExt;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::body::Body;

use super::{
    Context, audit,
    auth::{self, Auth},
    call::Call,
    deadline,
    figures::Stripe,
    framework,
    limits::InFlight,
    request_id,
    routes::{Answer, Route, Routes},
};
use crate::{
    error::{Error, Result},
    moment::Looking,
    store,
    tenant::Peer,
    trace::{self, Tracer},
};

/// What every call of a core passes; cheap to clone.
#[derive(Clone)]
pub struct Layer {
    inside: Arc<Inside>,
    remote: Remote,
}

/// The other end of a connection.
#[derive(Clone, Default)]
pub(super) struct Remote {
    /// Its address.
    pub(super) address: Option<SocketAddr>,
    /// Whom it has proved to be.
    pub(super) peer: Option<Arc<Peer>>,
}

struct Inside {
    routes: Routes,
    auth: Auth,
    in_flight: InFlight,
    max_deadline: Duration,
    max_message_bytes: usize,
    figures: Arc<Stripe>,
    /// Records calls, where spans are sent anywhere.
    tracer: Option<Arc<Tracer>>,
}

impl Layer {
    /// The layer in front of `routes`, whose calls are counted in these figures.
    pub fn new(
        routes: Routes,
        auth: Auth,
        in_flight: InFlight,
        figures: Arc<Stripe>,
        config: &crate::config::Server,
        tracer: Option<Arc<Tracer>>,
    ) -> Self {
        let inside = Arc::new(Inside {
            routes,
            auth,
            in_flight,
            max_deadline: config.max_deadline,
            max_message_bytes: config.max_message_bytes,
            figures,
            tracer,
        });
        let remote = Remote::default();
        Self { inside, remote }
    }

    /// The same for the calls of a connection from this address, whose peer has proved to
    /// be this one.
    #[must_use]
    pub fn of(self, address: SocketAddr, peer: Option<Peer>) -> Self {
        let remote = Remote {
            address: Some(address),
            peer: peer.map(Arc::new),
        };
        Self { remote, ..self }
    }
}

impl hyper::service::Service<Request<Incoming>> for Layer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Looking<Answer>;

    fn call(&self, request: Request<Incoming>) -> Looking<Answer> {
        let Self { inside, remote } = self.clone();
        Looking(Box::pin(
            async move { Ok(inside.serve(request, remote).await) },
        ))
    }
}

impl Inside {
    async fn serve(&self, request: Request<Incoming>, remote: Remote) -> Response<Body> {
        if let Some(refusal) = framework::no_grpc(&request) {
            return refusal;
        }
        let tracer = self.tracer.as_ref();
        let mut call = Call::of(&request, remote, self.figures.clone(), tracer);
        let mut response = self.bounded(request, &call).await;
        if let Some(kept) = call.kept(self.auth.audit(), &response) {
            // Boxed, so that the usual path does not carry its room.
            Box::pin(audit::wait(kept, &call.request_id, call.deadline.get())).await;
        }
        if let Ok(mut value) = HeaderValue::from_str(&call.request_id) {
            // It is another in each answer: a table of headers is no place for it.
            value.set_sensitive(true);
            response.headers_mut().insert(request_id::HEADER, value);
        }
        call.answered(response)
    }

    /// A call within its time and the in-flight limit, that answers even where
    /// its handler panics.
    async fn bounded(&self, request: Request<Incoming>, call: &Call) -> Response<Body> {
        // Health must be told most of all when there is no room for more.
        let _entered = match (call.route, self.in_flight.enter()) {
            (Route::Health { .. }, entered) => entered.ok(),
            (_, Ok(entered)) => Some(entered),
            (_, Err(error)) => return call.refused(&error),
        };
        let timeout = match deadline::timeout(request.headers(), self.max_deadline) {
            Ok(timeout) => timeout,
            Err(error) => return call.refused(&error),
        };
        let _ = call.deadline.set(call.began + timeout);
        // Pinned here, so that what bounds it need not move it.
        let work = pin!(trace::within(call.name(), self.admitted(request, call)));
        match within(call.began + timeout, work).await {
            Ok(response) => framework::repaired(response, self.max_message_bytes, &call.request_id),
            Err(error) => call.refused(&error),
        }
    }

    /// A call of one who may make it.
    async fn admitted(&self, mut request: Request<Incoming>, call: &Call) -> Response<Body> {
        // Health and reflection are open to all, and look at no caller.
        if let Route::Rpc(method) = call.route {
            let peer = call.remote.peer.as_deref();
            let caller = self.auth.authenticate(request.headers(), peer, method);
            let caller = match caller.await {
                Ok(caller) => caller,
                Err(error) => {
                    if let Some(key_id) = auth::presented(request.headers()) {
                        let _ = call.presented.set(key_id);
                    }
                    return call.refused(&error);
                }
            };
            let caller = call.caller.get_or_init(|| caller);
            if let Err(error) = auth::permit(caller, method) {
                return call.refused(&error);
            }
            if audit::concerns(method, caller) {
                // From here on it is told, even where its caller does not wait for it.
                call.log.get_or_init(|| self.auth.audit().clone());
                call.subject.get_or_init(Arc::default);
            }
            let context = Context {
                caller: caller.clone(),
                request_id: call.request_id.clone(),
                began: call.began.into_std(),
                subject: call.subject.get().cloned(),
                notes: OnceLock::new(),
            };
            if let Some(rpc) = call.hot {
                let (body, traffic) = (request.into_body(), call.traffic());
                let max_bytes = self.max_message_bytes;
                return self
                    .routes
                    .hot(rpc, &context, body, max_bytes, traffic)
                    .await;
            }
            request.extensions_mut().insert(context);
        }
        let answer = self
            .routes
            .call(call.route, call.streamed(request), &call.request_id);
        let Ok(response) = answer.await;
        response
    }
}

/// What the work comes to until then, and if it does not panic.
async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T> {
    let work = AssertUnwindSafe(work).catch_unwind();
    match store::with_deadline(deadline, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(panic)) => Err(Error::Internal(format!(
            "a handler panicked: {}",
            words(&*panic)
        ))),
        Err(elapsed) if elapsed.commit_in_flight => Err(Error::OutcomeUnknown),
        Err(_) => Err(Error::DeadlineExceeded),
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without words")
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_ends_in_its_time_and_a_panic_is_an_error() {
        let after = |ms| Instant::now() + Duration::from_millis(ms);
        assert_eq!(within(after(1000), async { 7 }).await, Ok(7));
        let late = within(after(1), std::future::pending::<()>()).await;
        assert_eq!(late, Err(Error::DeadlineExceeded));
        let panicked: Result<()> = within(after(1000), async { panic!("of {}", 7) }).await;
        assert_eq!(
            panicked,
            Err(Error::Internal("a handler panicked: of 7".into()))
        );
    }

    fn room<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_call_takes_little_room() {
        // It is copied once in each call, and a core has many of them at a time. What
        // only some calls need is boxed where they do.
        type Begun = (Arc<Inside>, Request<Incoming>, Remote);
        let bytes = room(|(inside, request, remote): Begun| async move {
            inside.serve(request, remote).await
        });
        assert!(bytes <= 4608, "{bytes}");
    }
}
