//! The meters of a space as they are stored: the state, and pages of openings. It
//! does not know what moved them.

use bytes::Bytes;

use super::{
    Redis,
    fault::{self, Fault},
    keys, reply,
    state::{self, State},
};
use crate::store::{Meters, Result, Space, Unit};

/// Openings that a page of state.lua has room for.
pub(super) const PAGE: u64 = 60;

impl Redis {
    /// See [`crate::store::Store::meters`].
    pub(super) async fn read_meters(&self, space: &Space, unit: Unit) -> Result<Meters> {
        let number = |number: u64| Bytes::from(number.to_string());
        let args = [
            Bytes::from_static(mark(unit)),
            number(unit.ms() * PAGE),
            number(unit.kept().div_ceil(PAGE)),
        ];
        loop {
            let all = vec![keys::state(space), keys::openings(space)];
            let answer = self
                .pool
                .script(&self.shared.scripts.meters, all, args.clone())
                .await
                .map_err(Fault::of_read)?;
            let unreadable = || fault::corrupt("the meters script's answer is unreadable");
            let mut parts = reply::array(answer)?.into_iter();
            let state = State::read(parts.next().and_then(reply::bulk).as_deref())?;
            let now_ms = parts.next().as_ref().and_then(reply::number);
            let now_ms = now_ms.ok_or_else(unreadable)?.unsigned_abs();
            let pages = parts.next().and_then(reply::bulk).ok_or_else(unreadable)?;
            if state.removed {
                return Ok(Meters {
                    now_ms,
                    ..Meters::default()
                });
            }
            // What has ended is uncounted first, so that the last move is after it.
            if state.due_ms > 0 && state.due_ms < now_ms {
                self.reap(space).await?;
                continue;
            }
            let mut openings = state::openings(&pages)?;
            openings.retain(|opening| opening.start_ms + unit.ms() * unit.kept() > now_ms);
            return Ok(Meters {
                last: state.last,
                held_bytes: state.held_bytes(),
                // A clock that was set back is behind the last move.
                now_ms: now_ms.max(state.last.at_ms),
                openings,
            });
        }
    }
}

/// A unit's mark in the names of pages. Never changes.
pub(super) fn mark(unit: Unit) -> &'static [u8] {
    match unit {
        Unit::Minute => b"m",
        Unit::Hour => b"h",
        Unit::Day => b"d",
    }
}
