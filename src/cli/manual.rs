//! `completions` and `man`: what the commands are, for shells and for readers of
//! manual pages, made of the commands themselves. It does not know what any of
//! them does, and asks no server.

use std::{fs, path::PathBuf};

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

use super::{
    client::Global,
    failure::{Exit, Failure},
    output::{self, show},
};

#[derive(Args, Debug)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
    /// The name that the binary, or an alias of it, is called by.
    #[arg(long, value_name = "NAME", default_value = env!("CARGO_PKG_NAME"))]
    name: String,
}

impl Completions {
    pub(super) fn run(self, mut program: clap::Command) -> Result<(), Failure> {
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        // It becomes part of a script.
        if self.name.is_empty() || self.name.starts_with('-') || !self.name.chars().all(fits) {
            return Err(Failure::usage(
                "--name: letters, digits, `.`, `_` and `-` are allowed, the first not `-`",
            ));
        }
        let mut script = Vec::new();
        if self.shell == Shell::Bash {
            // Its generator gives a command two names where that of the program has a
            // hyphen, and then completes the first word alone. So the hyphens come in
            // where the script is bound to a name; else it only uses what it was called by.
            let plain = self.name.replace('-', "_");
            clap_complete::generate(self.shell, &mut program, &plain, &mut script);
            let text = String::from_utf8_lossy(&script);
            let bound = format!("-o default {}\n", self.name);
            script = text
                .replace(&format!("-o default {plain}\n"), &bound)
                .into_bytes();
        } else {
            clap_complete::generate(self.shell, &mut program, self.name, &mut script);
        }
        output::write(&script)
    }
}

#[derive(Args, Debug)]
pub(super) struct Manual {
    /// The folder that the pages are written to, one a command [default: the page of
    /// the program alone, on standard output].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl Manual {
    pub(super) fn run(self, program: clap::Command, global: &Global) -> Result<(), Failure> {
        let Some(folder) = self.out else {
            let mut page = Vec::new();
            // Only a writer fails, and this one is memory.
            Man::new(program).render(&mut page).map_err(failed)?;
            return output::write(&page);
        };
        let cannot = |error| {
            let message = format!("cannot write to {}: {error}", folder.display());
            Failure::new(Exit::Failed, message)
        };
        fs::create_dir_all(&folder).map_err(cannot)?;
        let pages = pages(&program);
        clap_mangen::generate_to(program, &folder).map_err(cannot)?;
        let folder = folder.display().to_string();
        show(
            global.output,
            &json!({ "folder": folder, "pages": pages }),
            || format!("{pages} pages written to {folder}"),
        )
    }
}

fn failed(error: impl ToString) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}

/// One for each command, those that only group others included.
fn pages(command: &clap::Command) -> usize {
    1 + command.get_subcommands().map(pages).sum::<usize>()
}
