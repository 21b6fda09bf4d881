//! Points in time of spaces. It does not know who reads them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use riptide_persistence::store::{
    Error, Keep, MAX_PINS, Mode, PINNED_PAGE_BYTES, Pin, PinnedRecord, Pinning, Reclaim, Renewal,
    Step, charge,
};

use super::*;

/// What a walk yielded of each pin.
pub type Yield = Vec<BTreeMap<Key, PinnedRecord>>;

/// A walk in the hands of a test.
pub struct Walk {
    pub pins: Vec<Pin>,
    tables: Vec<Table>,
    limit: usize,
    after: Option<riptide_persistence::store::Cursor>,
    pub found: Yield,
    pub lost: Vec<usize>,
    pub ended: bool,
}

impl Walk {
    pub fn over(pins: &[Pin], tables: &[Table], limit: usize) -> Self {
        Self {
            pins: pins.to_vec(),
            tables: tables.to_vec(),
            limit,
            after: None,
            found: vec![BTreeMap::new(); pins.len()],
            lost: Vec::new(),
            ended: false,
        }
    }

    /// One page; true while there are more.
    pub async fn step(&mut self, store: &Handle) -> bool {
        self.attempt(store).await.unwrap()
    }

    pub async fn attempt(&mut self, store: &Handle) -> riptide_persistence::store::Result<bool> {
        assert!(!self.ended);
        let page = store
            .pinned(&self.pins, &self.tables, self.after.clone(), self.limit)
            .await?;
        assert!(page.items.len() <= self.limit);
        let bytes: usize = page.items.iter().map(|item| item.record.value.len()).sum();
        let last = page.items.last().map_or(0, |item| item.record.value.len());
        assert!(bytes - last <= PINNED_PAGE_BYTES + (1 << 20), "{bytes}");
        for item in page.items {
            assert!(self.tables.contains(&item.key.table), "{item:?}");
            assert!(
                item.record.version <= self.pins[item.pin].version,
                "{item:?}"
            );
            let before = self.found[item.pin].insert(item.key.clone(), item.clone());
            if let Some(before) = before {
                assert_eq!(before, item, "a record comes twice only as it was");
            }
        }
        self.lost = page.lost;
        self.after = page.next;
        self.ended = self.after.is_none();
        Ok(!self.ended)
    }

    pub async fn walked(mut self, store: &Handle) -> Self {
        while self.step(store).await {}
        self
    }
}

pub async fn pinned(store: &Handle, space: &Space) -> Pin {
    kept(store, space, Keep::default()).await
}

pub async fn kept(store: &Handle, space: &Space, keep: Keep) -> Pin {
    match store.pin(space, keep).await.unwrap() {
        Pinning::Pinned(pin) => pin,
        refused => panic!("{refused:?}"),
    }
}

/// What a pin of one space yields, as keys and values.
async fn whole(store: &Handle, pin: &Pin) -> BTreeMap<Key, PinnedRecord> {
    let walk = Walk::over(std::slice::from_ref(pin), &Table::ALL, 7);
    let mut walk = walk.walked(store).await;
    assert_eq!(walk.lost, [0; 0]);
    walk.found.remove(0)
}

fn values(found: &BTreeMap<Key, PinnedRecord>) -> BTreeMap<Key, Bytes> {
    let value = |(key, item): (&Key, &PinnedRecord)| (key.clone(), item.record.value.clone());
    found.iter().map(value).collect()
}

/// Whether a pin is lost, as a walk over it says.
pub async fn is_lost(store: &Handle, pin: &Pin) -> bool {
    let walk = Walk::over(std::slice::from_ref(pin), &Table::ALL, 1000);
    let walk = walk.walked(store).await;
    assert!(walk.lost.is_empty() || walk.lost == [0]);
    !walk.lost.is_empty()
}

fn stepping(step: Step) -> Batch {
    Batch {
        step: Some(step),
        ..Batch::default()
    }
}

async fn reclaim_all(store: &Handle, space: &Space, what: Reclaim) -> u64 {
    let (mut after, mut entries) = (None, 0);
    loop {
        let step = store.reclaim(space, what.clone(), after, 50).await.unwrap();
        entries += step.entries;
        after = step.next;
        if after.is_none() {
            return entries;
        }
    }
}

