//! `state checkpoint`: taken, listed, verified, removed, and what its exit codes say.

use super::{Folder, Serving};

#[test]
fn checkpoints_are_taken_listed_verified_and_removed() {
    let folder = Folder::new();
    let vault = folder.path("vault");
    folder.write(
        "persistence.yml",
        format!(
            "persistence: {{checkpoint: {{url: 'file://{}'}}}}",
            vault.display()
        ),
    );
    let serving = folder.serve(&["--ephemeral"]);
    serving.run(&["tenant", "create", "acme"]).ok();
    let set = ["cache", "set", "key", "value", "--tenant", "acme"];
    serving.run(&set).ok();

    let create = ["state", "checkpoint", "create", "--components"];
    let more = [
        "tenants,cache",
        "--description",
        "by hand",
        "--only",
        "acme",
    ];
    let taken = serving.json(&[&create[..], &more].concat());
    assert_eq!(taken["kind"], "MANUAL");
    assert_eq!(taken["state"], "COMPLETE");
    assert_eq!(taken["tenants"], 1);
    assert_eq!(taken["components"], serde_json::json!(["TENANTS", "CACHE"]));
    assert_eq!(taken["description"], "by hand");
    let id = taken["checkpoint_id"].as_str().unwrap();
    assert!(vault.join(id).join("manifest.json").exists());

    let listed = serving.json(&["state", "checkpoint", "list"]);
    assert_eq!(listed["checkpoints"], serde_json::json!([taken]));
    let table = serving.run(&["state", "checkpoint", "list"]).ok();
    assert!(String::from_utf8_lossy(&table.stdout).contains(id));

    let verified = serving.json(&["state", "checkpoint", "verify", id]);
    assert_eq!(verified["valid"], true);
    let chunk = vault.join(id).join("chunk-000000");
    let mut bytes = std::fs::read(&chunk).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&chunk, bytes).unwrap();
    let damaged = serving.run(&["state", "checkpoint", "verify", id]);
    assert_eq!(damaged.code, 1);
    assert!(String::from_utf8_lossy(&damaged.stdout).contains("chunk-000000"));

    let outside = serving.run(&["state", "checkpoint", "verify", "../vault"]);
    outside.refused(1, "checkpoint_id");
    serving.run(&["state", "checkpoint", "delete", id]).ok();
    assert!(!vault.join(id).exists());
    let gone = serving.run(&["state", "checkpoint", "delete", id]);
    gone.refused(3, "does not exist");
    let allowed = ["state", "checkpoint", "delete", id, "--allow-missing"];
    serving.run(&allowed).ok();
}

#[test]
fn a_checkpoint_is_carried_away_and_restored() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    serving.run(&["tenant", "create", "acme"]).ok();
    let set = |value| {
        let set = ["cache", "set", "key", value, "--tenant", "acme"];
        serving.run(&set).ok();
    };
    let get = |serving: &Serving| {
        let got = serving.run(&["cache", "get", "key", "--tenant", "acme"]);
        String::from_utf8_lossy(&got.stdout).trim().to_owned()
    };
    set("then");
    let create = ["state", "checkpoint", "create", "--components"];
    let taken = serving.json(&[&create[..], &["tenants,cache"]].concat());
    let id = taken["checkpoint_id"].as_str().unwrap();
    let file = folder.path("away.rcka");
    let file = file.to_str().unwrap();
    let told = serving.json(&["state", "checkpoint", "download", id, file]);
    assert_eq!(told["bytes"], std::fs::metadata(file).unwrap().len());
    set("now");

    // FAIL changes nothing, and REPLACE asks first.
    let restore = ["state", "checkpoint", "restore", id];
    serving.run(&restore).refused(1, "acme");
    let replace = [&restore[..], &["--conflict", "replace"]].concat();
    let asked = serving.run(&replace);
    assert_eq!(asked.code, 2);
    assert!(
        asked
            .stderr
            .contains("1 tenant would be replaced: say --yes"),
        "{asked:?}"
    );
    assert_eq!(get(&serving), "now");
    let plan = serving.json(&[&replace[..], &["--plan"]].concat());
    assert_eq!(plan["steps"][0]["tenant_id"], "acme");
    assert_eq!(plan["steps"][0]["action"], "REPLACE");
    assert_eq!(get(&serving), "now");
    let done = serving.json(&[&replace[..], &["--yes"]].concat());
    assert_eq!(
        (&done["replaced"], &done["created"]),
        (&1.into(), &0.into())
    );
    let safety = done["safety_checkpoint_id"].as_str().unwrap();
    assert_ne!(safety, "");
    assert_eq!(get(&serving), "then");
    let back = ["state", "checkpoint", "restore", safety];
    let back = [&back[..], &["--conflict", "replace", "--yes"]].concat();
    serving.run(&back).ok();
    assert_eq!(get(&serving), "now");

    let elsewhere = Folder::new();
    let there = elsewhere.serve(&["--ephemeral"]);
    let upload = ["state", "checkpoint", "upload", file];
    assert_eq!(there.json(&upload)["checkpoint_id"], id);
    there.run(&restore).ok();
    assert_eq!(get(&there), "then");
    std::fs::write(file, "no archive").unwrap();
    there.run(&upload).refused(1, "archive");
    let none = ["state", "checkpoint", "restore", "20200101t000000-00000000"];
    there.run(&none).refused(3, "does not exist");
}
