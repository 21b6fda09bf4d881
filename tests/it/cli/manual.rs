//! Completions and manual pages, as the programs read them that they are for.

use std::{collections::BTreeSet, fs, process::Command};

use riptide_persistence::cli;

use super::Folder;

const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "powershell", "elvish"];

/// What bash offers for a word that is begun, after these words.
fn completed(folder: &Folder, words: &[&str]) -> BTreeSet<String> {
    let program = words[0];
    let ask = r#"
        source "$1"
        shift
        COMP_WORDS=("$@")
        COMP_CWORD=$(($# - 1))
        function=$(complete -p "$1" | sed 's/.*-F \([^ ]*\).*/\1/')
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let script = folder.path(&format!("{program}.bash"));
    let offered = Command::new("bash")
        .args(["--norc", "-c", ask, "bash"])
        .arg(script)
        .args(words)
        .output()
        .unwrap();
    assert!(
        offered.status.success() && offered.stderr.is_empty(),
        "{offered:?}"
    );
    let offered = String::from_utf8(offered.stdout).unwrap();
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let folder = Folder::new();
    for program in ["riptide-persistence", "riptide"] {
        let script = folder.run(&["completions", "bash", "--name", program]).ok();
        let file = format!("{program}.bash");
        folder.write(&file, &script.stdout);
        let parsed = Command::new("bash")
            .arg("-n")
            .arg(folder.path(&file))
            .output()
            .unwrap();
        assert!(
            parsed.status.success() && parsed.stderr.is_empty(),
            "{parsed:?}"
        );

        let offered = completed(&folder, &[program, "ten"]);
        assert_eq!(offered, BTreeSet::from(["tenant".to_owned()]));
        let offered = completed(&folder, &[program, "tenant", "un"]);
        assert_eq!(offered, BTreeSet::from(["undelete".to_owned()]));
        let offered = completed(&folder, &[program, "state", "checkpoint", ""]);
        for command in ["create", "list", "verify", "restore"] {
            assert!(offered.contains(command), "{offered:?}");
        }
        let offered = completed(&folder, &[program, "cache", "set", "--if-"]);
        assert!(offered.contains("--if-version"), "{offered:?}");
        let offered = completed(&folder, &[program, "health", "--output", ""]);
        assert_eq!(
            offered,
            ["json", "table"].map(str::to_owned).into_iter().collect()
        );
    }
}

#[test]
fn every_shell_has_completions() {
    let folder = Folder::new();
    let mut scripts = BTreeSet::new();
    for shell in SHELLS {
        let script = folder.run(&["completions", shell]).ok();
        assert!(script.text().contains("rotate-data-key"), "{shell}");
        scripts.insert(script.stdout);
    }
    assert_eq!(scripts.len(), SHELLS.len(), "two shells have one script");
    folder
        .run(&["completions", "bash", "--name", "a; b"])
        .refused(2, "--name");
    assert_eq!(folder.run(&["completions", "tcsh"]).code, 2);
}

/// The names of all commands, as their pages are called.
fn names(command: &clap::Command, before: &str, found: &mut BTreeSet<String>) {
    let name = match before {
        "" => command.get_name().to_owned(),
        before => format!("{before}-{}", command.get_name()),
    };
    for command in command.get_subcommands() {
        names(command, &name, found);
    }
    found.insert(name);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = Folder::new();
    let made = folder
        .run(&["man", "--out", "share/man1", "-o", "json"])
        .ok();
    let mut commands = BTreeSet::new();
    names(&cli::command(), "", &mut commands);
    assert_eq!(made.json()["pages"], commands.len());

    let pages: BTreeSet<String> = fs::read_dir(folder.path("share/man1"))
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = commands.iter().map(|command| format!("{command}.1"));
    assert_eq!(pages, expected.collect());

    for page in pages {
        let rendered = Command::new("groff")
            .args(["-man", "-ww", "-z", "-Tutf8"])
            .arg(folder.path("share/man1").join(&page))
            .output()
            .expect("install groff (`make tools` does), so that manual pages can be tried");
        assert!(
            rendered.status.success() && rendered.stderr.is_empty(),
            "{page}: {rendered:?}"
        );
    }

    // The one of the program itself, as a reader sees it.
    folder.write("one.1", folder.run(&["man"]).ok().stdout);
    let shown = Command::new("groff")
        // Without what a terminal would take for bold.
        .args(["-man", "-Tascii", "-P-cbou"])
        .arg(folder.path("one.1"))
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for told in [
        "NAME",
        "SYNOPSIS",
        "riptide-persistence-tenant(1)",
        "RIPTIDE_API_KEY",
    ] {
        assert!(shown.contains(told), "{told:?} is not in {shown}");
    }
}
