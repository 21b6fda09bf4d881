//! The first bytes of a connection: whether the peer speaks HTTP/2, found out
//! before anything is built for it. It does not know what follows them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::wire::Wire;

/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose preface was read, and is read again by who comes next.
pub(super) struct Greeted {
    left: &'static [u8],
    stream: Wire,
}

/// Reads the preface.
///
/// # Errors
/// `InvalidData` where the peer says anything else.
pub(super) async fn greet(mut stream: Wire) -> io::Result<Greeted> {
    let mut said = [0; PREFACE.len()];
    stream.read_exact(&mut said).await?;
    if &said == PREFACE {
        Ok(Greeted {
            left: PREFACE,
            stream,
        })
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the peer does not speak HTTP/2",
        ))
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let (now, later) = self.left.split_at(self.left.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
