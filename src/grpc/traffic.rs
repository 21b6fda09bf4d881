//! What a call sends and receives: messages and their bytes, as they pass. It does not
//! know who asks for the figures.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Bytes before a message: a flag, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// What went in both directions.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) received: Flow,
    pub(super) sent: Flow,
}

/// What went in one direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    /// Counts messages, and bytes of messages.
    pub(super) fn add(&self, messages: u64, bytes: usize) {
        // Only the task of the call writes; others may read.
        let sum = self.messages.load(Ordering::Relaxed) + messages;
        self.messages.store(sum, Ordering::Relaxed);
        let sum = self.bytes.load(Ordering::Relaxed) + bytes as u64;
        self.bytes.store(sum, Ordering::Relaxed);
    }

    /// How many messages.
    pub(super) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// How many bytes they were, compressed as they came.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Where in a stream of messages its data stands.
#[derive(Debug, Default)]
pub(super) struct Frames {
    prefix: [u8; PREFIX_BYTES],
    /// How much of the next message's prefix has come.
    prefix_bytes: usize,
    /// How much of the message under way has not come.
    left: usize,
}

impl Frames {
    /// Counts what data brings.
    pub(super) fn count(&mut self, mut data: &[u8], flow: &Flow) {
        while !data.is_empty() {
            if self.left > 0 {
                let bytes = self.left.min(data.len());
                self.left -= bytes;
                flow.add(0, bytes);
                data = data.get(bytes..).unwrap_or_default();
                continue;
            }
            for (place, byte) in self.prefix.iter_mut().skip(self.prefix_bytes).zip(data) {
                *place = *byte;
            }
            let bytes = (PREFIX_BYTES - self.prefix_bytes).min(data.len());
            self.prefix_bytes += bytes;
            data = data.get(bytes..).unwrap_or_default();
            if self.prefix_bytes == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.prefix_bytes = 0;
                self.left = u32::from_be_bytes(length) as usize;
                flow.add(1, 0);
            }
        }
    }
}

/// What a call receives, counted.
#[derive(Debug)]
pub(super) struct Received {
    inner: Incoming,
    frames: Frames,
    traffic: Arc<Traffic>,
}

impl Received {
    pub(super) fn new(inner: Incoming, traffic: Arc<Traffic>) -> Self {
        Self {
            inner,
            frames: Frames::default(),
            traffic,
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let Self {
                frames, traffic, ..
            } = &mut *self;
            frames.count(data, &traffic.received);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut stream = Vec::new();
        for bytes in [3_u32, 0, 300] {
            stream.push(0);
            stream.extend(bytes.to_be_bytes());
            stream.extend(vec![7; bytes as usize]);
        }
        for piece in [1, 2, 5, 7, 100, stream.len()] {
            let (mut frames, flow) = (Frames::default(), Flow::default());
            for data in stream.chunks(piece) {
                frames.count(data, &flow);
            }
            assert_eq!((flow.messages(), flow.bytes()), (3, 303), "by {piece}");
        }
    }
}
