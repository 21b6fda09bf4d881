//! Clients of whole servers: those that other languages' tools make of our protos, each
//! on its tour, and the one in Rust. It does not know what a tour calls; see `tests/sdk`.

mod client;
mod lists;
mod lost;
mod stage;
mod tls;
mod tours;
