//! The log of a space: a stream that commit.lua appends to, read in pieces. It
//! does not know what the notes tell.
//!
//! Each note carries random bytes of its own, and a place is that of a note with
//! them. So a place is known as one of this very log, whatever became of the
//! server since; and where its note is still there, none after it was cut.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use fred::types::{ClusterHash, Resp3Frame};

use super::{
    Redis,
    fault::{self, Fault},
    keys, reply,
};
use crate::store::{Error, LOG_KEPT, Noted, Notes, Position, Result, Space};

/// Random bytes before each note.
const MARK_BYTES: usize = 8;

/// A note as it is stored: marked, so that no other is taken for it.
pub(super) fn marked(note: &[u8]) -> Vec<u8> {
    let mut marked = crate::random::bytes::<MARK_BYTES>().to_vec();
    marked.extend_from_slice(note);
    marked
}

impl Redis {
    /// See [`crate::store::Store::notes`].
    pub(super) async fn read_log(
        &self,
        space: &Space,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Notes> {
        if !(1..=1000).contains(&limit) {
            return Err(Error::Misuse("a piece of a log has 1 to 1000 notes".into()));
        }
        let Some(position) = after else {
            return self.end_of_log(space, false).await;
        };
        let Some((id, mark)) = position.0.split_once('@').filter(|(id, _)| plain(id)) else {
            return self.end_of_log(space, true).await;
        };
        let args = [
            keys::log(space),
            Bytes::copy_from_slice(id.as_bytes()),
            Bytes::from_static(b"+"),
            Bytes::from_static(b"COUNT"),
            Bytes::from((limit + 1).to_string()),
        ];
        let answer = self
            .pool
            .command("XRANGE", ClusterHash::FirstKey, &args)
            .await;
        let mut entries = reply::array(answer.map_err(Fault::of_read)?)?.into_iter();
        // The first is the one at the place itself, as long as it is there.
        let known = match entries.next() {
            Some(entry) => {
                let entry = Entry::read(entry)?;
                entry.id == id && HEXLOWER.encode(&entry.mark) == mark
            }
            None => false,
        };
        if !known {
            return self.end_of_log(space, true).await;
        }
        let notes = entries
            .map(|entry| Ok(Entry::read(entry)?.noted()))
            .collect::<Result<Vec<_>>>()?;
        Ok(Notes {
            position: notes
                .last()
                .map_or(position, |noted| noted.position.clone()),
            notes,
            lost: false,
        })
    }

    /// The place behind the last note; a log without any is begun.
    async fn end_of_log(&self, space: &Space, lost: bool) -> Result<Notes> {
        let args = [
            Bytes::from(marked(b"")),
            Bytes::from(LOG_KEPT.as_millis().to_string()),
        ];
        let answer = self
            .pool
            .script(&self.shared.scripts.log, vec![keys::log(space)], args)
            .await;
        let last = reply::array(answer.map_err(Fault::of_read)?)?;
        let last = last
            .into_iter()
            .next()
            .ok_or_else(|| fault::corrupt("a log has no last note"))?;
        Ok(Notes {
            position: Entry::read(last)?.position(),
            notes: Vec::new(),
            lost,
        })
    }
}

/// Whether it is the id of an entry, and nothing that XRANGE reads otherwise.
fn plain(id: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    id.len() <= 41
        && id
            .split_once('-')
            .is_some_and(|(ms, number)| digits(ms) && digits(number))
}

/// A note as it is stored.
struct Entry {
    id: String,
    mark: Bytes,
    note: Bytes,
}

impl Entry {
    fn read(entry: Resp3Frame) -> Result<Self> {
        let strange = || fault::corrupt("a note in a log");
        let mut entry = reply::array(entry)?.into_iter();
        let id = entry.next().and_then(|id| reply::text(&id));
        let fields = reply::array(entry.next().ok_or_else(strange)?)?;
        let mut stored = fields
            .into_iter()
            .nth(1)
            .and_then(reply::bulk)
            .ok_or_else(strange)?;
        if stored.len() < MARK_BYTES {
            return Err(strange());
        }
        Ok(Self {
            id: id.ok_or_else(strange)?,
            mark: stored.split_to(MARK_BYTES),
            note: stored,
        })
    }

    fn position(&self) -> Position {
        Position(format!("{}@{}", self.id, HEXLOWER.encode(&self.mark)).into())
    }

    fn noted(self) -> Noted {
        Noted {
            position: self.position(),
            note: self.note,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_entries_are_asked_for() {
        for (id, fits) in [
            ("1700000000000-0", true),
            ("0-0", true),
            ("-", false),
            ("+", false),
            ("(1-0", false),
            ("1", false),
            ("1-", false),
            ("1-2-3", false),
            ("1-\u{663}", false),
            ("", false),
        ] {
            assert_eq!(plain(id), fits, "{id}");
        }
    }

    #[test]
    fn each_note_is_marked_apart() {
        let (one, two) = (marked(b"note"), marked(b"note"));
        assert!(one.ends_with(b"note") && two.ends_with(b"note"));
        assert_ne!(one, two);
    }
}
