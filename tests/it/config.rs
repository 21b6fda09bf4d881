//! Configuration: layers, typos, bad values, secrets from files, and that
//! `default.yaml` and the structs agree. It touches no real environment.

mod encryption;
mod prices;

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use riptide_persistence::config::{
    self, Backend, Config, CustomQuota, DEFAULTS, Flag, Loaded, Origin, Problems, QuotaMode,
    Sources,
};
use rstest::rstest;
use secrecy::ExposeSecret;

/// Sources of a test: files by name, and variables.
#[derive(Default)]
struct Given {
    named: Option<&'static str>,
    files: BTreeMap<&'static str, String>,
    env: BTreeMap<String, String>,
    flags: Vec<Flag>,
}

impl Given {
    fn file(text: &str) -> Self {
        Self::default().and_file("persistence.yml", text)
    }

    fn env(name: &str, value: &str) -> Self {
        Self::default().and_env(name, value)
    }

    fn and_file(mut self, name: &'static str, text: &str) -> Self {
        self.files.insert(name, text.to_owned());
        self
    }

    fn and_env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn and_flag(mut self, path: &'static str, name: &'static str, value: &str) -> Self {
        self.flags.push(Flag {
            path,
            name,
            value: value.to_owned(),
        });
        self
    }

    fn named(mut self, name: &'static str) -> Self {
        self.named = Some(name);
        self
    }

