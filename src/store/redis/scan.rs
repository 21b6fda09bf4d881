//! Walks over the keys of a space with SCAN, a bounded piece at a time, and looks
//! at the records found. It does not know what they are looked for.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fred::types::{ClusterHash, Resp3Frame};

use super::{
    Redis,
    fault::{self, Fault},
    keys, reply,
    state::State,
};
use crate::store::{Cursor, Error, HEAD_BYTES, Result, Space};

/// Keys that one SCAN looks at, at most: about a tenth of a millisecond.
pub(super) const STEP: usize = 256;
/// Records that one script looks at, at most.
pub(super) const CHUNK: usize = 128;

/// Where a walk stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// SCAN's cursor; 0 is both the beginning and the end.
    pub(super) cursor: u64,
    /// The server the cursor belongs to.
    pub(super) server: String,
    /// The generation the walk is about.
    pub(super) generation: u64,
    /// Paths that were found and had no room on the page.
    pub(super) pending: Vec<Bytes>,
}

impl Place {
    pub(super) fn write(&self) -> Cursor {
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

    pub(super) fn read(cursor: &Cursor) -> Result<Self> {
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
pub(super) struct Shown {
    pub(super) stored: Bytes,
    pub(super) stored_bytes: u64,
}

impl Redis {
    /// Looks at about `count` keys from the place on. True at the end.
    pub(super) async fn step(
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
        let mut parts = reply::array(answer)?.into_iter();
        place.cursor = parts
            .next()
            .and_then(|cursor| reply::text(&cursor)?.parse().ok())
            .ok_or_else(|| fault::corrupt("SCAN answered no cursor"))?;
        let names = parts
            .next()
            .map(reply::array)
            .transpose()?
            .unwrap_or_default();
        Ok((
            names.into_iter().filter_map(reply::bulk).collect(),
            place.cursor == 0,
        ))
    }

    /// The beginnings of records, and the state with the first of them.
    pub(super) async fn show(
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
            let mut parts = reply::array(answer.map_err(Fault::of_read)?)?.into_iter();
            let seen = State::read(parts.next().and_then(reply::bulk).as_deref())?;
            state.get_or_insert(seen);
            while let (Some(stored), Some(length)) = (parts.next(), parts.next()) {
                shown.push(self::shown(stored, &length));
            }
        }
        Ok((state.unwrap_or_default(), shown))
    }
}

/// One of the records that a script shows; `None` if it is not there.
pub(super) fn shown(stored: Resp3Frame, length: &Resp3Frame) -> Option<Shown> {
    let stored = reply::bulk(stored).filter(|stored| !stored.is_empty())?;
    let stored_bytes = u64::try_from(reply::number(length)?).ok()?;
    Some(Shown {
        stored,
        stored_bytes,
    })
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
