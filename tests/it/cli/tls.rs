//! `tls init`, and the certificates it makes in use: by a server, and by commands that
//! show them in place of a key. It does not know how they are verified.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, thread, time::Duration};

use serde_json::Value;

use super::{Folder, Ran, Serving};
use crate::authority::{Authority, Holder, Says};

/// What is in a folder.
fn names(folder: &Folder, name: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder.path(name)).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect()
}

/// The part of what was printed that goes into persistence.yml.
fn settings(told: &str) -> String {
    let begins = told.find("  persistence:").unwrap();
    let lines = told[begins..]
        .lines()
        .take_while(|line| line.starts_with("  "));
    let lines = lines.map(|line| line.strip_prefix("  ").unwrap());
    lines.map(|line| format!("{line}\n")).collect()
}

/// What was printed to be exported.
fn exports(told: &str) -> Vec<(String, String)> {
    let lines = told
        .lines()
        .filter_map(|line| line.strip_prefix("  export "));
    let pairs = lines.map(|line| line.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
        .collect()
}

/// A folder in which `tls init` was done, and what it printed was followed.
fn developed(more: &[&str]) -> (Folder, String) {
    let mut folder = Folder::new();
    let arguments = ["tls", "init", "--out", "certs", "--client", "ops"];
    let told = folder
        .run(&[&arguments, more].concat())
        .ok()
        .text()
        .to_owned();
    folder.write("persistence.yml", settings(&told));
    for (name, value) in exports(&told) {
        folder.env(&name, &value);
    }
    (folder, told)
}

/// A command at the server's address in TLS, with other files than those exported.
fn run(serving: &Serving<'_>, more: &[&str], files: &[(&str, &str)]) -> Ran {
    let mut command = serving.command(more);
    command.env("RIPTIDE_ADDRESS", in_tls(serving));
    for (name, value) in files {
        match value.is_empty() {
            true => command.env_remove(name),
            false => command.env(name, serving.folder.path(value)),
        };
    }
    Ran::from(command.output().unwrap())
}

fn in_tls(serving: &Serving<'_>) -> String {
    serving.address.replace("http://", "https://")
}

/// Starts a server and waits until it serves who shows the client's certificate.
fn serve(folder: &Folder) -> Serving<'_> {
    let serving = folder.start(&[]);
    until("it serves", || run(&serving, &["health"], &[]).code == 0);
    serving
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("never: {what}");
}

fn hold(folder: &Folder, name: &str, holder: &Holder) {
    folder.write(&format!("{name}.crt"), &holder.pem);
    folder.write(&format!("{name}.key"), &holder.key_pem);
}

#[test]
fn what_it_makes_is_its_owners_and_never_written_over() {
    let folder = Folder::new();
    let init = [
        "tls",
        "init",
        "--out",
        "certs/dev",
        "--host",
        "riptide.internal",
    ];
    let clients = ["--client", "ops=spiffe://platform/ops", "--client", "web"];
    let arguments = [&init[..], &clients, &["-o", "json"]].concat();
    let made = folder.run(&arguments).ok().json();
    let files =
        ["ca", "ops", "server", "web"].map(|name| [format!("{name}.crt"), format!("{name}.key")]);
    let files: BTreeSet<String> = files.into_iter().flatten().collect();
    assert_eq!(names(&folder, "certs/dev"), files);
    assert_eq!(made["files"].as_array().unwrap().len(), files.len());
    assert_eq!(made["settings"]["admins"], "spiffe://platform/ops, CN=web");
    for name in &files {
        let about = fs::metadata(folder.path("certs/dev").join(name)).unwrap();
        let mode = if name.ends_with(".key") { 0o600 } else { 0o644 };
        assert_eq!(about.permissions().mode() & 0o777, mode, "{name}");
    }
    let folder_mode = fs::metadata(folder.path("certs/dev"))
        .unwrap()
        .permissions();
    assert_eq!(folder_mode.mode() & 0o777, 0o700);

    // Not one of them is touched, as long as any is there.
    let kept = fs::read(folder.path("certs/dev/server.key")).unwrap();
    fs::remove_file(folder.path("certs/dev/ca.key")).unwrap();
    let refused = folder.run(&arguments);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("server.key") && refused.stderr.contains("--force"),
        "{refused:?}"
    );
    assert!(!folder.path("certs/dev/ca.key").exists());
    assert_eq!(fs::read(folder.path("certs/dev/server.key")).unwrap(), kept);
    let made = folder.run(&[&arguments[..], &["--force"]].concat());
    made.ok();
    assert_ne!(fs::read(folder.path("certs/dev/server.key")).unwrap(), kept);
    assert_eq!(names(&folder, "certs/dev"), files);

    for (wrong, says) in [
        (&["--client", "../x"][..], "is no name of a client"),
        (&["--client", "server"], "is no name of a client"),
        (&["--client", "x=y"], "is no URI"),
        (&["--client", "x", "--client", "x"], "named twice"),
        (&["--days", "0"], "--days"),
        (&["--days", "826"], "--days"),
        (&["--host", "nä.example"], "--host"),
    ] {
        let refused = folder.run(&[&["tls", "init", "--out", "wrong"], wrong].concat());
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(says), "{refused:?}");
        assert!(!folder.path("wrong").exists());
    }
}

