//! The keys of checkpoints are wrapped anew by the master key that writes, page by page:
//! those that open its blocks, and the data keys in the records of encrypted tenants. The
//! records themselves stay as they are; their data keys as they are wrapped now lie
//! beside the tenant's key ([`ChunkKey::data_keys`]). It does not know why the master key
//! changed.
//!
//! An object with a key is put in one step, with the same key in it: whatever ends this,
//! each is as it was or as it is to be, both open while both master keys are configured,
//! and what the manifest vouches for is not touched. Whatever of it is repeated changes
//! nothing.
//!
//! While the keys of a checkpoint are wrapped, a purge waits ([`Work::Rewrapping`]): else
//! a key that it removes could be put back.

use std::collections::{BTreeMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    CheckpointId, Checkpoints, ChunkKey, Held, Owner, Part, Trouble,
    turn::{Turn, Work},
};
use crate::{
    error::{Error, Result},
    state::restore::Contents,
    store::{Cursor, Incarnation},
    tenant::{Encryption, data_key::no_master, page::Listing},
};

/// Keys that are wrapped at the same time.
const AT_ONCE: usize = 8;

/// What became of a page of keys, all of one checkpoint.
#[derive(Debug, Default)]
pub struct Rewrapped {
    /// The id of the master key that writes.
    pub master_key: String,
    /// The checkpoint; `None` where there is none that has not been told of.
    pub checkpoint: Option<CheckpointId>,
    /// Whether it is being taken: then its keys are not looked at.
    pub being_taken: bool,
    /// Keys looked at.
    pub keys: u64,
    /// Keys that were wrapped anew; in a rehearsal, that would be.
    pub rewrapped: u64,
    /// How many keys each master key wraps now, by its id; in a rehearsal, as it is.
    pub master_keys: BTreeMap<String, u64>,
    /// Keys that cannot be unwrapped, and are as they were.
    pub lost: Vec<LostKey>,
    /// The token of the next page; empty at the end.
    pub next_page_token: String,
}

/// A key that cannot be unwrapped, or a part without which none can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostKey {
    /// The part of the checkpoint.
    pub part: String,
    /// The master key it names; empty where it is damaged.
    pub master_key: String,
    /// Why it cannot be unwrapped.
    pub why: String,
}

/// A page of keys that are worked on.
struct Page<'a> {
    id: &'a CheckpointId,
    /// The last tenant of the page before.
    after: Option<&'a str>,
    size: usize,
    rehearse: bool,
    purged: HashSet<Incarnation>,
}

impl Checkpoints {
    /// Wraps the keys of at most `size` tenants in one checkpoint by the master key that
    /// writes, where another or none wraps them; the newest checkpoint comes first.
    /// `rehearse` tells what would be done. One that is being taken is only named.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`]; [`Error::ConditionNotMet`] where there is no master
    /// key; [`Error::RequestInProgress`] where another does the same; those of both stores.
    pub async fn rewrap(&self, size: usize, page_token: &str, rehearse: bool) -> Result<Rewrapped> {
        let (this, page_token) = (self.clone(), page_token.to_owned());
        self.away(async move { this.rewrap_page(size, &page_token, rehearse).await })
            .await
    }

    async fn rewrap_page(
        &self,
        size: usize,
        page_token: &str,
        rehearse: bool,
    ) -> Result<Rewrapped> {
        let vault = &self.vault;
        let (objects, tenants) = (&vault.objects, &vault.tenants);
        let listing = Listing {
            name: "RewrapCheckpointKeys",
            filter: &[],
        };
        let master_key = tenants.masters().writing().ok_or_else(no_master)?;
        let after = tenants.open_page(&listing, page_token).await?;
        let after = after.map(|cursor| Place::parse(&cursor)).transpose()?;
        let mut ids = objects.checkpoints().await?;
        ids.retain(|id| after.as_ref().is_none_or(|after| after.may_have_more(id)));
        let mut ids = ids.into_iter().peekable();
        while let Some(id) = ids.next() {
            let complete = objects.get(&id, Part::Manifest).await?.is_some();
            // What is left of one that was cut off goes by itself.
            if !complete && !self.is_running(&id).await? {
                continue;
            }
            let page = Page {
                id: &id,
                after: after.as_ref().and_then(|after| after.within(&id)),
                size,
                rehearse,
                purged: objects.purged().await?,
            };
            let (mut report, last) = if complete {
                self.rewrap_in_turn(&page).await?
            } else {
                (Rewrapped::default(), None)
            };
            let next = match last {
                Some(last) => Some(Place::cursor(&id, Some(&last))),
                None => ids.peek().map(|_| Place::cursor(&id, None)),
            };
            if let Some(next) = &next {
                report.next_page_token = tenants.seal_page(&listing, next).await?;
            }
            return Ok(Rewrapped {
                master_key,
                checkpoint: Some(id),
                being_taken: !complete,
                ..report
            });
        }
        Ok(Rewrapped {
            master_key,
            ..Rewrapped::default()
        })
    }

