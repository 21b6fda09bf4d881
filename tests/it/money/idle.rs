//! What metering costs a replica: as many calls of the store a second as there are
//! tenants that call, however many there are. It does not know how fast they are.
