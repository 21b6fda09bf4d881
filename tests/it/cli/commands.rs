//! The client commands against a server in memory. Rules of tenants and caches
//! are tested elsewhere; here is what reaches a person or a script.

use std::net::TcpListener;

use super::{Folder, Nobody, Serving};

fn tenant<'a>(serving: &Serving<'_>, id: &'a str) -> &'a str {
    serving.json(&["tenant", "create", id]);
    id
}

#[test]
fn a_tenants_life() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    let created = serving.json(&[
        "tenant",
        "create",
        "acme",
        "--display-name",
        "Acme Ltd",
        "--plan",
        "basic",
        "--label",
        "env=prod",
        "--label",
        "team=a",
        "--owner-email",
        "a@b.c",
        "--settings",
        r#"{"a": {"b": [1, true, null]}}"#,
        "--quota",
        "cache_entries=7",
        "--quota-mode",
        "cache_entries=warn",
        "--quota",
        "memory_bytes=1GiB",
    ]);
    let tenant = &created["tenant"];
    assert_eq!(tenant["tenant_id"], "acme");
    assert_eq!(tenant["state"], "ACTIVE");
    assert_eq!(tenant["labels"]["team"], "a");
    assert_eq!(tenant["owner"]["email"], "a@b.c");
    assert_eq!(tenant["settings"]["a"]["b"][0], 1);
    assert_eq!(tenant["quotas"]["cache_entries"], 7);
    assert_eq!(tenant["quotas"]["modes"]["cache_entries"], "WARN");
    assert_eq!(tenant["effective_quotas"]["memory_bytes"], 1_i64 << 30);
    assert_eq!(tenant["effective_quotas"]["active_sessions"], 10_000);
    assert!(created["secret"].as_str().unwrap().starts_with("rtp_"));
    assert_eq!(created["api_key"]["tenant_id"], "acme");

    let updated = serving.json(&[
        "tenant",
        "update",
        "acme",
        "--display-name",
        "Acme",
        "--label",
        "env=dev",
        "--remove-label",
        "team",
        "--quota",
        "cache_entries=plan",
        "--etag",
        tenant["etag"].as_str().unwrap(),
    ]);
    let updated = &updated["tenant"];
    assert_eq!(updated["display_name"], "Acme");
    assert_eq!(updated["plan"], "basic", "what is not named stays");
    assert_eq!(updated["labels"], serde_json::json!({"env": "dev"}));
    assert_eq!(updated["effective_quotas"]["cache_entries"], 1_000_000);
    let stale = [
        "tenant", "update", "acme", "--plan", "free", "--etag", "stale",
    ];
    serving.run(&stale).refused(1, "(ETAG_MISMATCH)");

    let suspended = serving.json(&[
        "tenant",
        "suspend",
        "acme",
        "--mode",
        "read-only",
        "--reason",
        "late",
    ]);
    assert_eq!(suspended["tenant"]["state"], "SUSPENDED");
    assert_eq!(suspended["tenant"]["suspension"]["mode"], "READ_ONLY");
    serving
        .run(&["cache", "set", "k", "v", "--tenant", "acme"])
        .refused(1, "(TENANT_SUSPENDED)");
    assert_eq!(
        serving.json(&["tenant", "resume", "acme"])["tenant"]["state"],
        "ACTIVE"
    );

    self::tenant(&serving, "other");
    let listed = serving.json(&["tenant", "list"]);
    let ids: Vec<_> = listed["tenants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| &t["tenant_id"])
        .collect();
    assert_eq!(ids, ["acme", "other"]);
    assert_eq!(listed["more"], false);
    let one = serving.json(&["tenant", "list", "--limit", "1"]);
    assert_eq!(
        (one["tenants"].as_array().unwrap().len(), &one["more"]),
        (1, &true.into())
    );
    let labelled = serving.json(&["tenant", "list", "--label", "env=dev", "--state", "active"]);
    assert_eq!(labelled["tenants"].as_array().unwrap().len(), 1);
    let table = serving.run(&["tenant", "list"]).ok();
    assert!(table.text().starts_with("TENANT ID"), "{}", table.text());
    assert!(
        table
            .text()
            .lines()
            .any(|line| line.starts_with("acme ") && line.contains("ACTIVE"))
    );

    serving
        .run(&["tenant", "purge", "acme"])
        .refused(1, "(CONDITION_NOT_MET)");
    assert_eq!(
        serving.json(&["tenant", "delete", "acme"])["tenant"]["state"],
        "DELETED"
    );
    assert_eq!(
        serving.json(&["tenant", "undelete", "acme"])["tenant"]["state"],
        "ACTIVE"
    );
    serving.json(&["cache", "set", "k", "v", "--tenant", "acme"]);
    serving.json(&["tenant", "delete", "acme"]);
    let purged = serving.json(&["tenant", "purge", "acme"]);
    assert_eq!(purged["report"]["entries"], 1);
    assert_eq!(purged["report"]["api_keys"], 1);
    serving
        .run(&["tenant", "get", "acme"])
        .refused(3, "(TENANT_NOT_FOUND)");
    let missing = serving.json(&["tenant", "delete", "acme", "--allow-missing"]);
    assert!(missing["tenant"].is_null());
}

