//! Where settings come from: files, the environment, flags. It hands over what
//! they say with its source, and does not know what a value means.

use std::{
    collections::BTreeMap,
    fmt, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

use ::config::{File, FileFormat, Map, Source as _, Value, ValueKind};

use super::{Origin, Problems, schema::Schema};

/// The file that is read where none is named.
const FILE: &str = "persistence.yml";
const PREFIX: &str = "PERSISTENCE_";
/// Names settings the file.
const FILE_VARIABLE: &str = "PERSISTENCE_CONFIG";
/// The end of a variable's name that names the file of a secret.
const SECRET_FILE: &str = "_FILE";

/// Other names of settings in the environment; the general one goes first.
const ALIASES: [(&str, &str); 5] = [
    ("REDIS_URL", "redis.url"),
    ("PERSISTENCE_REDIS_POOL_SIZE", "redis.pool_size"),
    (
        "PERSISTENCE_ENABLE_COMPRESSION",
        "cache.compression.enabled",
    ),
    ("PERSISTENCE_ENABLE_WARMING", "cache.warm_start.enabled"),
    ("PERSISTENCE_HOT_RELOAD", "reload.watch_file"),
];

/// A switch of the predecessor. Here tenants are always kept apart, so that it can
/// only be on.
const MULTI_TENANCY: &str = "PERSISTENCE_MULTI_TENANCY";

/// Bytes that a file of settings has at most, where it is read anew.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Everything a configuration is made from.
#[derive(Clone)]
pub struct Sources<'a> {
    /// The file named by `--config`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The flags that stand for settings.
    pub flags: Vec<Flag>,
    /// Reads a file.
    pub read: &'a (dyn Fn(&Path) -> io::Result<String> + Sync),
}

/// A flag that stands for a setting.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The setting's path.
    pub path: &'static str,
    /// The flag, such as `--listen`.
    pub name: &'static str,
    /// The value as it was typed.
    pub value: String,
}

impl Sources<'static> {
    /// The environment and the files of this process.
    pub fn process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((
                    name.into_string().ok()?,
                    value.to_string_lossy().into_owned(),
                ))
            })
            .collect();
        Self {
            file,
            env,
            flags,
            read: &|path| fs::read_to_string(path),
        }
    }

    /// The same, to be read while a server runs: what is no regular file, or is
    /// empty as a file is that somebody is about to write, is an error, and nothing
    /// is waited for.
    #[must_use]
    pub fn anew(self) -> Self {
        Self {
            read: &|path| read_anew(path),
            ..self
        }
    }
}

fn read_anew(path: &Path) -> io::Result<String> {
    let refused = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(refused("it is not a regular file"));
    }
    if about.len() > MAX_FILE_BYTES {
        return Err(refused("it has more than 4 MiB"));
    }
    let text = fs::read_to_string(path)?;
    if text.trim().is_empty() {
        return Err(refused(
            "it is empty; a file that changes nothing says `persistence:`",
        ));
    }
    Ok(text)
}

impl Sources<'_> {
    /// A number that is another one, as good as surely, when the file of settings, a
    /// secret's file or one of these says something else, or cannot be read any more.
    pub fn fingerprint(&self, more: &[PathBuf]) -> u64 {
        let named = self.env.iter().filter(|(name, value)| {
            name.starts_with(PREFIX) && name.ends_with(SECRET_FILE) && !value.is_empty()
        });
        let secrets = named.map(|(_, value)| PathBuf::from(value));
        let mut hasher = DefaultHasher::new();
        for path in [self.named().unwrap_or_else(|| FILE.into())]
            .into_iter()
            .chain(secrets)
            .chain(more.iter().cloned())
        {
            let content = (self.read)(&path);
            content.map_err(|error| error.kind()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The file that is named, if one is: then it must be there.
    fn named(&self) -> Option<PathBuf> {
        let named = || set(&self.env, FILE_VARIABLE).map(PathBuf::from);
        self.file.clone().or_else(named)
    }
}

impl fmt::Debug for Sources<'_> {
    // The environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// What a source says of one setting.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) value: ValueKind,
    pub(super) origin: Origin,
}

impl fmt::Debug for Given {
    // The value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

impl Given {
    /// The value as it was written.
    pub(super) fn text(&self) -> String {
        self.value.to_string()
    }
}

/// Settings by their path.
pub(super) type Layer = BTreeMap<String, Given>;

/// All layers above the defaults, the later ones over the earlier; and the file that
/// was read.
pub(super) fn layers(
    sources: &Sources<'_>,
    schema: &Schema,
    problems: &mut Problems,
) -> (Layer, Option<PathBuf>) {
    let (mut all, path) = match file(sources, schema, problems) {
        Some((layer, path)) => (layer, Some(path)),
        None => (Layer::new(), None),
    };
    all.extend(environment(sources, schema, problems));
    for flag in &sources.flags {
        let value = ValueKind::String(flag.value.clone());
        all.insert(
            flag.path.to_owned(),
            Given {
                value,
                origin: Origin::Flag(flag.name),
            },
        );
    }
    (all, path)
}

fn file(
    sources: &Sources<'_>,
    schema: &Schema,
    problems: &mut Problems,
) -> Option<(Layer, PathBuf)> {
    let named = sources.named();
    let path = named.clone().unwrap_or_else(|| PathBuf::from(FILE));
    let origin = Origin::File(path.clone());
    let text = match (sources.read)(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
            return None;
        }
        Err(error) => {
            problems.add("", &origin, format!("cannot be read: {error}"));
            return None;
        }
    };
    let table = match parse(&text) {
        Ok(table) => table,
        Err(error) => {
            problems.add("", &origin, format!("is not YAML: {error}"));
            return None;
        }
    };
    let mut layer = schema.flatten(table, &origin, problems);
    for (path, given) in &mut layer {
        if let ValueKind::String(text) = &mut given.value {
            match expand(text, &sources.env) {
                Ok(expanded) => *text = expanded,
                Err(problem) => problems.add(path, &origin, problem),
            }
        }
    }
    Some((layer, path))
}

/// The mapping a YAML text holds.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, ::config::ConfigError> {
    File::from_str(text, FileFormat::Yaml).collect()
}

