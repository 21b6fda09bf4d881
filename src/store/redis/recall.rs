//! The walk over names of tallies that are remembered: one over the keys of each server
//! that any of the spaces is on. It does not know what was told.
//!
//! SCAN shows each key that is there all the time, as long as it is asked of the same
//! process, and the slots stay with it. Both are proved as for pins (pinned.rs): the
//! process is named when the walk comes to its keys and when it leaves them, as are the
//! slots that it has to itself. A space for which this does not hold is lost.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fred::types::{ClusterHash, Resp3Frame};

use super::{Redis, fault, keys, reply, scan::CHUNK};
use crate::store::{Cursor, Recall, Recalled, Remembered, Result, Space, misuse};

/// SCANs of one call, at most.
const STEPS: usize = 64;

/// How far a space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Its server was not come to.
    No,
    /// The keys of its server are being looked at.
    Now,
    /// They were all looked at.
    Whole,
    /// It cannot be told whether they were.
    Lost,
}

impl Seen {
    const ALL: [Self; 4] = [Self::No, Self::Now, Self::Whole, Self::Lost];
}

/// Where a walk stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Walk {
    /// Of each space.
    seen: Vec<Seen>,
    /// Where the driver found the server whose keys are being looked at.
    address: String,
    /// The name of its process.
    process: String,
    /// The place of SCAN's in its keys; 0 at the beginning.
    cursor: u64,
}

impl Walk {
    fn begin(spaces: usize) -> Self {
        Self {
            seen: vec![Seen::No; spaces],
            ..Self::default()
        }
    }

    fn at(&self, seen: Seen) -> Vec<usize> {
        let all = self.seen.iter().enumerate();
        all.filter(|(_, is)| **is == seen)
            .map(|(at, _)| at)
            .collect()
    }

    fn put(&mut self, at: usize, seen: Seen) {
        if let Some(is) = self.seen.get_mut(at) {
            *is = seen;
        }
    }

    /// Gives up the spaces whose server is being looked at.
    fn lose(&mut self) {
        for at in self.at(Seen::Now) {
            self.put(at, Seen::Lost);
        }
    }

    fn write(&self) -> Cursor {
        let mut out = BytesMut::new();
        out.put_u64(self.cursor);
        out.put_u8(u8::try_from(self.seen.len()).unwrap_or(u8::MAX));
        for seen in &self.seen {
            let place = (0..).zip(Seen::ALL).find(|(_, known)| known == seen);
            out.put_u8(place.map_or(u8::MAX, |(place, _)| place));
        }
        for text in [&self.address, &self.process] {
            out.put_u16(u16::try_from(text.len()).unwrap_or_default());
            out.put_slice(text.as_bytes());
        }
        Cursor(out.freeze())
    }

    /// A walk over so many spaces, as it was written.
    fn read(cursor: &Cursor, spaces: usize) -> Result<Self> {
        Self::parse(cursor.0.clone())
            .filter(|walk| walk.seen.len() == spaces)
            .ok_or_else(misuse::cursor)
    }

    fn parse(mut from: Bytes) -> Option<Self> {
        let cursor = from.try_get_u64().ok()?;
        let spaces = usize::from(from.try_get_u8().ok()?);
        let seen = (spaces <= from.len()).then(|| from.split_to(spaces))?;
        let seen = seen.iter().map(|place| Seen::ALL.get(usize::from(*place)));
        let seen = seen.map(Option::<&Seen>::copied).collect::<Option<_>>()?;
        let mut text = || {
            let length = usize::from(from.try_get_u16().ok()?);
            let text = (length <= from.len()).then(|| from.split_to(length))?;
            String::from_utf8(text.to_vec()).ok()
        };
        let (address, process) = (text()?, text()?);
        from.is_empty().then_some(Self {
            seen,
            address,
            process,
            cursor,
        })
    }
}

impl Redis {
    /// See [`crate::store::Store::recall`].
    pub(super) async fn walk_names(&self, recall: &Recall) -> Result<Recalled> {
        misuse::recall(recall)?;
        let spaces = &recall.spaces;
        let mut walk = match &recall.after {
            Some(cursor) => Walk::read(cursor, spaces.len())?,
            None => Walk::begin(spaces.len()),
        };
        let mut names = Vec::new();
        let mut steps = 0;
        let end = loop {
            if names.len() >= recall.limit || steps == STEPS {
                break false;
            }
            let here = walk.at(Seen::Now);
            match (here.first(), walk.at(Seen::No).first()) {
                (Some(first), _) => {
                    steps += 1;
                    let hash = slot(spaces, *first);
                    self.look_for_names(recall, &mut walk, &here, hash, &mut names)
                        .await?;
                }
                (None, Some(first)) => self.come_to(spaces, &mut walk, *first).await?,
                (None, None) => break true,
            }
        };
        Ok(Recalled {
            names,
            lost: walk.at(Seen::Lost),
            next: (!end).then(|| walk.write()),
        })
    }

