//! What floors hide of entries that a call has not read: of those it is about to
//! write, and of those that were listed in part. It does not know why an entry is
//! asked about.

use std::sync::Arc;

use super::{
    Cache,
    floors::Floors,
    snapshot::{ATTEMPTS, Snapshot},
};
use crate::{
    codec::HEAD_BYTES,
    error::{Error, Result},
    store::{Action, Check, Handle, Key, Listed, Space, Table, Write},
    tenant::Tenancy,
};

/// Records that are read at once for their tags, values and all.
const AT_ONCE: usize = 100;

impl Cache {
    /// Hides from writes to a namespace what is gone, under the snapshot that is
    /// answered. Tags are known only of an entry that was read: where some may be
    /// gone, and a write depends on what was there, that is read first. It is race-free:
    /// whatever is written between that read and the commit has a version above
    /// all floors of the snapshot, and whatever is invalidated, another view.
    pub(super) async fn hide(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        mut snapshot: Arc<Snapshot>,
        writes: &mut [Write],
    ) -> Result<Arc<Snapshot>> {
        'anew: for _ in 0..ATTEMPTS {
            if snapshot.floors.is_empty() {
                return Ok(snapshot);
            }
            for write in &mut *writes {
                write.floor = match user_key(&write.key, namespace) {
                    Some(key) => snapshot.floors.above(namespace, key),
                    None => 0,
                };
            }
            if snapshot.floors.above_tagged(namespace) == 0 {
                return Ok(snapshot);
            }
            let mut asked: Vec<&mut Write> = writes.iter_mut().filter(|w| depends(w)).collect();
            for writes in asked.chunks_mut(AT_ONCE) {
                let keys: Vec<Key> = writes.iter().map(|write| write.key.clone()).collect();
                let seen = self.see(tenancy, &keys, false).await?;
                if seen.snapshot.view != snapshot.view {
                    snapshot = seen.snapshot;
                    continue 'anew;
                }
                for (write, record) in writes.iter_mut().zip(seen.records) {
                    let (Some(record), Some(key)) = (record, user_key(&write.key, namespace))
                    else {
                        continue;
                    };
                    // One that is damaged is there, so that it can be removed.
                    if seen.snapshot.hides_record(namespace, key, &record) == Ok(Some(true)) {
                        write.floor = write.floor.max(record.version);
                    }
                }
            }
            return Ok(snapshot);
        }
        Err(Error::RequestInProgress)
    }
}

/// Whether a write puts an entry whatever was there: then no floor bears on it, as
/// the entry's version is above all.
pub(super) fn is_free(write: &Write) -> bool {
    let puts = matches!(write.action, Action::Put { .. });
    puts && write.check == Check::Any && write.key.table == Table::Entry
}

/// Whether what was there decides what a write does, or what it answers.
fn depends(write: &Write) -> bool {
    write.key.table == Table::Entry && !is_free(write)
}

/// The user's part of an entry's path.
fn user_key<'a>(key: &'a Key, namespace: &str) -> Option<&'a [u8]> {
    let path = (key.table == Table::Entry).then_some(&key.path)?;
    path.strip_prefix(namespace.as_bytes())?.strip_prefix(b":")
}

/// Bytes of a listed entry's frame from which its tags can be read, where they are
/// as many and as long as the default settings allow. Others are read by themselves.
pub(super) const TAGGED_BYTES: usize = HEAD_BYTES + 1 + 128 + 16 * (1 + 128);

/// Where entries were listed, and what is gone there.
pub(super) struct Looked<'a> {
    pub(super) store: &'a Handle,
    pub(super) space: &'a Space,
    pub(super) generation: u64,
    pub(super) floors: &'a Floors,
}

impl Looked<'_> {
    /// As [`Floors::hide_record`] of a listed entry; `None` only where it is of a
    /// later format. The inner error is the entry's, the outer one the store's.
    pub(super) async fn hidden(&self, listed: &Listed) -> Result<Result<Option<bool>>> {
        let path = &listed.path;
        // Every path has a colon, as no namespace has one.
        let colon = path.iter().position(|&byte| byte == b':');
        let (namespace, key) = path.split_at(colon.unwrap_or(path.len()));
        let (Ok(namespace), Some(key)) = (str::from_utf8(namespace), key.get(1..)) else {
            return Ok(Ok(Some(false)));
        };
        let hidden = self.floors.hide_record(namespace, key, &listed.record);
        if hidden != Ok(None) || listed.record.value.len() as u64 == listed.value_bytes {
            return Ok(hidden);
        }
        let key_of = Key::new(Table::Entry, path.clone());
        let read = self
            .store
            .read(self.space, self.generation, &[key_of])
            .await?;
        Ok(match read.records.into_iter().next().flatten() {
            Some(record) => self.floors.hide_record(namespace, key, &record),
            None => Ok(Some(false)),
        })
    }
}
