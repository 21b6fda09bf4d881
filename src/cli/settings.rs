//! `config`: what `serve` would use, without starting it. It does not know what
//! a setting means.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    client::Global,
    failure::{Exit, Failure},
    output::{self, show},
};
use crate::config::{self, Flag, Loaded, Origin, Sources};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the settings; tell all that is wrong.
    Check,
    /// Print every setting, its value and where it comes from; secrets are
    /// redacted.
    Print,
}

/// The settings of this process, or all that is wrong with them.
pub(super) fn load(global: &Global, flags: Vec<Flag>) -> Result<Loaded, Failure> {
    let sources = Sources::process(global.config.clone(), flags);
    config::load(&sources).map_err(|problems| Failure::all(Exit::Failed, problems.0))
}

impl Command {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let loaded = load(global, Vec::new())?;
        match self {
            Self::Check => {
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
                let settings: Vec<Value> = loaded
                    .settings
                    .iter()
                    .map(|setting| {
                        json!({
                            "path": setting.path,
                            "value": setting.value,
                            "source": setting.source.to_string(),
                        })
                    })
                    .collect();
                show(global.output, &json!({ "settings": settings }), || {
                    output::list(&settings, &["path", "value", "source"])
                })
            }
        }
    }
}
