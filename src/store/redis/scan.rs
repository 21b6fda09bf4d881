//! Walks over the keys of a space with SCAN, a bounded piece at a time: listing
//! entries, comparing the counters with them, removing what cannot be reached.
//! It does not know ordered tables, which have an index.

use std::collections::HashSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fred::types::{ClusterHash, Resp3Frame};

use super::{
    Redis, connection,
    fault::{self, Fault},
    keys::{self, Name},
    wire::{self, Head, State},
};
use crate::store::{
    Audit, Cursor, Error, HEAD_BYTES, Listed, Page, Query, Reclaim, Reclaimed, Result, Space,
    Table, Usage,
};

/// Keys that one SCAN looks at, at most: about a third of a millisecond.
const STEP: usize = 1000;
/// SCANs of one call, at most.
const STEPS: usize = 24;
/// Records that one script looks at, at most.
const CHUNK: usize = 128;

/// Where a walk stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    /// SCAN's cursor; 0 is both the beginning and the end.
    cursor: u64,
    /// The server the cursor belongs to.
    server: String,
    /// The generation the walk is about.
    generation: u64,
    /// Paths that were found and had no room on the page.
    pending: Vec<Bytes>,
}

impl Place {
    fn write(&self) -> Cursor {
        let mut out = BytesMut::new();
        out.put_u64(self.cursor);
        out.put_u64(self.generation);
        out.put_u16(u16::try_from(self.server.len()).unwrap_or_default());
        out.put_slice(self.server.as_bytes());
        for path in &self.pending {
            out.put_u32(u32::try_from(path.len()).unwrap_or_default());
            out.put_slice(path);
        }
        Cursor(out.freeze())
    }

    fn read(cursor: &Cursor) -> Result<Self> {
        Self::parse(cursor.0.clone())
            .ok_or_else(|| Error::Misuse("the cursor is not one of this listing".into()))
    }

    fn parse(mut from: Bytes) -> Option<Self> {
        let cursor = from.try_get_u64().ok()?;
        let generation = from.try_get_u64().ok()?;
        let server = usize::from(from.try_get_u16().ok()?);
        let server = (server <= from.len()).then(|| from.split_to(server))?;
        let server = String::from_utf8(server.to_vec()).ok()?;
        let mut pending = Vec::new();
        while !from.is_empty() {
            let length = usize::try_from(from.try_get_u32().ok()?).ok()?;
            pending.push((length <= from.len()).then(|| from.split_to(length))?);
        }
        Some(Self {
            cursor,
            server,
            generation,
            pending,
        })
    }
}

/// A record as the records script shows it.
struct Shown {
    stored: Bytes,
    stored_bytes: u64,
}

impl Redis {
    /// Looks at about `count` keys from the place on. True at the end.
    async fn step(
        &self,
        space: &Space,
        pattern: &Bytes,
        count: usize,
        place: &mut Place,
    ) -> Result<(Vec<Bytes>, bool)> {
        let hash = ClusterHash::from(&keys::state(space)[..]);
        let server = self.pool.link()?.place(&hash);
        if place.cursor != 0 && place.server != server {
            // The cursor means nothing on another server: begin anew.
            place.cursor = 0;
        }
        place.server = server;
        let args = [
            Bytes::from(place.cursor.to_string()),
            Bytes::from_static(b"MATCH"),
            pattern.clone(),
            Bytes::from_static(b"COUNT"),
            Bytes::from(count.to_string()),
        ];
        let answer = self
            .pool
            .command("SCAN", hash, &args)
            .await
            .map_err(Fault::of_read)?;
        let mut parts = connection::array(answer)?.into_iter();
        place.cursor = parts
            .next()
            .and_then(|cursor| connection::text(&cursor)?.parse().ok())
            .ok_or_else(|| fault::corrupt("SCAN answered no cursor"))?;
        let names = parts
            .next()
            .map(connection::array)
            .transpose()?
            .unwrap_or_default();
        Ok((
            names.into_iter().filter_map(connection::bulk).collect(),
            place.cursor == 0,
        ))
    }

