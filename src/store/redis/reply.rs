//! Reads the shapes of answers. It does not know what was asked.

use bytes::Bytes;
use fred::types::Resp3Frame;

use super::fault::{self, Fault};
use crate::store::Result;

/// The bytes of a string answer.
pub(super) fn bulk(frame: Resp3Frame) -> Option<Bytes> {
    match frame {
        Resp3Frame::BlobString { data, .. }
        | Resp3Frame::SimpleString { data, .. }
        | Resp3Frame::VerbatimString { data, .. } => Some(data),
        _ => None,
    }
}

/// The bytes that a script answered, or why it did not.
pub(super) fn told(frame: Resp3Frame) -> std::result::Result<Bytes, Fault> {
    let frame = refused(frame)?;
    bulk(frame).ok_or_else(|| Fault::Lost("a script answered no text".into()))
}

/// An answer that is none of errors'.
pub(super) fn refused(frame: Resp3Frame) -> std::result::Result<Resp3Frame, Fault> {
    match frame {
        Resp3Frame::SimpleError { data, .. } => Err(Fault::answered(&data)),
        Resp3Frame::BlobError { data, .. } => Err(Fault::answered(&String::from_utf8_lossy(&data))),
        frame => Ok(frame),
    }
}

/// The text of a string answer.
pub(super) fn text(frame: &Resp3Frame) -> Option<String> {
    bulk(frame.clone()).map(|data| String::from_utf8_lossy(&data).into_owned())
}

/// The number of a number answer.
pub(super) fn number(frame: &Resp3Frame) -> Option<i64> {
    match frame {
        Resp3Frame::Number { data, .. } => Some(*data),
        _ => None,
    }
}

/// The items of an array answer; an error where it is none.
pub(super) fn array(frame: Resp3Frame) -> Result<Vec<Resp3Frame>> {
    match frame {
        Resp3Frame::Array { data, .. } => Ok(data),
        Resp3Frame::Null => Ok(Vec::new()),
        _ => Err(fault::corrupt("an answer has another shape than expected")),
    }
}
