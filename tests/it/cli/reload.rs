//! A running server and its file: `state reload`, SIGHUP, `config diff`, and log lines
//! that are filtered anew. It does not know how a file is watched.

use std::{thread, time::Duration};

use super::{Folder, Serving};

const FILE: &str = "persistence.yml";

fn tags(most: &str) -> String {
    format!("persistence:\n  cache:\n    max_tags: {most}\n")
}

/// The same with a file that nobody watches.
fn unwatched(more: &str) -> String {
    format!("persistence:\n  reload: {{watch_file: false}}\n{more}")
}

/// Waits until it holds.
fn until(what: &str, serving: &Serving<'_>, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("never: {what}: {}", serving.log());
}

#[test]
fn a_reload_is_shown_and_its_outcome_is_the_exit_code() {
    let folder = Folder::new();
    folder.write(FILE, unwatched("  cache: {max_tags: 8}\n"));
    let serving = folder.serve(&["--ephemeral"]);
    let unchanged = serving.run(&["state", "reload"]).ok();
    assert_eq!(unchanged.text(), "unchanged: version 1 is in force\n");

    folder.write(
        FILE,
        unwatched("  cache: {max_tags: 9}\n  server: {max_in_flight: 7}\n"),
    );
    let diff = serving.run(&["config", "diff"]).ok();
    let rows: Vec<Vec<&str>> = diff
        .text()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows,
        [
            vec!["SETTING", "SERVER", "FILE", "CHANGED", "BY"],
            vec!["cache.max_tags", "8", "9", "reload"],
            vec!["server.max_in_flight", "4096", "7", "restart"],
        ]
    );
    let tried = serving.json(&["state", "reload", "--validate-only"]);
    assert_eq!(
        (&tried["outcome"], &tried["version"]),
        (&"APPLIED".into(), &1.into())
    );
    assert_eq!(serving.json(&["config", "diff"])["version"], 1);
    serving
        .run(&["state", "reload", "--expected-version", "3"])
        .refused(1, "CONFIG_REJECTED");
    let applied = serving
        .run(&["state", "reload", "--expected-version", "1"])
        .ok();
    let rows: Vec<Vec<&str>> = applied
        .text()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows,
        [
            vec!["applied:", "version", "2", "is", "in", "force"],
            vec![],
            vec!["SETTING", "OLD", "NEW", "IN", "FORCE"],
            vec!["cache.max_tags", "8", "9", "now"],
            vec!["server.max_in_flight", "4096", "7", "after", "a", "restart"],
        ]
    );

    folder.write(FILE, unwatched("  cache: {max_tags: many, colour: red}\n"));
    let rejected = serving.run(&["state", "reload"]);
    assert_eq!(rejected.code, 1);
    let told = rejected.text();
    assert!(
        told.starts_with("rejected: version 2 stays in force\n"),
        "{told}"
    );
    for part in [
        "cache.max_tags",
        "\"many\" is not a whole number",
        "cache.colour",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let rejected = serving.run(&["state", "reload", "--output", "json"]);
    assert_eq!(rejected.code, 1);
    let json = rejected.json();
    assert_eq!(json["problems"].as_array().unwrap().len(), 2, "{json}");
    assert_eq!(json["problems"][0]["source"], format!("file {FILE}"));
    let health = serving.run(&["health", "config"]);
    assert_eq!(health.code, 5, "{health:?}");
    serving.run(&["health"]).ok();
    // What the file here would be refused for is told without the server, too.
    serving
        .run(&["config", "diff"])
        .refused(1, "cache.max_tags");
}

