//! The admin listener: what an operator's tools ask over HTTP/1. It does not know what
//! makes the server serve, nor what its figures mean.

mod access;

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};

use self::access::Access;
use super::{Parts, console, live};
use crate::{
    grpc::Health,
    metrics::{Format, Metrics},
};

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request may take with its answer, so that who reads slowly keeps no place.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Connections at once; more wait.
const CONNECTIONS: usize = 64;

/// What answers here.
pub(super) struct Admin {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    access: Access,
    live: Arc<live::Parts>,
}

/// An answer.
type Answer = Response<Full<Bytes>>;

impl Admin {
    /// What answers for a server.
    pub(super) fn new(parts: &Parts, metrics: Arc<Metrics>) -> Self {
        let is_near = parts.config.server.admin_listen.ip().is_loopback();
        Self {
            health: parts.health.clone(),
            metrics,
            access: Access::new(parts.admin_key.clone(), is_near),
            live: parts.live.clone(),
        }
    }

    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        let path = request.uri().path();
        let known = ["/", "/healthz", "/readyz", "/metrics", "/figures"];
        if !known.contains(&path) {
            return text(StatusCode::NOT_FOUND, "not found\n");
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, allowed);
            return answer;
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.health.trouble() {
                None => text(StatusCode::OK, "ok\n"),
                Some(trouble) => text(StatusCode::SERVICE_UNAVAILABLE, trouble + "\n"),
            },
            "/metrics" => self.metrics(request.headers()).await,
            _ if !self.access.allows(request.headers()) => access::refusal(),
            "/" => console::page(),
            _ => match self.metrics.figures().await {
                Ok(figures) => typed(figures, "application/json"),
                Err(error) => broken(&error),
            },
        }
    }

    async fn metrics(&self, headers: &HeaderMap) -> Answer {
        let accept = headers.get(header::ACCEPT);
        let format = Format::accepted(accept.and_then(|accept| accept.to_str().ok()));
        match self.metrics.written(format).await {
            Ok(written) => typed(written, format.content_type()),
            Err(error) => broken(&error),
        }
    }
}

/// Answers for ever.
pub(super) async fn serve(listener: std::net::TcpListener, admin: Admin) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "probes not served"),
    };
    let admin = Arc::new(admin);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = room.clone().acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "probe not accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = admin.clone();
        let handshake = admin.live.admin_handshake();
        tokio::spawn(async move {
            let shaken = timeout(HEAD_TIMEOUT, handshake.shake(stream, peer)).await;
            let Ok(Ok((stream, _))) = shaken else { return };
            let answer = service_fn(|request| {
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(admin.answer(&request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            match timeout(TIMEOUT, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "probe broke"),
                Err(_) => tracing::debug!("probe cut: it took too long"),
            }
            drop(place);
        });
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = typed(text, "text/plain; charset=utf-8");
    *answer.status_mut() = status;
    answer
}

fn typed(body: impl Into<Bytes>, kind: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // They are of this moment.
    let fresh = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, fresh);
    answer
}

fn broken(error: &dyn std::error::Error) -> Answer {
    tracing::error!(%error, "figures not written");
    text(StatusCode::INTERNAL_SERVER_ERROR, "figures not written\n")
}
