//! What a path and a value may be, and that nothing mixes. It does not know of
//! time or limits.

use riptide_persistence::store::{Error, MAX_WRITES};

use super::*;

/// Paths that something between here and the disk might take for something else.
const ODD: [&[u8]; 24] = [
    b"a:b",
    b"a:b:c",
    b":",
    b"a{b}c",
    b"{",
    b"}",
    b"{}",
    b"a\0b",
    b"\0",
    b"a\r\nb",
    b"\n",
    b"*",
    b"?",
    b"[a-z]",
    b"\\",
    b"^",
    b"a*b?c[d]e\\f^g",
    b"\xff\xfe\xfd",
    b"\x80",
    b"caf\xc3\xa9",
    b"cafe\xcc\x81",
    b" ",
    b"a ",
    b"%s%n",
];

pub async fn odd_bytes_in_paths_are_separate_records(store: &Handle) {
    let space = space();
    for table in [Table::Entry, Table::Tenant, Table::Control, Table::Request] {
        let batch =
            Batch::of(ODD.map(|path| Write::put(key(table, path), Bytes::copy_from_slice(path))));
        applied(store, &space, batch).await;
        let generation = view(store, &space).await.generation;
        let read = store
            .read(&space, generation, &ODD.map(|path| key(table, path)))
            .await
            .unwrap();
        for (path, record) in ODD.iter().zip(read.records) {
            assert_eq!(record.unwrap().value, path, "{table:?} {path:?}");
        }
    }
    assert_agrees(store, &space).await;
    for path in ODD {
        write(
            store,
            &space,
            Write::delete(entry(path)).when(Check::Present),
        )
        .await;
    }
    let tenants = ODD.len() as u64;
    assert_eq!(counted(store, &space).await.0, tenants);
}

pub async fn long_paths_are_kept(store: &Handle) {
    let space = space();
    let long = vec![b'k'; 1024 + 64];
    let mut other = long.clone();
    *other.last_mut().unwrap() = b'l';
    write(store, &space, Write::put(entry(&long), "1")).await;
    write(store, &space, Write::put(entry(&other), "2")).await;
    assert_eq!(value(store, &space, entry(&long)).await, Some("1".into()));
    assert_eq!(value(store, &space, entry(&other)).await, Some("2".into()));
    assert_eq!(value(store, &space, entry(&long[..1024])).await, None);
}

pub async fn a_large_value_comes_back(store: &Handle) {
    let space = space();
    let large: Bytes = (0..20 << 20)
        .map(|at: u32| (at ^ (at >> 8)) as u8)
        .collect();
    write(store, &space, Write::put(entry("large"), large.clone())).await;
    assert!(
        value(store, &space, entry("large")).await == Some(large.clone()),
        "20 MiB come back as they went"
    );
    let bytes = riptide_persistence::store::charge(b"large", large.len());
    assert_eq!(counted(store, &space).await, (1, bytes));
    write(store, &space, Write::delete(entry("large"))).await;
    assert_eq!(counted(store, &space).await, (0, 0));
}

pub async fn a_thousand_writes_are_one_commit(store: &Handle) {
    let space = space();
    let keys: Vec<Key> = (0..1000)
        .map(|number| entry(format!("k{number}")))
        .collect();
    let batch = Batch::of(
        keys.iter()
            .map(|key| Write::put(key.clone(), key.path.clone())),
    );
    let applied = applied(store, &space, batch).await;
    assert_eq!(applied.outcomes.len(), 1000);
    assert_eq!(applied.usage.entries, 1000);
    let read = store
        .read(&space, applied.view.generation, &keys)
        .await
        .unwrap();
    assert!(
        keys.iter()
            .zip(&read.records)
            .all(|(key, record)| record.as_ref().unwrap().value == key.path)
    );
    assert_agrees(store, &space).await;
}

pub async fn no_more_writes_are_one_commit_than_allowed(store: &Handle) {
    let space = space();
    let batch = |writes| {
        let put = |number| ending(entry(format!("{number}")), "v", 600_000);
        Batch::of((0..writes).map(put).collect::<Vec<_>>())
    };
    let error = store.commit(&space, batch(MAX_WRITES + 1)).await;
    let words = format!("at most {MAX_WRITES}");
    assert!(
        matches!(&error, Err(Error::Misuse(text)) if text.contains(&words)),
        "{error:?}"
    );
    assert_eq!(counted(store, &space).await, (0, 0));
    let all = applied(store, &space, batch(MAX_WRITES)).await;
    assert_eq!(all.outcomes.len(), MAX_WRITES);
    assert_eq!(counted(store, &space).await.0, MAX_WRITES as u64);
    assert_agrees(store, &space).await;
}

pub async fn an_empty_value_is_a_value(store: &Handle) {
    let space = space();
    write(store, &space, Write::put(entry("k"), "")).await;
    assert_eq!(value(store, &space, entry("k")).await, Some(Bytes::new()));
    let bytes = riptide_persistence::store::charge(b"k", 0);
    assert_eq!(counted(store, &space).await, (1, bytes));
}

pub async fn tables_do_not_mix(store: &Handle) {
    let space = space();
    let batch = Batch::of(Table::ALL.map(|table| Write::put(key(table, "same"), table.mark())));
    applied(store, &space, batch).await;
    for table in Table::ALL {
        assert_eq!(
            value(store, &space, key(table, "same")).await,
            Some(table.mark().into()),
            "{table:?}"
        );
    }
    write(store, &space, Write::delete(key(Table::Control, "same"))).await;
    for table in Table::ALL {
        let there = value(store, &space, key(table, "same")).await.is_some();
        assert_eq!(there, table != Table::Control, "{table:?}");
    }
}

pub async fn spaces_do_not_mix(store: &Handle) {
    let (one, two) = (space(), space());
    for table in Table::ALL {
        write(store, &one, Write::put(key(table, "k"), "one")).await;
        assert_eq!(value(store, &two, key(table, "k")).await, None, "{table:?}");
    }
    assert_eq!(view(store, &two).await, View::default());
    assert_eq!(counted(store, &two).await, (0, 0));
    write(store, &two, Write::put(entry("k"), "two")).await;
    write(store, &one, Write::delete(entry("k"))).await;
    assert_eq!(value(store, &two, entry("k")).await, Some("two".into()));
    assert_eq!(counted(store, &two).await.0, 1);
}

pub async fn a_read_sees_one_moment(store: &Handle) {
    let space = space();
    let keys = [entry("a"), entry("b"), key(Table::Control, "c")];
    let batch = |round: u32| Batch::of(keys.clone().map(|key| Write::put(key, round.to_string())));
    applied(store, &space, batch(0)).await;
    let generation = view(store, &space).await.generation;
    let writer = tokio::spawn({
        let (store, space, keys) = (store.clone(), space.clone(), keys.clone());
        async move {
            for round in 1..60 {
                let batch = Batch::of(keys.clone().map(|key| Write::put(key, round.to_string())));
                applied(&store, &space, batch).await;
            }
        }
    });
    while !writer.is_finished() {
        let read = store.read(&space, generation, &keys).await.unwrap();
        let values: Vec<Bytes> = read
            .records
            .into_iter()
            .map(|record| record.unwrap().value)
            .collect();
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}
