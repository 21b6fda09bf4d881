//! What waits for one meter space: counts by tenant and minute, and the one tally
//! whose answer is not known. It does not know when it is sent.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    store::{self, Add, Count, Handle, Incarnation, Space, Stamp, Tallied, Tally, Unit},
    tenant::{Account, Counts, Period, meter::Taken, rows, stats::sheet::Sheets},
};

use super::{LATENCIES_EVERY_MS, What};

/// Counts in one tally, as the port allows.
const TALLY_COUNTS: usize = 256;

/// Counters of one tenant in one tally: four rows each, and the transfer row.
const PART_COUNTERS: usize = 60;

/// Tenants' minutes that may wait in a meter space while the store is away. What
/// is beyond stays in the tenants' meters, and comes to belong to a later minute.
const MAX_WAITING: usize = 4096;

/// Rows of statistics that may wait likewise.
const MAX_SHEETS: usize = 16_384;

/// What waits for one meter space.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The number of the last tally.
    sequence: u64,
    /// The tally whose answer is not known.
    sent: Option<Sent>,
    /// The oldest goes first.
    parts: BTreeMap<Place, Part>,
    /// What the caches did.
    sheets: Sheets,
    /// How long it took; goes when it is due.
    latencies: Sheets,
    /// When it goes.
    latencies_due_ms: u64,
}

/// Where counts go: the start of the minute, the tenant, and its segment then.
type Place = (u64, Incarnation, u32);

/// A tally that was sent, and what it is made of.
#[derive(Debug)]
struct Sent {
    tally: Tally,
    parts: Vec<Part>,
    sheets: Sheets,
}

/// What one tenant came to in one minute.
#[derive(Debug)]
struct Part {
    account: Arc<Account>,
    at_ms: u64,
    /// The segment that was billed then.
    segment: u32,
    /// By the counter's name; none is 0.
    counters: BTreeMap<Bytes, u64>,
    /// Bytes for the transfer row.
    transfer: u64,
}

impl Part {
    fn place(&self) -> Place {
        let minute = Unit::Minute.start_ms(self.at_ms);
        (minute, self.account.incarnation, self.segment)
    }

    fn period(&self) -> Period {
        Period::of(self.at_ms)
    }

    /// What adds these counts to its rows.
    fn rows(&self, counts: &[Count]) -> [Add; 4] {
        rows::adds_in(self.account.incarnation, self.segment, self.at_ms, counts)
    }

    fn weight(&self) -> usize {
        4 * self.counters.len() + usize::from(self.transfer > 0)
    }

    fn merge(&mut self, other: Self) {
        for (name, amount) in other.counters {
            let sum = self.counters.entry(name).or_default();
            *sum = sum.saturating_add(amount);
        }
        self.transfer = self.transfer.saturating_add(other.transfer);
    }

    /// The counters that are too many for one tally.
    fn split_off(&mut self) -> Option<Self> {
        let at = self.counters.keys().nth(PART_COUNTERS)?.clone();
        Some(Self {
            account: self.account.clone(),
            at_ms: self.at_ms,
            segment: self.segment,
            counters: self.counters.split_off(&at),
            transfer: 0,
        })
    }

    fn adds(&self, tally: &mut Tally) {
        if !self.counters.is_empty() {
            let counts: Vec<_> = self
                .counters
                .iter()
                .map(|(name, amount)| rows::count(name.clone(), *amount))
                .collect();
            tally.adds.extend(self.rows(&counts));
        }
        if self.transfer > 0 {
            let incarnation = self.account.incarnation;
            let add = rows::transfer_add(incarnation, self.at_ms, self.transfer);
            tally.adds.push(add);
        }
    }
}

/// The counters of what was taken from a meter.
fn counters(taken: Taken) -> BTreeMap<Bytes, u64> {
    let Counts {
        operations,
        hits,
        near_hits: _,
        misses,
        throttled,
        bytes_in,
        bytes_out,
        written: _,
        writes: _,
    } = taken.counts;
    let own = [
        (rows::OPERATIONS, operations),
        (rows::HITS, hits),
        (rows::MISSES, misses),
        (rows::THROTTLED, throttled),
        (rows::BYTES_IN, bytes_in),
        (rows::BYTES_OUT, bytes_out),
    ];
    let own = own
        .into_iter()
        .filter(|(_, amount)| *amount > 0)
        .map(|(name, amount)| (Bytes::from_static(name.as_bytes()), amount));
    let custom = taken.consumed.into_iter();
    own.chain(custom.map(|(metric, amount)| (rows::custom(&metric), amount)))
        .collect()
}