    fn load(self) -> Result<Loaded, Problems> {
        let read = |path: &Path| {
            let text = path.to_str().and_then(|path| self.files.get(path));
            text.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        config::load(&Sources {
            file: self.named.map(Into::into),
            env: self.env.clone(),
            flags: self.flags.clone(),
            read: &read,
        })
    }

    fn config(self) -> Config {
        self.load().unwrap().config
    }

    fn problems(self) -> Vec<String> {
        self.load()
            .unwrap_err()
            .0
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

fn source(loaded: &Loaded, path: &str) -> (String, String) {
    let setting = loaded
        .settings
        .iter()
        .find(|setting| setting.path == path)
        .unwrap();
    (setting.value.clone(), setting.source.to_string())
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = Config::defaults();
    assert_eq!(config.server.listen, "127.0.0.1:50051".parse().unwrap());
    assert_eq!(
        config.server.admin_listen,
        "127.0.0.1:9464".parse().unwrap()
    );
    assert_eq!(config.store.backend, Backend::Embedded);
    assert_eq!(config.store.path, Path::new("./data"));
    assert_eq!(config.store.admin_key_file(), Path::new("./data/admin.key"));
    assert!(config.redis.url.is_none() && config.auth.admin_key.is_none());
    assert_eq!(config.cache.max_value_bytes, 20 << 20);
    assert_eq!(config.cache.max_batch_items, 1000);
    assert_eq!(
        (config.cache.max_tags, config.cache.max_tag_bytes),
        (16, 128)
    );
    assert_eq!(config.cache.compression.min_bytes, 1024);
    assert_eq!(
        config.tenant.delete_grace,
        Duration::from_secs(7 * 24 * 60 * 60)
    );
    let plans: Vec<_> = config.tenant.plans.keys().map(String::as_str).collect();
    assert_eq!(plans, ["basic", "enterprise", "free", "professional"]);
    assert_eq!(config.tenant.plans["free"].quotas.memory_bytes, 100 << 20);
    assert_eq!(config.tenant.plans["enterprise"].quotas.memory_bytes, -1);
}

const MASTER_KEY: &str = "a:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Every key of default.yaml changes the struct (so it is read into it), and the
/// struct has no other field (a missing key would not load).
#[test]
fn every_key_of_the_defaults_is_read() {
    let defaults = Given::default().load().unwrap();
    let before = format!("{:?}", defaults.config);
    assert!(defaults.settings.len() > 50);
    for setting in &defaults.settings {
        let other = match setting.value.as_str() {
            _ if setting.path == "server.listen" => "127.0.0.1:1",
            _ if setting.path == "redis.url" => "redis://elsewhere",
            _ if setting.path == "encryption.master_keys" => MASTER_KEY,
            _ if setting.path == "encryption.enabled" => continue, // needs a master key
            _ if setting.path.starts_with("server.tls.") => continue, // need each other
            _ if setting.path.starts_with("redis.tls.") => continue, // need a URL
            _ if setting.path == "trace.otlp_ca_file" => continue, // needs an endpoint
            _ if setting.path == "server.admin_tls" => continue,   // needs a certificate
            _ if setting.path == "tenant.default_plan" => "basic",
            _ if setting.path == "checkpoint.url" => "s3://bucket/prefix",
            _ if setting.path == "checkpoint.schedule.interval" => "1h",
            _ if setting.path == "checkpoint.schedule.components" => "cache",
            _ if setting.path == "checkpoint.schedule.keep" => "8",
            _ if setting.path == "store.backend" => continue, // see below
            _ if setting.path == "server.max_message_bytes" => "33 MiB",
            _ if setting.path == "cache.max_value_bytes" => "19 MiB",
            "true" => "false",
            "false" => "true",
            "per-core" => "multi-thread",
            "auto" | "info" if setting.path == "log.format" => "json",
            "errors" => "all",
            _ if setting.path == "trace.otlp_endpoint" => "http://localhost:4317",
            _ if setting.path == "trace.resource_attributes" => "team=cache",
            _ if setting.path == "trace.service_name" => "cache",
            "0.01" => "0.5",
            "auto" => "off",
            "info" => "debug",
            "~" => "something-secret",
            "USD" => "EUR",
            "local" => "deny, operations_per_minute=allow",
            "./data" => "./elsewhere",
            "127.0.0.1:9464" => "127.0.0.1:2",
            _ if setting.path == "cache.max_ttl" => "300d",
            _ if setting.path == "audit.keep" => "80d",
            _ if setting.path == "session.max_ttl" => "300d",
            _ if setting.path == "session.max_data_bytes" => "63 KiB",
            value if value.ends_with(['s', 'm', 'd', 'h']) => "7s",
            value if value.ends_with('B') => "7 MiB",
            value if value.parse::<i64>().is_ok() => "7",
            value => panic!("{}: no other value for {value}", setting.path),
        };
        let name = setting.path.replace('.', "__").to_uppercase();
        let loaded = Given::env(&format!("PERSISTENCE_{name}"), other)
            .and_env("PERSISTENCE_STORE__BACKEND", "embedded")
            .load()
            .unwrap();
        assert_ne!(
            format!("{:?}", loaded.config),
            before,
            "{} is not read",
            setting.path
        );
        let after = loaded
            .settings
            .iter()
            .find(|after| after.path == setting.path)
            .unwrap();
        assert_eq!(after.source, Origin::Env(format!("PERSISTENCE_{name}")));
    }
    let redis = Given::env("REDIS_URL", "redis://h").config();
    assert_eq!(redis.store.backend, Backend::Redis);
}

#[test]
fn every_setting_is_said_to_be_reloaded_or_to_need_a_restart() {
    let defaults = Given::default().load().unwrap();
    let paths = defaults.settings.iter().map(|setting| &setting.path);
    let unsaid: Vec<_> = paths
        .filter(|path| config::effect(path).is_none())
        .collect();
    assert!(unsaid.is_empty(), "add to src/config/effect.rs: {unsaid:?}");
}

#[test]
fn every_key_of_the_defaults_is_documented() {
    let mut documented = std::collections::BTreeSet::new();
    let mut comment = false;
    for line in DEFAULTS
        .lines()
        .skip_while(|line| *line != "persistence:")
        .skip(1)
    {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            comment = text.starts_with('#');
            continue;
        }
        let key = text.split(':').next().unwrap().to_owned();
        let plan = ["free", "basic", "professional", "enterprise"].contains(&key.as_str());
        // The keys of a plan are explained at the first one.
        assert!(
            comment || plan || documented.contains(&key),
            "{key} has no comment"
        );
        documented.insert(key);
        comment = false;
    }
}

#[test]
fn later_layers_win_and_each_value_knows_its_source() {
    let given = || {
        Given::file("persistence:\n  server:\n    threads: 2\n    max_in_flight: 5\n  drain:\n    delay: 3s\n")
            .and_env("PERSISTENCE_SERVER__THREADS", "3")
            .and_env("PERSISTENCE_SERVER__LISTEN", "127.0.0.1:1111")
            .and_flag("server.listen", "--listen", "127.0.0.1:2222")
    };
    let loaded = given().load().unwrap();
    assert_eq!(
        loaded.config.server.listen,
        "127.0.0.1:2222".parse().unwrap()
    );
    assert_eq!(loaded.config.server.threads, 3);
    assert_eq!(loaded.config.server.max_in_flight, 5);
    assert_eq!(loaded.config.drain.delay, Duration::from_secs(3));
    let is = |path, value: &str, from: &str| {
        assert_eq!(source(&loaded, path), (value.to_owned(), from.to_owned()));
    };
    is("server.listen", "127.0.0.1:2222", "flag --listen");
    is("server.threads", "3", "env PERSISTENCE_SERVER__THREADS");
    is("server.max_in_flight", "5", "file persistence.yml");
    is("drain.timeout", "30s", "default");
    let paths: Vec<_> = loaded
        .settings
        .iter()
        .map(|setting| &setting.path)
        .collect();
    assert!(paths.is_sorted());
}

#[test]
fn the_file_is_named_by_flag_then_variable_then_found() {
    let file = |threads: &str| format!("persistence: {{server: {{threads: {threads}}}}}");
    let given = || {
        Given::file(&file("1"))
            .and_file("a.yml", &file("2"))
            .and_file("b.yml", &file("3"))
    };
    assert_eq!(given().config().server.threads, 1);
    assert_eq!(
        given()
            .and_env("PERSISTENCE_CONFIG", "a.yml")
            .config()
            .server
            .threads,
        2
    );
    let both = given()
        .and_env("PERSISTENCE_CONFIG", "a.yml")
        .named("b.yml");
    assert_eq!(both.config().server.threads, 3);
    let missing = given().named("c.yml").problems();
    assert!(
        missing[0].starts_with("file c.yml cannot be read: "),
        "{missing:?}"
    );
}

#[rstest]
#[case(
    "persistence:\n  sever: {}",
    "sever (file persistence.yml): is not a setting; the sections are: audit, auth, billing, cache,"
)]
#[case(
    "persistence:\n  server:\n    lisen: x",
    "server.lisen (file persistence.yml): is not a setting; server has: admin_listen,"
)]
#[case(
    "persistence:\n  server_listen: x",
    "server_listen (file persistence.yml): is not a setting; did you mean server.listen?"
)]
#[case(
    "persistence:\n  tenant:\n    plans:\n      free:\n        quotas:\n          memory: 1",
    "tenant.plans.free.quotas.memory (file persistence.yml): is not a setting; tenant.plans.free.quotas has: active_sessions,"
)]
#[case(
    "persistence:\n  tenant:\n    plans:\n      Gold: {default_ttl: 1s}",
    "tenant.plans.Gold (file persistence.yml): is not a plan's name"
)]
#[case(
    "server:\n  listen: x",
    "server (file persistence.yml): is not allowed here; all settings are under `persistence:`"
)]
#[case(
    "persistence: 5",
    "persistence (file persistence.yml): is a section, with: audit, auth,"
)]
#[case(
    "persistence:\n  server: 5",
    "server (file persistence.yml): is a section, with: admin_listen,"
)]
#[case(
    "persistence:\n  server:\n    threads: {a: 1}",
    "server.threads (file persistence.yml): takes one value"
)]
#[case(
    "persistence:\n  server:\n    threads: [1]",
    "server.threads (file persistence.yml): takes one value"
)]
#[case(
    "persistence:\n  server:\n    threads: 1\n    threads: 2",
    "file persistence.yml is not YAML: "
)]
#[case("persistence:\n  server: {", "file persistence.yml is not YAML: ")]
#[case("persistence:\n\tserver: x", "file persistence.yml is not YAML: ")]
#[case("a: 1\n---\nb: 2", "file persistence.yml is not YAML: ")]
#[case("just text", "file persistence.yml is not YAML: ")]
fn a_typo_is_told_with_its_key_and_what_is_allowed(#[case] text: &str, #[case] expected: &str) {
    let problems = Given::file(text).problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with(expected), "{}", problems[0]);
}

