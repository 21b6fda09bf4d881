//! Warming a tenant's cache: entries stored, and keys pulled into this replica's
//! memory, as a stream of parts brings them. It does not know where the parts come
//! from, nor why they end.
//!
//! Items leave in pieces of a good size for the store, a few at a time, and the
//! next part is asked for only when there is room for it: what a warming holds is
//! bounded, however fast its parts could come and however slow the store is. What
//! waits at the store is not overtaken by a later item of the same key.

mod queue;

use std::pin::pin;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesOrdered};

use self::queue::{Piece, Queue, What};
use super::{
    Cache, Condition, Pulled, Set,
    doings::{Doing, Doings},
    rules,
    rules::At,
};
use crate::{
    error::{Error, Result, Violations},
    tenant::{Counts, Tenancy},
};

/// Failures that are told, of all.
const TOLD: usize = 100;

/// Part of what is to be warm.
#[derive(Debug)]
pub struct Part {
    /// The call, as it was admitted for this part.
    pub tenancy: Tenancy,
    /// Entries to store; with the keys at most as many as a batch may have.
    pub entries: Vec<NewEntry>,
    /// Keys to pull.
    pub keys: Vec<String>,
}

/// An entry to be written that holds what a [`Set`] borrows.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct NewEntry {
    pub key: String,
    pub value: Bytes,
    pub ttl_ms: Option<i64>,
    pub content_type: String,
    pub tags: Vec<String>,
    pub condition: Option<Condition>,
    pub if_version: i64,
}

impl NewEntry {
    fn set(&self) -> Set<'_> {
        Set {
            key: &self.key,
            value: &self.value,
            ttl_ms: self.ttl_ms,
            content_type: &self.content_type,
            tags: &self.tags,
            condition: self.condition,
            if_version: self.if_version,
            lease_token: "",
        }
    }
}

/// What a warming came to.
#[derive(Debug, Default)]
pub struct Warmed {
    /// Entries stored.
    pub stored: u64,
    /// Keys whose entry is in memory now.
    pub pulled: u64,
    /// Keys whose entry is there and not in memory: it is too large, none are kept,
    /// or the store cannot tell of changes now.
    pub not_kept: u64,
    /// Keys without an entry.
    pub missing: u64,
    /// Items that failed.
    pub failed: u64,
    /// The first 100 of them.
    pub failures: Vec<Failed>,
}

/// An item that failed.
#[derive(Debug)]
pub struct Failed {
    /// Its number among all items, from 0: each part's entries, then its keys.
    pub item: u64,
    /// Its key.
    pub key: String,
    /// Why.
    pub error: Error,
}

/// What became of an item.
enum Done {
    Stored,
    Pulled,
    NotKept,
    Missing,
}

/// A piece that is back from the store.
struct Landed {
    piece: Piece,
    done: Result<Vec<Result<Done>>>,
}

impl Cache {
    /// Stores and pulls what the parts bring, in order, each item on its own, until
    /// they end; and what came of the items up to the one it stopped at, if it did.
    ///
    /// # Errors
    /// Why it stopped: [`Error::Invalid`] and [`Error::ScopeMissing`] for the
    /// namespace, [`Error::BatchTooLarge`] for a part, and the store's; for an item
    /// as [`Cache::set`] and [`Cache::get`].
    pub async fn warm(
        &self,
        namespace: &str,
        parts: impl Stream<Item = Part> + Send,
    ) -> (Warmed, Result<()>) {
        let mut warmed = Warmed::default();
        let namespace = match rules::only_namespace(namespace) {
            Ok(namespace) => namespace,
            Err(error) => return (warmed, Err(error)),
        };
        let mut parts = pin!(parts.fuse());
        let mut queue = Queue::default();
        let mut flying: FuturesOrdered<BoxFuture<'_, Landed>> = FuturesOrdered::new();
        let mut stopped = None;
        loop {
            let room = queue.has_room() && !parts.is_done() && stopped.is_none();
            if room && let Some(next) = parts.next().now_or_never() {
                stopped = next.and_then(|part| self.take(namespace, part, &mut queue).err());
                continue;
            }
            // A small piece only where nothing is on its way that it could wait for.
            let whole = flying.is_empty() || parts.is_done() || stopped.is_some();
            if let Some(piece) = queue.cut(whole) {
                flying.push_back(self.fly(namespace, piece).boxed());
                continue;
            }
            tokio::select! {
                Some(Landed { piece, done }) = flying.next() => {
                    queue.land(&piece);
                    if let Err(error) = warmed.tally(piece, done, &self.doings) {
                        // Nothing behind it counts, though it may be stored too.
                        while flying.next().await.is_some() {}
                        return (warmed, Err(error));
                    }
                }
                Some(part) = parts.next(), if room => {
                    stopped = self.take(namespace, part, &mut queue).err();
                }
                else => if flying.is_empty() && !room {
                    return (warmed, stopped.map_or(Ok(()), Err));
                },
            }
        }
    }

