//! Pages of the names of tallies that are remembered. It does not know what was told.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    super::{Cursor, Error, Recall, Recalled, Remembered, Space, misuse},
    Embedded,
    fault::Result,
    layout::{self, Kind},
    ledger::split,
    snapshot::Snapshot,
};

/// How many names are looked at for each that is asked for.
const LOOKED_AT: usize = 4;

impl Embedded {
    pub(super) async fn list_names(&self, recall: &Recall) -> std::result::Result<Recalled, Error> {
        misuse::recall(recall)?;
        let (first, from) = match &recall.after {
            Some(cursor) => place(cursor.0.clone())
                .filter(|(at, _)| *at < recall.spaces.len())
                .ok_or_else(misuse::cursor)?,
            None => (0, Bytes::new()),
        };
        self.look(|snapshot, now_ms| {
            let mut page = Page {
                recalled: Recalled::default(),
                looked_at: 0,
                now_ms,
            };
            let mut from = &from[..];
            for (at, space) in recall.spaces.iter().enumerate().skip(first) {
                if let Some(last) = page.fill(snapshot, (at, space), recall, from)? {
                    page.recalled.next = Some(cursor(at, &last));
                    break;
                }
                from = &[];
            }
            Ok(page.recalled)
        })
        .await
    }
}

/// A page that is being filled.
struct Page {
    recalled: Recalled,
    looked_at: usize,
    now_ms: u64,
}

impl Page {
    /// Adds the names of a space after this one; the last that was looked at where the
    /// page is full.
    fn fill(
        &mut self,
        snapshot: &Snapshot,
        (at, space): (usize, &Space),
        recall: &Recall,
        after: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        if snapshot.state(space)?.gone_ms > 0 {
            return Ok(None);
        }
        let mark = layout::join(&layout::prefix(space), &Kind::Once.suffix(b""));
        let first = layout::join(&mark, &recall.prefix);
        let end = layout::beyond(&first);
        let from = match after {
            [] => first,
            after => layout::join(&layout::join(&mark, after), &[0]),
        };
        if from >= end {
            return Ok(None);
        }
        let mut last = after.to_vec();
        for row in snapshot.records(&from, &end)? {
            if self.recalled.names.len() >= recall.limit
                || self.looked_at >= recall.limit * LOOKED_AT
            {
                return Ok(Some(last));
            }
            self.looked_at += 1;
            let (key, stored) = row?;
            last = key.value().get(mark.len()..).unwrap_or_default().to_vec();
            let (head, _) = split(stored.value())?;
            if let Some(until_ms) = head.expires()
                && head.alive(self.now_ms)
            {
                self.recalled.names.push(Remembered {
                    space: at,
                    name: Bytes::copy_from_slice(&last),
                    until_ms,
                });
            }
        }
        Ok(None)
    }
}

/// The place of the space, and the last name looked at.
fn cursor(at: usize, last: &[u8]) -> Cursor {
    let mut out = BytesMut::with_capacity(1 + last.len());
    out.put_u8(u8::try_from(at).unwrap_or(u8::MAX));
    out.put_slice(last);
    Cursor(out.freeze())
}

fn place(mut from: Bytes) -> Option<(usize, Bytes)> {
    let at = usize::from(from.try_get_u8().ok()?);
    Some((at, from))
}
