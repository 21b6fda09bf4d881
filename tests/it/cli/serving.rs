//! The server as a process: how it starts or refuses to, what it leaves on disk,
//! how it ends, and what is still there after it was killed.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, thread, time::Duration};

use serde_json::Value;

use super::{Folder, Nobody, Ran};

#[test]
fn it_tells_what_to_type_next() {
    let folder = Folder::new();
    let serving = folder.serve(&[]);
    let told = &serving.told;
    assert!(told.contains("entries are kept in ./data"), "{told}");
    assert!(
        told.contains("the admin key is in ./data/admin.key"),
        "{told}"
    );
    assert!(
        told.contains(&format!("export RIPTIDE_ADDRESS={}", serving.address)),
        "{told}"
    );
    // What it says works when it is typed.
    let typed = told
        .lines()
        .filter_map(|line| line.trim().split_once("riptide-persistence "));
    let typed: Vec<_> = typed
        .filter(|(program, _)| program.ends_with('/'))
        .map(|(_, rest)| rest)
        .collect();
    assert_eq!(typed.len(), 3, "{told}");
    for arguments in typed {
        let arguments: Vec<_> = arguments.split(' ').collect();
        serving.run(&arguments).ok();
    }
    assert_eq!(
        serving
            .run(&["cache", "get", "greeting", "--tenant", "acme"])
            .ok()
            .stdout,
        b"hello"
    );
}

