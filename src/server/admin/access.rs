//! Who may see what is not for everybody: whoever holds the admin key, where the listener
//! can be reached from other machines. It does not know what there is to see.

use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{Answer, text};

/// Who may see it.
pub(super) struct Access(Option<SecretString>);

impl Access {
    /// Those who hold this key; all, where there is none.
    pub(super) fn new(key: Option<SecretString>) -> Self {
        Self(key)
    }

    /// Whether a request brings the key: `authorization: Bearer <key>`, or as the password
    /// of `Basic`, for browsers.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(key) = &self.0 else { return true };
        let key = key.expose_secret().as_bytes();
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
        let closed = Access::new(Some("rta_key".to_owned().into()));
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
        assert!(Access::new(None).allows(&HeaderMap::new()));
        assert!(!allows(&Access::new(Some(String::new().into())), "Bearer "));
    }
}
