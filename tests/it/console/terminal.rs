//! `top` as people and scripts run it. It knows the program by its arguments, output and
//! exit codes, and a terminal by what it is sent.

use std::{path::Path, process::Command};

use rstest::rstest;
use serde_json::{Value, json};

use super::admin_port::AdminPort;
use crate::cli::Folder;

/// Figures of a replica with so many calls a second.
fn figures(calls: f64) -> Value {
    json!({
        "replica": "127.0.0.1:50051", "version": "0.1.0", "backend": "embedded",
        "time_ms": 1_795_651_402_000_u64, "start_time_ms": 1_795_651_102_000_u64, "step_ms": 5000,
        "health": [{"service": "store", "serving": true, "trouble": ""}],
        "series": {"time_ms": [1_795_651_397_000_u64, 1_795_651_402_000_u64], "calls_per_second": [1.0, calls],
                   "errors_per_second": [0.0, 0.0], "hit_ratio": [null, 0.5], "p99_ms": [0.3, 0.7]},
        "tenants": [{"tenant_id": "acme", "calls_per_second": calls, "hit_ratio": 0.5,
                     "quotas": [{"metric": "memory_bytes", "used": 95, "limit": 100}]}],
    })
}

fn port(calls: f64) -> AdminPort {
    AdminPort::answers(200, figures(calls).to_string())
}

#[test]
fn one_frame_is_plain_text_of_all_replicas() {
    let (first, second) = (port(40.0), port(2.0));
    let folder = Folder::new();
    let asked = [
        "top",
        "--once",
        "--admin-address",
        &first.url(),
        "--admin-address",
        &second.url(),
    ];
    let ran = folder.run(&asked).ok();
    let text = ran.text();
    for shown in [
        "2 of 2 replicas",
        "up 5m",
        "calls/s 42",
        "hit ratio 50 %",
        "p99 0.7 ms",
        "acme",
        "95 %! memory",
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");

    // Where it writes to no terminal, it need not be told.
    let told = folder
        .run(
            &asked[..1]
                .iter()
                .chain(&asked[2..])
                .copied()
                .collect::<Vec<_>>(),
        )
        .ok();
    assert_eq!(told.text(), text);
    let merged = folder
        .run(&[&asked[..], &["-o", "json"]].concat())
        .ok()
        .json();
    assert_eq!(
        merged["replicas"],
        json!({"answering": 2, "asked": 2, "silent": []})
    );
    assert_eq!(merged["series"]["calls_per_second"], json!([2.0, 42.0]));
    assert_eq!(merged["tenants"][0]["calls_per_second"], 42.0);
}

#[test]
fn a_replica_that_does_not_answer_is_shown_as_such() {
    let (first, second) = (port(40.0), port(2.0));
    let gone = second.address;
    drop(second);
    let ran = Folder::new()
        .run(&["top", "--admin-address", &format!("{},{gone}", first.url())])
        .ok();
    let text = ran.text();
    assert!(
        text.contains("1 of 2 replicas") && text.contains("calls/s 40"),
        "{text}"
    );
    assert!(
        text.contains(&format!("{gone} does not answer: ")),
        "{text}"
    );
}

#[test]
fn where_none_answers_the_exit_code_tells_why() {
    let folder = Folder::new();
    let closed = {
        let port = port(1.0);
        port.url()
    };
    let ran = folder.run(&["top", "--admin-address", &closed]);
    ran.refused(5, &format!("cannot reach a server at {closed}/"));
    let denies = AdminPort::answers(401, "no");
    let ran = folder.run(&[
        "top",
        "--key",
        "rta_wrong",
        "--admin-address",
        &denies.url(),
    ]);
    ran.refused(4, "the API key is not the admin key");
    let key = |line: &String| {
        line.to_lowercase()
            .starts_with("authorization: bearer rta_wrong")
    };
    assert!(denies.script.lock().unwrap().asked[0].iter().any(key));
    folder
        .run(&["top", "--admin-address", &denies.url()])
        .refused(4, "it wants the admin key");
    let older = AdminPort::answers(404, "not found");
    folder
        .run(&["top", "--admin-address", &older.url()])
        .refused(1, "/figures is answered with 404");
    let other = AdminPort::answers(200, "{\"hello\": \"world\"}");
    folder
        .run(&["top", "--admin-address", &other.url()])
        .refused(1, "no figures");
    let usage = folder.run(&["top", "--admin-address", "ftp://a:1"]);
    usage.refused(2, "--admin-address");
}

#[test]
fn no_tenant_writes_to_the_terminal() {
    let mut hostile = figures(1.0);
    hostile["tenants"][0]["tenant_id"] = json!("\u{1b}]0;owned\u{7}\u{9b}2J<script>");
    hostile["tenants"][0]["calls_per_second"] = json!("NaN");
    hostile["version"] = json!("\u{1b}[31m");
    let port = AdminPort::answers(200, hostile.to_string());
    for format in ["table", "json"] {
        let ran = Folder::new()
            .run(&["top", "-o", format, "--admin-address", &port.url()])
            .ok();
        let text = ran.text();
        let steers = |letter: char| letter.is_control() && letter != '\n';
        assert!(!text.contains(steers), "{text:?}");
        assert!(
            text.contains("2J<script>") || text.contains("owned"),
            "{text}"
        );
    }
}

/// How it is ended, and what is typed or sent for that.
#[rstest]
#[case::by_q("q")]
#[case::by_ctrl_c("\\x03")]
#[case::by_sigterm("TERM")]
#[case::by_sigint("INT")]
fn the_terminal_is_as_it_was_when_it_ends(#[case] end: &str) {
    let port = port(40.0);
    let told = watched(&port, end, &[]);
    assert_eq!(told["code"], 0, "{told}");
    assert_eq!(told["raw"], true, "{told}");
    assert_eq!(told["restored"], true, "{told}");
    let output = told["output"].as_str().unwrap();
    let (entered, left) = (output.find("\u{1b}[?1049h"), output.rfind("\u{1b}[?1049l"));
    assert!(entered.is_some() && entered < left, "{output:?}");
    let shown = output.rfind("\u{1b}[?25h");
    assert!(output.find("\u{1b}[?25l") < shown, "{output:?}");
    assert!(
        output.contains("\u{1b}[38;5;"),
        "there are colours: {output:?}"
    );
    assert!(!port.script.lock().unwrap().asked.is_empty());
}

#[test]
fn no_color_is_obeyed() {
    let port = port(40.0);
    let told = watched(&port, "q", &["NO_COLOR=1"]);
    assert_eq!(
        (&told["code"], &told["restored"]),
        (&json!(0), &json!(true))
    );
    let output = told["output"].as_str().unwrap();
    assert!(output.contains("acme"), "{output:?}");
    for colour in ["\u{1b}[38;", "\u{1b}[48;", "\u{1b}[31", "\u{1b}[32"] {
        assert!(!output.contains(colour), "{output:?}");
    }
}

/// Runs it in a terminal of 80 columns until it shows a tenant, and then until it ends.
fn watched(port: &AdminPort, end: &str, environment: &[&str]) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(
        python.exists(),
        "there is no {}: run tests/tools python",
        python.display()
    );
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(python)
        .arg(root.join("tests/it/console/terminal.py"))
        .arg(end)
        .args(environment)
        .arg("--")
        .arg(env!("CARGO_BIN_EXE_riptide-persistence"))
        .args(["top", "--interval", "100ms", "--admin-address", &port.url()])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {output:?}"))
}
