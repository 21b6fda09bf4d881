//! Chunks: objects of blocks, each block records of one owner and one component,
//! compressed where it pays and sealed with the owner's key. Bytes in, bytes out; it
//! does not know where chunks lie.
//!
//! A chunk begins with `RCK1`. A block is, numbers in little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 10 | the owner: the incarnation of a tenant, zeros for the store |
//! | 1 | the component |
//! | 1 | flags: 1 compressed |
//! | 1 | the take: which attempt at the owner it is of |
//! | 4 | bytes of the records |
//! | 4 | bytes of what follows |
//! | | a nonce (24 bytes), the records sealed, and a tag (16 bytes) |
//!
//! What is sealed is bound to the format, the checkpoint, the number of the chunk and of
//! the block in it, and to what its head says: a block opens nowhere but in its place.
//! Where a point in time was lost halfway, its owner is taken anew, and what was written
//! before stays: only blocks of the take that the index names count
//! ([`Held::has`](super::Held::has)).
//! That a chunk is whole, the manifest tells: its size, SHA-256 and number of blocks.

use bytes::{Buf, BufMut, Bytes};
use sha2::{Digest, Sha256};

use super::{CheckpointId, Component, Count, Damage, Owner, Record};
use crate::{
    codec::{
        compress,
        seal::{Key, NONCE_BYTES, OVERHEAD_BYTES},
    },
    config::Compression,
    error::Error,
};

/// A chunk ends with the block that brings it to so many bytes.
pub const CHUNK_BYTES: usize = 2 << 20;

/// A block is sealed once its records have so many bytes. One record is never parted,
/// so that a greater one makes a block, and where it must a chunk, of its own.
pub const BLOCK_BYTES: usize = 64 << 10;

/// Bytes of the records of a block at most: more than the greatest record has.
const MAX_BLOCK_BYTES: usize = 1 << 29;

const MAGIC: &[u8; 4] = b"RCK1";
const HEAD_BYTES: usize = 21;
/// What of the head is bound to the sealed bytes: all but their length.
const BOUND_BYTES: usize = 17;
const COMPRESSED: u8 = 1;

/// Where it pays, and no later: what is sealed or compressed already does not.
const RULE: Compression = Compression {
    enabled: true,
    min_bytes: 128,
    min_saving_percent: 5,
};

/// A chunk's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The chunk's number in it.
    pub chunk: u32,
}

impl Place {
    fn bound(&self, block: u32, head: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 5] = [
            b"checkpoint block 1 ",
            self.checkpoint.as_str().as_bytes(),
            &self.chunk.to_le_bytes(),
            &block.to_le_bytes(),
            head,
        ];
        parts.concat()
    }
}

/// What the manifest tells of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Digested {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// Its blocks.
    pub blocks: u32,
}

/// A chunk being built.
#[derive(Debug)]
pub struct Chunk {
    place: Place,
    bytes: Vec<u8>,
    /// Of its bytes: of each block as it comes, so that no end takes long.
    hasher: Sha256,
    blocks: u32,
}

impl Chunk {
    /// An empty one.
    pub fn begin(place: Place) -> Self {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES + BLOCK_BYTES + HEAD_BYTES);
        bytes.extend_from_slice(MAGIC);
        Self {
            place,
            bytes,
            hasher: Sha256::new_with_prefix(MAGIC),
            blocks: 0,
        }
    }

    /// Appends a block of these records, as [`Record::encode`] wrote them.
    ///
    /// # Errors
    /// [`Error::Internal`] for more records than a block holds.
    pub fn push(
        &mut self,
        owner: Owner,
        component: Component,
        take: u8,
        records: &[u8],
        key: &Key,
    ) -> Result<(), Error> {
        if records.len() > MAX_BLOCK_BYTES {
            return Err(Error::Internal(
                "a record is larger than a block of a checkpoint can be".into(),
            ));
        }
        let mut body = Vec::with_capacity(OVERHEAD_BYTES + compress::room(records.len(), &RULE));
        body.resize(NONCE_BYTES, 0);
        let compressed = compress::append(records, &mut body, &RULE);
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(&owner.as_bytes());
        head.put_u8(component.number());
        head.put_u8(if compressed { COMPRESSED } else { 0 });
        head.put_u8(take);
        // MAX_BLOCK_BYTES and what sealing adds fit.
        head.put_u32_le(records.len() as u32);
        key.seal(&self.place.bound(self.blocks, &head), &mut body, 0)?;
        head.put_u32_le(body.len() as u32);
        for part in [&head, &body] {
            self.bytes.extend_from_slice(part);
            self.hasher.update(part);
        }
        self.blocks += 1;
        Ok(())
    }

    /// Its size so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no block yet.
    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// Whether it has grown to the size at which it ends.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= CHUNK_BYTES
    }

    /// Its bytes, and what the manifest tells of them.
    pub fn end(self) -> (Bytes, Digested) {
        let digested = Digested {
            bytes: self.bytes.len() as u64,
            sha256: data_encoding::HEXLOWER.encode(&self.hasher.finalize()),
            blocks: self.blocks,
        };
        (self.bytes.into(), digested)
    }
}

