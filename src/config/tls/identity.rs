//! What a certificate says its holder is, and the list of holders that are admins. It
//! does not know how a certificate is read or verified.

use std::fmt;

use serde::{Deserializer, de::Error};

use crate::config::unit;

/// Identities of a list.
const MOST: usize = 64;

/// Bytes of an identity.
const MOST_BYTES: usize = 256;

const ALLOWED: &str =
    "allowed are a URI (spiffe://platform/ops), a DNS name (ops.example.org) and CN=<common name>";

/// What a certificate says of whom it belongs to: one of its subject alternative names,
/// or the common name of its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A URI among the subject alternative names, to the letter.
    Uri(String),
    /// A DNS name among them, in lower case.
    Dns(String),
    /// The one common name of the subject, to the letter.
    CommonName(String),
}

impl Identity {
    /// As it is written in settings.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{text:?} {what}; {ALLOWED}"));
        if text.len() > MOST_BYTES {
            return wrong("has more than 256 bytes");
        }
        if let Some(name) = text.strip_prefix("CN=") {
            return match name.chars().all(|letter| !letter.is_control()) && !name.is_empty() {
                true => Ok(Self::CommonName(name.to_owned())),
                false => wrong("has no common name"),
            };
        }
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return wrong("has other letters than the visible ones of ASCII");
        }
        match text.split_once(':') {
            Some((scheme, rest)) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                match rest.is_empty() {
                    true => wrong("has nothing after its scheme"),
                    false => Ok(Self::Uri(text.to_owned())),
                }
            }
            Some(_) => wrong("has no scheme"),
            None if is_dns(text) => Ok(Self::Dns(text.to_ascii_lowercase())),
            None => wrong("is neither"),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(name) | Self::Dns(name) => f.write_str(name),
            Self::CommonName(name) => write!(f, "CN={name}"),
        }
    }
}

/// A whole name: no pattern stands for the names of others.
fn is_dns(text: &str) -> bool {
    text.split('.').all(|label| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    })
}

/// A list with commas between; nothing is an empty one.
pub(super) fn list<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<Identity>, D::Error> {
    let text = unit::optional_text(value)?.unwrap_or_default();
    let mut list = Vec::new();
    for item in text.split(',').map(str::trim) {
        if item.is_empty() {
            continue;
        }
        let identity = Identity::parse(item).map_err(D::Error::custom)?;
        if !list.contains(&identity) {
            list.push(identity);
        }
    }
    if list.len() > MOST {
        return Err(D::Error::custom(format_args!(
            "{} identities; allowed are up to {MOST}",
            list.len()
        )));
    }
    Ok(list)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_as_what_it_is() {
        for (text, identity) in [
            (
                "spiffe://platform/ops",
                Identity::Uri("spiffe://platform/ops".into()),
            ),
            ("urn:uuid:7", Identity::Uri("urn:uuid:7".into())),
            ("Ops.Example.org", Identity::Dns("ops.example.org".into())),
            ("ops", Identity::Dns("ops".into())),
            ("CN=Ann Other", Identity::CommonName("Ann Other".into())),
        ] {
            assert_eq!(Identity::parse(text).unwrap(), identity, "{text}");
        }
    }

    #[test]
    fn what_is_none_of_them_is_told_what_is_allowed() {
        let long = "a".repeat(MOST_BYTES + 1);
        for text in [
            "CN=",
            "*.example.org",
            "a b",
            "://x",
            "spiffe:",
            "a..b",
            ".",
            &long,
        ] {
            let told = Identity::parse(text).unwrap_err();
            assert!(told.contains("spiffe://platform/ops"), "{text}: {told}");
        }
    }
}
