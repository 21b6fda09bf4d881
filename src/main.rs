//! The binary: arguments in, exit code out. What the commands do is the
//! library's; this file knows none of them.

use std::process::ExitCode;

/// A call makes some twenty allocations, most of them in the libraries for HTTP/2; the
/// system's allocator took a ninth of the instructions of a read from memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    riptide_persistence::cli::run()
}
