//! From one configuration to the next, while a server runs: what changes, what of
//! it can be put in force, and what has to wait for a restart. It does not know who
//! puts anything in force.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Effect, Loaded, Problems,
    effect::{BOUND, effect},
    load::{Layer, build},
    unit::{read_duration, read_size},
};

/// A setting that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path.
    pub path: String,
    /// Its value in the first one, as YAML; a secret reads `(redacted)`. Empty where
    /// it was not set.
    pub old: String,
    /// Its value in the second one.
    pub new: String,
}

/// What becomes of a configuration in force when another one is loaded.
#[derive(Clone, Debug)]
pub struct Succession {
    /// What is in force then: the new one, but with what it was of that which needs
    /// a restart.
    pub loaded: Loaded,
    /// What is changed by it.
    pub changes: Vec<Change>,
    /// What differs and is not changed by it.
    pub requires_restart: Vec<Change>,
}

impl Loaded {
    /// What differs in another configuration, in the order of the paths.
    pub fn changes(&self, other: &Self) -> Vec<Change> {
        let [old, new] = [self, other].map(|loaded| shown(&loaded.settings));
        let paths: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let differs = |path: &str| match (self.layer.get(path), other.layer.get(path)) {
            (Some(old), Some(new)) => !means_the_same(&old.text(), &new.text()),
            (old, new) => old.is_some() != new.is_some(),
        };
        let change = |path: &&str| Change {
            path: (*path).to_owned(),
            old: old.get(path).map_or_else(String::new, ToString::to_string),
            new: new.get(path).map_or_else(String::new, ToString::to_string),
        };
        paths
            .into_iter()
            .filter(|path| differs(path))
            .map(change)
            .collect()
    }

    /// What is in force when `next` follows on this one without a restart.
    pub fn succeeded_by(&self, next: &Self) -> Succession {
        let differing = self.changes(next);
        let restarts = |change: &&Change| effect(&change.path) != Some(Effect::Reload);
        let mut held: Vec<&str> = differing
            .iter()
            .filter(restarts)
            .map(|change| change.path.as_str())
            .collect();
        let mut merged = self.merged(next, &held);
        if merged.is_err() {
            // Something that can be reloaded goes beyond what must wait.
            let bound = BOUND.into_iter().filter(|(_, by)| held.contains(by));
            let bound: Vec<_> = bound.map(|(path, _)| path).collect();
            held.extend(bound);
            merged = self.merged(next, &held);
        }
        let loaded = merged.unwrap_or_else(|problems| {
            tracing::warn!(%problems, "what can be reloaded does not fit what cannot be");
            held = differing
                .iter()
                .map(|change| change.path.as_str())
                .collect();
            self.clone()
        });
        let waits = |change: &Change| held.contains(&change.path.as_str());
        let (requires_restart, changes) = differing.iter().cloned().partition(waits);
        Succession {
            loaded,
            changes,
            requires_restart,
        }
    }

    /// The next configuration with what these settings are in this one.
    fn merged(&self, next: &Self, held: &[&str]) -> Result<Self, Problems> {
        let mut layer: Layer = next.layer.clone();
        for path in held {
            match self.layer.get(*path) {
                Some(given) => layer.insert((*path).to_owned(), given.clone()),
                None => layer.remove(*path),
            };
        }
        build(layer, next.file.clone(), Problems::default())
    }
}

fn shown(settings: &[super::Setting]) -> BTreeMap<&str, &str> {
    let shown = settings
        .iter()
        .map(|setting| (setting.path.as_str(), setting.value.as_str()));
    shown.collect()
}

/// Whether two texts say the same in some unit, so that `1m` is no change of `60s`.
pub fn means_the_same(old: &str, new: &str) -> bool {
    let (old, new) = (old.trim(), new.trim());
    let same_size = || read_size(old).is_some_and(|size| read_size(new) == Some(size));
    let same_span = || read_duration(old).is_some_and(|span| read_duration(new) == Some(span));
    old == new || same_size() || same_span()
}

#[cfg(test)]
mod tests {
    use super::means_the_same;

    #[test]
    fn units_do_not_make_a_change() {
        for (old, new) in [
            ("1m", "60s"),
            ("1 KiB", "1024"),
            ("info", " info"),
            ("7d", "168h"),
        ] {
            assert!(means_the_same(old, new), "{old} {new}");
        }
        for (old, new) in [
            ("1m", "61s"),
            ("1 KiB", "1 KB"),
            ("info", "debug"),
            ("~", ""),
            ("0", "-1"),
        ] {
            assert!(!means_the_same(old, new), "{old} {new}");
        }
    }
}
