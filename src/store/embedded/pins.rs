//! Points in time of spaces: a moment of the store that is held on to, for as long
//! as it is read. It does not know what is written meanwhile.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    super::{
        Cursor, Error, Keep, Key, MAX_PINS, PINNED_PAGE_BYTES, Pin, PinnedPage, PinnedRecord,
        Pinning, Record, Space, Table, misuse,
    },
    Embedded,
    fault::{Fault, Result},
    layout,
    ledger::split,
    passage::closed,
    snapshot::Snapshot,
};

/// Pins of all spaces together, at most: each holds pages of the file.
const MOST: usize = 4_096;

/// The pins of a store.
#[derive(Default)]
pub(super) struct Pins(Mutex<HashMap<[u8; 8], Held>>);

struct Held {
    space: Space,
    snapshot: Arc<Snapshot>,
    until_ms: u64,
}

impl Pins {
    fn held(&self) -> MutexGuard<'_, HashMap<[u8; 8], Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of pins that were not read for their time.
    pub(super) fn end(&self, now_ms: u64) {
        self.held().retain(|_, held| now_ms <= held.until_ms);
    }

    /// Lets go of all.
    pub(super) fn clear(&self) {
        self.held().clear();
    }
}

impl Embedded {
    pub(super) async fn begin_pin(
        &self,
        space: &Space,
        keep: Keep,
    ) -> std::result::Result<Pinning, Error> {
        // The moment comes first: what is committed from here on is not in it.
        let snapshot = self.shared.snapshot.load_full().ok_or_else(closed)?;
        let (state, usage, now_ms) = self
            .look(|_, now_ms| {
                let state = snapshot.state(space)?;
                Ok((state, snapshot.usage(space, now_ms)?, now_ms))
            })
            .await?;
        if state.gone_ms > 0 {
            return Ok(Pinning::Gone);
        }
        let pin = Pin {
            space: space.clone(),
            view: state.view(),
            usage,
            version: state.sequence,
            at_ms: now_ms,
            keep,
            id: crate::random::bytes(),
        };
        let mut all = self.shared.pins.held();
        all.retain(|_, held| now_ms <= held.until_ms);
        if let Some(held) = all.values().find(|held| held.space == *space) {
            return Ok(Pinning::Taken {
                until_ms: held.until_ms,
            });
        }
        if all.len() >= MOST {
            return Err(Error::Unavailable(format!("{MOST} spaces are pinned")));
        }
        let held = Held {
            space: space.clone(),
            snapshot,
            until_ms: now_ms.saturating_add(keep.for_ms),
        };
        all.insert(pin.id, held);
        Ok(Pinning::Pinned(pin))
    }

    pub(super) async fn read_pins(
        &self,
        pins: &[Pin],
        tables: &[Table],
        after: Option<Cursor>,
        limit: usize,
    ) -> std::result::Result<PinnedPage, Error> {
        misuse::pinned(pins, limit)?;
        let (first, from) = match after {
            Some(cursor) => place(cursor.0).ok_or_else(misuse::cursor)?,
            None => (0, Bytes::new()),
        };
        let moments = self.renew(pins).await?;
        let lost: Vec<usize> = (0..pins.len())
            .filter(|at| moments.get(*at).is_none_or(Option::is_none))
            .collect();
        let mut tables = tables.to_vec();
        tables.sort_by_key(|table| layout::mark(*table));
        tables.dedup();
        self.look(|_, now_ms| {
            let mut page = Page {
                items: Vec::new(),
                bytes: 0,
                looked_at: 0,
                limit,
                now_ms,
            };
            let mut from = from.clone();
            let places = pins.iter().zip(&moments).enumerate().skip(first);
            for (at, (pin, moment)) in places {
                if let Some(moment) = moment
                    && let Some(last) = page.fill(at, pin, moment, &tables, &from)?
                {
                    return Ok(PinnedPage {
                        items: page.items,
                        lost: lost.clone(),
                        next: Some(Cursor(cursor(at, &last))),
                    });
                }
                from = Bytes::new();
            }
            Ok(PinnedPage {
                items: page.items,
                lost: lost.clone(),
                next: None,
            })
        })
        .await
    }

    /// The moments of these pins, which last anew from now; `None` for those lost.
    async fn renew(&self, pins: &[Pin]) -> std::result::Result<Vec<Option<Arc<Snapshot>>>, Error> {
        let (gone, now_ms) = self
            .look(|snapshot, now_ms| {
                let gone = |pin: &Pin| Ok(snapshot.state(&pin.space)?.gone_ms > 0);
                Ok((pins.iter().map(gone).collect::<Result<Vec<_>>>()?, now_ms))
            })
            .await?;
        let mut all = self.shared.pins.held();
        all.retain(|_, held| now_ms <= held.until_ms);
        let moment = |(pin, gone): (&Pin, bool)| {
            if gone {
                all.remove(&pin.id);
            }
            let held = all.get_mut(&pin.id)?;
            held.until_ms = now_ms.saturating_add(pin.keep.for_ms);
            Some(held.snapshot.clone())
        };
        Ok(pins.iter().zip(gone).map(moment).collect())
    }

    pub(super) fn end_pin(&self, pin: &Pin) {
        self.shared.pins.held().remove(&pin.id);
    }
}

/// A page that is being filled.
struct Page {
    items: Vec<PinnedRecord>,
    bytes: usize,
    looked_at: usize,
    limit: usize,
    now_ms: u64,
}

impl Page {
    /// Adds what follows a suffix of a pinned space; the last suffix looked at where
    /// the page is full.
    fn fill(
        &mut self,
        at: usize,
        pin: &Pin,
        moment: &Snapshot,
        tables: &[Table],
        after: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let prefix = layout::prefix(&pin.space);
        let mut last = after.to_vec();
        for table in tables {
            let first = layout::beginning(*table, pin.view.generation);
            let end = layout::join(&prefix, &layout::beyond(&first));
            let begun = if after.is_empty() {
                first
            } else {
                layout::join(after, &[0]).max(first)
            };
            let from = layout::join(&prefix, &begun);
            if from >= end {
                continue;
            }
            for row in moment.records(&from, &end)? {
                if self.items.len() == self.limit
                    || self.bytes >= PINNED_PAGE_BYTES
                    || self.looked_at == self.limit * 4
                {
                    return Ok(Some(last));
                }
                self.looked_at += 1;
                let (key, stored) = row?;
                last = key.value().get(prefix.len()..).unwrap_or_default().to_vec();
                let (_, _, path) = layout::parse(&last)
                    .ok_or_else(|| Fault::Damaged("the key of a record".into()))?;
                let (head, value) = split(stored.value())?;
                if !head.alive(self.now_ms) {
                    continue;
                }
                self.bytes += value.len();
                self.items.push(PinnedRecord {
                    pin: at,
                    key: Key::new(*table, Bytes::copy_from_slice(path)),
                    record: Record {
                        version: head.version,
                        expire_ms: head.expires(),
                        value: Bytes::copy_from_slice(value),
                    },
                    counts_until_ms: (table.metered() && head.end_ms > 0).then_some(head.end_ms),
                });
            }
        }
        Ok(None)
    }
}

/// The place of the pin, and the last suffix looked at.
fn cursor(at: usize, last: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + last.len());
    out.put_u16(u16::try_from(at).unwrap_or(u16::MAX));
    out.put_slice(last);
    out.freeze()
}

fn place(mut from: Bytes) -> Option<(usize, Bytes)> {
    let at = usize::from(from.try_get_u16().ok()?);
    (at < MAX_PINS).then_some((at, from))
}
