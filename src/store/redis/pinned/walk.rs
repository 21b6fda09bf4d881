//! Where a walk over pinned spaces stands. It does not know how the walk goes on.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::store::{Cursor, Result, misuse};

/// A pin that was lost, in the place of its server.
const LOST: u8 = u8::MAX;
/// Servers of a walk, at most.
const SERVERS: usize = LOST as usize - 1;

/// Where a walk stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// When the pins were renewed last.
    pub(super) renewed_ms: u64,
    /// The servers whose keys were looked at, and last the one whose keys are being
    /// looked at.
    servers: Vec<Server>,
    /// Of each pin, the number of its server; 0 where it was not come to yet.
    seen: Vec<u8>,
    /// What the walk does.
    pub(super) stage: Stage,
    /// What was found and had no room on the page.
    pub(super) pending: Vec<Found>,
}

/// A server, as it was when the walk came to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Where the driver found it.
    pub(super) address: String,
    /// The name of its process.
    pub(super) process: String,
}

/// What a walk does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// It looks for a server whose keys were not looked at yet.
    #[default]
    Between,
    /// It looks at the keys of the last server, from this place of SCAN's on.
    Keys(u64),
    /// It looks at what was kept for this pin, from this place of its list on.
    Kept(usize, u64),
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The key it has or had in its space.
    pub(super) name: Bytes,
    /// Its place in the list of what is kept for the pin, where it was found there.
    pub(super) place: Option<u64>,
}

impl Walk {
    /// The beginning of a walk over so many pins, which last from then.
    pub(super) fn begin(pins: usize, renewed_ms: u64) -> Self {
        Self {
            renewed_ms,
            seen: vec![0; pins],
            ..Self::default()
        }
    }

    pub(super) fn lose(&mut self, pin: usize) {
        if let Some(seen) = self.seen.get_mut(pin) {
            *seen = LOST;
        }
    }

    pub(super) fn is_lost(&self, pin: usize) -> bool {
        self.seen.get(pin).is_none_or(|seen| *seen == LOST)
    }

    /// The pins that were lost, in order.
    pub(super) fn lost(&self) -> Vec<usize> {
        self.places(LOST)
    }

    /// The first pin whose server was not looked at.
    pub(super) fn unseen(&self) -> Option<usize> {
        self.seen.iter().position(|seen| *seen == 0)
    }

    /// Begins with a server, where these pins are; they are lost where it is one too
    /// many.
    pub(super) fn arrive(&mut self, server: Server, pins: &[usize]) {
        if self.servers.len() == SERVERS {
            pins.iter().for_each(|pin| self.lose(*pin));
            return;
        }
        self.servers.push(server);
        let number = u8::try_from(self.servers.len()).unwrap_or(LOST);
        for pin in pins {
            if let Some(seen) = self.seen.get_mut(*pin) {
                *seen = number;
            }
        }
        self.stage = Stage::Keys(0);
    }

    /// Each server with its pins that are not lost; the present one comes last.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&Server, Vec<usize>)> {
        self.servers.iter().enumerate().map(|(before, server)| {
            let number = u8::try_from(before + 1).unwrap_or(LOST);
            (server, self.places(number))
        })
    }

    /// The pins of the server whose keys are being looked at.
    pub(super) fn present(&self) -> Vec<usize> {
        self.places(u8::try_from(self.servers.len()).unwrap_or(LOST))
    }

    fn places(&self, number: u8) -> Vec<usize> {
        let seen = self.seen.iter().enumerate();
        seen.filter(|(_, seen)| **seen == number)
            .map(|(pin, _)| pin)
            .collect()
    }

    pub(super) fn write(&self) -> Cursor {
        let mut out = BytesMut::new();
        out.put_u64(self.renewed_ms);
        out.put_u16(u16::try_from(self.seen.len()).unwrap_or_default());
        out.put_slice(&self.seen);
        let (kind, number, place) = match self.stage {
            Stage::Between => (0, 0, 0),
            Stage::Keys(cursor) => (1, 0, cursor),
            Stage::Kept(pin, place) => (2, pin, place),
        };
        out.put_u8(kind);
        out.put_u16(u16::try_from(number).unwrap_or_default());
        out.put_u64(place);
        out.put_u8(u8::try_from(self.servers.len()).unwrap_or_default());
        for server in &self.servers {
            put(&mut out, server.address.as_bytes());
            put(&mut out, server.process.as_bytes());
        }
        for found in &self.pending {
            put(&mut out, &found.name);
            out.put_u64(found.place.map_or(u64::MAX, |place| place));
        }
        Cursor(out.freeze())
    }

    /// A walk over so many pins, as it was written.
    pub(super) fn read(cursor: &Cursor, pins: usize) -> Result<Self> {
        Self::parse(cursor.0.clone())
            .filter(|walk| walk.seen.len() == pins)
            .ok_or_else(misuse::cursor)
    }

    fn parse(mut from: Bytes) -> Option<Self> {
        let renewed_ms = from.try_get_u64().ok()?;
        let pins = usize::from(from.try_get_u16().ok()?);
        let seen = (pins <= from.len()).then(|| from.split_to(pins))?.to_vec();
        let kind = from.try_get_u8().ok()?;
        let number = usize::from(from.try_get_u16().ok()?);
        let place = from.try_get_u64().ok()?;
        let stage = match kind {
            0 => Stage::Between,
            1 => Stage::Keys(place),
            2 => Stage::Kept(number, place),
            _ => return None,
        };
        let mut servers = Vec::new();
        for _ in 0..from.try_get_u8().ok()? {
            let mut text = || String::from_utf8(take(&mut from)?.to_vec()).ok();
            servers.push(Server {
                address: text()?,
                process: text()?,
            });
        }
        let mut pending = Vec::new();
        while !from.is_empty() {
            let name = take(&mut from)?;
            let place = from.try_get_u64().ok()?;
            pending.push(Found {
                name,
                place: (place != u64::MAX).then_some(place),
            });
        }
        Some(Self {
            renewed_ms,
            servers,
            seen,
            stage,
            pending,
        })
    }
}

fn put(out: &mut BytesMut, text: &[u8]) {
    out.put_u32(u32::try_from(text.len()).unwrap_or_default());
    out.put_slice(text);
}

fn take(from: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(from.try_get_u32().ok()?).ok()?;
    (length <= from.len()).then(|| from.split_to(length))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_read_as_it_was_written() {
        let mut walk = Walk::begin(3, 7);
        let server = |name: &str| Server {
            address: format!("127.0.0.1:{name}"),
            process: name.into(),
        };
        walk.arrive(server("a"), &[0, 2]);
        walk.lose(2);
        walk.arrive(server("b"), &[1]);
        assert_eq!(walk.unseen(), None);
        assert_eq!((walk.lost(), walk.present()), (vec![2], vec![1]));
        let servers: Vec<_> = walk.servers().collect();
        assert_eq!(servers, [(&server("a"), vec![0]), (&server("b"), vec![1])]);
        let found = |name: &'static [u8], place| Found {
            name: Bytes::from_static(name),
            place,
        };
        walk.pending = vec![found(b"a:\0b", None), found(b"c", Some(9))];
        for stage in [Stage::Between, Stage::Keys(u64::MAX), Stage::Kept(2, 300)] {
            walk.stage = stage;
            let cursor = walk.write();
            assert_eq!(Walk::read(&cursor, 3).unwrap(), walk);
            assert!(Walk::read(&cursor, 2).is_err(), "of other pins");
            for cut in 0..cursor.0.len() {
                let _ = Walk::parse(cursor.0.slice(..cut));
            }
        }
    }
}
