//! The command line: the server, and the commands that call one. It knows the
//! contract as any client does, and nothing of what is behind it.

mod amount;
mod audit;
mod billing;
mod cache;
mod client;
mod failure;
mod health;
mod json;
mod key;
mod manual;
mod output;
mod plot;
mod quota;
mod resume;
mod serve;
mod server_info;
mod session;
mod settings;
mod state;
mod tenant;
mod tls;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::client::Global;

/// A gRPC control plane that gives every tenant its own cache on one shared Redis.
#[derive(Debug, Parser)]
#[command(
    name = "riptide-persistence",
    version = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("RIPTIDE_COMMIT"), ")"),
    after_help = "Exit codes:\n  \
        0  done\n  \
        1  refused or failed, a bad configuration included\n  \
        2  wrong usage\n  \
        3  not found, or a cache miss\n  \
        4  no valid API key, or one that may not do this\n  \
        5  unavailable, not serving, or no answer in time"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Serve),
    /// Create, read, change and remove tenants.
    #[command(subcommand)]
    Tenant(Box<tenant::Command>),
    /// Create, list, rotate and revoke a tenant's API keys; make and rotate the
    /// service's master keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Read, write, list, warm and flush cache entries.
    #[command(subcommand)]
    Cache(cache::Command),
    /// Set what a tenant may use, and ask whether it may use more.
    #[command(subcommand)]
    Quota(quota::Command),
    /// Create, read, list, touch and end the sessions of a tenant's users.
    #[command(subcommand)]
    Session(Box<session::Command>),
    /// Export what all tenants owe.
    #[command(subcommand)]
    Billing(billing::Command),
    /// Watch a fleet: its traffic, errors, hits, health, and what tenants use.
    Top(top::Top),
    /// List what was asked for, by whom, and how it ended; verify that nothing of it was
    /// changed.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Ask whether the server and its components serve; fit for a probe.
    Health(health::Health),
    /// Tell whom the API key belongs to and what it may do.
    Whoami,
    /// Tell what the server is and what it allows.
    Info,
    /// Check the settings `serve` would use, print them, or compare them with those of
    /// a running server.
    #[command(subcommand)]
    Config(settings::Command),
    /// Let a server read its configuration anew.
    #[command(subcommand)]
    State(state::Command),
    /// Make certificates for development.
    #[command(subcommand)]
    Tls(tls::Command),
    /// Print a script that lets a shell complete these commands and their options.
    Completions(manual::Completions),
    /// Print the manual page, or write one for each command.
    Man(manual::Manual),
}

/// The commands with their options, as `--help` tells them.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the arguments of this process say; the exit code is the answer.
pub fn run() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let done = match command {
        Command::Serve(serve) => serve.run(&global),
        Command::Config(command) => command.run(&global),
        Command::Tls(command) => command.run(&global),
        Command::Tenant(command) => client::run(command.run(&global)),
        Command::Key(command) => client::run(command.run(&global)),
        Command::Cache(command) => client::run(command.run(&global)),
        Command::Quota(command) => client::run(command.run(&global)),
        Command::Session(command) => client::run(command.run(&global)),
        Command::Billing(command) => client::run(command.run(&global)),
        Command::Audit(command) => client::run(command.run(&global)),
        Command::Health(health) => client::run(health.run(&global)),
        Command::Top(top) => client::run(top.run(&global)),
        Command::Whoami => client::run(server_info::whoami(&global)),
        Command::State(command) => client::run(command.run(&global)),
        Command::Info => client::run(server_info::info(&global)),
        Command::Completions(completions) => completions.run(self::command()),
        Command::Man(manual) => manual.run(self::command(), &global),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}
