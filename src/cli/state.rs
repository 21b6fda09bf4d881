//! `state`: what a server is set up with and holds. It knows no rule of it; the
//! server does.

mod archive;
mod checkpoint;
mod progress;
mod reload;
mod restore;

use clap::Subcommand;

use super::{client::Global, failure::Failure};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Let the server read its configuration anew, and show what became of it: exit
    /// code 1 where it was rejected.
    Reload(reload::Reload),
    /// What tenants held at a moment, kept elsewhere.
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
}

impl Command {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Reload(reload) => reload.run(global).await,
            Self::Checkpoint(command) => command.run(global).await,
        }
    }
}
