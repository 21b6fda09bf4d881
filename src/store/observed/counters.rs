//! How often each method of the port was called. It does not know what came of the
//! calls.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counted {
    ($($method:ident)*) => {
        /// How often a store was called, by method. Grows only.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub(super) $method: AtomicU64,)*
        }

        impl Counters {
            /// The counts now.
            pub fn calls(&self) -> Calls {
                Calls {
                    $($method: self.$method.load(Ordering::Relaxed),)*
                }
            }
        }

        /// Calls of each method of the port, as counted at one time.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub struct Calls {
            $(pub $method: u64,)*
        }

        impl Calls {
            /// What came on top of an earlier count.
            #[must_use]
            pub fn since(self, earlier: Self) -> Self {
                Self {
                    $($method: self.$method.saturating_sub(earlier.$method),)*
                }
            }
        }
    };
}

counted!(
    read commit list usage meters tally rows lease audit reclaim pin pinned unpin changes notes
    ping close
);
