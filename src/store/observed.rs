//! A decorator