#[rstest]
#[case(
    "server.listen",
    "localhost",
    "\"localhost\" is not an IP address and a port"
)]
#[case("server.listen", "", "nothing is not an IP address")]
#[case(
    "server.runtime",
    "fast",
    "\"fast\" is not one of: per-core, multi-thread"
)]
#[case("server.reflection", "maybe", "is not one of: auto, on, off")]
#[case("server.threads", "-1", "\"-1\" is not a whole number")]
#[case("server.threads", "2.5", "\"2.5\" is not a whole number")]
#[case(
    "server.threads",
    "1025",
    "1025 is out of bounds; allowed is 0 to 1024"
)]
#[case("server.max_connections", "0", "allowed is 1 to")]
#[case("server.max_streams_per_connection", "0", "allowed is 1 to")]
#[case(
    "server.max_streams_per_connection",
    "99999999999",
    "is not a whole number"
)]
#[case("server.max_in_flight", "0", "allowed is 1 to")]
#[case(
    "server.max_message_bytes",
    "20 MiB",
    "20971520 bytes; allowed is 20987904 (cache.max_value_bytes"
)]
#[case(
    "server.max_message_bytes",
    "-1",
    "is not a size: bytes, or with a unit"
)]
#[case("server.max_deadline", "30", "\"30\" is not a duration with its unit")]
#[case(
    "server.max_deadline",
    "0s",
    "0s is out of bounds; allowed is 10ms to 1d"
)]
#[case("server.max_deadline", "99999999999999999999s", "is not a duration")]
#[case("server.handshake_timeout", "-1s", "is not a duration")]
#[case(
    "server.admin_listen",
    "127.0.0.1:50051",
    "127.0.0.1:50051 is server.listen already"
)]
#[case(
    "server.listen",
    "0.0.0.0:50051",
    "set server.allow_plaintext_beyond_loopback to true"
)]
#[case(
    "server.allow_plaintext_beyond_loopback",
    "5",
    "\"5\" is not true or false"
)]
#[case("drain.timeout", "2h", "2h is out of bounds")]
#[case(
    "store.backend",
    "etcd",
    "\"etcd\" is not one of: auto, embedded, redis"
)]
#[case("store.path", "~", "nothing is not a path")]
#[case(
    "redis.url",
    "localhost:6379",
    "is not a URL of Redis; it begins with one of redis://,"
)]
#[case("redis.url", "redis://", "is not a URL of Redis")]
#[case("redis.pool_size", "0", "allowed is 1 to 64")]
#[case(
    "redis.command_timeout",
    "2m",
    "2m is out of bounds; allowed is 10ms to 1m"
)]
#[case(
    "auth.admin_key",
    "short",
    "is not a usable key: 8 to 512 visible ASCII characters"
)]
#[case("auth.admin_key", "with a blank", "is not a usable key")]
#[case(
    "tenant.default_plan",
    "gold",
    "\"gold\" is not a plan; the plans are: basic, enterprise, free, professional"
)]
#[case("tenant.max_tenants", "0", "allowed is 1 or more, or -1")]
#[case(
    "tenant.max_tenants",
    "-2",
    "is not a whole number of 0 or more, or -1 for unlimited"
)]
#[case(
    "tenant.plans.free.default_ttl",
    "400d",
    "400d is out of bounds; allowed is 1ms to 365d"
)]
#[case("tenant.plans.free.quotas.memory_bytes", "-5", "or -1 for unlimited")]
#[case(
    "tenant.plans.free.quotas.memory_bytes",
    "9223372036854775808",
    "is not a size"
)]
#[case(
    "tenant.plans.free.quotas.memory_bytes",
    "99999999999 EiB",
    "is not a size"
)]
#[case(
    "tenant.plans.free.quotas.cache_entries",
    "20 MiB",
    "is not a whole number"
)]
#[case(
    "tenant.plans.free.quotas.custom.pages.limit",
    "-2",
    "or -1 for unlimited"
)]
#[case(
    "tenant.plans.free.quotas.custom.pages.limit",
    "1 MiB",
    "is not a whole number"
)]
#[case(
    "tenant.plans.free.quotas.custom.pages.limit",
    "~",
    "nothing is not a whole number"
)]
#[case(
    "tenant.plans.free.quotas.custom.pages.window",
    "1000",
    "\"1000\" is not a duration with its unit"
)]
#[case(
    "tenant.plans.free.quotas.modes.memory_bytes",
    "off",
    "\"off\" is not one of: enforce, warn, shadow"
)]
#[case(
    "tenant.plans.free.quotas.modes.pages",
    "warn",
    "is not a metric of this plan, which has: memory_bytes, cache_entries,"
)]
#[case(
    "cache.max_value_bytes",
    "1 GiB",
    "1073741824 is out of bounds; allowed is 1024 to 268435456"
)]
#[case("cache.max_value_bytes", "lots", "\"lots\" is not a size")]
#[case("cache.max_ttl", "1ms", "1ms is out of bounds")]
#[case("cache.max_batch_items", "0", "allowed is 1 to 2048")]
#[case("cache.max_batch_items", "2049", "allowed is 1 to 2048")]
#[case("cache.max_tags", "65", "allowed is 0 to 64")]
#[case("cache.max_tag_bytes", "0", "allowed is 1 to 1024")]
#[case("cache.compression.enabled", "maybe", "\"maybe\" is not true or false")]
#[case("cache.compression.min_saving_percent", "91", "allowed is 0 to 90")]
#[case("cache.compression.min_saving_percent", "256", "is not a whole number")]
#[case("log.filter", "riptide=loud", "allowed is a level")]
#[case("log.format", "xml", "\"xml\" is not one of: auto, text, json")]
fn a_bad_value_is_told_with_what_is_allowed(
    #[case] path: &'static str,
    #[case] value: &str,
    #[case] expected: &str,
) {
    // The same by a file and, where it can be said there, by a flag.
    let mut yaml = "persistence:\n".to_owned();
    let keys: Vec<_> = path.split('.').collect();
    for (depth, key) in keys.iter().enumerate() {
        let value = if depth + 1 == keys.len() { value } else { "" };
        yaml.push_str(&format!("{}{key}: {value}\n", "  ".repeat(depth + 1)));
    }
    let check = |problems: Vec<String>, origin: &str| {
        let line = problems
            .iter()
            .find(|line| line.starts_with(&format!("{path} ({origin}): ")));
        let line = line.unwrap_or_else(|| panic!("{path} is not told: {problems:?}"));
        assert!(line.contains(expected), "{line}");
    };
    check(Given::file(&yaml).problems(), "file persistence.yml");
    if !value.is_empty() && value != "~" {
        check(
            Given::default().and_flag(path, "--flag", value).problems(),
            "flag --flag",
        );
    }
}

