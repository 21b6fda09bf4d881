//! What may be asked of sessions. All violations of one request are gathered before it
//! is refused. It does not know what is stored.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value};

use super::SessionId;
use crate::{
    config,
    error::{Result, Violations},
    tenant::Once,
};

/// Bytes of a user_id.
const MAX_USER_ID_BYTES: usize = 256;
/// Attributes of a session.
const MAX_ATTRIBUTES: usize = 32;
/// Bytes of an attribute's name.
const MAX_NAME_BYTES: usize = 64;
/// Bytes of its value.
const MAX_VALUE_BYTES: usize = 256;
/// The shortest time to live.
const LEAST_MS: u64 = 1_000;

/// What a session is created with.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NewSession {
    /// Whose it is.
    pub user_id: String,
    /// What is kept in it.
    pub data: Map<String, Value>,
    /// What a listing shows.
    pub attributes: BTreeMap<String, String>,
    /// How long it lives at most; `None` means the setting.
    pub ttl_ms: Option<u64>,
    /// How long it lives without activity; `None` means the setting, or its ttl where
    /// that is shorter.
    pub idle_ms: Option<u64>,
    /// The request's own id, a UUID; empty for none.
    #[serde(skip)]
    pub request_id: String,
}

impl NewSession {
    /// The request, where it has an id.
    pub(super) fn once(&self, violations: &mut Violations) -> Result<Option<Once>> {
        Once::of("CreateSession", &self.request_id, self, violations)
    }
}

/// How long it lives, at most and without activity.
///
/// # Errors
/// [`Error::Invalid`](crate::error::Error::Invalid) besides the violations given.
pub(super) fn new_session(
    new: &NewSession,
    settings: &config::Session,
    mut violations: Violations,
) -> Result<(u64, u64)> {
    user_id(&new.user_id, &mut violations);
    data("data", &new.data, settings, &mut violations);
    attributes("attributes", &new.attributes, &mut violations);
    let ttl_ms = new.ttl_ms.unwrap_or_else(|| ms(settings.default_ttl));
    span("ttl", ttl_ms, settings, &mut violations);
    let idle_ms = new
        .idle_ms
        .unwrap_or_else(|| default_idle_ms(settings).min(ttl_ms));
    if new.idle_ms.is_some() {
        span("idle_timeout", idle_ms, settings, &mut violations);
    }
    violations.check()?;
    Ok((ttl_ms, idle_ms))
}

pub(super) fn user_id(user_id: &str, violations: &mut Violations) {
    if user_id.is_empty() || user_id.len() > MAX_USER_ID_BYTES {
        violations.add(
            "user_id",
            format!(
                "{} bytes, 1 to {MAX_USER_ID_BYTES} are allowed",
                user_id.len()
            ),
        );
    }
}

/// An id that is asked for.
///
/// # Errors
/// [`Error::Invalid`](crate::error::Error::Invalid) besides the violations given.
pub(super) fn session_id(field: &str, text: &str, mut violations: Violations) -> Result<SessionId> {
    let session_id = SessionId::parse(text);
    let rule = "not an id of a session: 52 characters that CreateSession returned";
    violations.require(session_id.is_some(), field, rule);
    violations.check()?;
    session_id.ok_or_else(|| crate::error::Error::invalid(field, rule))
}

pub(super) fn data(
    field: &str,
    data: &Map<String, Value>,
    settings: &config::Session,
    violations: &mut Violations,
) {
    let (bytes, most) = (json_bytes(data), settings.max_data_bytes as u64);
    if bytes > most {
        violations.add(
            field,
            format!("{bytes} bytes as JSON, at most {most} are allowed (session.max_data_bytes)"),
        );
    }
}

pub(super) fn attributes(
    field: &str,
    attributes: &BTreeMap<String, String>,
    violations: &mut Violations,
) {
    if attributes.len() > MAX_ATTRIBUTES {
        violations.add(
            field,
            format!(
                "{} of them, at most {MAX_ATTRIBUTES} are allowed",
                attributes.len()
            ),
        );
    }
    let plain = |text: &str| !text.chars().any(char::is_control);
    for (name, value) in attributes {
        let at = format!("{field}.{}", name.chars().take(64).collect::<String>());
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !plain(name) {
            let rule = "a name has 1 to 64 bytes without control characters";
            violations.add(&at, rule);
        }
        if value.len() > MAX_VALUE_BYTES || !plain(value) {
            let rule = "a value has up to 256 bytes without control characters";
            violations.add(&at, rule);
        }
    }
}

pub(super) fn span(
    field: &str,
    span_ms: u64,
    settings: &config::Session,
    violations: &mut Violations,
) {
    let most_ms = ms(settings.max_ttl);
    if !(LEAST_MS..=most_ms).contains(&span_ms) {
        let seconds = most_ms / 1_000;
        violations.add(
            field,
            format!("1 s to {seconds} s are allowed (session.max_ttl)"),
        );
    }
}

/// How long a session lives without activity that names no time.
pub(super) fn default_idle_ms(settings: &config::Session) -> u64 {
    ms(settings.default_idle_timeout)
}

/// Bytes of data as JSON.
pub(super) fn json_bytes(data: &Map<String, Value>) -> u64 {
    /// Counts what is written.
    struct Counter(u64);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // A map of JSON always writes.
    let _ = serde_json::to_writer(&mut counter, data);
    counter.0
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
