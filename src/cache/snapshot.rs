//! What a replica remembers of a tenant's space, so that a read or a write of an
//! entry is one call: the view, and the floors below which entries are gone. It does
//! not know when a snapshot has passed; the store says so.

mod kept;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) use self::kept::Snapshots;
use self::kept::Token;
use super::{Cache, floors::Floors, near::Kept};
use crate::{
    codec::Head,
    error::{Error, Result},
    store::{Handle, Key, Read, Record, STALENESS, Space, View, Vouch, Watched},
    tenant::Tenancy,
};

/// How often a call is repeated because the space moved on under it. Somebody
/// else's flush succeeds each time, so as many must come within one call.
pub(super) const ATTEMPTS: usize = 20;

/// A tenant's space at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The view.
    pub(super) view: View,
    /// What is gone.
    pub(super) floors: Arc<Floors>,
    /// The promise to tell of changes of the floors, and so of the generation.
    pub(super) vouch: Option<Vouch>,
    /// Since when none of the floors was dropped, as far as this replica knows.
    since: Instant,
    /// The floors before that; `None` where they are not known.
    before: Option<Arc<Floors>>,
}

impl Snapshot {
    /// What was read or written just now.
    fn new(view: View, floors: Arc<Floors>, vouch: Option<Vouch>) -> Self {
        Self {
            view,
            floors,
            vouch,
            since: Instant::now(),
            before: None,
        }
    }

    /// Whether a stored entry is gone: whoever shows one asks first. See
    /// [`Floors::hide_record`], and [`Floors::hide`] for one whose tags are known.
    pub(super) fn hides_record(
        &self,
        namespace: &str,
        key: impl AsRef<[u8]>,
        record: &Record,
    ) -> Result<Option<bool>> {
        self.floors.hide_record(namespace, key.as_ref(), record)
    }

    /// Whether a kept entry is gone.
    pub(super) fn hides(&self, namespace: &str, key: &str, kept: &Kept) -> bool {
        let key = key.as_bytes();
        self.floors.hide(namespace, key, kept.tags(), kept.version)
    }

    /// Whether that alone tells if an entry is gone that was read before. A
    /// floor is dropped when what it hid is removed; that it was, may not have been
    /// told yet where the entry was read before.
    pub(super) fn tells_of(
        &self,
        (namespace, key): (&str, &str),
        kept: &Kept,
        now: Instant,
    ) -> bool {
        let (key, tags) = (key.as_bytes(), kept.tags());
        let shows = |floors: &Floors| !floors.hide(namespace, key, tags, kept.version);
        kept.read >= self.since || self.settled(now) || self.before.as_deref().is_some_and(shows)
    }

    /// Whether all that was removed before a floor was dropped has been told.
    fn settled(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= STALENESS
    }

    /// Whether it is as of now, or no further behind than this.
    pub(super) fn holds_within(&self, now: Instant, behind: Duration) -> bool {
        let vouch = self.vouch.as_ref();
        vouch.is_some_and(|vouch| vouch.holds_within(now, behind))
    }
}

/// What a read is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// What is there.
    Plain,
    /// The same, with the promise to be told of changes.
    Watched,
    /// What is there, and what is over and lingers.
    Lingering,
}

/// What a read saw, and under which snapshot it is to be understood.
pub(super) struct Seen {
    pub(super) records: Vec<Option<Record>>,
    pub(super) snapshot: Arc<Snapshot>,
    /// The promise to tell of changes of the records, where it was asked for.
    pub(super) vouch: Option<Vouch>,
    /// When the records were read, at the earliest.
    pub(super) read: Instant,
}

impl Cache {
    /// The snapshot at hand; taken anew where there is none.
    pub(super) async fn snapshot(&self, tenancy: &Tenancy) -> Result<Arc<Snapshot>> {
        match self.memory.snapshots.get(tenancy.home) {
            Some(snapshot) => Ok(snapshot),
            None => self.reload(tenancy).await,
        }
    }

    /// A snapshot of now.
    pub(super) async fn reload(&self, tenancy: &Tenancy) -> Result<Arc<Snapshot>> {
        let token = self.memory.snapshots.token(tenancy.home);
        let keys = [Floors::key()];
        let Watched { read, vouch } = self.look(&tenancy.space, 0, &keys, Sight::Watched).await?;
        let record = read.records.into_iter().next().flatten();
        self.learn(tenancy, read.view, record.as_ref(), vouch, token)
            .await
    }

