//! Periods are closed once, whatever dies meanwhile. It does not know the bills'
//! arithmetic.
