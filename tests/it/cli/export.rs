//! `billing export` under every way it can end: by itself, by a failing server,
//! by a kill, by a disk that takes no more. It knows the files alone.

use std::{
    fs,
    path::Path,
    process::Stdio,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use prost_types::Timestamp;
use riptide_persistence::proto::v1::{Statement, StatementLine};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Folder, Ran,
    stand_in::{Script, StandIn},
};

/// So many statements, of one to three lines.
fn statements(count: usize) -> Vec<Statement> {
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let line = |tenant: usize, line: usize| StatementLine {
        metric: ["base_fee", "operations", "memory_byte_seconds"][line].into(),
        quantity: (tenant * 1000 + line) as i64,
        amount_micros: tenant as i64,
        plan: "basic, \"yearly\"".into(),
        start_time: time(1_790_812_800),
        ..StatementLine::default()
    };
    let statement = |tenant: usize| Statement {
        tenant_id: format!("tenant-{tenant:05}"),
        period: "2026-10".into(),
        lines: (0..1 + tenant % 3).map(|at| line(tenant, at)).collect(),
        total_micros: (tenant * (1 + tenant % 3)) as i64,
        currency: "EUR".into(),
        closed: true,
        close_time: time(1_793_491_800),
        ..Statement::default()
    };
    (0..count).map(statement).collect()
}

fn script(count: usize) -> Script {
    Script {
        statements: statements(count),
        ..Script::default()
    }
}

fn arguments<'a>(server: &'a StandIn, format: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let all = [
        "billing",
        "export",
        "--period",
        "2026-10",
        "--format",
        format,
        "--out",
        "bills",
        "--page-size",
        "10",
        "--key",
        "some-key",
        "--output",
        "json",
        "--address",
        &server.address,
    ];
    [&all[..], more].concat()
}

fn export(folder: &Folder, server: &StandIn, format: &str, more: &[&str]) -> Ran {
    folder.run(&arguments(server, format, more))
}

/// The names there are in the folder.
fn names(folder: &Folder) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What an export that nothing interrupts writes.
fn whole(server: &StandIn, format: &str) -> Vec<u8> {
    let folder = Folder::new();
    export(&folder, server, format, &[]).ok();
    assert_eq!(names(&folder), ["bills"]);
    fs::read(folder.path("bills")).unwrap()
}

#[test]
fn every_statement_is_exported_once_in_either_format() {
    let server = StandIn::start(script(123));
    let folder = Folder::new();
    let told = export(&folder, &server, "csv", &[]).ok().json();
    let text = fs::read_to_string(folder.path("bills")).unwrap();
    let rows: Vec<_> = text.strip_suffix("\r\n").unwrap().split("\r\n").collect();
    assert!(rows[0].starts_with("tenant_id,period,plan,metric,quantity,included,unit,"));
    let mut expected = Vec::new();
    for statement in statements(123) {
        for line in &statement.lines {
            expected.push(format!(
                "{},2026-10,\"basic, \"\"yearly\"\"\",{},{},",
                statement.tenant_id, line.metric, line.quantity
            ));
        }
    }
    assert_eq!(rows.len(), 1 + expected.len());
    for (row, expected) in rows[1..].iter().zip(&expected) {
        assert!(row.starts_with(expected), "{row}");
    }
    assert_eq!(
        (&told["statements"], &told["rows"]),
        (&json!(123), &json!(expected.len()))
    );
    assert_eq!(told["bytes"], text.len());
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&text));
    assert_eq!(told["sha256"], digest);

    let json: Vec<Value> = serde_json::from_slice(&whole(&server, "json")).unwrap();
    assert_eq!(json.len(), 123);
    for (found, expected) in json.iter().zip(statements(123)) {
        assert_eq!(found["tenant_id"], expected.tenant_id);
        assert_eq!(
            found["lines"].as_array().unwrap().len(),
            expected.lines.len()
        );
        assert_eq!(found["total_micros"], expected.total_micros);
        assert_eq!(found["close_time"], "2026-11-01T00:10:00Z");
    }

    let none = StandIn::start(script(0));
    assert_eq!(whole(&none, "json"), b"[]\n");
    let header = whole(&none, "csv");
    assert!(header.starts_with(b"tenant_id,") && header.ends_with(b"\r\n"));
}

