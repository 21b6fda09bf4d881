//! A page of what was pinned: reads what was found, whole and as it was. It does not
//! know how it was found.

use std::collections::HashMap;

use bytes::Bytes;
use fred::types::Resp3Frame;
use futures::future;

use super::{
    super::{
        Redis, keys,
        pins::{id, number},
        reply,
        wire::Head,
    },
    AT_ONCE,
    walk::{Found, Walk},
};
use crate::store::{HEAD_BYTES, Key, PINNED_PAGE_BYTES, Pin, PinnedRecord, Record, Result, Table};

/// Records asked for by one script, at most.
const BY_ONE: usize = 32;
/// Records that are asked for at once, of all pins: whoever else calls waits until Redis
/// has read them, and what is read here can wait.
const BURST: usize = 32;
/// Bytes of a record that a script answers, at most; and of all of them, about.
const PIECE: u64 = 32 << 10;
const ANSWER: u64 = 64 << 10;
/// Bytes that one command reads of the rest of a large record.
const LARGE_PIECE: u64 = 256 << 10;

/// A page that is being filled.
pub(super) struct Page<'a> {
    pub(super) pins: &'a [Pin],
    pub(super) tables: &'a [Table],
    pub(super) spaces: HashMap<&'a str, usize>,
    pub(super) items: Vec<PinnedRecord>,
    pub(super) bytes: usize,
    pub(super) limit: usize,
}

impl Page<'_> {
    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= self.limit || self.bytes >= PINNED_PAGE_BYTES
    }

    /// Whose a record is, and its key, if it is one that is asked for.
    pub(super) fn key(&self, name: &Bytes) -> Option<(usize, Key)> {
        let (space, generation, table, path) = keys::told(name)?;
        let at = *self.spaces.get(space)?;
        let pin = self.pins.get(at)?;
        let asked = self.tables.contains(&table)
            && !path.is_empty()
            && (!table.generational() || generation == pin.view.generation);
        asked.then(|| (at, Key::new(table, Bytes::copy_from_slice(path))))
    }
}

impl Redis {
    /// Reads some of what was found.
    pub(super) async fn read_pending(&self, page: &mut Page<'_>, walk: &mut Walk) -> Result<()> {
        let room = AT_ONCE.min(page.limit - page.items.len());
        let rest = walk.pending.split_off(room.min(walk.pending.len()));
        let found = std::mem::replace(&mut walk.pending, rest);
        let mut by_pin: Vec<Vec<(Found, Key)>> = vec![Vec::new(); page.pins.len()];
        for found in found {
            if let Some((at, key)) = page.key(&found.name)
                && !walk.is_lost(at)
                && let Some(mine) = by_pin.get_mut(at)
            {
                mine.push((found, key));
            }
        }
        let mut pieces = Vec::new();
        for (at, mine) in by_pin.into_iter().enumerate() {
            let mut mine = mine.into_iter().peekable();
            while mine.peek().is_some() {
                pieces.push((at, mine.by_ref().take(BY_ONE).collect::<Vec<_>>()));
            }
        }
        let mut shown = Vec::with_capacity(pieces.len());
        let mut rest = &pieces[..];
        while !rest.is_empty() {
            let (burst, later) = rest.split_at(burst(rest));
            let reads = burst.iter().filter_map(|(at, piece)| {
                let pin = page.pins.get(*at)?;
                Some(self.show_pinned(pin, piece, PIECE))
            });
            shown.extend(future::try_join_all(reads).await?);
            rest = later;
        }
        for ((at, piece), shown) in pieces.into_iter().zip(shown) {
            let Some(shown) = shown else {
                walk.lose(at);
                continue;
            };
            let mut shown = shown.into_iter();
            for (found, key) in piece {
                match shown.next() {
                    // The answer had no room for it, or the page has none.
                    None => walk.pending.push(found),
                    Some(Some(_)) if page.is_full() => walk.pending.push(found),
                    Some(None) => {}
                    Some(Some(shown)) => self.take(page, at, found, key, shown).await?,
                }
            }
        }
        Ok(())
    }

