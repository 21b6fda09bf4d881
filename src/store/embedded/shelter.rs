//! A disk that is only read: what is written stays in memory. It keeps reads
//! going while the disk takes no writes, and does not know when that ends.

use std::{
    collections::HashMap,
    fmt, io,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{BackendError, StorageBackend};

/// Bytes that are kept together.
const BLOCK: usize = 4096;

/// A disk, and what would have been written to it.
pub(super) struct Shelter<D> {
    disk: D,
    kept: Mutex<Kept>,
}

struct Kept {
    bytes: u64,
    blocks: HashMap<u64, Box<[u8; BLOCK]>>,
}

impl<D: StorageBackend> Shelter<D> {
    pub(super) fn over(disk: D) -> io::Result<Self> {
        let bytes = disk.len()?;
        Ok(Self {
            disk,
            kept: Mutex::new(Kept {
                bytes,
                blocks: HashMap::new(),
            }),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of the disk; zeros beyond its end.
    fn block(&self, number: u64) -> io::Result<Box<[u8; BLOCK]>> {
        let mut block = Box::new([0; BLOCK]);
        let offset = number * BLOCK as u64;
        let there = self.disk.len()?.saturating_sub(offset).min(BLOCK as u64);
        if let Some(part) = usize::try_from(there)
            .ok()
            .and_then(|there| block.get_mut(..there))
            && !part.is_empty()
        {
            self.disk.read(offset, part)?;
        }
        Ok(block)
    }
}

/// The blocks that a piece of the file lies in: each one's number, where the
/// piece begins in it, and how many bytes of it.
fn pieces(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == bytes {
            return None;
        }
        let place = offset + done as u64;
        let start = usize::try_from(place % BLOCK as u64).unwrap_or_default();
        let length = (BLOCK - start).min(bytes - done);
        done += length;
        Some((place / BLOCK as u64, start, length))
    })
}

impl<D> fmt::Debug for Shelter<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shelter")
    }
}

impl<D: StorageBackend> StorageBackend for Shelter<D> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.kept().bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let kept = self.kept();
        if offset.saturating_add(out.len() as u64) > kept.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = out;
        for (number, start, length) in pieces(offset, rest.len()) {
            let (piece, after) = rest.split_at_mut(length);
            rest = after;
            let block = match kept.blocks.get(&number) {
                Some(block) => block,
                None => &self.block(number)?,
            };
            piece.copy_from_slice(block.get(start..start + length).unwrap_or_default());
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut kept = self.kept();
        let mut rest = data;
        for (number, start, length) in pieces(offset, data.len()) {
            let (piece, after) = rest.split_at(length);
            rest = after;
            let mut block = match kept.blocks.remove(&number) {
                Some(block) => block,
                None => self.block(number)?,
            };
            if let Some(place) = block.get_mut(start..start + length) {
                place.copy_from_slice(piece);
            }
            kept.blocks.insert(number, block);
        }
        kept.bytes = kept.bytes.max(offset + data.len() as u64);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.kept().bytes = bytes;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.disk.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.disk.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.disk.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.disk.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.disk.query_lock_range(start, end)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    #[test]
    fn what_is_written_is_read_and_the_disk_keeps_its_own() {
        let disk = InMemoryBackend::new();
        disk.set_len(10_000).unwrap();
        disk.write(4_000, &[1; 300]).unwrap();
        let shelter = Shelter::over(disk).unwrap();
        shelter.write(4_090, &[2; 10]).unwrap();
        shelter.set_len(20_000).unwrap();
        shelter.write(9_990, &[3; 5_000]).unwrap();

        let mut seen = vec![9; 20_000];
        shelter.read(0, &mut seen).unwrap();
        let mut expected = vec![0; 20_000];
        expected.get_mut(4_000..4_300).unwrap().fill(1);
        expected.get_mut(4_090..4_100).unwrap().fill(2);
        expected.get_mut(9_990..14_990).unwrap().fill(3);
        assert!(seen == expected);
        assert!(shelter.read(19_999, &mut [0; 2]).is_err());

        let mut own = vec![9; 10_000];
        shelter.disk.read(0, &mut own).unwrap();
        assert_eq!(own.get(4_080..4_110).unwrap(), [1; 30]);
        assert_eq!(shelter.disk.len().unwrap(), 10_000);
    }
}