    /// What became of a page, and its last tenant where others follow.
    async fn rewrap_in_turn(&self, page: &Page<'_>) -> Result<(Rewrapped, Option<String>)> {
        if page.rehearse {
            return self.rewrap_keys(page).await;
        }
        let vault = &self.vault;
        let mut turn = Turn::take(&vault.store, Work::Rewrapping, page.id, &vault.me, []).await?;
        let done = tokio::select! {
            done = self.rewrap_keys(page) => done,
            lost = turn.keep() => Err(lost),
        };
        turn.end().await;
        done
    }

    async fn rewrap_keys(&self, page: &Page<'_>) -> Result<(Rewrapped, Option<String>)> {
        let objects = &self.vault.objects;
        let mut report = Rewrapped::default();
        if page.after.is_none() {
            // First: nothing of a checkpoint opens without it.
            let of_store = self.rewrap_key(page, Owner::Store, None).await?;
            let lost = !of_store.lost.is_empty();
            report.add(of_store);
            if lost {
                return Ok((report, None));
            }
        }
        let opened = async {
            let reader = self.open(page.id).await?;
            let index = reader.index().await?;
            Ok::<_, Error>((reader, index))
        };
        let (reader, mut index) = match opened.await {
            Ok(opened) => opened,
            Err(error) => {
                report.lost.push(LostKey::of(error)?);
                return Ok((report, None));
            }
        };
        index.retain(|held| {
            page.after
                .is_none_or(|after| held.tenant_id.as_str() > after)
        });
        let more = index.len() > page.size;
        index.truncate(page.size);
        let contents = Contents::of(&reader);
        let mut asked = Vec::with_capacity(index.len());
        for held in &index {
            asked.push(self.rewrap_key(page, held.owner, Some((&contents, held))));
        }
        let outcomes: Vec<Rewrapped> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        outcomes.into_iter().for_each(|one| report.add(one));
        if !page.rehearse {
            // Where this replica stood still for longer than its turn, a purge may not
            // have waited for it.
            for life in objects.purged().await?.difference(&page.purged) {
                let part = Part::Key(Owner::Tenant(*life));
                objects.remove(page.id, part).await?;
            }
        }
        let last = index.last().filter(|_| more);
        Ok((report, last.map(|held| held.tenant_id.clone())))
    }

