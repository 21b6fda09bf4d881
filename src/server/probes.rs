//! Probes over HTTP/1, for those who do not speak gRPC: whether the process
//! lives, and whether it serves. It does not know what makes it serve.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::live;
use crate::grpc::Health;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections at once; more wait.
const CONNECTIONS: usize = 64;

/// Answers probes for ever.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    health: Arc<Health>,
    live: Arc<live::Parts>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "probes not served"),
    };
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
        let health = health.clone();
        let handshake = live.admin_handshake();
        tokio::spawn(async move {
            let shaken = timeout(HEAD_TIMEOUT, handshake.shake(stream, peer)).await;
            let Ok(Ok((stream, _))) = shaken else { return };
            let answer = service_fn(|request| {
                let response = answer(&request, &health);
                async { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "probe broke");
            }
            drop(place);
        });
    }
}

fn answer<B>(request: &Request<B>, health: &Health) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match health.trouble() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, trouble + "\n"),
        },
        _ => (StatusCode::NOT_FOUND, "not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
