//! Leases permits of windows. It does not know what they permit.

use super::{
    super::{
        super::{Lease, Leased, Space, Unit},
        fault::{Fault, Result},
        layout::{self, Kind},
        window::Window,
    },
    Ledger,
};

/// The shortest and the longest span of a window.
const SPANS_MS: std::ops::RangeInclusive<u64> = 1_000..=31 * Unit::Day.ms();

impl Ledger<'_> {
    /// Leases permits; see [`Lease`].
    pub(in super::super) fn lease(
        &mut self,
        space: &Space,
        lease: &Lease,
        now_ms: u64,
    ) -> Result<Leased> {
        examine(lease)?;
        let prefix = layout::prefix(space);
        let state = self.living(space)?;
        let suffix = Kind::Window.suffix(&lease.window);
        let stored = self.kept(&prefix, &suffix, now_ms)?;
        let before = stored.map_or(Some(Window::default()), |stored| Window::decode(&stored));
        let before = before.ok_or_else(|| Fault::Damaged("a window of permits".into()))?;
        let mut window = before.clone();
        let leased = window.lease(lease, now_ms);
        if leased.granted == 0 && lease.forced == 0 && lease.settle.is_none() {
            return Ok(leased);
        }
        match window.ends_ms() {
            Some(ends_ms) => {
                let keep_ms = ends_ms.saturating_sub(now_ms);
                self.keep(&prefix, &suffix, &window.encode(), Some(keep_ms), now_ms)?;
            }
            None => self.let_go(&prefix, &suffix)?,
        }
        self.enter(space, state);
        Ok(leased)
    }
}

/// Refuses a lease that breaks the port's contract, whatever is stored.
fn examine(lease: &Lease) -> Result<()> {
    let misuse = |what: &str| Err(Fault::Misuse(what.into()));
    if lease.window.is_empty() {
        return misuse("a window has a name");
    }
    if !SPANS_MS.contains(&lease.span_ms) {
        return misuse("the span of a window is 1 s to 31 days");
    }
    if lease.least > lease.want {
        return misuse("the least that is of use is not more than is wanted");
    }
    if lease.share == 0 {
        return misuse("a share is a part of 1 at least");
    }
    if lease.hold_ms > lease.span_ms / 10 {
        return misuse("permits are held for a tenth of the span at most");
    }
    Ok(())
}
