//! `config diff`: what a running server would do with a file that it does not have
//! yet. It does not know what a setting means.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::load;
use crate::{
    cli::{
        client::{Client, Global, run},
        failure::Failure,
        output::{self, show},
    },
    config::{Effect, Loaded, Sources, effect, means_the_same},
    proto::v1::{ConfigValue, GetConfigRequest},
};

/// Variables of settings: those of this terminal are none of the server's.
const PREFIX: &str = "PERSISTENCE_";

/// How the values of secrets read, so that nobody can compare them.
const REDACTED: &str = "(redacted)";

#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// The file [default: --config, else ./persistence.yml].
    file: Option<PathBuf>,
}

impl Diff {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let mut sources = super::sources(global, Vec::new());
        let named = sources.env.get("PERSISTENCE_CONFIG").map(PathBuf::from);
        let found = || PathBuf::from("persistence.yml");
        let file = self.file.or(sources.file).or(named).unwrap_or_else(found);
        // A file may use any other variable, and those of settings stay the server's.
        sources.env.retain(|name, _| !name.starts_with(PREFIX));
        let here = load(&Sources {
            file: Some(file),
            ..sources
        })?;
        run(async {
            let client = Client::connect(global).await?;
            let request = client.request(GetConfigRequest {});
            let there = client.states().get_config(request).await?.into_inner();
            let changes = changes(&there.values, &here);
            let result = json!({ "version": there.version, "changes": changes });
            show(global.output, &result, || {
                if changes.is_empty() {
                    return "with this file nothing would change".to_owned();
                }
                output::list(&changes, &["setting", "server", "file", "changed_by"])
            })
        })
    }
}

/// What differs, but for what the server has from its environment or from flags,
/// which go before any file.
fn changes(there: &[ConfigValue], here: &Loaded) -> Vec<Value> {
    let there: BTreeMap<_, _> = there.iter().map(|value| (&*value.path, value)).collect();
    let here: BTreeMap<_, _> = here
        .settings
        .iter()
        .map(|s| (&*s.path, &*s.value))
        .collect();
    let mut paths: Vec<&str> = there.keys().chain(here.keys()).copied().collect();
    paths.sort_unstable();
    paths.dedup();
    let mut changes = Vec::new();
    for path in paths {
        let fixed = |value: &&ConfigValue| {
            value.source.starts_with("env ") || value.source.starts_with("flag ")
        };
        if there.get(path).is_some_and(fixed) {
            continue;
        }
        let old = there.get(path).map_or("", |value| &*value.value);
        let new = here.get(path).copied().unwrap_or_default();
        let secret = old == REDACTED && new == REDACTED;
        if secret || means_the_same(old, new) {
            continue;
        }
        changes.push(json!({
            "setting": path,
            "server": old,
            "file": new,
            "changed_by": effect(path).unwrap_or(Effect::Restart).name(),
        }));
    }
    changes
}
