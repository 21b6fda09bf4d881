//! What is set of traces. It does not know what is recorded.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::{tls::collector, unit, validate::Note};

/// Traces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Where spans are sent by OTLP over gRPC; nothing is recorded where it is not set.
    #[serde(deserialize_with = "unit::optional_text")]
    pub otlp_endpoint: Option<String>,
    /// The file of the certificates that sign the collector's, in PEM; those that this
    /// machine trusts where there is none.
    #[serde(deserialize_with = "unit::optional_path")]
    pub otlp_ca_file: Option<PathBuf>,
    /// The share that is recorded of calls whose caller did not decide; 0 to 1.
    #[serde(deserialize_with = "ratio")]
    pub sample_ratio: f64,
    /// The `service.name` of the spans.
    #[serde(deserialize_with = "unit::text")]
    pub service_name: String,
    /// What else is told of the process, by name.
    #[serde(deserialize_with = "attributes")]
    pub resource_attributes: Vec<(String, String)>,
    /// What was in the file, when the settings were read.
    #[serde(default, deserialize_with = "unit::secret")]
    pub(super) otlp_ca: Option<SecretString>,
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
    let endpoint = trace.otlp_endpoint.as_deref();
    let in_tls = endpoint.is_some_and(|text| {
        // One that is none is told of below.
        endpoint_uri(text).is_none_or(|uri| uri.scheme_str() == Some("https"))
    });
    collector::check(trace, in_tls, note);
    if let Some(problem) = endpoint.and_then(endpoint_problem) {
        note("trace.otlp_endpoint", problem);
    }
}

fn endpoint_problem(text: &str) -> Option<String> {
    if cfg!(not(feature = "otlp")) {
        let problem = "cannot be set: this program was built without its feature `otlp`; unset it, \
                       or build it with `--features otlp`";
        return Some(problem.to_owned());
    }
    let Some(uri) = endpoint_uri(text) else {
        // It is not repeated, as what it should not hold may be a secret.
        let problem = "is not http://<host>:<port> or https://<host>:<port>, without a path or \
                       credentials";
        return Some(problem.to_owned());
    };
    match uri.scheme_str() {
        Some("https") => crate::tls::name(&uri).err(),
        _ => None,
    }
}

fn endpoint_uri(text: &str) -> Option<http::Uri> {
    let uri: http::Uri = text.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_plain = uri.authority().is_some_and(|at| !at.as_str().contains('@'));
    (known && is_plain && uri.path() == "/" && uri.query().is_none()).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "otlp")]
    fn an_endpoint_is_a_server_alone() {
        for sound in [
            "http://localhost:4317",
            "http://[::1]:4317",
            "http://collector:4317/",
            "https://collector.example.org:4317",
            "https://[::1]:4317",
        ] {
            assert_eq!(endpoint_problem(sound), None, "{sound}");
        }
        for other in [
            "localhost:4317",
            "grpc://localhost:4317",
            "http://u:p@localhost:4317",
            "https://u:p@localhost:4317",
            "http://localhost:4317/v1/traces",
            "https://localhost:4317?key=1",
            "http://",
            "https://",
            "https://a..b:4317",
        ] {
            assert!(endpoint_problem(other).is_some(), "{other}");
        }
    }

    /// `cargo test --no-default-features --lib trace` runs it.
    #[test]
    #[cfg(not(feature = "otlp"))]
    fn without_the_exporter_no_endpoint_can_be_set() {
        let mut trace = super::super::Config::defaults().trace;
        let mut noted = Vec::new();
        check(&trace, &mut |path, problem| {
            noted.push((path.to_owned(), problem))
        });
        assert_eq!(noted, []);
        trace.otlp_endpoint = Some("http://localhost:4317".to_owned());
        check(&trace, &mut |path, problem| {
            noted.push((path.to_owned(), problem))
        });
        assert_eq!(noted.len(), 1, "{noted:?}");
        let (path, problem) = noted.remove(0);
        assert_eq!(path, "trace.otlp_endpoint");
        assert!(
            problem.contains("unset it, or build it with `--features otlp`"),
            "{problem}"
        );
    }
}
