//! The process as its callers and operators meet it: one file a subject. It does
//! not know the services' own rules.

pub mod audit;
mod canaries;
mod collector;
mod descriptors;
mod drain;
mod emptied;
mod frozen;
mod health;
mod hostile;
mod killed;
mod limits;
mod logs;
mod metrics;
mod permissions;
mod port_calls;
mod replicas;
mod restarted;
mod sessions;
mod start;
mod surface;
mod tls;
mod traces;
mod warm_start;

pub use killed::{client, space};
