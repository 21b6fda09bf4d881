//! A gRPC control plane that gives every tenant of a platform its own cache,
//! sessions, limits and bill on one shared Redis.

pub mod error;
pub mod random;
pub mod store;

/// The messages, servers and clients generated from `proto/`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::indexing_slicing, unreachable_pub)]
pub mod proto {
    /// `riptide.persistence.v1`.
    pub mod v1 {
        tonic::include_proto!("riptide.persistence.v1");

        /// The descriptors of the package and all it imports, for reflection.
        pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    }
}
