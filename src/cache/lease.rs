//! Leases of refills: of all who miss an entry one refills it, and the others wait
//! or make do with what was there before. It does not know where a value comes
//! from.
//!
//! # A lease
//!
//! A lease is a record beside the entry's, in the same space and generation, put
//! where neither was there; its version is what the token tells. Versions grow with
//! each write in a space, so whatever is below it was there before the lease and gone
//! by then, and whatever is above it was set since: a refill is one commit that finds
//! the lease at its version and no entry above it.
//!
//! What voids a lease: its end; a flush, since it lies in the generation and above
//! the floors that the entry would have to lie above; and any write that makes the
//! entry's absence mean something else, because it removes the lease
//! ([`forget_leases`]).

mod flights;
mod token;
mod writes;

use std::time::Duration;

use self::flights::{Flight, Passenger};
pub(super) use self::{
    flights::Flights,
    token::Token,
    writes::{forget_leases, is_refill, refill},
};
use super::{
    Cache, Entry, Freshness,
    doings::Doing,
    floors::NO_TAGS,
    recall::Recall,
    refusal::refused,
    rules,
    snapshot::{ATTEMPTS, Seen},
};
use crate::{
    error::{Error, Result, Violations},
    store::{self, Batch, Check, Commit, Expiry, Key, Outcome, Record, Refusal, Write},
    tenant::{Counts, Tenancy},
};

/// How long a refill may take, in milliseconds.
pub const LEASE_MS: std::ops::RangeInclusive<u64> = 100..=60_000;
/// Where a call does not say it.
const DEFAULT_MS: u64 = 10_000;

/// The bounds of when to come again, in milliseconds: half the time that the refill
/// has taken so far, so that nobody waits for much longer than it takes.
const AGAIN_MS: std::ops::RangeInclusive<u64> = 20..=500;

/// How a call asks for an entry that it would refill.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refill {
    /// How long its refill may take, in milliseconds; `None` means 10 s.
    pub duration_ms: Option<i64>,
    /// Whether the entry as it was will do while another refills it.
    pub stale_ok: bool,
}

/// What a call that would refill an entry is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leased {
    /// The entry.
    Entry(Entry),
    /// There is none; this call is to refill it, and sets it with the token.
    Refill(String),
    /// There is none, and another call refills it.
    Wait {
        /// When to come again.
        again: Duration,
        /// The entry as it was, where that will do and is still known.
        stale: Option<Entry>,
    },
}

/// What was found of an entry, for all calls that wanted to know at once.
#[derive(Clone, Debug)]
enum Found {
    Entry(Entry),
    /// There is none, and a lease of its refill.
    Lease {
        grant: Grant,
        /// Whether it was granted now, to one of them.
        now: bool,
        /// The entry as it was.
        stale: Option<Entry>,
    },
    /// Nobody wanted to know any more.
    Nothing,
}

/// A lease that is held.
#[derive(Clone, Copy, Debug)]
struct Grant {
    version: u64,
    /// When it was granted and when it ends, by the store's clock.
    since_ms: u64,
    until_ms: u64,
}