#[test]
fn a_plan_may_have_metrics_of_the_platforms_own() {
    let file = "persistence:
  tenant:
    plans:
      free:
        quotas:
          custom:
            pages_rendered: {limit: 500, window: 1h}
            seats: {limit: -1}
          modes: {seats: warn, memory_bytes: shadow, cache_entries: enforce, active_sessions: ~}
";
    let env = "PERSISTENCE_TENANT__PLANS__FREE__QUOTAS__CUSTOM__SEATS__LIMIT";
    let loaded = Given::file(file).and_env(env, "7").load().unwrap();
    let quotas = &loaded.config.tenant.plans["free"].quotas;
    let custom = |limit, window| CustomQuota { limit, window };
    assert_eq!(
        quotas.custom,
        BTreeMap::from([
            (
                "pages_rendered".to_owned(),
                custom(500, Some(Duration::from_secs(3600)))
            ),
            ("seats".to_owned(), custom(7, None)),
        ])
    );
    assert_eq!(
        quotas.modes,
        BTreeMap::from([
            ("active_sessions".to_owned(), QuotaMode::Enforce),
            ("cache_entries".to_owned(), QuotaMode::Enforce),
            ("memory_bytes".to_owned(), QuotaMode::Shadow),
            ("seats".to_owned(), QuotaMode::Warn),
        ])
    );
    let is = |path, value: &str, from: &str| {
        let path = format!("tenant.plans.free.quotas.{path}");
        assert_eq!(source(&loaded, &path), (value.to_owned(), from.to_owned()));
    };
    is("custom.seats.limit", "7", &format!("env {env}"));
    is("custom.pages_rendered.window", "1h", "file persistence.yml");
    assert!(
        Config::defaults().tenant.plans["free"]
            .quotas
            .custom
            .is_empty()
    );
}

