//! One message in, one message out, without the streams in which the framework
//! handles every call: with them, a read from memory would cost more in the framework
//! than in all else. It does not know what the messages mean.
//!
//! What is wrong with a message is told in the framework's words, so that one place
//! mends the answers of both.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use tonic::{Status, body::Body};

use super::traffic::{Flow, PREFIX_BYTES};

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const KIND: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// Whether the message comes as it is. Any other is left to the framework.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    headers
        .get(ENCODING)
        .is_none_or(|value| value == "identity")
}

/// The message in a body, once all of the body is there; of at most so many bytes.
///
/// # Errors
/// As the framework has them.
pub(super) async fn message<T: Message + Default>(
    mut body: Incoming,
    max_bytes: usize,
    received: &Flow,
) -> Result<T, Status> {
    let mut arriving = Arriving::new(max_bytes);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        // Trailers say nothing.
        if let Ok(data) = frame.into_data() {
            arriving.take(data)?;
        }
    }
    let message = arriving.whole()?;
    received.add(1, message.len());
    T::decode(message).map_err(|error| Status::internal(error.to_string()))
}

/// A message that comes in one piece, or in parts.
struct Arriving {
    max_bytes: usize,
    /// What came first; all of it, mostly.
    first: Bytes,
    /// What came, where it came in parts.
    parts: BytesMut,
}

impl Arriving {
    fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            first: Bytes::new(),
            parts: BytesMut::new(),
        }
    }

    fn so_far(&self) -> &[u8] {
        if self.parts.is_empty() {
            &self.first
        } else {
            &self.parts
        }
    }

    /// Takes what came next.
    fn take(&mut self, data: Bytes) -> Result<(), Status> {
        if self.first.is_empty() {
            self.first = data;
        } else {
            if self.parts.is_empty() {
                self.parts.extend_from_slice(&self.first);
            }
            self.parts.extend_from_slice(&data);
        }
        // Whatever is beyond it is refused before more is taken.
        if let Some(bytes) = self.bytes()?
            && self.so_far().len() > PREFIX_BYTES + bytes
        {
            return Err(Status::internal("more than one message"));
        }
        Ok(())
    }

    /// How long the message is; `None` while that has not come.
    fn bytes(&self) -> Result<Option<usize>, Status> {
        let Some((&[flag, ref length @ ..], _)) = self.so_far().split_first_chunk::<PREFIX_BYTES>()
        else {
            return Ok(None);
        };
        if flag == 1 {
            return Err(Status::internal(
                "protocol error: received message with compressed-flag but no grpc-encoding was specified",
            ));
        }
        if flag != 0 {
            return Err(Status::internal(format!(
                "protocol error: received message with invalid compression flag: {flag} (valid flags are 0 and 1), while sending request"
            )));
        }
        let bytes = u32::from_be_bytes(*length) as usize;
        if bytes > self.max_bytes {
            return Err(Status::out_of_range(format!(
                "Error, decoded message length too large: found {bytes} bytes, the limit is: {} bytes",
                self.max_bytes
            )));
        }
        Ok(Some(bytes))
    }

    /// The message.
    fn whole(self) -> Result<Bytes, Status> {
        if self.so_far().is_empty() {
            return Err(Status::internal("Missing request message."));
        }
        let bytes = self.bytes()?;
        if bytes.is_none_or(|bytes| self.so_far().len() < PREFIX_BYTES + bytes) {
            return Err(Status::internal("Unexpected EOF decoding stream."));
        }
        let mut all = if self.parts.is_empty() {
            self.first
        } else {
            self.parts.freeze()
        };
        all.advance(PREFIX_BYTES);
        Ok(all)
    }
}

/// The answer of a handler, as it is sent.
pub(super) fn answer<T: Message>(
    answer: Result<tonic::Response<T>, Status>,
    sent: &Flow,
) -> http::Response<Body> {
    let (metadata, message) = match answer {
        Ok(response) => {
            let (metadata, message, _) = response.into_parts();
            (metadata, message)
        }
        Err(status) => return status.into_http(),
    };
    let bytes = message.encoded_len();
    let Ok(length) = u32::try_from(bytes) else {
        return Status::out_of_range("the answer is longer than a message can be").into_http();
    };
    let mut data = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    data.put_u8(0);
    data.put_u32(length);
    message.encode_raw(&mut data);
    sent.add(1, bytes);
    let mut response = http::Response::new(Body::new(Answer::Whole(data.freeze())));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(CONTENT_TYPE, KIND);
    response
}

/// What is still to be sent of an answer.
enum Answer {
    /// The message, and that all went well.
    Whole(Bytes),
    /// That all went well.
    Status,
    /// Nothing.
    Over,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = match &*self {
            Self::Whole(_) => Self::Status,
            Self::Status | Self::Over => Self::Over,
        };
        Poll::Ready(match std::mem::replace(&mut *self, next) {
            Self::Whole(data) => Some(Ok(Frame::data(data))),
            Self::Status => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(STATUS, OK);
                Some(Ok(Frame::trailers(trailers)))
            }
            Self::Over => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Over)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::proto::v1::{GetRequest, GetResponse};

    fn framed(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flag];
        bytes.extend(length.to_be_bytes());
        bytes.extend(message);
        bytes
    }

    fn read(parts: &[&[u8]]) -> Result<Bytes, Status> {
        let mut arriving = Arriving::new(100);
        for part in parts {
            arriving.take(Bytes::copy_from_slice(part))?;
        }
        arriving.whole()
    }

    #[test]
    fn a_message_is_the_same_however_it_is_cut() {
        let request = GetRequest {
            key: "k".repeat(40),
            ..Default::default()
        };
        let message = request.encode_to_vec();
        let bytes = framed(0, message.len() as u32, &message);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let whole = read(&parts).unwrap();
                assert_eq!(GetRequest::decode(whole).unwrap(), request);
            }
        }
        assert_eq!(read(&[&framed(0, 0, &[])]).unwrap(), Bytes::new());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let code = |bytes: &[u8]| read(&[bytes]).unwrap_err().code();
        let halves = |bytes: &[u8]| {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            read(&[first, second]).unwrap_err().code()
        };
        for (bytes, expected) in [
            (vec![], Code::Internal),
            (vec![0, 0, 0], Code::Internal),
            (framed(0, 4, &[0; 3]), Code::Internal),
            (framed(0, 4, &[0; 5]), Code::Internal),
            (framed(1, 4, &[0; 4]), Code::Internal),
            (framed(2, 4, &[0; 4]), Code::Internal),
            (framed(0, 101, &[]), Code::OutOfRange),
            (framed(0, u32::MAX, &[0; 9]), Code::OutOfRange),
        ] {
            assert_eq!((code(&bytes), halves(&bytes)), (expected, expected));
        }
        // It is refused as soon as that is known, and nothing more is taken.
        let mut arriving = Arriving::new(100);
        let long = framed(0, 101, &[]);
        assert!(arriving.take(long.into()).is_err());
    }

    #[tokio::test]
    async fn an_answer_is_a_message_and_a_status() {
        let (message, sent) = (GetResponse::default(), Flow::default());
        let response = answer(Ok(tonic::Response::new(message)), &sent);
        assert_eq!((sent.messages(), sent.bytes()), (1, 0));
        assert_eq!(response.headers()[CONTENT_TYPE], KIND);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()[STATUS], OK);
        assert_eq!(body.to_bytes(), framed(0, 0, &[]));

        let refused = answer::<GetResponse>(Err(Status::not_found("no")), &sent);
        assert_eq!(refused.headers()[STATUS], "5");
        assert!(refused.extensions().get::<Status>().is_some());
    }
}
