//! What is set of traces. It does not know what is recorded.

use serde::{Deserialize, Deserializer};

use super::{unit, validate::Note};

/// Traces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Where spans are sent by OTLP over gRPC; nothing is recorded where it is not set.
    #[serde(deserialize_with = "unit::optional_text")]
    pub otlp_endpoint: Option<String>,
    /// The share that is recorded of calls whose caller did not decide; 0 to 1.
    #[serde(deserialize_with = "ratio")]
    pub sample_ratio: f64,
    /// The `service.name` of the spans.
    #[serde(deserialize_with = "unit::text")]
    pub service_name: String,
    /// What else is told of the process, by name.
    #[serde(deserialize_with = "attributes")]
    pub resource_attributes: Vec<(String, String)>,
}

fn ratio<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    unit::required(value, "a number from 0 to 1", |text| {
        let ratio: f64 = text.parse().ok()?;
        (0.0..=1.0).contains(&ratio).then_some(ratio)
    })
}

fn attributes<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<(String, String)>, D::Error> {
    let text = unit::optional_text(value)?.unwrap_or_default();
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    let read = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let sound = !name.is_empty() && name.bytes().all(is_name) && !value.is_empty();
        sound.then(|| (name.to_owned(), value.to_owned()))
    };
    let pairs: Option<Vec<_>> = pairs.map(read).collect();
    pairs.ok_or_else(|| {
        serde::de::Error::custom("is not a list such as deployment.environment=prod,team=cache")
    })
}

pub(super) fn check(trace: &Trace, note: Note<'_>) {
    if trace.service_name.is_empty() {
        note(
            "trace.service_name",
            "is empty; allowed is any other text".to_owned(),
        );
    }
    let Some(endpoint) = &trace.otlp_endpoint else {
        return;
    };
    let path = "trace.otlp_endpoint";
    if cfg!(not(feature = "otlp")) {
        let problem = "cannot be set: this program was built without its feature `otlp`";
        note(path, problem.to_owned());
    } else if !is_endpoint(endpoint) {
        // It is not repeated, as what it should not hold may be a secret.
        let problem = "is not http://<host>:<port>, without a path or credentials";
        note(path, problem.to_owned());
    }
}

fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else {
        return false;
    };
    let is_plain = uri.authority().is_some_and(|at| !at.as_str().contains('@'));
    uri.scheme_str() == Some("http") && is_plain && uri.path() == "/" && uri.query().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_server_alone() {
        for sound in [
            "http://localhost:4317",
            "http://[::1]:4317",
            "http://collector:4317/",
        ] {
            assert!(is_endpoint(sound), "{sound}");
        }
        for other in [
            "localhost:4317",
            "grpc://localhost:4317",
            "https://localhost:4317",
            "http://u:p@localhost:4317",
            "http://localhost:4317/v1/traces",
            "http://localhost:4317?key=1",
            "http://",
        ] {
            assert!(!is_endpoint(other), "{other}");
        }
    }
}
