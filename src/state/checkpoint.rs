//! Checkpoints: what tenants held at a moment, as objects that lie elsewhere. It does
//! not know how a backend keeps what is in them.
//!
//! # The format
//!
//! A checkpoint is a folder of objects, named by its id ([`CheckpointId`]):
//!
//! | object | what |
//! |---|---|
//! | `chunk-000000`... | records, in blocks of one owner and one component ([`chunk`]); about 2 MiB, more only where one record is greater |
//! | `key-store`, `key-<incarnation>` | the key of an owner's blocks, wrapped by a master key ([`ChunkKey`]) |
//! | `index` | what it holds of each tenant, and in which chunks ([`Held`]) |
//! | `manifest.json` | counts, and the SHA-256 of `index` and of every chunk, authenticated ([`Manifest`]) |
//!
//! The manifest is written last and where none is, so a checkpoint is whole or it is
//! none: what is left of one that was cut off lacks it. Nothing that was written is
//! changed afterwards, but for keys. Where the master key changes they are wrapped anew:
//! the key in an object stays, and so does all that the manifest vouches for. Those of
//! tenants that are purged are removed, and with them all that the checkpoint held of
//! them. An object `purged/<incarnation>`
//! beside the checkpoints sees to it that a copy from elsewhere does not bring them back.
//!
//! To read one: [`Reader::open`], [`Reader::index`], then for each tenant
//! [`Reader::key`] and those blocks of [`Held::chunks_of`] that it [has](Held::has), of
//! the components asked for: [`Reader::chunk`], [`Block::open`].

mod catalog;
pub mod chunk;
pub mod component;
mod id;
mod key;
pub mod manifest;
mod packing;
mod reader;
mod record;
mod rewrapping;
mod sharing;
mod tail;
mod taking;
mod tally;
mod tending;
mod turn;
pub mod usage;
mod vault;
mod verifying;
mod walk;

pub use catalog::{Checkpoint, Listed};
pub use chunk::{Block, Chunk, Digested, Place, Records};
pub use component::{Component, Count, Counts};
pub use id::{CheckpointId, NotAnId, Owner, PATTERN, Part};
pub use key::ChunkKey;
pub use manifest::{Cause, Held, Manifest, Missed};
pub use reader::Reader;
pub use record::{Kind, Record};
pub use rewrapping::{LostKey, Rewrapped};
pub use taking::{Progress, Wanted};
pub use tally::Tally;
pub use vault::{Begun, Checkpoints, Created};
pub use verifying::Verified;
pub use walk::{Hidden, Hiding};

use crate::error::Error;

/// What is wrong with a part of a checkpoint, in words, without the part's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(String);

impl Damage {
    /// A damage in these words.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Why a part of a checkpoint cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is damaged.
    Damaged(Damage),
    /// It is whole, and not for this service: of a later format, or of a master key that
    /// is not known here.
    Incompatible(String),
}

impl Trouble {
    fn damage(what: impl Into<String>) -> Self {
        Self::Damaged(Damage::new(what))
    }

    fn incompatible(what: impl Into<String>) -> Self {
        Self::Incompatible(what.into())
    }

    /// The error for this part.
    pub fn of(self, id: &CheckpointId, part: Part) -> Error {
        let checkpoint_id = id.to_string();
        match self {
            Self::Damaged(damage) => Error::CheckpointCorrupt {
                checkpoint_id,
                part: part.to_string(),
                problem: damage.to_string(),
            },
            Self::Incompatible(what) => Error::CheckpointIncompatible {
                checkpoint_id,
                problem: format!("{part}: {what}"),
            },
        }
    }
}
