//! What is set of log lines. It does not know who writes them.

use serde::{Deserialize, Deserializer};

use super::unit;

/// Logging.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it.
    #[serde(deserialize_with = "unit::text")]
    pub filter: String,
    /// How it is written.
    pub format: LogFormat,
    /// Of which calls a line tells.
    pub access: Access,
    /// One in so many calls that went well is told of, where `access` is `all`.
    #[serde(deserialize_with = "unit::number")]
    pub access_sample: usize,
}

/// Of which calls a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Of none.
    Off,
    /// Of those that failed or were refused.
    Errors,
    /// Of all.
    All,
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        unit::choose(
            value,
            &[
                ("off", Self::Off),
                ("errors", Self::Errors),
                ("all", Self::All),
            ],
        )
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        unit::choose(
            value,
            &[
                ("auto", Self::Auto),
                ("text", Self::Text),
                ("json", Self::Json),
            ],
        )
    }
}
