//! An archive that is taken in: every part is held against the manifest before it is
//! put, and the manifest itself comes last into the object store. Whatever ends it
//! before, nothing is left. It does not know who sends.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};

use super::{Next, Parser, is_there, opened};
use crate::{
    error::{Error, Result},
    state::{
        checkpoint::{
            CheckpointId, ChunkKey, Damage, Held, Manifest, Owner, Part, Place, Trouble, chunk,
            manifest,
        },
        objects::Objects,
    },
    store::Incarnation,
    tenant::Masters,
};

/// How long a piece is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a part that no manifest tells the size of.
const KEY_BYTES: u64 = 64 << 10;
const MANIFEST_BYTES: u64 = 256 << 20;

/// Pieces as they come; the end is told, so that a sender that was lost is none.
pub type Receiver = mpsc::Receiver<Option<Bytes>>;

/// Takes an archive in; the checkpoint that is there then, and was perhaps before.
///
/// # Errors
/// [`Error::CheckpointCorrupt`] naming the part, [`Error::CheckpointIncompatible`],
/// [`Error::Invalid`] for what is no archive; those of the object store.
pub async fn receive(
    objects: &Objects,
    masters: &Masters,
    pieces: &mut Receiver,
) -> Result<CheckpointId> {
    let mut taking = Taking {
        objects,
        masters,
        parser: Parser::default(),
        pieces,
        id: None,
        known: Known::default(),
        wrote: false,
    };
    match taking.all().await {
        Ok(id) => Ok(id),
        Err(error) => {
            if let Some(id) = taking.id.as_ref().filter(|_| taking.wrote)
                && !is_there(objects, id).await.unwrap_or(true)
                && let Err(fault) = objects.remove_all(id).await
            {
                tracing::warn!(checkpoint = %id, %fault, "part of an upload stays");
            }
            Err(error)
        }
    }
}

struct Taking<'a> {
    objects: &'a Objects,
    masters: &'a Masters,
    parser: Parser,
    pieces: &'a mut Receiver,
    id: Option<CheckpointId>,
    known: Known,
    wrote: bool,
}

/// What is known of a checkpoint by the parts that came first.
#[derive(Default)]
struct Known {
    key: Option<(Bytes, ChunkKey)>,
    manifest: Option<(Bytes, Manifest)>,
    index: Option<BTreeMap<Owner, Held>>,
    chunks: BTreeSet<u32>,
    purged: Option<HashSet<Incarnation>>,
}