#[test]
fn a_file_is_compared_with_what_the_server_has_from_files() {
    let folder = Folder::new();
    folder.write(FILE, "persistence: {drain: {delay: 1s}}");
    let serving = folder.serve(&["--ephemeral"]);
    // Of flags and of the environment no file can change anything.
    folder.write(
        "next.yml",
        "persistence: {drain: {delay: 1000ms}, server: {listen: '127.0.0.1:7'}, auth: {admin_key: another-key}}",
    );
    let mut command = serving.command(&["config", "diff", "next.yml", "--output", "json"]);
    command.env("PERSISTENCE_CACHE__MAX_TAGS", "3");
    let key = std::fs::read_to_string(folder.path("data/admin.key")).unwrap();
    command.env("RIPTIDE_API_KEY", key.trim());
    let diff = super::Ran::from(command.output().unwrap()).ok().json();
    let changes = diff["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{diff}");
    assert_eq!(changes[0]["setting"], "auth.admin_key");
    assert_eq!(changes[0]["file"], "(redacted)");
    let same = serving.run(&["config", "diff"]).ok();
    assert_eq!(same.text(), "with this file nothing would change\n");
}

#[test]
fn a_signal_reloads_and_log_lines_are_filtered_anew() {
    let folder = Folder::new();
    folder.write(FILE, unwatched("  log: {filter: error, access: all}\n"));
    let serving = folder.serve(&["--ephemeral"]);
    serving.run(&["info"]).ok();
    assert_eq!(serving.log(), "");
    folder.write(FILE, unwatched("  log: {filter: info, access: all}\n"));
    serving.signal("HUP");
    until("calls are logged", &serving, || {
        serving.run(&["info"]).ok();
        serving.log().contains("call ended")
    });
    folder.write(
        FILE,
        unwatched("  log: {filter: 'info,access=warn', access: all}\n"),
    );
    serving.signal("HUP");
    until("the reload is told", &serving, || {
        serving.log().matches("configuration reloaded").count() == 1
    });
    let calls = || serving.log().matches("call ended").count();
    // The line is written before the filter is exchanged; what a call tells, after it.
    until("calls are not logged", &serving, || {
        let before = calls();
        serving.run(&["info"]).ok();
        calls() == before
    });
    // It does not end by it, and a bad file is told.
    folder.write(FILE, unwatched("  log: {filter: 'a=loud'}\n"));
    serving.signal("HUP");
    until("the problem is told", &serving, || {
        serving.log().contains("configuration rejected")
    });
    serving.run(&["health"]).ok();
}

#[test]
fn a_file_that_appears_is_noticed_and_missed_when_it_goes() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    let most = || {
        let config = serving.json(&["info"]);
        config["limits"]["tags"].as_i64().unwrap()
    };
    assert_eq!(most(), 16);
    folder.write(FILE, tags("7"));
    until("it is in force", &serving, || most() == 7);
    std::fs::remove_file(folder.path(FILE)).unwrap();
    until("it is missed", &serving, || {
        serving.run(&["health", "config"]).code == 5
    });
    assert_eq!(most(), 7);
}

#[test]
fn a_server_that_speaks_tls_is_reached_by_one_who_trusts_it() {
    let folder = Folder::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    folder.write("ca.pem", root.pem());
    folder.write("server.crt", certificate.pem());
    folder.write("server.key", key.serialize_pem());
    folder.write(
        FILE,
        "persistence: {server: {tls: {cert_file: server.crt, key_file: server.key}}}",
    );
    let serving = folder.start(&["--ephemeral"]);
    assert!(
        serving.told.contains("RIPTIDE_ADDRESS=https://127.0.0.1:"),
        "{}",
        serving.told
    );
    let https = serving.address.replace("http://", "https://");
    let trusting = ["--address", &https, "--ca-file", "ca.pem"];
    until("it serves", &serving, || {
        folder.run(&[&["health"], &trusting[..]].concat()).code == 0
    });
    let info = folder.run(&[&["info", "--output", "json"], &trusting[..]].concat());
    assert_eq!(info.ok().json()["backend"], "embedded");
    // Nobody else's word is taken for it, and nothing is said in the clear.
    folder
        .run(&["info", "--address", &https, "--ca-file", "none.pem"])
        .refused(2, "--ca-file: none.pem");
    folder
        .run(&["info", "--address", &https])
        .refused(5, "UnknownIssuer");
    assert_ne!(serving.run(&["info"]).code, 0);
}
