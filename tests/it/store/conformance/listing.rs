//! Listing. It does not know what the listed records mean.

use std::collections::BTreeSet;

use riptide_persistence::store::{Cursor, Error, Listed, Query, Step};

use super::*;

fn query(table: Table, prefix: impl AsRef<[u8]>, limit: usize) -> Query {
    let prefix = Bytes::copy_from_slice(prefix.as_ref());
    Query {
        table,
        generation: 0,
        prefix,
        after: None,
        limit,
        value_bytes: usize::MAX,
    }
}

/// Lists to the end, page by page.
async fn list_all(store: &Handle, space: &Space, mut query: Query) -> Vec<Listed> {
    let mut items = Vec::new();
    for _ in 0..100_000 {
        let page = store.list(space, query.clone()).await.unwrap();
        assert!(page.items.len() <= query.limit);
        items.extend(page.items);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return items,
        }
    }
    panic!("a listing comes to an end");
}

fn paths(items: &[Listed]) -> Vec<Bytes> {
    items.iter().map(|item| item.path.clone()).collect()
}

const ORDERED: [Table; 4] = [Table::Tenant, Table::ApiKey, Table::Job, Table::Session];

pub async fn ordered_tables_come_in_the_order_of_bytes(store: &Handle) {
    let space = space();
    let names: [&[u8]; 12] = [
        b"b",
        b"a",
        b"ab",
        b"a:b",
        b"a\0",
        b"\xff",
        b"B",
        b"aa",
        b"\0",
        b"a{x}",
        b"z*",
        b"caf\xc3\xa9",
    ];
    let mut sorted = names.map(Bytes::from_static).to_vec();
    sorted.sort();
    for table in ORDERED {
        for name in names {
            write(
                store,
                &space,
                Write::put(key(table, name), Bytes::from_static(name)),
            )
            .await;
        }
        let page = store.list(&space, query(table, "", 100)).await.unwrap();
        assert_eq!(paths(&page.items), sorted);
        assert_eq!(page.next, None);
        assert_eq!(page.view, view(store, &space).await);
        for item in &page.items {
            let there = record(store, &space, key(table, &item.path)).await.unwrap();
            assert_eq!(item.record, there);
            assert_eq!(item.value_bytes, item.path.len() as u64);
        }
        write(store, &space, Write::delete(key(table, "ab"))).await;
        let left = store.list(&space, query(table, "", 100)).await.unwrap();
        assert_eq!(left.items.len(), names.len() - 1);
    }
    let empty = store
        .list(&super::space(), query(Table::Job, "", 1))
        .await
        .unwrap();
    assert!(empty.items.is_empty() && empty.next.is_none());
}

pub async fn pages_follow_each_other(store: &Handle) {
    let space = space();
    let names: Vec<String> = (0..57).map(|number| format!("n{number:02}")).collect();
    applied(
        store,
        &space,
        Batch::of(
            names
                .iter()
                .map(|name| Write::put(key(Table::Job, name), "v")),
        ),
    )
    .await;
    for limit in [1, 10, 19, 56, 57, 58, 1000] {
        let items = list_all(store, &space, query(Table::Job, "", limit)).await;
        assert_eq!(paths(&items), names, "by pages of {limit}");
    }
    let page = store.list(&space, query(Table::Job, "", 10)).await.unwrap();
    assert_eq!(
        page.next,
        Some(Cursor("n09".into())),
        "the last path listed"
    );
    let after = Query {
        after: Some(Cursor("n54x".into())),
        ..query(Table::Job, "", 10)
    };
    let page = store.list(&space, after).await.unwrap();
    assert_eq!(
        paths(&page.items),
        ["n55", "n56"],
        "a path that is not there is a place too"
    );
    for limit in [0, 1001] {
        let error = store
            .list(&space, query(Table::Job, "", limit))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Misuse(_)), "{error}");
    }
    let error = store
        .list(&space, query(Table::Control, "", 1))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Misuse(_)), "{error}");
}

pub async fn a_prefix_confines_a_listing(store: &Handle) {
    let space = space();
    for table in [Table::ApiKey, Table::Entry] {
        for name in ["a", "ab", "ab:1", "ab:2", "ab;", "abc", "b", "a*"] {
            write(store, &space, Write::put(key(table, name), "v")).await;
        }
        for limit in [1, 2, 100] {
            let mut found = paths(&list_all(store, &space, query(table, "ab", limit)).await);
            found.sort();
            found.dedup();
            assert_eq!(found, ["ab", "ab:1", "ab:2", "ab;", "abc"], "{table:?}");
        }
        let none = list_all(store, &space, query(table, "x", 10)).await;
        assert!(none.is_empty());
        let mut colon = paths(&list_all(store, &space, query(table, "ab:", 10)).await);
        colon.sort();
        assert_eq!(colon, ["ab:1", "ab:2"]);
    }
    let before = Query {
        after: Some(Cursor("a".into())),
        ..query(Table::ApiKey, "ab:", 10)
    };
    let page = store.list(&space, before).await.unwrap();
    assert_eq!(
        paths(&page.items),
        ["ab:1", "ab:2"],
        "a place before the prefix"
    );
}

pub async fn values_are_cut(store: &Handle) {
    let space = space();
    for table in [Table::Job, Table::Entry] {
        let version = write(store, &space, Write::put(key(table, "k"), "0123456789")).await;
        for (cut, value) in [(0, ""), (4, "0123"), (10, "0123456789"), (11, "0123456789")] {
            let items = list_all(
                store,
                &space,
                Query {
                    value_bytes: cut,
                    ..query(table, "", 10)
                },
            )
            .await;
            assert_eq!(items.len(), 1);
            assert_eq!(items[0].record.value, value);
            assert_eq!(
                (items[0].value_bytes, items[0].record.version),
                (10, version)
            );
        }
    }
}

