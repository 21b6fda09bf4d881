//! What `deploy/` offers holds together: linters pass, names are those of the code, and
//! systemd and Prometheus meet what they expect. It does not start containers: no engine
//! is needed to run the tests.

mod dashboard;
mod linters;
mod manifests;
mod prometheus;
mod systemd;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn deploy(path: &str) -> PathBuf {
    root().join("deploy").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A tool that `tests/tools deploy` installs, on PATH or in the Python environment.
fn tool(name: &str) -> Command {
    let own = root().join("target/python/bin").join(name);
    Command::new(if own.exists() { own } else { name.into() })
}

/// What a tool that must end well said.
fn ran(command: &mut Command) -> String {
    let name = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "{name}: {error}; `make test` installs what is missing, and so does `tests/tools deploy`"
        )
    });
    let [told, warned] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(output.status.success(), "{name}: {told}{warned}");
    if told.is_empty() {
        warned.into()
    } else {
        told.into()
    }
}

/// The documents of a YAML file.
fn documents(path: &str) -> Vec<Value> {
    parsed(&read(path))
}

/// The documents of a YAML text.
fn parsed(text: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
    let mut python = tool("python");
    python
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut python = python.spawn().unwrap();
    let mut stdin = python.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "no YAML: {text}");
    serde_json::from_slice(&output.stdout).unwrap()
}