    /// The beginnings of records, and the state with the first of them.
    async fn show(
        &self,
        space: &Space,
        names: &[Bytes],
        value_bytes: usize,
    ) -> Result<(State, Vec<Option<Shown>>)> {
        let last = Bytes::from(
            (HEAD_BYTES as usize - 1)
                .saturating_add(value_bytes)
                .min(i32::MAX as usize)
                .to_string(),
        );
        let mut state = None;
        let mut shown = Vec::with_capacity(names.len());
        let none: &[Bytes] = &[];
        let chunks = names.chunks(CHUNK).chain(names.is_empty().then_some(none));
        for chunk in chunks {
            let mut all = Vec::with_capacity(chunk.len() + 1);
            all.push(keys::state(space));
            all.extend(chunk.iter().cloned());
            let answer = self
                .pool
                .script(&self.shared.scripts.records, all, [last.clone()])
                .await;
            let mut parts = connection::array(answer.map_err(Fault::of_read)?)?.into_iter();
            let seen = State::read(parts.next().and_then(connection::bulk).as_deref())?;
            state.get_or_insert(seen);
            while let (Some(stored), Some(length)) = (parts.next(), parts.next()) {
                shown.push(self::shown(stored, &length));
            }
        }
        Ok((state.unwrap_or_default(), shown))
    }

    /// A page of entries, in no order.
    pub(super) async fn list_entries(&self, space: &Space, query: &Query) -> Result<Page> {
        let records = keys::records(space, Table::Entry, query.generation);
        let beginning: Bytes = [&records[..], &query.prefix].concat().into();
        let pattern = keys::pattern(&beginning);
        let mut place = query
            .after
            .as_ref()
            .map(Place::read)
            .transpose()?
            .unwrap_or_default();
        let mut found = std::mem::take(&mut place.pending);
        let mut seen: HashSet<Bytes> = found.iter().cloned().collect();
        // Only a walk that has begun can be at its end.
        let mut end = query.after.is_some() && place.cursor == 0;
        let (mut looked, mut matched) = (0, 0);
        for _ in 0..STEPS {
            if end || found.len() >= query.limit {
                break;
            }
            // Keys lie in the order of their hashes, so the share that matches is
            // much the same everywhere, and a page is filled without running over.
            let want = query.limit - found.len();
            let count = if looked == 0 {
                want
            } else {
                want.saturating_mul(looked) / (matched + 1)
            };
            let count = count.clamp(10, STEP);
            let (names, ended) = self.step(space, &pattern, count, &mut place).await?;
            looked += count;
            matched += names.len();
            end = ended;
            for name in names {
                if !name.starts_with(&beginning) {
                    continue;
                }
                if let Some(path) = keys::path(&name, &records)
                    && seen.insert(path.clone())
                {
                    found.push(path);
                }
            }
        }
        place.pending = found.split_off(query.limit.min(found.len()));
        let names: Vec<Bytes> = found
            .iter()
            .map(|path| [&records[..], path].concat().into())
            .collect();
        let (state, shown) = self.show(space, &names, query.value_bytes).await?;
        if state.removed {
            return Ok(Page {
                view: state.view,
                items: Vec::new(),
                next: None,
            });
        }
        let now_ms = self.shared.clock.now_ms();
        let mut items = Vec::with_capacity(found.len());
        for (path, shown) in found.into_iter().zip(shown) {
            let Some(shown) = shown else { continue };
            items.extend(listed(path, &shown, now_ms)?);
        }
        let next = (!end || !place.pending.is_empty()).then(|| place.write());
        Ok(Page {
            view: state.view,
            items,
            next,
        })
    }

