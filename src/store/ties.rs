//! How the handles of a process are tied to their store at this moment: the connections
//! they have, and whether they are told of changes. It does not know who asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Handle, Store};

/// How a handle is tied to its store, or several are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ties {
    /// Whether whatever is read with [`Store::read_watched`] now is vouched for.
    pub vouches: bool,
    /// Its connections, by what they are for; none where the store is in this process.
    pub connections: Vec<Connections>,
}

/// The connections of a handle that are for one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// What they are for.
    pub role: &'static str,
    /// How many can be used.
    pub open: u64,
    /// How often one was made anew after it had been lost.
    pub remade: u64,
}

/// The handles that a process holds to its store.
#[derive(Debug, Default)]
pub struct Handles(Mutex<Vec<Weak<dyn Store>>>);

impl Handles {
    /// Adds one, for as long as it is held.
    pub fn add(&self, handle: &Handle) {
        self.all().push(Arc::downgrade(handle));
    }

    /// How all of them together are tied to it: they vouch if each does.
    pub fn ties(&self) -> Ties {
        let held: Vec<Handle> = self.all().iter().filter_map(Weak::upgrade).collect();
        let each = held.iter().map(|handle| handle.ties());
        each.reduce(Ties::and).unwrap_or_default()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<dyn Store>>> {
        // A list is whole whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ties {
    fn and(mut self, other: Self) -> Self {
        self.vouches &= other.vouches;
        for connections in other.connections {
            let known = self.connections.iter_mut();
            match known.into_iter().find(|it| it.role == connections.role) {
                Some(sum) => {
                    sum.open += connections.open;
                    sum.remade += connections.remade;
                }
                None => self.connections.push(connections),
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_vouch_if_each_does_and_connections_are_summed_by_role() {
        let calls = |open, remade| Connections {
            role: "calls",
            open,
            remade,
        };
        let feed = Connections {
            role: "feed",
            ..calls(1, 0)
        };
        let ties = |vouches, connections: &[Connections]| Ties {
            vouches,
            connections: connections.to_vec(),
        };
        let one = ties(true, &[calls(2, 1)]);
        let both = one.clone().and(ties(false, &[feed, calls(3, 4)]));
        assert_eq!(both, ties(false, &[calls(5, 5), feed]));
        assert!(one.clone().and(one).vouches);
        assert_eq!(Handles::default().ties(), Ties::default());
    }
}
