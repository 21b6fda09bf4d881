//! Answering from this replica's memory: whether what is kept may be answered, and
//! reading what is not, so that it is kept where that is worth it. It does not know
//! what else the caller asked for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Cache, Consistency, Entry, Freshness, Near,
    near::{Found, Kept, Place, Turn},
    rules,
    rules::At,
    snapshot::{Seen, Snapshot},
};
use crate::{
    error::Result,
    moment,
    store::{Key, Record, STALENESS},
    tenant::Tenancy,
};

/// What memory has to say about a key.
pub(super) enum Recall<'a> {
    /// The entry.
    Near(Entry),
    /// Nothing that the caller would take: ask the store.
    Ask,
    /// Nothing yet: ask the store, with others or for them.
    Fetch(Fetch<'a>),
}

/// A key that is about to be read.
pub(super) struct Fetch<'a> {
    near: &'a Near,
    place: Place<'a>,
    namespace: &'a str,
    user_key: &'a str,
    key: Key,
    /// Whether what is read is to be kept.
    worth: bool,
    /// Whether what somebody else reads would do.
    shared: bool,
}

impl Fetch<'_> {
    /// Whether what is read is to be kept.
    pub(super) fn keeps(&self) -> bool {
        self.worth
    }
}

/// A batch's read is watched where one in so many of its keys, or more, is worth
/// keeping: the store then tells of changes of all of them.
const WORTHY_PART: usize = 4;

/// How far behind the store an answer may be; `None` where the store itself must
/// give it.
fn behind(freshness: &Freshness) -> Option<Duration> {
    if freshness.consistency != Some(Consistency::Eventual) {
        return None;
    }
    let max_age = freshness
        .max_age_ms
        .map(|ms| Duration::from_millis(ms.try_into().unwrap_or_default()));
    match max_age {
        Some(Duration::ZERO) => None,
        Some(max_age) => Some(max_age.min(STALENESS)),
        None => Some(STALENESS),
    }
}

