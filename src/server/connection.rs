//! One connection, from its preface to its end: HTTP/2 within limits, and a
//! GOAWAY when the server leaves. It does not know what its calls do.

use std::{
    io,
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use hyper::{rt::Sleep, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::timeout};

use super::{listener::Socket, preface, tls, turn};
use crate::{
    config,
    grpc::{Health, Layer, Stage},
};

/// What a peer may send before it must be read, on a stream and on a connection.
/// Enough for a value of the usual size in one go; larger ones take turns.
const WINDOW_BYTES: (u32, u32) = (1 << 20, 2 << 20);

/// Bytes of a call's headers.
const HEADER_BYTES: u32 = 16 << 10;

/// Streams a peer may open and reset before they were taken (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// How long a connection may be silent before it is asked whether it lives, and
/// how long it may take to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

/// Sleeps by the runtime's clock. The time is asked for at each frame, to know when a
/// connection was last heard of, and is when the turn began.
#[derive(Clone, Debug)]
struct Timer(TokioTimer);

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.0.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.0.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        turn::began()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        self.0.reset(sleep, deadline);
    }
}

/// HTTP/2 as every connection speaks it.
pub(super) fn protocol(config: &config::Server) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(Timer(TokioTimer::new()))
        .initial_stream_window_size(WINDOW_BYTES.0)
        .initial_connection_window_size(WINDOW_BYTES.1)
        .max_concurrent_streams(config.max_streams_per_connection)
        .max_header_list_size(HEADER_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .auto_date_header(false);
    builder
}

/// Serves a connection to its end.
pub(super) async fn serve(
    socket: Socket,
    protocol: http2::Builder<TokioExecutor>,
    layer: Layer,
    handshake: tls::Handshake,
    within: Duration,
    health: &Health,
) {
    let Socket { stream, peer, open } = socket;
    let Ok(stream) = TcpStream::from_std(stream) else {
        return;
    };
    let greeting = async {
        let (stream, proved) = handshake.shake(stream, peer).await?;
        Ok::<_, io::Error>((preface::greet(stream).await?, proved))
    };
    let greeted = tokio::select! {
        greeted = timeout(within, greeting) => greeted,
        () = health.reached(Stage::Leaving) => return,
    };
    let (stream, proved) = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "connection not begun"),
        Err(_) => return tracing::debug!(%peer, "connection not begun in time"),
    };
    let (stream, turns) = turn::gather(stream);
    let layer = layer.of(peer, proved);
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), layer));
    let ended = turns.drive(async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = health.reached(Stage::Leaving) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    });
    match ended.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "connection broke"),
        Err(error) => tracing::debug!(%peer, %error, "connection lost"),
    }
    drop(open);
}
