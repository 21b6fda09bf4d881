//! The Redis backend against a real server that is frozen, full or damaged. It
//! does not know the promises of the port, which conformance.rs holds every backend
//! to.

use std::time::Duration;

use bytes::Bytes;
use riptide_persistence::store::{
    Batch, Commit, Error, Expiry, Incarnation, Key, Limits, Mode, Outcome, Space, Store, Table,
    Write,
    redis::{Redis, Settings},
};

use crate::redis::Redis as Server;

/// Long enough for a busy machine.
const PATIENT: Duration = Duration::from_secs(5);
/// Short enough that a frozen server is noticed soon.
const HASTY: Duration = Duration::from_millis(400);

pub fn open(url: &str) -> Redis {
    open_for(url, PATIENT)
}

/// A store that waits so long for an answer.
pub fn open_for(url: &str, command_timeout: Duration) -> Redis {
    let settings = Settings {
        url: url.to_owned().into(),
        pool_size: 2,
        command_timeout,
        connect_timeout: Duration::from_secs(1),
        invalidation_buffer: 8192,
        tls: None,
    };
    Redis::connect(&settings).unwrap()
}

/// A store that has reached its server.
pub async fn connected(url: &str) -> Redis {
    let store = open(url);
    answering(&store).await;
    store
}

/// Waits until the server answers.
pub async fn answering(store: &Redis) {
    until(store, |_| false).await;
}