#[test]
fn every_wrong_metric_of_a_plan_is_told_where_it_stands() {
    let metrics: String = (0..31).map(|n| format!("m{n}: {{limit: 1}}, ")).collect();
    let file = format!(
        "persistence:
  tenant:
    plans:
      free:
        quotas:
          custom: {{{metrics}Pages: {{limit: 1}}, memory_bytes: {{limit: 1, window: 999ms}}, late: {{limit: 1, window: 32d}}, none: {{window: 1h}}, odd: {{limit: 1, per: 1h}}}}
"
    );
    // A value that is missing or unknown is told before the rest is looked at.
    let problems = Given::file(&file).problems();
    let of = |path: &str, problem: &str| {
        let line =
            format!("tenant.plans.free.quotas.custom{path} (file persistence.yml): {problem}");
        assert!(
            problems.iter().any(|told| told.starts_with(&line)),
            "{line}: {problems:#?}"
        );
    };
    of(".Pages", "is not a metric's name: ^[a-z]");
    of(".memory_bytes", "is not a metric's name: ^[a-z]");
    of(
        ".memory_bytes.window",
        "999ms is out of bounds; allowed is 1s to 31d",
    );
    of(".late.window", "32d is out of bounds; allowed is 1s to 31d");
    of(".none.limit", "is missing");
    of(
        ".odd.per",
        "is not a setting; tenant.plans.free.quotas.custom.odd has: limit, window",
    );
    of("", "35 metrics; at most 32 are allowed");
    assert_eq!(problems.len(), 7, "{problems:#?}");
}

