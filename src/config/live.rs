//! A part of the configuration that is replaced while it is in use. It does not
//! know who replaces it, nor when.

use std::{fmt, sync::Arc};

use arc_swap::{ArcSwap, Guard};

/// A value that all who hold it see replaced at once. Cheap to clone and to read:
/// no lock is taken, and nothing allocated.
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    /// The value in force. To be let go of soon: who needs it for longer takes
    /// [`Live::load_full`].
    pub fn load(&self) -> Guard<Arc<T>> {
        self.0.load()
    }

    /// The value in force, to be kept.
    pub fn load_full(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Puts another value in force.
    pub fn store(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

impl<T> From<T> for Live<T> {
    fn from(value: T) -> Self {
        Arc::new(value).into()
    }
}

impl<T> From<Arc<T>> for Live<T> {
    fn from(value: Arc<T>) -> Self {
        Self(Arc::new(ArcSwap::new(value)))
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load().fmt(f)
    }
}