impl Waiting {
    /// Sends until nothing waits. May be given up at any point: what is not known
    /// to be in the store is sent again by the next.
    pub(super) async fn send(
        &mut self,
        space: usize,
        replica: &Bytes,
        what: What,
        store: &Handle,
    ) -> store::Result<()> {
        self.ripen(what, store.now_ms());
        let mut source = replica.to_vec();
        source.extend(format!(":{space:02}").into_bytes());
        let source = Bytes::from(source);
        let space = Space::meters_at(space);
        while let Some(tally) = self.next(&source, store.now_ms()) {
            let answer = store.tally(&space, tally).await?;
            self.settle(answer, store.now_ms());
        }
        Ok(())
    }

    /// Lets latencies go that are due, or asked for.
    fn ripen(&mut self, what: What, now_ms: u64) {
        if what == What::All || self.latencies_due_ms <= now_ms {
            self.sheets.merge(&mut self.latencies);
            self.latencies_due_ms = now_ms.saturating_add(LATENCIES_EVERY_MS);
        }
    }

    /// Takes what an account counted, as of now. Whether there was room for it.
    pub(super) fn take(&mut self, account: &Arc<Account>, now_ms: u64) -> bool {
        let segment = account.segment();
        let place = (Unit::Minute.start_ms(now_ms), account.incarnation, segment);
        if self.parts.len() >= MAX_WAITING && !self.parts.contains_key(&place) {
            return false;
        }
        let mut taken = account.meter.take(Period::of(now_ms));
        account.told(&taken.counts);
        // No row has it.
        taken.counts.writes = 0;
        if !taken.is_empty() {
            self.put(Part {
                account: account.clone(),
                at_ms: now_ms,
                segment,
                transfer: taken.counts.transfer(),
                counters: counters(taken),
            });
        }
        if self.sheets.len() + self.latencies.len() < MAX_SHEETS {
            // After the meter: what is counted from now on queues the account anew.
            let incarnation = account.incarnation;
            let (counters, latencies) = (&mut self.sheets, &mut self.latencies);
            let deeds = account
                .stats
                .take_sheets(incarnation, now_ms, counters, latencies);
            account.traffic.did(deeds);
        } else {
            account.meter.enqueue();
        }
        true
    }

    fn put(&mut self, part: Part) {
        match self.parts.get_mut(&part.place()) {
            Some(waiting) => waiting.merge(part),
            None => drop(self.parts.insert(part.place(), part)),
        }
    }

    /// The tally to be sent: the last one where its answer is not known, else one
    /// of what waits.
    fn next(&mut self, source: &Bytes, now_ms: u64) -> Option<Tally> {
        if self.sent.is_none() && !(self.parts.is_empty() && self.sheets.is_empty()) {
            self.sent = Some(self.pack(source));
        }
        let sent = self.sent.as_mut()?;
        // A period that was not over when it was sent first may be by now.
        let bars = sent
            .parts
            .iter()
            .filter_map(|part| rows::bar(part.account.incarnation, part.at_ms, now_ms));
        sent.tally.absent = bars.collect();
        sent.tally.absent.sort_unstable();
        sent.tally.absent.dedup();
        Some(sent.tally.clone())
    }

    fn pack(&mut self, source: &Bytes) -> Sent {
        self.sequence += 1;
        let mut sent = Sent {
            tally: Tally {
                stamp: Some(Stamp {
                    source: source.clone(),
                    sequence: self.sequence,
                }),
                ..Tally::default()
            },
            parts: Vec::new(),
            sheets: Sheets::default(),
        };
        let mut room = TALLY_COUNTS;
        while let Some(mut entry) = self.parts.first_entry() {
            let rest = entry.get_mut().split_off();
            let weight = entry.get().weight();
            if weight > room {
                if let Some(rest) = rest {
                    entry.get_mut().merge(rest);
                }
                break;
            }
            room -= weight;
            let part = match rest {
                Some(rest) => entry.insert(rest),
                None => entry.remove(),
            };
            part.adds(&mut sent.tally);
            sent.parts.push(part);
        }
        sent.sheets = self.sheets.pack(room, &mut sent.tally.adds);
        sent
    }