pub async fn a_pinned_space_is_read_as_it_was(store: &Handle) {
    let space = space();
    let mut before = BTreeMap::new();
    for table in Table::ALL {
        if table.metered() && table != Table::Entry {
            continue;
        }
        let puts = (0..20).map(|number| {
            let (key, value) = (key(table, format!("{number}:\0{{x}}*")), number.to_string());
            before.insert(key.clone(), Bytes::from(value.clone()));
            Write::put(key, value)
        });
        applied(store, &space, Batch::of(puts.collect::<Vec<_>>())).await;
    }
    let (seen, usage) = (
        view(store, &space).await,
        store.usage(&space).await.unwrap(),
    );
    let pin = pinned(store, &space).await;
    assert_eq!((pin.view, pin.usage), (seen, usage));
    assert_eq!(pin.space, space);
    assert!(pin.at_ms.abs_diff(store.now_ms()) < 60_000);

    let name = |table, number: u32| key(table, format!("{number}:\0{{x}}*"));
    for table in [Table::Entry, Table::Refill, Table::Control, Table::Job] {
        // Each of these is one that must leave the picture as it is.
        let whole = Batch::of([
            Write::put(name(table, 0), "new"),
            Write::delete(name(table, 1)),
            touch(name(table, 2), Expiry::AfterMs(90_000)),
            Write::put(name(table, 99), "later"),
        ]);
        applied(store, &space, whole).await;
        let each = Batch {
            mode: Mode::Each,
            ..Batch::of([
                touch(name(table, 3), Expiry::AfterMs(90_000)),
                Write::put(name(table, 3), "new"),
                Write::put(name(table, 3), "newer"),
                Write::delete(name(table, 4)),
                Write::put(name(table, 4), "new"),
                Write::delete(name(table, 4)),
                touch(name(table, 5), Expiry::AfterMs(90_000)),
                touch(name(table, 5), Expiry::AfterMs(80_000)),
                Write::put(name(table, 6), "refused").when(Check::Absent),
                Write::delete(name(table, 7)),
                touch(name(table, 7), Expiry::AfterMs(90_000)),
                Write::put(name(table, 98), "later"),
                Write::delete(name(table, 98)),
            ])
        };
        applied(store, &space, each).await;
        for number in [2, 5] {
            write(store, &space, touch(name(table, number), Expiry::Never)).await;
            write(store, &space, Write::put(name(table, number), "new")).await;
        }
        write(store, &space, Write::delete(name(table, 0))).await;
        write(store, &space, Write::put(name(table, 1), "again")).await;
    }
    let found = whole(store, &pin).await;
    assert_eq!(values(&found), before);
    for item in found.values() {
        assert_eq!((item.record.expire_ms, item.counts_until_ms), (None, None));
    }
    assert_eq!(
        values(&whole(store, &pin).await),
        before,
        "as often as it is read"
    );
    let jobs = Walk::over(std::slice::from_ref(&pin), &[Table::Job], 1000);
    let jobs = jobs.walked(store).await;
    assert_eq!(jobs.found[0].len(), 20, "only the tables asked for");

    // The space itself is as if nobody had looked.
    assert_eq!(
        value(store, &space, name(Table::Entry, 3)).await,
        Some("newer".into())
    );
    assert_eq!(value(store, &space, name(Table::Entry, 4)).await, None);
    assert_agrees(store, &space).await;
    store.unpin(&pin).await.unwrap();
    assert_agrees(store, &space).await;
    assert!(is_lost(store, &pin).await);
}

