//! The walk over pinned spaces: one over the keys of each server that any of them is
//! on, then over what was kept for each. It does not know how pins come about.
//!
//! What was there all the time is found among the keys; what was moved away before
//! the walk came to it stands in the pin's list by the time the keys have all been
//! looked at. So whatever was there is found once at least. Each script that reads
//! proves first that the pin lasts. What no script can see is proved around it: that
//! the keys of a server were all looked at by the same process (its name is asked for
//! with each page), and that a Cluster's slot was all that process' own when the walk
//! over its keys began, and when it ended. A pin for which this does not hold is lost.

mod page;
mod proof;
mod walk;

use bytes::Bytes;
use fred::types::{ClusterHash, Resp3Frame};
use futures::future;

use self::{
    page::Page,
    walk::{Found, Server, Stage, Walk},
};
use super::{
    Redis, keys,
    pins::{id, number},
    reply,
};
use crate::store::{Cursor, Pin, PinnedPage, Result, Table, misuse};

/// SCANs and pieces of lists of one call, at most.
const STEPS: usize = 64;
/// Records asked for at once, and places of a list looked at.
const AT_ONCE: usize = 256;
/// The beginning of all names of spaces.
const ALL: &[u8] = b"v1:{*";

impl Redis {
    /// See [`crate::store::Store::pinned`].
    pub(super) async fn read_pins(
        &self,
        pins: &[Pin],
        tables: &[Table],
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<PinnedPage> {
        misuse::pinned(pins, limit)?;
        let mut walk = match &after {
            Some(cursor) => Walk::read(cursor, pins.len())?,
            None => Walk::begin(
                pins.len(),
                pins.iter().map(|pin| pin.at_ms).min().unwrap_or_default(),
            ),
        };
        self.renew_pins(pins, &mut walk).await?;
        let spaces = pins.iter().map(|pin| pin.space.name()).zip(0..).collect();
        let mut page = Page {
            pins,
            tables,
            spaces,
            items: Vec::new(),
            bytes: 0,
            limit,
        };
        let mut steps = 0;
        let end = loop {
            if page.is_full() || steps == STEPS {
                break false;
            }
            if !walk.pending.is_empty() {
                self.read_pending(&mut page, &mut walk).await?;
                continue;
            }
            match walk.stage {
                Stage::Between => match walk.unseen() {
                    Some(at) => self.arrive(pins, &mut walk, at).await?,
                    None => walk.stage = Stage::Kept(0, 0),
                },
                Stage::Keys(cursor) => {
                    steps += 1;
                    self.look_at_keys(&page, &mut walk, cursor).await?;
                }
                Stage::Kept(at, _) if at >= pins.len() => break true,
                Stage::Kept(at, _) if walk.is_lost(at) => walk.stage = Stage::Kept(at + 1, 0),
                Stage::Kept(at, place) => {
                    steps += 1;
                    self.look_at_kept(&page, &mut walk, at, place).await?;
                }
            }
        };
        self.prove(pins, &mut walk).await?;
        let mut items = page.items;
        items.retain(|item| !walk.is_lost(item.pin));
        Ok(PinnedPage {
            items,
            lost: walk.lost(),
            next: (!end).then(|| walk.write()),
        })
    }

    /// Lets the pins last anew, where a quarter of their time has passed.
    async fn renew_pins(&self, pins: &[Pin], walk: &mut Walk) -> Result<()> {
        let now_ms = self.shared.clock.now_ms();
        let shortest = pins.iter().map(|pin| pin.keep.for_ms).min();
        if now_ms.saturating_sub(walk.renewed_ms) < shortest.unwrap_or_default() / 4 {
            return Ok(());
        }
        let left = (0..pins.len()).filter(|at| !walk.is_lost(*at));
        let left: Vec<usize> = left.collect();
        let renewed = left
            .iter()
            .filter_map(|at| pins.get(*at))
            .map(|pin| self.renew_pin(pin));
        for (at, lasts) in left.iter().zip(future::try_join_all(renewed).await?) {
            if !lasts {
                walk.lose(*at);
            }
        }
        walk.renewed_ms = now_ms;
        Ok(())
    }

    /// Begins with the server of a pin, and all others that are there.
    async fn arrive(&self, pins: &[Pin], walk: &mut Walk, at: usize) -> Result<()> {
        let Some(pin) = pins.get(at) else {
            return Ok(());
        };
        let hash = slot(pin);
        let link = self.pool.link()?;
        let address = link.place(&hash);
        let here: Vec<usize> = pins
            .iter()
            .zip(0..)
            .filter(|(pin, at)| !walk.is_lost(*at) && link.place(&slot(pin)) == address)
            .map(|(_, at)| at)
            .collect();
        let process = self.process(&hash).await?;
        walk.arrive(Server { address, process }, &here);
        let own = self.own(&slots(pins, &here), &hash).await?;
        for (at, own) in here.iter().zip(own) {
            if !own {
                walk.lose(*at);
            }
        }
        if walk.present().is_empty() {
            walk.lose(at);
            walk.stage = Stage::Between;
        }
        Ok(())
    }

    /// Looks at some keys of the present server.
    async fn look_at_keys(&self, page: &Page<'_>, walk: &mut Walk, cursor: u64) -> Result<()> {
        self.leave(page.pins, walk)?;
        let here = walk.present();
        let Some(pin) = here.first().and_then(|at| page.pins.get(*at)) else {
            walk.stage = Stage::Between;
            return Ok(());
        };
        let pattern = match here[..] {
            [_] => keys::pattern(&keys::all(&pin.space)),
            _ => Bytes::from_static(ALL),
        };
        let hash = slot(pin);
        let address = self.pool.link()?.place(&hash);
        let found = self.scan_at((&hash, &address), cursor, pattern).await?;
        let Some((cursor, names)) = found else {
            here.iter().for_each(|at| walk.lose(*at));
            return Ok(());
        };
        walk.pending = names
            .into_iter()
            .filter(|name| page.key(name).is_some_and(|(at, _)| here.contains(&at)))
            .map(|name| Found { name, place: None })
            .collect();
        walk.stage = Stage::Keys(cursor);
        if cursor == 0 {
            let own = self.own(&slots(page.pins, &here), &hash).await?;
            for (at, own) in here.iter().zip(own) {
                if !own {
                    walk.lose(*at);
                }
            }
            walk.stage = Stage::Between;
        }
        Ok(())
    }

    /// Looks at some of what was kept for a pin.
    async fn look_at_kept(
        &self,
        page: &Page<'_>,
        walk: &mut Walk,
        at: usize,
        place: u64,
    ) -> Result<()> {
        let Some(pin) = page.pins.get(at) else {
            return Ok(());
        };
        let next = place + AT_ONCE as u64;
        let args = vec![id(pin), number(place), number(next - 1)];
        let script = &self.shared.scripts.copies;
        let all = vec![keys::state(&pin.space)];
        let Some(Resp3Frame::Array { data: names, .. }) =
            self.ask_of_pin(script, all, args).await?
        else {
            walk.lose(at);
            return Ok(());
        };
        // Only a piece without any is the end: the pin lasted after the last was read.
        walk.stage = if names.is_empty() {
            Stage::Kept(at + 1, 0)
        } else {
            Stage::Kept(at, place + names.len() as u64)
        };
        let beginning = keys::all(&pin.space);
        walk.pending = names
            .into_iter()
            .zip(place..)
            .filter_map(|(name, place)| {
                let name = reply::bulk(name)?;
                let name = name.strip_prefix(b"c")?;
                let name = Bytes::from([&beginning[..], name].concat());
                page.key(&name)?;
                let place = Some(place);
                Some(Found { name, place })
            })
            .collect();
        Ok(())
    }
}

/// The slots of these pins.
fn slots(pins: &[Pin], here: &[usize]) -> Vec<ClusterHash> {
    let here = here.iter().filter_map(|at| pins.get(*at));
    here.map(slot).collect()
}

/// The slot of a pinned space.
fn slot(pin: &Pin) -> ClusterHash {
    ClusterHash::from(&keys::state(&pin.space)[..])
}