#[test]
fn an_api_keys_life() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    let acme = tenant(&serving, "acme");
    let created = serving.json(&[
        "key",
        "create",
        "--tenant",
        acme,
        "--display-name",
        "reader",
        "--scope",
        "cache.read",
        "--only-prefix",
        "a:",
        "--expires-in",
        "90d",
    ]);
    let (key_id, secret) = (
        created["api_key"]["key_id"].as_str().unwrap(),
        created["secret"].as_str().unwrap(),
    );
    assert_eq!(
        created["api_key"]["scopes"],
        serde_json::json!(["cache.read"])
    );
    assert!(created["api_key"]["expire_time"].is_string());

    let who = serving.json(&["whoami", "--key", secret]);
    assert_eq!(
        (&who["tenant_id"], &who["key_id"], &who["admin"]),
        (&acme.into(), &key_id.into(), &false.into())
    );
    assert_eq!(
        serving.json(&["whoami"])["admin"],
        true,
        "the local admin key is found"
    );
    serving
        .run(&["cache", "get", "b", "--key", secret])
        .refused(4, "(SCOPE_MISSING)");
    serving
        .run(&["tenant", "list", "--key", secret])
        .refused(4, "(SCOPE_MISSING)");
    serving
        .run(&["cache", "get", "a:1", "--key", secret, "--tenant", "other"])
        .refused(4, "(TENANT_MISMATCH)");

    let rotated = serving.json(&["key", "rotate", key_id]);
    let new = rotated["secret"].as_str().unwrap();
    assert_eq!(rotated["api_key"]["key_id"], key_id);
    serving
        .run(&["whoami", "--key", secret])
        .refused(4, "(API_KEY_INVALID)");
    serving.run(&["whoami", "--key", new]).ok();
    assert!(serving.json(&["key", "revoke", key_id])["api_key"]["revoke_time"].is_string());
    serving
        .run(&["whoami", "--key", new])
        .refused(4, "(API_KEY_INVALID)");

    let listed = serving.json(&["key", "list", "--tenant", acme]);
    let keys = listed["api_keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    assert!(!listed.to_string().contains("rtp_"), "no secret is listed");
    let missing = serving.run(&["key", "revoke", "nonesuch"]);
    assert!([1, 3].contains(&missing.code), "{missing:?}");
}