    /// Takes note of an answer. What was refused waits again, changed so that it
    /// can be added, under a number of its own.
    fn settle(&mut self, answer: Tallied, now_ms: u64) {
        let Some(mut sent) = self.sent.take() else {
            return;
        };
        match answer {
            Tallied::Added(shown) => return sent.learn(&shown),
            Tallied::Duplicate => return,
            Tallied::Barred { key } => sent.move_on(key, now_ms),
            Tallied::Exceeded { add, count, .. } => sent.give_up(add, count),
        }
        for part in sent.parts {
            self.put(part);
        }
        self.sheets.merge(&mut sent.sheets);
    }
}

impl Sent {
    /// Learns from the answer how much was transferred by all replicas.
    fn learn(&self, shown: &[Vec<u64>]) {
        let mut shown = self.tally.adds.iter().zip(shown);
        for part in self.parts.iter().filter(|part| part.transfer > 0) {
            let period = part.period();
            let row = rows::transfer(part.account.incarnation, period);
            if let Some((_, counters)) = shown.find(|(add, _)| add.row == row)
                && let Some(bytes) = counters.first()
            {
                part.account.meter.learn_transfer(period, *bytes);
            }
        }
    }

    /// The period that this key closed takes no more: its counts go to now.
    fn move_on(&mut self, key: usize, now_ms: u64) {
        let closing = self.tally.absent.get(key);
        for part in &mut self.parts {
            let (incarnation, period) = (part.account.incarnation, part.period());
            if closing == Some(&rows::closing(incarnation, period)) {
                tracing::warn!(%incarnation, %period, "late usage counted in the present period: its own is closed");
                part.at_ms = now_ms.max(period.end_ms());
                part.segment = part.account.segment();
            }
        }
    }

