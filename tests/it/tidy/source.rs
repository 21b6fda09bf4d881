//! The files of this repository as text. It does not know what is looked for.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A Rust file.
pub struct Source {
    /// Its path from the root, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl Source {
    /// Every Rust file of the crate, sorted by path.
    pub fn all() -> Vec<Self> {
        let mut sources: Vec<Self> = ["src", "tests", "benches"]
            .into_iter()
            .flat_map(files)
            .chain(["build.rs".to_owned()])
            .filter(|path| path.ends_with(".rs"))
            .map(|path| Self {
                text: read(&path),
                path,
            })
            .collect();
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        sources
    }

    /// The files of `src`.
    pub fn of_src() -> Vec<Self> {
        Self::all()
            .into_iter()
            .filter(|source| source.path.starts_with("src/"))
            .collect()
    }

    /// The text up to the inline tests, which end a file.
    pub fn without_tests(&self) -> &str {
        let end = self
            .text
            .find("\n#[cfg(test)]\n")
            .unwrap_or(self.text.len());
        &self.text[..end]
    }

    /// Its lines that are not comments alone.
    pub fn code(&self) -> String {
        code(&self.text)
    }

    /// Its lines before the inline tests that are not comments alone.
    pub fn code_without_tests(&self) -> String {
        code(self.without_tests())
    }
}

fn code(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// A file of the repository.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether there is such a file or folder.
pub fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// The documents of the repository, wherever they lie; not those of packages that
/// were installed, nor what was built.
pub fn documents() -> Vec<String> {
    let ours = fs::read_dir(root()).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().ok()?;
        let built = name.starts_with('.') || ["target", "data"].contains(&name.as_str());
        (!built).then_some(name)
    });
    let paths = ours.flat_map(|name| match root().join(&name).is_dir() {
        true => files(&name),
        false => vec![name],
    });
    let mut documents: Vec<String> = paths
        .filter(|path| path.ends_with(".md") && !path.contains("/node_modules/"))
        .collect();
    documents.sort();
    documents
}

/// The files below a folder, as paths from the root, sorted.
pub fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    let mut paths: Vec<String> = found
        .iter()
        .map(|path| {
            path.strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .replace('\\', "/")
        })
        .collect();
    paths.sort();
    paths
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where a word stands in a text, not as part of a longer one.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            !text[..*at].ends_with(part) && !text[at + word.len()..].starts_with(part)
        })
}
