//! A checkpoint as one stream of bytes: to be carried from one object store to another.
//! It does not know how the bytes travel, nor what the parts hold.
//!
//! An archive is `RCKA1\n`, the checkpoint's id, then the parts one behind the other:
//! bytes of the name (2, big endian), the name, bytes of the part (8), the part. A name
//! of no bytes ends it. The store's key, the manifest and the index come first, so that
//! all that follows is held against them as it comes: nothing is kept that the manifest
//! does not tell of, and no more of it is waited for than it says.

mod receive;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub use self::receive::{Receiver, receive};
use super::{
    checkpoint::{CheckpointId, Owner, Part, Reader, Trouble},
    objects::Objects,
};
use crate::error::{Error, Result};

const MAGIC: &[u8; 6] = b"RCKA1\n";

/// Bytes of a name at most: no part has a longer one.
const NAME_BYTES: usize = 64;

/// Bytes sent at once.
pub const PIECE_BYTES: usize = 1 << 20;

/// The parts of a checkpoint, in the order of an archive.
///
/// # Errors
/// Those of the object store.
async fn parts(objects: &Objects, id: &CheckpointId) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = objects
        .list(id)
        .await?
        .into_iter()
        .map(|o| o.part)
        .collect();
    parts.sort_by_key(|part| match part {
        Part::Key(Owner::Store) => (0, *part),
        Part::Manifest => (1, *part),
        Part::Index => (2, *part),
        Part::Key(Owner::Tenant(_)) => (3, *part),
        Part::Chunk(_) => (4, *part),
    });
    Ok(parts)
}

/// A checkpoint being sent.
pub struct Sender {
    objects: Objects,
    id: CheckpointId,
    parts: std::vec::IntoIter<Part>,
    /// What is to be sent before the next part is read.
    waiting: BytesMut,
    ended: bool,
}

impl Sender {
    /// Begins to send a checkpoint that is whole.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::CheckpointCorrupt`] for one that has no manifest;
    /// those of the object store.
    pub async fn begin(objects: &Objects, id: &CheckpointId) -> Result<Self> {
        let parts = parts(objects, id).await?;
        if parts.is_empty() {
            return Err(Error::no_checkpoint(id.as_str()));
        }
        if !parts.contains(&Part::Manifest) {
            let damage = super::checkpoint::Damage::new("it is missing");
            return Err(Trouble::Damaged(damage).of(id, Part::Manifest));
        }
        let mut waiting = BytesMut::from(&MAGIC[..]);
        waiting.put_slice(id.as_str().as_bytes());
        Ok(Self {
            objects: objects.clone(),
            id: id.clone(),
            parts: parts.into_iter(),
            waiting,
            ended: false,
        })
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// Those of the object store.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.waiting.len() < PIECE_BYTES && !self.ended {
            let Some(part) = self.parts.next() else {
                self.waiting.put_u16(0);
                self.ended = true;
                break;
            };
            // One that has gone is a key of a tenant that is being purged, or will be
            // missed by whoever takes the archive.
            let Some(bytes) = self.objects.get(&self.id, part).await? else {
                continue;
            };
            let name = part.to_string();
            self.waiting.put_uint(name.len() as u64, 2);
            self.waiting.put_slice(name.as_bytes());
            self.waiting.put_u64(bytes.len() as u64);
            self.waiting.extend_from_slice(&bytes);
        }
        let piece = self.waiting.len().min(PIECE_BYTES);
        Ok((piece > 0).then(|| self.waiting.split_to(piece).freeze()))
    }
}

/// What comes next in an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More bytes are needed.
    More,
    /// The id.
    Id(CheckpointId),
    /// A part, whose bytes follow.
    Head(Part, u64),
    /// The bytes of that part.
    Body(Part, Bytes),
    /// Nothing.
    End,
}

/// An archive being read, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Parser {
    waiting: BytesMut,
    id: Option<CheckpointId>,
    open: Option<(Part, usize)>,
    ended: bool,
}

