//! What a replica has read of a tenant's log and some watcher still needs: read
//! once, told to all. It does not know who reads it, or what of it each may see.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    cache::Change,
    config::{self, Live},
    error::{Error, Result},
    store::{Incarnation, Position},
    tenant::Tenancy,
};

/// When a watcher that fell behind, or found no seat, may try again.
const SOON: Duration = Duration::from_secs(1);

/// What a piece and each of its notes take beside their texts, about.
const PIECE_BYTES: usize = 128;
const CHANGE_BYTES: usize = 160;

/// The watchers of all tenants at this replica. One for all cores.
#[derive(Default)]
pub(in crate::cache) struct Watches(Mutex<HashMap<Incarnation, Arc<Tail>>>);

impl Watches {
    /// A seat at the tenant's tail. The first one is given the tail to follow, which
    /// begins at this place of the log.
    pub(super) fn sit(
        self: &Arc<Self>,
        tenancy: &Tenancy,
        settings: &Live<config::Cache>,
        now: Position,
    ) -> Result<(Seat, Option<Arc<Tail>>)> {
        let mut tails = self.tails();
        let tail = tails.get(&tenancy.home).cloned();
        let first = tail.is_none();
        let tail = tail.unwrap_or_else(|| Arc::new(Tail::new(tenancy, settings, now)));
        let number = {
            let mut state = tail.state();
            let most = settings.load().watch.max_watchers;
            if state.seats.len() >= most {
                return Err(tail.exceeded("watchers", most, state.seats.len()));
            }
            state.sat += 1;
            let number = state.sat;
            state.seats.insert(number, None);
            number
        };
        if first {
            tails.insert(tenancy.home, tail.clone());
        }
        let seat = Seat {
            watches: self.clone(),
            tail: tail.clone(),
            number,
        };
        Ok((seat, first.then_some(tail)))
    }

    /// How many sit at all tails.
    pub(in crate::cache) fn watchers(&self) -> usize {
        let tails = self.tails();
        tails.values().map(|tail| tail.state().seats.len()).sum()
    }

    fn tails(&self) -> MutexGuard<'_, HashMap<Incarnation, Arc<Tail>>> {
        // A map is whole whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches")
            .field("tenants", &self.tails().len())
            .finish()
    }
}

/// What was read of one tenant's log.
pub(super) struct Tail {
    /// Of the tenant's cache.
    home: Incarnation,
    scope: String,
    settings: Live<config::Cache>,
    state: Mutex<State>,
    moved: watch::Sender<()>,
}

struct State {
    /// The number of the first piece kept.
    first: u64,
    pieces: VecDeque<Arc<Piece>>,
    bytes: usize,
    /// Up to where the log was read.
    head: Position,
    /// When it was last read to its end.
    read: Instant,
    /// Why it goes no further.
    over: Option<Error>,
    /// How many have sat here.
    sat: u64,
    /// Those who sit here, each with the first piece it needs.
    seats: HashMap<u64, Option<u64>>,
}

/// A piece of the log.
pub(super) struct Piece {
    /// The place behind each note, and what it tells.
    pub(super) notes: Vec<(Position, Option<Change>)>,
    /// The place behind all.
    pub(super) position: Position,
}

impl Piece {
    fn bytes(&self) -> usize {
        let change = |(_, change): &(_, Option<Change>)| {
            CHANGE_BYTES + change.as_ref().map_or(0, |change| change.bytes() as usize)
        };
        PIECE_BYTES + self.notes.iter().map(change).sum::<usize>()
    }
}

/// What is found at a place of the tail.
pub(super) enum Found {
    /// This piece.
    Piece(Arc<Piece>),
    /// Nothing has come after what was read before.
    NotYet,
}

impl Tail {
    fn new(tenancy: &Tenancy, settings: &Live<config::Cache>, now: Position) -> Self {
        Self {
            home: tenancy.home,
            scope: tenancy.scope(),
            settings: settings.clone(),
            state: Mutex::new(State {
                first: 0,
                pieces: VecDeque::new(),
                bytes: 0,
                head: now,
                read: Instant::now(),
                over: None,
                sat: 0,
                seats: HashMap::new(),
            }),
            moved: watch::Sender::new(()),
        }
    }

