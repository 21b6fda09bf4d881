//! What outlives a moment: checkpoints of tenants in an object store. It does not
//! know how calls arrive, nor what a cache entry is.

pub mod checkpoint;
pub mod objects;
