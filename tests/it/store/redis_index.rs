//! What sessions are listed by in Redis, which drops records in silence. It does not
//! know what a session is.

use std::collections::BTreeMap;

use riptide_persistence::store::{
    Action, Batch, Check, Commit, Expiry, Incarnation, Key, Query, Renewal, Space, Store, Table,
    Write, redis::Redis,
};

use super::patient;
use crate::redis::{Redis as Server, eventually};

fn session(path: &str) -> Key {
    Key::new(Table::Session, path.to_owned())
}

fn put(path: &str, after_ms: u64) -> Write {
    let renewal = Renewal {
        idle_ms: 3_600_000,
        until_ms: 1 << 47,
    };
    Write::put(session(path), renewal.encode().to_vec()).expiring(Expiry::AfterMs(after_ms))
}

async fn commit(store: &Redis, space: &Space, writes: impl IntoIterator<Item = Write>) {
    let commit = store.commit(space, Batch::of(writes)).await.unwrap();
    assert!(matches!(commit, Commit::Applied(_)), "{commit:?}");
}

/// Members of the index, and of what tells when they leave.
fn indexed(server: &Server, space: &Space) -> [usize; 2] {
    ["i", "x"].map(|name| {
        let key = format!("v1:{{{}}}:{name}:u", space.name());
        server.cli(&["zcard", &key]).parse().unwrap()
    })
}

#[tokio::test]
async fn what_ended_leaves_the_index_with_later_commits() {
    let server = Server::start();
    let store = patient(&server.url()).await;
    let space = Space::sessions(Incarnation::random());
    commit(&store, &space, [put("kept", 3_600_000)]).await;
    for round in 0..10 {
        let writes = (0..100).map(|number| put(&format!("u{round}:{number}"), 50));
        commit(&store, &space, writes).await;
    }
    let over = store.now_ms() + 200;
    while store.now_ms() < over {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // Eight times 128 are more than a thousand, whatever the commits do.
    for round in 0..8 {
        let write = match round % 3 {
            0 => Write::new(session("kept"), Check::Any, Action::Renew),
            1 => put("kept", 3_600_000),
            _ => Write::new(
                session("kept"),
                Check::Any,
                Action::Touch(Expiry::AfterMs(9_000_000)),
            ),
        };
        commit(&store, &space, [write]).await;
    }
    assert_eq!(indexed(&server, &space), [1, 1]);
    commit(&store, &space, [Write::delete(session("kept"))]).await;
    assert_eq!(indexed(&server, &space), [0, 0]);
}

#[tokio::test]
async fn the_index_ends_with_its_last_record_though_nobody_comes() {
    let server = Server::start();
    let store = patient(&server.url()).await;
    let space = Space::sessions(Incarnation::random());
    let writes = (0..1_000).map(|number| put(&format!("u:{number}"), 100 + number % 300));
    commit(&store, &space, writes).await;
    assert_eq!(indexed(&server, &space), [1_000, 1_000]);
    eventually("the index has ended", || indexed(&server, &space) == [0, 0]);

    // One that is renewed, or that never ends, keeps it.
    let renewed = || Write::new(session("one"), Check::Any, Action::Renew);
    commit(&store, &space, [put("one", 300)]).await;
    commit(&store, &space, [renewed()]).await;
    let index = format!("v1:{{{}}}:i:u", space.name());
    let left_ms: i64 = server.cli(&["pttl", &index]).parse().unwrap();
    assert!(left_ms > 3_000_000, "{left_ms}");
    commit(&store, &space, [Write::put(session("two"), "for ever")]).await;
    assert_eq!(server.cli(&["pttl", &index]), "-1");
    commit(&store, &space, [Write::delete(session("two"))]).await;
    let left_ms: i64 = server.cli(&["pttl", &index]).parse().unwrap();
    assert!(left_ms > 3_000_000, "{left_ms}");
}

/// How often Redis has carried out each command so far, but for those that ask it
/// how it is.
fn commands(server: &Server) -> BTreeMap<String, u64> {
    let of_a_listing = ["evalsha", "zrangebylex", "getrange", "strlen", "get"];
    let mut commands = server.commands();
    commands.retain(|command, _| of_a_listing.contains(&&**command));
    commands
}

#[tokio::test]
async fn a_listing_costs_the_same_among_a_hundred_thousand_others() {
    let server = Server::start();
    let store = patient(&server.url()).await;
    let mut costs = Vec::new();
    for others in [0, 100_000] {
        let space = Space::sessions(Incarnation::random());
        for thousand in 0..others / 1_000 {
            let writes = (0..1_000).map(|number| {
                let path = format!("user{:05}:{number}", thousand * 500 + number / 2);
                put(&path, 3_600_000)
            });
            commit(&store, &space, writes).await;
        }
        let own = ["a", "b", "c"].map(|name| put(&format!("user12345.own:{name}"), 3_600_000));
        commit(&store, &space, own).await;
        let query = Query {
            table: Table::Session,
            generation: 0,
            prefix: "user12345.own:".into(),
            after: None,
            limit: 50,
            value_bytes: 100,
        };
        // The script is known to the server before anything is counted.
        store.list(&space, query.clone()).await.unwrap();
        server.cli(&["config", "resetstat"]);
        let page = store.list(&space, query).await.unwrap();
        assert_eq!((page.items.len(), page.next), (3, None));
        costs.push(commands(&server));
        assert_eq!(store.usage(&space).await.unwrap().entries, others + 3);
    }
    assert_eq!(costs[0], costs[1]);
    assert!(!costs[0].is_empty());
}
