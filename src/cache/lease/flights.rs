//! Calls for the same entry that go to the store together: each flight takes all
//! who came before it set out, so that what it brings back is as new to every one of
//! them as if he had gone alone. It does not know what is asked of the store.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{Found, Grant};
use crate::{
    error::Result,
    store::{Incarnation, Key},
};

/// An entry of a tenant, by the key of its lease.
type Place = (Incarnation, Key);

/// The flights that are in the air, and who waits for the next to the same place.
#[derive(Debug, Default)]
pub(in crate::cache) struct Flights(Mutex<HashMap<Place, Vec<Passenger>>>);

/// A call that waits to be told.
#[derive(Debug)]
pub(super) struct Passenger {
    duration_ms: u64,
    told: oneshot::Sender<Result<Found>>,
}

impl Passenger {
    /// Who would lease for so long, and where it will be told.
    pub(super) fn new(duration_ms: u64) -> (Self, oneshot::Receiver<Result<Found>>) {
        let (told, answer) = oneshot::channel();
        (Self { duration_ms, told }, answer)
    }
}

impl Flights {
    /// Waits for the next flight, where one is in the air; else this is one, and
    /// whoever gets it must see it through.
    pub(super) fn board(self: &Arc<Self>, place: Place, passenger: Passenger) -> Option<Flight> {
        let mut flights = self.lock();
        if let Some(waiting) = flights.get_mut(&place) {
            waiting.push(passenger);
            return None;
        }
        flights.insert(place.clone(), Vec::new());
        Some(Flight {
            flights: self.clone(),
            place,
            passengers: vec![passenger],
            over: false,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Vec<Passenger>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A flight in the air. Who waits for it or the next is told that it is lost where
/// it is dropped.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Arc<Flights>,
    place: Place,
    passengers: Vec<Passenger>,
    /// Whether the place is free for another.
    over: bool,
}

impl Flight {
    /// For how long the first who still waits would lease; `None` where nobody does.
    pub(super) fn first_ms(&self) -> Option<u64> {
        let mut waiting = self.passengers.iter().filter(|p| !p.told.is_closed());
        waiting.next().map(|first| first.duration_ms)
    }

    /// Tells all who went. A lease that was granted goes to the first who asked for
    /// one that long and is still there; it comes back where nobody is.
    pub(super) fn land(&mut self, mut found: Result<Found>) -> Option<Grant> {
        let passengers = mem::take(&mut self.passengers);
        let mut granted = match &mut found {
            Ok(Found::Lease { grant, now, .. }) => mem::take(now).then_some(*grant),
            _ => None,
        };
        for passenger in passengers {
            let told = match granted {
                Some(grant) if passenger.duration_ms == grant.duration_ms() => Ok(Found::Lease {
                    grant,
                    now: true,
                    stale: None,
                }),
                _ => found.clone(),
            };
            let taken = matches!(told, Ok(Found::Lease { now: true, .. }));
            if passenger.told.send(told).is_ok() && taken {
                granted = None;
            }
        }
        granted
    }

    /// Takes those along who came meanwhile; false where nobody did, and then the
    /// next who comes is another flight.
    pub(super) fn takes_off_again(&mut self) -> bool {
        let mut flights = self.flights.lock();
        match flights.get_mut(&self.place) {
            Some(waiting) if !waiting.is_empty() => {
                self.passengers = mem::take(waiting);
                true
            }
            _ => {
                flights.remove(&self.place);
                self.over = true;
                false
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.over {
            self.flights.lock().remove(&self.place);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GRANT: Grant = Grant {
        version: 7,
        since_ms: 1_000,
        until_ms: 1_100,
    };

    fn granted() -> Result<Found> {
        Ok(Found::Lease {
            grant: GRANT,
            now: true,
            stale: None,
        })
    }

    fn place() -> Place {
        (Incarnation::random(), Key::refill("n", "k"))
    }

    /// Whether a passenger was given the lease; `None` where he was told nothing.
    fn given(mut answer: oneshot::Receiver<Result<Found>>) -> Option<bool> {
        let told = answer.try_recv().ok()?.unwrap();
        Some(matches!(told, Found::Lease { now: true, .. }))
    }

    /// A flight of passengers who would lease for so long.
    fn flight(durations_ms: &[u64]) -> (Flight, Vec<oneshot::Receiver<Result<Found>>>) {
        let flights = Arc::new(Flights::default());
        let (passengers, answers): (Vec<_>, _) =
            durations_ms.iter().copied().map(Passenger::new).unzip();
        let (pilot, _) = Passenger::new(0);
        let mut flight = flights.board(place(), pilot).unwrap();
        flight.passengers = passengers;
        (flight, answers)
    }

    #[test]
    fn a_lease_goes_to_the_first_who_is_there_and_asked_for_it() {
        let (mut all, mut answers) = flight(&[100, 100, 200, 100, 100]);
        assert_eq!(all.first_ms(), Some(100));
        answers.remove(0);
        assert!(all.land(granted()).is_none());
        let told: Vec<_> = answers.into_iter().map(given).collect();
        assert_eq!(told, [true, false, false, false].map(Some));
    }

    #[test]
    fn a_lease_that_fits_nobody_comes_back() {
        let (mut others, mut answers) = flight(&[100, 200]);
        answers.remove(0);
        assert_eq!(others.first_ms(), Some(200));
        let back = others.land(granted()).unwrap();
        assert_eq!(back.version, GRANT.version);
        let told: Vec<_> = answers.into_iter().map(given).collect();
        assert_eq!(told, [Some(false)], "he is to come again");

        let (mut nobody, answers) = flight(&[100]);
        drop(answers);
        assert_eq!(nobody.first_ms(), None);
        assert!(nobody.land(granted()).is_some());
    }

    #[test]
    fn whoever_comes_during_a_flight_waits_for_the_next() {
        let (flights, place) = (Arc::new(Flights::default()), place());
        let (first, _) = Passenger::new(1);
        let mut flight = flights.board(place.clone(), first).unwrap();
        let (second, mut answer) = Passenger::new(2);
        assert!(flights.board(place.clone(), second).is_none());
        assert!(flight.land(granted()).is_some());
        assert!(answer.try_recv().is_err(), "not by what was asked before");
        assert!(flight.takes_off_again());
        assert_eq!(flight.first_ms(), Some(2));
        flight.land(Ok(Found::Nothing));
        assert_eq!(given(answer), Some(false));
        assert!(!flight.takes_off_again());

        let (third, _) = Passenger::new(3);
        let next = flights.board(place.clone(), third);
        drop(flight);
        let (fourth, answer) = Passenger::new(4);
        assert!(flights.board(place.clone(), fourth).is_none());
        drop(next);
        assert_eq!(given(answer), None, "he learns that it was lost");
        let (fifth, _) = Passenger::new(5);
        assert!(flights.board(place, fifth).is_some());
    }
}
