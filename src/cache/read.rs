//! Reading entries: from this replica's memory, else by one read of the store,
//! however many keys. It does not know what is worth remembering.

use std::collections::HashMap;

use super::{Cache, Entry, Freshness, recall::Recall, rules, rules::At, snapshot::Snapshot};
use crate::{
    codec::{Frame, Head},
    error::{Error, Result, Violations},
    store::{Key, Record},
    tenant::{Counts, Tenancy},
};

/// What a compressed value may open to: the most that a configuration may allow
/// new ones, so that a limit set lower makes no older entry unreadable.
const OPENED_BYTES: usize = 256 << 20;

/// Bytes of values in the answer of a batch. A thousand values that compress
/// well would else open to many times what their tenant may store.
const ANSWER_BYTES: u64 = 64 << 20;

impl Cache {
    /// The entry under a key; `None` is a miss.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::ScopeMissing`], [`Error::EntryCorrupt`], and
    /// the store's.
    pub async fn get(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        key: &str,
        freshness: &Freshness,
    ) -> Result<Option<Entry>> {
        let mut violations = Violations::default();
        rules::freshness(freshness, &mut violations);
        let namespace = rules::place(tenancy, namespace, key, violations)?;
        let (entry, near) = match self.recall(tenancy, namespace, key, freshness) {
            Recall::Near(entry) => (Some(entry), true),
            // Boxed, so that what is near is answered without the room of these.
            Recall::Ask => (Box::pin(self.ask(tenancy, namespace, key)).await?, false),
            Recall::Fetch(fetch) => (Box::pin(self.fetch(tenancy, fetch)).await?, false),
        };
        let counts = Counts {
            operations: 1,
            hits: u64::from(entry.is_some()),
            near_hits: u64::from(near),
            misses: u64::from(entry.is_none()),
            bytes_in: key.len() as u64,
            bytes_out: entry.as_ref().map_or(0, |entry| entry.value.len() as u64),
            ..Counts::default()
        };
        tenancy.count_read(namespace, counts);
        Ok(entry)
    }

    /// The entry under a key as the store has it.
    async fn ask(&self, tenancy: &Tenancy, namespace: &str, key: &str) -> Result<Option<Entry>> {
        let keys = [Key::entry(namespace, key)];
        let mut seen = self.see(tenancy, &keys, false).await?;
        let record = seen.records.pop().flatten();
        let shown = Self::shown(&seen.snapshot, namespace, key, record);
        Self::open(tenancy, namespace, key, shown)
    }