#[test]
fn a_cache_entrys_life() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    let acme = tenant(&serving, "acme");
    let run = |arguments: &[&str]| serving.run(&[&["--tenant", acme], arguments].concat());
    let json = |arguments: &[&str]| serving.json(&[&["--tenant", acme], arguments].concat());

    let set = json(&[
        "cache",
        "set",
        "a",
        "hello",
        "--ttl",
        "1h",
        "--tag",
        "x",
        "--tag",
        "y",
        "--content-type",
        "text/plain",
    ]);
    assert!(set["version"].as_i64().unwrap() > 0 && set["expire_time"].is_string());
    // In a pipe the value comes as it is, to the byte.
    assert_eq!(run(&["cache", "get", "a"]).ok().stdout, b"hello");
    let entry = &json(&["cache", "get", "a"])["entry"];
    assert_eq!(
        (&entry["value"], &entry["content_type"]),
        (&"hello".into(), &"text/plain".into())
    );
    assert_eq!(entry["tags"], serde_json::json!(["x", "y"]));
    assert_eq!(entry["size_bytes"], 5);

    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let piped = ["cache", "set", "b", "-", "--tenant", acme];
    serving.pipe(&piped, &bytes).ok();
    assert_eq!(run(&["cache", "get", "b"]).ok().stdout, bytes);
    assert!(json(&["cache", "get", "b"])["entry"]["value_base64"].is_string());
    folder.write("value", b"from a file\n");
    run(&["cache", "set", "c", "--file", "value"]).ok();
    assert_eq!(run(&["cache", "get", "c"]).ok().stdout, b"from a file\n");
    // What looks like a flag is one, unless `--` says otherwise; a number is none.
    for typo in ["-d", "--vaule"] {
        assert_eq!(run(&["cache", "set", "d", typo]).code, 2);
    }
    run(&["cache", "set", "n", "-1"]).ok();
    run(&["cache", "delete", "n"]).ok();
    run(&["cache", "set", "--ttl", "1h", "--", "-d", "-1"]).ok();
    assert_eq!(run(&["cache", "get", "--", "-d"]).ok().stdout, b"-1");

    run(&["cache", "set", "a", "again", "--if-absent"]).refused(1, "(CONDITION_NOT_MET)");
    run(&["cache", "set", "nothing", "x", "--if-present"]).refused(1, "(CONDITION_NOT_MET)");
    run(&["cache", "set", "a", "x", "--if-version", "1000000"]).refused(1, "(CONDITION_NOT_MET)");

    let listed = json(&["cache", "list"]);
    let mut keys: Vec<_> = listed["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| k["key"].as_str().unwrap())
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, ["-d", "a", "b", "c"]);
    assert_eq!(
        json(&["cache", "list", "b"])["keys"][0]["size_bytes"],
        300_000
    );

    assert_eq!(json(&["cache", "delete", "c"])["deleted"], true);
    assert_eq!(json(&["cache", "delete", "c"])["deleted"], false);
    run(&["cache", "get", "c"]).refused(3, "(MISS)");
    let miss = run(&["cache", "get", "c", "--output", "json"]);
    assert_eq!(
        (miss.code, &miss.json()["entry"]),
        (3, &serde_json::Value::Null)
    );

    run(&["cache", "set", "a", "elsewhere", "--namespace", "ns"]).ok();
    run(&["cache", "flush"]).ok();
    run(&["cache", "get", "a"]).refused(3, "(MISS)");
    assert_eq!(
        run(&["cache", "get", "a", "--namespace", "ns"]).ok().stdout,
        b"elsewhere"
    );
    run(&["cache", "flush", "--whole-tenant"]).refused(2, "add --yes");
    let flushed = json(&["cache", "flush", "--whole-tenant", "--yes"]);
    assert!(flushed["generation"].as_i64().unwrap() > 0);
    run(&["cache", "get", "a", "--namespace", "ns"]).refused(3, "(MISS)");
}

#[test]
fn what_a_cache_did_is_shown() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    let acme = tenant(&serving, "acme");
    let run = |arguments: &[&str]| serving.run(&[&["--tenant", acme], arguments].concat());
    let json = |arguments: &[&str]| serving.json(&[&["--tenant", acme], arguments].concat());
    run(&["cache", "set", "a", "hello"]).ok();
    run(&["cache", "set", "b", "hello", "--namespace", "ns"]).ok();
    for _ in 0..3 {
        run(&["cache", "get", "a"]).ok();
    }
    run(&["cache", "get", "missing"]).refused(3, "(MISS)");

    let answer = json(&["cache", "stats"]);
    let stats = &answer["stats"];
    let counts = ["hits", "misses", "sets", "deletes", "expired", "entries"];
    let counts = counts.map(|name| stats[name].as_i64().unwrap());
    assert_eq!(counts, [3, 1, 2, 0, 0, 2]);
    assert_eq!(
        (&stats["logical_bytes"], &stats["compression_ratio"]),
        (&10.into(), &1.0.into())
    );
    assert_eq!(stats["read_latency"]["calls"], 4);
    assert!(stats["write_latency"]["p99_us"].as_i64().unwrap() > 0);
    assert!(answer["fleet"].is_null() && answer["store"].is_null());
    let of_namespace = json(&["cache", "stats", "--namespace", "ns"]);
    assert_eq!(of_namespace["stats"]["sets"], 1);
    assert!(of_namespace["stats"]["entries"].is_null());

    // In a pipe the bar has no colours.
    let ran = run(&["cache", "stats"]).ok();
    let table = ran.text();
    assert!(!table.contains('\u{1b}'), "{table}");
    let bar = table.lines().next().unwrap();
    assert!(
        bar.starts_with("hit rate  ") && bar.ends_with("  75.0 %"),
        "{bar}"
    );
    assert_eq!(bar.matches(['#', '█']).count(), 30, "{bar}");
    for line in [
        "hits             3    75.0 %",
        "P50",
        "stored_bytes",
        "compression",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }

    // Whatever tenant is named elsewhere.
    let fleet = json(&["cache", "stats", "--fleet"]);
    assert_eq!(
        (&fleet["fleet"]["hits"], &fleet["stats"].is_null()),
        (&3.into(), &true)
    );
    assert_eq!(fleet["store"]["backend"], "embedded");
    let ran = serving.run(&["cache", "stats"]).ok();
    assert!(ran.text().contains("usage exact"), "{}", ran.text());
}