#[test]
fn an_export_that_failed_at_any_page_goes_on_from_there() {
    let server = StandIn::start(script(45));
    for format in ["csv", "json"] {
        let uninterrupted = whole(&server, format);
        for page in 1..=5 {
            let folder = Folder::new();
            server.script.fails_at.store(page, Ordering::SeqCst);
            let failed = export(&folder, &server, format, &[]).refused(5, "the store is away");
            let kept = (page - 1) * 10;
            let told = failed
                .stderr
                .contains(&format!("{kept} statements are in bills.part"));
            assert_eq!(told, kept > 0, "{failed:?}");
            let left: &[&str] = match kept {
                0 => &[],
                _ => &["bills.part", "bills.part.state"],
            };
            assert_eq!(names(&folder), left);
            server.script.asked.lock().unwrap().clear();
            let done = export(&folder, &server, format, &[]).ok().json();
            assert_eq!(done["resumed_from"], kept);
            let asked = server.script.asked.lock().unwrap().len();
            assert_eq!(asked, 5 - (page - 1), "no page twice");
            assert_eq!(fs::read(folder.path("bills")).unwrap(), uninterrupted);
            assert_eq!(names(&folder), ["bills"]);
        }
    }
}

#[test]
fn an_export_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let server = StandIn::start(Script {
        delay: Duration::from_millis(3),
        ..script(400)
    });
    for format in ["csv", "json"] {
        let uninterrupted = whole(&server, format);
        let folder = Folder::new();
        // Where a kill lands is up to the machine; how long is waited for it is not.
        let mut wait_ms = 1;
        for round in 0..200 {
            let mut command = folder.command(&arguments(&server, format, &[]));
            let mut child = command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            thread::sleep(Duration::from_millis(wait_ms));
            let _ = child.kill();
            if child.wait().unwrap().success() {
                break;
            }
            wait_ms = (wait_ms * 7 + round) % 160;
            if round % 3 == 0 {
                torn(&folder);
            }
        }
        export(&folder, &server, format, &["--force"]).ok();
        assert!(fs::read(folder.path("bills")).unwrap() == uninterrupted);
        assert_eq!(names(&folder), ["bills"]);
    }
}

/// As if the process had been in the middle of a page, or of its state.
fn torn(folder: &Folder) {
    if let Ok(mut part) = fs::read(folder.path("bills.part"))
        && folder.path("bills.part.state").exists()
    {
        part.extend_from_slice(b"tenant-00001,half a row");
        folder.write("bills.part", part);
    }
    folder.write("bills.part.state.fresh", "{\"for");
}

#[test]
fn an_export_held_by_the_server_is_killed_and_gone_on_with() {
    let server = StandIn::start(script(45));
    let uninterrupted = whole(&server, "json");
    let folder = Folder::new();
    server.script.holds_at.store(3, Ordering::SeqCst);
    server.script.asked.lock().unwrap().clear();
    let mut command = folder.command(&arguments(&server, "json", &["--timeout", "1h"]));
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while server.script.asked.lock().unwrap().len() < 3 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it asks for pages"
        );
        thread::sleep(Duration::from_millis(5));
    }
    let beside = export(&folder, &server, "json", &[]);
    beside.refused(1, "another export is writing");
    child.kill().unwrap();
    child.wait().unwrap();
    let done = export(&folder, &server, "json", &[]).ok().json();
    assert_eq!(done["resumed_from"], 20);
    assert!(fs::read(folder.path("bills")).unwrap() == uninterrupted);
}

#[test]
fn a_file_is_replaced_only_where_that_is_asked_for() {
    let server = StandIn::start(script(25));
    let folder = Folder::new();
    folder.write("bills", "precious");
    let refused = export(&folder, &server, "csv", &[]).refused(1, "bills exists");
    assert!(refused.stderr.contains("--force"));
    assert_eq!(fs::read(folder.path("bills")).unwrap(), b"precious");
    assert!(server.script.asked.lock().unwrap().is_empty());
    export(&folder, &server, "csv", &["--force"]).ok();
    assert_eq!(
        fs::read(folder.path("bills")).unwrap(),
        whole(&server, "csv")
    );
}

#[test]
fn a_file_that_got_its_name_before_the_kill_is_done() {
    let server = StandIn::start(script(25));
    let folder = Folder::new();
    let told = export(&folder, &server, "csv", &[]).ok().json();
    let state = json!({
        "format": 1,
        "export": {"period": "2026-10", "format": "csv", "partial": false},
        "progress": {
            "page_token": "", "whole": true, "statements": 25, "rows": told["rows"],
            "bytes": told["bytes"], "sha256": told["sha256"],
        },
    });
    folder.write("bills.part.state", state.to_string());
    server.script.asked.lock().unwrap().clear();
    let again = export(&folder, &server, "csv", &[]).ok().json();
    assert_eq!(again["sha256"], told["sha256"]);
    assert!(server.script.asked.lock().unwrap().is_empty());
    assert_eq!(names(&folder), ["bills"]);
    // Of another file it says nothing.
    folder.write("bills.part.state", state.to_string());
    folder.write("bills", "precious");
    export(&folder, &server, "csv", &[]).refused(1, "bills exists");
}