impl Parser {
    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.waiting.extend_from_slice(piece);
    }

    /// What is there, in words of what is wrong where it is none.
    pub(super) fn next(&mut self) -> std::result::Result<Next, String> {
        if self.ended {
            return if self.waiting.is_empty() {
                Ok(Next::End)
            } else {
                Err("something follows its end".into())
            };
        }
        let Some(_) = &self.id else {
            return self.id();
        };
        if let Some((part, bytes)) = self.open {
            if self.waiting.len() < bytes {
                return Ok(Next::More);
            }
            self.open = None;
            return Ok(Next::Body(part, self.waiting.split_to(bytes).freeze()));
        }
        let Some(length) = self.waiting.get(..2) else {
            return Ok(Next::More);
        };
        let length = usize::from(u16::from_be_bytes([
            length.first().copied().unwrap_or_default(),
            length.last().copied().unwrap_or_default(),
        ]));
        if length == 0 {
            self.waiting.advance(2);
            self.ended = true;
            return self.next();
        }
        if length > NAME_BYTES {
            return Err(format!("a part's name has {length} bytes"));
        }
        if self.waiting.len() < 2 + length + 8 {
            return Ok(Next::More);
        }
        self.waiting.advance(2);
        let name = self.waiting.split_to(length);
        let part = std::str::from_utf8(&name).ok().and_then(Part::parse);
        let part = part.ok_or("it holds what is no part of a checkpoint")?;
        let bytes = self.waiting.get_u64();
        let size = usize::try_from(bytes).map_err(|_| "a part is too large")?;
        self.open = Some((part, size));
        Ok(Next::Head(part, bytes))
    }

    fn id(&mut self) -> std::result::Result<Next, String> {
        let head = MAGIC.len() + CheckpointId::CHARS;
        let begun = self.waiting.len().min(MAGIC.len());
        if self.waiting.get(..begun) != MAGIC.get(..begun) {
            return Err("it does not begin as an archive of a checkpoint does".into());
        }
        if self.waiting.len() < head {
            return Ok(Next::More);
        }
        self.waiting.advance(MAGIC.len());
        let id = self.waiting.split_to(CheckpointId::CHARS);
        let id = std::str::from_utf8(&id).map_err(|_| "it names no checkpoint")?;
        let id = CheckpointId::parse(id).map_err(|why| why.to_string())?;
        self.id = Some(id.clone());
        Ok(Next::Id(id))
    }
}

/// Whether a whole checkpoint is there.
async fn is_there(objects: &Objects, id: &CheckpointId) -> Result<bool> {
    Ok(objects.get(id, Part::Manifest).await?.is_some())
}

/// What was received, opened again as anybody would.
async fn opened(
    objects: &Objects,
    masters: &crate::tenant::Masters,
    id: &CheckpointId,
) -> Result<()> {
    Reader::open(objects, masters, id).await.map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive(id: &CheckpointId, parts: &[(Part, &[u8])]) -> Vec<u8> {
        let mut out = BytesMut::from(&MAGIC[..]);
        out.put_slice(id.as_str().as_bytes());
        for (part, bytes) in parts {
            let name = part.to_string();
            out.put_uint(name.len() as u64, 2);
            out.put_slice(name.as_bytes());
            out.put_u64(bytes.len() as u64);
            out.put_slice(bytes);
        }
        out.put_u16(0);
        out.to_vec()
    }

    proptest! {
        #[test]
        fn parts_come_back_however_they_are_cut(cut in 1usize..50) {
            let id = CheckpointId::new(1);
            let parts = [(Part::Manifest, &b"m"[..]), (Part::Chunk(7), &[9; 300]), (Part::Index, b"")];
            let bytes = archive(&id, &parts);
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                parser.push(piece);
                loop {
                    match parser.next().unwrap() {
                        Next::More | Next::End => break,
                        Next::Id(found) => prop_assert_eq!(&found, &id),
                        Next::Head(..) => {}
                        Next::Body(part, bytes) => found.push((part, bytes)),
                    }
                }
            }
            prop_assert_eq!(parser.next().unwrap(), Next::End);
            for ((part, bytes), (expected, content)) in found.iter().zip(parts) {
                prop_assert_eq!(*part, expected);
                prop_assert_eq!(&bytes[..], content);
            }
            prop_assert_eq!(found.len(), parts.len());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut parser = Parser::default();
            parser.push(MAGIC);
            parser.push(CheckpointId::new(1).as_str().as_bytes());
            parser.push(&bytes);
            while let Ok(Next::Id(_) | Next::Head(..) | Next::Body(..)) = parser.next() {}
        }
    }

    #[test]
    fn what_is_no_archive_is_told() {
        let id = CheckpointId::new(1);
        let whole = archive(&id, &[(Part::Index, b"i")]);
        let mut named = archive(&id, &[(Part::Index, b"i")]);
        let at = named.windows(5).position(|w| w == b"index").unwrap();
        named[at..at + 5].copy_from_slice(b"../xx");
        for (bytes, why) in [
            (b"PK".to_vec(), "begin"),
            ([&MAGIC[..], b"../../../etc/passwd/......"].concat(), "id"),
            (named, "no part"),
            ([&whole[..], b"x"].concat(), "follows"),
        ] {
            let mut parser = Parser::default();
            parser.push(&bytes);
            let told = loop {
                match parser.next() {
                    Ok(Next::More | Next::End) => break None,
                    Ok(_) => {}
                    Err(told) => break Some(told),
                }
            };
            assert!(
                told.as_ref().is_some_and(|t| t.contains(why)),
                "{why}: {told:?}"
            );
        }
    }
}
