//! A call on its way through the layer, from its headers to its end, which is told once
//! however it comes: by an answer, with the last message of a stream, or because the
//! caller is gone. It does not know what any RPC does.

mod telling;

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
    audit,
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
    moment,
    telemetry::access,
    tenant::{
        Caller,
        audit::{Kept, Log, Manner, OK, STARTED},
    },
    trace::{self, Parent, Recording, TraceId, Tracer},
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
    /// The trace it is part of, where it is part of one.
    trace_id: Option<TraceId>,
    /// Its spans, where they are recorded.
    recording: Option<Arc<Recording>>,
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
    pub(super) fn of(
        request: &Request<Incoming>,
        remote: Remote,
        figures: Arc<Stripe>,
        tracer: Option<&Arc<Tracer>>,
    ) -> Self {
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
        let parent = Parent::of(headers);
        let recording = match (tracer, route) {
            (Some(tracer), Route::Rpc(_)) => tracer.begin(parent.as_ref()),
            // Probes are of no trace.
            _ => None,
        };
        let trace_id = recording.as_ref().map(|recording| recording.trace_id);
        let trace_id = trace_id.or(parent.map(|parent| parent.trace_id));
        Self {
            route,
            hot,
            began: moment::now().into(),
            request_id: request_id::of(headers),
            caller: OnceLock::new(),
            presented: OnceLock::new(),
            subject,
            deadline: OnceLock::new(),
            log: OnceLock::new(),
            is_kept: false,
            path,
            remote,
            trace_id,
            recording,
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
            trace_id: self.trace_id,
            recording: self.recording.clone(),
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
        let info = status.and_then(StatusExt::get_details_error_info);
        let reason = info.as_ref().map(|info| &*info.reason);
        self.count(code, reason);
        if let Route::Rpc(method) = self.route
            && (method.audited || self.log.get().is_some())
        {
            trace::sync_within(self.name(), || self.audit(method, code, reason));
        }
        if access::is_told(code == Code::Ok) {
            self.tell(code, reason);
        }
        if let Some(recording) = self.recording.take() {
            self.record(&recording, code);
        }
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

/// The beginning of a path; nothing of one that holds more than names.
fn printable(path: &str) -> Box<str> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    match path.get(..PATH_BYTES.min(path.len())) {
        Some(path) if path.bytes().all(is_name) => path.into(),
        _ => "".into(),
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
