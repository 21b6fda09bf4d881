//! Leases permits of windows. It does not know what they permit.

use super::{
    super::{
        super::{Lease, Leased, Space},
        fault::{Fault, Result},
        layout::{self, Kind},
        window::Window,
    },
    Ledger,
};

impl Ledger<'_> {
    /// Leases permits; see [`Lease`].
    pub(in super::super) fn lease(
        &mut self,
        space: &Space,
        lease: &Lease,
        now_ms: u64,
    ) -> Result<Leased> {
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
