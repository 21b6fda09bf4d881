//! Leases: what is asked becomes the argument of lease.lua, and its answer is
//! read. It does not know who shares a window, or what a permit is for.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    Redis,
    fault::{self, Fault},
    keys, reply,
};
use crate::store::{Lease, Leased, Result, Space, slot_ms};

/// Beyond this Lua's numbers are no longer exact.
const EXACT: u64 = 1 << 53;

impl Redis {
    /// See [`crate::store::Store::lease`].
    pub(super) async fn lend(&self, space: &Space, lease: &Lease) -> Result<Leased> {
        let all = vec![keys::state(space), keys::window(space, &lease.window)];
        let answer = self
            .pool
            .script(&self.shared.scripts.lease, all, [argument(lease)])
            .await
            .map_err(Fault::of_commit)?;
        let answer = reply::bulk(answer).unwrap_or_default();
        if &answer[..] == b"G" {
            return Err(fault::removed());
        }
        read(&answer).ok_or_else(|| fault::corrupt("the lease script's answer is unreadable"))
    }
}

/// The argument of lease.lua.
fn argument(lease: &Lease) -> Bytes {
    let mut out = BytesMut::with_capacity(ARGUMENT_BYTES);
    out.put_uint(lease.limit.min(EXACT), 7);
    out.put_uint(lease.span_ms, 5);
    out.put_uint(slot_ms(lease.span_ms), 4);
    out.put_uint(lease.want.min(EXACT), 7);
    // More than the limit can be stays more than the limit.
    out.put_uint(lease.least.min(EXACT + 1), 7);
    out.put_uint(lease.share.clamp(1, EXACT), 7);
    out.put_uint(lease.hold_ms, 5);
    out.put_uint(lease.forced.min(EXACT), 7);
    let settle = lease.settle.unwrap_or_default();
    out.put_u8(lease.settle.is_some().into());
    out.put_uint(settle.until_ms.min((1 << 48) - 1), 6);
    out.put_uint(settle.used.min(EXACT), 7);
    out.put_uint(settle.unused.min(EXACT), 7);
    out.freeze()
}

/// Bytes that [`argument`] puts.
const ARGUMENT_BYTES: usize = 7 + 5 + 4 + 7 + 7 + 7 + 5 + 7 + 1 + 6 + 7 + 7;

/// Given, until when, counted, and the wait, with one more so that 0 is none.
const ANSWER_BYTES: usize = 7 + 6 + 7 + 7;

fn read(mut answer: &[u8]) -> Option<Leased> {
    if answer.len() != ANSWER_BYTES {
        return None;
    }
    Some(Leased {
        granted: answer.get_uint(7),
        until_ms: answer.get_uint(6),
        counted: answer.get_uint(7),
        retry_after_ms: answer.get_uint(7).checked_sub(1),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_has_the_length_the_script_reads() {
        let largest = Lease {
            window: "w".into(),
            limit: u64::MAX,
            span_ms: 31 * 86_400_000,
            want: u64::MAX,
            least: u64::MAX,
            share: u64::MAX,
            hold_ms: 86_400_000,
            forced: u64::MAX,
            settle: None,
        };
        for lease in [largest, Lease::default()] {
            assert_eq!(argument(&lease).len(), ARGUMENT_BYTES);
        }
    }

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        assert_eq!(read(&[0; ANSWER_BYTES - 1]), None);
        let mut answer = [0; ANSWER_BYTES];
        assert_eq!(read(&answer), Some(Leased::default()));
        answer[ANSWER_BYTES - 1] = 1;
        assert_eq!(read(&answer).unwrap().retry_after_ms, Some(0));
    }
}