#[test]
fn a_part_of_something_else_is_left_alone() {
    let server = StandIn::start(script(25));
    let folder = Folder::new();
    let interrupted = || {
        server.script.fails_at.store(2, Ordering::SeqCst);
        export(&folder, &server, "csv", &[]).refused(5, "the store is away");
    };
    interrupted();
    let part = fs::read(folder.path("bills.part")).unwrap();
    let other =
        export(&folder, &server, "json", &[]).refused(1, "is of an export of 2026-10 as csv");
    assert!(other.stderr.contains("not of 2026-10 as json"), "{other:?}");
    export(&folder, &server, "csv", &["--partial"]).refused(1, "as csv, --partial");
    let mut november = arguments(&server, "csv", &[]);
    november[3] = "2026-09";
    folder.run(&november).refused(1, "not of 2026-09");
    assert_eq!(fs::read(folder.path("bills.part")).unwrap(), part);

    folder.write("bills.part", &part[1..]);
    export(&folder, &server, "csv", &[]).refused(1, "does not hold what its state says");
    folder.write("bills.part.state", "{}");
    export(&folder, &server, "csv", &[]).refused(1, "is not the state of an export");
    fs::remove_file(folder.path("bills.part.state")).unwrap();
    export(&folder, &server, "csv", &[]).refused(1, "is of no export");
    fs::remove_file(folder.path("bills.part")).unwrap();
    export(&folder, &server, "csv", &[]).ok();
    assert_eq!(names(&folder), ["bills"]);
}

#[test]
fn an_incomplete_period_is_exported_only_in_part_or_later() {
    let server = StandIn::start(script(25));
    let folder = Folder::new();
    let incomplete = |pages| server.script.incomplete.store(pages, Ordering::SeqCst);
    incomplete(1);
    let refused = export(&folder, &server, "csv", &[]).refused(1, "2026-10 is not complete");
    assert!(
        refused.stderr.contains("25 statements are closed"),
        "{refused:?}"
    );
    assert_eq!(names(&folder), [""; 0]);
    incomplete(100);
    export(&folder, &server, "csv", &["--partial"]).ok();
    incomplete(2);
    export(&folder, &server, "csv", &["--force", "--wait", "1h"]).ok();
    assert_eq!(server.script.incomplete.load(Ordering::SeqCst), 0);
    incomplete(100);
    export(&folder, &server, "csv", &["--force", "--wait", "0s"]).refused(1, "is not complete");

    let hiding = StandIn::start(Script {
        hidden: 1,
        ..script(25)
    });
    let folder = Folder::new();
    for _ in 0..2 {
        let refused = export(&folder, &hiding, "csv", &[]);
        refused.refused(1, "the server has 26 statements of 2026-10 and listed 25");
    }
}

#[test]
fn what_the_disk_refuses_is_told_and_can_be_gone_on_with() {
    let server = StandIn::start(script(400));
    let folder = Folder::new();
    let to = |out: &str, says: &str| {
        let mut arguments = arguments(&server, "csv", &[]);
        arguments[7] = out;
        folder.run(&arguments).refused(1, says);
    };
    to("missing/bills", "cannot write missing/bills.part: ");
    folder.write("file", "");
    to("file/bills", "/bills");
    to(".", "");
    assert!(
        server.script.asked.lock().unwrap().is_empty(),
        "before any call"
    );

    // A disk with 16 KiB of room.
    let program = env!("CARGO_BIN_EXE_riptide-persistence");
    let mut arguments_in_shell = vec![
        "-c",
        "trap '' XFSZ; ulimit -f 32; exec \"$0\" \"$@\"",
        program,
    ];
    arguments_in_shell.extend(arguments(&server, "csv", &[]));
    let mut shell = std::process::Command::new("/bin/sh");
    shell
        .args(&arguments_in_shell)
        .current_dir(folder.path("."))
        .env_clear();
    let full = Ran::from(shell.output().unwrap()).refused(1, "cannot write bills.part: ");
    assert!(
        full.stderr.contains("statements are in bills.part"),
        "{full:?}"
    );
    assert!(!Path::new(&folder.path("bills")).exists());
    let done = export(&folder, &server, "csv", &[]).ok().json();
    assert!(done["resumed_from"].as_u64().unwrap() > 0);
    assert!(fs::read(folder.path("bills")).unwrap() == whole(&server, "csv"));
}
