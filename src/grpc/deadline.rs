//! How long a call may take: what its `grpc-timeout` says, within what the
//! server allows. It does not know what happens when the time is over.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::error::{Error, Result};

const HEADER: HeaderName = HeaderName::from_static("grpc-timeout");

/// The time a call has: that of its `grpc-timeout`, at most `max`; `max` where
/// it has none.
pub(super) fn timeout(headers: &HeaderMap, max: Duration) -> Result<Duration> {
    Ok(asked(headers)?.map_or(max, |timeout| timeout.min(max)))
}

/// The time that its `grpc-timeout` gives a call, however long.
pub(super) fn asked(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .and_then(parse)
        .map(Some)
        .ok_or_else(|| {
            Error::invalid(
                HEADER.as_str(),
                "must be 1 to 8 digits and a unit of H, M, S, m, u, n",
            )
        })
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(value: &[u8]) -> Result<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, http::HeaderValue::from_bytes(value).unwrap());
        timeout(&headers, Duration::from_secs(60))
    }

    #[test]
    fn a_timeout_is_read_and_bounded() {
        let max = Duration::from_secs(60);
        assert_eq!(timeout(&HeaderMap::new(), max), Ok(max));
        assert_eq!(of(b"1H"), Ok(max));
        assert_eq!(of(b"99999999H"), Ok(max));
        assert_eq!(of(b"1M"), Ok(max));
        assert_eq!(of(b"2S"), Ok(Duration::from_secs(2)));
        assert_eq!(of(b"30m"), Ok(Duration::from_millis(30)));
        assert_eq!(of(b"7u"), Ok(Duration::from_micros(7)));
        assert_eq!(of(b"0n"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_timeout_is_refused_by_name() {
        for value in [
            "",
            "S",
            "5",
            "-1S",
            "+1S",
            "1.5S",
            "123456789m",
            "1s",
            "1 S",
            "1SS",
        ] {
            let error = of(value.as_bytes()).unwrap_err();
            assert!(
                error.to_string().starts_with("grpc-timeout: "),
                "{value}: {error}"
            );
        }
        assert!(of(b"\xff").is_err());
        assert!(of("1\u{fc}".as_bytes()).is_err());
    }
}