/// The SHA-256 of bytes, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// A block of a chunk, still sealed.
#[derive(Clone, Debug)]
pub struct Block {
    /// Whose it is.
    pub owner: Owner,
    /// What it is part of.
    pub component: Component,
    /// Which attempt at its owner it is of.
    pub take: u8,
    /// Bytes of its records.
    pub records_bytes: usize,
    bound: Vec<u8>,
    compressed: bool,
    sealed: Bytes,
}

/// The blocks of a chunk, in order, if it is as the manifest tells: none of it is
/// believed before its SHA-256 is right.
///
/// # Errors
/// [`Damage`] in words, without the chunk's name.
pub fn blocks(place: &Place, bytes: &Bytes, told: &Digested) -> Result<Vec<Block>, Damage> {
    if bytes.len() as u64 != told.bytes {
        let (bytes, told) = (bytes.len(), told.bytes);
        return Err(Damage::new(format!("it has {bytes} bytes, not {told}")));
    }
    if sha256(bytes) != told.sha256 {
        return Err(Damage::new("its SHA-256 is another than the manifest's"));
    }
    let found = parse(place, bytes)?;
    if found.len() as u64 != u64::from(told.blocks) {
        let (found, told) = (found.len(), told.blocks);
        return Err(Damage::new(format!("it has {found} blocks, not {told}")));
    }
    Ok(found)
}

fn parse(place: &Place, bytes: &Bytes) -> Result<Vec<Block>, Damage> {
    let cut_off = || Damage::new("it is cut off");
    let mut rest = bytes.clone();
    let magic = rest.get(..MAGIC.len()).ok_or_else(cut_off)?;
    if magic != MAGIC {
        return Err(Damage::new("it does not begin as a chunk does"));
    }
    rest.advance(MAGIC.len());
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        if rest.len() < HEAD_BYTES {
            return Err(cut_off());
        }
        let mut head = rest.split_to(HEAD_BYTES);
        let number = u32::try_from(blocks.len()).map_err(|_| cut_off())?;
        let bound = place.bound(number, head.get(..BOUND_BYTES).unwrap_or_default());
        let mut owner = [0; 10];
        head.copy_to_slice(&mut owner);
        let (component, flags, take) = (head.get_u8(), head.get_u8(), head.get_u8());
        let (records_bytes, sealed_bytes) = (head.get_u32_le() as usize, head.get_u32_le());
        let at = |what: &str| Damage::new(format!("block {number}: {what}"));
        let owner = Owner::of_bytes(owner).ok_or_else(|| at("it has no owner"))?;
        let component = Component::numbered(component)
            .ok_or_else(|| at(&format!("its component {component} is not known")))?;
        if flags & !COMPRESSED != 0 {
            return Err(at(&format!("its flags {flags:#04x} are not known")));
        }
        if records_bytes > MAX_BLOCK_BYTES {
            return Err(at("it declares more than a block can hold"));
        }
        if rest.len() < sealed_bytes as usize {
            return Err(cut_off());
        }
        blocks.push(Block {
            owner,
            component,
            take,
            records_bytes,
            bound,
            compressed: flags & COMPRESSED != 0,
            sealed: rest.split_to(sealed_bytes as usize),
        });
    }
    Ok(blocks)
}

impl Block {
    /// Opens it: its records, one after the other. Only the key that sealed it does, and
    /// only in the place that it was sealed for.
    ///
    /// # Errors
    /// [`Damage`] in words.
    pub fn open(&self, key: &Key) -> Result<Records, Damage> {
        let opened = key.open(&self.bound, &self.sealed).ok_or_else(|| {
            Damage::new("a block was changed, or sealed for another place or by another key")
        })?;
        let opened = if self.compressed {
            compress::expand(&opened, self.records_bytes).map_err(Damage::new)?
        } else {
            opened
        };
        if opened.len() != self.records_bytes {
            return Err(Damage::new("a block has another size than it declares"));
        }
        Ok(Records(opened.into()))
    }
}

/// The records of an opened block.
#[derive(Clone, Debug)]
pub struct Records(Bytes);

impl Records {
    /// Counts all of them.
    ///
    /// # Errors
    /// [`Damage`] of the first that cannot be read.
    pub fn count(self) -> Result<Count, Damage> {
        let mut count = Count::default();
        for record in self {
            count.add(&record?);
        }
        Ok(count)
    }
}

impl Iterator for Records {
    type Item = Result<Record, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = Record::decode(&mut self.0);
        if record.is_err() {
            self.0.clear();
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests;
