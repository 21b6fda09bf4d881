//! How many calls are in flight over all connections, and when there are too
//! many. It does not know which calls are exempt.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::error::{Error, Result};

/// The calls in flight, of a whole server.
#[derive(Clone, Debug)]
pub struct InFlight {
    count: Arc<AtomicUsize>,
    max: usize,
}

impl InFlight {
    /// None yet, and at most `max`.
    pub fn new(max: usize) -> Self {
        Self {
            count: Arc::default(),
            max,
        }
    }

    /// How many there are now.
    pub fn now(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts a call for as long as the answer lives; [`Error::Overloaded`]
    /// where there are `max` already.
    pub fn enter(&self) -> Result<Entered> {
        let entered = Entered(self.count.clone());
        if self.count.fetch_add(1, Ordering::Relaxed) < self.max {
            Ok(entered)
        } else {
            Err(Error::Overloaded)
        }
    }
}

/// A call in flight.
#[derive(Debug)]
pub struct Entered(Arc<AtomicUsize>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn calls_beyond_the_limit_are_shed_until_one_ends() {
        let calls = InFlight::new(2);
        let first = calls.enter().unwrap();
        let _second = calls.enter().unwrap();
        for _ in 0..3 {
            assert_eq!(calls.enter().unwrap_err(), Error::Overloaded);
        }
        drop(first);
        assert!(calls.enter().is_ok());
    }
}