    /// Takes a record to the page, if its time is not over.
    async fn take(
        &self,
        page: &mut Page<'_>,
        at: usize,
        found: Found,
        key: Key,
        (mut stored, length): (Bytes, u64),
    ) -> Result<()> {
        let head = Head::read(&stored)?;
        if !head.alive(self.shared.clock.now_ms()) {
            return Ok(());
        }
        if length > stored.len() as u64
            && let Some(pin) = page.pins.get(at)
        {
            let Some(whole) = self.whole(pin, &found, &key, stored, length).await? else {
                return Ok(());
            };
            stored = whole;
        }
        page.bytes += stored.len();
        let metered = key.table.metered();
        page.items.push(PinnedRecord {
            pin: at,
            key,
            record: Record {
                version: head.version,
                expire_ms: (head.expire_ms > 0).then_some(head.expire_ms),
                value: stored.slice(HEAD_BYTES as usize..),
            },
            counts_until_ms: (metered && head.bucket_end_ms > 0).then_some(head.bucket_end_ms),
        });
        Ok(())
    }

    /// The rest of a large record; nothing where it has changed meanwhile, and so is
    /// among what is kept, or has ended.
    async fn whole(
        &self,
        pin: &Pin,
        found: &Found,
        key: &Key,
        beginning: Bytes,
        length: u64,
    ) -> Result<Option<Bytes>> {
        let stored = stored_at(pin, found);
        let mut whole = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        whole.extend_from_slice(&beginning);
        while (whole.len() as u64) < length {
            let from = whole.len() as u64;
            let args = [
                stored.clone(),
                number(from),
                number(length.min(from + LARGE_PIECE) - 1),
            ];
            let piece = reply::bulk(self.at(&stored, "GETRANGE", &args).await?);
            let Some(piece) = piece.filter(|piece| !piece.is_empty()) else {
                return Ok(None);
            };
            whole.extend_from_slice(&piece);
        }
        // A version names a value, so the pieces are of one where it is the same still.
        let again = [(found.clone(), key.clone())];
        let again = self.show_pinned(pin, &again, HEAD_BYTES).await?;
        let same = again
            .and_then(|again| again.into_iter().next().flatten())
            .is_some_and(|(again, now)| {
                now == length
                    && again
                        .get(1..8)
                        .is_some_and(|version| whole.get(1..8) == Some(version))
            });
        Ok(same.then(|| whole.into()))
    }

    /// The beginnings of records as they were, and their lengths, as many as one
    /// answer has room for; nothing where the pin is lost.
    async fn show_pinned(
        &self,
        pin: &Pin,
        found: &[(Found, Key)],
        most_bytes: u64,
    ) -> Result<Option<Vec<Option<(Bytes, u64)>>>> {
        let beginning = keys::all(&pin.space).len();
        let mut all = vec![keys::state(&pin.space)];
        let mut args = vec![id(pin), number(most_bytes), number(ANSWER)];
        for (found, _) in found {
            all.push(stored_at(pin, found));
            args.push(found.name.slice(beginning.min(found.name.len())..));
        }
        let script = &self.shared.scripts.pinned;
        let Some(Resp3Frame::Array { data, .. }) = self.ask_of_pin(script, all, args).await? else {
            return Ok(None);
        };
        let mut parts = data.into_iter();
        let mut shown = Vec::with_capacity(found.len());
        while let (Some(stored), Some(length)) = (parts.next(), parts.next()) {
            let stored = reply::bulk(stored).filter(|stored| !stored.is_empty());
            let length = reply::number(&length).map_or(0, i64::unsigned_abs);
            shown.push(stored.map(|stored| (stored, length)));
        }
        Ok(Some(shown))
    }
}

/// How many pieces are asked for at once, of these: one, and what is no more with it than
/// [`BURST`] records.
fn burst<T>(pieces: &[(usize, Vec<T>)]) -> usize {
    let mut records = 0;
    let fit = pieces.iter().take_while(|(_, piece)| {
        records += piece.len();
        records <= BURST
    });
    fit.count().max(1).min(pieces.len())
}

/// Where a record that was found is stored.
fn stored_at(pin: &Pin, found: &Found) -> Bytes {
    match found.place {
        None => found.name.clone(),
        Some(place) => keys::kept_record(&keys::kept(&pin.space, &pin.id), place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_piece_or_as_many_as_have_few_records() {
        let pieces = |sizes: &[usize]| -> Vec<(usize, Vec<()>)> {
            sizes.iter().map(|size| (0, vec![(); *size])).collect()
        };
        for (sizes, expected) in [
            (&[][..], 0),
            (&[BY_ONE], 1),
            (&[BY_ONE, 1], 1),
            (&[1, 1, 1], 3),
            (&[1; 100], BURST),
            (&[20, 12, 1], 2),
            (&[BURST + 1, 1], 1),
        ] {
            assert_eq!(burst(&pieces(sizes)), expected, "{sizes:?}");
        }
    }
}