pub async fn a_pin_counts_what_it_yields(store: &Handle) {
    let space = space();
    let puts = (0..300).map(|number| {
        let value = vec![b'v'; number * 7];
        match number % 3 {
            0 => Write::put(entry(format!("{number}")), value),
            1 => ending(entry(format!("{number}")), value, 600_000),
            _ => Write::put(entry(format!("{number}")), value).expiring(Expiry::Lingering {
                after_ms: 600_000,
                linger_ms: 60_000,
            }),
        }
    });
    applied(store, &space, Batch::of(puts.collect::<Vec<_>>())).await;
    write(store, &space, Write::put(key(Table::Control, "c"), "v")).await;
    let pin = pinned(store, &space).await;
    let half = (0..150).map(|number| Write::delete(entry(format!("{number}"))));
    applied(store, &space, Batch::of(half.collect::<Vec<_>>())).await;
    let walk = Walk::over(std::slice::from_ref(&pin), &[Table::Entry], 100);
    let found = walk.walked(store).await.found.remove(0);
    let bytes = found
        .values()
        .map(|item| charge(&item.key.path, item.record.value.len()));
    assert_eq!(
        (found.len() as u64, bytes.sum()),
        (pin.usage.entries, pin.usage.bytes)
    );
    for item in found.values() {
        let number: u64 = String::from_utf8(item.key.path.to_vec())
            .unwrap()
            .parse()
            .unwrap();
        let end = item
            .record
            .expire_ms
            .map(|end| end.abs_diff(pin.at_ms + 600_000) < 60_000);
        assert_eq!(end, (!number.is_multiple_of(3)).then_some(true), "{item:?}");
        let (Some(end), Some(counts)) = (item.record.expire_ms, item.counts_until_ms) else {
            assert_eq!((number % 3, item.counts_until_ms), (0, None));
            continue;
        };
        let lingers = if number % 3 == 2 { 60_000 } else { 0 };
        assert!(
            (lingers..lingers + 1_000).contains(&(counts - end)),
            "{item:?}"
        );
    }
    store.unpin(&pin).await.unwrap();
}

pub async fn what_is_flushed_and_reclaimed_stays_pinned(store: &Handle) {
    let space = space();
    let many = |prefix: &'static str| {
        let puts = (0..120).map(move |number| Write::put(entry(format!("{prefix}{number}")), "v"));
        Batch::of(puts.collect::<Vec<_>>())
    };
    applied(store, &space, many("older")).await;
    applied(store, &space, stepping(Step::Generation)).await;
    applied(store, &space, many("old")).await;
    write(store, &space, Write::put(key(Table::Refill, "r"), "v")).await;
    write(store, &space, Write::put(key(Table::Control, "c"), "v")).await;
    let pin = pinned(store, &space).await;
    let before = values(&whole(store, &pin).await);
    assert_eq!(before.len(), 122);
    applied(store, &space, many("new")).await;
    let flushed = applied(store, &space, stepping(Step::Generation)).await;
    applied(store, &space, many("newer")).await;
    assert_eq!(values(&whole(store, &pin).await), before);
    let below = flushed.view.generation;
    let reclaimed = reclaim_all(store, &space, Reclaim::Orphans { below }).await;
    assert_eq!(reclaimed, 360);
    assert_eq!(values(&whole(store, &pin).await), before);
    let usage = store.usage(&space).await.unwrap();
    assert_eq!((usage.entries, usage.orphaned_bytes), (120, 0));
    store.unpin(&pin).await.unwrap();
    let audit = store.audit(&space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
    assert_eq!(audit.found.orphaned_bytes, 0);
}

pub async fn what_is_swept_stays_pinned(store: &Handle) {
    let space = space();
    let puts = (0..200).map(|number| Write::put(entry(format!("a:{number}")), "v"));
    applied(store, &space, Batch::of(puts.collect::<Vec<_>>())).await;
    let pin = pinned(store, &space).await;
    let before = values(&whole(store, &pin).await);
    let version = write(store, &space, Write::put(entry("a:0"), "new")).await;
    let mut walk = Walk::over(std::slice::from_ref(&pin), &Table::ALL, 30);
    walk.step(store).await;
    let sweep = Reclaim::Below {
        prefix: "a:".into(),
        version,
    };
    assert_eq!(reclaim_all(store, &space, sweep).await, 200);
    assert_eq!(counted(store, &space).await, (0, 0));
    assert_eq!(values(&walk.walked(store).await.found[0]), before);
    assert_eq!(values(&whole(store, &pin).await), before);
    store.unpin(&pin).await.unwrap();
    assert_agrees(store, &space).await;
}

pub async fn what_has_ended_is_not_pinned(store: &Handle) {
    let space = space();
    let lingering = Expiry::Lingering {
        after_ms: 30,
        linger_ms: 60_000,
    };
    let batch = Batch::of([
        ending(entry("ended"), "v", 1),
        Write::put(entry("lingers"), "v").expiring(lingering),
        ending(entry("ends"), "v", 400),
        Write::put(entry("stays"), "v"),
    ]);
    applied(store, &space, batch).await;
    wait_past(store, store.now_ms()).await;
    let pin = pinned(store, &space).await;
    // One that is over is not kept where it is replaced or removed.
    write(store, &space, Write::put(entry("lingers"), "new")).await;
    wait_past(store, pin.at_ms + 400).await;
    write(store, &space, Write::put(entry("ends"), "new")).await;
    let found = values(&whole(store, &pin).await);
    assert_eq!(found, [(entry("stays"), "v".into())].into());
    store.unpin(&pin).await.unwrap();
}

