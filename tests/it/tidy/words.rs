//! Words that promise what the code does not do, and names that name nothing. It
//! does not judge any other word.

use super::{
    none,
    source::{Source, files, read, words},
};

/// Never in a text of this repository. A TODO may stand with its issue: `TODO(#12)`.
const PHRASES: [&str; 9] = [
    "for now",
    "placeholder",
    "in a real",
    "not written yet",
    "unimplemented!",
    "todo!",
    "dbg!",
    "FIXME",
    "XXX",
];

/// Never the name of a file or module, nor the end of one.
const NAMES: [&str; 7] = [
    "utils", "util", "helpers", "common", "manager", "misc", "base",
];
const ENDINGS: [&str; 5] = ["_utils", "_helpers", "_manager", "_new", "_v2"];

#[test]
fn nothing_is_promised_for_later() {
    let texts = Source::all()
        .into_iter()
        .map(|source| (source.path, source.text));
    let others = files("proto")
        .into_iter()
        .chain(documents())
        .map(|path| (path.clone(), read(&path)));
    let mut found = Vec::new();
    for (path, text) in texts
        .chain(others)
        .filter(|(path, _)| !path.ends_with("tidy/words.rs"))
    {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let banned = PHRASES.into_iter().find(|phrase| {
                words(line, phrase).next().is_some() || words(&lower, phrase).next().is_some()
            });
            let promise = words(line, "TODO").next().is_some() && !line.contains("TODO(#");
            if let Some(phrase) = banned.or(promise.then_some("TODO")) {
                found.push(format!("{path}:{}: {phrase}", number + 1));
            }
        }
    }
    none(
        found,
        "do it, or say what is (a TODO names its issue: TODO(#12))",
    );
}

#[test]
fn names_are_nouns_of_the_subject() {
    let mut found = Vec::new();
    for source in Source::all() {
        let name = source
            .path
            .rsplit('/')
            .next()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        let modules = source.text.lines().filter_map(|line| {
            let line = line
                .trim_start()
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub ");
            line.strip_prefix("mod ")
                .map(|rest| rest.trim_end_matches([' ', '{', ';']).to_owned())
        });
        for name in std::iter::once(name).chain(modules) {
            let banned = NAMES.contains(&name.as_str())
                || ENDINGS.iter().any(|ending| name.ends_with(ending));
            if banned || name == "mod" || name == "impl" {
                found.push(format!("{}: {name}", source.path));
            }
        }
    }
    none(
        found,
        "name what these are about (and write `foo.rs` beside `foo/`, not `foo/mod.rs`)",
    );
}

fn documents() -> impl Iterator<Item = String> {
    let roots = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "Makefile",
        "Cargo.toml",
    ];
    let docs = files("docs").into_iter();
    roots
        .into_iter()
        .map(str::to_owned)
        .chain(docs.filter(|path| !path.starts_with("docs/images/")))
}