impl Cache {
    /// The entry from memory, or what there is to do.
    pub(super) fn recall<'a>(
        &'a self,
        tenancy: &'a Tenancy,
        namespace: &'a str,
        key: &'a str,
        freshness: &Freshness,
    ) -> Recall<'a> {
        let (Some(near), Some(behind)) = (&self.memory.near, behind(freshness)) else {
            return Recall::Ask;
        };
        let snapshot = self.memory.snapshots.get(tenancy.home);
        let asked = self.asked(namespace, behind, freshness);
        let place = near.place(&tenancy.space, namespace, key);
        match asked.of(near, &place, key, snapshot.as_deref()) {
            Ok(kept) => Recall::Near(kept.entry()),
            Err(worth) => Recall::Fetch(Fetch {
                near,
                place,
                namespace,
                user_key: key,
                key: Key::entry(namespace, key),
                worth,
                shared: behind == STALENESS && freshness.min_version == 0,
            }),
        }
    }

    fn asked<'a>(&self, namespace: &'a str, behind: Duration, freshness: &Freshness) -> Asked<'a> {
        Asked {
            namespace,
            behind,
            min_version: freshness.min_version,
            now: moment::now(),
            now_ms: self.store.now_ms(),
        }
    }

    /// The same for keys of a namespace, no two of them alike.
    pub(super) fn recall_each<'a>(
        &'a self,
        tenancy: &'a Tenancy,
        namespace: &'a str,
        keys: &[&'a str],
        freshness: &Freshness,
    ) -> Recalled<'a> {
        let (Some(near), Some(behind)) = (&self.memory.near, behind(freshness)) else {
            return Recalled {
                found: keys.iter().map(|_| None).collect(),
                asked: keys.iter().map(|key| Key::entry(namespace, key)).collect(),
                wanted: Vec::new(),
                near: None,
            };
        };
        let snapshot = self.memory.snapshots.get(tenancy.home);
        let asked = self.asked(namespace, behind, freshness);
        let mut recalled = Recalled {
            found: Vec::with_capacity(keys.len()),
            asked: Vec::new(),
            wanted: Vec::new(),
            near: None,
        };
        let mut worthy = 0;
        for key in keys {
            let place = near.place(&tenancy.space, namespace, key);
            let found = asked.of(near, &place, key, snapshot.as_deref());
            if let Err(worth) = found {
                worthy += usize::from(worth);
                recalled.asked.push(Key::entry(namespace, key));
                let wanted = worth.then(|| (place, near.token(&place)));
                recalled.wanted.push(wanted);
            }
            recalled.found.push(found.ok());
        }
        // It is one read, so that all are watched or none.
        if worthy > 0 && worthy * WORTHY_PART >= recalled.asked.len() {
            recalled.near = Some(near);
        }
        recalled
    }

    /// Reads a key for whoever asks for it at this time.
    pub(super) async fn fetch(&self, tenancy: &Tenancy, fetch: Fetch<'_>) -> Result<Option<Entry>> {
        let Fetch {
            near, place, key, ..
        } = &fetch;
        if !fetch.shared {
            return self.read_for(tenancy, &fetch, near.token(place)).await;
        }
        loop {
            let snapshot = self.memory.snapshots.get(tenancy.home);
            let view = snapshot.map(|snapshot| snapshot.view);
            match near.turn(place, &tenancy.space, &key.path, view) {
                Turn::Lead(lead) => {
                    let answer = self.read_for(tenancy, &fetch, lead.token).await;
                    lead.land(&answer);
                    return answer;
                }
                Turn::Follow(follow) => {
                    if let Some(answer) = follow.answer().await {
                        return answer;
                    }
                }
            }
        }
    }

    async fn read_for(
        &self,
        tenancy: &Tenancy,
        fetch: &Fetch<'_>,
        token: u64,
    ) -> Result<Option<Entry>> {
        let keys = std::slice::from_ref(&fetch.key);
        let mut seen = self.see(tenancy, keys, fetch.worth).await?;
        let record = seen.records.pop().flatten();
        let (namespace, key) = (fetch.namespace, fetch.user_key);
        let shown = Self::shown(&seen.snapshot, namespace, key, record);
        let entry = Self::open(tenancy, namespace, key, shown)?;
        if let (true, Some(entry)) = (fetch.worth, &entry) {
            let at = (&fetch.place, &fetch.key, token);
            keep(fetch.near, tenancy, at, &seen, entry, false);
        }
        Ok(entry)
    }
}

/// What memory has to say about the keys of a batch.
pub(super) struct Recalled<'a> {
    /// What was found, one for each key, in order.
    pub(super) found: Vec<Option<Arc<Kept>>>,
    /// What is to be asked for, in order.
    pub(super) asked: Vec<Key>,
    /// Where it is to be kept, and the token, one for each of them, in order.
    wanted: Vec<Option<(Place<'a>, u64)>>,
    /// Where any is to be kept.
    near: Option<&'a Near>,
}

impl Recalled<'_> {
    /// Whether the read is to be watched.
    pub(super) fn watched(&self) -> bool {
        self.near.is_some()
    }

    /// Keeps an entry that was read, if that is wanted; by its place in `asked`.
    pub(super) fn keep(&self, tenancy: &Tenancy, at: usize, seen: &Seen, entry: &Entry) {
        if let (Some(near), Some(Some((place, token))), Some(key)) =
            (self.near, self.wanted.get(at), self.asked.get(at))
        {
            let at = (place, key, *token);
            keep(near, tenancy, at, seen, entry, false);
        }
    }
}

/// What is asked for, by a call that began now.
struct Asked<'a> {
    namespace: &'a str,
    behind: Duration,
    min_version: i64,
    now: Instant,
    now_ms: u64,
}

