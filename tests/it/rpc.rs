//! Every RPC end to end, over a real socket. It does not know how the domain
//! reaches its answers.

mod audit;
mod cache;
pub mod checkpoint;
pub mod configuration;
pub mod encryption;
mod groups;
mod rate;
pub mod restore;
pub mod session;
pub mod tenant;
