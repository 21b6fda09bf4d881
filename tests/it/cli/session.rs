//! `session`: what of sessions reaches a person or a script. It does not know how they
//! are kept.

use super::Folder;

#[test]
fn a_sessions_life() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    serving.run(&["tenant", "create", "acme"]).ok();
    let session = |more: &[&str]| {
        let command = ["session"].iter().chain(more).chain(&["--tenant", "acme"]);
        serving.json(&command.copied().collect::<Vec<_>>())
    };
    let created = session(&[
        "create",
        "ann",
        "--data",
        r#"{"cart": [1, 2], "theme": "dark"}"#,
        "--attribute",
        "device=phone",
        "--ttl",
        "2h",
        "--idle-timeout",
        "10m",
    ]);
    let created = &created["session"];
    let id = created["session_id"].as_str().unwrap();
    assert_eq!(
        (&created["tenant_id"], &created["user_id"]),
        (&"acme".into(), &"ann".into())
    );
    assert_eq!(created["data"]["cart"][1], 2);
    assert_eq!(created["attributes"]["device"], "phone");
    assert_eq!(created["idle_timeout"], "600s");
    assert_eq!(&session(&["get", id])["session"], created);
    let touched = session(&["touch", id]);
    assert_eq!(touched["session"]["etag"], created["etag"]);

    let other = session(&["create", "ann"]);
    let other = other["session"]["session_id"].as_str().unwrap();
    session(&["create", "bob"]);
    let listed = session(&["list", "ann"]);
    let sessions = listed["sessions"].as_array().unwrap();
    assert_eq!((sessions.len(), &listed["more"]), (2, &false.into()));
    let shown = sessions.iter().find(|s| s["session_id"] == id).unwrap();
    assert_eq!(shown["attributes"]["device"], "phone");
    assert!(shown["data"].is_null());
    let one = session(&["list", "ann", "--limit", "1"]);
    assert_eq!(
        (one["sessions"].as_array().unwrap().len(), &one["more"]),
        (1, &true.into())
    );
    let table = serving
        .run(&["session", "list", "ann", "--tenant", "acme"])
        .ok();
    assert!(table.text().starts_with("SESSION ID"), "{}", table.text());
    assert!(table.text().contains(id), "{}", table.text());

    let ended = session(&["terminate", id]);
    assert_eq!(ended["session"]["data"]["theme"], "dark");
    let gone = ["session", "get", id, "--tenant", "acme"];
    serving.run(&gone).refused(3, "(SESSION_NOT_FOUND)");
    let kept = session(&["create", "ann"]);
    let kept = kept["session"]["session_id"].as_str().unwrap();
    let all = [
        "session",
        "terminate",
        "--user",
        "ann",
        "--except",
        kept,
        "--tenant",
        "acme",
    ];
    let told = serving.run(&all).ok();
    assert_eq!(told.stdout, b"terminated: 1 sessions\n");
    let gone = ["session", "touch", other, "--tenant", "acme"];
    serving.run(&gone).refused(3, "(SESSION_NOT_FOUND)");
    assert_eq!(session(&["terminate", "--user", "ann"])["terminated"], 1);

    // One of them, and only one; what is refused is told with its field.
    for wrong in [
        &["session", "terminate"][..],
        &["session", "terminate", id, "--user", "ann"],
        &["session", "terminate", id, "--except", id],
        &["session", "create", "ann", "--data", "[1]"],
    ] {
        assert_eq!(serving.run(wrong).code, 2, "{wrong:?}");
    }
    let wrong = ["session", "get", "../x", "--tenant", "acme"];
    let refused = serving.run(&wrong).refused(1, "(VALIDATION_FAILED)");
    assert!(
        refused.stderr.contains("  session_id: "),
        "{}",
        refused.stderr
    );
}