#[test]
fn the_admin_key_is_made_once_and_for_its_owner_alone() {
    let folder = Folder::new();
    let serving = folder.serve(&[]);
    let path = folder.path("data/admin.key");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let key = fs::read_to_string(&path).unwrap();
    drop(serving);
    let serving = folder.serve(&[]);
    assert_eq!(fs::read_to_string(&path).unwrap(), key);
    assert_eq!(
        serving.json(&["whoami", "--key", key.trim()])["admin"],
        true
    );
    // Log lines off a terminal are JSON, and hold no secret.
    let log = serving.log();
    assert!(!log.is_empty() && !log.contains(key.trim()) && !serving.told.contains(key.trim()));
    for line in log.lines() {
        assert!(
            serde_json::from_str::<Value>(line).unwrap()["level"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn an_admin_key_of_ones_own_is_used_and_none_is_made() {
    let folder = Folder::new();
    folder.write("persistence.yml", "persistence: {store: {path: ./elsewhere}, auth: {admin_key: '${KEY:-an-admin-key-of-my-own}'}}");
    let serving = folder.serve(&[]);
    assert_eq!(
        serving.json(&["whoami"])["admin"],
        true,
        "the command finds it in the settings"
    );
    assert!(!folder.path("elsewhere/admin.key").exists());
    assert!(
        serving
            .run(&["whoami", "--key", "an-admin-key-of-someone"])
            .code
            == 4
    );
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let folder = Folder::new();
    let serving = folder.serve(&[]);
    let second = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let ran = folder.run(&second);
    assert_eq!(ran.code, 1, "{ran:?}");
    let error = ran
        .stderr
        .lines()
        .find(|line| line.starts_with("error: "))
        .unwrap();
    assert!(
        error.contains("store.path") && error.contains("./data"),
        "{error}"
    );
    // The first one does not mind.
    assert_eq!(serving.run(&["health"]).code, 0);
}

#[test]
fn a_port_that_is_taken_is_told_by_its_setting() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other, setting) in [
        ("--listen", "--admin-listen", "server.listen"),
        ("--admin-listen", "--listen", "server.admin_listen"),
    ] {
        let ran = folder.run(&["serve", "--ephemeral", flag, &address, other, "127.0.0.1:0"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        let error = ran
            .stderr
            .lines()
            .find(|line| line.starts_with("error: "))
            .unwrap();
        assert!(
            error.contains(setting) && error.contains(&address),
            "{error}"
        );
    }
}

#[test]
fn a_typo_in_the_settings_stops_the_start_before_anything_is_made() {
    let folder = Folder::new();
    folder.write(
        "persistence.yml",
        "persistence:\n  server:\n    lisen: 127.0.0.1:1\n    threads: many\n",
    );
    for command in [&["serve"][..], &["config", "check"], &["config", "print"]] {
        let ran = folder.run(command).refused(1, "");
        let lines: Vec<_> = ran.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{ran:?}");
        let lisen = "error: server.lisen (file persistence.yml): is not a setting; server has: admin_listen,";
        assert!(
            lines.iter().any(|line| line.starts_with(lisen)),
            "{lines:?}"
        );
        let threads =
            "error: server.threads (file persistence.yml): \"many\" is not a whole number";
        assert!(
            lines.iter().any(|line| line.starts_with(threads)),
            "{lines:?}"
        );
    }
    assert!(!folder.path("data").exists());
    let mut command = folder.command(&["config", "check", "--config", "none.yml"]);
    command.env("PERSISTENCE_SERVER__LISEN", "x");
    let ran = Ran::from(command.output().unwrap())
        .refused(1, "server.lisen (env PERSISTENCE_SERVER__LISEN)");
    assert!(
        ran.stderr.contains("file none.yml cannot be read"),
        "{}",
        ran.stderr
    );
}

#[test]
fn settings_are_printed_with_their_sources_and_without_secrets() {
    let folder = Folder::new();
    folder.write("my.yml", "persistence: {drain: {delay: 3s}}");
    let mut command =
        folder.command(&["config", "print", "--output", "json", "--config", "my.yml"]);
    command
        .env("REDIS_URL", "redis://:hunter2@127.0.0.1:1")
        .env("PERSISTENCE_LOG__FILTER", "debug");
    let ran = Ran::from(command.output().unwrap()).ok();
    assert!(!ran.text().contains("hunter2"));
    let json = ran.json();
    let settings = json["settings"].as_array().unwrap();
    let is = |path: &str, value: &str, source: &str| {
        let setting = settings
            .iter()
            .find(|setting| setting["path"] == path)
            .unwrap();
        assert_eq!(
            (&setting["value"], &setting["source"]),
            (&value.into(), &source.into())
        );
    };
    is("drain.delay", "3s", "file my.yml");
    is("drain.timeout", "30s", "default");
    is("log.filter", "debug", "env PERSISTENCE_LOG__FILTER");
    is("redis.url", "(redacted)", "env REDIS_URL");
    is("store.backend", "redis", "env REDIS_URL");
    let table = folder.run(&["config", "print"]).ok();
    assert!(table.text().starts_with("PATH"), "{}", table.text());
    assert!(
        folder
            .run(&["config", "check"])
            .ok()
            .text()
            .starts_with("the settings are valid")
    );
}

#[test]
fn a_terminated_server_drains_and_ends_well() {
    for signal in ["TERM", "INT"] {
        let folder = Folder::new();
        let mut serving = folder.serve(&[]);
        serving.json(&["tenant", "create", "acme"]);
        serving.json(&["cache", "set", "k", "v", "--tenant", "acme"]);
        serving.signal(signal);
        assert_eq!(serving.wait(), Some(0), "{}", serving.log());
        // Nothing is lost, not even what was written just before.
        let serving = folder.serve(&[]);
        assert_eq!(
            serving
                .run(&["cache", "get", "k", "--tenant", "acme"])
                .ok()
                .stdout,
            b"v"
        );
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = Folder::new();
    folder.write("persistence.yml", "persistence: {drain: {delay: 5m}}");
    let mut serving = folder.serve(&["--ephemeral"]);
    serving.signal("TERM");
    // It still answers while it says that it is going away.
    while serving.run(&["health"]).code == 0 {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(serving.run(&["health"]).code, 5);
    serving.run(&["tenant", "list"]).ok();
    serving.signal("INT");
    assert_eq!(serving.wait(), Some(130));
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let folder = Folder::new();
    let serving = folder.serve(&[]);
    let created = serving.json(&["tenant", "create", "acme"]);
    for number in 0..20 {
        let key = format!("k{number}");
        serving
            .run(&[
                "cache",
                "set",
                &key,
                &"v".repeat(number * 1000),
                "--tenant",
                "acme",
            ])
            .ok();
    }
    // Cache entries are durable a second after they were acknowledged; tenants
    // and keys at once.
    thread::sleep(Duration::from_millis(1200));
    let last = serving.json(&["key", "create", "--tenant", "acme"]);
    serving.json(&["tenant", "suspend", "acme", "--mode", "read-only"]);
    drop(serving);

    let serving = folder.serve(&[]);
    for number in 0..20 {
        let secret = last["secret"].as_str().unwrap();
        let got = serving
            .run(&["cache", "get", &format!("k{number}"), "--key", secret])
            .ok();
        assert_eq!(got.stdout.len(), number * 1000);
    }
    let tenant = &serving.json(&["tenant", "get", "acme"])["tenant"];
    assert_eq!(tenant["create_time"], created["tenant"]["create_time"]);
    assert_eq!(tenant["suspension"]["mode"], "READ_ONLY");
}

#[test]
fn json_logs_are_not_mixed_with_words() {
    let folder = Folder::new();
    let mut command = folder.command(&[
        "serve",
        "--ephemeral",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    command.env("PERSISTENCE_LOG__FORMAT", "json");
    command
        .stdout(std::process::Stdio::piped())
        .stderr(fs::File::create(folder.path("stderr")).unwrap());
    let mut child = command.spawn().unwrap();
    let listens = |log: &str| log.lines().any(|line| line.contains("127.0.0.1"));
    while !listens(&fs::read_to_string(folder.path("stderr")).unwrap()) {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.stdout.is_empty());
}

#[test]
fn without_its_redis_it_starts_says_so_and_ends_well() {
    let folder = Folder::new();
    let nobody = Nobody::new();
    let address = nobody.address();
    folder.write(
        "persistence.yml",
        format!("persistence: {{redis: {{url: 'redis://:hunter2@{address}'}}}}"),
    );
    let mut serving = folder.start(&[]);
    assert!(
        serving.told.contains("entries are kept in Redis"),
        "{}",
        serving.told
    );
    let health = serving.run(&["health", "--output", "json"]);
    assert_eq!(
        (health.code, &health.json()["components"]["store"]),
        (5, &"NOT_SERVING".into())
    );
    serving
        .run(&["tenant", "list"])
        .refused(5, "(STORE_UNAVAILABLE)");
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0), "{}", serving.log());
    // Our own words, without the driver's, the password or a path of a build.
    let log = serving.log();
    assert!(log.contains("store connection is down"), "{log}");
    for word in ["hunter2", "fred", ".rs"] {
        assert!(!log.contains(word), "{word} is in {log}");
    }
}
