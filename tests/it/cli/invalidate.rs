//! `cache invalidate`: keys, a prefix, tags, a namespace, all. It does not know how
//! they disappear.

use super::{Folder, Serving};

fn set(serving: &Serving<'_>, key: &str, more: &[&str]) {
    let set = ["cache", "set", key, "v", "--tenant", "acme"];
    serving.run(&[&set, more].concat()).ok();
}

fn has(serving: &Serving<'_>, key: &str, namespace: &str) -> bool {
    let get = [
        "cache",
        "get",
        key,
        "--tenant",
        "acme",
        "--namespace",
        namespace,
    ];
    match serving.run(&get).code {
        0 => true,
        3 => false,
        code => panic!("{code}"),
    }
}

#[test]
fn what_is_named_is_invalidated_and_nothing_else() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    serving.run(&["tenant", "create", "acme"]).ok();
    for key in ["user:1", "user:2", "plain", "other", "tagged"] {
        set(&serving, key, &[]);
    }
    set(&serving, "tagged", &["--tag", "red", "--tag", "blue"]);
    set(&serving, "plain", &["--namespace", "ns"]);
    let invalidate = |more: &[&str]| {
        let command = ["cache", "invalidate", "--tenant", "acme"];
        serving.run(&[&command, more].concat())
    };
    let there = || {
        ["user:1", "user:2", "plain", "other", "tagged"]
            .map(|key| has(&serving, key, "default"))
            .to_vec()
    };

    let told = invalidate(&["other", "absent"]).ok();
    assert_eq!(told.stdout, b"invalidated: 1 entries\n");
    assert_eq!(there(), [true, true, true, false, true]);
    let told = invalidate(&["--prefix", "user:"]).ok();
    assert_eq!(told.stdout, b"invalidated\n");
    assert_eq!(there(), [false, false, true, false, true]);
    let told = invalidate(&["--tag", "green", "--tag", "blue", "-o", "json"]).ok();
    let told = told.json();
    assert_eq!(
        (&told["invalidated"], &told["generation"]),
        (&0.into(), &0.into())
    );
    assert_eq!(there(), [false, false, true, false, false]);
    invalidate(&["--namespace-all"]).ok();
    assert_eq!(there(), [false; 5]);
    assert!(has(&serving, "plain", "ns"));
    invalidate(&["--tenant-all"]).refused(2, "add --yes");
    assert!(has(&serving, "plain", "ns"));
    let told = invalidate(&["--tenant-all", "--yes", "-o", "json"])
        .ok()
        .json();
    assert_eq!(told["generation"], 1);
    assert!(!has(&serving, "plain", "ns"));

    // One of them, and only one; what is refused is told with its field.
    assert_eq!(invalidate(&[]).code, 2);
    assert_eq!(invalidate(&["--prefix", "a", "--tag", "b"]).code, 2);
    assert_eq!(invalidate(&["a", "--namespace-all"]).code, 2);
    let refused = invalidate(&["--tag", ""]).refused(1, "(VALIDATION_FAILED)");
    assert!(
        refused.stderr.contains("  tags.tags[0]: "),
        "{}",
        refused.stderr
    );
}