impl Asked<'_> {
    /// What is kept under a key and may be answered; else whether what will be read
    /// is worth keeping.
    fn of(
        &self,
        near: &Near,
        place: &Place<'_>,
        key: &str,
        snapshot: Option<&Snapshot>,
    ) -> std::result::Result<Arc<Kept>, bool> {
        let kept = match near.find(place) {
            Found::Kept(kept) => kept,
            Found::Nothing { worth } => return Err(worth),
        };
        let Some(snapshot) = snapshot else {
            return Err(true);
        };
        if self.over(key, &kept, snapshot) {
            near.forget(place, &kept);
            return Err(true);
        }
        let fresh = snapshot.holds_within(self.now, self.behind)
            && kept.generation == snapshot.view.generation
            && kept.vouch.holds_within(self.now, self.behind)
            && snapshot.tells_of((self.namespace, key), &kept, self.now)
            && i64::try_from(kept.version).is_ok_and(|version| version >= self.min_version);
        if fresh { Ok(kept) } else { Err(true) }
    }

    /// Whether no call can be answered with it any more.
    fn over(&self, key: &str, kept: &Kept, snapshot: &Snapshot) -> bool {
        kept.generation < snapshot.view.generation
            || snapshot.hides(self.namespace, key, kept)
            || kept.expire_ms.is_some_and(|end| end <= self.now_ms)
            || !kept.vouch.holds(self.now)
    }
}

/// Keeps an entry near that was read.
fn keep(
    near: &Near,
    tenancy: &Tenancy,
    (place, key, token): (&Place<'_>, &Key, u64),
    seen: &Seen,
    entry: &Entry,
    wanted: bool,
) -> bool {
    let Some(vouch) = seen.vouch.clone() else {
        return false;
    };
    let generation = seen.snapshot.view.generation;
    let whose = (&tenancy.space, &*key.path);
    let kept = Kept::new(entry, whose, generation, vouch, seen.read);
    near.keep(place, token, kept, wanted)
}

/// What became of a key that was pulled near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// Its entry is kept.
    Near,
    /// There is an entry, and it is not kept: it is too large, or the store cannot
    /// tell of changes now.
    Left,
    /// There is no entry.
    Missing,
}

impl Cache {
    /// Reads entries and keeps them near, whatever leaves for them; one result each,
    /// in order. Nothing is metered.
    ///
    /// # Errors
    /// As [`Cache::batch_get`].
    pub async fn pull(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        keys: &[String],
    ) -> Result<Vec<Result<Pulled>>> {
        rules::batch("keys", keys.len(), &self.settings.load())?;
        let namespace = rules::only_namespace(namespace)?;
        tenancy.reach_namespace(namespace)?;
        let check = |(index, key): (usize, &String)| {
            rules::item_key(tenancy, namespace, key, At::Value("keys", index))
        };
        let checked: Vec<Result<()>> = keys.iter().enumerate().map(check).collect();
        let allowed: Vec<&str> = keys
            .iter()
            .zip(&checked)
            .filter(|(_, allowed)| allowed.is_ok())
            .map(|(key, _)| key.as_str())
            .collect();
        let mut pulled = self
            .pull_allowed(tenancy, namespace, &allowed)
            .await?
            .into_iter();
        let result = |allowed: Result<()>| {
            allowed?;
            pulled.next().unwrap_or(Ok(Pulled::Missing))
        };
        Ok(checked.into_iter().map(result).collect())
    }

    async fn pull_allowed(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        keys: &[&str],
    ) -> Result<Vec<Result<Pulled>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let near = self.memory.near.as_ref();
        let places = keys.iter().map(|key| {
            let near = near?;
            let place = near.place(&tenancy.space, namespace, key);
            Some((near, place, near.token(&place)))
        });
        let places: Vec<_> = places.collect();
        let paths: Vec<_> = keys.iter().map(|key| Key::entry(namespace, key)).collect();
        let mut seen = self.see(tenancy, &paths, true).await?;
        let records = std::mem::take(&mut seen.records).into_iter();
        let one = |(((record, at), path), key): (((Option<Record>, Option<_>), &Key), &&str)| {
            let shown = Self::shown(&seen.snapshot, namespace, key, record);
            let Some(entry) = Self::open(tenancy, namespace, key, shown)? else {
                return Ok(Pulled::Missing);
            };
            let kept = at.is_some_and(|(near, place, token)| {
                let at = (&place, path, token);
                keep(near, tenancy, at, &seen, &entry, true)
            });
            Ok(if kept { Pulled::Near } else { Pulled::Left })
        };
        Ok(records.zip(places).zip(&paths).zip(keys).map(one).collect())
    }
}
