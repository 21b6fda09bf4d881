//! The documents agree with the code: every RPC, setting, command and reason an error
//! can have is explained, and nothing else is. It does not judge the prose.

mod alerts;
mod api;
mod commands;
mod links;
mod metrics;

use std::{collections::BTreeSet, env, fs, path::Path};

use riptide_persistence::config::{DEFAULTS, Effect, effect};

use super::{
    none,
    source::{Source, exists, read, words},
};

/// Where the settings are explained.
const CONFIGURATION: &str = "docs/configuration.md";
/// Where the reasons of errors are explained.
const ERRORS: &str = "docs/errors.md";

#[test]
fn every_setting_is_documented() {
    agrees(
        CONFIGURATION,
        &configuration(),
        "src/config/default.yaml",
        "every_setting_is_documented",
    );
}

/// Holds a document against what it is made of, by this test; writes it anew where
/// REGENERATE is set.
fn agrees(path: &str, document: &str, made_of: &str, by: &str) {
    if env::var_os("REGENERATE").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, document).unwrap();
    }
    let there = if exists(path) {
        read(path)
    } else {
        String::new()
    };
    let line = there
        .lines()
        .zip(document.lines())
        .position(|(there, made)| there != made);
    assert!(
        there == document,
        "{path} is made of {made_of}, and is not what that says now, from line {} on: \
         REGENERATE=1 cargo test --test it {by}",
        line.unwrap_or(0) + 1
    );
}

#[test]
fn every_setting_is_used() {
    let code: String = Source::of_src()
        .iter()
        .filter(|source| !source.path.starts_with("src/config"))
        .map(Source::code_without_tests)
        .collect();
    let unused = settings().into_iter().filter(|setting| {
        let field = setting.path.rsplit('.').next().unwrap();
        !words(&code, field).any(|at| code[..at].trim_end().ends_with('.'))
    });
    none(
        unused.map(|setting| setting.path),
        "no code outside src/config reads these settings",
    );
}

#[test]
fn every_reason_is_explained() {
    let told: BTreeSet<String> = reasons(&read("src/grpc/status.rs"), '"');
    let explained: BTreeSet<String> = reasons(&read(ERRORS), '`');
    none(
        told.difference(&explained).cloned(),
        "explain these reasons in docs/errors.md",
    );
    none(
        explained.difference(&told).cloned(),
        "docs/errors.md explains reasons that no call answers",
    );
}

/// The reasons in a text: its quoted words of capitals, but for the modes of a
/// suspension.
fn reasons(text: &str, quote: char) -> BTreeSet<String> {
    let quoted = text
        .split("\n#[cfg(test)]\n")
        .next()
        .unwrap()
        .split(quote)
        .skip(1)
        .step_by(2);
    let capitals = |c: char| c.is_ascii_uppercase() || c == '_';
    quoted
        .filter(|word| word.len() > 4 && word.chars().all(capitals))
        .filter(|word| !["READ_ONLY", "BLOCKED"].contains(word))
        .map(str::to_owned)
        .collect()
}

/// A setting of default.yaml.
struct Setting {
    path: String,
    default: String,
    comment: String,
}

/// A line of default.yaml: what it says, under which keys, after which comment.
struct Line {
    keys: Vec<String>,
    value: String,
    comment: String,
}

/// The lines that have a key, the root `persistence` apart.
fn lines() -> Vec<Line> {
    let mut found = Vec::new();
    let mut keys: Vec<String> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in DEFAULTS.lines() {
        let text = line.trim_start();
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some((key, value)) = text.split_once(':') {
            keys.truncate((line.len() - text.len()) / 2);
            keys.push(key.to_owned());
            let comment = std::mem::take(&mut comment).join(" ");
            if keys.len() > 1 {
                found.push(Line {
                    keys: keys[1..].to_vec(),
                    value: value.trim().to_owned(),
                    comment,
                });
            }
        } else {
            comment.clear();
        }
    }
    found
}

fn settings() -> Vec<Setting> {
    let settings = lines().into_iter().filter(|line| !line.value.is_empty());
    settings
        .map(|line| Setting {
            path: line.keys.join("."),
            default: line.value,
            comment: line.comment,
        })
        .collect()
}

fn configuration() -> String {
    let mut document = String::from(
        "# Configuration\n\n\
         <!-- Made of src/config/default.yaml: REGENERATE=1 cargo test --test it every_setting_is_documented -->\n\n\
         ```text\n",
    );
    let head = DEFAULTS.lines().take_while(|line| line.starts_with('#'));
    for line in head {
        let text = line.trim_start_matches('#');
        document.push_str(text.strip_prefix(' ').unwrap_or(text));
        document.push('\n');
    }
    document.push_str("```\n");
    for line in lines() {
        if line.keys.len() == 1 {
            document.push_str(&format!(
                "\n## {}\n\n{}\n\n| setting | environment | default | changed by | meaning |\n|---|---|---|---|---|\n",
                line.keys[0], line.comment
            ));
        } else if line.value.is_empty() {
            // A group inside a section: its comment stands where its settings begin.
            if !line.comment.is_empty() {
                document.push_str(&format!(
                    "| `{}.` | | | | {} |\n",
                    line.keys.join("."),
                    cell(&line.comment)
                ));
            }
        } else {
            let default = if line.value == "~" {
                "none".to_owned()
            } else {
                format!("`{}`", line.value)
            };
            let path = line.keys.join(".");
            // What holds keys of the operator's own is set key by key.
            let own = if line.value == "{}" { "__..." } else { "" };
            let needs = effect(&path).map_or("", Effect::name);
            document.push_str(&format!(
                "| `{path}` | `{}{own}` | {default} | {needs} | {} |\n",
                variable(&line.keys),
                cell(&line.comment)
            ));
        }
    }
    document
}

/// The environment variable of a setting.
fn variable(keys: &[String]) -> String {
    format!(
        "PERSISTENCE_{}",
        keys.join("__").to_uppercase().replace('-', "_")
    )
}

fn cell(text: &str) -> String {
    escaped(text).replace('|', "\\|")
}

/// Without what Markdown would take for HTML, outside of backticks.
fn escaped(text: &str) -> String {
    let pieces = text
        .split('`')
        .enumerate()
        .map(|(index, piece)| match index % 2 {
            0 => piece.replace('<', "&lt;"),
            _ => piece.to_owned(),
        });
    pieces.collect::<Vec<_>>().join("`")
}
