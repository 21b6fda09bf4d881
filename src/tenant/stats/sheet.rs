//! Where statistics are kept: rows of counters in the meter spaces. It does not
//! know when they are sent.
//!
//! A tenant has a row of counters, and one for each of its namespaces; so has all
//! that a meter space's tenants did together, for the fleet. Latencies have rows
//! of their own, an hour each.

use std::{collections::BTreeMap, sync::LazyLock};

use bytes::Bytes;

use super::{
    Deeds, EVERY, Stats, Taken,
    histogram::{BUCKETS, Latencies},
};
use crate::{
    store::{Add, Incarnation, Row, Unit},
    tenant::rows,
};

/// How long counters are kept after the last one moved.
const COUNTERS_KEPT_MS: u64 = 400 * Unit::Day.ms();

/// How long an hour's latencies are kept: until nobody asks for them.
const LATENCIES_KEPT_MS: u64 = 3 * Unit::Hour.ms();

/// What a row is about.
#[derive(Clone, Copy, Debug)]
pub(in crate::tenant) enum Subject<'a> {
    /// All tenants of a meter space, those that were purged included.
    Fleet,
    /// A tenant.
    Tenant(Incarnation),
    /// One of its namespaces.
    Namespace(Incarnation, &'a str),
}

impl Subject<'_> {
    /// The row of its counters.
    pub(super) fn counters(&self) -> Bytes {
        match self {
            Self::Fleet => Bytes::from_static(b"s"),
            Self::Tenant(incarnation) => format!("s:{incarnation}").into(),
            Self::Namespace(incarnation, name) => format!("s:{incarnation}:{name}").into(),
        }
    }

    /// The row of its latencies in the hour of this moment.
    pub(super) fn latencies(&self, at_ms: u64) -> Bytes {
        let hour = at_ms / Unit::Hour.ms();
        match self {
            Self::Fleet => format!("q:{hour}").into(),
            Self::Tenant(incarnation) => format!("q:{hour}:{incarnation}").into(),
            Self::Namespace(incarnation, name) => format!("q:{hour}:{incarnation}:{name}").into(),
        }
    }
}

/// The names of the counters of a row of [`Deeds`], in the order of their amounts.
const COUNTERS: [&str; Deeds::COUNTERS] = [
    "hits",
    "near_hits",
    "misses",
    "sets",
    "deletes",
    "invalidated",
    "value_bytes",
    "packed_bytes",
    "charged_bytes",
];

/// The names of the counters of a row of latencies, by bucket.
static BUCKET_NAMES: LazyLock<[Vec<Bytes>; 2]> = LazyLock::new(|| {
    let names = |mark| {
        (0..BUCKETS)
            .map(|at| Bytes::from(format!("{mark}{at}")))
            .collect()
    };
    [names('r'), names('w')]
});

/// Adds what a row of counters shows.
pub(super) fn add_counters(row: &Row, deeds: &mut Deeds) {
    let mut sums = deeds.amounts();
    for (name, amount) in row {
        let known = COUNTERS
            .iter()
            .zip(&mut sums)
            .find(|(known, _)| *name == **known);
        // Others are a later version's.
        if let Some((_, sum)) = known {
            *sum = sum.saturating_add(*amount);
        }
    }
    *deeds = Deeds::of(sums);
}

/// Adds what a row of latencies shows.
pub(super) fn add_latencies(row: &Row, reads: &mut Latencies, writes: &mut Latencies) {
    for (name, calls) in row {
        let Some((mark, bucket)) = std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.split_at_checked(1))
        else {
            continue;
        };
        let Ok(bucket) = bucket.parse() else { continue };
        match mark {
            "r" => reads.add(bucket, *calls),
            "w" => writes.add(bucket, *calls),
            _ => {}
        }
    }
}

/// Amounts that wait for one row.
#[derive(Debug)]
struct Amounts {
    keep_ms: u64,
    counters: BTreeMap<Bytes, u64>,
}

/// Amounts that wait for rows, by the row's name.
#[derive(Debug, Default)]
pub(in crate::tenant) struct Sheets(BTreeMap<Bytes, Amounts>);

