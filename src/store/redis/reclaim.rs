//! Removes what can no longer be reached, a bounded piece a call. It does not know
//! why it cannot be reached.

use bytes::{BufMut, Bytes, BytesMut};
use fred::types::ClusterHash;

use super::{
    Redis,
    fault::Fault,
    keys::{self, Name},
    reply,
    scan::{CHUNK, Place, STEP},
    state::State,
    wire,
};
use crate::store::{Cursor, Reclaim, Reclaimed, Result, Space, Table};

/// What the script answers where buckets are due, which end sooner than now.
const REAP_FIRST: i64 = -2;

impl Redis {
    /// See [`crate::store::Store::reclaim`].
    pub(super) async fn reclaim_space(
        &self,
        space: &Space,
        what: Reclaim,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Reclaimed> {
        let stored = self
            .pool
            .command("GET", ClusterHash::FirstKey, &[keys::state(space)])
            .await;
        let stored = reply::bulk(stored.map_err(Fault::of_read)?);
        let state = State::read(stored.as_deref())?;
        // The mark of a removed space may have ended before its records did.
        let gone = state.removed || stored.is_none();
        let begun = after.is_some();
        let mut place = after
            .as_ref()
            .map(Place::read)
            .transpose()?
            .unwrap_or_default();
        let (beginning, version) = match &what {
            Reclaim::Orphans { below } => {
                place.generation = *below;
                let beginning = if gone {
                    keys::all(space)
                } else {
                    [&keys::all(space)[..], Table::Entry.mark().as_bytes(), b":"]
                        .concat()
                        .into()
                };
                (beginning, 0)
            }
            Reclaim::Below { prefix, version } => {
                if !begun {
                    place.generation = state.view.generation;
                }
                let records = keys::records(space, Table::Entry, place.generation);
                (Bytes::from([&records[..], prefix].concat()), *version)
            }
        };
        let orphans = matches!(what, Reclaim::Orphans { .. });
        let pattern = keys::pattern(&beginning);
        let (names, end) = self
            .step(space, &pattern, limit.clamp(1, STEP), &mut place)
            .await?;
        let mut candidates = Vec::new();
        for name in names {
            if !name.starts_with(&beginning) {
                continue;
            }
            let (metered, path_bytes) = match keys::read(space, &name) {
                Some(Name::Entry {
                    generation,
                    path_bytes,
                }) if gone || !orphans || generation < place.generation => (true, path_bytes),
                Some(Name::Record { table, path_bytes }) if gone => (table.metered(), path_bytes),
                Some(Name::Other) if gone => (false, 0),
                _ => continue,
            };
            candidates.push((name, metered, path_bytes));
        }
        let mut reclaimed = Reclaimed::default();
        let mut chunks = candidates.chunks(CHUNK).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let last = end && chunks.peek().is_none();
            if chunk.is_empty() && !(last && orphans) {
                break;
            }
            let mut all = keys::counters(space);
            let mut sizes = BytesMut::with_capacity(chunk.len() * 5);
            for (name, metered, path_bytes) in chunk {
                all.push(name.clone());
                sizes.put_u8((*metered).into());
                sizes.put_uint(*path_bytes as u64, 4);
            }
            let args = [
                wire::reclaim(orphans, last, place.generation, version),
                sizes.freeze(),
            ];
            let numbers = loop {
                let answer = self
                    .pool
                    .script(&self.shared.scripts.reclaim, all.clone(), args.clone())
                    .await
                    .map_err(Fault::of_read)?;
                let numbers: Vec<i64> = reply::array(answer)?
                    .iter()
                    .filter_map(reply::number)
                    .collect();
                if numbers.first() != Some(&REAP_FIRST) {
                    break numbers;
                }
                self.reap(space).await?;
            };
            match numbers[..] {
                [entries, bytes] if entries >= 0 => {
                    reclaimed.entries += entries.unsigned_abs();
                    reclaimed.bytes += bytes.unsigned_abs();
                }
                // The generation has moved on, and all of it is orphaned.
                _ => return Ok(reclaimed),
            }
            if chunks.peek().is_none() {
                break;
            }
        }
        reclaimed.next = (!end).then(|| place.write());
        Ok(reclaimed)
    }
}
