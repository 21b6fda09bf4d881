//! Meters that a space takes over from another. It does not know why it does.

use super::{
    super::{
        super::{Heritage, Unit},
        fault::Result,
        layout, metering,
        state::State,
    },
    Ledger, record_move,
};

impl Ledger<'_> {
    /// Replaces the meters of a space, and how they got there.
    pub(super) fn take_over(
        &mut self,
        prefix: &[u8],
        state: &mut State,
        heritage: &Heritage,
        now_ms: u64,
    ) -> Result<()> {
        let Heritage {
            minutes,
            hours,
            days,
            expired,
        } = heritage;
        for (unit, meters) in [
            (Unit::Minute, minutes),
            (Unit::Hour, hours),
            (Unit::Day, days),
        ] {
            let first = metering::ring(prefix, unit);
            let end = layout::beyond(&first);
            self.openings
                .retain_in(first.as_slice()..end.as_slice(), |_, _| false)?;
            for opening in &meters.openings {
                self.openings.insert(
                    metering::place(prefix, unit, opening.start_ms).as_slice(),
                    metering::encode_opening(opening).as_slice(),
                )?;
            }
        }
        state.reading = days.last;
        state.expired = *expired;
        // First to where the other was read, then over the gap, in which nothing was
        // held.
        for (at_ms, held_bytes) in [(days.now_ms, days.held_bytes), (now_ms, 0)] {
            if at_ms > state.reading.at_ms {
                record_move(&mut self.openings, prefix, state, held_bytes, at_ms)?;
            }
        }
        Ok(())
    }
}
