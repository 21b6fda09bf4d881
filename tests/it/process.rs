//! The process as its callers and operators meet it: one file a subject. It does
//! not know the services' own rules.

mod hostile;
mod permissions;
mod port_calls;
mod surface;
