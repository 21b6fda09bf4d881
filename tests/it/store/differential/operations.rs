//! Random operations on a store. It does not know what is compared.

use proptest::{prelude::*, sample::select, strategy::Just};
use riptide_persistence::store::{Action, Check, Expiry, Key, Limits, Step, Table};

/// Paths, few so that writes meet.
pub const PATHS: [&[u8]; 7] = [
    b"a",
    b"ab",
    b"a:b",
    b"n:\0{x}*",
    b"n:\xff\r\n",
    b"n:?[a]",
    b"z",
];

/// Metered records are of one table in a space: entries here, tenants where the
/// space is taken for a registry, and sessions in a space of theirs.
const TABLES: [Table; 6] = [
    Table::Entry,
    Table::Entry,
    Table::ApiKey,
    Table::Job,
    Table::Control,
    Table::Refill,
];

/// What is done to both.
#[derive(Clone, Debug)]
pub enum Operation {
    Commit(Commitment),
    /// Records that end at once, and the wait until they are over, and uncounted but
    /// for those that linger.
    Ending(Vec<(Key, Expiry)>),
    Reclaim {
        orphans: bool,
        prefix: usize,
        limit: usize,
    },
    List {
        table: Table,
        prefix: usize,
        limit: usize,
        value_bytes: usize,
    },
}

#[derive(Clone, Debug)]
pub struct Commitment {
    pub writes: Vec<Draft>,
    pub each: bool,
    pub seen: Seen,
    pub limits: Limits,
    pub step: Option<Step>,
}

/// Which view a batch relies on.
#[derive(Clone, Copy, Debug)]
pub enum Seen {
    Any,
    Present,
    Past,
}

/// A write whose versions are still to be looked up.
#[derive(Clone, Debug)]
pub struct Draft {
    pub key: Key,
    pub check: Lookup,
    pub action: Action,
    pub hidden: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    Check(Check),
    /// The version the record has.
    Present,
}

/// What a table, or a step, is where the metered table is this one.
fn metering(operation: &mut Operation, metered: Table) {
    let table = |table: &mut Table| {
        if *table == Table::Entry {
            *table = metered;
        }
    };
    match operation {
        Operation::Commit(commitment) => {
            commitment
                .writes
                .iter_mut()
                .for_each(|draft| table(&mut draft.key.table));
            commitment.step = commitment
                .step
                .take()
                .filter(|step| *step != Step::Generation);
        }
        Operation::Ending(ending) => ending.iter_mut().for_each(|(key, _)| table(&mut key.table)),
        Operation::List { table: listed, .. } => table(listed),
        Operation::Reclaim { orphans, .. } => *orphans = true,
    }
}

pub fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let expiry = prop_oneof![
        2 => Just(Expiry::Never),
        1 => (60_000u64..1 << 40).prop_map(Expiry::AfterMs),
        1 => (60_000u64..1 << 40, 0u64..1 << 40)
            .prop_map(|(after_ms, linger_ms)| Expiry::Lingering { after_ms, linger_ms }),
    ];
    let key =
        (select(&TABLES[..]), select(&PATHS[..])).prop_map(|(table, path)| Key::new(table, path));
    let check = prop_oneof![
        6 => Just(Lookup::Check(Check::Any)),
        1 => Just(Lookup::Check(Check::Absent)),
        1 => Just(Lookup::Check(Check::Present)),
        1 => (1u64..30).prop_map(|version| Lookup::Check(Check::Version(version))),
        2 => Just(Lookup::Present),
    ];
    let action = prop_oneof![
        // Long enough to say how it is renewed.
        5 => (12usize..200, expiry.clone()).prop_map(|(bytes, expiry)| Action::Put { value: vec![b'v'; bytes].into(), expiry }),
        2 => expiry.prop_map(Action::Touch),
        2 => Just(Action::Renew),
        2 => Just(Action::Delete),
        1 => Just(Action::Take),
        1 => Just(Action::Nothing),
    ];
    let draft = (key.clone(), check, action, proptest::bool::weighted(0.1)).prop_map(
        |(key, check, action, hidden)| Draft {
            key,
            check,
            action,
            hidden,
        },
    );
    let limits = prop_oneof![
        3 => Just(Limits::default()),
        1 => (0u64..8).prop_map(|entries| Limits { entries: Some(entries), bytes: None }),
        1 => (0u64..800).prop_map(|bytes| Limits { entries: None, bytes: Some(bytes) }),
        1 => (0u64..8, 0u64..800).prop_map(|(entries, bytes)| Limits { entries: Some(entries), bytes: Some(bytes) }),
    ];
    let seen = prop_oneof![2 => Just(Seen::Any), 6 => Just(Seen::Present), 1 => Just(Seen::Past)];
    let step = prop_oneof![
        12 => Just(None),
        1 => Just(Some(Step::Epoch)),
        1 => Just(Some(Step::Era)),
        1 => Just(Some(Step::Generation)),
    ];
    let commit = (
        proptest::collection::vec(draft, 0..6),
        any::<bool>(),
        seen,
        limits,
        step,
    )
        .prop_map(|(writes, each, seen, limits, step)| Commitment {
            writes,
            each,
            seen,
            limits,
            step,
        });
    let soon = prop_oneof![
        2 => (1u64..60).prop_map(Expiry::AfterMs),
        1 => (1u64..60, 60_000u64..1 << 40)
            .prop_map(|(after_ms, linger_ms)| Expiry::Lingering { after_ms, linger_ms }),
    ];
    let ending = proptest::collection::vec((key.clone(), soon), 1..5);
    let operation = prop_oneof![
        50 => commit.prop_map(Operation::Commit),
        2 => ending.prop_map(Operation::Ending),
        4 => (any::<bool>(), 0..PATHS.len(), 1usize..9)
            .prop_map(|(orphans, prefix, limit)| Operation::Reclaim { orphans, prefix, limit }),
        6 => (select(&[Table::Entry, Table::ApiKey, Table::Job][..]), 0..=PATHS.len(), 1usize..9, 0usize..99)
            .prop_map(|(table, prefix, limit, value_bytes)| Operation::List { table, prefix, limit, value_bytes }),
    ];
    // Now and then the space is removed, and what follows meets that.
    (
        proptest::collection::vec(operation, 5..40),
        select(&[Table::Entry, Table::Tenant, Table::Session][..]),
        proptest::bool::weighted(0.2),
        0usize..40,
    )
        .prop_map(|(mut operations, metered, remove, place)| {
            if metered != Table::Entry {
                let metering = |operation| metering(operation, metered);
                operations.iter_mut().for_each(metering);
            }
            if remove {
                let removal = Commitment {
                    writes: Vec::new(),
                    each: false,
                    seen: Seen::Any,
                    limits: Limits::default(),
                    step: Some(Step::Remove),
                };
                operations.insert(place.min(operations.len()), Operation::Commit(removal));
            }
            operations
        })
}
