//! The permits of a rate, moment by moment.
