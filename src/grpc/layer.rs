//! The layer every call passes: request id, in-flight limit, deadline,
//! authentication, permission, and an answer of the contract's form whatever
//! happens inside. It does not know what any RPC does.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::FutureExt;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;
use tracing::Instrument;

use super::{
    Context, Method,
    auth::{self, Auth},
    cache::Hot,
    deadline, framework,
    limits::InFlight,
    request_id,
    routes::{Answer, Route, Routes},
    status, unary,
};
use crate::{
    error::{Error, Result},
    store,
    tenant::{Caller, Peer, audit},
};

/// What every call of a core passes; cheap to clone.
#[derive(Clone)]
pub struct Layer {
    inside: Arc<Inside>,
    /// Whom the connection's peer has proved to be.
    peer: Option<Arc<Peer>>,
}

struct Inside {
    routes: Routes,
    auth: Auth,
    in_flight: InFlight,
    max_deadline: Duration,
    max_message_bytes: usize,
}

impl Layer {
    /// The layer in front of `routes`.
    pub fn new(
        routes: Routes,
        auth: Auth,
        in_flight: InFlight,
        config: &crate::config::Server,
    ) -> Self {
        let inside = Arc::new(Inside {
            routes,
            auth,
            in_flight,
            max_deadline: config.max_deadline,
            max_message_bytes: config.max_message_bytes,
        });
        Self { inside, peer: None }
    }

    /// The same for the calls of a connection whose peer has proved to be this one.
    #[must_use]
    pub fn of(self, peer: Option<Peer>) -> Self {
        Self {
            peer: peer.map(Arc::new),
            ..self
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Layer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let Self { inside, peer } = self.clone();
        Box::pin(async move { Ok(inside.serve(request, peer).await) })
    }
}

/// A call on its way through the layer.
struct Call {
    route: Route,
    peer: Option<Arc<Peer>>,
    request_id: Arc<str>,
    /// Who makes it, once that is known.
    caller: OnceLock<Caller>,
    /// The tenant it is about, where that is told to the audit log.
    subject: Option<Arc<OnceLock<String>>>,
}

impl Inside {
    async fn serve(&self, request: Request<Incoming>, peer: Option<Arc<Peer>>) -> Response<Body> {
        if let Some(refusal) = framework::no_grpc(&request) {
            return refusal;
        }
        let mut call = Call {
            route: Route::of(request.uri().path()),
            peer,
            request_id: request_id::of(request.headers()),
            caller: OnceLock::new(),
            subject: None,
        };
        if let Route::Rpc(method) = call.route
            && method.audited
        {
            call.subject = Some(Arc::default());
        }
        let mut response = if tracing::enabled!(tracing::Level::DEBUG) {
            // Boxed, so that the usual path does not carry its room.
            Box::pin(self.traced(request, &call)).await
        } else {
            self.bounded(request, &call).await
        };
        if let Route::Rpc(method) = call.route
            && method.audited
        {
            call.audit(method, &response);
        }
        if let Ok(mut value) = HeaderValue::from_str(&call.request_id) {
            // It is another in each answer: a table of headers is no place for it.
            value.set_sensitive(true);
            response.headers_mut().insert(request_id::HEADER, value);
        }
        response
    }

    /// A call in a span of its own, with an event when it is over.
    async fn traced(&self, request: Request<Incoming>, call: &Call) -> Response<Body> {
        let method = request.uri().path().to_owned();
        let request_id = &*call.request_id;
        let began = Instant::now();
        async {
            let response = self.bounded(request, call).await;
            let code = response
                .extensions()
                .get::<Status>()
                .map_or(Code::Ok, Status::code);
            let key_id = call.caller.get().map(Caller::key_id);
            let tenant = call.caller.get().and_then(tenant_of);
            let latency_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            tracing::debug!(?code, key_id, tenant, latency_us, "call answered");
            response
        }
        .instrument(tracing::debug_span!("rpc", method, request_id))
        .await
    }

    /// A call within its time and the in-flight limit, that answers even where
    /// its handler panics.
    async fn bounded(&self, request: Request<Incoming>, call: &Call) -> Response<Body> {
        // Health must be told most of all when there is no room for more.
        let _entered = match (call.route, self.in_flight.enter()) {
            (Route::Health, entered) => entered.ok(),
            (_, Ok(entered)) => Some(entered),
            (_, Err(error)) => return call.refused(&error),
        };
        let timeout = match deadline::timeout(request.headers(), self.max_deadline) {
            Ok(timeout) => timeout,
            Err(error) => return call.refused(&error),
        };
        let began = Instant::now();
        // Pinned here, so that what bounds it need not move it.
        let work = pin!(self.admitted(request, began, call));
        match within(began + timeout, work).await {
            Ok(response) => framework::repaired(response, self.max_message_bytes, &call.request_id),
            Err(error) => call.refused(&error),
        }
    }

    /// A call of one who may make it.
    async fn admitted(
        &self,
        mut request: Request<Incoming>,
        began: Instant,
        call: &Call,
    ) -> Response<Body> {
        // Health and reflection are open to all, and look at no caller.
        if let Route::Rpc(method) = call.route {
            let peer = call.peer.as_deref();
            let caller = self.auth.authenticate(request.headers(), peer, method);
            let caller = match caller.await {
                Ok(caller) => caller,
                Err(error) => return call.refused(&error),
            };
            let caller = call.caller.get_or_init(|| caller);
            if let Err(error) = auth::permit(caller, method) {
                return call.refused(&error);
            }
            let context = Context {
                caller: caller.clone(),
                request_id: call.request_id.clone(),
                began: began.into_std(),
                subject: call.subject.clone(),
                notes: OnceLock::new(),
            };
            if let Some(rpc) = Hot::of(method)
                && unary::is_plain(request.headers())
            {
                let (routes, body) = (&self.routes, request.into_body());
                return routes
                    .hot(rpc, &context, body, self.max_message_bytes)
                    .await;
            }
            request.extensions_mut().insert(context);
        }
        let answer = self.routes.call(call.route, request, &call.request_id);
        let Ok(response) = answer.await;
        response
    }
}

impl Call {
    fn refused(&self, error: &Error) -> Response<Body> {
        status::of(error, &self.request_id).into_http()
    }

    /// Tells the audit log how the call ended.
    fn audit(&self, method: &Method, response: &Response<Body>) {
        let caller = self.caller.get();
        let subject = self.subject.as_ref().and_then(|subject| subject.get());
        let subject = subject.map(String::as_str);
        let refusal = response.extensions().get::<Status>().map(|status| {
            let info = status.get_details_error_info();
            info.map_or_else(|| status.code().to_string(), |info| info.reason)
        });
        audit::tell(&audit::Event {
            actor: caller.map_or("", Caller::key_id),
            rpc: method.name,
            tenant_id: caller.and_then(tenant_of).or(subject).unwrap_or_default(),
            outcome: refusal.as_deref().unwrap_or("OK"),
            request_id: &self.request_id,
        });
    }
}

/// The tenant of a tenant's key.
fn tenant_of(caller: &Caller) -> Option<&str> {
    caller.grant().map(|grant| &*grant.tenant_id)
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
}