    /// Takes a part into the queue, if it is in order as a whole.
    fn take(&self, namespace: &str, part: Part, queue: &mut Queue) -> Result<()> {
        let (limit, items) = (
            self.settings.load().max_batch_items,
            part.entries.len() + part.keys.len(),
        );
        if items > limit {
            let longer = part.entries.len() >= part.keys.len();
            return Err(Error::BatchTooLarge {
                field: if longer { "entries" } else { "keys" },
                items,
                limit,
            });
        }
        part.tenancy.reach_namespace(namespace)?;
        queue.push(part);
        Ok(())
    }

    /// Brings a piece to the store.
    async fn fly(&self, namespace: &str, piece: Piece) -> Landed {
        let done = match &piece.what {
            What::Entries(entries) => self.store_piece(namespace, &piece, entries).await,
            What::Keys(keys) => self.pull_piece(namespace, &piece, keys).await,
        };
        Landed { piece, done }
    }

    async fn store_piece(
        &self,
        namespace: &str,
        piece: &Piece,
        entries: &[NewEntry],
    ) -> Result<Vec<Result<Done>>> {
        let tenancy = &piece.tenancy;
        let sets: Vec<_> = entries.iter().map(NewEntry::set).collect();
        let settings = self.settings.load_full();
        let check = |(set, &place): (&Set<'_>, &usize)| {
            let at = At::Item("entries", place);
            let allowed = rules::set(set, at, tenancy, &settings, Violations::default())?;
            tenancy.reach_key(namespace, set.key)?;
            Ok(allowed)
        };
        let checked = sets.iter().zip(&piece.places).map(check).collect();
        let written = self
            .set_each(tenancy, namespace, &sets, checked, piece.operations)
            .await?;
        let stored = |written: Result<_>| written.map(|_| Done::Stored);
        Ok(written.into_iter().map(stored).collect())
    }

    async fn pull_piece(
        &self,
        namespace: &str,
        piece: &Piece,
        keys: &[String],
    ) -> Result<Vec<Result<Done>>> {
        let pulled = self.pull(&piece.tenancy, namespace, keys).await?;
        // Values go to nobody; what is carried are the keys.
        piece.tenancy.account.meter.count(Counts {
            operations: piece.operations,
            bytes_in: keys.iter().map(|key| key.len() as u64).sum(),
            ..Counts::default()
        });
        let done = |pulled: Result<Pulled>| {
            pulled.map(|pulled| match pulled {
                Pulled::Near => Done::Pulled,
                Pulled::Left => Done::NotKept,
                Pulled::Missing => Done::Missing,
            })
        };
        Ok(pulled.into_iter().map(done).collect())
    }
}

impl Warmed {
    /// Counts what became of a piece, all pieces before it being counted.
    fn tally(
        &mut self,
        piece: Piece,
        done: Result<Vec<Result<Done>>>,
        doings: &Doings,
    ) -> Result<()> {
        for (key, done) in piece.what.into_keys().zip(done?) {
            let item = self.items();
            let (sum, doing) = match done {
                Ok(Done::Stored) => (&mut self.stored, Doing::Stored),
                Ok(Done::Pulled) => (&mut self.pulled, Doing::Pulled),
                Ok(Done::NotKept) => (&mut self.not_kept, Doing::NotKept),
                Ok(Done::Missing) => (&mut self.missing, Doing::Missing),
                Err(error) => {
                    if self.failures.len() < TOLD {
                        self.failures.push(Failed { item, key, error });
                    }
                    (&mut self.failed, Doing::Failed)
                }
            };
            *sum += 1;
            doings.count(doing);
        }
        Ok(())
    }

    /// How many items came to something.
    pub fn items(&self) -> u64 {
        self.stored + self.pulled + self.not_kept + self.missing + self.failed
    }
}
