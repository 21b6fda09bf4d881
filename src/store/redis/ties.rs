//! How a handle is tied to Redis at this moment. It does not know how connections are made.

use super::{Redis, tracking::Tracking};
use crate::store::{Connections, Ties};

/// What connections are for: the commands of calls, the feed of changes, and being told of
/// changes to what was read.
const ROLES: [&str; 3] = ["calls", "feed", "tracking"];

impl Redis {
    /// See [`crate::store::Store::ties`].
    pub(super) fn tied(&self) -> Ties {
        let tracking = self.tracking.as_ref();
        let counts = [
            self.pool.connections(),
            self.feed.connections(),
            tracking.map_or([0; 2], Tracking::connections),
        ];
        let connections = ROLES.into_iter().zip(counts);
        Ties {
            vouches: tracking.is_some_and(Tracking::vouches),
            connections: connections
                .map(|(role, [open, remade])| Connections { role, open, remade })
                .collect(),
        }
    }
}
