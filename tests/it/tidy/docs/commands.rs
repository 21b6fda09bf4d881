//! docs/cli.md is the tree of commands, for people. It does not know what a command does.

use std::fmt::Write;

use clap::{Arg, Command};
use riptide_persistence::cli;

use super::{agrees, escaped};

/// The test that makes the page.
const MADE_BY: &str = "the_command_line_is_documented";

#[test]
fn the_command_line_is_documented() {
    let mut program = cli::command().disable_help_subcommand(true);
    program.build();
    let document = document(&program);
    agrees("docs/cli.md", &document, "the commands of src/cli", MADE_BY);
}

fn document(program: &Command) -> String {
    let name = program.get_name();
    let mut text = format!(
        "# Command line\n\n<!-- Made of src/cli: REGENERATE=1 cargo test --test it {MADE_BY} -->\n\n\
         {}\n\n`{name} <COMMAND>`; `--help` after any command tells the same as this page.\n\n\
         | command | what it does |\n|---|---|\n",
        about(program)
    );
    contents(&mut text, program, &[]);
    text.push_str("\n## Options of all commands\n");
    let shared: Vec<&Arg> = program
        .get_arguments()
        .filter(|one| one.is_global_set())
        .collect();
    arguments(&mut text, &shared);
    if let Some(more) = program.get_after_help() {
        write!(text, "\n```text\n{more}\n```\n").unwrap();
    }
    for command in program.get_subcommands() {
        section(&mut text, command, &[]);
    }
    text
}

/// A line for each command that does something.
fn contents(text: &mut String, command: &Command, before: &[&str]) {
    for command in command.get_subcommands() {
        let path = [before, &[command.get_name()]].concat();
        if command.has_subcommands() {
            contents(text, command, &path);
        } else {
            writeln!(
                text,
                "| [`{}`](#{}) | {} |",
                path.join(" "),
                path.join("-"),
                cell(&first_paragraph(&about(command)))
            )
            .unwrap();
        }
    }
}

fn section(text: &mut String, command: &Command, before: &[&str]) {
    let path = [before, &[command.get_name()]].concat();
    let level = if before.is_empty() { "##" } else { "###" };
    write!(
        text,
        "\n{level} {}\n\n{}\n",
        path.join(" "),
        escaped(&about(command))
    )
    .unwrap();
    if command.has_subcommands() {
        for command in command.get_subcommands() {
            section(text, command, &path);
        }
        return;
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    write!(text, "\n```text\n{usage}\n```\n").unwrap();
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|one| !one.is_global_set() && !one.is_hide_set())
        .filter(|one| !["help", "version"].contains(&one.get_id().as_str()))
        .collect();
    arguments(text, &own);
    if let Some(more) = command.get_after_help() {
        write!(text, "\n```text\n{more}\n```\n").unwrap();
    }
}

fn arguments(text: &mut String, arguments: &[&Arg]) {
    if arguments.is_empty() {
        return;
    }
    text.push_str("\n| argument | meaning |\n|---|---|\n");
    for one in arguments {
        let mut meaning = one
            .get_long_help()
            .or_else(|| one.get_help())
            .map(ToString::to_string)
            .unwrap_or_default();
        // Clap takes the last full stop away.
        if !meaning.is_empty() && !meaning.ends_with(['.', ']']) {
            meaning.push('.');
        }
        let values = one.get_possible_values();
        let takes = one.get_num_args().is_some_and(|range| range.takes_values());
        if takes && !values.is_empty() {
            let values: Vec<String> = values
                .iter()
                .map(|value| format!("`{}`", value.get_name()))
                .collect();
            write!(meaning, " One of {}.", values.join(", ")).unwrap();
        }
        let defaults: Vec<_> = one
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        if takes && !defaults.is_empty() && !one.is_hide_default_value_set() {
            write!(meaning, " Default: `{}`.", defaults.join(",")).unwrap();
        }
        if let Some(variable) = one.get_env() {
            write!(meaning, " Also `{}`.", variable.to_string_lossy()).unwrap();
        }
        writeln!(text, "| `{}` | {} |", spelt(one), cell(&escaped(&meaning))).unwrap();
    }
}

/// An argument as it is typed.
fn spelt(one: &Arg) -> String {
    let names = one.get_value_names().unwrap_or_default();
    let takes = one.get_num_args().is_some_and(|range| range.takes_values());
    let value = match takes {
        true if names.is_empty() => format!("<{}>", one.get_id().as_str().to_uppercase()),
        true => names
            .iter()
            .map(|name| format!("<{name}>"))
            .collect::<Vec<_>>()
            .join(" "),
        false => String::new(),
    };
    let flags = [
        one.get_short().map(|letter| format!("-{letter}")),
        one.get_long().map(|name| format!("--{name}")),
    ];
    let flags: Vec<String> = flags.into_iter().flatten().collect();
    let mut text = flags.join(", ");
    if !text.is_empty() && !value.is_empty() {
        text.push(' ');
    }
    text + &value
}

fn about(command: &Command) -> String {
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    // Clap takes the last full stop away.
    match about.ends_with('.') {
        true => about,
        false => about + ".",
    }
}

fn first_paragraph(text: &str) -> String {
    escaped(text.split("\n\n").next().unwrap_or_default())
}

fn cell(text: &str) -> String {
    let lines: Vec<&str> = text.split_whitespace().collect();
    lines.join(" ").replace('|', "\\|")
}
