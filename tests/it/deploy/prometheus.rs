//! A real Prometheus with our configuration beside a service that is called: every panel
//! of the dashboard shows something, and every alert is evaluated and silent. It does not
//! know what the figures ought to be.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{dashboard, deploy, read, tool};
use crate::{
    cli::{Folder, Serving},
    redis::{self, Options},
};

/// A server of Prometheus; killed when it is dropped.
struct Prometheus {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes this address, every second; all else is as it is shipped.
    fn start(scrapes: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(
            deploy("prometheus/alerts.yaml"),
            folder.path().join("alerts.yaml"),
        )
        .unwrap();
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, configuration(scrapes)).unwrap();
        let port = redis::free_port();
        let child = tool("prometheus")
            .arg("--config.file")
            .arg(&file)
            .arg("--storage.tsdb.path")
            .arg(folder.path().join("data"))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "prometheus: {error}; `make test` installs it, and so does `tests/tools deploy`"
                )
            });
        redis::end_with_us(folder.path());
        let mut prometheus = Self {
            child,
            port,
            folder,
        };
        prometheus.until("it is ready", |it| {
            it.get("/-/ready")
                .is_some_and(|answer| answer.contains("Ready"))
        });
        prometheus
    }

    /// Waits until it holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(120);
        while !holds(self) {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
                panic!("never: {what} ({ended:?}): {log}");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What it answers, if it does.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        // HTTP/1.0, so that the answer is in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some(body.to_owned())
    }

    fn api(&self, path: &str) -> Value {
        let answer = self.get(&format!("/api/v1/{path}")).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// The values that an expression has now.
    fn values(&self, expression: &str) -> Vec<f64> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        let encoded: String = expression
            .bytes()
            .map(|byte| match byte {
                byte if plain(byte) => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        let data = self.api(&format!("query?query={encoded}"));
        let series = data["result"].as_array().unwrap();
        series
            .iter()
            .map(|series| series["value"][1].as_str().unwrap().parse().unwrap())
            .collect()
    }

    /// Whether there is something to draw.
    fn shows(&self, expression: &str) -> bool {
        let expression = expression
            .replace("$__rate_interval", "1m")
            .replace("$instance", ".+");
        assert!(!expression.contains('$'), "{expression}");
        self.values(&expression)
            .iter()
            .any(|value| value.is_finite())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration as it is shipped, but for the address and the pace.
fn configuration(scrapes: &str) -> String {
    let shipped = read("prometheus/prometheus.yml");
    let (head, found) = shipped.split_once("    dns_sd_configs:").unwrap();
    let found = found.lines().skip(1);
    let rest: Vec<&str> = found
        .skip_while(|line| line.starts_with("      "))
        .collect();
    assert_eq!(rest, Vec::<&str>::new(), "is not lost here");
    let head = head.replace("_interval: 15s", "_interval: 1s");
    format!("{head}    static_configs: [{{targets: ['{scrapes}']}}]\n")
}

/// Where its admin listener is, as it logs it.
fn admin_address(serving: &Serving<'_>) -> String {
    let mut found = None;
    redis::eventually("the log tells of the listeners", || {
        let log = serving.log();
        let after = log.split_once("admin_address").map(|(_, after)| after);
        found = after.and_then(|after| {
            let at = after.trim_start_matches(|c: char| !c.is_ascii_digit());
            let end = at.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
            Some(at[..end].to_owned())
        });
        found.is_some()
    });
    found.unwrap()
}

/// Calls of every kind that a panel shows, those that are refused too.
fn traffic(serving: &Serving<'_>, round: usize) {
    let ok = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        serving.run(&arguments).ok();
    };
    let refused = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        assert_ne!(serving.run(&arguments).code, 0, "{arguments:?}");
    };
    ok("cache set greeting hello --tenant acme --ttl 10m");
    for _ in 0..3 {
        ok("cache get greeting --tenant acme");
    }
    refused("cache get nothing --tenant acme");
    ok(&format!("cache set gone-{round} x --tenant acme"));
    ok(&format!("cache delete gone-{round} --tenant acme"));
    // Its one entry is there; a second is too much for `full`, and told of by `warned`.
    ok("cache set first x --tenant full");
    refused("cache set second x --tenant full");
    ok(&format!("cache set more-{round} x --tenant warned"));
    refused("cache get greeting --tenant nobody");
    ok("cache invalidate --tag red --tenant acme");
    ok("session create ann --tenant acme --ttl 1h");
    ok("session terminate --user ann --tenant acme");
    ok("state reload");
    ok("state checkpoint create --components tenants");
}

#[test]
fn no_panel_is_empty_and_no_alert_is_raised() {
    let redis = Options::new()
        .with(&["--maxmemory", "256mb", "--maxmemory-policy", "noeviction"])
        .start();
    let mut folder = Folder::new();
    folder.env("PERSISTENCE_REDIS__URL", &redis.url());
    folder.write("persistence.yml", "persistence: {}\n");
    let serving = folder.serve(&[]);
    let mut prometheus = Prometheus::start(&admin_address(&serving));
    for (tenant, quota) in [
        ("acme", "cache_entries=1000"),
        ("full", "cache_entries=1"),
        ("warned", "cache_entries=1:warn"),
    ] {
        serving.run(&["tenant", "create", tenant]).ok();
        serving.run(&["quota", "set", tenant, quota]).ok();
    }
    let mut empty = dashboard::targets();
    let mut round = 0;
    let end = Instant::now() + Duration::from_secs(180);
    while !empty.is_empty() {
        traffic(&serving, round);
        empty.retain(|target| !prometheus.shows(&target.expression));
        round += 1;
        let named: Vec<String> = empty
            .iter()
            .map(|target| format!("{}: {}", target.name, target.expression))
            .collect();
        assert!(Instant::now() < end, "empty: {}", named.join("\n"));
        thread::sleep(Duration::from_millis(500));
    }

    let rules = |prometheus: &Prometheus| {
        let groups = prometheus.api("rules?type=alert")["groups"].clone();
        groups[0]["rules"].as_array().unwrap().clone()
    };
    prometheus.until("every alert was evaluated", |it| {
        rules(it).iter().all(|rule| rule["health"] == "ok")
    });
    let rules = rules(&prometheus);
    let shipped = super::documents("prometheus/alerts.yaml");
    let shipped = shipped[0]["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), shipped.len());
    for rule in &rules {
        // How fast the store is depends on what else this machine does now.
        let may_wait = rule["name"] == "RiptideStoreSlow" && rule["state"] == "pending";
        let is_silent = rule["state"] == "inactive" || may_wait;
        assert!(is_silent, "a service that is well: {rule}");
        for metric in dashboard::metrics(rule["query"].as_str().unwrap()) {
            // Without TLS there is no certificate that could end.
            if metric.starts_with("riptide_tls_") {
                continue;
            }
            let [bucket, plain] = [format!("{metric}_bucket"), metric];
            let told = [bucket, plain].iter().any(|name| prometheus.shows(name));
            assert!(told, "nothing tells what is asked for: {rule}");
        }
    }
    let log = fs::read_to_string(prometheus.folder.path().join("log")).unwrap();
    let faults = log.lines().filter(|line| line.contains("level=error"));
    assert_eq!(faults.collect::<Vec<_>>(), Vec::<&str>::new());
}
