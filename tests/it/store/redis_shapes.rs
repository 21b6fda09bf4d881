//! The Redis backend on what it can be reached as: a Cluster, a Sentinel group, a
//! unix socket. It does not know single servers' faults.

use std::time::Duration;

use riptide_persistence::store::{
    Batch, Check, Commit, Error, Expiry, Key, Mode, Outcome, Query, Reclaim, Space, Step, Store,
    Table, Write, redis::Redis,
};

use super::{
    patient,
    redis_faults::{answering, open_for, space},
};
use crate::{
    redis::Redis as Server,
    redis_groups::{Cluster, Sentinels},
};

fn entry(name: &str) -> Key {
    Key::entry("default", name)
}

fn entries(count: usize) -> Batch {
    Batch::of((0..count).map(|number| Write::put(entry(&format!("e{number}")), "value")))
}

async fn applied(store: &Redis, space: &Space, batch: Batch) -> Vec<Outcome> {
    match store.commit(space, batch).await.unwrap() {
        Commit::Applied(applied) => applied.outcomes,
        Commit::Refused(refusal) => panic!("{refusal:?}"),
    }
}

/// Paths of all entries, page by page.
async fn listed(store: &Redis, space: &Space) -> usize {
    let (mut after, mut found) = (None, std::collections::BTreeSet::new());
    loop {
        let query = Query {
            table: Table::Entry,
            generation: 0,
            prefix: "default:".into(),
            after,
            limit: 7,
            value_bytes: 2,
        };
        let page = store.list(space, query).await.unwrap();
        assert!(page.items.len() <= 7);
        found.extend(page.items.into_iter().map(|item| item.path));
        after = page.next;
        if after.is_none() {
            return found.len();
        }
    }
}

#[tokio::test]
async fn a_unix_socket_is_reached() {
    let server = Server::start();
    for scheme in ["unix", "redis+unix"] {
        let url = format!("{scheme}://{}", server.socket().display());
        let store = patient(&url).await;
        applied(&store, &space(), entries(3)).await;
    }
}

#[tokio::test]
async fn a_cluster_keeps_each_space_on_one_node() {
    let cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    let start = store.changes(None).await.unwrap().position;
    for _ in 0..12 {
        let space = space();
        applied(&store, &space, entries(40)).await;
        applied(
            &store,
            &space,
            Batch {
                mode: Mode::Each,
                ..Batch::of([
                    Write::put(Key::new(Table::Job, "j"), "v"),
                    Write::put(entry("timed"), "v").expiring(Expiry::AfterMs(60_000)),
                    Write::delete(entry("e0")).when(Check::Present),
                ])
            },
        )
        .await;
        let holders = cluster.nodes.iter().filter(|node| {
            let pattern = format!("v1:{{{}}}:*", space.name());
            !node.cli(&["--scan", "--pattern", &pattern]).is_empty()
        });
        assert_eq!(holders.count(), 1);
        assert_eq!(listed(&store, &space).await, 40);
        let audit = store.audit(&space).await.unwrap();
        assert!(audit.agrees() && audit.counted.entries == 40, "{audit:?}");

        let flush = Batch {
            step: Some(Step::Generation),
            ..Batch::default()
        };
        applied(&store, &space, flush).await;
        let (mut after, mut removed) = (None, 0);
        loop {
            let what = Reclaim::Orphans { below: 1 };
            let step = store.reclaim(&space, what, after, 100).await.unwrap();
            removed += step.entries;
            after = step.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(removed, 40);
        assert_eq!(store.usage(&space).await.unwrap().orphaned_bytes, 0);
    }
    let tenant = Key::new(Table::Tenant, "acme");
    applied(
        &store,
        &Space::registry(),
        Batch::of([Write::put(tenant.clone(), "v")]),
    )
    .await;
    let changes = store.changes(Some(start)).await.unwrap();
    assert_eq!((changes.keys, changes.lost), (vec![tenant], false));
}

#[tokio::test]
async fn a_slot_that_moves_takes_its_space_along() {
    let cluster = Cluster::start();
    // Commits are repeated for so long while the slot moves.
    let store = open_for(&cluster.url(), Duration::from_secs(2));
    answering(&store).await;
    let space = space();
    applied(&store, &space, entries(20)).await;
    let any = &cluster.nodes[0];
    let state = format!("v1:{{{}}}:s", space.name());
    let slot = any.cli(&["cluster", "keyslot", &state]);
    let owns = |node: &&Server| node.cli(&["cluster", "countkeysinslot", &slot]) != "0";
    let from = cluster.nodes.iter().find(owns).unwrap();
    let to = cluster.nodes.iter().find(|node| !owns(node)).unwrap();
    let id = |node: &Server| node.cli(&["cluster", "myid"]);
    to.cli(&["cluster", "setslot", &slot, "importing", &id(from)]);
    from.cli(&["cluster", "setslot", &slot, "migrating", &id(to)]);
    // Half of it is here and half there: nothing can be decided, and nothing is.
    let keys = from.cli(&["cluster", "getkeysinslot", &slot, "1000"]);
    let port = to.port().to_string();
    for (number, key) in keys.lines().enumerate() {
        from.cli(&["migrate", "127.0.0.1", &port, key, "0", "5000"]);
        if number == 9 {
            let both = Batch::of([
                Write::put(entry("e0"), "new"),
                Write::put(entry("e1"), "new"),
            ]);
            let error = store.commit(&space, both).await.unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error}");
        }
    }
    for node in [to, from] {
        node.cli(&["cluster", "setslot", &slot, "node", &id(to)]);
    }
    let outcomes = applied(
        &store,
        &space,
        Batch::of([Write::put(entry("e0"), "moved")]),
    )
    .await;
    assert!(
        matches!(
            outcomes[..],
            [Outcome::Done {
                existed: true,
                version: 21,
                ..
            }]
        ),
        "{outcomes:?}"
    );
    assert!(owns(&to) && !owns(&from));
    assert_eq!(listed(&store, &space).await, 20);
    assert!(store.audit(&space).await.unwrap().agrees());
}

#[tokio::test]
async fn sentinels_tell_the_primary_and_the_next_one() {
    let mut group = Sentinels::start();
    let store = patient(&group.url()).await;
    let space = space();
    applied(&store, &space, entries(20)).await;
    assert_eq!(group.primary.cli(&["wait", "1", "5000"]), "1");
    crate::redis::eventually("the replica has it", || {
        group.replica.cli(&["dbsize"]) == group.primary.cli(&["dbsize"])
    });
    group.primary.kill();
    let mut tries = 0;
    loop {
        match store.commit(&space, entries(1)).await {
            Ok(Commit::Applied(_)) => break,
            Ok(Commit::Refused(refusal)) => panic!("{refusal:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        tries += 1;
        assert!(tries < 1_500, "{:?}", store.ping().await);
    }
    answering(&store).await;
    let audit = store.audit(&space).await.unwrap();
    assert!(audit.agrees() && audit.counted.entries == 20, "{audit:?}");
}
