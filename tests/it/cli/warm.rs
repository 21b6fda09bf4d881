//! `cache warm`: what a file of lines becomes, and that a warming which was ended
//! by a kill or a refusal comes to the same as one that was not. It knows the
//! command by its files, output and exit codes alone.

use std::{
    fmt::Write,
    fs,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{Folder, Ran, Serving};

/// So many lines of entries, `k0`, `k1` and on.
fn lines(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        writeln!(text, "{{\"key\":\"k{n}\",\"value\":\"value {n}\"}}").unwrap();
    }
    text
}

const WARM: [&str; 6] = ["cache", "warm", "lines", "--tenant", "acme", "--output"];

fn warm(server: &Serving<'_>, more: &[&str]) -> Ran {
    server.run(&[&WARM[..], &["json"], more].concat())
}

/// Starts a warming, and leaves it.
fn begin(server: &Serving<'_>) -> Child {
    let mut command = server.command(&[&WARM[..], &["json"]].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn counts(told: &Value) -> [u64; 5] {
    ["stored", "pulled", "missing", "failed", "bad_lines"]
        .map(|name| told[name].as_u64().unwrap_or_else(|| panic!("{told}")))
}

/// A tenant that may make so few calls a minute; -1 for as many as it likes.
fn limit(server: &Serving<'_>, operations: &str) {
    let limit = format!("operations_per_minute={operations}");
    server.json(&["quota", "set", "acme", &limit]);
}

fn serve(folder: &Folder) -> Serving<'_> {
    let server = folder.serve(&["--ephemeral"]);
    server.json(&["tenant", "create", "acme", "--plan", "enterprise"]);
    server
}

fn entries(server: &Serving<'_>) -> usize {
    let list = ["cache", "list", "--tenant", "acme", "--limit", "100000"];
    let listed = server.json(&list);
    listed["keys"].as_array().unwrap().len()
}

#[test]
fn lines_become_entries_and_bad_ones_are_told_by_their_number() {
    let folder = Folder::new();
    let server = serve(&folder);
    let text = r#"{"key":"a","value":"text","ttl":"1h","content_type":"text/plain","tags":["red"]}

{"key":"b","value_base64":"AP8="}
{"key":"c"}
nonsense
{"key":"d","value":"d"}
{"key":"e","value":"e","ttl":"soon","colour":1}"#;
    folder.write("lines", text);
    let ran = warm(&server, &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let told = ran.json();
    assert_eq!(counts(&told), [3, 0, 0, 0, 3]);
    assert_eq!(
        (&told["lines"], &told["resumed_from"]),
        (&json!(7), &json!(0))
    );
    assert!(told["entries_per_second"].as_u64().is_some() && told["seconds"].is_number());
    let told: Vec<_> = ran.stderr.lines().collect();
    let expected = [
        "line 4: value: missing, one of value (a text) and value_base64 is allowed",
        "line 5: not JSON: ",
        "line 7: ttl: \"soon\"; a time with its unit",
        "line 7: colour: not a field of such a line; key, value, ",
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}");
    }
    let get = |key: &str| server.run(&["cache", "get", key, "--tenant", "acme"]).ok();
    assert_eq!(get("a").stdout, b"text");
    assert_eq!(get("b").stdout, [0, 255]);
    assert_eq!(get("d").stdout, b"d");
    let a = server.json(&["cache", "get", "a", "--tenant", "acme"]);
    let a = &a["entry"];
    assert_eq!(
        (&a["content_type"], &a["tags"]),
        (&json!("text/plain"), &json!(["red"]))
    );
    assert!(a["expire_time"].is_string());
    assert!(!folder.path("lines.progress").exists(), "all is done");

    // For eyes, and from standard input.
    let piped = ["cache", "warm", "-", "--tenant", "acme"];
    let ran = server.pipe(&piped, lines(3000).as_bytes()).ok();
    let stored = |line: &str| line.starts_with("stored") && line.ends_with("3000");
    assert!(ran.text().lines().any(stored), "{ran:?}");
    assert!(ran.stderr.is_empty(), "no bar where there is no terminal");
    assert_eq!(entries(&server), 3003);
    folder.write("lines", "");
    assert_eq!(counts(&warm(&server, &[]).ok().json()), [0; 5]);
}

#[test]
fn what_the_server_refuses_is_told_by_its_line() {
    let folder = Folder::new();
    let server = serve(&folder);
    server.json(&["quota", "set", "acme", "cache_entries=2"]);
    folder.write("lines", format!("\nbad\n{}", lines(4)));
    let ran = warm(&server, &[]);
    assert_eq!((ran.code, counts(&ran.json())), (1, [2, 0, 0, 2, 1]));
    let told: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[1].starts_with("line 5: ") && told[1].ends_with("(QUOTA_EXCEEDED)"));
    assert!(told[2].starts_with("line 6: "), "{told:?}");

    folder.write("lines", lines(1));
    let ran = server.run(&["cache", "warm", "lines", "--tenant", "nobody"]);
    ran.refused(3, "TENANT_NOT_FOUND");
    server
        .run(&["cache", "warm", "absent", "--tenant", "acme"])
        .refused(1, "cannot read absent");
}