#[test]
fn what_is_refused_is_told_with_every_field_and_an_exit_code() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    let acme = tenant(&serving, "acme");
    let invalid = serving
        .run(&["tenant", "create", "No!", "--plan", "gold"])
        .refused(1, "(VALIDATION_FAILED)");
    let lines: Vec<_> = invalid.stderr.lines().collect();
    assert!(
        lines.iter().any(|line| line.starts_with("  tenant_id: ")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("  plan: ")),
        "{lines:?}"
    );
    serving
        .run(&["tenant", "create", acme])
        .refused(1, "(TENANT_EXISTS)");
    serving
        .run(&["tenant", "get", "nobody"])
        .refused(3, "(TENANT_NOT_FOUND)");
    serving
        .run(&["cache", "get", "k", "--tenant", "nobody"])
        .refused(3, "(TENANT_NOT_FOUND)");
    serving
        .run(&["tenant", "get", acme, "--key", "rtp_x_y"])
        .refused(4, "(API_KEY_INVALID)");

    // Without the folder the admin key is in, there is none.
    let elsewhere = Folder::new();
    let mut command = elsewhere.command(&["tenant", "list", "--address", &serving.address]);
    let ran = super::Ran::from(command.output().unwrap()).refused(4, "(API_KEY_MISSING)");
    assert!(
        ran.stderr.contains("--key or RIPTIDE_API_KEY"),
        "{}",
        ran.stderr
    );

    for usage in [
        &["frobnicate"][..],
        &["cache", "set", "k"],
        &["cache", "set", "k", "v", "--file", "f"],
        &["cache", "set", "k", "v", "--ttl", "5"],
        &["tenant", "update", "acme"],
        &["tenant", "create", "x", "--settings", "[1]"],
        &["tenant", "create", "x", "--quota", "memory=1"],
        &["tenant", "create", "x", "--quota-mode", "memory_bytes=no"],
        &["tenant", "create", "x", "--label", "x"],
        &["health", "--address", "ftp://127.0.0.1:1"],
        &["whoami", "--key", "a\nb"],
    ] {
        let ran = serving.run(usage);
        assert_eq!(ran.code, 2, "{usage:?}: {ran:?}");
        assert!(
            ran.stderr.starts_with("error: ") && ran.stdout.is_empty(),
            "{ran:?}"
        );
    }
}

#[test]
fn nobody_there_or_nobody_answering_is_unavailable() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    // It takes connections and never says a word.
    let asked = [
        "whoami",
        "--key",
        "some-key",
        "--address",
        &address,
        "--timeout",
        "200ms",
    ];
    folder.run(&asked).refused(5, "no answer in time");
    let nobody = Nobody::new();
    let address = format!("http://{}", nobody.address());
    folder
        .run(&["health", "--address", &address])
        .refused(5, "(UNAVAILABLE)");
}

#[test]
fn health_and_info() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    let health = serving.json(&["health"]);
    assert_eq!(health["status"], "SERVING");
    for component in ["store", "config", "riptide.persistence.v1.CacheService"] {
        assert_eq!(health["components"][component], "SERVING", "{component}");
    }
    assert!(
        serving
            .run(&["health", "store"])
            .ok()
            .text()
            .contains("SERVING")
    );
    serving
        .run(&["health", "nonesuch"])
        .refused(3, "no component");
    let info = serving.json(&["info"]);
    assert_eq!(info["backend"], "embedded");
    assert_eq!(info["limits"]["value_bytes"], 20 << 20);
    assert_eq!(info["limits"]["session_data_bytes"], 64 << 10);
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
}
