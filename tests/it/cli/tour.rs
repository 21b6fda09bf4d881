//! The commands of the documents, typed as they stand there. It does not judge what
//! they print, but that they do what they say.

use std::{env, fs, path::Path, process::Command};

use super::{Folder, Serving};

/// The blocks of shell in a part of a document.
fn blocks(document: &str, part: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = "\n".to_owned() + &fs::read_to_string(path).unwrap();
    let heading = format!("\n{part}\n");
    let begin = text
        .find(&heading)
        .unwrap_or_else(|| panic!("{document} has no {part}"))
        + 1;
    let level = part.split(' ').next().unwrap();
    let next = text[begin + 1..].find(&format!("\n{level} "));
    let part = &text[begin..next.map_or(text.len(), |at| begin + 1 + at)];
    let blocks = part.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

/// Types these commands in the folder of a server, where `riptide` is the binary; `buf`
/// is the one that `make tools` installs.
fn type_in(serving: &Serving<'_>, commands: &str) -> String {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([tools].into_iter().chain(env::split_paths(&path))).unwrap();
    let binary = env!("CARGO_BIN_EXE_riptide-persistence");
    let script = format!("set -euo pipefail\nriptide() {{ '{binary}' \"$@\"; }}\n{commands}");
    let typed = Command::new("bash")
        .args(["--norc", "-c", &script])
        .current_dir(serving.folder.path("."))
        .env_clear()
        .env("PATH", path)
        .env("HOME", serving.folder.path("."))
        .env("RIPTIDE_ADDRESS", &serving.address)
        .output()
        .unwrap();
    let (told, wrong) = (
        String::from_utf8(typed.stdout).unwrap(),
        String::from_utf8(typed.stderr).unwrap(),
    );
    assert!(typed.status.success(), "{script}\n{told}\n{wrong}");
    told
}

#[test]
fn three_commands_store_the_first_value() {
    let block = blocks("README.md", "## Start").remove(0);
    let commands: Vec<&str> = block.lines().collect();
    assert_eq!(commands.len(), 3, "{block}");
    assert!(commands[0].starts_with("make run "), "{block}");
    let folder = Folder::new();
    let serving = folder.serve(&[]);
    let rest = commands[1..].join("\n");
    let rest = rest.replace("target/quick/riptide-persistence", "riptide");
    type_in(&serving, &rest);
    let value = type_in(&serving, "riptide cache get greeting --tenant acme");
    assert_eq!(value, "hello, acme");
}

#[test]
fn five_minutes_go_as_told() {
    let typed: Vec<String> = blocks("README.md", "## Five minutes")
        .into_iter()
        // Other programs have tests of their own.
        .filter(|block| !block.contains("curl") && !block.contains("python3 -m"))
        .collect();
    assert_eq!(typed.len(), 2, "{typed:?}");
    let folder = Folder::new();
    let serving = folder.serve(&[]);
    let typed = typed.concat().replace("alias riptide=", "# ");
    let told = type_in(&serving, &typed);
    assert_eq!(told.matches("hello, globex").count(), 2, "{told}");
}

#[test]
fn a_tenant_is_brought_in_and_out_as_told() {
    let mut folder = Folder::new();
    folder.env(
        "PERSISTENCE_ENCRYPTION__MASTER_KEYS",
        &format!("main:{}", data_encoding::BASE64.encode(&[7; 32])),
    );
    let serving = folder.serve(&[]);
    let typed = blocks("docs/onboarding.md", "# Onboarding").concat();
    let told = type_in(
        &serving,
        &typed.replace("http://127.0.0.1:50051", &serving.address),
    );
    // The command and the call are one request, and have one answer.
    let secrets: Vec<&str> = told
        .split(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c))
        .filter(|word| word.starts_with("rtp_"))
        .collect();
    assert_eq!(secrets[0], secrets[1], "{told}");
    assert!(told.contains("<html>"), "{told}");
    let left = type_in(&serving, "riptide tenant list --show-deleted -o json");
    assert!(!left.contains("acme") && !left.contains("vault"), "{left}");
}
