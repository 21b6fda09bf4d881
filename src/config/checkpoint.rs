//! The section `checkpoint`: where checkpoints lie, and which are taken by themselves.
//! It does not know how one is taken.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Deserializer};

use super::{
    Config,
    unit::{self, write_duration},
    validate::{DAY, Note},
};

/// What a checkpoint can hold, by name.
pub const COMPONENTS: [&str; 5] = ["tenants", "cache", "sessions", "config", "usage"];

/// Checkpoints.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The object store they lie in; `None` means the folder `checkpoints` in
    /// `store.path`, or memory where all is kept there.
    #[serde(deserialize_with = "unit::optional_text")]
    pub url: Option<String>,
    /// Those that are taken by themselves.
    pub schedule: Schedule,
    /// Whether one is taken at a drain.
    #[serde(deserialize_with = "unit::switch")]
    pub at_shutdown: bool,
}

/// Checkpoints that are taken by themselves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// How often; `None` means never.
    #[serde(deserialize_with = "unit::optional_duration")]
    pub interval: Option<Duration>,
    /// What they hold: names of [`COMPONENTS`].
    #[serde(deserialize_with = "components")]
    pub components: Vec<String>,
    /// How many stay of those that were taken by themselves.
    #[serde(deserialize_with = "unit::number")]
    pub keep: usize,
}

const EXPECTED: &str = "tenants, cache, sessions, config or usage, comma-separated";

fn components<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    unit::required(value, EXPECTED, |text| {
        let mut found: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim) {
            if !COMPONENTS.contains(&name) || found.iter().any(|known| known == name) {
                return None;
            }
            found.push(name.to_owned());
        }
        Some(found)
    })
}

/// Notes what makes no sense.
pub(super) fn check(config: &Config, note: Note<'_>) {
    let Checkpoint { url, schedule, .. } = &config.checkpoint;
    if let Some(url) = url {
        let allowed = "allowed is file:///absolute/path or s3://bucket/prefix";
        let rest = |scheme| url.strip_prefix(scheme);
        let good = match (rest("file://"), rest("s3://")) {
            (Some(path), _) => Path::new(path).is_absolute(),
            (_, Some(place)) => !place.is_empty() && !place.starts_with('/'),
            _ => false,
        };
        if !good {
            note("checkpoint.url", format!("{url:?}; {allowed}"));
        }
    }
    if let Some(interval) = schedule.interval {
        let (least, most) = (Duration::from_secs(1), 31 * DAY);
        if !(least..=most).contains(&interval) {
            note(
                "checkpoint.schedule.interval",
                format!("{}; allowed is 1s to 31d", write_duration(interval)),
            );
        }
    }
    if !(1..=10_000).contains(&schedule.keep) {
        note(
            "checkpoint.schedule.keep",
            format!("{}; allowed is 1 to 10000", schedule.keep),
        );
    }
}