impl Sheets {
    pub(in crate::tenant) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rows that wait.
    pub(in crate::tenant) fn len(&self) -> usize {
        self.0.len()
    }

    fn put(&mut self, row: Bytes, keep_ms: u64, amounts: impl IntoIterator<Item = (Bytes, u64)>) {
        let mut amounts = amounts
            .into_iter()
            .filter(|(_, amount)| *amount > 0)
            .peekable();
        if amounts.peek().is_none() {
            return;
        }
        let waiting = self.0.entry(row).or_insert_with(|| Amounts {
            keep_ms,
            counters: BTreeMap::new(),
        });
        for (name, amount) in amounts {
            let sum = waiting.counters.entry(name).or_default();
            *sum = sum.saturating_add(amount);
        }
    }

    /// Adds all that waits in another.
    pub(in crate::tenant) fn merge(&mut self, other: &mut Self) {
        for (row, amounts) in std::mem::take(&mut other.0) {
            self.put(row, amounts.keep_ms, amounts.counters);
        }
    }

    /// Moves what waits into as many adds as go into this room of counts.
    pub(in crate::tenant) fn pack(&mut self, mut room: usize, adds: &mut Vec<Add>) -> Self {
        let mut packed = Self::default();
        while room > 0
            && let Some(mut entry) = self.0.first_entry()
        {
            let waiting = entry.get_mut();
            let most = room.min(ADD_COUNTS);
            let rest = match waiting.counters.keys().nth(most).cloned() {
                Some(at) => waiting.counters.split_off(&at),
                None => BTreeMap::new(),
            };
            let (row, keep_ms) = (entry.key().clone(), entry.get().keep_ms);
            let counters = std::mem::replace(&mut entry.get_mut().counters, rest);
            if entry.get().counters.is_empty() {
                entry.remove();
            }
            room -= counters.len();
            let counts = counters.iter();
            let counts = counts.map(|(name, amount)| rows::count(name.clone(), *amount));
            adds.push(Add {
                row: row.clone(),
                keep_ms: Some(keep_ms),
                counts: counts.collect(),
            });
            packed.put(row, keep_ms, counters);
        }
        packed
    }

    /// Takes a counter out that can show no more; whether it was there.
    pub(in crate::tenant) fn give_up(&mut self, row: &Bytes, counter: &Bytes) -> bool {
        let waiting = self.0.get_mut(row);
        waiting.is_some_and(|waiting| waiting.counters.remove(counter).is_some())
    }
}

/// Counts in one add, as the port allows.
const ADD_COUNTS: usize = 64;

