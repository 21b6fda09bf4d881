//! Encryption as an operator meets it: keys are made, a start without one is
//! refused, both rotations tell what they did, and nothing shows a key.

use super::{Folder, Ran, Serving};

/// A new master key by this name.
fn generated(folder: &Folder, id: &str) -> String {
    let ran = folder.run(&["key", "generate-master", id]).ok();
    let text = ran.text().strip_suffix('\n').unwrap().to_owned();
    assert!(
        text.starts_with(&format!("{id}:")) && text.len() == id.len() + 45,
        "{text}"
    );
    text
}

/// Serves what is kept in the folder, with these master keys.
fn serve<'a>(folder: &'a Folder, masters: &[&str]) -> Serving<'a> {
    let masters = masters.join(",");
    folder.write(
        "persistence.yml",
        format!(
            "persistence: {{log: {{filter: trace}}, encryption: {{master_keys: '{masters}'}}}}"
        ),
    );
    folder.serve(&[])
}

#[test]
fn a_master_key_is_made_without_a_server() {
    let folder = Folder::new();
    let (one, other) = (generated(&folder, "main"), generated(&folder, "main"));
    assert_ne!(one, other);
    let named = folder.run(&["key", "generate-master", "-o", "json"]).ok();
    let named = named.json()["master_key"].as_str().unwrap().to_owned();
    assert!(
        named.starts_with("master-") && named.len() == 15 + 45,
        "{named}"
    );
    folder
        .run(&["key", "generate-master", "no:colon"])
        .refused(2, "ID: 1 to 63 letters");
}

#[test]
fn a_start_that_would_encrypt_without_a_key_is_refused_with_the_way_to_one() {
    let folder = Folder::new();
    let start = |masters: Option<&str>| {
        let mut command = folder.command(&["serve", "--ephemeral", "--listen", "127.0.0.1:0"]);
        command.env("PERSISTENCE_ENCRYPTION__ENABLED", "true");
        if let Some(masters) = masters {
            command.env("PERSISTENCE_ENCRYPTION__MASTER_KEYS", masters);
        }
        Ran::from(command.output().unwrap())
    };
    let refused = start(None).refused(1, "encryption.master_keys");
    assert!(
        refused
            .stderr
            .contains("riptide-persistence key generate-master")
    );
    assert!(
        !folder.path("data").exists(),
        "refused before anything is made"
    );
    let key = generated(&folder, "main");
    let (_, secret) = key.split_once(':').unwrap();
    let refused = start(Some(&format!("{key},{key}"))).refused(1, "have the same id");
    assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
    let refused = start(Some(secret)).refused(1, "key 1 has no id");
    assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
}

#[test]
fn keys_are_rotated_and_never_shown() {
    let folder = Folder::new();
    let (old, new) = (generated(&folder, "old"), generated(&folder, "new"));
    let serving = serve(&folder, &[&old]);
    let created = serving.json(&["tenant", "create", "vault", "--encrypt"]);
    assert_eq!(created["tenant"]["encryption_enabled"], true);
    serving.json(&["tenant", "create", "plain"]);
    let taken = serving.json(&["state", "checkpoint", "create"]);
    let id = taken["checkpoint_id"].as_str().unwrap().to_owned();
    let (set, get) = (
        ["cache", "set", "k", "a secret value", "--tenant", "vault"],
        ["cache", "get", "k", "--tenant", "vault"],
    );
    serving.run(&set).ok();
    assert_eq!(serving.run(&get).ok().text(), "a secret value");
    let rotated = serving.json(&["tenant", "rotate-data-key", "vault"]);
    assert_eq!(rotated["data_key"]["data_key_id"], 2);
    assert_eq!(rotated["data_key"]["master_key_id"], "old");
    let rotated = serving.run(&["tenant", "rotate-data-key", "vault"]).ok();
    assert!(rotated.text().contains("The tenant has 3 data keys."));
    serving
        .run(&["tenant", "rotate-data-key", "plain"])
        .refused(1, "(CONDITION_NOT_MET)");
    let mut told = serving.told.clone() + &serving.log();
    drop(serving);

    let serving = serve(&folder, &[&new, &old]);
    let asked = serving.json(&["key", "rotate-master", "--validate-only"]);
    assert_eq!(asked["master_key_id"], "new");
    assert_eq!(asked["data_keys"], serde_json::json!({"old": 3}));
    assert_eq!(
        (&asked["rewrapped"], &asked["others"]),
        (&3.into(), &3.into())
    );
    let found = &asked["checkpoints"];
    // Of the store, of two tenants, and the data key that one had then.
    assert_eq!(found["master_keys"], serde_json::json!({"old": 4}));
    assert_eq!(found["others"][&id], 4);
    let done = serving
        .run(&["key", "rotate-master", "--page-size", "1"])
        .ok();
    assert!(
        done.text()
            .contains("No data key needs another master key than new.")
    );
    let text = done.text();
    assert!(
        text.contains("No checkpoint needs another master key than new.")
            && text.contains("the others can be removed"),
        "{text}"
    );
    let done = serving.json(&["key", "rotate-master"]);
    assert_eq!(done["data_keys"], serde_json::json!({"new": 3}));
    assert_eq!(
        (&done["rewrapped"], &done["tenants"]),
        (&0.into(), &2.into())
    );
    assert_eq!(
        done["checkpoints"]["master_keys"],
        serde_json::json!({"new": 4})
    );
    let printed = serving.run(&["config", "print"]).ok();
    assert!(printed.text().contains("(redacted)"));
    told += &(serving.log() + printed.text());
    drop(serving);

    let serving = serve(&folder, &[&new]);
    assert_eq!(serving.run(&get).ok().text(), "a secret value");
    serving.run(&["state", "checkpoint", "verify", &id]).ok();
    told += &serving.log();
    drop(serving);

    // The wrong one is there: what is lost is named, and the exit code tells.
    let serving = serve(&folder, &[&old]);
    serving.run(&get).refused(1, "(ENTRY_CORRUPT)");
    serving.run(&set).refused(1, "(CONDITION_NOT_MET)");
    let lost = serving.run(&["key", "rotate-master"]);
    assert_eq!(lost.code, 1, "{lost:?}");
    let text = lost.text();
    assert!(
        text.contains("vault") && text.contains("3 of them cannot be opened"),
        "{text}"
    );
    assert!(
        text.contains("1 checkpoints need another master key than old")
            && text.contains(&id)
            && text.contains("key-store")
            && !text.contains("can be removed"),
        "{text}"
    );
    let log = serving.log();
    assert!(log.contains("entry not opened") && log.contains("ENTRY_CORRUPT"));
    told += &log;
    assert!(told.contains("master keys read"));
    for key in [&old, &new] {
        let (_, secret) = key.split_once(':').unwrap();
        assert!(
            !told.contains(secret.trim_end_matches('=')),
            "a key is shown"
        );
    }
    assert!(!told.contains("a secret value"), "a value is shown");
}
