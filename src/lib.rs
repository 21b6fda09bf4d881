//! A gRPC control plane that gives every tenant of a platform its own cache,
//! API keys and limits on one shared Redis, or on an embedded store.
//!
//! The modules in reading order: [`config`] is what an operator sets, [`metrics`] what one is told, [`server`]
//! puts everything together, [`grpc`] turns calls into domain calls, [`tenant`]
//! admits them, [`cache`] does the work, [`state`] keeps sessions, holds what a server
//! is set up with and takes what is kept elsewhere, [`codec`] shapes what is stored, and
//! [`store`] keeps it. [`client`] is the other end: what calls the service from Rust.

pub mod config;
pub mod metrics;
pub mod telemetry;
pub mod trace;

pub mod server;

pub mod client;

pub mod cli;

pub mod grpc;

pub mod tenant;

pub mod cache;

pub mod state;

pub mod codec;

pub mod store;

pub mod error;
pub mod histogram;
pub mod moment;
pub mod random;
mod tls;

/// The messages, servers and clients generated from `proto/`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub
)]
pub mod proto {
    /// `riptide.persistence.v1`.
    pub mod v1 {
        tonic::include_proto!("riptide.persistence.v1");

        /// The descriptors of the package and all it imports, for reflection.
        pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    }
}