    /// The entries under keys, one result each, in order; what is wrong with one
    /// does not hinder the others.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::BatchTooLarge`], [`Error::ScopeMissing`] for
    /// the namespace, and the store's; for a key as [`Cache::get`], and
    /// [`Error::AnswerTooLarge`] where the values before it fill the answer.
    pub async fn batch_get(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        keys: &[String],
        freshness: &Freshness,
    ) -> Result<Vec<Result<Option<Entry>>>> {
        rules::batch("keys", keys.len(), &self.settings.load())?;
        let mut violations = Violations::default();
        rules::freshness(freshness, &mut violations);
        let namespace = rules::namespace(namespace, &mut violations);
        violations.check()?;
        tenancy.reach_namespace(namespace)?;

        // A key that is named twice is read once; for each item, where its key
        // stood first.
        let mut first: HashMap<&str, usize> = HashMap::with_capacity(keys.len());
        let mut wanted = Vec::with_capacity(keys.len());
        let mut places = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            let allowed = rules::item_key(tenancy, namespace, key, At::Value("keys", index));
            places.push(allowed.map(|()| {
                *first.entry(key).or_insert_with(|| {
                    wanted.push(key.as_str());
                    index
                })
            }));
        }
        if wanted.is_empty() {
            let refused = places.into_iter().map(|place| place.map(|_| None));
            return Ok(refused.collect());
        }
        let recalled = self.recall_each(tenancy, namespace, &wanted, freshness);
        let mut seen = match &*recalled.asked {
            [] => None,
            asked => Some(self.see(tenancy, asked, recalled.watched()).await?),
        };
        let read = seen.as_mut().map(|seen| std::mem::take(&mut seen.records));
        let mut records = read.unwrap_or_default().into_iter().enumerate();
        let mut found = recalled.found.iter();
        let mut room = ANSWER_BYTES;
        let mut results: Vec<Result<Option<Entry>>> = Vec::with_capacity(keys.len());
        let mut near = Vec::with_capacity(keys.len());
        for (key, place) in keys.iter().zip(places) {
            let (result, is_near) = match place.map(|first| (results.get(first), near.get(first))) {
                Ok((Some(opened), is_near)) => {
                    let is_near = is_near.copied().unwrap_or_default();
                    (Self::repeat_within(&mut room, opened), is_near)
                }
                Ok((None, _)) => match (found.next(), &seen) {
                    (Some(Some(kept)), _) => {
                        let bytes = kept.value.len() as u64;
                        (Self::take_within(&mut room, bytes, || kept.entry()), true)
                    }
                    (_, Some(seen)) => {
                        let (at, record) = records.next().unwrap_or_default();
                        let shown = Self::shown(&seen.snapshot, namespace, key, record);
                        let open = |record| Self::open(tenancy, namespace, key, record);
                        let opened = Self::open_within(&mut room, shown, open);
                        if let Ok(Some(entry)) = &opened {
                            recalled.keep(tenancy, at, seen, entry);
                        }
                        (opened, false)
                    }
                    (_, None) => (Ok(None), false),
                },
                Err(refused) => (Err(refused), false),
            };
            results.push(result);
            near.push(is_near);
        }
        tenancy.count_read(namespace, counts(keys, &results, &near));
        Ok(results)
    }

    /// The entry in a record, if its value fits into the room that is left; one
    /// value always fits, however large.
    fn open_within(
        room: &mut u64,
        record: Option<Record>,
        open: impl FnOnce(Option<Record>) -> Result<Option<Entry>>,
    ) -> Result<Option<Entry>> {
        // What is wrong with a head, opening tells.
        let head = record.as_ref().map(|record| Head::decode(&record.value));
        let head = head.and_then(|head| head.ok().flatten());
        let size_bytes = head.map_or(0, |head| head.size_bytes);
        Self::fits(*room, size_bytes)?;
        let entry = open(record)?;
        if entry.is_some() {
            *room = room.saturating_sub(size_bytes);
        }
        Ok(entry)
    }

    /// The same result once more, sharing its value; the answer holds it as often
    /// as it was asked for, so it takes its room each time.
    fn repeat_within(room: &mut u64, opened: &Result<Option<Entry>>) -> Result<Option<Entry>> {
        match opened {
            Ok(Some(entry)) => Self::take_within(room, entry.value.len() as u64, || entry.clone()),
            other => other.clone(),
        }
    }

    /// An entry that is open already, if its value fits into the room that is left.
    fn take_within(
        room: &mut u64,
        size_bytes: u64,
        entry: impl FnOnce() -> Entry,
    ) -> Result<Option<Entry>> {
        Self::fits(*room, size_bytes)?;
        *room = room.saturating_sub(size_bytes);
        Ok(Some(entry()))
    }

    /// Whether a value goes into the room that is left; the first always does.
    fn fits(room: u64, size_bytes: u64) -> Result<()> {
        if size_bytes > room && room < ANSWER_BYTES {
            return Err(Error::AnswerTooLarge {
                limit: ANSWER_BYTES,
            });
        }
        Ok(())
    }

    /// The record of an entry; `None` where an invalidation hides it. Of one that is
    /// damaged, opening tells.
    pub(super) fn shown(
        snapshot: &Snapshot,
        namespace: &str,
        key: &str,
        record: Option<Record>,
    ) -> Option<Record> {
        record.filter(|found| snapshot.hides_record(namespace, key, found) != Ok(Some(true)))
    }

    /// The entry in a record; `None` where there is none, or where a newer version
    /// of this service wrote it. One that does not open is told in the audit log.
    pub(super) fn open(
        tenancy: &Tenancy,
        namespace: &str,
        key: &str,
        record: Option<Record>,
    ) -> Result<Option<Entry>> {
        let Some(record) = record else {
            return Ok(None);
        };
        let place = tenancy.place(namespace, key);
        let opened = Frame::decode(&record.value, OPENED_BYTES, &place).inspect_err(|error| {
            if let Error::EntryCorrupt(why) = error {
                tenancy.tell_unopened(why);
            }
        });
        let Some(frame) = opened? else {
            return Ok(None);
        };
        Ok(Some(Entry {
            value: frame.value,
            content_type: frame.content_type,
            tags: frame.tags,
            version: record.version,
            create_ms: frame.create_ms,
            expire_ms: record.expire_ms,
            stored_bytes: frame.stored_bytes,
        }))
    }
}

/// What a batch came to: one operation, and each key as often as it was named,
/// but for those that broke a rule. An entry that could not be answered is
/// neither a hit nor a miss.
fn counts(keys: &[String], results: &[Result<Option<Entry>>], near: &[bool]) -> Counts {
    let mut counts = Counts {
        operations: 1,
        ..Counts::default()
    };
    for ((key, result), &near) in keys.iter().zip(results).zip(near) {
        match result {
            Ok(Some(entry)) => {
                counts.hits += 1;
                counts.near_hits += u64::from(near);
                counts.bytes_out += entry.value.len() as u64;
            }
            Ok(None) => counts.misses += 1,
            Err(Error::Invalid(_) | Error::ScopeMissing { .. }) => continue,
            Err(_) => {}
        }
        counts.bytes_in += key.len() as u64;
    }
    counts
}
