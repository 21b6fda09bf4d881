//! JSON objects whose last field vouches for every byte before it. It does not know by
//! what: a digest, or a MAC. Whatever the format of the rest, the end is looked at first,
//! so that a changed byte is never taken for a later format.

use data_encoding::HEXLOWER;

use crate::error::{Error, Result};

/// Characters of 32 bytes in hex.
const CHARS: usize = 64;
const END: &[u8] = b"\"}";

fn field(name: &str) -> Vec<u8> {
    format!(",\"{name}\":\"").into_bytes()
}

/// Appends the field to an object, with what vouches for the bytes before it.
///
/// # Errors
/// [`Error::Internal`] where it is no object.
pub(super) fn append(
    mut object: Vec<u8>,
    name: &str,
    vouch: impl FnOnce(&[u8]) -> [u8; 32],
) -> Result<Vec<u8>> {
    if object.pop() != Some(b'}') {
        return Err(Error::Internal("what is vouched for is an object".into()));
    }
    let vouched = HEXLOWER.encode(&vouch(&object));
    for part in [&field(name), vouched.as_bytes(), END] {
        object.extend_from_slice(part);
    }
    Ok(object)
}

/// What is vouched for, and by what; `None` where the object does not end so.
pub(super) fn split<'a>(object: &'a [u8], name: &str) -> Option<(&'a [u8], Vec<u8>)> {
    let rest = object.strip_suffix(END)?;
    let (rest, vouched) = rest.split_at_checked(rest.len().checked_sub(CHARS)?)?;
    let told = rest.strip_suffix(field(name).as_slice())?;
    Some((told, HEXLOWER.decode(vouched).ok()?))
}
