//! From sources to a [`Config`], or to everything that is wrong with them. It
//! does not know where a source lies; it asks [`source`].

use std::path::PathBuf;

use ::config::{ConfigError, Map, Value, ValueKind};

pub(super) use super::source::Layer;
use super::{
    Config, Origin, Problems,
    schema::Schema,
    source::{self, Given, Sources},
    tls, validate,
};

/// A configuration that may be used, and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every setting, in the order of the paths; secrets are redacted.
    pub settings: Vec<Setting>,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// The settings as they were given.
    pub(super) layer: Layer,
}

/// A setting in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its path, such as `server.listen`.
    pub path: String,
    /// Its value as YAML; a secret that is set reads `(redacted)`.
    pub value: String,
    /// Where it comes from.
    pub source: Origin,
}

const BACKEND: &str = "store.backend";
const URL: &str = "redis.url";

impl Loaded {
    /// The files that settings name and that were read with them.
    pub fn files(&self) -> Vec<PathBuf> {
        let of_server = self.config.server.tls.files();
        let of_redis = self.config.redis.tls.files();
        let of_collector = self.config.trace.files();
        let all = of_server.chain(of_redis).chain(of_collector);
        all.cloned().collect()
    }
}

/// Puts the layers together: the defaults, a file, the environment, flags.
///
/// # Errors
/// All problems at once, each with its setting, its source and what is allowed.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, Problems> {
    let schema = Schema::shipped()?;
    let mut problems = Problems::default();
    let mut layer = schema.defaults().clone();
    let (above, file) = source::layers(sources, &schema, &mut problems);
    layer.extend(above);
    choose_backend(&mut layer);
    tls::pem::add(sources, &mut layer, &mut problems);
    build(layer, file, problems)
}

/// A configuration of these settings, unless there are problems, with them or
/// before.
pub(super) fn build(
    layer: Layer,
    file: Option<PathBuf>,
    mut problems: Problems,
) -> Result<Loaded, Problems> {
    let schema = Schema::shipped()?;
    let mut used = layer.clone();
    if let Some(config) = shape(&mut used, &schema, &mut problems) {
        validate::check(&config, &mut |path, message| {
            let origin = match layer.get(path) {
                Some(given) => given.origin.clone(),
                None => beside(&layer, &format!("{path}.")),
            };
            problems.add(path, &origin, message);
        });
        if problems.is_empty() {
            return Ok(Loaded {
                config,
                settings: settings(&layer, &schema),
                file,
                layer,
            });
        }
    }
    Err(problems)
}

/// `auto` is Redis where there is a URL; the URL's source is the source then.
fn choose_backend(layer: &mut Layer) {
    let is = |given: Option<&Given>, text: &str| {
        given.is_some_and(|given| matches!(&given.value, ValueKind::String(value) if value == text))
    };
    if !is(layer.get(BACKEND), "auto") {
        return;
    }
    let url = layer
        .get(URL)
        .filter(|url| !is(Some(url), "") && url.value != ValueKind::Nil);
    let chosen = match url {
        Some(url) => Given {
            value: "redis".into(),
            origin: url.origin.clone(),
        },
        None => {
            let origin = layer
                .get(BACKEND)
                .map_or(Origin::Default, |given| given.origin.clone());
            Given {
                value: "embedded".into(),
                origin,
            }
        }
    };
    layer.insert(BACKEND.to_owned(), chosen);
}

/// Deserializes the settings. What does not fit becomes a problem and its
/// default takes its place, so that one pass finds all that is wrong.
fn shape(layer: &mut Layer, schema: &Schema, problems: &mut Problems) -> Option<Config> {
    for _ in 0..=layer.len() {
        let (path, message) = match tree(layer).try_deserialize() {
            Ok(config) => return Some(config),
            Err(error) => explain(error),
        };
        let origin = match layer.get(&path) {
            Some(given) => given.origin.clone(),
            // A plan of one's own, or a metric, that lacks a key: told where the
            // rest of it is.
            None => beside(layer, &path),
        };
        problems.add(&path, &origin, message);
        layer.extend(schema.defaults_at(&path));
    }
    None
}

/// The source of the settings nearest to this one.
fn beside(layer: &Layer, path: &str) -> Origin {
    let mut section = path;
    while let Some((parent, _)) = section.rsplit_once('.') {
        let inside = |key: &str| key.strip_prefix(parent).is_some_and(|k| k.starts_with('.'));
        if let Some((_, given)) = layer.iter().find(|(key, _)| inside(key)) {
            return given.origin.clone();
        }
        section = parent;
    }
    Origin::Default
}

/// The settings as nested tables.
fn tree(layer: &Layer) -> Value {
    let mut root = Map::new();
    for (path, given) in layer {
        let mut table = &mut root;
        let mut keys = path.split('.').peekable();
        while let Some(key) = keys.next() {
            if keys.peek().is_none() {
                table.insert(key.to_owned(), Value::new(None, given.value.clone()));
                break;
            }
            let empty = || Value::new(None, ValueKind::Table(Map::new()));
            let ValueKind::Table(next) =
                &mut table.entry(key.to_owned()).or_insert_with(empty).kind
            else {
                break;
            };
            table = next;
        }
    }
    Value::new(None, ValueKind::Table(root))
}

/// Where a value does not fit, and why.
fn explain(error: ConfigError) -> (String, String) {
    match error {
        ConfigError::At { error, key, .. } => (key.unwrap_or_default(), error.to_string()),
        ConfigError::Type {
            unexpected,
            expected,
            key,
            ..
        } => (
            key.unwrap_or_default(),
            format!("{unexpected} is not {expected}"),
        ),
        ConfigError::NotFound(path) => (path, "is missing".to_owned()),
        other => (String::new(), other.to_string()),
    }
}

fn settings(layer: &Layer, schema: &Schema) -> Vec<Setting> {
    let setting = |(path, given): (&String, &Given)| Setting {
        path: path.clone(),
        value: match &given.value {
            ValueKind::Nil => "~".to_owned(),
            _ if schema.secret(path) => "(redacted)".to_owned(),
            ValueKind::String(text) => tls::pem::shown(path, text).unwrap_or_else(|| yaml(text)),
            other => other.to_string(),
        },
        source: given.origin.clone(),
    };
    layer.iter().map(setting).collect()
}

/// A text as YAML: as it is where YAML reads it as that text, else quoted.
fn yaml(text: &str) -> String {
    let plain = source::parse(&format!("text: {text}")).is_ok_and(|table| {
        table.get("text").is_some_and(|value| match &value.kind {
            ValueKind::String(read) => read == text,
            // What a variable says is text, even when it is a number or a switch.
            ValueKind::Boolean(_) | ValueKind::I64(_) => value.kind.to_string() == text,
            _ => false,
        })
    });
    if plain {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}
