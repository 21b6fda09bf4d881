//! A connection whose answers of one turn are sent in one piece. HTTP/2 flushes
//! after each frame of a kibibyte, and a system call an answer would be the
//! largest cost of a small read. It does not know what the bytes mean.

use std::{
    cell::Cell,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait for the end of a turn; beyond it they are sent at once.
const PIECE_BYTES: usize = 64 << 10;

/// A connection that sends less than this in a turn has gone quiet...
const QUIET_BYTES: usize = 1 << 10;

/// ...and gives back a buffer larger than this.
const KEPT_BYTES: usize = 4 << 10;

/// A stream whose flushes wait for the end of the turn; see [`Turns`].
pub(super) struct Gathered<S>(Arc<Mutex<Inner<S>>>);

/// Sends what was written when a turn ends.
pub(super) struct Turns<S>(Arc<Mutex<Inner<S>>>);

struct Inner<S> {
    stream: S,
    waiting: BytesMut,
}

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// When this thread's last turn began: the time, for whoever asks at each frame and
/// needs it only roughly.
pub(super) fn began() -> Instant {
    BEGAN.get().unwrap_or_else(Instant::now)
}

/// The stream for a connection, and what must drive that connection.
pub(super) fn gather<S>(stream: S) -> (Gathered<S>, Turns<S>) {
    let waiting = BytesMut::new();
    let inner = Arc::new(Mutex::new(Inner { stream, waiting }));
    (Gathered(inner.clone()), Turns(inner))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Turns<S> {
    /// Drives a connection over the stream to its end, or to the first failure to
    /// send. Each poll of it is a turn.
    pub(super) async fn drive<C: Future>(self, connection: C) -> io::Result<C::Output> {
        let mut connection = pin!(connection);
        let mut output = None;
        std::future::poll_fn(|context| {
            BEGAN.set(Some(Instant::now()));
            if output.is_none()
                && let Poll::Ready(ended) = connection.as_mut().poll(context)
            {
                output = Some(ended);
            }
            match (lock(&self.0).poll_send(context), output.take()) {
                (Poll::Ready(Err(error)), _) => Poll::Ready(Err(error)),
                (Poll::Ready(Ok(())), Some(ended)) => Poll::Ready(Ok(ended)),
                (_, ended) => {
                    output = ended;
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let turn = self.waiting.len();
        while !self.waiting.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if sent == self.waiting.len() {
                self.waiting.clear();
            } else {
                self.waiting.advance(sent);
            }
        }
        // What TLS has taken may still wait in it.
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if (1..QUIET_BYTES).contains(&turn) && self.waiting.capacity() > KEPT_BYTES {
            self.waiting = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Only the task that drives the connection locks it, so it never waits.
fn lock<S>(inner: &Mutex<Inner<S>>) -> MutexGuard<'_, Inner<S>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        if inner.waiting.len() >= PIECE_BYTES {
            ready!(inner.poll_send(context))?;
        }
        inner.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_send(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_a_turn_wrote_arrives_at_its_end() {
        let (here, mut there) = duplex(1024);
        let (mut stream, turns) = gather(here);
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let driven = tokio::spawn(turns.drive(async move {
            for part in [b"one ", b"two "] {
                stream.write_all(part).await.unwrap();
                stream.flush().await.unwrap();
            }
            // The turn ends here: there is nothing to do.
            gone.await.unwrap();
            stream.write_all(b"last").await.unwrap();
        }));
        let mut said = [0; 32];
        let bytes = there.read(&mut said).await.unwrap();
        assert_eq!(&said[..bytes], b"one two ");
        go.send(()).unwrap();
        driven.await.unwrap().unwrap();
        let bytes = there.read(&mut said).await.unwrap();
        assert_eq!(&said[..bytes], b"last");
    }

    #[tokio::test]
    async fn more_than_the_peer_takes_at_once_arrives_whole() {
        let (here, mut there) = duplex(1000);
        let (mut stream, turns) = gather(here);
        let sent = vec![7; 3 * PIECE_BYTES];
        let expected = sent.clone();
        let driven = tokio::spawn(turns.drive(async move {
            for part in sent.chunks(10_000) {
                stream.write_all(part).await.unwrap();
            }
            stream.shutdown().await.unwrap();
        }));
        let mut said = Vec::new();
        there.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, expected);
        driven.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_ends_the_connection() {
        let (here, there) = duplex(16);
        let (mut stream, turns) = gather(here);
        drop(there);
        let driven = turns.drive(async move {
            stream.write_all(b"to nobody").await.unwrap();
            std::future::pending::<()>().await;
        });
        assert_eq!(driven.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
