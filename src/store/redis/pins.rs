//! Pins of spaces: begun, kept alive, ended. It does not know how what was pinned is
//! read.
//!
//! A pin lies behind the state of its space (format 5), so that commit.lua and
//! reclaim.lua learn of it without another command, and a space that is not pinned
//! pays nothing: id (8 bytes), the last version at its moment (7) and the generation
//! (6), until when it lasts and for how long after each read (6, 6), how many bytes
//! may be kept for it and how many are (7, 7), and whether the head of a touched
//! record is among them (1).
//!
//! What is kept (keep.lua) has keys of its own, beginning with the pin's: a list, and
//! for each record that was replaced or removed the record itself under its place in
//! the list, for each that was touched its former head. They end by themselves, one
//! lifetime after the pin would, so a replica that is killed leaves nothing for long.

use bytes::Bytes;
use fred::types::{ClusterHash, Resp3Frame};

use super::{
    Redis,
    fault::{self, Fault},
    keys, reply,
    script::Script,
    state::{STATE_BYTES, State},
};
use crate::store::{Keep, Pin, Pinning, Result, Space};

/// What one call looks at of what is kept, at most.
const PIECE: u64 = 128;
/// Keys that one command removes, at most: values may be large.
const REMOVED: usize = 16;

impl Redis {
    /// See [`crate::store::Store::pin`].
    pub(super) async fn begin_pin(&self, space: &Space, keep: Keep) -> Result<Pinning> {
        let id = crate::random::BASE32.encode(&crate::random::bytes::<5>());
        let id: [u8; 8] = id.as_bytes().try_into().unwrap_or_default();
        let args = [
            Bytes::copy_from_slice(&id),
            number(life_ms(keep)),
            number(keep.copies_bytes.min(1 << 52)),
        ];
        loop {
            let answer = self
                .pool
                .script(
                    &self.shared.scripts.pin,
                    keys::counters(space),
                    args.clone(),
                )
                .await;
            let unreadable = || fault::corrupt("the pin script's answer is unreadable");
            let answer = reply::bulk(answer.map_err(Fault::of_commit)?).ok_or_else(unreadable)?;
            let time = |at: usize| {
                let time = answer.get(at..at + 6)?;
                Some(time.iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte)))
            };
            return match answer.first() {
                Some(b'G') => Ok(Pinning::Gone),
                Some(b'M') => {
                    self.reap(space).await?;
                    continue;
                }
                Some(b'T') => Ok(Pinning::Taken {
                    until_ms: time(1).ok_or_else(unreadable)?,
                }),
                Some(b'P') => {
                    let state = answer.get(7..7 + STATE_BYTES).ok_or_else(unreadable)?;
                    let state = State::read(Some(state))?;
                    Ok(Pinning::Pinned(Pin {
                        space: space.clone(),
                        view: state.view,
                        usage: state.usage(self.shared.exact()),
                        version: state.version,
                        at_ms: time(1).ok_or_else(unreadable)?,
                        keep,
                        id,
                    }))
                }
                _ => Err(unreadable()),
            };
        }
    }

    /// Lets a pin last anew from now; false where it is lost.
    pub(super) async fn renew_pin(&self, pin: &Pin) -> Result<bool> {
        let mut from = 0;
        loop {
            let args = [id(pin), number(from), number(from + PIECE - 1)];
            let script = &self.shared.scripts.renew;
            let all = vec![keys::state(&pin.space)];
            let answer = self.ask_of_pin(script, all, args.into()).await?;
            let kept = answer.as_ref().and_then(reply::number);
            let Some(Ok(kept)) = kept.map(u64::try_from) else {
                return Ok(false);
            };
            from += PIECE;
            if from >= kept {
                return Ok(true);
            }
        }
    }

    /// Runs a script on a pin; nothing where its slot is on its way to another server:
    /// then the pin is lost, and no walk over others is to wait for it.
    pub(super) async fn ask_of_pin(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<Option<Resp3Frame>> {
        match self.pool.script(script, keys, args).await {
            Ok(answer) => Ok(Some(answer)),
            Err(Fault::Moving) => Ok(None),
            Err(fault) => Err(fault.of_read()),
        }
    }

    /// See [`crate::store::Store::unpin`].
    pub(super) async fn end_pin(&self, pin: &Pin) -> Result<()> {
        let answer = self
            .pool
            .script(
                &self.shared.scripts.unpin,
                vec![keys::state(&pin.space)],
                [id(pin)],
            )
            .await;
        answer.map_err(Fault::of_commit)?;
        let list = keys::kept(&pin.space, &pin.id);
        loop {
            // From the end on, so that places stay what they are.
            let last = [
                list.clone(),
                Bytes::from((-(PIECE as i64)).to_string()),
                Bytes::from_static(b"-1"),
            ];
            let names = self.at(&list, "LRANGE", &last).await?;
            let names: Vec<Bytes> = reply::array(names)?
                .into_iter()
                .filter_map(reply::bulk)
                .collect();
            if names.is_empty() {
                return Ok(());
            }
            let length = self.at(&list, "LLEN", std::slice::from_ref(&list)).await?;
            let length = reply::number(&length).and_then(|length| u64::try_from(length).ok());
            let first = length
                .unwrap_or_default()
                .saturating_sub(names.len() as u64);
            let keys: Vec<Bytes> = names
                .iter()
                .zip(first..)
                .map(|(name, place)| match name.split_first() {
                    Some((b't', name)) => keys::kept_head(&list, name),
                    _ => keys::kept_record(&list, place),
                })
                .collect();
            for keys in keys.chunks(REMOVED) {
                self.at(&list, "UNLINK", keys).await?;
            }
            let rest = [
                list.clone(),
                Bytes::from_static(b"0"),
                Bytes::from((-(names.len() as i64) - 1).to_string()),
            ];
            self.at(&list, "LTRIM", &rest).await?;
        }
    }

    /// Runs a command on keys that lie where this one does.
    pub(super) async fn at(
        &self,
        key: &Bytes,
        name: &'static str,
        args: &[Bytes],
    ) -> Result<Resp3Frame> {
        let hash = ClusterHash::from(&key[..]);
        let answer = self.pool.command(name, hash, args).await;
        answer.map_err(Fault::of_read)
    }
}

/// How long a pin lasts after it was renewed. It is renewed when a quarter of its time
/// has passed, so that each read counts and few have to write.
fn life_ms(keep: Keep) -> u64 {
    keep.for_ms + keep.for_ms.div_ceil(4)
}

pub(super) fn id(pin: &Pin) -> Bytes {
    Bytes::copy_from_slice(&pin.id)
}

pub(super) fn number(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}