impl Taking<'_> {
    async fn all(&mut self) -> Result<CheckpointId> {
        loop {
            let next = self.parser.next();
            let next = next.map_err(|why| self.no_archive(why))?;
            match next {
                Next::More => match timeout(PATIENCE, self.pieces.recv()).await {
                    Ok(Some(Some(piece))) => self.parser.push(&piece),
                    Ok(Some(None)) => return Err(self.no_archive("it is cut off".into())),
                    Ok(None) | Err(_) => {
                        return Err(self.no_archive("the rest of it never came".into()));
                    }
                },
                Next::Id(id) => {
                    if is_there(self.objects, &id).await? {
                        opened(self.objects, self.masters, &id).await?;
                        return Ok(id);
                    }
                    self.id = Some(id);
                }
                Next::Head(part, bytes) => self.expect(part, bytes)?,
                Next::Body(part, bytes) => self.take(part, bytes).await?,
                Next::End => return self.finish().await,
            }
        }
    }

    fn id(&self) -> Result<&CheckpointId> {
        let none = || Error::Internal("a part came before the id".into());
        self.id.as_ref().ok_or_else(none)
    }

    /// What is wrong with the archive itself.
    fn no_archive(&self, problem: String) -> Error {
        match &self.id {
            Some(id) => Error::CheckpointCorrupt {
                checkpoint_id: id.to_string(),
                part: "archive".into(),
                problem,
            },
            None => Error::invalid("chunk", problem),
        }
    }

    fn damaged(&self, part: Part, what: impl Into<String>) -> Error {
        match self.id() {
            Ok(id) => Trouble::Damaged(Damage::new(what)).of(id, part),
            Err(error) => error,
        }
    }

    /// Whether such a part may come now, with so many bytes.
    fn expect(&self, part: Part, bytes: u64) -> Result<()> {
        let manifest = self.known.manifest.as_ref().map(|(_, manifest)| manifest);
        let first = || self.damaged(part, "it comes before the manifest");
        let most = match part {
            Part::Key(Owner::Store) => KEY_BYTES,
            Part::Manifest => {
                if self.known.key.is_none() {
                    return Err(self.damaged(part, "it comes before the store's key"));
                }
                MANIFEST_BYTES
            }
            Part::Index => manifest.ok_or_else(first)?.index.bytes,
            Part::Key(Owner::Tenant(_)) => {
                let index = self.known.index.as_ref();
                let index = index.ok_or_else(|| self.damaged(part, "it comes before the index"))?;
                let Part::Key(owner) = part else {
                    return Ok(());
                };
                if !index.contains_key(&owner) {
                    return Err(self.damaged(part, "the index does not tell of its owner"));
                }
                KEY_BYTES
            }
            Part::Chunk(number) => {
                let chunks = &manifest.ok_or_else(first)?.chunks;
                let told = usize::try_from(number).ok().and_then(|n| chunks.get(n));
                let told = told.ok_or_else(|| self.damaged(part, "the manifest has no such"))?;
                if self.known.chunks.contains(&number) {
                    return Err(self.damaged(part, "it comes twice"));
                }
                told.bytes
            }
        };
        if bytes > most {
            return Err(self.damaged(part, format!("it has {bytes} bytes, not {most}")));
        }
        Ok(())
    }

    /// Holds a part against what is known, and puts it.
    async fn take(&mut self, part: Part, bytes: Bytes) -> Result<()> {
        let id = self.id()?.clone();
        let told = |trouble: Trouble| trouble.of(&id, part);
        match part {
            Part::Key(owner @ Owner::Store) => {
                let key = ChunkKey::decode(&bytes, self.masters, &id, owner).map_err(told)?;
                self.known.key = Some((bytes, key));
                return Ok(());
            }
            Part::Manifest => {
                let Some((_, key)) = &self.known.key else {
                    return Ok(());
                };
                // Of a later format is told before what it could not have known.
                Manifest::glance(&bytes, &id).map_err(told)?;
                let manifest = Manifest::decode(&bytes, &id, key).map_err(told)?;
                if manifest.store.key_check != key.check() {
                    let part = Part::Key(Owner::Store);
                    return Err(self.damaged(part, "it is another key than the manifest's"));
                }
                self.known.manifest = Some((bytes, manifest));
                return Ok(());
            }
            Part::Index => {
                let Some((_, manifest)) = &self.known.manifest else {
                    return Ok(());
                };
                let index = manifest::decode_index(&bytes, &manifest.index).map_err(told)?;
                self.known.index = Some(index.into_iter().map(|held| (held.owner, held)).collect());
            }
            Part::Key(owner) => {
                let key = ChunkKey::decode(&bytes, self.masters, &id, owner).map_err(told)?;
                let index = self.known.index.as_ref();
                let held = index.and_then(|index| index.get(&owner));
                if held.is_none_or(|held| held.key_check != key.check()) {
                    return Err(self.damaged(part, "it is another key than the index's"));
                }
                if let Owner::Tenant(life) = owner
                    && self.purged().await?.contains(&life)
                {
                    // Nobody is to read what the checkpoint holds of it again.
                    return Ok(());
                }
            }
            Part::Chunk(number) => {
                let manifest = self.known.manifest.as_ref().map(|(_, manifest)| manifest);
                let digest = manifest.and_then(|m| m.chunks.get(usize::try_from(number).ok()?));
                let Some(digest) = digest else { return Ok(()) };
                let place = Place {
                    checkpoint: id.clone(),
                    chunk: number,
                };
                chunk::blocks(&place, &bytes, digest)
                    .map_err(|damage| Trouble::Damaged(damage).of(&id, part))?;
                self.known.chunks.insert(number);
            }
        }
        self.wrote = true;
        self.objects.put(&id, part, bytes).await?;
        Ok(())
    }

    /// The tenants that were purged, as known when the first key came.
    async fn purged(&mut self) -> Result<&HashSet<Incarnation>> {
        if self.known.purged.is_none() {
            self.known.purged = Some(self.objects.purged().await?);
        }
        Ok(self.known.purged.get_or_insert_default())
    }

    async fn finish(&mut self) -> Result<CheckpointId> {
        let id = self.id()?.clone();
        let known = std::mem::take(&mut self.known);
        let missing = |part| self.damaged(part, "it is missing");
        let (key, _) = known.key.ok_or_else(|| missing(Part::Key(Owner::Store)))?;
        let (bytes, manifest) = known.manifest.ok_or_else(|| missing(Part::Manifest))?;
        known.index.ok_or_else(|| missing(Part::Index))?;
        let all = (0..u32::try_from(manifest.chunks.len()).unwrap_or(u32::MAX)).collect();
        let left: Vec<u32> = known.chunks.symmetric_difference(&all).copied().collect();
        if let Some(number) = left.first() {
            return Err(missing(Part::Chunk(*number)));
        }
        self.wrote = true;
        self.objects.put(&id, Part::Key(Owner::Store), key).await?;
        self.objects.create(&id, Part::Manifest, bytes).await?;
        opened(self.objects, self.masters, &id).await?;
        Ok(id)
    }
}