    /// Up to where the log was read; `None` when nobody sits here any more.
    pub(super) fn head(&self) -> Option<Position> {
        let state = self.state();
        (!state.seats.is_empty()).then(|| state.head.clone())
    }

    /// Notes that there was nothing more in the log just now.
    pub(super) fn read_to_end(&self) {
        self.state().read = Instant::now();
    }

    /// Adds what was read next.
    pub(super) fn push(&self, piece: Piece) {
        let mut state = self.state();
        state.head = piece.position.clone();
        state.bytes += piece.bytes();
        state.pieces.push_back(Arc::new(piece));
        state.prune();
        let most = self.max_bytes();
        while state.bytes > most && state.pieces.len() > 1 {
            state.drop_first();
        }
        drop(state);
        self.moved.send_replace(());
    }

    /// It goes no further.
    pub(super) fn end(&self, error: Error) {
        self.state().over = Some(error);
        self.moved.send_replace(());
    }

    fn max_bytes(&self) -> usize {
        self.settings.load().watch.max_backlog_bytes
    }

    fn exceeded(&self, metric: &'static str, limit: usize, used: usize) -> Error {
        Error::QuotaExceeded {
            metric: metric.into(),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            used: i64::try_from(used).unwrap_or(i64::MAX),
            scope: self.scope.clone(),
            retry_after: Some(SOON),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of it is whole at any point where one could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops what nobody needs any more.
    fn prune(&mut self) {
        let needed = self.seats.values().flatten().min().copied();
        // Who reads the store needs nothing here; it may come for the last piece.
        let needed = needed.unwrap_or(u64::MAX);
        while self.first < needed && self.pieces.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(piece) = self.pieces.pop_front() {
            self.bytes = self.bytes.saturating_sub(piece.bytes());
            self.first += 1;
        }
    }

    fn next(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }
}

/// A watcher's seat at a tail; given up when it is dropped, and the last one ends
/// the tail.
pub(super) struct Seat {
    watches: Arc<Watches>,
    tail: Arc<Tail>,
    number: u64,
}

impl Seat {
    /// Tells when the tail has moved.
    pub(super) fn moved(&self) -> watch::Receiver<()> {
        self.tail.moved.subscribe()
    }

    /// When the log was last read to its end.
    pub(super) fn read(&self) -> Instant {
        self.tail.state().read
    }

    /// The first piece that is needed here; `None` where the store is read.
    pub(super) fn needs(&self, piece: Option<u64>) {
        let mut state = self.tail.state();
        state.seats.insert(self.number, piece);
        state.prune();
    }

    /// The piece and the number of notes in it that a place of the log is behind;
    /// `None` where it is not in the tail. From then on it is kept for this seat.
    pub(super) fn find(&self, at: &Position) -> Result<Option<(u64, usize)>> {
        let mut state = self.tail.state();
        if let Some(error) = &state.over {
            return Err(error.clone());
        }
        let mut found = (state.head == *at).then(|| (state.next(), 0));
        for (piece, number) in state.pieces.iter().zip(state.first..) {
            if found.is_none() {
                let place = piece.notes.iter().position(|(position, _)| position == at);
                found = place.map(|place| (number, place + 1));
            }
        }
        if let Some((number, _)) = found {
            state.seats.insert(self.number, Some(number));
        }
        Ok(found)
    }

    /// A piece by its number.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`] where it was dropped because too much came after it;
    /// why the tail has ended, where it comes to no such piece.
    pub(super) fn piece(&self, number: u64) -> Result<Found> {
        let state = self.tail.state();
        let Some(place) = number.checked_sub(state.first) else {
            let used = state.bytes;
            return Err(self
                .tail
                .exceeded("watch_backlog", self.tail.max_bytes(), used));
        };
        let piece = usize::try_from(place)
            .ok()
            .and_then(|place| state.pieces.get(place));
        match (piece, &state.over) {
            (Some(piece), _) => Ok(Found::Piece(piece.clone())),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Ok(Found::NotYet),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut tails = self.watches.tails();
        let mut state = self.tail.state();
        state.seats.remove(&self.number);
        if state.seats.is_empty() {
            // Nobody can have sat down meanwhile: that takes the same lock.
            if tails
                .get(&self.tail.home)
                .is_some_and(|tail| Arc::ptr_eq(tail, &self.tail))
            {
                tails.remove(&self.tail.home);
            }
        } else {
            state.prune();
        }
    }
}
