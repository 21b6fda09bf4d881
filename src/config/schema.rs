//! Which settings there are: those of `default.yaml`. It does not know their
//! types, nor where else settings come from.

use std::collections::BTreeSet;

use ::config::{Map, Value, ValueKind};

use super::{
    Origin, Problems,
    source::{self, Given, Layer},
};

/// The defaults, with what they mean.
pub const DEFAULTS: &str = include_str!("default.yaml");

const ROOT: &str = "persistence";
const PLANS: &str = "tenant.plans";
/// The plan whose keys every plan has.
const MODEL: &str = "free";
/// Sections of a plan in which an operator chooses the keys, metrics of the
/// platform's own, and what can be set of each, with what is put in the place of a
/// value that does not fit.
const NAMED: [(&str, &[(&str, ValueKind)]); 3] = [
    (
        "quotas.custom",
        &[("limit", ValueKind::I64(-1)), ("window", ValueKind::Nil)],
    ),
    (
        "prices.custom",
        &[
            ("unit_price_micros", ValueKind::I64(0)),
            ("unit", ValueKind::I64(1)),
            ("included", ValueKind::I64(0)),
        ],
    ),
    // A metric has one value here, not a section.
    ("quotas.modes", &[("", ValueKind::Nil)]),
];
/// Settings that are never shown.
const SECRETS: [&str; 3] = ["auth.admin_key", "encryption.master_keys", "redis.url"];

/// The settings there are, with their defaults.
pub(super) struct Schema {
    defaults: Layer,
}

impl Schema {
    pub(super) fn shipped() -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let table = source::parse(DEFAULTS).unwrap_or_else(|error| {
            problems.add("", &Origin::Default, error.to_string());
            Map::new()
        });
        let mut defaults = Layer::new();
        for (root, value) in table {
            if let (ROOT, ValueKind::Table(sections)) = (root.as_str(), value.kind) {
                gather(String::new(), sections, &mut defaults);
            }
        }
        if problems.is_empty() {
            Ok(Self { defaults })
        } else {
            Err(problems)
        }
    }

    pub(super) fn defaults(&self) -> &Layer {
        &self.defaults
    }

    /// The defaults of a setting or a section; of a plan that does not ship, the
    /// model's.
    pub(super) fn defaults_at(&self, path: &str) -> Layer {
        if let Some((_, value)) = named(path).and_then(|named| named.setting()) {
            let origin = Origin::Default;
            let value = value.clone();
            return Layer::from([(path.to_owned(), Given { value, origin })]);
        }
        let model = if self.defaults.contains_key(path) {
            path.to_owned()
        } else {
            model(path)
        };
        let at = |(key, given): (&String, &Given)| {
            let rest = key.strip_prefix(&model)?;
            let here = rest.is_empty() || rest.starts_with('.');
            here.then(|| (format!("{path}{rest}"), given.clone()))
        };
        self.defaults.iter().filter_map(at).collect()
    }

    pub(super) fn leaf(&self, path: &str) -> bool {
        let known = match named(path) {
            Some(named) => named.name.is_some_and(metric_name) && named.setting().is_some(),
            None => self.defaults.contains_key(&model(path)),
        };
        known && plan(path).is_none_or(plan_name)
    }

    pub(super) fn secret(&self, path: &str) -> bool {
        SECRETS.contains(&path) || super::tls::pem::KEYS.contains(&path)
    }

    fn section(&self, path: &str) -> bool {
        let section = format!("{}.", model(path));
        let known = match named(path) {
            Some(named) => {
                let leaf = named.setting().is_some();
                named.rest.is_none() && !leaf && named.name.is_none_or(metric_name)
            }
            None => self.defaults.keys().any(|key| key.starts_with(&section)),
        };
        known && plan(path).is_none_or(plan_name)
    }

    /// The keys of a section.
    fn keys(&self, section: &str) -> BTreeSet<&str> {
        if let Some(named) = named(section) {
            return match named.name {
                Some(_) => named.settings.iter().map(|(setting, _)| *setting).collect(),
                None => BTreeSet::from(["the names of metrics"]),
            };
        }
        let section = if section.is_empty() {
            String::new()
        } else {
            format!("{}.", model(section))
        };
        let keys = self
            .defaults
            .keys()
            .filter_map(|key| key.strip_prefix(&section));
        keys.filter_map(|rest| rest.split('.').next()).collect()
    }

    /// What is wrong with a path that is no setting, and what is allowed; with a
    /// prefix for those who think in variables.
    pub(super) fn unknown(&self, path: &str, prefix: Option<&str>) -> String {
        let flat = path.replace('.', "_");
        if let Some(meant) = self
            .defaults
            .keys()
            .find(|key| key.replace('.', "_") == flat)
        {
            return match prefix {
                Some(prefix) => {
                    let name = meant.replace('.', "__").to_ascii_uppercase();
                    format!("is not a setting; did you mean {prefix}{name}?")
                }
                None => format!("is not a setting; did you mean {meant}?"),
            };
        }
        if plan(path).is_some_and(|name| !plan_name(name)) {
            return "is not a plan's name: ^[a-z][a-z0-9-]{0,62}$ is allowed".to_owned();
        }
        if named(path)
            .and_then(|named| named.name)
            .is_some_and(|name| !metric_name(name))
        {
            return "is not a metric's name: ^[a-z][a-z0-9_]{0,62}$ is allowed".to_owned();
        }
        let mut section = path;
        while let Some((parent, _)) = section.rsplit_once('.') {
            section = parent;
            if self.section(section) {
                let keys: Vec<_> = self.keys(section).into_iter().collect();
                return format!("is not a setting; {section} has: {}", keys.join(", "));
            }
        }
        let sections: Vec<_> = self.keys("").into_iter().collect();
        format!(
            "is not a setting; the sections are: {}",
            sections.join(", ")
        )
    }

    /// The settings of a file; keys that are none become problems.
    pub(super) fn flatten(
        &self,
        table: Map<String, Value>,
        origin: &Origin,
        problems: &mut Problems,
    ) -> Layer {
        let mut layer = Layer::new();
        for (key, value) in table {
            if key == ROOT {
                self.flatten_into(&mut layer, "", value.kind, origin, problems);
            } else {
                let problem = format!("is not allowed here; all settings are under `{ROOT}:`");
                problems.add(&key, origin, problem);
            }
        }
        layer
    }

    fn flatten_into(
        &self,
        layer: &mut Layer,
        section: &str,
        value: ValueKind,
        origin: &Origin,
        problems: &mut Problems,
    ) {
        let table = match value {
            ValueKind::Table(table) => table,
            // A section whose lines are all comments.
            ValueKind::Nil => return,
            _ => {
                let keys: Vec<_> = self.keys(section).into_iter().collect();
                let path = if section.is_empty() { ROOT } else { section };
                problems.add(
                    path,
                    origin,
                    format!("is a section, with: {}", keys.join(", ")),
                );
                return;
            }
        };
        for (key, value) in table {
            let path = if section.is_empty() {
                key
            } else {
                format!("{section}.{key}")
            };
            if self.leaf(&path) {
                if matches!(value.kind, ValueKind::Table(_) | ValueKind::Array(_)) {
                    problems.add(&path, origin, "takes one value, not a section or a list");
                } else {
                    layer.insert(
                        path,
                        Given {
                            value: value.kind,
                            origin: origin.clone(),
                        },
                    );
                }
            } else if self.section(&path) {
                self.flatten_into(layer, &path, value.kind, origin, problems);
            } else {
                problems.add(&path, origin, self.unknown(&path, None));
            }
        }
    }
}

