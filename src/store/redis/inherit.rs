//! A space that goes on from where another ended: what inherit.lua is given. It does
//! not know why it does.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Redis,
    fault::Fault,
    keys, meters, reply,
    state::{halves, put_opening},
    wire::{self, Answer},
};
use crate::store::{Batch, Commit, Error, Inheritance, Opening, Result, Space, Step, Unit, View};

impl Redis {
    /// Takes [`Step::Inherit`].
    pub(super) async fn inherit(
        &self,
        space: &Space,
        view: Option<View>,
        inheritance: &Inheritance,
    ) -> Result<Commit> {
        let script = &self.shared.scripts.inherit;
        let answer = self
            .pool
            .script(script, keys::counters(space), args(view, inheritance))
            .await
            .map_err(Fault::of_commit)?;
        let unreadable = || Error::Corrupt("the inherit script answered no text".into());
        let answer = reply::bulk(answer).ok_or_else(unreadable)?;
        let batch = Batch {
            step: Some(Step::Inherit(Box::default())),
            ..Batch::default()
        };
        match wire::answer(&answer, &batch, self.shared.exact())? {
            Answer::Commit(commit) => Ok(commit),
            Answer::Again => Err(unreadable()),
        }
    }
}

/// What is inherited, and the pages of openings by their names.
fn args(view: Option<View>, inheritance: &Inheritance) -> Vec<Bytes> {
    let mut head = BytesMut::new();
    let seen = view.unwrap_or_default();
    head.put_u8(view.is_some().into());
    head.put_uint(seen.epoch, 6);
    head.put_uint(seen.generation, 6);
    head.put_uint(inheritance.version, 7);
    let heritage = inheritance.meters.clone().unwrap_or_default();
    head.put_u8(inheritance.meters.is_some().into());
    let days = &heritage.days;
    let (high, low) = halves(days.last.byte_ms);
    head.put_uint(days.last.at_ms, 6);
    head.put_uint(high, 6);
    head.put_uint(low, 6);
    head.put_uint(days.last.operations, 7);
    head.put_u64(days.last.bytes);
    head.put_uint(days.held_bytes, 7);
    head.put_uint(days.now_ms, 6);
    head.put_uint(heritage.expired, 6);
    let mut args = vec![head.freeze()];
    for (unit, meters) in [
        (Unit::Minute, &heritage.minutes),
        (Unit::Hour, &heritage.hours),
        (Unit::Day, &heritage.days),
    ] {
        let page = |opening: &Opening| opening.start_ms / unit.ms() / meters::PAGE;
        for openings in meters
            .openings
            .chunk_by(|one, next| page(one) == page(next))
        {
            let Some(number) = openings.first().map(page) else {
                continue;
            };
            let mut name = BytesMut::from(meters::mark(unit));
            name.put_slice(number.to_string().as_bytes());
            let mut content = BytesMut::new();
            for opening in openings {
                put_opening(&mut content, opening);
            }
            args.extend([name.freeze(), content.freeze()]);
        }
    }
    args
}
