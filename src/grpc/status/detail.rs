//! The details of a status, and texts that are cut so that all of them stay small. It
//! does not know which error they are of.

use prost::Message;
use prost_types::Any;
use tonic_types::pb;

#[cfg(doc)]
use super::DETAILS_BYTES;
use super::TEXT_BYTES;
use crate::error::Violation;

/// Bytes of the violations of one request, so that all details stay within
/// [`DETAILS_BYTES`].
const VIOLATIONS_BYTES: usize = 2048;

/// The violations, as many as fit; the last says how many did not.
pub(super) fn bad_request(violations: &[Violation]) -> pb::BadRequest {
    let mut listed = Vec::new();
    let mut bytes = 0;
    for (index, violation) in violations.iter().enumerate() {
        let next = field_violation(&violation.field, &violation.description);
        bytes += next.encoded_len() + 4;
        if bytes > VIOLATIONS_BYTES {
            let more = violations.len() - index;
            listed.push(field_violation("", &format!("and {more} more")));
            break;
        }
        listed.push(next);
    }
    pb::BadRequest {
        field_violations: listed,
    }
}

fn field_violation(field: &str, description: &str) -> pb::bad_request::FieldViolation {
    pb::bad_request::FieldViolation {
        field: cut(field, TEXT_BYTES),
        description: cut(description, TEXT_BYTES),
        ..Default::default()
    }
}

pub(super) fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}

/// The text, or as much of it as fits with a mark that it was longer.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes.saturating_sub("…".len()));
    format!("{}…", text.get(..end).unwrap_or_default())
}
