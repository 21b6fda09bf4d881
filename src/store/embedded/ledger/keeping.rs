//! Keeps what lies beside the records, with an end of its own. It does not know
//! what it holds.

use redb::ReadableTable;

use super::{
    super::{
        super::{MAX_EXPIRE_MS, Space, bucket_ms},
        fault::{Fault, Result},
        layout::{self, Head},
        state::State,
    },
    LOST_VERSIONS, Ledger, split,
};

impl Ledger<'_> {
    /// What is kept at a suffix now.
    pub(super) fn kept(
        &self,
        prefix: &[u8],
        suffix: &[u8],
        now_ms: u64,
    ) -> Result<Option<Vec<u8>>> {
        let stored = self.records.get(layout::join(prefix, suffix).as_slice())?;
        let Some(stored) = stored else {
            return Ok(None);
        };
        let (head, value) = split(stored.value())?;
        Ok(head.alive(now_ms).then(|| value.to_vec()))
    }

    /// Keeps a value for so long from now; `None` is for ever.
    pub(super) fn keep(
        &mut self,
        prefix: &[u8],
        suffix: &[u8],
        value: &[u8],
        keep_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<()> {
        let (expire_ms, end_ms) = keep_ms.map_or((0, 0), |keep_ms| {
            let expire_ms = now_ms.saturating_add(keep_ms).min(MAX_EXPIRE_MS);
            (expire_ms, expire_ms.next_multiple_of(bucket_ms(keep_ms)))
        });
        let head = Head {
            // It has none; 0 is no head.
            version: 1,
            expire_ms,
            end_ms,
        };
        let stored = layout::join(&head.encode(), value);
        let before = self
            .records
            .insert(layout::join(prefix, suffix).as_slice(), stored.as_slice())?;
        let before = before.map(|before| split(before.value()).map(|(head, _)| head));
        let before = before.transpose()?.map_or(0, |head| head.end_ms);
        if before != end_ms {
            self.end_at(prefix, suffix, before, end_ms)?;
        }
        Ok(())
    }

    /// Lets go of what is kept at a suffix.
    pub(super) fn let_go(&mut self, prefix: &[u8], suffix: &[u8]) -> Result<()> {
        let before = self
            .records
            .remove(layout::join(prefix, suffix).as_slice())?;
        let before = before.map(|before| split(before.value()).map(|(head, _)| head));
        let before = before.transpose()?.map_or(0, |head| head.end_ms);
        self.end_at(prefix, suffix, before, 0)
    }

    fn end_at(&mut self, prefix: &[u8], suffix: &[u8], before: u64, after: u64) -> Result<()> {
        if before > 0 {
            self.expiries
                .remove(layout::expiry(prefix, before, suffix).as_slice())?;
        }
        if after > 0 {
            self.expiries
                .insert(layout::expiry(prefix, after, suffix).as_slice(), ())?;
        }
        Ok(())
    }

    /// The state of a space that was not removed.
    pub(super) fn living(&self, space: &Space) -> Result<State> {
        let state = self.state(space)?;
        if state.gone_ms > 0 {
            return Err(Fault::Misuse("the space was removed".into()));
        }
        Ok(state)
    }

    /// Remembers the state of a space that something is kept in, so that what is
    /// over in it is found. It stays as unwritten as it was.
    pub(super) fn enter(&mut self, space: &Space, mut state: State) {
        self.begin_run(&mut state);
        self.states.insert(space.clone(), state);
    }

    /// Leaves a gap in the versions where another run of the store gave the last.
    pub(super) fn begin_run(&self, state: &mut State) {
        if state.run == self.run {
            return;
        }
        // What an earlier run gave last may be lost, even the whole space.
        let lost = if state.sequence > 0 { LOST_VERSIONS } else { 0 };
        let earlier = self.run.saturating_sub(1) * LOST_VERSIONS;
        state.sequence = (state.sequence + lost).max(earlier);
        state.run = self.run;
    }
}