    /// See [`crate::store::Store::audit`].
    pub(super) async fn audit_space(&self, space: &Space) -> Result<Audit> {
        let pattern = keys::pattern(&keys::all(space));
        let mut place = Place::default();
        let mut seen = HashSet::new();
        // Bytes, end of bucket, and the generation of each metered record.
        let mut records = Vec::new();
        loop {
            let server = place.server.clone();
            let (names, end) = self.step(space, &pattern, STEP, &mut place).await?;
            if !server.is_empty() && server != place.server {
                return Err(fault::unavailable("the server changed during the audit"));
            }
            let mut metered = Vec::new();
            for name in names {
                let (generation, path_bytes) = match keys::read(space, &name) {
                    Some(Name::Entry {
                        generation,
                        path_bytes,
                    }) => (Some(generation), path_bytes),
                    Some(Name::Record { table, path_bytes }) if table.metered() => {
                        (None, path_bytes)
                    }
                    _ => continue,
                };
                if seen.insert(name.clone()) {
                    metered.push((name, generation, path_bytes));
                }
            }
            let names: Vec<Bytes> = metered.iter().map(|(name, ..)| name.clone()).collect();
            let (_, shown) = self.show(space, &names, 0).await?;
            for ((_, generation, path_bytes), shown) in metered.into_iter().zip(shown) {
                let Some(shown) = shown else { continue };
                let head = Head::read(&shown.stored)?;
                records.push((
                    shown.stored_bytes + path_bytes as u64,
                    head.bucket_end_ms,
                    generation,
                ));
            }
            if end {
                break;
            }
        }
        // What has ended since it was seen is uncounted here, and the watermark
        // says what that was.
        let state = self.reap(space).await?;
        let mut found = Usage {
            exact: true,
            ..Usage::default()
        };
        for (bytes, bucket_end_ms, generation) in records {
            if state.removed
                || generation.is_some_and(|generation| generation != state.view.generation)
            {
                found.orphaned_bytes += bytes;
            } else if bucket_end_ms == 0 || bucket_end_ms > state.watermark_ms {
                found.entries += 1;
                found.bytes += bytes;
            }
        }
        Ok(Audit {
            counted: state.usage(self.shared.exact()),
            found,
        })
    }

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
        let stored = connection::bulk(stored.map_err(Fault::of_read)?);
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
            let mut all = vec![
                keys::state(space),
                keys::bucket_ends(space),
                keys::bucket_sums(space),
            ];
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
            let answer = self
                .pool
                .script(&self.shared.scripts.reclaim, all, args)
                .await
                .map_err(Fault::of_read)?;
            let numbers: Vec<i64> = connection::array(answer)?
                .iter()
                .filter_map(connection::number)
                .collect();
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

fn shown(stored: Resp3Frame, length: &Resp3Frame) -> Option<Shown> {
    let stored = connection::bulk(stored).filter(|stored| !stored.is_empty())?;
    let stored_bytes = u64::try_from(connection::number(length)?).ok()?;
    Some(Shown {
        stored,
        stored_bytes,
    })
}

/// A record of a page; `None` if its time is over.
fn listed(path: Bytes, shown: &Shown, now_ms: u64) -> Result<Option<Listed>> {
    let value_bytes = shown.stored_bytes.saturating_sub(HEAD_BYTES);
    Ok(wire::record(&shown.stored, now_ms)?.map(|record| Listed {
        path,
        record,
        value_bytes,
    }))
}

/// A record of a page of the list script; `None` if it is not there.
pub(super) fn item(
    path: Bytes,
    stored: Resp3Frame,
    length: &Resp3Frame,
    now_ms: u64,
) -> Result<Option<Listed>> {
    shown(stored, length).map_or(Ok(None), |shown| listed(path, &shown, now_ms))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let place = Place {
            cursor: u64::MAX,
            server: "127.0.0.1:6379".into(),
            generation: 7,
            pending: vec![Bytes::from_static(b"a:\0b"), Bytes::from_static(b"c")],
        };
        let cursor = place.write();
        assert_eq!(Place::read(&cursor).unwrap(), place);
        for cut in 1..cursor.0.len() {
            let _ = Place::parse(cursor.0.slice(..cut));
        }
        assert!(matches!(
            Place::read(&Cursor(Bytes::from_static(b"x"))),
            Err(Error::Misuse(_))
        ));
    }
}
