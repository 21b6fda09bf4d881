//! A call on its way through the layer, from its headers to its end, which is told once
//! however it comes: by an answer, with the last message of a stream, or because the
//! caller is gone. It does not know what any RPC does.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;

use super::{
    Method, audit,
    cache::Hot,
    figures::{Stripe, place},
    layer::Remote,
    request_id,
    routes::Route,
    status,
    traffic::{Frames, Received, Traffic},
    unary,
};
use crate::{
    error::Error,
    telemetry::access,
    tenant::{
        Caller,
        audit::{Event, Kept, Log, Manner, OK, STARTED, tell},
    },
    trace::{self, Parent},
};

/// Bytes of a path that are told, where it leads to no RPC of ours.
const PATH_BYTES: usize = 128;

/// A call.
pub(super) struct Call {
    pub(super) route: Route,
    /// What is served past the framework, where this is.
    pub(super) hot: Option<Hot>,
    pub(super) began: Instant,
    pub(super) request_id: Arc<str>,
    /// Who makes it, once that is known.
    pub(super) caller: OnceLock<Caller>,
    /// The public half of a key that was refused.
    pub(super) presented: OnceLock<String>,
    /// The tenant it is about, where that is told.
    pub(super) subject: OnceLock<Arc<OnceLock<String>>>,
    /// When it must have been answered.
    pub(super) deadline: OnceLock<Instant>,
    /// The audit log, where its end may have to be told there.
    pub(super) log: OnceLock<Log>,
    /// Whether that has been told already.
    is_kept: bool,
    /// The path, where the route does not tell it.
    path: Option<Box<str>>,
    pub(super) remote: Remote,
    parent: Option<Parent>,
    /// What is received and sent past the framework.
    traffic: Traffic,
    /// What the framework receives and sends.
    streamed: OnceLock<Arc<Traffic>>,
    /// Where it is counted.
    figures: Arc<Stripe>,
    is_told: bool,
}

impl Call {
    /// A call that begins, which is counted.
    pub(super) fn of(request: &Request<Incoming>, remote: Remote, figures: Arc<Stripe>) -> Self {
        let (path, headers) = (request.uri().path(), request.headers());
        let route = Route::of(path);
        figures.begin(place(route));
        let (hot, path) = match route {
            Route::Rpc(method) if unary::is_plain(headers) => (Hot::of(method), None),
            Route::Rpc(_) => (None, None),
            _ => (None, Some(printable(path))),
        };
        // What is called most tells its tenant by the caller's key, if at all.
        let subject = match (route, hot) {
            (Route::Rpc(_), None) => OnceLock::from(Arc::default()),
            _ => OnceLock::new(),
        };
        Self {
            route,
            hot,
            began: Instant::now(),
            request_id: request_id::of(headers),
            caller: OnceLock::new(),
            presented: OnceLock::new(),
            subject,
            deadline: OnceLock::new(),
            log: OnceLock::new(),
            is_kept: false,
            path,
            remote,
            parent: Parent::of(headers),
            traffic: Traffic::default(),
            streamed: OnceLock::new(),
            figures,
            is_told: false,
        }
    }

    /// How what is told of it names it.
    pub(super) fn name(&self) -> trace::Call {
        trace::Call {
            request_id: self.request_id.clone(),
            trace_id: self.parent.as_ref().map(|parent| parent.trace_id),
        }
    }

    /// What it received and sent so far.
    pub(super) fn traffic(&self) -> &Traffic {
        self.streamed.get().map_or(&self.traffic, |shared| shared)
    }

    /// The request, whose messages are counted as the framework reads them.
    pub(super) fn streamed(&self, request: Request<Incoming>) -> Request<Received> {
        let traffic = self.streamed.get_or_init(Arc::default).clone();
        request.map(|body| Received::new(body, traffic))
    }

    pub(super) fn refused(&self, error: &Error) -> Response<Body> {
        status::of(error, &self.request_id).into_http()
    }

    /// Tells the audit log of a call that must not be answered before it is kept there,
    /// and of one that ends with this response if it was denied; what to wait for.
    pub(super) fn kept(&mut self, log: &Log, response: &Response<Body>) -> Option<Kept> {
        let Route::Rpc(method) = self.route else {
            return None;
        };
        let status = response.extensions().get::<Status>();
        if let Some(status) = status {
            if method.audited || audit::denies(status.code()) {
                self.log.get_or_init(|| log.clone());
            }
            return None;
        }
        if self.hot.is_none() {
            // A stream may be ended by a refusal.
            self.log.get_or_init(|| log.clone());
        }
        if !audit::awaited(method, self.caller.get()) {
            return None;
        }
        self.is_kept = !method.streams.answers();
        let outcome = match method.streams.answers() {
            true => STARTED,
            false => OK,
        };
        log.append(&self.event(method, outcome), Manner::Awaited)
    }

    /// The response to it, whose end is its own.
    pub(super) fn answered(mut self, response: Response<Body>) -> Response<Body> {
        if let Some(status) = response.extensions().get::<Status>() {
            self.end(status.code(), Some(status));
        } else if self.streamed.get().is_some() {
            return response.map(|inner| {
                let frames = Frames::default();
                Body::new(Answer {
                    inner,
                    frames,
                    call: self,
                })
            });
        } else {
            self.end(Code::Ok, None);
        }
        response
    }

