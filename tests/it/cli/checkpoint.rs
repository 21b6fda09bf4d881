//! `state checkpoint`: taken, listed, verified, removed, and what its exit codes say.

use super::Folder;

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