#[test]
fn a_warming_that_was_refused_goes_on_where_it_stood() {
    let folder = Folder::new();
    let server = serve(&folder);
    folder.write("lines", format!("bad\n{}", lines(3000)));
    limit(&server, "5");
    let stopped = warm(&server, &["--retry-for", "0s"]);
    assert_eq!(stopped.code, 1, "{stopped:?}");
    assert!(stopped.stderr.contains("RATE_LIMITED"), "{stopped:?}");
    let done = "1251 lines are done; the same command goes on from there";
    assert!(stopped.stderr.contains(done), "{stopped:?}");
    assert!(stopped.stderr.contains("line 1: not JSON"));

    // Not with another place, nor with another file.
    let elsewhere = warm(&server, &["--namespace", "other"]);
    elsewhere.refused(1, "remove lines.progress to begin anew");
    folder.write("lines", lines(3000));
    warm(&server, &[]).refused(1, "does not begin with what was warmed");
    folder.write("lines", format!("bad\n{}", lines(3000)));

    limit(&server, "-1");
    let ran = warm(&server, &[]);
    assert_eq!(ran.code, 1, "there was a bad line");
    let told = ran.json();
    assert_eq!(counts(&told), [3000, 0, 0, 0, 1]);
    assert_eq!(
        (&told["lines"], &told["resumed_from"]),
        (&json!(3001), &json!(1251))
    );
    assert!(!folder.path("lines.progress").exists());
    assert_eq!(entries(&server), 3000);
}

#[test]
fn a_warming_that_was_killed_comes_to_the_same() {
    let folder = Folder::new();
    let server = serve(&folder);
    folder.write("lines", lines(4000));
    limit(&server, "7");
    let mut running = begin(&server);
    // It waits for its rate, far within the file.
    while !folder.path("lines.progress").exists() {
        thread::sleep(Duration::from_millis(10));
    }
    warm(&server, &[]).refused(1, "another warming reads lines");
    running.kill().unwrap();
    running.wait().unwrap();
    let kept: Value =
        serde_json::from_slice(&fs::read(folder.path("lines.progress")).unwrap()).unwrap();
    let lines = kept["lines"].as_u64().unwrap();
    assert!((250..4000).contains(&lines), "{kept}");

    limit(&server, "-1");
    let told = warm(&server, &[]).ok().json();
    assert_eq!(counts(&told), [4000, 0, 0, 0, 0]);
    assert_eq!(told["resumed_from"], lines);
    assert!(!folder.path("lines.progress").exists());
    assert_eq!(entries(&server), 4000);
}
