//! A client in another language, generated from our protos by its own tools,
//! against a whole server. It does not know what the client asks; see
//! `tests/sdk/python/tour.py`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rstest::rstest;

use crate::server::{ADMIN_KEY, Kind};

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn python(#[case] kind: Kind) {
    let stubs = tempfile::tempdir().unwrap();
    run("stubs.py", &[stubs.path().to_str().unwrap()]);
    let server = kind.start().await;
    let said = run(
        "tour.py",
        &[
            &server.address.to_string(),
            ADMIN_KEY,
            stubs.path().to_str().unwrap(),
        ],
    );
    assert_eq!(said.trim(), "the tour is complete");
}

/// What a script of ours prints; it must end well.
fn run(script: &str, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(interpreter(root))
        .arg(root.join("tests/sdk/python").join(script))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn interpreter(root: &Path) -> PathBuf {
    let interpreter = root.join("target/python/bin/python");
    assert!(
        interpreter.exists(),
        "this test needs Python with grpcio in target/python; `make test` installs it, and so does `tests/tools python`"
    );
    interpreter
}
