//! `config`: what `serve` would use, without starting it. It does not know what
//! a setting means.

mod diff;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    client::Global,
    failure::{Exit, Failure},
    output::{self, show},
};
use crate::config::{self, Effect, Flag, Loaded, Origin, Sources, effect};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the settings; tell all that is wrong.
    Check,
    /// Print every setting, its value and where it comes from; secrets are
    /// redacted.
    Print,
    /// Show what a file would change at the running server, and what of it needs a
    /// restart. Secrets are not compared.
    Diff(diff::Diff),
}

/// Where the settings of this process come from.
pub(super) fn sources(global: &Global, flags: Vec<Flag>) -> Sources<'static> {
    Sources::process(global.config.clone(), flags)
}

/// The settings of these sources, or all that is wrong with them.
pub(super) fn load(sources: &Sources<'_>) -> Result<Loaded, Failure> {
    config::load(sources).map_err(|problems| Failure::all(Exit::Failed, problems.0))
}

impl Command {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let loaded = || load(&sources(global, Vec::new()));
        match self {
            Self::Diff(diff) => diff.run(global),
            Self::Check => {
                let loaded = loaded()?;
                let changed = loaded
                    .settings
                    .iter()
                    .filter(|setting| setting.source != Origin::Default);
                let (all, changed) = (loaded.settings.len(), changed.count());
                let result = json!({ "valid": true, "settings": all, "changed": changed });
                show(global.output, &result, || {
                    format!("the settings are valid: {all}, of which {changed} are not the default")
                })
            }
            Self::Print => {
                let loaded = loaded()?;
                let settings: Vec<Value> = loaded
                    .settings
                    .iter()
                    .map(|setting| {
                        json!({
                            "path": setting.path,
                            "value": setting.value,
                            "source": setting.source.to_string(),
                            "changed_by": effect(&setting.path).unwrap_or(Effect::Restart).name(),
                        })
                    })
                    .collect();
                show(global.output, &json!({ "settings": settings }), || {
                    output::list(&settings, &["path", "value", "source", "changed_by"])
                })
            }
        }
    }
}
