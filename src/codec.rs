//! The shape of a stored cache entry: a frame around the value, compressed
//! where that pays, and sealed where its tenant's entries are. It does not know
//! where frames are kept, nor the version and expiry that the store keeps beside
//! each of them.

pub mod compress;
pub mod frame;
pub mod seal;
mod xaes;

pub use frame::{Entry, Frame, HEAD_BYTES, Head};
pub use seal::{Keyring, Place};
