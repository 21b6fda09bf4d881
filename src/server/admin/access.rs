//! Who may see what is not for everybody: whoever holds the admin key, where the listener
//! can be reached from other machines. It does not know what there is to see.

use std::net::IpAddr;

use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, StatusCode, header, uri::Authority};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{Answer, text};

/// Who may see it.
pub(super) struct Access {
    key: SecretString,
    /// Whether nobody but this machine reaches it.
    is_near: bool,
}

impl Access {
    /// Those who hold this key, and where it is near, whoever asks for this machine by its
    /// own name.
    pub(super) fn new(key: SecretString, is_near: bool) -> Self {
        Self { key, is_near }
    }

    /// Whether a request brings the key: `authorization: Bearer <key>`, or as the password
    /// of `Basic`, for browsers; or needs none.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        if self.is_near && names_this_machine(headers) {
            return true;
        }
        let key = self.key.expose_secret().as_bytes();
        let given = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, given) = value.to_str().ok()?.split_once(' ')?;
            let given = given.trim();
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some(given.as_bytes().to_vec());
            }
            let given = scheme.eq_ignore_ascii_case("basic").then_some(given)?;
            let pair = BASE64.decode(given.as_bytes()).ok()?;
            let colon = pair.iter().position(|byte| *byte == b':')?;
            Some(pair.split_at(colon + 1).1.to_vec())
        });
        given.is_some_and(|given| !key.is_empty() && bool::from(given.ct_eq(key)))
    }
}

/// Whether a request was meant for this machine. A page from elsewhere, open in a browser
/// here, can have its own name lead to loopback and so ask for what is here; but it
/// cannot ask by another name than its own.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        return true;
    };
    let authority = host
        .to_str()
        .ok()
        .and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let ip = host.parse::<IpAddr>();
        host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    })
}

/// The answer to others.
pub(super) fn refusal() -> Answer {
    let mut answer = text(StatusCode::UNAUTHORIZED, "the admin key is asked for\n");
    let asked = HeaderValue::from_static("Basic realm=\"riptide-persistence\", charset=\"UTF-8\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, asked);
    answer
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_key_opens_however_it_is_brought_and_nothing_else_does() {
        let allows = |access: &Access, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            access.allows(&headers)
        };
        let closed = Access::new("rta_key".to_owned().into(), false);
        let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair.as_bytes()));
        for (value, allowed) in [
            ("Bearer rta_key".to_owned(), true),
            ("bearer  rta_key ".to_owned(), true),
            (basic("admin:rta_key"), true),
            (basic(":rta_key"), true),
            ("Bearer rta_kez".to_owned(), false),
            ("Bearer rta_ke".to_owned(), false),
            ("Bearer".to_owned(), false),
            ("rta_key".to_owned(), false),
            (basic("rta_key"), false),
            (basic("rta_key:"), false),
            ("Basic ???".to_owned(), false),
            ("Digest rta_key".to_owned(), false),
        ] {
            assert_eq!(allows(&closed, &value), allowed, "{value}");
        }
        assert!(!closed.allows(&HeaderMap::new()));
        let keyless = Access::new(String::new().into(), false);
        assert!(!allows(&keyless, "Bearer "));
    }

    #[test]
    fn on_this_machine_no_name_from_elsewhere_opens() {
        let near = Access::new("rta_key".to_owned().into(), true);
        assert!(near.allows(&HeaderMap::new()));
        for (host, allowed) in [
            ("localhost:9464", true),
            ("LOCALHOST", true),
            ("127.0.0.1:9464", true),
            ("127.1.2.3", true),
            ("[::1]:9464", true),
            ("10.0.0.1:9464", false),
            ("evil.example.org:9464", false),
            ("localhost.example.org", false),
            ("127.0.0.1.example.org", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(near.allows(&headers), allowed, "{host}");
            // The key is the key, by whatever name.
            let key = HeaderValue::from_static("Bearer rta_key");
            headers.insert(header::AUTHORIZATION, key);
            assert!(near.allows(&headers), "{host}");
        }
    }
}