    /// It ended; told once.
    fn end(&mut self, code: Code, status: Option<&Status>) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        self.count(code, status);
        if let Route::Rpc(method) = self.route
            && (method.audited || self.log.get().is_some())
        {
            trace::sync_within(self.name(), || self.audit(method, code, status));
        }
        if access::is_told(code == Code::Ok) {
            self.tell(code, status);
        }
    }

    fn count(&self, code: Code, status: Option<&Status>) {
        let Traffic { received, sent } = self.traffic();
        let messages = [received.messages(), sent.messages()];
        let took = self.began.elapsed();
        self.figures.end(place(self.route), code, took, messages);
        if code != Code::Ok {
            let reason = status.and_then(StatusExt::get_details_error_info);
            let reason = reason.as_ref().map(|info| &*info.reason);
            let tenant_id = self.caller.get().and_then(tenant_of);
            self.figures.fail(reason, tenant_id);
        }
    }

    fn tell(&self, code: Code, status: Option<&Status>) {
        let caller = self.caller.get();
        let latency_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let reason = status.and_then(StatusExt::get_details_error_info);
        let Traffic { received, sent } = self.traffic();
        tracing::info!(
            target: access::TARGET,
            method = self.method(),
            code = name(code),
            reason = reason.map(|info| info.reason),
            tenant_id = caller.and_then(tenant_of).or(self.subject()),
            key_id = caller.map(Caller::key_id),
            latency_us,
            received_bytes = received.bytes(),
            sent_bytes = sent.bytes(),
            received_messages = received.messages(),
            sent_messages = sent.messages(),
            request_id = &*self.request_id,
            trace_id = self.parent.as_ref().map(|parent| parent.trace_id.to_string()),
            peer = self.remote.address.map(|address| address.to_string()),
            "call ended"
        );
    }

    /// Tells the audit log how it ended.
    fn audit(&self, method: &'static Method, code: Code, status: Option<&Status>) {
        let info = status.and_then(StatusExt::get_details_error_info);
        let outcome = info.map_or_else(|| name(code).to_owned(), |info| info.reason);
        let event = self.event(method, &outcome);
        if method.audited {
            tell(&event);
        }
        if let Some(log) = self.log.get().filter(|_| !self.is_kept)
            && let Some(manner) = audit::manner(method, self.caller.get(), code)
        {
            // Nobody waits for it: what is waited for was told before.
            let _ = log.append(&event, manner);
        }
    }

    fn event<'a>(&'a self, method: &'static Method, outcome: &'a str) -> Event<'a> {
        let caller = self.caller.get();
        let presented = self.presented.get().map_or("", String::as_str);
        Event {
            actor: caller.map_or(presented, Caller::key_id),
            rpc: method.name,
            tenant_id: caller
                .and_then(tenant_of)
                .or(self.subject())
                .unwrap_or_default(),
            outcome,
            request_id: &self.request_id,
            peer: self
                .remote
                .address
                .map(|address| address.ip().to_canonical()),
        }
    }

    /// `riptide.persistence.v1.CacheService/Get`.
    fn method(&self) -> &str {
        let path = match (self.route, &self.path) {
            (Route::Rpc(method), _) => method.path,
            (_, Some(path)) => path,
            (_, None) => "",
        };
        path.trim_start_matches('/')
    }

    fn subject(&self) -> Option<&str> {
        let subject = self.subject.get()?.get()?;
        Some(subject)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled, None);
    }
}

/// The answer of the framework to a call, which ends with it.
struct Answer {
    inner: Body,
    frames: Frames,
    call: Call,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self {
            inner,
            frames,
            call,
        } = &mut *self;
        let polled = trace::sync_within(call.name(), || Pin::new(inner).poll_frame(context));
        let frame = ready!(polled);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    frames.count(data, &call.traffic().sent);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    let status = Status::from_header_map(trailers);
                    let code = status.as_ref().map_or(Code::Unknown, Status::code);
                    call.end(code, status.as_ref());
                }
            }
            Some(Err(status)) => call.end(status.code(), Some(status)),
            None => call.end(Code::Unknown, None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

/// The tenant of a tenant's key.
fn tenant_of(caller: &Caller) -> Option<&str> {
    caller.grant().map(|grant| &*grant.tenant_id)
}

/// The beginning of a path; nothing of one that holds more than names.
fn printable(path: &str) -> Box<str> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    match path.get(..PATH_BYTES.min(path.len())) {
        Some(path) if path.bytes().all(is_name) => path.into(),
        _ => "".into(),
    }
}

/// A code as the protocol writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_in_bounds() {
        assert_eq!(&*printable("/a.B/C-d_1"), "/a.B/C-d_1");
        assert_eq!(
            printable(&format!("/{}", "x".repeat(500))).len(),
            PATH_BYTES
        );
        for path in ["/a b", "/a?key=1", "/\u{fc}", "/a%20b"] {
            assert_eq!(&*printable(path), "");
        }
    }
}
