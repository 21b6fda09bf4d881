//! One test binary for everything that runs across modules or against real
//! processes. It does not know how a case is done; each module has its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]
#![allow(unreachable_pub, dead_code)]

mod authority;
mod cache;
mod cli;
mod config;
mod console;
mod deploy;
mod ledger;
mod money;
mod process;
mod redis;
mod redis_groups;
mod rpc;
mod sdk;
mod server;
mod staleness;
mod stampede;
mod store;
mod tenant;
mod tidy;