/// Pings until it is answered, or fails as wanted; the error, if it does.
async fn until(store: &Redis, wanted: impl Fn(&Error) -> bool) -> Option<Error> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let error = store.ping().await.err()?;
        if wanted(&error) {
            return Some(error);
        }
        assert!(tokio::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Pings until it fails as wanted.
pub async fn failing(store: &Redis, wanted: impl Fn(&Error) -> bool) -> Error {
    for _ in 0..4_000 {
        match store.ping().await {
            Err(error) if wanted(&error) => return error,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    panic!("it never failed as wanted; now: {:?}", store.ping().await);
}

pub fn space() -> Space {
    Space::tenant(Incarnation::random())
}

fn entry(name: &str) -> Key {
    Key::entry("default", name)
}

pub fn put(name: &str) -> Batch {
    Batch::of([Write::put(entry(name), name.to_owned())])
}

pub async fn version(store: &Redis, space: &Space, batch: Batch) -> u64 {
    match store.commit(space, batch).await.unwrap() {
        Commit::Applied(applied) => match applied.outcomes[..] {
            [Outcome::Done { version, .. }] => version,
            ref outcomes => panic!("{outcomes:?}"),
        },
        Commit::Refused(refusal) => panic!("{refusal:?}"),
    }
}

async fn value(store: &Redis, space: &Space, name: &str) -> Option<Bytes> {
    let read = store.read(space, 0, &[entry(name)]).await.unwrap();
    read.records[0].as_ref().map(|record| record.value.clone())
}

#[tokio::test]
async fn flushed_scripts_are_not_noticed() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    assert_eq!(version(&store, &space, put("a")).await, 1);
    assert_eq!(server.cli(&["script", "flush"]), "OK");
    assert_eq!(version(&store, &space, put("b")).await, 2);
    assert_eq!(server.cli(&["script", "flush"]), "OK");
    assert_eq!(store.usage(&space).await.unwrap().entries, 2);
}

#[tokio::test]
async fn a_frozen_server_is_not_waited_for_and_nothing_is_written_twice() {
    let server = Server::start();
    let store = open_for(&server.url(), HASTY);
    answering(&store).await;
    let space = space();
    assert_eq!(version(&store, &space, put("k")).await, 1);
    server.freeze();
    let names: Vec<String> = (0..8).map(|number| format!("f{number}")).collect();
    let commits = names
        .iter()
        .map(|name| store.commit(&space, put(name)))
        .collect::<Vec<_>>();
    for outcome in futures::future::join_all(commits).await {
        assert!(
            matches!(outcome, Err(Error::OutcomeUnknown(_))),
            "they were on their way: {outcome:?}"
        );
    }
    // No more is sent: what is answered now was not written.
    let error = store.commit(&space, put("never")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    let error = store.read(&space, 0, &[entry("k")]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    // Long enough for the connections to be given up.
    failing(&store, |error| {
        !error.to_string().contains("stopped answering")
    })
    .await;
    server.thaw();
    answering(&store).await;
    assert_eq!(value(&store, &space, "never").await, None);
    let mut written = 0;
    for name in &names {
        written += u64::from(value(&store, &space, name).await.is_some());
    }
    assert_eq!(
        version(&store, &space, put("k")).await,
        1 + written + 1,
        "each that was written was written once"
    );
    assert!(store.audit(&space).await.unwrap().agrees());
}

#[tokio::test]
async fn a_full_server_says_so_and_lets_go() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    for name in ["a", "b"] {
        let write = Write::put(entry(name), vec![0; 100_000]);
        version(&store, &space, Batch::of([write])).await;
    }
    server.cli(&["config", "set", "maxmemory", "1mb"]);
    let error = store.commit(&space, put("c")).await.unwrap_err();
    assert!(matches!(error, Error::Full(_)), "{error}");
    assert!(value(&store, &space, "a").await.is_some(), "reads go on");
    let touch = Write::new(
        entry("a"),
        riptide_persistence::store::Check::Any,
        riptide_persistence::store::Action::Touch(Expiry::AfterMs(60_000)),
    );
    store.commit(&space, Batch::of([touch])).await.unwrap();
    let delete = Batch::of([Write::delete(entry("b"))]);
    assert_eq!(version(&store, &space, delete).await, 0);
    let usage = store.usage(&space).await.unwrap();
    assert!(usage.exact && usage.entries == 1, "{usage:?}");
    server.cli(&["config", "set", "maxmemory", "0"]);
    version(&store, &space, put("c")).await;
    assert!(store.audit(&space).await.unwrap().agrees());
}

#[tokio::test]
async fn damaged_records_are_named_and_block_nothing_else() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    version(&store, &space, put("good")).await;
    let name = |key: &str| format!("v1:{{{}}}:k:0:default:{key}", space.name());
    server.cli(&["set", &name("short"), "x"]);
    server.cli(&["set", &name("newer"), "\u{9}123456789012345678901234"]);
    server.cli(&["rpush", &name("list"), "x"]);
    for bad in ["short", "newer"] {
        let error = store.read(&space, 0, &[entry(bad)]).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
    }
    for bad in ["short", "newer", "list"] {
        let both = Batch {
            mode: Mode::Each,
            ..Batch::of([Write::put(entry("other"), "v"), Write::put(entry(bad), "v")])
        };
        let error = store.commit(&space, both).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
        assert_eq!(
            value(&store, &space, "other").await,
            None,
            "nothing is written"
        );
    }
    assert!(value(&store, &space, "good").await.is_some());
    server.cli(&["set", &format!("v1:{{{}}}:s", space.name()), "x"]);
    let error = store.usage(&space).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

/// Gives a space so many buckets that ended long ago, of one record of 10 bytes
/// each, as if it had not been written to since.
const FORGOTTEN: &str = "
local layout = '>BBI6I6I7I7I6I7I6I6'
local state = redis.call('GET', KEYS[1])
local f, r, ep, gen, seq, bytes, entries, orphaned, mark, due = struct.unpack(layout, state)
for i = 1, tonumber(ARGV[1]) do
  redis.call('ZADD', KEYS[2], 1000 + i, 1000 + i)
  redis.call('HSET', KEYS[3], 1000 + i, struct.pack('>I6I7', 1, 10))
end
redis.call('SET', KEYS[1], struct.pack(layout, f, r, ep, gen, seq, bytes + 10 * ARGV[1], entries + ARGV[1], orphaned, mark, 1001) .. string.sub(state, 54))
return 'done'";

#[tokio::test]
async fn what_ended_long_ago_refuses_nobody() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    for mode in [Mode::Whole, Mode::Each] {
        let space = space();
        version(&store, &space, put("a")).await;
        let key = |name: &str| format!("v1:{{{}}}:{name}", space.name());
        let done = server.cli(&[
            "eval",
            FORGOTTEN,
            "3",
            &key("s"),
            &key("b"),
            &key("h"),
            "1000",
        ]);
        assert_eq!(done, "done");
        let limits = Limits {
            entries: Some(2),
            bytes: Some(100),
        };
        let batch = Batch {
            mode,
            limits,
            ..put("b")
        };
        version(&store, &space, batch).await;
        let usage = store.usage(&space).await.unwrap();
        assert_eq!(usage.entries, 2);
        assert!(store.audit(&space).await.unwrap().agrees());
        assert_eq!(server.cli(&["exists", &key("b"), &key("h")]), "0");
    }
}

#[tokio::test]
async fn a_store_with_another_past_is_noticed() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let tenant = || Key::new(Table::Tenant, "acme");
    let write = || Batch::of([Write::put(tenant(), "v")]);
    let start = store.changes(None).await.unwrap().position;
    store.commit(&Space::registry(), write()).await.unwrap();
    let seen = store.changes(Some(start.clone())).await.unwrap();
    assert_eq!((seen.keys, seen.lost), (vec![tenant()], false));

    // The history is cut behind the place.
    store.commit(&Space::registry(), write()).await.unwrap();
    server.cli(&["xtrim", "v1:{registry}:changes", "maxlen", "1"]);
    assert!(store.changes(Some(seen.position)).await.unwrap().lost);

    server.cli(&["flushall"]);
    let lost = store.changes(Some(start)).await.unwrap();
    assert!(lost.lost && lost.keys.is_empty());
    store.commit(&Space::registry(), write()).await.unwrap();
    let seen = store.changes(Some(lost.position)).await.unwrap();
    assert_eq!((seen.keys, seen.lost), (vec![tenant()], false));
}

#[tokio::test]
async fn index_paths_of_expired_records_are_swept() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    let job = |name: &'static str| Write::put(Key::new(Table::Job, name), "v");
    let batch = Batch::of([job("a").expiring(Expiry::AfterMs(1)), job("b")]);
    store.commit(&space, batch).await.unwrap();
    let index = format!("v1:{{{}}}:i:j", space.name());
    assert_eq!(server.cli(&["zcard", &index]), "2");
    let query = || riptide_persistence::store::Query {
        table: Table::Job,
        generation: 0,
        prefix: Bytes::new(),
        after: None,
        limit: 10,
        value_bytes: 10,
    };
    crate::redis::eventually("the record expires", || {
        server.cli(&["exists", &format!("v1:{{{}}}:j:a", space.name())]) == "0"
    });
    let page = store.list(&space, query()).await.unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(server.cli(&["zcard", &index]), "1");
}
