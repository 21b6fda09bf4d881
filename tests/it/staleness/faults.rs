//! What is done to Redis and to the replicas. It does not know what they are used
//! for.

use std::{thread::sleep, time::Duration};

use super::{Fleet, REPLICAS};
use crate::{money::Dice, store::redis_tracking::tracked};

/// Something that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Tracked connections are killed: all of them, or one.
    Cut(bool),
    /// Redis stands still, for so many milliseconds.
    Freeze(u64),
    /// Redis is killed, and comes back with what it had acknowledged.
    Restart,
    /// A replica stands still.
    Stop(usize, u64),
    /// The database is emptied.
    Flush,
}

impl Fault {
    /// How many kinds there are.
    pub const KINDS: usize = 5;

    /// One of each kind at first, in turn, and then any; a flush comes last, since
    /// much is begun anew after it.
    pub fn roll(dice: &mut Dice, number: usize) -> Self {
        let kind = match number {
            0..Self::KINDS => number as u64,
            // Flushes are rarer.
            _ => dice.roll(17) / 4,
        };
        match kind {
            0 => Self::Cut(dice.roll(2) == 0),
            1 => Self::Freeze(100 + dice.roll(1400)),
            2 => Self::Restart,
            3 => {
                let replica = dice.roll(REPLICAS as u64) as usize;
                Self::Stop(replica, 200 + dice.roll(1800))
            }
            _ => Self::Flush,
        }
    }

    pub fn kind(self) -> usize {
        match self {
            Self::Cut(_) => 0,
            Self::Freeze(_) => 1,
            Self::Restart => 2,
            Self::Stop(..) => 3,
            Self::Flush => 4,
        }
    }

    /// What each kind is called.
    pub const WORDS: [&str; Self::KINDS] = [
        "tracked connections killed",
        "Redis frozen, 0.1 to 1.5 s",
        "Redis killed and restarted",
        "replica frozen, 0.2 to 2 s",
        "FLUSHALL",
    ];

    /// Does it; what stood still goes on again when this returns.
    pub fn happen(self, fleet: &mut Fleet) {
        match self {
            Self::Cut(all) => {
                let ids = tracked(&fleet.redis);
                let count = if all { ids.len() } else { 1 };
                for id in ids.iter().take(count) {
                    fleet.redis.cli(&["client", "kill", "id", id]);
                }
            }
            Self::Freeze(ms) => {
                fleet.redis.freeze();
                sleep(Duration::from_millis(ms));
                fleet.redis.thaw();
            }
            Self::Restart => fleet.redis.restart(),
            Self::Stop(replica, ms) => {
                fleet.replicas[replica].signal("STOP");
                sleep(Duration::from_millis(ms));
                fleet.replicas[replica].signal("CONT");
            }
            Self::Flush => assert_eq!(fleet.redis.cli(&["flushall"]), "OK"),
        }
    }
}
