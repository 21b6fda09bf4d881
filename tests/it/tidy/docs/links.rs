//! No link of a document leads nowhere in this repository. It does not try
//! addresses elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use super::super::{
    none,
    source::{documents, exists, read},
};

#[test]
fn no_link_is_broken() {
    let mut anchors: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let pages = documents();
    for page in &pages {
        anchors.insert(page.clone(), anchors_of(&read(page)));
    }
    let mut broken = Vec::new();
    for page in &pages {
        for (line, link) in links_of(&read(page)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                path => beside(page, path),
            };
            let found = exists(&target)
                && (anchor.is_empty()
                    || anchors
                        .get(&target)
                        .is_some_and(|anchors| anchors.contains(anchor)));
            if !found {
                broken.push(format!("{page}:{line}: {link}"));
            }
        }
    }
    none(broken, "mend these links");
}

#[test]
fn every_document_is_found() {
    let index = "docs/README.md";
    let linked: BTreeSet<String> = links_of(&read(index))
        .into_iter()
        .map(|(_, link)| beside(index, link.split('#').next().unwrap()))
        .collect();
    let lost = documents().into_iter().filter(|page| {
        let part_of_the_api = page.starts_with("docs/api/") && page != "docs/api/README.md";
        page.starts_with("docs/") && page != index && !part_of_the_api && !linked.contains(page)
    });
    none(lost, "lead to these from docs/README.md");
}

/// A path as it stands in a document, from the root.
fn beside(page: &str, path: &str) -> String {
    let folder = Path::new(page).parent().unwrap();
    let mut whole = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            Component::CurDir => {}
            part => whole.push(part),
        }
    }
    whole.to_str().unwrap().to_owned()
}

/// The lines of a document that are text, not code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut code = false;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if !code {
            lines.push((number, line.to_owned()));
        }
    }
    lines.into_iter()
}

/// Where the links of a document lead, with the lines they stand in.
fn links_of(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // A link is not part of what stands between backticks, but such a text can be
        // part of one.
        let mut rest = line.as_str();
        while let Some(at) = rest.find("](") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            let quoted = line[..line.len() - rest.len() + before.len()]
                .matches('`')
                .count()
                % 2
                == 1;
            let end = after.find(')').unwrap_or(after.len());
            if !quoted {
                found.push((number, after[..end].to_owned()));
            }
            rest = &after[end..];
        }
    }
    found
}

/// What a link can name of a document: its headings, as GitHub makes anchors of
/// them, and the anchors that stand in it.
pub(super) fn anchors_of(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() < line.len() && heading.starts_with(' ') {
            let slug = slug(heading.trim());
            let again = (1..).map(|number| format!("{slug}-{number}"));
            let free = std::iter::once(slug.clone())
                .chain(again)
                .find(|one| !found.contains(one));
            found.extend(free);
        }
        for piece in line.split("<a id=\"").skip(1) {
            found.extend(piece.split('"').next().map(str::to_owned));
        }
    }
    found
}

/// A heading as GitHub makes an anchor of it.
pub(super) fn slug(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn anchors_are_what_github_makes() {
    let text = "# The `store` is lost!\n## A\n## A\n```\n# not one\n```\n<a id=\"own\"></a>\n";
    let expected = ["the-store-is-lost", "a", "a-1", "own"];
    assert_eq!(
        anchors_of(text),
        expected.map(str::to_owned).into_iter().collect()
    );
    let links = links_of("see [`a`](b.md#c), `[x](y)` and [d](e)");
    assert_eq!(links, [(1, "b.md#c".to_owned()), (1, "e".to_owned())]);
    assert_eq!(beside("docs/api/a.md", "../../proto/x"), "proto/x");
}