    /// A counter that can show no more takes no more; the others are not held up.
    fn give_up(&mut self, add: usize, count: usize) {
        let Some(add) = self.tally.adds.get(add) else {
            return;
        };
        let name = add.counts.get(count).map(|count| &count.name);
        if let Some(counter) = name
            && self.sheets.give_up(&add.row, counter)
        {
            tracing::error!(
                ?counter,
                "statistics not counted: the counter is at its end"
            );
            return;
        }
        for part in &mut self.parts {
            let (incarnation, period) = (part.account.incarnation, part.period());
            if add.row == rows::transfer(incarnation, period) {
                part.transfer = 0;
            } else if let Some(name) = name
                && part.rows(&[]).iter().any(|own| own.row == add.row)
                && let Some(amount) = part.counters.remove(name)
            {
                tracing::error!(%incarnation, counter = ?name, amount, "usage not counted: the counter is at its end");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tenant::{
        Accounts,
        stats::{Deeds, Way},
    };

    /// A minute before the end of a period.
    const LATE_MS: u64 = 1_796_083_140_000;
    const NEXT_MS: u64 = LATE_MS + 3_600_000;

    fn source() -> Bytes {
        Bytes::from_static(b"replica:00")
    }

    fn count(account: &Account, operations: u64) {
        account.meter.count(Counts {
            operations,
            bytes_out: 10 * operations,
            ..Counts::default()
        });
    }

    /// What a tally adds to a counter of all rows of this kind.
    fn added(tally: &Tally, kind: &str, counter: &str) -> i64 {
        let rows = tally
            .adds
            .iter()
            .filter(|add| add.row.starts_with(kind.as_bytes()));
        let counts = rows
            .flat_map(|add| &add.counts)
            .filter(|count| count.name == counter);
        counts.map(|count| count.amount).sum()
    }

    #[test]
    fn a_tally_is_sent_unchanged_until_it_is_answered() {
        let (mut waiting, accounts) = (Waiting::default(), Accounts::default());
        let account = accounts.of(Incarnation::random());
        count(&account, 2);
        assert!(waiting.take(&account, NEXT_MS));
        let first = waiting.next(&source(), NEXT_MS).unwrap();
        count(&account, 5);
        assert!(waiting.take(&account, NEXT_MS));
        let again = waiting.next(&source(), NEXT_MS + 5_000).unwrap();
        assert_eq!(
            (&first.stamp, added(&again, "m:", "operations")),
            (&again.stamp, 2)
        );
        waiting.settle(Tallied::Duplicate, NEXT_MS);
        let next = waiting.next(&source(), NEXT_MS).unwrap();
        assert_eq!(next.stamp.as_ref().unwrap().sequence, 2);
        for kind in ["m:", "h:", "d:", "b:"] {
            assert_eq!(added(&next, kind, "operations"), 5, "{kind}");
        }
        assert_eq!(added(&next, "t:", "bytes"), 50);
        waiting.settle(Tallied::Added(Vec::new()), NEXT_MS);
        assert!(waiting.next(&source(), NEXT_MS).is_none());
    }

    #[test]
    fn what_caches_did_goes_along_and_latencies_when_they_are_due() {
        let (mut waiting, accounts) = (Waiting::default(), Accounts::default());
        let account = accounts.of(Incarnation::random());
        let hit = Deeds {
            hits: 1,
            ..Deeds::default()
        };
        let took = Some((Way::Read, Duration::from_millis(3)));
        let mut send = |what, now_ms| {
            account.stats.count("a", &hit, took);
            count(&account, 1);
            assert!(waiting.take(&account, now_ms));
            waiting.ripen(what, now_ms);
            let tally = waiting.next(&source(), now_ms).unwrap();
            waiting.settle(Tallied::Added(Vec::new()), now_ms);
            assert!(waiting.next(&source(), now_ms).is_none());
            assert_eq!(added(&tally, "b:", "operations"), 1);
            let calls = |row: &Bytes| row.starts_with(b"q:");
            let calls = tally.adds.iter().filter(|add| calls(&add.row));
            let calls = calls.flat_map(|add| &add.counts).map(|count| count.amount);
            (added(&tally, "s", "hits"), calls.sum::<i64>())
        };
        // Of the fleet, the tenant, the namespace.
        assert_eq!(send(What::Due, NEXT_MS), (3, 3));
        assert_eq!(send(What::Due, NEXT_MS + 1), (3, 0));
        assert_eq!(send(What::All, NEXT_MS + 2), (3, 6));
        assert_eq!(send(What::Due, NEXT_MS + LATENCIES_EVERY_MS + 1), (3, 0));
        assert_eq!(send(What::Due, NEXT_MS + LATENCIES_EVERY_MS + 2), (3, 6));
    }

    #[test]
    fn statistics_that_wait_are_bounded_and_stay_with_their_tenant() {
        let (mut waiting, accounts) = (Waiting::default(), Accounts::default());
        let mut held = Vec::new();
        let hit = Deeds {
            hits: 1,
            ..Deeds::default()
        };
        while waiting.sheets.len() < MAX_SHEETS {
            let account = accounts.of(Incarnation::random());
            for namespace in 0..32 {
                account.stats.count(&format!("n{namespace}"), &hit, None);
            }
            assert!(waiting.take(&account, NEXT_MS));
            held.push(account);
        }
        let beyond = accounts.of(Incarnation::random());
        beyond.count("a", &hit);
        let space = Space::meters_number(beyond.incarnation);
        assert_eq!(accounts.take_queue(space).len(), 1);
        assert!(waiting.take(&beyond, NEXT_MS));
        assert_eq!(accounts.take_queue(space).len(), 1, "it comes again");
        let mut hits = 0;
        beyond.stats.take(|_, taken| hits += taken.deeds.hits);
        assert_eq!(hits, 1);
    }

    #[test]
    fn what_waits_is_merged_by_minute_and_bounded() {
        let (mut waiting, accounts) = (Waiting::default(), Accounts::default());
        let account = accounts.of(Incarnation::random());
        for second in 0..120 {
            count(&account, 1);
            assert!(waiting.take(&account, NEXT_MS + second * 1000));
        }
        assert_eq!(waiting.parts.len(), 2);
        let mut held = Vec::new();
        while waiting.parts.len() < MAX_WAITING {
            let account = accounts.of(Incarnation::random());
            count(&account, 1);
            assert!(waiting.take(&account, NEXT_MS));
            held.push(account);
        }
        let beyond = accounts.of(Incarnation::random());
        count(&beyond, 1);
        assert!(!waiting.take(&beyond, NEXT_MS));
        assert_eq!(beyond.meter.take(Period::of(NEXT_MS)).counts.operations, 1);
        count(&account, 1);
        assert!(waiting.take(&account, NEXT_MS), "its minute waits already");
    }

    #[test]
    fn tallies_hold_as_much_as_the_port_allows_and_together_all() {
        let (mut waiting, accounts) = (Waiting::default(), Accounts::default());
        let crowded = accounts.of(Incarnation::random());
        for metric in 0..150 {
            crowded.meter.consume(&format!("metric-{metric}"), 1);
        }
        let mut accounts: Vec<_> = (0..40)
            .map(|_| accounts.of(Incarnation::random()))
            .collect();
        accounts.push(crowded);
        for account in &accounts {
            count(account, 1);
            assert!(waiting.take(account, NEXT_MS));
        }
        let (mut operations, mut metrics, mut transfer) = (0, 0, 0);
        while let Some(tally) = waiting.next(&source(), NEXT_MS) {
            let counts: usize = tally.adds.iter().map(|add| add.counts.len()).sum();
            assert!((1..=TALLY_COUNTS).contains(&counts), "{counts} counts");
            assert!(
                tally
                    .adds
                    .iter()
                    .all(|add| (1..=64).contains(&add.counts.len()))
            );
            operations += added(&tally, "b:", "operations");
            transfer += added(&tally, "t:", "bytes");
            metrics += (0..150)
                .map(|metric| added(&tally, "d:", &format!("x:metric-{metric}")))
                .sum::<i64>();
            waiting.settle(Tallied::Added(Vec::new()), NEXT_MS);
        }
        assert_eq!((operations, metrics, transfer), (41, 150, 410));
    }

    #[test]
    fn counts_of_a_closed_period_go_to_the_present_one_and_others_stay() {
        let (mut waiting, accounts) = (Waiting::default(), Accounts::default());
        let (late, other) = (
            accounts.of(Incarnation::random()),
            accounts.of(Incarnation::random()),
        );
        for account in [&late, &other] {
            count(account, 1);
            assert!(waiting.take(account, LATE_MS));
        }
        assert!(waiting.next(&source(), LATE_MS).unwrap().absent.is_empty());
        let barred = waiting.next(&source(), NEXT_MS).unwrap();
        let closing = rows::closing(late.incarnation, Period::of(LATE_MS));
        assert_eq!(barred.absent.len(), 2);
        let key = barred
            .absent
            .iter()
            .position(|key| *key == closing)
            .unwrap();
        waiting.settle(Tallied::Barred { key }, NEXT_MS);

        let moved = waiting.next(&source(), NEXT_MS).unwrap();
        assert_eq!(moved.stamp.as_ref().unwrap().sequence, 2);
        let row =
            |account: &Account, at_ms| rows::period(account.incarnation, Period::of(at_ms), 0);
        let rows: Vec<_> = moved.adds.iter().map(|add| &add.row).collect();
        assert!(rows.contains(&&row(&late, NEXT_MS)) && rows.contains(&&row(&other, LATE_MS)));
        assert!(!rows.contains(&&row(&late, LATE_MS)));
        assert_eq!(added(&moved, "b:", "operations"), 2);
        assert_eq!(
            moved.absent,
            [super::rows::closing(other.incarnation, Period::of(LATE_MS))]
        );
    }

    #[test]
    fn a_counter_at_its_end_holds_nothing_else_up() {
        let (mut waiting, accounts) = (Waiting::default(), Accounts::default());
        let account = accounts.of(Incarnation::random());
        count(&account, 1);
        account.meter.consume("pages", 7);
        assert!(waiting.take(&account, NEXT_MS));
        let tally = waiting.next(&source(), NEXT_MS).unwrap();
        let count = tally.adds[3]
            .counts
            .iter()
            .position(|count| count.name == "x:pages");
        let exceeded = Tallied::Exceeded {
            add: 3,
            count: count.unwrap(),
            limit: crate::store::MAX_COUNT,
            used: crate::store::MAX_COUNT,
        };
        waiting.settle(exceeded, NEXT_MS);
        let tally = waiting.next(&source(), NEXT_MS).unwrap();
        assert_eq!(added(&tally, "b:", "x:pages"), 0);
        assert_eq!(added(&tally, "b:", "operations"), 1);
        assert_eq!(added(&tally, "t:", "bytes"), 10);
    }

    #[test]
    fn an_answer_tells_what_all_replicas_transferred() {
        let (mut waiting, accounts) = (Waiting::default(), Accounts::default());
        let accounts = [
            accounts.of(Incarnation::random()),
            accounts.of(Incarnation::random()),
        ];
        for account in &accounts {
            count(account, 1);
            assert!(waiting.take(account, NEXT_MS));
        }
        let tally = waiting.next(&source(), NEXT_MS).unwrap();
        let figure = |row: &Bytes| {
            let own = accounts.iter().position(|account| {
                *row == rows::transfer(account.incarnation, Period::of(NEXT_MS))
            });
            own.map_or(7, |at| 1000 + at as u64)
        };
        let shown = tally
            .adds
            .iter()
            .map(|add| vec![figure(&add.row); add.counts.len()]);
        waiting.settle(Tallied::Added(shown.collect()), NEXT_MS);
        for (at, account) in accounts.iter().enumerate() {
            let known = account.meter.transferred(Period::of(NEXT_MS));
            assert_eq!(known, Some(1000 + at as u64));
        }
    }
}