#[test]
fn what_it_prints_makes_a_server_that_knows_its_admin_by_a_certificate() {
    let (folder, told) = developed(&[]);
    assert!(told.contains("for development"), "{told}");
    let serving = serve(&folder);
    let who = run(&serving, &["whoami", "-o", "json"], &[]).ok().json();
    assert_eq!(who["key_id"], "cert:CN=ops");
    assert_eq!(who["admin"], true);
    // No key is given, and the one of this machine is not looked for.
    run(&serving, &["tenant", "create", "acme"], &[]).ok();
    assert!(serving.log().contains("\"actor\":\"cert:CN=ops\""));

    // None shown, one of another authority's, and half of one.
    let none = [("RIPTIDE_CERT_FILE", ""), ("RIPTIDE_KEY_FILE", "")];
    let refused = run(&serving, &["whoami"], &none);
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("CertificateRequired"),
        "{refused:?}"
    );
    let foreign = Authority::new().holder(Says {
        common_name: "ops",
        ..Says::default()
    });
    hold(&folder, "foreign", &foreign);
    let foreign = [
        ("RIPTIDE_CERT_FILE", "foreign.crt"),
        ("RIPTIDE_KEY_FILE", "foreign.key"),
    ];
    let refused = run(&serving, &["tenant", "create", "other"], &foreign);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("fatal alert"), "{refused:?}");
    let refused = run(&serving, &["whoami"], &[("RIPTIDE_KEY_FILE", "")]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--cert-file needs --key-file"));
    let refused = run(
        &serving,
        &["whoami"],
        &[("RIPTIDE_KEY_FILE", "certs/server.key")],
    );
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--key-file"), "{refused:?}");
    // The server's own certificate is none of a client's.
    let servers = [
        ("RIPTIDE_CERT_FILE", "certs/server.crt"),
        ("RIPTIDE_KEY_FILE", "certs/server.key"),
    ];
    assert_ne!(run(&serving, &["whoami"], &servers).code, 0);
    let untrusted = run(&serving, &["whoami"], &[("RIPTIDE_CA_FILE", "foreign.crt")]);
    assert_eq!(untrusted.code, 5);
    assert!(untrusted.stderr.contains("UnknownIssuer"), "{untrusted:?}");
    until("refusals are told", || {
        let log = serving.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("tls handshake refused"));
        let told: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let why = |why: &str| told.iter().any(|line| line.to_string().contains(why));
        told.iter().all(|line| line.to_string().contains("127.0.0.1:"))
            && why("peer sent no certificates")
            && why("UnknownIssuer")
            // What a peer thinks of ours is told too.
            && why("UnknownCA")
    });
}

#[test]
fn certificates_are_exchanged_while_it_runs_and_one_that_ends_soon_is_told_of() {
    let (folder, _) = developed(&["--days", "7"]);
    let serving = serve(&folder);
    assert!(serving.log().contains("tls certificate expires soon"));
    let before = ["ca.crt", "ops.crt", "ops.key"].map(|name| {
        let old = format!("old-{name}");
        fs::copy(folder.path("certs").join(name), folder.path(&old)).unwrap();
        old
    });
    let arguments = [
        "tls", "init", "--out", "certs", "--client", "ops", "--force",
    ];
    folder.run(&arguments).ok();
    until("the new certificates are in use", || {
        run(&serving, &["whoami"], &[]).code == 0
    });
    let [ca, certificate, key] = &before;
    // The new server is not believed by the old authority, nor the old client by the new.
    let old = run(&serving, &["whoami"], &[("RIPTIDE_CA_FILE", ca)]);
    assert!(old.stderr.contains("certificate"), "{old:?}");
    assert_eq!(old.code, 5);
    let old = [
        ("RIPTIDE_CERT_FILE", &**certificate),
        ("RIPTIDE_KEY_FILE", &**key),
    ];
    assert_ne!(run(&serving, &["whoami"], &old).code, 0);
    // One authority more: what it signed is taken, but not what is over.
    let more = Authority::new();
    let ca = fs::read_to_string(folder.path("certs/ca.crt")).unwrap();
    folder.write("certs/ca.crt", format!("{ca}{}", more.pem));
    let ops = Says {
        common_name: "ops",
        ..Says::default()
    };
    hold(&folder, "good", &more.holder(ops));
    let expired = true;
    hold(&folder, "late", &more.holder(Says { expired, ..ops }));
    let by = |certificate, key| {
        let files = [
            ("RIPTIDE_CERT_FILE", certificate),
            ("RIPTIDE_KEY_FILE", key),
        ];
        run(&serving, &["whoami"], &files)
    };
    until("it is taken", || by("good.crt", "good.key").code == 0);
    let late = by("late.crt", "late.key");
    assert!(late.stderr.contains("CertificateExpired"), "{late:?}");
    assert_eq!(
        serving
            .log()
            .matches("tls certificate expires soon")
            .count(),
        1
    );
}