pub async fn ended_records_are_not_listed(store: &Handle) {
    let space = space();
    for table in [Table::Job, Table::Entry] {
        let batch = Batch::of([
            ending(key(table, "ends"), "v", 30),
            ending(key(table, "stays"), "v", 60_000),
        ]);
        let put = applied(store, &space, batch).await;
        let Outcome::Done {
            expire_ms: Some(end),
            ..
        } = put.outcomes[0]
        else {
            panic!("{put:?}")
        };
        wait_past(store, end).await;
        let items = list_all(store, &space, query(table, "", 10)).await;
        assert_eq!(paths(&items), ["stays"]);
        let Outcome::Done { expire_ms, .. } = put.outcomes[1] else {
            panic!("{put:?}")
        };
        assert_eq!(items[0].record.expire_ms, expire_ms);
    }
}

pub async fn a_listing_is_stable_under_writes(store: &Handle) {
    let space = space();
    let stay: Vec<String> = (0..200).map(|number| format!("s{number:03}")).collect();
    for table in [Table::ApiKey, Table::Entry] {
        applied(
            store,
            &space,
            Batch::of(stay.iter().map(|name| Write::put(key(table, name), "v"))),
        )
        .await;
        let mut seen = Vec::new();
        let mut query = query(table, "s", 7);
        for round in 0.. {
            let page = store.list(&space, query.clone()).await.unwrap();
            seen.extend(
                paths(&page.items)
                    .into_iter()
                    .filter(|path| path.len() == 4),
            );
            // Records come, change and go before and after the place of the listing.
            let batch = Batch::of([
                Write::put(key(table, format!("s{:03}x{round}", round % 200)), "new"),
                Write::put(key(table, &stay[round % 200]), "changed"),
                Write::delete(key(
                    table,
                    format!("s{:03}x{}", (round + 190) % 200, round.wrapping_sub(10)),
                )),
            ]);
            applied(store, &space, batch).await;
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        let unique: BTreeSet<Bytes> = seen.iter().cloned().collect();
        assert_eq!(
            unique.len(),
            stay.len(),
            "{table:?}: those that stay are all seen"
        );
        if table.ordered() {
            assert_eq!(seen, stay, "in order, once");
        }
    }
}

pub async fn every_entry_is_listed(store: &Handle) {
    let space = space();
    let names: BTreeSet<Bytes> = (0..3000)
        .map(|number| format!("ns:{number}").into())
        .collect();
    for chunk in names.iter().collect::<Vec<_>>().chunks(1000) {
        let writes = chunk
            .iter()
            .map(|name| Write::put(entry(name), (*name).clone()));
        applied(store, &space, Batch::of(writes)).await;
    }
    for limit in [100, 1000] {
        let items = list_all(store, &space, query(Table::Entry, "", limit)).await;
        assert!(items.iter().all(|item| item.record.value == item.path));
        assert_eq!(paths(&items).into_iter().collect::<BTreeSet<_>>(), names);
    }
}

pub async fn entries_of_a_past_generation_are_not_listed(store: &Handle) {
    let space = space();
    applied(
        store,
        &space,
        Batch::of([
            Write::put(entry("old"), "v"),
            Write::put(key(Table::Job, "j"), "v"),
        ]),
    )
    .await;
    let flush = Batch {
        step: Some(Step::Generation),
        ..Batch::default()
    };
    let generation = applied(store, &space, flush).await.view.generation;
    write(store, &space, Write::put(entry("new"), "v")).await;
    let now = Query {
        generation,
        ..query(Table::Entry, "", 10)
    };
    assert_eq!(paths(&list_all(store, &space, now).await), ["new"]);
    assert_eq!(
        paths(&list_all(store, &space, query(Table::Job, "", 10)).await),
        ["j"]
    );

    applied(
        store,
        &space,
        Batch {
            step: Some(Step::Remove),
            ..Batch::default()
        },
    )
    .await;
    let view = view(store, &space).await;
    let now = Query {
        generation: view.generation,
        ..query(Table::Entry, "", 10)
    };
    assert!(list_all(store, &space, now).await.is_empty());
    assert!(
        list_all(store, &space, query(Table::Job, "", 10))
            .await
            .is_empty()
    );
}

pub async fn odd_prefixes_are_plain_bytes(store: &Handle) {
    let space = space();
    let names: [&[u8]; 12] = [
        b"*x",
        b"?x",
        b"[a]x",
        b"\\x",
        b"^x",
        b"{t}x",
        b"a\0x",
        b"\r\nx",
        b"\xff\xffx",
        b"\xffx",
        b"ax",
        b":x",
    ];
    for table in [Table::Job, Table::Entry] {
        for name in names {
            write(store, &space, Write::put(key(table, name), "v")).await;
        }
        for name in names {
            let prefix = &name[..name.len() - 1];
            let expected: BTreeSet<Bytes> = names
                .into_iter()
                .filter(|name| name.starts_with(prefix))
                .map(Bytes::from_static)
                .collect();
            let found = paths(&list_all(store, &space, query(table, prefix, 10)).await);
            assert_eq!(
                found.into_iter().collect::<BTreeSet<_>>(),
                expected,
                "{table:?} {prefix:?}"
            );
        }
    }
}