impl Cache {
    /// The entry under a key, or a lease to refill it, or when to come again. Calls
    /// of this core that come while others of the same entry are on their way to the
    /// store go together, once those are back.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn get_or_lease(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        key: &str,
        refill: &Refill,
    ) -> Result<Leased> {
        let mut violations = Violations::default();
        let duration_ms = rules::lease_duration(refill.duration_ms, &mut violations);
        let namespace = rules::place(tenancy, namespace, key, violations)?;
        let duration_ms = duration_ms.unwrap_or(DEFAULT_MS);
        let fresh = Freshness::default();
        if let Recall::Near(entry) = self.recall(tenancy, namespace, key, &fresh) {
            tenancy.count_read(namespace, counts(key, Some(&entry), true));
            self.doings.count(Doing::LeaseUnneeded);
            return Ok(Leased::Entry(entry));
        }

        let (passenger, answer) = Passenger::new(duration_ms);
        let place = (tenancy.home, Key::refill(namespace, key));
        if let Some(flight) = self.flights.board(place, passenger) {
            let (cache, tenancy) = (self.clone(), tenancy.clone());
            let (namespace, key) = (namespace.to_owned(), key.to_owned());
            // Whatever becomes of the caller: a lease that was taken for one who
            // has gone away goes to another.
            tokio::spawn(
                async move { cache.ask_for_all(&tenancy, &namespace, &key, flight).await },
            );
        }
        let lost = || store::Error::Unavailable("the way to the store was broken off".into());
        let found = answer.await.map_err(|_| lost())??;
        let leased = self.tell(tenancy, namespace, key, refill, found)?;
        let (entry, doing) = match &leased {
            Leased::Entry(entry) => (Some(entry), Doing::LeaseUnneeded),
            Leased::Refill(_) => (None, Doing::LeaseGranted),
            Leased::Wait { stale: None, .. } => (None, Doing::LeaseAwaited),
            Leased::Wait { stale, .. } => (stale.as_ref(), Doing::LeaseWithStale),
        };
        self.doings.count(doing);
        tenancy.count_read(namespace, counts(key, entry, false));
        Ok(leased)
    }

    /// What one call is told of what was found.
    fn tell(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        key: &str,
        refill: &Refill,
        found: Found,
    ) -> Result<Leased> {
        match found {
            Found::Entry(entry) => Ok(Leased::Entry(entry)),
            Found::Lease {
                grant, now: true, ..
            } => {
                let token = Token::new(tenancy.incarnation, namespace, key, grant.version);
                Ok(Leased::Refill(token.encode()))
            }
            Found::Lease { grant, stale, .. } => Ok(Leased::Wait {
                again: grant.again(self.store.now_ms()),
                stale: stale.filter(|_| refill.stale_ok),
            }),
            Found::Nothing => Err(Error::RequestInProgress),
        }
    }

    /// Asks the store for all who came until it set out, and again for those who
    /// came meanwhile.
    async fn ask_for_all(&self, tenancy: &Tenancy, namespace: &str, key: &str, mut flight: Flight) {
        loop {
            let found = self
                .find_or_take(tenancy, namespace, key, || flight.first_ms())
                .await;
            let there = matches!(found, Ok(Found::Entry(_)));
            if let Some(grant) = flight.land(found) {
                self.give_up(tenancy, namespace, key, grant.version).await;
            }
            // An entry that is asked for often is to be near, whoever asks.
            if there
                && let Recall::Fetch(fetch) =
                    self.recall(tenancy, namespace, key, &Freshness::default())
                && fetch.keeps()
                && let Err(error) = self.fetch(tenancy, fetch).await
            {
                tracing::debug!(%error, "an entry is not kept near");
            }
            if !flight.takes_off_again() {
                return;
            }
        }
    }

    /// The entry, or the lease that somebody has; the lease itself where there is
    /// neither and `wanted` tells for how long.
    async fn find_or_take(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        key: &str,
        wanted: impl Fn() -> Option<u64>,
    ) -> Result<Found> {
        let keys = [Key::entry(namespace, key), Key::refill(namespace, key)];
        for _ in 0..ATTEMPTS {
            let Seen {
                records, snapshot, ..
            } = self.see_lingering(tenancy, &keys).await?;
            let now_ms = self.store.now_ms();
            let ended = |record: &Record| record.expire_ms.is_some_and(|end| end <= now_ms);
            let mut records = records.into_iter();
            let (entry, lease) = (records.next().flatten(), records.next().flatten());
            let shown = entry.clone().filter(|entry| !ended(entry));
            let shown = Self::shown(&snapshot, namespace, key, shown);
            if let Some(entry) = Self::open(tenancy, namespace, key, shown)? {
                return Ok(Found::Entry(entry));
            }
            let hidden = entry.as_ref().map_or(0, |entry| entry.version);
            // What cannot be opened will not do; the refill mends it.
            let stale = Self::open(tenancy, namespace, key, entry).ok().flatten();
            let void = snapshot.floors.void(namespace, key.as_bytes(), NO_TAGS);
            let lease = lease.filter(|lease| !ended(lease) && lease.version > void);
            if let Some(lease) = lease {
                return Ok(Found::Lease {
                    grant: Grant::of(&lease),
                    now: false,
                    stale,
                });
            }
            let Some(duration_ms) = wanted() else {
                return Ok(Found::Nothing);
            };
            let [entry_key, lease_key] = keys.clone();
            let absent = Write::check(entry_key, Check::Absent).above(void.max(hidden));
            let take = Write::put(lease_key, now_ms.to_be_bytes().to_vec())
                .when(Check::Absent)
                .above(void)
                .expiring(Expiry::AfterMs(duration_ms));
            let batch = Batch {
                view: Some(snapshot.view),
                // What was invalidated since hides no more of what is seen here, and
                // whatever came since is above the floors that are known.
                later: snapshot.view.epoch > 0,
                ..Batch::of([absent, take])
            };
            match self.store.commit(&tenancy.space, batch).await? {
                Commit::Applied(applied) => {
                    if snapshot.view.epoch == 0 {
                        // The first commit begins the first epoch; nothing came between.
                        self.keep(tenancy, applied.view, snapshot.floors.clone());
                    }
                    return match applied.outcomes.get(1) {
                        Some(Outcome::Done {
                            version,
                            expire_ms: Some(until_ms),
                            ..
                        }) => Ok(Found::Lease {
                            grant: Grant {
                                version: *version,
                                since_ms: until_ms.saturating_sub(duration_ms),
                                until_ms: *until_ms,
                            },
                            now: true,
                            stale,
                        }),
                        _ => Err(Error::Internal("the store did not tell a lease".into())),
                    };
                }
                Commit::Refused(Refusal::Gone) => {
                    return Err(tenancy.departed(&self.store).await);
                }
                Commit::Refused(refusal @ Refusal::Fenced) => {
                    return Err(refused(tenancy, &refusal));
                }
                // Another was first, or the space has moved on: what is there now?
                Commit::Refused(_) => {}
            }
        }
        Err(Error::RequestInProgress)
    }

    /// Ends a lease, if it is still that one, so that the next call gets another. It
    /// would end by itself, so that nothing is lost where the store does not answer.
    async fn give_up(&self, tenancy: &Tenancy, namespace: &str, key: &str, version: u64) {
        let end = Write::delete(Key::refill(namespace, key)).when(Check::Version(version));
        let given_up = match self.snapshot(tenancy).await {
            Ok(snapshot) => {
                let batch = Batch {
                    view: Some(snapshot.view),
                    later: snapshot.view.epoch > 0,
                    ..Batch::of([end])
                };
                let commit = self.store.commit(&tenancy.space, batch).await;
                commit.map(drop).map_err(Error::from)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = given_up {
            tracing::debug!(%error, "a lease is left to end by itself");
        }
    }

    /// Why a refill was refused. Its lease is no use any more, so it is ended for
    /// whoever waits for it.
    pub(super) async fn lapsed(
        &self,
        tenancy: &Tenancy,
        namespace: &str,
        key: &str,
        version: u64,
        refusal: &Refusal,
    ) -> Error {
        let Refusal::Conflict { found, .. } = refusal else {
            return refused(tenancy, refusal);
        };
        self.give_up(tenancy, namespace, key, version).await;
        lapsed(match found {
            Some(found) if *found > version => {
                format!("the entry or its lease was taken by another, at version {found}")
            }
            _ => "the lease has ended, or the entry was removed or invalidated since".to_owned(),
        })
    }
}

/// What a call came to: a hit where it was shown an entry, if only as it was.
fn counts(key: &str, entry: Option<&Entry>, near: bool) -> Counts {
    Counts {
        operations: 1,
        hits: u64::from(entry.is_some()),
        near_hits: u64::from(near),
        misses: u64::from(entry.is_none()),
        bytes_in: key.len() as u64,
        bytes_out: entry.map_or(0, |entry| entry.value.len() as u64),
        ..Counts::default()
    }
}

/// What is said to whoever comes with a lease that is none any more.
pub(super) fn lapsed(description: impl Into<String>) -> Error {
    Error::ConditionNotMet {
        subject: "lease_token".to_owned(),
        description: description.into(),
    }
}

impl Grant {
    /// Reads a lease's record.
    fn of(record: &Record) -> Self {
        let since = record.value.first_chunk().copied();
        Self {
            version: record.version,
            since_ms: since.map_or(0, u64::from_be_bytes),
            until_ms: record.expire_ms.unwrap_or(0),
        }
    }

    fn duration_ms(&self) -> u64 {
        self.until_ms.saturating_sub(self.since_ms)
    }

    /// When to come again.
    fn again(&self, now_ms: u64) -> Duration {
        let taken = now_ms.saturating_sub(self.since_ms);
        let left = self.until_ms.saturating_sub(now_ms).max(1);
        let again = (taken / 2).clamp(*AGAIN_MS.start(), *AGAIN_MS.end());
        Duration::from_millis(again.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_comes_as_often_as_the_refill_takes_long() {
        let grant = Grant {
            version: 1,
            since_ms: 1_000,
            until_ms: 11_000,
        };
        for (now_ms, again_ms) in [
            (900, 20),
            (1_000, 20),
            (1_100, 50),
            (1_900, 450),
            (3_000, 500),
            (10_700, 300),
            (10_999, 1),
            (11_000, 1),
            (20_000, 1),
        ] {
            let again = grant.again(now_ms);
            assert_eq!(again, Duration::from_millis(again_ms), "at {now_ms}");
        }
    }
}
