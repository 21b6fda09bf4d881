//! Which events were counted already, for whoever keeps a copy of it elsewhere with the
//! rows they were counted in. It does not know where.
//!
//! A copy is exact where both tell of the same events: one that is in the rows and not
//! among the names counts again when it is repeated, one that is among the names and not
//! in the rows never counts. Rows are read in many steps, and names by a walk that takes
//! longer still. So events are held up while the rows are read (`rows::copying`), the
//! moment is noted, and of the names that are found later those are left out that were
//! counted after it. All of that is by the store's clock in the tenant's meter space: it
//! holds as long as that is not set back while the rows are read.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::{EVENT, REMEMBERED_MS};
use crate::{
    error::{Error, Result},
    store::{
        Batch, Check, Cursor, Expiry, Incarnation, METER_SPACES, Once, Outcome, Recall, Space,
        Tallied, Tally, Write,
    },
    tenant::{Tenants, applied, rows},
};

/// For how long events can be held up by whoever has died since.
pub(super) const COPYING_MS: u64 = 5_000;

/// For how long they are held up at least, so that those before and those after are told
/// apart by the millisecond.
const APART_MS: u64 = 6;

/// Names on a page.
const PAGE: usize = 1000;

/// Walks over a space that could not be whole, at most.
const WALKS: usize = 4;

/// Names that are brought back at once.
const AT_ONCE: usize = 64;

/// An event that was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whose it is.
    pub incarnation: Incarnation,
    /// Its id.
    pub event_id: Bytes,
    /// Until when it is remembered, by the store's clock.
    pub until_ms: u64,
}

impl Counted {
    /// Whether it was counted before this moment.
    pub fn is_before(&self, moment_ms: u64) -> bool {
        self.until_ms.saturating_sub(REMEMBERED_MS) < moment_ms
    }

    fn of(name: &[u8], until_ms: u64) -> Option<Self> {
        let rest = name.strip_prefix(EVENT.as_bytes())?;
        let (incarnation, event_id) =
            rest.split_at_checked(rest.iter().position(|b| *b == b':')?)?;
        Some(Self {
            incarnation: Incarnation::parse(std::str::from_utf8(incarnation).ok()?)?,
            event_id: Bytes::copy_from_slice(event_id.get(1..)?),
            until_ms,
        })
    }
}

/// Events of a tenant that are held up.
#[derive(Debug)]
pub(in crate::tenant) struct Hold {
    life: Incarnation,
    version: u64,
    begun: Instant,
}

/// A walk over the events of tenants that are remembered. It may come to events of
/// others, and to one twice.
#[derive(Debug)]
pub struct Walk {
    spaces: Vec<Space>,
    after: Option<Cursor>,
    /// Walks that were begun.
    begun: usize,
    ended: bool,
}

impl Walk {
    /// One that comes to all events of these tenants.
    pub fn over(lives: impl Iterator<Item = Incarnation>) -> Self {
        let mut wanted = [false; METER_SPACES];
        for life in lives {
            if let Some(wanted) = wanted.get_mut(Space::meters_number(life)) {
                *wanted = true;
            }
        }
        let numbers = wanted.iter().enumerate().filter(|(_, wanted)| **wanted);
        let spaces: Vec<Space> = numbers.map(|(at, _)| Space::meters_at(at)).collect();
        Self {
            ended: spaces.is_empty(),
            spaces,
            after: None,
            begun: 1,
        }
    }

    /// Whether a tenant's events may be missing, at the end.
    pub fn has_lost(&self, life: Incarnation) -> bool {
        self.spaces.contains(&Space::meters(life))
    }
}

impl Tenants {
    /// Holds up events of a tenant, for a while.
    ///
    /// # Errors
    /// The store's.
    pub(in crate::tenant) async fn hold_events(&self, life: Incarnation) -> Result<Hold> {
        let hold = Write::put(rows::copying(life), Bytes::new());
        let hold = hold.expiring(Expiry::AfterMs(COPYING_MS));
        let space = Space::meters(life);
        let commit = self.store.commit(&space, Batch::of([hold]));
        let held = applied(commit.await?)?;
        match held.outcomes.first() {
            Some(Outcome::Done { version, .. }) => Ok(Hold {
                life,
                version: *version,
                begun: Instant::now(),
            }),
            _ => Err(Error::Internal("the store told no version".into())),
        }
    }