pub async fn a_touched_record_has_its_former_end(store: &Handle) {
    let space = space();
    let names: Vec<Key> = (0..40).map(|number| entry(format!("{number}"))).collect();
    let puts = names.iter().map(|key| ending(key.clone(), "v", 500_000));
    applied(store, &space, Batch::of(puts.collect::<Vec<_>>())).await;
    let mut ends = BTreeMap::new();
    for key in &names {
        let record = record(store, &space, key.clone()).await.unwrap();
        ends.insert(key.clone(), (record.expire_ms, record.version));
    }
    let pin = pinned(store, &space).await;
    let mut walk = Walk::over(std::slice::from_ref(&pin), &Table::ALL, 10);
    walk.step(store).await;
    for ms in [700_000, 800_000] {
        let touches = names
            .iter()
            .map(|key| touch(key.clone(), Expiry::AfterMs(ms)));
        applied(store, &space, Batch::of(touches.collect::<Vec<_>>())).await;
    }
    let last = names.iter().skip(30).map(|key| Write::delete(key.clone()));
    applied(store, &space, Batch::of(last.collect::<Vec<_>>())).await;
    for walk in [
        walk,
        Walk::over(std::slice::from_ref(&pin), &Table::ALL, 1000),
    ] {
        let found = walk.walked(store).await.found.remove(0);
        let found = found
            .into_iter()
            .map(|(key, item)| (key, (item.record.expire_ms, item.record.version)));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), ends);
    }
    store.unpin(&pin).await.unwrap();
    assert_agrees(store, &space).await;
}

pub async fn what_is_renewed_and_taken_stays_pinned(store: &Handle) {
    let space = space();
    let name = |number: u32| key(Table::Session, format!("{number:02}"));
    let until_ms = store.now_ms() + 3_600_000;
    let renewal = Renewal {
        idle_ms: 500_000,
        until_ms,
    };
    let value = Bytes::copy_from_slice(&renewal.encode());
    let puts = (0..30).map(|number| ending(name(number), value.clone(), 400_000));
    applied(store, &space, Batch::of(puts.collect::<Vec<_>>())).await;
    let mut before = BTreeMap::new();
    for number in 0..30 {
        let record = record(store, &space, name(number)).await.unwrap();
        before.insert(name(number), record);
    }
    let pin = pinned(store, &space).await;
    let each = |action: Action, numbers: std::ops::Range<u32>| {
        let write = |number| Write::new(name(number), Check::Any, action.clone());
        Batch::of(numbers.map(write).collect::<Vec<_>>())
    };
    for _ in 0..2 {
        applied(store, &space, each(Action::Renew, 0..20)).await;
    }
    applied(store, &space, each(Action::Take, 10..30)).await;
    let found = whole(store, &pin).await;
    let found = found.into_iter().map(|(key, item)| (key, item.record));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), before);
    store.unpin(&pin).await.unwrap();
    assert_eq!(counted(store, &space).await.0, 10);
    assert_agrees(store, &space).await;
}

pub async fn a_fenced_space_can_be_pinned(store: &Handle) {
    let space = space();
    write(store, &space, Write::put(entry("k"), "v")).await;
    let pin = pinned(store, &space).await;
    applied(store, &space, stepping(Step::Fence)).await;
    let expected = [(entry("k"), "v".into())].into();
    assert_eq!(values(&whole(store, &pin).await), expected);
    store.unpin(&pin).await.unwrap();
    let pin = pinned(store, &space).await;
    assert_eq!(values(&whole(store, &pin).await), expected);
    let put = Batch::of([Write::put(entry("k"), "new")]);
    assert_eq!(refused(store, &space, put).await, Refusal::Fenced);
    applied(store, &space, stepping(Step::Remove)).await;
    assert!(is_lost(store, &pin).await);
}

