//! The unit, and what the process tells systemd. It does not need a running systemd.

use std::{os::unix::net::UnixDatagram, sync::mpsc, thread, time::Duration};

use super::{ran, read, tool};
use crate::cli::Folder;

#[test]
fn the_unit_is_sound_and_hardened() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("riptide-persistence.service");
    let binary = env!("CARGO_BIN_EXE_riptide-persistence");
    let text = read("systemd/riptide-persistence.service");
    assert!(text.contains("ExecStart=/usr/local/bin/riptide-persistence serve\n"));
    std::fs::write(
        &unit,
        text.replace("/usr/local/bin/riptide-persistence", binary),
    )
    .unwrap();
    let told = ran(tool("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&unit));
    assert_eq!(told.trim(), "");
    // In tenths: 1.5 of 10, where a unit that restricts nothing has 9.6.
    ran(tool("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager", "--threshold=15"])
        .arg(&unit));
}

#[test]
fn systemd_is_told_of_the_start_a_reload_and_the_end() {
    let mut folder = Folder::new();
    let socket = folder.path("notify");
    let listening = UnixDatagram::bind(&socket).unwrap();
    // As systemd does, it is read all the time, so that nobody waits to be heard.
    let (hear, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(length) = listening.recv(&mut message) {
            let text = String::from_utf8(message[..length].to_vec()).unwrap();
            if hear.send(text).is_err() {
                return;
            }
        }
    });
    folder.env("NOTIFY_SOCKET", socket.to_str().unwrap());
    folder.env("WATCHDOG_USEC", "100000");
    let mut serving = folder.serve(&["--ephemeral"]);
    let next = |begins: &str| loop {
        let message: String = heard
            .recv_timeout(Duration::from_secs(60))
            .unwrap_or_else(|error| panic!("{begins}: {error}: {}", serving.log()));
        if message.starts_with(begins) {
            return message;
        }
        assert_eq!(message, "WATCHDOG=1\n", "before {begins}");
    };
    assert!(next("READY=1\n").contains("STATUS=listens on 127.0.0.1:"));
    next("WATCHDOG=1\n");
    next("WATCHDOG=1\n");
    serving.signal("HUP");
    assert!(next("RELOADING=1\n").contains("MONOTONIC_USEC="));
    next("READY=1\n");
    serving.signal("TERM");
    next("STOPPING=1\n");
    assert_eq!(serving.wait(), Some(0));
}