#[test]
fn all_problems_come_at_once() {
    let problems = Given::file(
        "persistence:\n  server: {threads: many, lisen: x, max_in_flight: 0}\n  cache: {max_ttl: soon}\n",
    )
    .and_env("PERSISTENCE_DRAIN__TIMOUT", "1s")
    .and_env("PERSISTENCE_DRAIN__DELAY", "soon")
    .and_env("PERSISTENCE_AUTH__ADMIN_KEY_FILE", "/nowhere")
    .problems();
    let paths: Vec<_> = problems
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    for path in [
        "server.threads",
        "server.lisen",
        "server.max_in_flight",
        "cache.max_ttl",
        "drain.timout",
        "drain.delay",
        "auth.admin_key",
    ] {
        assert_eq!(
            paths.iter().filter(|told| **told == path).count(),
            1,
            "{path}: {problems:#?}"
        );
    }
    assert_eq!(paths.len(), 7, "{problems:#?}");
    assert!(problems.iter().any(|line| line.starts_with(
        "drain.timout (env PERSISTENCE_DRAIN__TIMOUT): is not a setting; drain has: delay, timeout"
    )));
}

#[test]
fn a_variable_with_one_underscore_too_few_is_understood() {
    let problems = Given::env("PERSISTENCE_CACHE_MAX_TTL", "1d").problems();
    assert!(
        problems[0].ends_with("did you mean PERSISTENCE_CACHE__MAX_TTL?"),
        "{problems:?}"
    );
    assert!(Given::env("PERSISTENCE_WHATEVER", "1").load().is_err());
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_of_that_name_are_none_of_ours() {
    Given::env("PERSISTENCE_SERVICE_HOST", "10.0.0.1")
        .and_env("PERSISTENCE_SERVICE_PORT", "50051")
        .and_env("PERSISTENCE_SERVICE_PORT_GRPC", "50051")
        .and_env("PERSISTENCE_PORT", "tcp://10.0.0.1:50051")
        .and_env("PERSISTENCE_PORT_50051_TCP", "tcp://10.0.0.1:50051")
        .and_env("PERSISTENCE_PORT_50051_TCP_ADDR", "10.0.0.1")
        .and_env("PERSISTENCE_REDIS_SERVICE_HOST", "10.0.0.2")
        .config();
    assert!(
        Given::env("PERSISTENCE_PORT", "50051").load().is_err(),
        "a typo is not swallowed"
    );
}

#[test]
fn variables_of_the_predecessor_still_work() {
    let config = Given::env("REDIS_URL", "redis://h:1")
        .and_env("PERSISTENCE_REDIS_POOL_SIZE", "4")
        .and_env("PERSISTENCE_ENABLE_COMPRESSION", "false")
        .and_env("PERSISTENCE_ENABLE_WARMING", "false")
        .and_env("PERSISTENCE_HOT_RELOAD", "false")
        .and_env("PERSISTENCE_MULTI_TENANCY", "true")
        .config();
    assert!(!config.cache.warm_start.enabled && !config.reload.watch_file);
    let defaults = Config::defaults();
    assert!(defaults.cache.warm_start.enabled && defaults.reload.watch_file);
    // There is no other way than many tenants.
    let single = Given::env("PERSISTENCE_MULTI_TENANCY", "false").problems();
    assert!(
        single.len() == 1
            && single[0].starts_with("env PERSISTENCE_MULTI_TENANCY can only be true"),
        "{single:?}"
    );
    assert_eq!(config.redis.url.unwrap().expose_secret(), "redis://h:1");
    assert_eq!(config.redis.pool_size, 4);
    assert!(!config.cache.compression.enabled);
    let given =
        Given::env("REDIS_URL", "redis://h:1").and_env("PERSISTENCE_REDIS__URL", "redis://h:2");
    assert_eq!(
        given.config().redis.url.unwrap().expose_secret(),
        "redis://h:2"
    );
}

#[test]
fn the_backend_follows_the_url_unless_it_is_named() {
    let loaded = Given::env("REDIS_URL", "redis://h").load().unwrap();
    assert_eq!(loaded.config.store.backend, Backend::Redis);
    assert_eq!(
        source(&loaded, "store.backend"),
        ("redis".into(), "env REDIS_URL".into())
    );
    // An empty variable counts as unset, in a file as well.
    assert_eq!(
        Given::env("REDIS_URL", "").config().store.backend,
        Backend::Embedded
    );
    let file = Given::file("persistence: {redis: {url: '${REDIS_URL:-}'}}");
    assert_eq!(file.config().store.backend, Backend::Embedded);
    let named =
        Given::env("REDIS_URL", "redis://h").and_env("PERSISTENCE_STORE__BACKEND", "embedded");
    assert_eq!(named.config().store.backend, Backend::Embedded);

    let without = Given::env("PERSISTENCE_STORE__BACKEND", "redis").problems();
    assert!(
        without[0].starts_with("redis.url (default): is needed because store.backend is redis")
    );
    let ephemeral =
        Given::env("REDIS_URL", "redis://h").and_flag("store.ephemeral", "--ephemeral", "true");
    assert!(
        ephemeral.problems()[0]
            .starts_with("store.ephemeral (flag --ephemeral): only the embedded")
    );
}

#[test]
fn files_expand_variables_in_parsed_texts() {
    let text = "persistence:\n  redis: {url: '${REDIS:-redis://localhost:6379}', pool_size: $SIZE}\n  \
                auth: {admin_key: 'pa$$word}x'} # ${UNSET} in a comment is none\n";
    let loaded = Given::file(text).and_env("SIZE", "3").load().unwrap();
    assert_eq!(
        loaded.config.redis.url.unwrap().expose_secret(),
        "redis://localhost:6379"
    );
    assert_eq!(loaded.config.redis.pool_size, 3);
    assert_eq!(
        loaded.config.auth.admin_key.unwrap().expose_secret(),
        "pa$word}x"
    );
    // What a variable holds is a text, never YAML.
    let value = "redis://h # x: [";
    let problems = Given::file("persistence: {redis: {url: '${R}'}}")
        .and_env("R", value)
        .problems();
    assert!(
        problems[0].starts_with("redis.url (file persistence.yml): is not a URL"),
        "{problems:?}"
    );

    let unset = Given::file("persistence: {redis: {url: 'redis://${HOST}'}}").problems();
    assert_eq!(
        unset[0],
        "redis.url (file persistence.yml): uses ${HOST}, which is not set; set it, or write ${HOST:-<default>}"
    );
    assert!(
        Given::file("persistence: {redis: {url: 'redis://${HOST'}}").problems()[0]
            .contains("without }")
    );
}

#[test]
fn secrets_come_from_files_too_and_are_never_shown() {
    let secret = "correct-horse-battery";
    let loaded = Given::env("PERSISTENCE_AUTH__ADMIN_KEY_FILE", "/run/key")
        .and_file("/run/key", &format!("{secret}\n"))
        .and_env("REDIS_URL", "redis://:hunter2@h")
        .load()
        .unwrap();
    assert_eq!(
        loaded
            .config
            .auth
            .admin_key
            .as_ref()
            .unwrap()
            .expose_secret(),
        secret
    );
    let from = "env PERSISTENCE_AUTH__ADMIN_KEY_FILE".to_owned();
    assert_eq!(
        source(&loaded, "auth.admin_key"),
        ("(redacted)".into(), from)
    );
    assert_eq!(source(&loaded, "redis.url").0, "(redacted)");
    let shown = format!("{loaded:?}");
    assert!(
        !shown.contains(secret) && !shown.contains("hunter2"),
        "{shown}"
    );

    let both = Given::env("PERSISTENCE_AUTH__ADMIN_KEY_FILE", "/run/key")
        .and_env("PERSISTENCE_AUTH__ADMIN_KEY", secret)
        .and_file("/run/key", secret);
    assert!(both.problems()[0].contains("PERSISTENCE_AUTH__ADMIN_KEY is set too"));
    // Only secrets have this form.
    assert!(
        Given::env("PERSISTENCE_SERVER__LISTEN_FILE", "/run/key")
            .load()
            .is_err()
    );
    // Nor does an error show one.
    for given in [
        Given::env("PERSISTENCE_REDIS__URL", "redi://:hunter2@h"),
        Given::env("PERSISTENCE_AUTH__ADMIN_KEY", "hunter2 with blanks"),
        Given::file("persistence: {redis: {url: [hunter2]}}"),
    ] {
        let problems = given.problems().join("\n");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}

#[test]
fn a_plan_of_ones_own_names_all_its_keys() {
    let whole = "persistence: {tenant: {default_plan: gold-2, plans: {gold-2: {default_ttl: ~, quotas: {\
                 memory_bytes: 1 GiB, cache_entries: -1, storage_bytes: 7, operations_per_minute: 8, \
                 data_transfer_bytes: 9 MB, active_sessions: 10}}}}}";
    let config = Given::file(whole).config();
    let gold = &config.tenant.plans["gold-2"];
    assert_eq!(gold.default_ttl, None);
    assert_eq!(gold.quotas.memory_bytes, 1 << 30);
    assert_eq!(gold.quotas.data_transfer_bytes, 9_000_000);
    assert_eq!(config.tenant.plans.len(), 5);

    let lacking = Given::file(
        "persistence: {server: {threads: x}, tenant: {plans: {gold: {default_ttl: 1s}}}}",
    );
    let problems = lacking.problems();
    assert!(
        problems
            .contains(&"tenant.plans.gold.quotas (file persistence.yml): is missing".to_owned())
    );
    assert_eq!(problems.len(), 2, "{problems:?}");

    let part = Given::env(
        "PERSISTENCE_TENANT__PLANS__FREE__QUOTAS__MEMORY_BYTES",
        "2 KiB",
    )
    .config();
    assert_eq!(part.tenant.plans["free"].quotas.memory_bytes, 2048);
    assert_eq!(part.tenant.plans["free"].quotas.cache_entries, 100_000);
}

/// Cut anywhere, a file either loads or is refused with words; never a panic.
#[test]
fn a_truncated_file_is_refused_or_valid() {
    let text = DEFAULTS.replace("127.0.0.1:50051", "127.0.0.1:50052");
    let mut refused = 0;
    for end in
        (text.find("persistence:\n").unwrap()..text.len()).filter(|end| text.is_char_boundary(*end))
    {
        match Given::file(&text[..end]).load() {
            Ok(_) => {}
            Err(problems) => {
                refused += 1;
                assert!(
                    problems.0.iter().all(|p| p.source != Origin::Default),
                    "{problems}"
                );
                assert!(!problems.to_string().is_empty());
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[rstest]
#[case("500ms", 500)]
#[case("30s", 30_000)]
#[case("1m 30s", 90_000)]
#[case("12h", 43_200_000)]
#[case("7d", 604_800_000)]
#[case("0", 0)]
fn durations(#[case] text: &str, #[case] ms: u64) {
    let config = Given::env("PERSISTENCE_TENANT__DELETE_GRACE", text).config();
    assert_eq!(config.tenant.delete_grace, Duration::from_millis(ms));
}

#[rstest]
#[case("2048", 2048)]
#[case("4 KiB", 4096)]
#[case("4KB", 4000)]
#[case("1.5 MiB", 1_572_864)]
#[case(" 20 MiB ", 20 << 20)]
fn sizes(#[case] text: &str, #[case] bytes: usize) {
    let config = Given::env("PERSISTENCE_CACHE__MAX_VALUE_BYTES", text).config();
    assert_eq!(config.cache.max_value_bytes, bytes);
}

#[test]
fn printed_values_read_back_the_same() {
    let loaded = Given::env("PERSISTENCE_LOG__FILTER", "info,a::b=debug")
        .and_env("PERSISTENCE_STORE__PATH", "a: b # c")
        .load()
        .unwrap();
    assert_eq!(source(&loaded, "log.filter").0, "info,a::b=debug");
    assert_eq!(source(&loaded, "store.path").0, "\"a: b # c\"");
    let mut given = Given::default();
    for setting in &loaded.settings {
        let value = setting.value.trim_matches('"');
        let name = format!(
            "PERSISTENCE_{}",
            setting.path.replace('.', "__").to_uppercase()
        );
        given = given.and_env(&name, if value == "~" { "" } else { value });
    }
    assert_eq!(
        format!("{:?}", given.config()),
        format!("{:?}", loaded.config)
    );
}