    /// Remembers what was just read. A space that was written before and is as new
    /// now has lost its records; whether the tenant itself was lost with them, the
    /// registry tells, so that no write brings back what is gone.
    async fn learn(
        &self,
        tenancy: &Tenancy,
        view: View,
        floors: Option<&Record>,
        vouch: Option<Vouch>,
        token: Token,
    ) -> Result<Arc<Snapshot>> {
        if view == View::GONE {
            return Err(tenancy.departed(&self.store).await);
        }
        let floors = Arc::new(Floors::decode(floors)?);
        let before = self.memory.snapshots.get(tenancy.home);
        if view.epoch == 0 && before.is_some_and(|before| before.view.epoch > 0) {
            tracing::warn!(
                tenant_id = &*tenancy.tenant_id,
                "the tenant's records are gone"
            );
            tenancy.confirm(&self.store).await?;
        }
        let snapshot = Snapshot::new(view, floors, vouch);
        let snapshots = &self.memory.snapshots;
        Ok(snapshots.keep(tenancy.home, snapshot, token))
    }

    /// Remembers what this replica has just written; that it was written is all
    /// the promise there is.
    pub(super) fn keep(&self, tenancy: &Tenancy, view: View, floors: Arc<Floors>) -> Arc<Snapshot> {
        let snapshots = &self.memory.snapshots;
        // A read that began before it must not bring its promise.
        drop(snapshots.passing(tenancy.home));
        let token = snapshots.token(tenancy.home);
        snapshots.keep(tenancy.home, Snapshot::new(view, floors, None), token)
    }

    /// Reads, with a promise where one is wanted and there is somebody to be told.
    async fn look(
        &self,
        space: &Space,
        generation: u64,
        keys: &[Key],
        sight: Sight,
    ) -> Result<Watched> {
        let store = &self.store;
        let read = match sight {
            Sight::Watched if self.memory.near.is_some() => {
                return Ok(store.read_watched(space, generation, keys).await?);
            }
            Sight::Watched | Sight::Plain => store.read(space, generation, keys).await?,
            Sight::Lingering => store.read_lingering(space, generation, keys).await?,
        };
        Ok(Watched { read, vouch: None })
    }

    /// Reads entries as of one moment, with the snapshot of that same moment; with
    /// a promise where one is wanted, for the snapshot as well.
    pub(super) async fn see(&self, tenancy: &Tenancy, keys: &[Key], watched: bool) -> Result<Seen> {
        let sight = if watched {
            Sight::Watched
        } else {
            Sight::Plain
        };
        self.see_by(tenancy, keys, sight).await
    }

    /// The same without a promise, and with entries that are over and still linger.
    pub(super) async fn see_lingering(&self, tenancy: &Tenancy, keys: &[Key]) -> Result<Seen> {
        self.see_by(tenancy, keys, Sight::Lingering).await
    }

    async fn see_by(&self, tenancy: &Tenancy, keys: &[Key], sight: Sight) -> Result<Seen> {
        let mut snapshot = self.snapshot(tenancy).await?;
        for _ in 0..ATTEMPTS {
            let asked = snapshot.view.generation;
            let mut read = Instant::now();
            let learns = sight == Sight::Watched && self.memory.near.is_some();
            let learns = learns && !snapshot.holds_within(read, STALENESS);
            let mut seen;
            if learns {
                // In the same trip, so as of the same moment.
                let with_floors: Vec<_> = keys.iter().cloned().chain([Floors::key()]).collect();
                let token = self.memory.snapshots.token(tenancy.home);
                seen = self
                    .look(&tenancy.space, asked, &with_floors, sight)
                    .await?;
                let floors = seen.read.records.pop().flatten();
                let (view, vouch) = (seen.read.view, seen.vouch.clone());
                snapshot = self
                    .learn(tenancy, view, floors.as_ref(), vouch, token)
                    .await?;
                read = read.max(snapshot.since);
            } else {
                seen = self.look(&tenancy.space, asked, keys, sight).await?;
                if seen.read.view != snapshot.view {
                    snapshot = self.reload(tenancy).await?;
                }
            }
            let view = seen.read.view;
            if view == snapshot.view && view.generation == asked {
                self.learn_data_keys(tenancy, &seen.read.records).await?;
                return Ok(Seen {
                    records: seen.read.records,
                    snapshot,
                    vouch: seen.vouch,
                    read,
                });
            }
        }
        Err(Error::RequestInProgress)
    }

    /// Makes sure that the data keys that sealed these are known: one may have been
    /// made through another replica since the call was admitted.
    pub(super) async fn learn_data_keys(
        &self,
        tenancy: &Tenancy,
        records: &[Option<Record>],
    ) -> Result<()> {
        if tenancy.keyring.is_none() {
            return Ok(());
        }
        let data_key = |record: &Record| Head::decode(&record.value).ok()??.data_key;
        let newest = records.iter().flatten().filter_map(data_key).max();
        match newest {
            Some(newest) => tenancy.learn_data_key(&self.store, newest).await,
            None => Ok(()),
        }
    }
}

/// The floors of a space, and the view at that moment.
pub(super) async fn floors(store: &Handle, space: &Space) -> Result<(View, Floors)> {
    let Read { view, records } = store.read(space, 0, &[Floors::key()]).await?;
    let record = records.into_iter().next().flatten();
    Ok((view, Floors::decode(record.as_ref())?))
}