pub async fn one_pin_at_a_time(store: &Handle) {
    let (space, other) = (space(), space());
    write(store, &space, Write::put(entry("k"), "v")).await;
    let pin = pinned(store, &space).await;
    let refused = store.pin(&space, Keep::default()).await.unwrap();
    let Pinning::Taken { until_ms } = refused else {
        panic!("{refused:?}")
    };
    assert!((pin.at_ms + 60_000..pin.at_ms + 100_000).contains(&until_ms));
    let of_other = pinned(store, &other).await;
    assert_eq!(
        values(&whole(store, &pin).await),
        [(entry("k"), "v".into())].into()
    );
    store.unpin(&pin).await.unwrap();
    let next = pinned(store, &space).await;
    // What has ended is not ended again, and ends no other.
    store.unpin(&pin).await.unwrap();
    assert!(is_lost(store, &pin).await && !is_lost(store, &next).await);
    assert!(!is_lost(store, &of_other).await);
    for pin in [next, of_other] {
        store.unpin(&pin).await.unwrap();
    }
}

pub async fn a_removed_space_has_no_pin(store: &Handle) {
    let (space, other) = (space(), space());
    for space in [&space, &other] {
        applied(
            store,
            space,
            Batch::of((0..50).map(|number| Write::put(entry(format!("{number}")), "v"))),
        )
        .await;
    }
    let pins = [pinned(store, &space).await, pinned(store, &other).await];
    let mut walk = Walk::over(&pins, &Table::ALL, 10);
    walk.step(store).await;
    write(store, &space, Write::delete(entry("1"))).await;
    applied(store, &space, stepping(Step::Remove)).await;
    let walk = walk.walked(store).await;
    assert_eq!(walk.lost, [0]);
    assert_eq!(walk.found[1].len(), 50, "the other is whole");
    assert_eq!(
        store.pin(&space, Keep::default()).await.unwrap(),
        Pinning::Gone
    );
    reclaim_all(
        store,
        &space,
        Reclaim::Orphans {
            below: u64::MAX >> 11,
        },
    )
    .await;
    for pin in &pins {
        store.unpin(pin).await.unwrap();
    }
    assert_eq!(
        refused(store, &space, Batch::of([Write::put(entry("k"), "v")])).await,
        Refusal::Gone
    );
}

fn briefly(for_ms: u64) -> Keep {
    Keep {
        for_ms,
        ..Keep::default()
    }
}

pub async fn a_pin_that_is_not_read_is_lost(store: &Handle) {
    let space = space();
    let puts = (0..50).map(|number| Write::put(entry(format!("{number}")), "v"));
    applied(store, &space, Batch::of(puts.collect::<Vec<_>>())).await;
    let pin = kept(store, &space, briefly(100)).await;
    write(store, &space, Write::delete(entry("1"))).await;
    wait_past(store, pin.at_ms + 150).await;
    assert!(is_lost(store, &pin).await);
    // Whoever comes next has it, whatever was left behind.
    write(store, &space, Write::delete(entry("2"))).await;
    let next = pinned(store, &space).await;
    assert_eq!(whole(store, &next).await.len(), 48);
    store.unpin(&pin).await.unwrap();
    assert_eq!(whole(store, &next).await.len(), 48);
    store.unpin(&next).await.unwrap();
    assert_agrees(store, &space).await;
}

