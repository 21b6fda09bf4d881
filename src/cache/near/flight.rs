//! One read of a key at a time: who comes while it is under way waits for what it
//! brings. It does not know what is read, nor how.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use super::{Near, Place};
use crate::{
    cache::Entry,
    error::Result,
    store::{STALENESS, Space, View},
};

/// What a read brought.
pub(in crate::cache) type Answer = Result<Option<Entry>>;

/// A read that is under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) hash: u64,
    space: Space,
    path: Bytes,
    /// Tells it from others of the same key.
    number: u64,
    /// What was told of the key's stripe before it began.
    token: u64,
    /// The view that whoever began it knew of.
    view: Option<View>,
    began: Instant,
    landed: watch::Receiver<Option<Answer>>,
}

impl Flight {
    /// Whether it is for this key.
    pub(super) fn is_of(&self, place: &Place<'_>) -> bool {
        self.hash == place.hash && place.is(&self.space, &self.path)
    }

    /// Whether it brings what a read would that begins now: nothing was told of or
    /// written by this replica since, and it is no older than a kept entry may be.
    fn serves(&self, token: u64, view: Option<View>, now: Instant) -> bool {
        self.token == token
            && self.view == view
            && now.saturating_duration_since(self.began) < STALENESS
    }
}

/// Whose turn it is to read a key.
pub(in crate::cache) enum Turn<'a> {
    /// The caller's.
    Lead(Lead<'a>),
    /// Somebody else's.
    Follow(Follow),
}

/// A read by the caller that others may wait for. However it ends, they go on.
pub(in crate::cache) struct Lead<'a> {
    near: &'a Near,
    hash: u64,
    number: u64,
    /// To be handed in with what the read brings, to be kept.
    pub(in crate::cache) token: u64,
    landing: watch::Sender<Option<Answer>>,
}

/// A read by somebody else.
pub(in crate::cache) struct Follow(watch::Receiver<Option<Answer>>);

impl Near {
    /// Whose turn it is to read this key for a caller who knows of this view.
    pub(in crate::cache) fn turn(
        &self,
        place: &Place<'_>,
        space: &Space,
        path: &Bytes,
        view: Option<View>,
    ) -> Turn<'_> {
        let now = Instant::now();
        let mut shard = self.shard(place.hash);
        let token = shard.token(place.hash);
        let flights = &mut shard.flights;
        if let Some(flight) = flights.iter().find(|flight| flight.is_of(place))
            && flight.serves(token, view, now)
        {
            return Turn::Follow(Follow(flight.landed.clone()));
        }
        // One that serves nobody any more goes on for those who wait for it.
        flights.retain(|flight| !flight.is_of(place));
        let (landing, landed) = watch::channel(None);
        let number = shard.next_number();
        shard.flights.push(Flight {
            hash: place.hash,
            space: space.clone(),
            path: path.clone(),
            number,
            token,
            view,
            began: now,
            landed,
        });
        Turn::Lead(Lead {
            near: self,
            hash: place.hash,
            number,
            token,
            landing,
        })
    }
}

impl Lead<'_> {
    /// Hands what was read to those who wait.
    pub(in crate::cache) fn land(self, answer: &Answer) {
        // Nobody joins any more, so nobody is missed.
        self.leave();
        if self.landing.receiver_count() > 0 {
            self.landing.send_replace(Some(answer.clone()));
        }
    }

    fn leave(&self) {
        let mut shard = self.near.shard(self.hash);
        shard.flights.retain(|flight| flight.number != self.number);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Follow {
    /// What the read brought; `None` where it was given up.
    pub(in crate::cache) async fn answer(mut self) -> Option<Answer> {
        let landed = self.0.wait_for(Option::is_some).await;
        landed.ok().and_then(|answer| answer.clone())
    }
}