    /// One owner's key, and its data keys.
    async fn rewrap_key(
        &self,
        page: &Page<'_>,
        owner: Owner,
        held: Option<(&Contents<'_>, &Held)>,
    ) -> Result<Rewrapped> {
        let (vault, id, part) = (&self.vault, page.id, Part::Key(owner));
        let (objects, masters) = (&vault.objects, vault.tenants.masters());
        let mut report = Rewrapped::default();
        if let Owner::Tenant(life) = owner
            && page.purged.contains(&life)
        {
            if !page.rehearse {
                objects.remove(id, part).await?;
            }
            return Ok(report);
        }
        let Some(bytes) = objects.get(id, part).await? else {
            // Its tenant was purged.
            return Ok(report);
        };
        let by = ChunkKey::wrapped_by(&bytes, id, owner);
        let by = by.map_err(|trouble| (String::new(), trouble));
        let read = by.and_then(|by| match ChunkKey::decode(&bytes, masters, id, owner) {
            Ok(key) => Ok((by, key)),
            Err(trouble) => Err((by.unwrap_or_default(), trouble)),
        });
        let (by, mut key) = match read {
            Ok(read) => read,
            Err((master_key, trouble)) => {
                report.keys = 1;
                report.count([(master_key.clone(), 1)]);
                report.lost.push(LostKey::told(part, master_key, trouble));
                return Ok(report);
            }
        };
        let mut data_keys = match (&key.data_keys, held) {
            (Some(known), _) => known.clone(),
            (None, None) => Encryption::default(),
            (None, Some((contents, held))) => match contents.registered(held, &key).await {
                Ok(found) => found
                    .and_then(|found| found.tenant.encryption)
                    .unwrap_or_default(),
                Err(error) => {
                    report.lost.push(LostKey::of(error)?);
                    Encryption::default()
                }
            },
        };
        let before = data_keys.by_master_key();
        report.keys = 1 + data_keys.data_keys.len() as u64;
        if let Owner::Tenant(life) = owner {
            let (rewrapped, lost) = masters.rewrap("", life, &mut data_keys)?;
            report.rewrapped = rewrapped;
            report.lost.extend(lost.into_iter().map(|lost| LostKey {
                part: part.to_string(),
                master_key: lost.master_key,
                why: lost.why,
            }));
        }
        let stays = masters.writing() == by;
        report.rewrapped += u64::from(!stays);
        if page.rehearse || report.rewrapped == 0 {
            report.count(by.map(|by| (by, 1)).into_iter().chain(before));
            return Ok(report);
        }
        let after = data_keys.by_master_key();
        key.data_keys = Some(data_keys);
        let bytes = key.encode(masters, id, owner)?;
        let Ok(Some(by)) = ChunkKey::wrapped_by(&bytes, id, owner) else {
            // The master keys were taken away by a reload.
            return Err(no_master());
        };
        let back = ChunkKey::decode(&bytes, masters, id, owner);
        if back.ok().is_none_or(|back| back.check() != key.check()) {
            return Err(Error::Internal(format!("{part} of {id} does not wrap")));
        }
        objects.put(id, part, bytes).await?;
        report.count([(by, 1)].into_iter().chain(after));
        Ok(report)
    }
}

impl Rewrapped {
    fn add(&mut self, other: Self) {
        self.keys += other.keys;
        self.rewrapped += other.rewrapped;
        self.count(other.master_keys);
        self.lost.extend(other.lost);
    }

    fn count(&mut self, by: impl IntoIterator<Item = (String, u64)>) {
        for (master_key, count) in by.into_iter().filter(|(id, _)| !id.is_empty()) {
            *self.master_keys.entry(master_key).or_default() += count;
        }
    }
}

impl LostKey {
    fn told(part: Part, master_key: String, trouble: Trouble) -> Self {
        let why = match trouble {
            Trouble::Damaged(damage) => damage.to_string(),
            Trouble::Incompatible(why) => why,
        };
        Self {
            part: part.to_string(),
            master_key,
            why,
        }
    }

    /// A part that cannot be read, without which its keys cannot be looked at.
    fn of(error: Error) -> Result<Self> {
        let (part, why) = match error {
            Error::CheckpointCorrupt { part, problem, .. } => (part, problem),
            Error::CheckpointIncompatible { problem, .. } => (String::new(), problem),
            error => return Err(error),
        };
        Ok(Self {
            part,
            master_key: String::new(),
            why,
        })
    }
}

/// Where a page ended: behind a tenant in a checkpoint, or behind all of it.
struct Place {
    id: CheckpointId,
    tenant_id: Option<String>,
}

impl Place {
    fn cursor(id: &CheckpointId, tenant_id: Option<&str>) -> Cursor {
        let text = match tenant_id {
            Some(tenant_id) => format!("{id}/{tenant_id}"),
            None => id.to_string(),
        };
        Cursor(text.into())
    }

    fn parse(cursor: &Cursor) -> Result<Self> {
        let text = std::str::from_utf8(&cursor.0).map_err(|_| Error::InvalidPageToken)?;
        let (id, tenant_id) = match text.split_once('/') {
            Some((id, tenant_id)) => (id, Some(tenant_id.to_owned())),
            None => (text, None),
        };
        let id = CheckpointId::parse(id).map_err(|_| Error::InvalidPageToken)?;
        Ok(Self { id, tenant_id })
    }

    /// Whether keys of this checkpoint come behind it; the newest are first.
    fn may_have_more(&self, id: &CheckpointId) -> bool {
        *id < self.id || (*id == self.id && self.tenant_id.is_some())
    }

    /// The last tenant of this checkpoint that was looked at.
    fn within(&self, id: &CheckpointId) -> Option<&str> {
        self.tenant_id.as_deref().filter(|_| *id == self.id)
    }
}