fn gather(section: String, table: Map<String, Value>, layer: &mut Layer) {
    for (key, value) in table {
        let path = if section.is_empty() {
            key
        } else {
            format!("{section}.{key}")
        };
        match value.kind {
            ValueKind::Table(table) => gather(path, table, layer),
            value => {
                layer.insert(
                    path,
                    Given {
                        value,
                        origin: Origin::Default,
                    },
                );
            }
        }
    }
}

/// The plan a path is of.
fn plan(path: &str) -> Option<&str> {
    path.strip_prefix(PLANS)?
        .strip_prefix('.')?
        .split('.')
        .next()
}

fn plan_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn metric_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// A path in one of the sections of [`NAMED`].
struct Named<'a> {
    settings: &'static [(&'static str, ValueKind)],
    /// The metric.
    name: Option<&'a str>,
    /// What is named of it.
    rest: Option<&'a str>,
}

impl Named<'_> {
    fn setting(&self) -> Option<&'static (&'static str, ValueKind)> {
        let rest = self.rest.unwrap_or_default();
        self.name?;
        self.settings.iter().find(|(setting, _)| *setting == rest)
    }
}

fn named(path: &str) -> Option<Named<'_>> {
    let of_plan = path.get(PLANS.len() + 1 + plan(path)?.len() + 1..)?;
    NAMED.iter().find_map(|(section, settings)| {
        let rest = of_plan.strip_prefix(section)?;
        let rest = match rest.strip_prefix('.') {
            Some(rest) => Some(rest),
            None if rest.is_empty() => None,
            None => return None,
        };
        let (name, rest) = match rest.and_then(|rest| rest.split_once('.')) {
            Some((name, rest)) => (Some(name), Some(rest)),
            None => (rest, None),
        };
        Some(Named {
            settings,
            name,
            rest,
        })
    })
}

/// The same path in the plan every plan is like.
fn model(path: &str) -> String {
    match plan(path) {
        Some(name) => {
            let rest = path.get(PLANS.len() + 1 + name.len()..).unwrap_or_default();
            format!("{PLANS}.{MODEL}{rest}")
        }
        None => path.to_owned(),
    }
}
