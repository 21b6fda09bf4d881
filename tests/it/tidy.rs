//! The rules of the house as tests: what a review would otherwise have to look
//! for. They read the sources as text and know nothing of what the code does.

mod calls;
mod directions;
mod docs;
mod source;
mod words;

use source::Source;

/// Lines of a file, its inline tests aside; a longer one is asking to be two.
const FILE_LINES: usize = 400;
/// Lines of ARCHITECTURE.md: it is read in one sitting.
const ARCHITECTURE_LINES: usize = 150;

#[test]
fn every_file_says_what_it_is_for() {
    let silent = Source::all()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "));
    none(
        silent.map(|source| source.path),
        "begin these files with `//!`: what each is for, and what it does not know",
    );
}

#[test]
fn no_file_is_long() {
    let long = Source::all().into_iter().filter_map(|source| {
        let lines = source.without_tests().lines().count();
        (lines > FILE_LINES && !source.path.starts_with("tests/"))
            .then(|| format!("{}: {lines} lines", source.path))
    });
    none(long, "split these files");
}

#[test]
fn the_map_is_short() {
    let lines = source::read("ARCHITECTURE.md").lines().count();
    assert!(
        lines <= ARCHITECTURE_LINES,
        "ARCHITECTURE.md has {lines} lines, and {ARCHITECTURE_LINES} are enough"
    );
}

#[test]
fn no_test_is_ignored() {
    let ignored = Source::all()
        .into_iter()
        .filter(|source| source.code().contains(concat!("#[", "ignore")));
    none(
        ignored.map(|source| source.path),
        "mend or remove the ignored tests of these files",
    );
}

/// Fails with everything that breaks a rule, and how to mend it.
fn none(breaches: impl IntoIterator<Item = String>, remedy: &str) {
    let breaches: Vec<String> = breaches.into_iter().collect();
    assert!(
        breaches.is_empty(),
        "{remedy}:\n  {}",
        breaches.join("\n  ")
    );
}