    /// Begins with the server of a space, and all others that are there.
    async fn come_to(&self, spaces: &[Space], walk: &mut Walk, first: usize) -> Result<()> {
        let hash = slot(spaces, first);
        let link = self.pool.link()?;
        walk.address = link.place(&hash);
        for at in walk.at(Seen::No) {
            if link.place(&slot(spaces, at)) == walk.address {
                walk.put(at, Seen::Now);
            }
        }
        // The driver may have learnt of another place meanwhile.
        walk.put(first, Seen::Now);
        walk.cursor = 0;
        walk.process = self.process(&hash).await?;
        let here = walk.at(Seen::Now);
        self.keep_own(spaces, walk, &here, &hash, Seen::Now).await
    }

    /// Looks at some keys of the present server.
    async fn look_for_names(
        &self,
        recall: &Recall,
        walk: &mut Walk,
        here: &[usize],
        hash: ClusterHash,
        names: &mut Vec<Remembered>,
    ) -> Result<()> {
        let server = (&hash, &*walk.address);
        let pattern = keys::remembered(&recall.prefix);
        let Some((cursor, found)) = self.scan_at(server, walk.cursor, pattern).await? else {
            walk.lose();
            return Ok(());
        };
        walk.cursor = cursor;
        for at in here {
            let Some(space) = recall.spaces.get(*at) else {
                continue;
            };
            let begins = keys::once(space, &recall.prefix);
            let mine: Vec<Bytes> = found
                .iter()
                .filter(|name| name.starts_with(&begins))
                .cloned()
                .collect();
            for mine in mine.chunks(CHUNK) {
                if !self.ask_ends((*at, space), mine, names).await? {
                    walk.put(*at, Seen::Lost);
                }
            }
        }
        if walk.cursor == 0 {
            let here = walk.at(Seen::Now);
            if self.process(&hash).await? == walk.process {
                self.keep_own(&recall.spaces, walk, &here, &hash, Seen::Whole)
                    .await?;
            } else {
                walk.lose();
            }
        }
        Ok(())
    }

    /// Asks until when these names are remembered; false where their slot is on its way
    /// to another server.
    async fn ask_ends(
        &self,
        (at, space): (usize, &Space),
        found: &[Bytes],
        names: &mut Vec<Remembered>,
    ) -> Result<bool> {
        let mark = keys::once(space, b"").len();
        let mut all = vec![keys::state(space)];
        all.extend(found.iter().cloned());
        let script = &self.shared.scripts.recall;
        let Some(answer) = self.ask_of_pin(script, all, Vec::new()).await? else {
            return Ok(false);
        };
        let ends = reply::array(answer)?;
        if ends.len() != found.len() {
            return Err(fault::corrupt("names were answered in part"));
        }
        let ends = ends.iter().map(end_of);
        names.extend(found.iter().zip(ends).filter_map(|(name, until_ms)| {
            Some(Remembered {
                space: at,
                name: Bytes::copy_from_slice(name.get(mark..)?),
                until_ms: until_ms?,
            })
        }));
        Ok(true)
    }

    /// Notes how far those are whose slots their server has to itself; others are lost.
    async fn keep_own(
        &self,
        spaces: &[Space],
        walk: &mut Walk,
        here: &[usize],
        hash: &ClusterHash,
        seen: Seen,
    ) -> Result<()> {
        let slots: Vec<ClusterHash> = here.iter().map(|at| slot(spaces, *at)).collect();
        for (at, own) in here.iter().zip(self.own(&slots, hash).await?) {
            walk.put(*at, if own { seen } else { Seen::Lost });
        }
        Ok(())
    }
}

/// When a name ends; nothing where it is not there.
fn end_of(answer: &Resp3Frame) -> Option<u64> {
    let until_ms = u64::try_from(reply::number(answer)?).ok()?;
    (until_ms > 0).then_some(until_ms)
}

/// The slot of a space.
fn slot(spaces: &[Space], at: usize) -> ClusterHash {
    let space = spaces.get(at);
    space.map_or(ClusterHash::Random, |space| {
        ClusterHash::from(&keys::state(space)[..])
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_read_as_it_was_written() {
        let walk = Walk {
            seen: vec![Seen::Whole, Seen::Now, Seen::Lost, Seen::No],
            address: "127.0.0.1:6379".into(),
            process: "a".repeat(40),
            cursor: u64::MAX,
        };
        let cursor = walk.write();
        assert_eq!(Walk::read(&cursor, 4).unwrap(), walk);
        assert!(Walk::read(&cursor, 3).is_err(), "of other spaces");
        for cut in 0..cursor.0.len() {
            assert_eq!(Walk::parse(cursor.0.slice(..cut)), None);
        }
        assert_eq!(walk.at(Seen::Now), [1]);
        let mut walk = walk;
        walk.lose();
        assert_eq!(walk.at(Seen::Lost), [1, 2]);
    }
}
