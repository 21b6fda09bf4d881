//! A socket that sends what one turn of a connection wrote in one piece. h2
//! flushes after every frame of some size; on a loaded connection that is a
//! system call an answer, and here it would be the load generator's largest cost.
//! It does not know what the bytes mean.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that wait at most before they are sent all the same.
const PIECE_BYTES: usize = 64 << 10;

/// A socket whose flushes wait for the end of the turn; see [`Turns`].
pub struct Socket(Arc<Mutex<Inner>>);

struct Inner {
    stream: TcpStream,
    waiting: BytesMut,
}

impl Inner {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    /// The socket, and what must drive the connection made of it.
    pub fn new(stream: TcpStream) -> (Self, Turns) {
        let inner = Arc::new(Mutex::new(Inner {
            stream,
            waiting: BytesMut::with_capacity(PIECE_BYTES),
        }));
        (Self(Arc::clone(&inner)), Turns(inner))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what was written at the end of each turn of a connection.
pub struct Turns(Arc<Mutex<Inner>>);

impl Turns {
    /// Drives a connection over the socket to its end, or to the first failure to
    /// send.
    pub async fn drive<C: Future>(self, connection: C) -> io::Result<C::Output> {
        let mut connection = std::pin::pin!(connection);
        std::future::poll_fn(|context| {
            let outcome = connection.as_mut().poll(context);
            let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match (inner.poll_send(context), outcome) {
                (Poll::Ready(Err(error)), _) => Poll::Ready(Err(error)),
                (_, Poll::Ready(output)) => Poll::Ready(Ok(output)),
                (_, Poll::Pending) => Poll::Pending,
            }
        })
        .await
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner();
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
        let mut inner = self.inner();
        ready!(inner.poll_send(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}