pub async fn a_pin_that_is_read_lasts(store: &Handle) {
    let space = space();
    let puts = (0..200).map(|number| Write::put(entry(format!("{number}")), "v"));
    applied(store, &space, Batch::of(puts.collect::<Vec<_>>())).await;
    // Long enough for a busy machine, short enough to be over several times.
    let pin = kept(store, &space, briefly(2_000)).await;
    let mut walk = Walk::over(std::slice::from_ref(&pin), &Table::ALL, 10);
    let mut number = 0;
    while walk.step(store).await {
        let deletes = (number..number + 10).map(|number| Write::delete(entry(format!("{number}"))));
        applied(store, &space, Batch::of(deletes.collect::<Vec<_>>())).await;
        number += 10;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(
        store.now_ms() > pin.at_ms + 3_000,
        "longer than without a read"
    );
    assert_eq!((walk.lost.len(), walk.found[0].len()), (0, 200));
    store.unpin(&pin).await.unwrap();
}

pub async fn large_values_are_pinned_whole(store: &Handle) {
    let space = space();
    let large = |byte: u8, bytes: usize| Bytes::from(vec![byte; bytes]);
    let mut before = BTreeMap::new();
    for number in 0..6u8 {
        let key = entry(format!("large{number}"));
        let value = large(number, (5 << 20) + usize::from(number));
        before.insert(key.clone(), value.clone());
        write(store, &space, Write::put(key, value)).await;
    }
    for number in 0..40u8 {
        let key = entry(format!("middle{number}"));
        let value = large(number, (32 << 10) - 22 + usize::from(number));
        before.insert(key.clone(), value.clone());
        write(store, &space, Write::put(key, value)).await;
    }
    let pin = pinned(store, &space).await;
    let mut walk = Walk::over(std::slice::from_ref(&pin), &Table::ALL, 1000);
    walk.step(store).await;
    assert!(!walk.ended, "a page is bounded in bytes");
    for number in 0..3u8 {
        let key = entry(format!("large{number}"));
        write(store, &space, Write::put(key.clone(), large(9, 6 << 20))).await;
        write(store, &space, Write::delete(key)).await;
    }
    let walk = walk.walked(store).await;
    assert!(values(&walk.found[0]) == before, "whole, as they were");
    store.unpin(&pin).await.unwrap();
}

pub async fn many_spaces_are_read_in_one_walk(store: &Handle) {
    let spaces: Vec<Space> = (0..120).map(|_| space()).collect();
    let mut pins = Vec::new();
    for (number, space) in spaces.iter().enumerate() {
        let puts =
            (0..number % 9).map(|at| Write::put(entry(format!("{at}")), format!("{number}")));
        applied(store, space, Batch::of(puts.collect::<Vec<_>>())).await;
        pins.push(pinned(store, space).await);
    }
    let mut walk = Walk::over(&pins, &[Table::Entry], 64);
    while walk.step(store).await {
        for space in spaces.iter().step_by(3) {
            write(store, space, Write::delete(entry("0"))).await;
            write(store, space, Write::put(entry("1"), "new")).await;
        }
    }
    assert_eq!(walk.lost, [0; 0]);
    for (number, found) in walk.found.iter().enumerate() {
        let expected =
            (0..number % 9).map(|at| (entry(format!("{at}")), Bytes::from(number.to_string())));
        assert_eq!(values(found), expected.collect());
    }
    for pin in &pins {
        store.unpin(pin).await.unwrap();
    }
}

/// Numbers that seem random, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

pub async fn random_writes_beside_a_walk_change_nothing(store: &Handle) {
    for seed in 1..4 {
        let mut dice = Dice(seed * 7_777_777);
        let space = space();
        let mut model: BTreeMap<Key, Bytes> = BTreeMap::new();
        for round in 0..3 {
            for _ in 0..80 {
                random_write(store, &space, &mut dice, &mut model).await;
            }
            let pin = pinned(store, &space).await;
            let before = model.clone();
            let mut walk = Walk::over(std::slice::from_ref(&pin), &Table::ALL, 5);
            while walk.step(store).await {
                for _ in 0..dice.roll(6) {
                    random_write(store, &space, &mut dice, &mut model).await;
                }
            }
            assert_eq!(values(&walk.found[0]), before, "seed {seed}, round {round}");
            assert_eq!(values(&whole(store, &pin).await), before);
            store.unpin(&pin).await.unwrap();
            assert_agrees(store, &space).await;
        }
    }
}

async fn random_write(
    store: &Handle,
    space: &Space,
    dice: &mut Dice,
    model: &mut BTreeMap<Key, Bytes>,
) {
    let tables = [Table::Entry, Table::Entry, Table::Control, Table::Refill];
    let key = key(tables[dice.roll(4) as usize], format!("{}", dice.roll(40)));
    match dice.roll(40) {
        0 => {
            let flushed = applied(store, space, stepping(Step::Generation)).await;
            model.retain(|key, _| !key.table.generational());
            if dice.roll(2) == 0 {
                let below = flushed.view.generation;
                reclaim_all(store, space, Reclaim::Orphans { below }).await;
            }
        }
        1 => {
            let (prefix, version) = ("1".into(), 1 << 50);
            reclaim_all(store, space, Reclaim::Below { prefix, version }).await;
            model.retain(|key, _| key.table != Table::Entry || !key.path.starts_with(b"1"));
        }
        2..=10 => {
            write(store, space, Write::delete(key.clone())).await;
            model.remove(&key);
        }
        11..=17 => {
            let ms = 600_000 + dice.roll(1_000_000);
            write(store, space, touch(key, Expiry::AfterMs(ms))).await;
        }
        _ => {
            let value = Bytes::from(vec![b'v'; dice.roll(300) as usize]);
            write(store, space, Write::put(key.clone(), value.clone())).await;
            model.insert(key, value);
        }
    }
}

pub async fn many_writers_beside_a_walk_change_nothing(store: &Handle) {
    let space = space();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, space, stop) = (store.clone(), space.clone(), stop.clone());
            tokio::spawn(async move {
                let mut written: Vec<(Key, u64, String)> = Vec::new();
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let key = entry(format!("{writer}:{}", number % 97));
                    let value = format!("{writer}:{number}");
                    let version =
                        write(&store, &space, Write::put(key.clone(), value.clone())).await;
                    written.push((key, version, value));
                    number += 1;
                    tokio::task::yield_now().await;
                }
                written
            })
        })
        .collect();
    let mut walks = Vec::new();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        let pin = pinned(store, &space).await;
        walks.push(
            Walk::over(std::slice::from_ref(&pin), &Table::ALL, 20)
                .walked(store)
                .await,
        );
        store.unpin(&pin).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for writer in writers {
        written.extend(writer.await.unwrap());
    }
    written.sort_by_key(|(_, version, _)| *version);
    for walk in walks {
        let there = written
            .iter()
            .filter(|(_, version, _)| *version <= walk.pins[0].version)
            .map(|(key, _, value)| (key.clone(), Bytes::from(value.clone())));
        assert_eq!(walk.lost, [0; 0]);
        assert_eq!(values(&walk.found[0]), there.collect());
    }
    assert_agrees(store, &space).await;
}