    /// Lets events go on. The moment from which on none was counted until now, to be
    /// asked of [`Counted::is_before`]; `None` where they went on before.
    ///
    /// # Errors
    /// The store's.
    pub(in crate::tenant) async fn let_go_of_events(&self, hold: Hold) -> Result<Option<u64>> {
        let apart = Duration::from_millis(APART_MS);
        tokio::time::sleep(apart.saturating_sub(hold.begun.elapsed())).await;
        let (space, key) = (Space::meters(hold.life), rows::copying(hold.life));
        let there = self.store.read(&space, 0, std::slice::from_ref(&key)).await;
        let let_go = Write::delete(key).when(Check::Version(hold.version));
        // Refused where it is over, or another's: then it is not in the way either.
        self.store.commit(&space, Batch::of([let_go])).await?;
        let there = there?.records.into_iter().next().flatten();
        let lasted = there.filter(|there| there.version == hold.version);
        let until_ms = lasted.and_then(|lasted| lasted.expire_ms);
        Ok(until_ms.map(|until_ms| until_ms.saturating_sub(COPYING_MS) + APART_MS / 2))
    }

    /// The next page of a walk; `None` at its end.
    ///
    /// # Errors
    /// The store's.
    pub async fn counted(&self, walk: &mut Walk) -> Result<Option<Vec<Counted>>> {
        if walk.ended {
            return Ok(None);
        }
        let recall = Recall {
            spaces: walk.spaces.clone(),
            prefix: EVENT.into(),
            after: walk.after.take(),
            limit: PAGE,
        };
        let page = self.store.recall(recall).await?;
        walk.after = page.next;
        if walk.after.is_none() {
            // Those that were lost are walked over anew, and last are those still lost.
            let lost = page.lost.iter().filter_map(|at| walk.spaces.get(*at));
            walk.spaces = lost.cloned().collect();
            walk.ended = walk.spaces.is_empty() || walk.begun == WALKS;
            walk.begun += 1;
        }
        let names = page.names.into_iter();
        Ok(Some(
            names
                .filter_map(|found| Counted::of(&found.name, found.until_ms))
                .collect(),
        ))
    }

    /// Lets events of a tenant be as counted, without counting anything, each for the
    /// rest of its time. May be repeated.
    ///
    /// # Errors
    /// The store's.
    pub async fn bring_counted(
        &self,
        life: Incarnation,
        events: impl Iterator<Item = (Bytes, u64)>,
    ) -> Result<()> {
        let space = &Space::meters(life);
        let now_ms = self.store.now_ms();
        let tally = |(event_id, until_ms): (Bytes, u64)| {
            // One whose end is further away was counted by a clock that was ahead.
            let keep_ms = until_ms.saturating_sub(now_ms).min(REMEMBERED_MS);
            let name = [super::name(life, "").as_bytes(), &event_id[..]].concat();
            (keep_ms > 0).then(|| Tally {
                once: Some(Once {
                    name: name.into(),
                    keep_ms,
                }),
                ..Tally::default()
            })
        };
        let tallies: Vec<Tally> = events.filter_map(tally).collect();
        let tallies = tallies
            .into_iter()
            .map(|tally| self.store.tally(space, tally));
        let mut told = stream::iter(tallies).buffer_unordered(AT_ONCE);
        while let Some(tallied) = told.next().await {
            match tallied? {
                Tallied::Added(_) | Tallied::Duplicate => {}
                refused => {
                    return Err(Error::Internal(format!("event not restored: {refused:?}")));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_whose_event_it_is_and_when_it_was_counted() {
        let life = Incarnation::random();
        let name = super::super::name(life, "a:b");
        let counted = Counted::of(name.as_bytes(), REMEMBERED_MS + 7).unwrap();
        assert_eq!(counted.incarnation, life);
        assert_eq!(counted.event_id, b"a:b"[..]);
        assert!(!counted.is_before(7) && counted.is_before(8));
        for other in [&b"restore x"[..], b"event:", b"event:short:a", b"event:"] {
            assert_eq!(Counted::of(other, 1), None);
        }
    }

    #[test]
    fn a_walk_is_over_the_spaces_of_its_tenants() {
        let life = Incarnation::random();
        let walk = Walk::over([life, life].into_iter());
        assert_eq!(walk.spaces, [Space::meters(life)]);
        assert!(walk.has_lost(life) && !walk.ended);
        assert!(Walk::over(std::iter::empty()).ended);
    }
}
