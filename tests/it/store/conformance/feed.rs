//! The feed of announced commits. It does not know who drops what for it.

use riptide_persistence::store::{Changes, Position};

use super::*;

/// Announced records live in the registry.
fn registry() -> Space {
    Space::registry()
}

/// A name nobody else uses, since the registry is shared.
fn name(of: &str) -> String {
    format!("{}-{of}", Incarnation::random())
}

async fn now(store: &Handle) -> Position {
    let changes = store.changes(None).await.unwrap();
    assert!(changes.keys.is_empty() && !changes.lost);
    changes.position
}

/// Reads on until a key has come, or nothing comes any more.
async fn until(store: &Handle, mut position: Position, last: &Key) -> (Vec<Key>, Position) {
    let mut keys = Vec::new();
    for _ in 0..20 {
        let changes = store.changes(Some(position)).await.unwrap();
        assert!(!changes.lost);
        position = changes.position;
        keys.extend(changes.keys);
        if keys.contains(last) {
            break;
        }
    }
    (keys, position)
}

pub async fn announced_commits_come_in_order(store: &Handle) {
    let position = now(store).await;
    let names: Vec<String> = (0..30).map(|number| name(&number.to_string())).collect();
    let mut expected = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let table = if number % 2 == 0 {
            Table::Tenant
        } else {
            Table::ApiKey
        };
        write(store, &registry(), Write::put(key(table, name), "v")).await;
        expected.push(key(table, name));
    }
    write(
        store,
        &registry(),
        Write::delete(key(Table::Tenant, &names[0])),
    )
    .await;
    expected.push(key(Table::Tenant, &names[0]));
    write(
        store,
        &registry(),
        Write::put(key(Table::ApiKey, &names[1]), "w"),
    )
    .await;
    expected.push(key(Table::ApiKey, &names[1]));
    let together = [key(Table::Tenant, name("x")), key(Table::ApiKey, name("y"))];
    applied(
        store,
        &registry(),
        Batch::of(together.clone().map(|key| Write::put(key, "v"))),
    )
    .await;
    expected.extend(together.clone());

    let (mut keys, _) = until(store, position, &together[1]).await;
    keys.retain(|key| expected.contains(key));
    assert_eq!(keys, expected);
}

pub async fn a_position_can_be_resumed(store: &Handle) {
    let start = now(store).await;
    let first = key(Table::Tenant, name("first"));
    let second = key(Table::Tenant, name("second"));
    write(store, &registry(), Write::put(first.clone(), "v")).await;
    let (keys, middle) = until(store, start.clone(), &first).await;
    assert!(keys.contains(&first));
    write(store, &registry(), Write::put(second.clone(), "v")).await;
    let (keys, _) = until(store, middle, &second).await;
    assert!(
        keys.contains(&second) && !keys.contains(&first),
        "not told twice"
    );
    let (keys, _) = until(store, start, &second).await;
    assert!(
        keys.contains(&first) && keys.contains(&second),
        "the same place gives the same again"
    );
}

pub async fn an_unknown_position_is_lost(store: &Handle) {
    for text in ["", "x", "no-such-1", "0-0-0", "99999999999999-0"] {
        let changes = store.changes(Some(Position(text.into()))).await.unwrap();
        if !changes.lost {
            panic!("{text:?} is taken for a position: {changes:?}");
        }
        let tenant = key(Table::Tenant, name(text));
        write(store, &registry(), Write::put(tenant.clone(), "v")).await;
        let (keys, _) = until(store, changes.position, &tenant).await;
        assert!(keys.contains(&tenant), "the new position goes on");
    }
}

pub async fn other_tables_are_not_announced(store: &Handle) {
    let position = now(store).await;
    let name = name("other");
    for table in Table::ALL.into_iter().filter(|table| !table.announced()) {
        write(store, &registry(), Write::put(key(table, &name), "v")).await;
    }
    let last = key(Table::Tenant, &name);
    write(store, &registry(), Write::put(last.clone(), "v")).await;
    let (mut keys, _) = until(store, position, &last).await;
    keys.retain(|key| key.path == name);
    assert_eq!(keys, [last]);
}

pub async fn a_waiting_reader_is_woken(store: &Handle) {
    let position = now(store).await;
    let tenant = key(Table::Tenant, name("woken"));
    let waiting = async {
        let mut position = position;
        loop {
            let Changes {
                keys,
                lost,
                position: next,
            } = store.changes(Some(position)).await.unwrap();
            assert!(!lost);
            if keys.contains(&tenant) {
                return;
            }
            position = next;
        }
    };
    let writing = async {
        tokio::task::yield_now().await;
        write(store, &registry(), Write::put(tenant.clone(), "v")).await;
    };
    let both = async { tokio::join!(waiting, writing) };
    tokio::time::timeout(std::time::Duration::from_secs(10), both)
        .await
        .unwrap();
}

pub async fn refused_commits_are_not_announced(store: &Handle) {
    let position = now(store).await;
    let (never, last) = (
        key(Table::Tenant, name("never")),
        key(Table::Tenant, name("last")),
    );
    refused(
        store,
        &registry(),
        Batch::of([Write::put(never.clone(), "v").when(Check::Present)]),
    )
    .await;
    write(
        store,
        &registry(),
        Write::check(never.clone(), Check::Absent),
    )
    .await;
    write(store, &registry(), Write::put(last.clone(), "v")).await;
    let (keys, _) = until(store, position, &last).await;
    assert!(keys.contains(&last) && !keys.contains(&never));
}