/// Replaces `${VAR}` and `${VAR:-x}`; the error names a variable that is not set.
fn expand(text: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    if text
        .rsplit_once("${")
        .is_some_and(|(_, rest)| !rest.contains('}'))
    {
        return Err("has ${ without }; write $$ for a dollar sign".to_owned());
    }
    shellexpand::env_with_context(text, |name| set(env, name).map(Some).ok_or(()))
        .map(|text| text.into_owned())
        .map_err(|error| {
            let name = error.var_name;
            format!("uses ${{{name}}}, which is not set; set it, or write ${{{name}:-<default>}}")
        })
}

fn environment(sources: &Sources<'_>, schema: &Schema, problems: &mut Problems) -> Layer {
    let mut layer = Layer::new();
    let env = &sources.env;
    for (name, path) in ALIASES {
        if let Some(value) = set(env, name) {
            layer.insert(path.to_owned(), text(value, name));
        }
    }
    for (name, value) in env.iter().filter(|(_, value)| !value.is_empty()) {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let alias = ALIASES.iter().any(|(alias, _)| alias == name);
        if alias || name == FILE_VARIABLE || of_kubernetes(rest, value) {
            continue;
        }
        if name == MULTI_TENANCY {
            if !["true", "yes", "on", "1"].contains(&value.to_ascii_lowercase().as_str()) {
                let problem = "can only be true: this service always keeps tenants apart, and who \
                               has one tenant creates one";
                problems.add("", &Origin::Env(name.clone()), problem);
            }
            continue;
        }
        let path = rest.replace("__", ".").to_ascii_lowercase();
        let secret = path
            .strip_suffix(&SECRET_FILE.to_ascii_lowercase())
            .filter(|path| schema.secret(path));
        if schema.leaf(&path) {
            layer.insert(path, text(value, name));
        } else if let Some(path) = secret {
            let origin = Origin::Env(name.clone());
            if set(env, name.trim_end_matches(SECRET_FILE)).is_some() {
                let problem = format!(
                    "{} is set too; set one of them",
                    name.trim_end_matches(SECRET_FILE)
                );
                problems.add(path, &origin, problem);
                continue;
            }
            match (sources.read)(Path::new(value)) {
                Ok(content) => {
                    layer.insert(path.to_owned(), text(content.trim(), name));
                }
                Err(error) => {
                    problems.add(path, &origin, format!("{value} cannot be read: {error}"))
                }
            }
        } else {
            problems.add(
                &path,
                &Origin::Env(name.clone()),
                schema.unknown(&path, Some(PREFIX)),
            );
        }
    }
    layer
}

fn text(value: &str, name: &str) -> Given {
    Given {
        value: ValueKind::String(value.to_owned()),
        origin: Origin::Env(name.to_owned()),
    }
}

/// A variable that is set to something.
fn set<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    env.get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
}

/// Kubernetes puts such variables into every pod beside a Service whose name
/// begins with `persistence`.
fn of_kubernetes(rest: &str, value: &str) -> bool {
    let url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let numbered = rest
        .rsplit_once("PORT_")
        .is_some_and(|(_, port)| port.starts_with(|first: char| first.is_ascii_digit()));
    !rest.contains("__")
        && (rest.ends_with("SERVICE_HOST")
            || rest.contains("SERVICE_PORT")
            || numbered
            || (rest.ends_with("PORT") && url))
}
