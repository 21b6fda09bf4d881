//! The id of a call: taken from the caller where it brings a sound one, else
//! made. It ties an answer to the log, and is no secret.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::{moment, random::number};

/// The header it comes and goes in.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's id where it is 1 to 128 characters of `A-Za-z0-9._-`, else a
/// new UUIDv7.
pub(super) fn of(headers: &HeaderMap) -> Arc<str> {
    headers
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|text| sound(text))
        .map_or_else(made, Arc::from)
}

fn sound(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn made() -> Arc<str> {
    let ms = u64::try_from(moment::unix().as_millis()).unwrap_or(u64::MAX);
    let mut random = [0; 10];
    for (bytes, word) in random.chunks_mut(8).zip([number(), number()]) {
        let word = word.to_le_bytes();
        bytes.copy_from_slice(word.get(..bytes.len()).unwrap_or(&word));
    }
    let uuid = uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    Arc::from(&*uuid.hyphenated().encode_lower(&mut text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_sound_id_is_taken_and_any_other_replaced() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, value.parse().unwrap());
            of(&headers).to_string()
        };
        let longest = "x".repeat(128);
        for id in ["a", "Order-7.retry_2", &longest] {
            assert_eq!(with(id), id);
        }
        for id in ["", "a b", "a/b", "a\u{fc}", &"x".repeat(129)] {
            let made = uuid::Uuid::parse_str(&with(id)).unwrap();
            assert_eq!(made.get_version_num(), 7);
        }
    }

    #[test]
    fn made_ids_differ() {
        let ids: HashSet<_> = (0..10_000).map(|_| made()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
