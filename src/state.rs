//! The state of the service: its configuration, as it is in force, the sessions of its
//! tenants' users, and what outlives a moment, checkpoints of tenants in an object store.
//! It does not know how calls arrive, nor what a cache entry is.

pub mod archive;
pub mod checkpoint;
pub mod objects;
mod reload;
pub mod restore;
pub mod session;

pub use reload::{Asked, Configuration, InForce, Outcome, Reload, Trigger, Watch};
