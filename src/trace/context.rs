//! `traceparent` and `tracestate`, as a caller sends them. It does not know who calls.

use http::{HeaderMap, HeaderName};

use super::{SpanId, TraceId};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `traceparent` of version 00; later versions may add to it.
const LENGTH: usize = 55;
const MAX_LENGTH: usize = 256;

/// What is kept of a `tracestate`, in bytes and members; one beyond it is dropped whole,
/// as the standard allows.
const STATE: (usize, usize) = (512, 32);

/// The span that a call is made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// Whether the caller's side records it.
    pub sampled: bool,
    /// What others along the way noted, to be passed on.
    pub state: Box<str>,
}

impl Parent {
    /// What the headers tell; `None` where they tell nothing, or nothing sound.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?.to_str().ok()?;
        if values.next().is_some() {
            return None;
        }
        let (trace_id, span_id, sampled) = read(value)?;
        Some(Self {
            trace_id,
            span_id,
            sampled,
            state: state(headers).unwrap_or_default().into(),
        })
    }
}

fn read(value: &str) -> Option<(TraceId, SpanId, bool)> {
    if value.len() > MAX_LENGTH {
        return None;
    }
    let (known, more) = value.split_at_checked(LENGTH)?;
    let mut parts = known.split('-');
    let version = hex(parts.next()?, 2)?;
    let (trace_id, span_id) = (hex(parts.next()?, 32)?, hex(parts.next()?, 16)?);
    let flags = hex(parts.next()?, 2)?;
    let ends = more.is_empty() || (version > 0 && more.starts_with('-'));
    if parts.next().is_some() || version == 0xff || trace_id == 0 || span_id == 0 || !ends {
        return None;
    }
    let span_id = SpanId(u64::try_from(span_id).ok()?);
    Some((TraceId(trace_id), span_id, flags & 1 == 1))
}

/// So many hexadecimal digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != digits || !text.bytes().all(is_hex) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

/// The values of `tracestate` as one, where they are within bounds.
fn state(headers: &HeaderMap) -> Option<String> {
    let mut all = String::new();
    for value in headers.get_all(TRACESTATE) {
        let value = value.to_str().ok()?.trim();
        if all.len() + value.len() >= STATE.0 {
            return None;
        }
        if !all.is_empty() && !value.is_empty() {
            all.push(',');
        }
        all.push_str(value);
    }
    (all.split(',').count() <= STATE.1).then_some(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn with(values: &[&str], states: &[&str]) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        for value in states {
            headers.append(TRACESTATE, value.parse().unwrap());
        }
        Parent::of(&headers)
    }

    #[test]
    fn a_sound_parent_is_taken() {
        let parent = with(&[SOUND], &["a=1", "b=2,c=3"]).unwrap();
        let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(parent.trace_id.to_string(), trace_id);
        assert_eq!(parent.span_id.to_string(), "00f067aa0ba902b7");
        assert!(parent.sampled);
        assert_eq!(&*parent.state, "a=1,b=2,c=3");
        let unsampled = with(&[&SOUND.replace("-01", "-02")], &[]).unwrap();
        assert!(!unsampled.sampled && unsampled.state.is_empty());
        // A later version may say more.
        let later = SOUND.replace("00-4", "01-4");
        assert_eq!(with(&[&later], &[]).unwrap().trace_id, parent.trace_id);
        assert!(with(&[&format!("{later}-more")], &[]).is_some());
    }

    #[test]
    fn any_other_is_as_if_there_were_none() {
        assert_eq!(with(&[], &["a=1"]), None);
        let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for value in [
            "",
            "00",
            &SOUND[..54],
            &format!("{SOUND}-more"),
            &format!("{SOUND}0"),
            &SOUND.to_uppercase(),
            &SOUND.replace("00-4", "ff-4"),
            &SOUND.replace("00-4", "0g-4"),
            &SOUND.replace(trace_id, &"0".repeat(32)),
            &SOUND.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &SOUND.replace('-', "_"),
            &SOUND.replace("4bf", "+bf"),
            &format!("{}{}", SOUND.replace("00-4", "01-4"), "x"),
            &format!("{}-{}", SOUND.replace("00-4", "01-4"), "x".repeat(256)),
        ] {
            assert_eq!(with(&[value], &[]), None, "{value}");
        }
        assert_eq!(with(&[SOUND, SOUND], &[]), None);
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(Parent::of(&headers), None);
    }

    #[test]
    fn a_state_beyond_bounds_is_dropped() {
        let members = |count: usize| vec!["a=1"; count].join(",");
        for (state, kept) in [
            (members(32), true),
            (members(33), false),
            ("x".repeat(511), true),
            ("x".repeat(512), false),
        ] {
            let parent = with(&[SOUND], &[&state]).unwrap();
            assert_eq!(!parent.state.is_empty(), kept, "{state}");
        }
    }
}
