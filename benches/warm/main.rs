//! How fast a cache is warmed, and what a warm start is worth: `rate` stores a
//! million entries by one stream, `start` reads by Zipf's law around a restart, with
//! a warm start and without. Tables are printed, with the aims beside them; nothing
//! is judged.

#![allow(clippy::print_stdout, unreachable_pub, missing_docs)]

#[path = "../rpc/line.rs"]
#[allow(dead_code)]
mod line;
#[path = "../rpc/process.rs"]
#[allow(dead_code)]
mod process;
mod rate;
#[path = "../../tests/it/redis.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic
)]
mod redis;
mod start;
#[path = "../../src/server/turn.rs"]
#[allow(unused_imports, dead_code)] // its tests run with the server's
mod turn;

use std::{fs, path::Path};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures warming and warm starts.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
    /// Passed by cargo bench.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Part {
    /// Entries a second, and the memory it takes.
    Rate(rate::Rate),
    /// Hits near and at the origin, second by second around a restart.
    Start(start::Start),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-warm");
    fs::create_dir_all(&folder)?;
    match arguments.part {
        Part::Rate(rate) => rate.run(&folder),
        Part::Start(start) => start.run(),
    }
}