pub async fn a_space_never_written_can_be_pinned(store: &Handle) {
    let space = space();
    for _ in 0..2 {
        let pin = pinned(store, &space).await;
        assert_eq!((pin.view, pin.version), (View::default(), 0));
        assert_eq!((pin.usage.entries, pin.usage.bytes), (0, 0));
        assert_eq!(whole(store, &pin).await.len(), 0);
        assert_eq!(view(store, &space).await, View::default());
        store.unpin(&pin).await.unwrap();
        assert_eq!(view(store, &space).await, View::default());
    }
    let pin = pinned(store, &space).await;
    let first = applied(store, &space, Batch::of([Write::put(entry("k"), "v")])).await;
    assert_eq!(first.view.epoch, 1);
    assert_eq!(whole(store, &pin).await.len(), 0);
    store.unpin(&pin).await.unwrap();
    assert_eq!(value(store, &space, entry("k")).await, Some("v".into()));
}

pub async fn misuse_of_pins_is_named(store: &Handle) {
    let misused = |error: Error, words: &str| match error {
        Error::Misuse(text) => assert!(text.contains(words), "{text}"),
        error => panic!("{error:?}"),
    };
    let space = space();
    for for_ms in [0, 99, 600_001] {
        let error = store.pin(&space, briefly(for_ms)).await.unwrap_err();
        misused(error, "100 to 600000");
    }
    let pin = pinned(store, &space).await;
    let one = std::slice::from_ref(&pin);
    let tables = [Table::Entry];
    for limit in [0, 1001] {
        let error = store.pinned(one, &tables, None, limit).await.unwrap_err();
        misused(error, "1 to 1000 records");
    }
    let error = store.pinned(&[], &tables, None, 1).await.unwrap_err();
    misused(error, "1 to 256");
    let many = vec![pin.clone(); MAX_PINS + 1];
    let error = store.pinned(&many, &tables, None, 1).await.unwrap_err();
    misused(error, "1 to 256");
    let twice = [pin.clone(), pin.clone()];
    let error = store.pinned(&twice, &tables, None, 1).await.unwrap_err();
    misused(error, "twice");
    let strange = riptide_persistence::store::Cursor(Bytes::from_static(b"\xff"));
    let error = store
        .pinned(one, &tables, Some(strange), 1)
        .await
        .unwrap_err();
    misused(error, "cursor");
    store.unpin(&pin).await.unwrap();
}
