//! The binary: arguments in, exit code out. What the commands do is the
//! library's; this file knows none of them.

use std::process::ExitCode;

fn main() -> ExitCode {
    riptide_persistence::cli::run()
}