impl Stats {
    /// Takes what was counted since the last time, as amounts for its rows: of
    /// counters, and of latencies.
    pub(in crate::tenant) fn take_sheets(
        &self,
        incarnation: Incarnation,
        at_ms: u64,
        counters: &mut Sheets,
        latencies: &mut Sheets,
    ) -> Deeds {
        let mut sum = Deeds::default();
        self.take(|name, taken| {
            let Taken {
                deeds,
                latencies: lengths,
            } = taken;
            sum += deeds;
            let namespace = (name != EVERY).then_some(Subject::Namespace(incarnation, name));
            for subject in [Subject::Fleet, Subject::Tenant(incarnation)]
                .into_iter()
                .chain(namespace)
            {
                let amounts = COUNTERS.into_iter().zip(deeds.amounts());
                let amounts =
                    amounts.map(|(name, amount)| (Bytes::from_static(name.as_bytes()), amount));
                counters.put(subject.counters(), COUNTERS_KEPT_MS, amounts);
                let lengths = lengths.iter().zip(&*BUCKET_NAMES);
                let amounts = lengths.flat_map(|(lengths, names)| {
                    lengths
                        .counts()
                        .filter_map(|(bucket, calls)| Some((names.get(bucket)?.clone(), calls)))
                });
                latencies.put(subject.latencies(at_ms), LATENCIES_KEPT_MS, amounts);
            }
        });
        sum
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use super::*;
    use crate::tenant::stats::Way;

    const NOW_MS: u64 = 1_795_521_600_000;

    fn counted() -> (Stats, Deeds) {
        let deeds = Deeds::of([1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let stats = Stats::default();
        for millis in 1..200 {
            let took = Some((Way::Read, Duration::from_millis(millis)));
            stats.count("a", &Deeds::default(), took);
        }
        stats.count("a", &deeds, Some((Way::Write, Duration::from_millis(5))));
        stats.count("b", &deeds, None);
        stats.count(EVERY, &deeds, None);
        (stats, deeds)
    }

    #[test]
    fn rows_read_as_they_were_sent_in_tallies_of_any_size() {
        let (stats, deeds) = counted();
        let incarnation = Incarnation::random();
        let (mut counters, mut latencies) = (Sheets::default(), Sheets::default());
        stats.take_sheets(incarnation, NOW_MS, &mut counters, &mut latencies);
        counters.merge(&mut latencies);
        assert!(latencies.is_empty());
        let mut rows: HashMap<Bytes, Row> = HashMap::new();
        for room in (1..100).cycle() {
            let mut adds = Vec::new();
            let mut packed = counters.pack(room, &mut adds);
            let counts: usize = adds.iter().map(|add| add.counts.len()).sum();
            assert!((1..=room).contains(&counts), "{counts} in {room}");
            assert!(adds.iter().all(|add| (1..=64).contains(&add.counts.len())));
            if room % 2 == 0 {
                // Refused: it waits again.
                counters.merge(&mut packed);
                continue;
            }
            for add in adds {
                let counts = add.counts.into_iter();
                let counts = counts.map(|count| (count.name, u64::try_from(count.amount).unwrap()));
                rows.entry(add.row).or_default().extend(counts);
            }
            if counters.is_empty() {
                break;
            }
        }
        let mut all = deeds;
        all += deeds;
        all += deeds;
        for (subject, expected, reads, writes) in [
            (Subject::Fleet, all, 199, 1),
            (Subject::Tenant(incarnation), all, 199, 1),
            (Subject::Namespace(incarnation, "a"), deeds, 199, 1),
            (Subject::Namespace(incarnation, "b"), deeds, 0, 0),
            (
                Subject::Namespace(incarnation, EVERY),
                Deeds::default(),
                0,
                0,
            ),
        ] {
            let row = |name| rows.get(&name).cloned().unwrap_or_default();
            let (mut found, mut lengths) = (Deeds::default(), <[Latencies; 2]>::default());
            add_counters(&row(subject.counters()), &mut found);
            let [read, written] = &mut lengths;
            add_latencies(&row(subject.latencies(NOW_MS)), read, written);
            assert_eq!(found, expected, "{subject:?}");
            assert_eq!(
                (read.calls(), written.calls()),
                (reads, writes),
                "{subject:?}"
            );
        }
    }

    #[test]
    fn what_is_of_a_later_version_is_passed_over() {
        let row = |name: &'static str| vec![(Bytes::from_static(name.as_bytes()), 7)];
        let mut deeds = Deeds::default();
        add_counters(&row("of_tomorrow"), &mut deeds);
        assert_eq!(deeds, Deeds::default());
        let (mut reads, mut writes) = Default::default();
        for name in ["", "r", "r-1", "rx", "r209", "z3", "\u{e4}1"] {
            add_latencies(&row(name), &mut reads, &mut writes);
        }
        assert_eq!((reads.calls(), writes.calls()), (0, 0));
        add_latencies(&row("w208"), &mut reads, &mut writes);
        assert_eq!((reads.calls(), writes.calls()), (0, 7));
    }

    #[test]
    fn a_counter_that_is_given_up_holds_no_other_up() {
        let (stats, _) = counted();
        let (mut counters, mut latencies) = (Sheets::default(), Sheets::default());
        stats.take_sheets(Incarnation::random(), NOW_MS, &mut counters, &mut latencies);
        let (row, name) = (Subject::Fleet.counters(), Bytes::from_static(b"hits"));
        assert!(counters.give_up(&row, &name));
        assert!(!counters.give_up(&row, &name));
        let mut adds = Vec::new();
        counters.pack(usize::MAX, &mut adds);
        let fleet = adds.iter().find(|add| add.row == row).unwrap();
        assert_eq!(fleet.counts.len(), Deeds::COUNTERS - 1);
    }
}
